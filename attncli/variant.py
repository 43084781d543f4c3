"""Choosing parts: options, as text or numbers → one Variant, without torch (DESIGN §4).

`CHOICES` is the one table of what can be chosen: command line, the file's `variant` and the schema follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attncli import mask_expression as expression
from attncli.errors import OptionError, join_names, suggestion
from attncli.mask_expression import MaskExpression
from attncli.parts.dropout import dropout
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.parts.mixing import mixing
from attncli.parts.normalizers import normalizer
from attncli.parts.norms import norm
from attncli.parts.positions import position
from attncli.parts.projections import projection
from attncli.parts.scores import score
from attncli.parts.sinks import sink
from attncli.parts.traits import (
    DropoutTraits,
    MixingTraits,
    NormalizerTraits,
    NormTraits,
    PartTraits,
    PositionTraits,
    ProjectionTraits,
    ScoreTraits,
    SinkTraits,
)
from attncli.presets import parse_preset_name, preset_choices
from attncli.registry import Family, Option, Part, Range, format_value, parse_number
from attncli.types import Json

_FAMILIES_IN_ORDER = (
    projection,
    norm,
    position,
    score,
    link,
    mask,
    normalizer,
    sink,
    dropout,
    mixing,
)  # of computation
FAMILIES: Mapping[str, Family[PartTraits]] = {family.name: family for family in _FAMILIES_IN_ORDER}
DEFAULT_CHAIN = tuple(member.name for member in link)  # the default order is the order of declaration


@dataclass(frozen=True)
class Choice:
    """One thing that can be chosen: its name, how text becomes a value, and what it is without being said."""

    name: str  # as files spell it: kv_heads
    parse: Callable[[object], object]  # text, a number or a list → the value; raises OptionError
    default: Any  # None: it follows from the problem
    metavar: str
    help: str
    accepts_number: bool = False  # a file may write a bare number
    allowed_values: tuple[str, ...] = ()  # the only texts it may be
    integer_bounds: tuple[int, int] | None = None  # the integers it may be

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _member_names(family: Family[PartTraits]) -> str:
    return ", ".join(family.members)


def _part_choice(name: str, family: Family[PartTraits], default: str) -> Choice:
    """A choice of one part of a family."""
    return Choice(name, family.parse, family.parse(default), "PART", f"{family.help}: {_member_names(family)}")


def _text_choice(name: str, allowed_values: tuple[str, ...], default: str | None, help: str) -> Choice:
    """A choice among a few words."""

    def read(value: object) -> str:
        return str(Option(name, name, str, None, allowed_values=allowed_values).parse(value, "this"))

    return Choice(name, read, default, "|".join(allowed_values), help, allowed_values=allowed_values)


def _integer_choice(name: str, low: int, high: int, metavar: str, help: str) -> Choice:
    """A choice of an integer."""

    def read(value: object) -> int:
        try:
            return int(Option(name, name, int, None, Range(low=low, high=high)).parse(value, "this"))
        except OptionError:
            raise OptionError("bad-option", f"{name} is an integer from {low} to {high}, not {value}") from None

    return Choice(name, read, None, metavar, help, accepts_number=True, integer_bounds=(low, high))


def parse_mask(value: object) -> MaskExpression:
    """An expression, or a list of them, all of which must hold."""
    texts = value if isinstance(value, list | tuple) else [value]
    if not texts:
        raise OptionError("bad-option", "mask is an empty list", help="write full, or leave it out")
    return expression.conjunction(*(expression.parse_expression(str(t), mask) for t in texts))


def parse_chain(value: object) -> tuple[str, ...]:
    """Names of links, in order; a name may stand twice."""
    names = value if isinstance(value, list | tuple) else str(value).split(",")
    names = tuple(str(n).strip() for n in names if str(n).strip())
    if not names:
        raise OptionError("bad-option", "the chain names no link", help="a chain without links is none")
    if names == ("none",):
        return ()
    for name in names:
        link[name]
    return names


def _parse_dropout(value: object) -> Part[DropoutTraits]:
    """A part, or its probability alone; 0 is none."""
    try:
        p = parse_number(value)
    except ValueError:
        if str(value).lstrip("+-").lower() in ("nan", "inf", "infinity"):
            raise OptionError("bad-option", f"dropout is a probability ≥ 0 and < 1, not {value}") from None
        return dropout.parse(value)
    return dropout.parse("none" if p == 0 else f"dropout:p={format_value(p)}")


def _make_link_parser(name: str) -> Callable[[object], object]:
    option, words = link[name].options[0], ("none", *link[name].traits.value_words)

    def read(value: object) -> object:
        if str(value) in words:
            return str(value)
        try:
            return option.parse(value, "this")
        except OptionError:
            limits = f" {option.range}" if str(option.range) else ""
            raise OptionError(
                "bad-option", f"{name} is {join_names([*words, 'a number' + limits], 'or')}, not {value}"
            ) from None

    return read


def _make_link_choices() -> list[Choice]:
    out = []
    for member in link:
        for option in member.options:
            words = "|".join((*member.traits.value_words, "none", option.name.upper()))
            out.append(
                Choice(
                    member.name.replace("-", "_"),
                    _make_link_parser(member.name),
                    member.traits.default_value,
                    words,
                    f"{member.name}: {member.summary}",
                    accepts_number=True,
                )
            )
    return out


def _parse_device(value: object) -> str:
    kind, _, number = str(value).partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()) or (number and kind != "cuda"):
        raise OptionError("bad-option", f"no device is called {value!r}", help="it can be cpu, cuda, cuda:0 or mps")
    return str(value)


_MAX_HEADS = 2**20
_CHOICES = (
    Choice("projection", projection.parse, None, "PART", f"where q, k and v come from: {_member_names(projection)}"),
    _integer_choice("heads", 1, _MAX_HEADS, "H", "query heads; they split the width into equal slices"),
    _integer_choice("kv_heads", 1, _MAX_HEADS, "G", "key and value heads, shared by groups of query heads"),
    _text_choice("kv_map", ("interleave", "tile"), "interleave", "query head h reads kv head ⌊h/(H/G)⌋, or h mod G"),
    _part_choice("qk_norm", norm, "none"),
    _part_choice("position", position, "none"),
    _part_choice("score", score, "dot"),
    *_make_link_choices(),
    Choice(
        "chain",
        parse_chain,
        DEFAULT_CHAIN,
        "LINK,…",
        f"order of the links from score to normaliser: {','.join(DEFAULT_CHAIN)}",
    ),
    Choice(
        "mask",
        parse_mask,
        parse_mask("full"),
        "EXPR",
        f"{mask.help}: {_member_names(mask)}; joined by and, or, not; repeated = and",
    ),
    _part_choice("normalizer", normalizer, "softmax"),
    _part_choice("sink", sink, "none"),
    Choice(
        "dropout",
        _parse_dropout,
        dropout.parse("none"),
        "P",
        "drop weights with probability P; dropout:p=,seed= says its own seed",
        accepts_number=True,
    ),
    _part_choice("head_mixing", mixing, "none"),
    _text_choice("empty_rows", ("zero", "nan", "uniform", "error"), "zero", "weights of a query that sees no key"),
    _text_choice(
        "align", ("top-left", "bottom-right"), None, "where positions start if queries and keys differ in number"
    ),
    _integer_choice("seed", 0, 2**64 - 1, "N", "one stream for all that is drawn; without it one is drawn and shown"),
    _text_choice(
        "dtype", ("float64", "float32", "float16", "bfloat16"), None, "float64 for text, the file's own for binary"
    ),
    Choice("device", _parse_device, "cpu", "DEVICE", "cpu, cuda[:n] or mps"),
    _text_choice("schedule", ("dense", "tiled", "fused"), None, "whole, in tiles or by one kernel; found if not said"),
)
CHOICES: Mapping[str, Choice] = {c.name: c for c in _CHOICES}


class Variant:
    """All choices: what to compute, and nothing about what on.

    `Variant(mask="causal", heads=2)`: the options of the command line by their file names, as text, numbers
    or lists; `name` is a preset, whose choices the others override one by one.

    Raises:
        OptionError: a choice, part or option does not exist or cannot be.
    """

    def __init__(self, **choices: object) -> None:
        name = choices.pop("name", None)
        found, layer = (None, None) if name is None else parse_preset_name(str(name))
        self.name: str | None = None
        if found:
            self.name = found.name if layer is None else f"{found.name}:layer={layer}"
        self.required_choices: tuple[str, ...] = found.required_choices if found else ()
        chosen: Json = preset_choices(found, layer) if found else {}
        chosen |= {k: v for k, v in choices.items() if v is not None}
        self._values = {c.name: c.default for c in CHOICES.values()}
        self._described: Json | None = None  # once somebody has asked
        self.explicit = frozenset(chosen)  # by preset, file or command line; the rest is default
        for key, value in chosen.items():
            if key not in CHOICES:
                raise OptionError(
                    "unknown-choice", f"a variant has no {key!r}", help=suggestion(key, [*CHOICES, "name"])
                )
            if isinstance(value, bool | dict):
                raise OptionError("bad-option", f"{key} is {CHOICES[key].metavar}, not {str(value).lower()}")
            self._values[key] = CHOICES[key].parse(value)
        if not self.sink.is_none and not self.normalizer.traits.has_denominator:
            message = f"sink {self.sink} joins the denominator of softmax, and {self.normalizer} has none"
            raise OptionError("parts-disagree", message, help="leave the sink out, or normalise by softmax")
        self._check_heads()
        for member in link:
            key = member.name.replace("-", "_")
            if (
                isinstance(self._values.get(key), int | float)
                and self.explicit & {key}
                and member.name not in self.chain
            ):
                raise OptionError(
                    "left-out",
                    f"{key} is {format_value(self[key])}, but the chain {','.join(self.chain) or 'is empty and'} leaves {member.name} out",
                    help=f"add {member.name} to the chain where it should stand, or say {CHOICES[key].flag} none",
                )

    def _check_heads(self) -> None:
        heads, kv_heads = self.heads, self.kv_heads
        if heads and kv_heads and heads % kv_heads:
            divisors = join_names([n for n in range(1, heads + 1) if heads % n == 0], "or")
            message = f"{heads} query heads cannot share {kv_heads} kv heads equally"
            raise OptionError("heads-mismatch", message, help=f"{heads} heads, {kv_heads} kv heads: {divisors}")
        if heads and heads % 2 and self.head_mixing.traits.is_pairing:
            raise OptionError("heads-mismatch", f"{self.head_mixing.name} pairs heads, and {heads} is odd")

    def __getitem__(self, name: str) -> Any:
        """A choice by its name, for code that loops over `CHOICES`; the properties below have types."""
        return self._values[name]

    @property
    def projection(self) -> Part[ProjectionTraits]:
        """Where q, k and v come from. What has not been said is decided by the plan: ask its variant."""
        return self._values["projection"]

    @property
    def heads(self) -> int | None:
        return self._values["heads"]

    @property
    def kv_heads(self) -> int | None:
        return self._values["kv_heads"]

    @property
    def kv_map(self) -> Literal["interleave", "tile"]:
        return self._values["kv_map"]

    @property
    def qk_norm(self) -> Part[NormTraits]:
        return self._values["qk_norm"]

    @property
    def position(self) -> Part[PositionTraits]:
        return self._values["position"]

    @property
    def score(self) -> Part[ScoreTraits]:
        return self._values["score"]

    @property
    def scale(self) -> float | Literal["auto", "none"]:
        return self._values["scale"]

    @property
    def softcap(self) -> float | Literal["none"]:
        return self._values["softcap"]

    @property
    def temperature(self) -> float | Literal["none"]:
        return self._values["temperature"]

    @property
    def log_n(self) -> float | Literal["none"]:
        return self._values["log_n"]

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of links, in order."""
        return self._values["chain"]

    @property
    def mask(self) -> MaskExpression:
        return self._values["mask"]

    @property
    def normalizer(self) -> Part[NormalizerTraits]:
        return self._values["normalizer"]

    @property
    def sink(self) -> Part[SinkTraits]:
        return self._values["sink"]

    @property
    def dropout(self) -> Part[DropoutTraits]:
        return self._values["dropout"]

    @property
    def head_mixing(self) -> Part[MixingTraits]:
        return self._values["head_mixing"]

    @property
    def empty_rows(self) -> Literal["zero", "nan", "uniform", "error"]:
        return self._values["empty_rows"]

    @property
    def align(self) -> Literal["top-left", "bottom-right"] | None:
        return self._values["align"]

    @property
    def seed(self) -> int | None:
        return self._values["seed"]

    @property
    def dtype(self) -> str:
        """float64, float32, float16 or bfloat16; what has not been said is decided by the plan."""
        return self._values["dtype"]

    @property
    def device(self) -> str:
        return self._values["device"]

    @property
    def schedule(self) -> Literal["dense", "tiled", "fused"] | None:
        return self._values["schedule"]

    def replace(self, **choices: object) -> Variant:
        """The same with other choices, as values rather than text."""
        other = object.__new__(Variant)
        other.__dict__ = self.__dict__ | {"_values": self._values | choices, "_described": None}
        return other

    def describe(self) -> Json:
        """Every choice that was made or stands by default, spelled so that `Variant(**…)` reads it back."""
        if self._described is None:
            out: Json = {"name": self.name} if self.name else {}
            for key, value in self._values.items():
                if value is not None:
                    plain = isinstance(value, int | float) and not isinstance(value, bool)
                    text = ",".join(value) or "none" if isinstance(value, tuple) else value
                    out[key] = text if plain else format_value(text)
            self._described = out
        return dict(self._described)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variant) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(tuple(self.describe().items()))

    def __repr__(self) -> str:
        defaults = Variant().describe()
        changed = {k: v for k, v in self.describe().items() if defaults.get(k) != v}
        return f"Variant({', '.join(f'{k}={v!r}' for k, v in changed.items())})"


def merge_choices(file_choices: Json, command_choices: Json, extra_masks: tuple[str, ...] = ()) -> Variant:
    """Preset < file < command line, choice by choice.

    `command["name"]` drops the file's choices, `command["mask"]` replaces the mask of file and preset, and the
    masks of `also` (what `--causal` and `--window` stand for) are added to what is then the mask.

    Raises:
        OptionError: as `Variant`; the file's choices are checked even where the command line overrides them.
    """
    choices = (
        dict(command_choices)
        if command_choices.get("name")
        else {**file_choices, **{k: v for k, v in command_choices.items() if v is not None}}
    )
    variant = Variant(**choices)
    if not extra_masks:
        return variant
    wider = variant.replace(mask=expression.conjunction(variant.mask, *map(parse_mask, extra_masks)))
    wider.explicit |= {"mask"}
    return wider
