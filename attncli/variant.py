"""Choose what to compute: options, as text or numbers, become one `Variant`, without torch.

`CHOICES` is the one table of what can be chosen: command line, the file's `variant` and the schema follow it.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from attncli import mask_expression as expression
from attncli.errors import OptionError
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
from attncli.text import join_names, pluralize, quote_value, shorten, suggestion
from attncli.types import Json

_FAMILIES: tuple[Family[PartTraits], ...] = (  # in order of computation
    projection, norm, position, score, link, mask, normalizer, sink, dropout, mixing,
)  # fmt: skip
FAMILIES: Mapping[str, Family[PartTraits]] = {family.name: family for family in _FAMILIES}
DEFAULT_CHAIN = tuple(member.name for member in link)  # the default order is the order of declaration


@dataclass(frozen=True)
class Choice:
    """One thing that can be chosen: its name, how text becomes a value, and its default."""

    name: str  # as files spell it: kv_heads
    parse: Callable[[object], object]  # text, a number or a list → the value; raises OptionError
    default: object  # None: it follows from the problem
    metavar: str
    help: str
    accepts_number: bool = False  # a file may write a bare number
    allowed_values: tuple[str, ...] = ()  # the only texts it may be
    integer_bounds: tuple[int, int] | None = None  # the integers it may be

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


# ── choices of one kind ──────────────────────────────────────────────────────────────────────────
def _member_names(family: Family[PartTraits]) -> str:
    return ", ".join(family.members)


def _part_choice(name: str, family: Family[PartTraits], default: str) -> Choice:
    """Make the choice of one part of a family."""
    return Choice(name, family.parse, family.parse(default), "PART", f"{family.help}: {_member_names(family)}")


def _text_choice(name: str, allowed_values: tuple[str, ...], default: str | None, help: str) -> Choice:
    """Make a choice among a few words."""

    def parse(value: object) -> str:
        if str(value) not in allowed_values:
            help = suggestion(str(value), allowed_values)
            raise OptionError("bad-option", f"{name} cannot be {shorten(str(value))}", help=help)
        return str(value)

    return Choice(name, parse, default, "|".join(allowed_values), help, allowed_values=allowed_values)


def _integer_choice(name: str, low: int, high: int, metavar: str, help: str) -> Choice:
    """Make the choice of an integer."""

    def parse(value: object) -> int:
        try:
            return int(Option(name, name, int, None, Range(low=low, high=high)).parse(value, "this"))
        except OptionError:
            raise OptionError(
                "bad-option", f"{name} must be an integer from {low} to {high}, not {shorten(str(value))}", help=help
            ) from None

    return Choice(name, parse, None, metavar, help, accepts_number=True, integer_bounds=(low, high))


def parse_mask(value: object) -> MaskExpression:
    """Parse an expression, or a list of expressions, all of which must hold.

    Raises:
        OptionError: one is no expression, or the list is empty.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    if not texts:
        raise OptionError("bad-option", "mask is an empty list", help="leave mask out, or write full")
    terms, part_count = [], 0
    for text in texts:
        terms.append(expression.parse_expression(str(text), mask))
        part_count += sum(1 for _ in terms[-1].iter_parts())
        if part_count > expression.MAX_PARTS:
            raise OptionError("bad-expression", f"mask names more than {expression.MAX_PARTS} masks")
    return expression.conjunction(*terms)


_MAX_LINKS = 99  # in one chain; each leaves a step


def parse_chain(value: object) -> tuple[str, ...]:
    """Parse names of links, in order; a name may occur twice.

    Raises:
        OptionError: there is no such link, or no name at all.
    """
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    names = tuple(str(item).strip() for item in items if str(item).strip())
    if not names:
        raise OptionError("bad-option", "the chain is empty", help="for a chain without links, write none")
    if names == ("none",):
        return ()
    if len(names) > _MAX_LINKS:
        raise OptionError("bad-option", f"the chain has {len(names):,} links, but at most {_MAX_LINKS} are allowed")
    for name in names:
        link[name]  # raises where there is none
    return names


def _parse_dropout(value: object) -> Part[DropoutTraits]:
    """Parse a part, or its probability alone; 0 is none."""
    message = f"dropout must be a probability ≥ 0 and < 1, not {shorten(str(value))}"
    try:
        probability = parse_number(value)
    except ValueError:
        if str(value).lstrip("+-").lower() in ("nan", "inf", "infinity"):
            raise OptionError("bad-option", message, help="dropout 0.1 drops a tenth of the weights") from None
        return dropout.parse(value)
    if not 0 <= probability < 1:
        raise OptionError("out-of-range", message, help="dropout 0.1 drops a tenth of the weights")
    return dropout.parse("none" if probability == 0 else f"dropout:p={format_value(probability)}")


def _make_link_parser(name: str) -> Callable[[object], object]:
    """Make the parser of a link's value: a number, or one of its words."""
    option, words = link[name].options[0], ("none", *link[name].traits.value_words)

    def parse(value: object) -> object:
        if str(value) in words:
            return str(value)
        try:
            return option.parse(value, "this")
        except OptionError:
            number = f"a number {option.range}" if str(option.range) else "a number"
            message = f"{name} must be {join_names([*words, number], 'or')}, not {shorten(str(value))}"
            hint = _spell_fraction(str(value)) or f"attn list links {name} explains it"
            raise OptionError("bad-option", message, help=hint) from None

    return parse


def _spell_fraction(text: str) -> str:
    """Return how a fraction such as 1/3 is written; nothing where it is none."""
    fraction = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text, re.ASCII)
    if fraction is None or int(fraction[2]) == 0:
        return ""
    return f"write {int(fraction[1]) / int(fraction[2])!r}"


def _make_link_choices() -> list[Choice]:
    """Make a choice of every link that has a value."""
    return [
        Choice(
            member.name.replace("-", "_"),
            _make_link_parser(member.name),
            member.traits.default_value,
            "|".join((*member.traits.value_words, "none", option.name.upper())),
            member.summary[:1].lower() + member.summary[1:].removesuffix("."),
            accepts_number=True,
        )
        for member in link
        for option in member.options
    ]


def _parse_device(value: object) -> str:
    kind, _, number = str(value).partition(":")
    is_number = number.isascii() and number.isdecimal() and len(number) < 4
    if kind not in ("cpu", "cuda", "mps") or (number and not (is_number and kind == "cuda")):
        raise OptionError(
            "bad-option",
            f"there is no device called {shorten(str(value))!r}",
            help="it can be cpu, cuda, cuda:0 or mps",
        )
    return str(value)


_MAX_HEADS = 2**20
_CHOICES = (
    Choice("projection", projection.parse, None, "PART", f"how q, k and v are made: {_member_names(projection)}"),
    _integer_choice("heads", 1, _MAX_HEADS, "H", "number of query heads, which share the width equally"),
    _integer_choice(
        "kv_heads", 1, _MAX_HEADS, "G", "number of key and value heads, each shared by a group of query heads"
    ),
    _text_choice(
        "kv_map", ("interleave", "tile"), "interleave", "which kv head a query head h uses: ⌊h/(H/G)⌋ or h mod G"
    ),
    _part_choice("qk_norm", norm, "none"),
    _part_choice("position", position, "none"),
    _part_choice("score", score, "dot"),
    *_make_link_choices(),
    Choice(
        "chain",
        parse_chain,
        DEFAULT_CHAIN,
        "LINK,…",
        f"the order of the links from score to normaliser: {', '.join(DEFAULT_CHAIN)}",
    ),
    Choice(
        "mask",
        parse_mask,
        parse_mask("full"),
        "EXPR",
        f"{mask.help}: {_member_names(mask)}; join with and, or, not; a repeated option means and",
    ),
    _part_choice("normalizer", normalizer, "softmax"),
    _part_choice("sink", sink, "none"),
    Choice(
        "dropout",
        _parse_dropout,
        dropout.parse("none"),
        "P",
        "drop weights with probability P; with a seed of its own: dropout:p=0.5,seed=1",
        accepts_number=True,
    ),
    _part_choice("head_mixing", mixing, "none"),
    _text_choice("empty_rows", ("zero", "nan", "uniform", "error"), "zero", "the weights of a query that sees no key"),
    _text_choice(
        "align", ("top-left", "bottom-right"), None, "which ends line up if there are more keys than queries, or fewer"
    ),
    _text_choice(
        "mask_by",
        ("position", "index"),
        None,
        "whether masks compare the positions in the file, or the order of the tokens",
    ),
    _integer_choice("seed", 0, 2**64 - 1, "N", "seed for all random numbers; if left out, a seed is chosen and shown"),
    _text_choice(
        "dtype",
        ("float64", "float32", "float16", "bfloat16"),
        None,
        "the number type; by default float64 for text files, the file's own for binary ones",
    ),
    Choice("device", _parse_device, "cpu", "DEVICE", "where to compute: cpu, cuda[:n] or mps"),
    _text_choice(
        "schedule", ("dense", "tiled", "fused"), None, "how to compute: dense, tiled or fused; chosen automatically"
    ),
)
CHOICES: Mapping[str, Choice] = {choice.name: choice for choice in _CHOICES}


# ── all choices together ─────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class _ParsedChoices:
    """The state of a variant."""

    values: Json  # of every choice
    name: str | None  # of the preset
    required_choices: tuple[str, ...]  # what the preset leaves to the user
    explicit: frozenset[str]  # names of what preset, file or command line chose; the rest is default


class Variant:
    """All choices: what to compute, whatever it is computed on. It does not change; `replace` makes another.

        Variant(mask="causal", heads=2)
        Variant(name="gemma2:layer=3", heads=8, kv_heads=4)

    The choices are the options of the command line by their file names, as text, numbers or lists. `name` is a preset,
    whose choices the others override one by one.

    Raises:
        OptionError: a choice, part or option does not exist or cannot be.
    """

    def __init__(self, parsed_choices: _ParsedChoices | None = None, /, **choices: object) -> None:
        """Parse choices by name; those that are parsed already are taken as they are."""
        if parsed_choices is not None:
            if not isinstance(parsed_choices, _ParsedChoices):
                hint = "Variant(name='llama3'), or Variant(mask='causal', heads=2)"
                raise OptionError("bad-option", "a variant takes its choices by name", help=hint)
            self._choices = parsed_choices
            return
        self._choices = _parse_choices(choices)
        self._check_sink()
        self._check_heads()
        self._check_chain()

    def _check_sink(self) -> None:
        if not self.sink.is_none and not self.normalizer.traits.has_denominator:
            message = f"sink {self.sink} needs the denominator of softmax, but {self.normalizer} has none"
            raise OptionError("parts-disagree", message, help="leave the sink out, or use --normalizer softmax")

    def _check_heads(self) -> None:
        heads, kv_heads = self.heads, self.kv_heads
        if heads and kv_heads and heads % kv_heads:
            divisors = join_names([n for n in range(1, heads + 1) if heads % n == 0], "or")
            message = f"{heads} query heads cannot share {kv_heads} kv heads equally"
            raise OptionError(
                "heads-mismatch", message, help=f"with {pluralize(heads, 'head')}, use {divisors} kv heads"
            )
        if heads and heads % 2 and self.head_mixing.traits.is_pairing:
            raise OptionError("heads-mismatch", f"{self.head_mixing.name} pairs heads, but {heads} is odd")

    def _check_chain(self) -> None:
        """Check that the chain has every link whose value was chosen."""
        for member in link:
            name = member.name.replace("-", "_")
            has_number = name in self.explicit and isinstance(self[name], int | float)
            if has_number and member.name not in self.chain:
                chain = f"chain {','.join(self.chain)}" if self.chain else "chain is empty and"
                raise OptionError(
                    "left-out",
                    f"{name} is {format_value(self[name])}, but the {chain} leaves {member.name} out",
                    help=f"add {member.name} to the chain where it should act, or give {CHOICES[name].flag} none",
                )

    @property
    def name(self) -> str | None:
        """The preset, with its layer if it has layers."""
        return self._choices.name

    @property
    def required_choices(self) -> tuple[str, ...]:
        """Choices (or, for window, a mask) that the preset leaves to the user."""
        return self._choices.required_choices

    @property
    def explicit(self) -> frozenset[str]:
        """Names of the choices that preset, file or command line made; the others are by default."""
        return self._choices.explicit

    def __getitem__(self, name: str) -> Any:
        """Return a choice by its name, for code that loops over `CHOICES`; the properties below have types."""
        return self._choices.values[name]

    @property
    def projection(self) -> Part[ProjectionTraits]:
        """Where q, k and v come from; None until the plan decides, if it was not chosen."""
        return self._choices.values["projection"]

    @property
    def heads(self) -> int | None:
        return self._choices.values["heads"]

    @property
    def kv_heads(self) -> int | None:
        return self._choices.values["kv_heads"]

    @property
    def kv_map(self) -> Literal["interleave", "tile"]:
        return self._choices.values["kv_map"]

    @property
    def qk_norm(self) -> Part[NormTraits]:
        return self._choices.values["qk_norm"]

    @property
    def position(self) -> Part[PositionTraits]:
        return self._choices.values["position"]

    @property
    def score(self) -> Part[ScoreTraits]:
        return self._choices.values["score"]

    @property
    def scale(self) -> float | Literal["auto", "none"]:
        return self._choices.values["scale"]

    @property
    def softcap(self) -> float | Literal["none"]:
        return self._choices.values["softcap"]

    @property
    def temperature(self) -> float | Literal["none"]:
        return self._choices.values["temperature"]

    @property
    def log_n(self) -> float | Literal["none"]:
        return self._choices.values["log_n"]

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of links, in order."""
        return self._choices.values["chain"]

    @property
    def mask(self) -> MaskExpression:
        return self._choices.values["mask"]

    @property
    def normalizer(self) -> Part[NormalizerTraits]:
        return self._choices.values["normalizer"]

    @property
    def sink(self) -> Part[SinkTraits]:
        return self._choices.values["sink"]

    @property
    def dropout(self) -> Part[DropoutTraits]:
        return self._choices.values["dropout"]

    @property
    def head_mixing(self) -> Part[MixingTraits]:
        return self._choices.values["head_mixing"]

    @property
    def empty_rows(self) -> Literal["zero", "nan", "uniform", "error"]:
        return self._choices.values["empty_rows"]

    @property
    def mask_by(self) -> Literal["position", "index"] | None:
        return self._choices.values["mask_by"]

    @property
    def align(self) -> Literal["top-left", "bottom-right"] | None:
        return self._choices.values["align"]

    @property
    def seed(self) -> int | None:
        return self._choices.values["seed"]

    @property
    def dtype(self) -> str:
        """float64, float32, float16 or bfloat16; None until the plan decides, if it was not chosen."""
        return self._choices.values["dtype"]

    @property
    def device(self) -> str:
        return self._choices.values["device"]

    @property
    def schedule(self) -> Literal["dense", "tiled", "fused"] | None:
        return self._choices.values["schedule"]

    def replace(self, **choices: object) -> Variant:
        """Return the variant with other choices, as values rather than text."""
        return Variant(dataclasses.replace(self._choices, values=self._choices.values | choices))

    def with_extra_masks(self, *masks: MaskExpression) -> Variant:
        """Return the variant with other masks and-ed to its own, as an explicit choice."""
        values = self._choices.values | {"mask": expression.conjunction(self.mask, *masks)}
        return Variant(dataclasses.replace(self._choices, values=values, explicit=self.explicit | {"mask"}))

    @cached_property
    def part_functions(self) -> tuple[Hashable, ...]:
        """The functions of all parts; variants that are spelled alike may differ in a part that is not registered."""
        values = self._choices.values.values()
        parts = [value for value in values if isinstance(value, Part)]
        return tuple(part.member.function for part in (*parts, *self.mask.iter_parts()))

    def describe(self) -> dict[str, object]:
        """Return every choice that was made or holds by default, so that `Variant(**…)` reads it back."""
        return dict(self._description)

    @cached_property
    def _description(self) -> Json:
        description: Json = {"name": self.name} if self.name else {}
        for name, value in self._choices.values.items():
            if value is None:
                continue
            if isinstance(
                value, Part
            ):  # most are parts, and this is done for each of thousands of trials of `attn check`
                description[name] = str(value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                description[name] = value
            elif isinstance(value, tuple):
                description[name] = ",".join(value) or "none"
            else:
                description[name] = format_value(value)
        return description

    def spell_options(self) -> str:
        """Return the options of a command line that choose it, but for how and with what precision it is computed."""
        base = (Variant(name=self.name) if self.name else Variant()).describe()
        words = ["--variant", self.name] if self.name else []
        for name, value in self.describe().items():
            if name not in ("name", "device", "dtype", "schedule") and base.get(name) != value:
                words += [CHOICES[name].flag, str(value)]
        return shlex.join(words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variant) and self._description == other._description

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self._description.items()))

    def __repr__(self) -> str:
        defaults = Variant().describe()
        changed = {name: value for name, value in self.describe().items() if defaults.get(name) != value}
        return f"Variant({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def __reduce__(self) -> tuple[object, ...]:
        return Variant, (self._choices,)  # without what this process has derived from them


def _parse_choices(choices: Json) -> _ParsedChoices:
    """Parse choices by name, with those of a preset under them.

    Raises:
        OptionError: a choice, part or option does not exist or cannot be.
    """
    name = choices.pop("name", None)
    preset, layer = (None, None) if name is None else parse_preset_name(str(name))
    explicit: Json = preset_choices(preset, layer) if preset else {}
    explicit |= {key: value for key, value in choices.items() if value is not None}
    values = {choice.name: choice.default for choice in CHOICES.values()}
    for key, value in explicit.items():
        if key not in CHOICES:
            raise OptionError(
                "unknown-choice",
                f"a variant has no choice called {shorten(key)!r}",
                help=f"name={shorten(str(value))!r}" if key == "variant" else suggestion(key, [*CHOICES, "name"]),
            )
        if isinstance(value, bool | dict):
            raise OptionError("bad-option", f"{key} must be {CHOICES[key].metavar}, not {quote_value(value)}")
        values[key] = CHOICES[key].parse(value)
    full_name = None
    if preset:
        full_name = preset.name if layer is None else f"{preset.name}:layer={layer}"
    return _ParsedChoices(values, full_name, preset.required_choices if preset else (), frozenset(explicit))


def merge_choices(
    file_choices: Json, command_choices: Json, extra_masks: tuple[str, ...] = (), settings: Json | None = None
) -> Variant:
    """Merge the choices of a file and of the command line, which override those of a preset, one by one.

    A preset that the command line names drops the file's choices. A mask of the command line replaces that of file and
    preset; `extra_masks` (what `--causal` and `--window` stand for) are added to what is then the mask. Settings hold where
    nothing else has chosen.

    Raises:
        OptionError: as `Variant`.
    """
    made = {name: value for name, value in command_choices.items() if value is not None}
    choices = made if made.get("name") else {**file_choices, **made}
    variant = Variant(**choices)
    if settings:
        variant = Variant(**{**choices, **open_choices(variant, settings)})
    return variant.with_extra_masks(*map(parse_mask, extra_masks)) if extra_masks else variant


def open_choices(variant: Variant, settings: Json) -> Json:
    """Return those of the settings, by name, that a variant has not chosen otherwise."""
    made = variant.explicit | ({"name"} if variant.name else set())
    return {name: value for name, value in settings.items() if name not in made}
