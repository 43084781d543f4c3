"""What a command line asks for, once its words are understood: how to read, what to compute, what to show. Plain data, that can travel."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from attncli.types import Json
from attncli.variant import Variant, combine


@dataclass(frozen=True)
class Reading:
    """How the input is to be read."""

    input_format: str | None = None
    token_column: str | None = None
    header: str | None = None
    replacing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Showing:
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
class Choosing:
    """What the command line chose, to be combined with what the file says."""

    choices: Json = field(default_factory=dict)
    also: tuple[str, ...] = ()  # masks that sugar adds

    def variant(self, file: Any) -> Variant:
        return combine(file, self.choices, self.also) if file else self._alone

    @cached_property
    def _alone(self) -> Variant:
        """What is chosen where the file chooses nothing: the same for every problem."""
        return combine({}, self.choices, self.also)
