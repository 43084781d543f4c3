"""What a command line asks for, once its words are understood: how to read, what to compute, what to show. Plain data, that can travel."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from attncli.types import Json
from attncli.variant import Variant, merge_choices


@dataclass(frozen=True)
class ReadOptions:
    """How the input is to be read."""

    input_format: str | None = None
    token_column: str | None = None
    header: str | None = None
    replacing: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputOptions:
    """How the result is to be shown."""

    format: str | None = None
    output: str | None = None
    force: bool = False
    only: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    top: int | None = None
    precision: int = 4
    heat: str = "auto"
    full: bool = False
    color: str = "auto"
    quiet: bool = False
    progress: bool = True
    error_format: str = "full"


@dataclass(frozen=True)
class VariantRequest:
    """What the command line chose, to be combined with what the file says."""

    choices: Json = field(default_factory=dict)
    extra_masks: tuple[str, ...] = ()  # masks that sugar adds

    def resolve_variant(self, file_choices: Any) -> Variant:
        return (
            merge_choices(file_choices, self.choices, self.extra_masks) if file_choices else self._variant_without_file
        )

    @cached_property
    def _variant_without_file(self) -> Variant:
        """What is chosen where the file chooses nothing: the same for every problem."""
        return merge_choices({}, self.choices, self.extra_masks)
