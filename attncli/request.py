"""What a command line asks for, parsed: how to read, what to compute, what to show. Plain data, which can be sent to workers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypedDict

from attncli.errors import OptionError
from attncli.output_formats import FigureOptions, Heat, Normalize
from attncli.types import Json
from attncli.variant import CHOICES, Variant, merge_choices, open_choices


class TableKeywords(TypedDict, total=False):
    """The keywords of readers of tables; `ReadOptions` says what each holds."""

    token_column: str | None
    columns: str | None
    drop: str | None
    header: str | None
    separator: str | None


class ReaderKeywords(TableKeywords, total=False):
    """The keywords of `readers.read`: what `ReadOptions` says besides the format."""

    replacing: tuple[str, ...]
    state_dict: str | None


@dataclass(frozen=True)
class ReadOptions:
    """How an input is read."""

    input_format: str | None = None  # None: by its suffix
    token_column: str | None = None  # of CSV: a name, a place from 0, or `none`
    columns: str | None = None  # of CSV: those that are dimensions, separated by commas
    drop: str | None = None  # of CSV: those that are left out
    header: str | None = None  # of CSV: yes or no
    separator: str | None = None  # of CSV: comma, semicolon, tab, pipe or space
    replacing: tuple[str, ...] = ()  # NAME=PATH: fields that are taken from other files
    state_dict: str | None = None  # FILE:PREFIX: the checkpoint and its layer that learned arrays are taken from

    @property
    def reader_keywords(self) -> ReaderKeywords:
        """The keywords that a reader takes."""
        return {
            "token_column": self.token_column,
            "columns": self.columns,
            "drop": self.drop,
            "header": self.header,
            "separator": self.separator,
            "replacing": self.replacing,
            "state_dict": self.state_dict,
        }

    @property
    def is_for_one_problem(self) -> bool:
        """Whether something is said that a stream of problems has no place for."""
        texts = (self.token_column, self.columns, self.drop, self.header, self.separator)
        return bool(self.replacing or self.state_dict or any(texts))


@dataclass(frozen=True)
class OutputOptions:
    """Which part of a result is shown, where, and how."""

    format: str | None = None  # None: by the suffix of the output, or a table
    output: str | None = None  # a file; None: standard output
    force: bool = False  # replace the file if it exists
    only: tuple[str, ...] = ()  # names of steps; none: those that are shown by default
    at: tuple[str, ...] = ()  # AXIS=WHICH
    top: int | None = None  # how many of the largest weights of each query
    bare: bool = False  # JSON without what is the same in every record
    tidy: bool = False  # CSV or Parquet with a row for each number, of one step too
    standalone: bool = False  # LaTeX that compiles as it is
    shared_js: bool = False  # HTML without its script, which stands in a file of its own beside it
    precision: int = 4  # digits after the point, in tables
    heat: Literal["auto", "on", "off", "map"] = "auto"
    normalize: Normalize | None = None  # the scale of the shades; None: by the step
    full: bool = False  # leave nothing out on a terminal
    color: str = "auto"  # auto, always, never
    quiet: bool = False
    progress: bool = True
    error_format: str = "full"  # full, json, concise
    figure_format: str | None = None  # of `attn batch --plot`: a figure beside each result
    figure: FigureOptions = field(default_factory=FigureOptions)  # of `attn plot`

    @property
    def kept_steps(self) -> tuple[str, ...]:
        """The names of the steps to keep; none: those that are shown by default. A map is of the weights unless others are named."""
        return self.only or (("weights",) if self.heat == "map" else ())

    def shades(self, *, has_color: bool) -> Heat:
        """Return what is shaded where there are colours, or are not."""
        if self.heat == "auto":
            return "weights" if has_color else "off"
        return "steps" if self.heat == "on" else self.heat


@dataclass(frozen=True)
class VariantRequest:
    """What the command line chooses; `resolve_variant` combines it with what a file chooses."""

    choices: Json = field(default_factory=dict)  # by the names of `variant.CHOICES`, and `name`: a named variant
    extra_masks: tuple[str, ...] = ()  # of --causal and --window, added to the mask by `and`
    settings: Json = field(default_factory=dict)  # choices that hold where neither these nor a file say otherwise
    origins: Json = field(
        default_factory=dict
    )  # where they were set, by the same names; and where `rule`, `rtol` and `atol` were
    variant: Variant | None = None  # every choice, made already: then neither the others nor a file's count

    def resolve_variant(self, file_choices: Json) -> Variant:
        """The variant of a problem: the file's choices, replaced by those of the command line; settings fill what is left.

        Raises:
            OptionError: a choice does not exist or cannot be.
        """
        if self.variant is not None:
            return self.variant
        if not file_choices:
            return self._variant_without_file
        return merge_choices(file_choices, self.choices, self.extra_masks, self.settings)

    def used_settings(self, file_choices: Json, *, overruled: Collection[str] = ()) -> Json:
        """The settings that hold for a problem, each with where it was set: what results, verdicts and pages say of them.

        Args:
            file_choices: of the problem.
            overruled: choices that the command makes itself, whatever was set.

        Raises:
            OptionError: as `resolve_variant`.
        """
        if not self.settings:
            return {}
        chosen = merge_choices(file_choices, self.choices)
        used = open_choices(chosen, self.settings)
        return {"variant" if name == "name" else name: self.origins[name] for name in used if name not in overruled}

    @cached_property
    def _variant_without_file(self) -> Variant:
        """The variant where the file chooses nothing: the same for every problem."""
        return merge_choices({}, self.choices, self.extra_masks, self.settings)


# What stands for a choice and is no choice itself: `--causal` for the mask, `--rope` for the position, …
SHORT_FORMS = ("causal", "window", "rope", "alibi")


def make_variant_request(values: Json) -> VariantRequest:
    """Return what is chosen; what is wrong with it whatever the input holds is refused here.

    Args:
        values: by the names of `CHOICES`, `variant` for a named variant, and `SHORT_FORMS`; None, False or an empty list where
            nothing is chosen.

    Raises:
        OptionError: a choice does not exist, or two contradict each other.
    """
    choices = {name: values[name] for name in CHOICES if values.get(name) not in (None, [])}
    extra_masks = []
    if values.get("causal"):
        extra_masks.append("causal")
    if values.get("window") is not None:
        left, comma, right = values["window"].partition(",")
        if not comma:
            raise OptionError(
                "bad-option",
                f"--window takes L,R, not {values['window']}",
                help="--window 2,0: two tokens before and none after; -1: no bound",
            )
        extra_masks.append(f"window:left={left.strip()},right={right.strip()}")
    short_positions = [name for name in ("rope", "alibi") if values.get(name)]
    if len(short_positions) + (values.get("position") is not None) > 1:
        raise OptionError(
            "bad-option",
            f"--{short_positions[0]} and another position contradict each other",
            help="give only one of them",
        )
    if short_positions:
        choices["position"] = short_positions[0]
    if values.get("variant") is not None:
        choices["name"] = values["variant"]
    request = VariantRequest(choices, tuple(extra_masks))
    request.resolve_variant({})
    return request
