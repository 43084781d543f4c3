"""Register parts in families, and parse the text that chooses one: `name` or `name:option=value,option=value`.

A part is a function. Its keyword-only arguments are its options, their annotations the types and ranges, its docstring's
first sentence its help; the decorator (`Family.__call__`) adds formula and source. Command line, file fields, schema and
`attn list` are made from these declarations.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, dataclass_transform, get_args, get_origin

from attncli.errors import OptionError
from attncli.text import join_names, shorten, suggestion


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be, for its annotation: `Annotated[float, Range(above=0)]`."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, x: float) -> bool:
        return self.low <= x <= self.high and self.above < x < self.below

    def __str__(self) -> str:
        bounds = []
        if self.above > -math.inf:
            bounds.append(f"> {_format_bound(self.above)}")
        elif self.low > -math.inf:
            bounds.append(f"≥ {_format_bound(self.low)}")
        if self.below < math.inf:
            bounds.append(f"< {_format_bound(self.below)}")
        elif self.high < math.inf:
            bounds.append(f"≤ {_format_bound(self.high)}")
        return " and ".join(bounds)


def _format_bound(x: float) -> str:
    return str(x) if isinstance(x, int) else f"{x:g}"


@dataclass(frozen=True)
class Parameter:
    """A learned array that a part takes: its name in the file, its axes, and what it is."""

    name: str
    axes: tuple[str, ...]
    help: str = ""
    alternative_axes: tuple[tuple[str, ...], ...] = ()  # other shapes it may have
    required: bool = False  # the part cannot do without it


@dataclass(frozen=True)
class Option:
    """One option of a part, from its function's signature."""

    name: str  # as users write it: v-dim
    argument: str  # as the function spells it: v_dim
    kind: type  # int, float, bool, str or tuple (of ints, joined by +)
    default: object  # inspect.Parameter.empty if it must be given
    range: Range = Range()
    allowed_values: tuple[str, ...] = ()  # the only texts it may be
    special_values: tuple[str, ...] = ()  # texts it may be in place of a number

    @property
    def effective_range(self) -> Range:
        """The option's range; of integers without an upper bound, one in which differences of two cannot overflow."""
        if self.kind not in (int, tuple) or self.range.high < math.inf or self.range.below < math.inf:
            return self.range
        return replace(self.range, low=max(self.range.low, -(2**53)), high=2**53)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def describe(self) -> str:
        """Describe the option to people: `left=integer ≥ 0, default 1`."""
        words = self.allowed_values or (*self.special_values, _KIND_NAMES.get(self.kind, "text"))
        description = f"{self.name}={'|'.join(words)}"
        if str(self.range):
            description += f" {self.range}"
        if self.required:
            return f"{description}, required"
        return description if self.default is None else f"{description}, default {format_value(self.default)}"

    def parse(self, value: object, owner: str) -> OptionValue:
        """Parse text, or a value from Python, as the option's value.

        Raises:
            OptionError: it is not of the option's kind, or out of its range.
        """
        if str(value) in self.special_values:
            return str(value)
        try:
            parsed = _parse_value(self.kind, value)
        except (ValueError, OverflowError):
            raise OptionError(
                "bad-option", f"{owner} takes {self.describe()}, not {self.name}={shorten(str(value))}"
            ) from None
        if self.allowed_values and parsed not in self.allowed_values:
            raise OptionError(
                "bad-option",
                f"{owner} has no {self.name}={shorten(str(value))}",
                help=suggestion(str(value), self.allowed_values),
            )
        allowed = self.effective_range
        for number in parsed if isinstance(parsed, tuple) else (parsed,):
            if isinstance(number, int | float) and not isinstance(number, bool) and number not in allowed:
                raise OptionError("out-of-range", f"{owner} takes {self.name} {allowed}, not {shorten(str(value))}")
        return parsed


_KIND_NAMES: dict[type, str] = {int: "integer", float: "number", bool: "yes|no", tuple: "integers joined by +"}


def _parse_value(kind: type, value: object) -> object:
    if kind is bool:
        words = {"yes": True, "true": True, "no": False, "false": False}
        if str(value).lower() not in words:
            raise ValueError(value)
        return words[str(value).lower()]
    if isinstance(value, bool):
        raise ValueError(value)  # True is no number
    if kind is tuple:
        if isinstance(value, str):
            value = value.split("+")
        items = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(item, str) and item.isascii() and item.isdecimal() and len(item) < 16 for item in items):
            return tuple(map(int, items))  # there may be very many
        return tuple(_parse_value(int, item) for item in items)
    if kind is int:
        return parse_integer(value)
    if kind is float:
        return parse_number(value)
    return str(value)


def parse_number(value: object) -> float:
    """Parse text or a number as a finite number; `1_0`, `nan` and what only Python would accept are refused.

    Raises:
        ValueError: it is none.
    """
    text = str(value).strip()
    if not text.isascii() or "_" in text or not math.isfinite(x := float(text)):
        raise ValueError(value)
    return x


def parse_integer(value: object) -> int:
    """Parse text or a number as an integer; 4 and 4.0 are equal.

    Raises:
        ValueError, OverflowError: it is none.
    """
    x = parse_number(value)
    if x != int(x):
        raise ValueError(value)
    return int(str(value)) if isinstance(value, int) or str(value).strip().lstrip("+-").isdigit() else int(x)


_MAX_INDEX_DIGITS = 18  # an index of more is beyond every axis, and Python refuses to read one of thousands


def parse_index(text: str) -> int | None:
    """Parse an index, of which a negative one counts from the end; None: it is none.

    One of very many digits becomes 10¹⁸ or −10¹⁸, which is beyond every axis as well.
    """
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    significant = digits.lstrip("0") or "0"
    index = int(significant) if len(significant) <= _MAX_INDEX_DIGITS else 10**_MAX_INDEX_DIGITS
    return index if digits == text else -index


def format_value(value: object) -> str:
    """Write a value as users do; `parse_integer`, `parse_number` and `Option.parse` read it back."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and set(map(type, value)) == {int}:  # there may be very many
        return "+".join(map(str, value))
    if isinstance(value, tuple | list):
        return "+".join(map(format_value, value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Traits:
    """What a member declares beside its formula and laws. Each family lists its own, with their types and defaults.

    To a type checker a subclass is a frozen dataclass. It is made without `dataclass`, which takes half a millisecond
    of start-up for each class. Every trait has a default, so that a member declares only what is special.
    """

    option_conflict: Callable[[Mapping[str, object]], str] | None = None  # option → value: why they cannot be together
    formula_of_options: Callable[[Mapping[str, object]], str] | None = None  # the formula, where options change it

    def __init__(self, **declared: object) -> None:
        known = self.names()
        for name in declared:
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no {name!r} ({suggestion(name, known)})")
        vars(self).update(known | declared)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    @classmethod
    @functools.cache
    def names(cls) -> dict[str, object]:
        """Return the default of every trait, by its name."""
        classes = [c for c in reversed(cls.__mro__) if issubclass(c, Traits)]
        return {
            name: default
            for c in classes
            for name, default in vars(c).items()
            if not name.startswith("_") and name != "names"
        }


TraitsT = TypeVar("TraitsT", bound=Traits, covariant=True)
T = TypeVar("T", bound=Traits)  # the same, for functions
Function = TypeVar("Function", bound=Callable[..., object])
# The functions of each family have a signature of their own, and options a type each: the declaration of a part says which.
PartFunction: TypeAlias = Callable[..., Any]
OptionValue: TypeAlias = Any


@dataclass(frozen=True)
class Member(Generic[TraitsT]):
    """One registered part and everything that it declares."""

    family: str
    name: str
    function: PartFunction = field(compare=False)
    traits: TraitsT = field(compare=False)
    formula: str = ""
    why: str = ""  # a sentence on what it is good for, for `attn explain --why`
    source: str = ""
    parameters: tuple[Parameter, ...] = ()  # arrays it reads from the problem
    laws: frozenset[str] = frozenset()  # which laws hold for it: prefix, decode, permutation
    law_exceptions: str = ""  # why no law holds, or which one fails when

    def __reduce__(self) -> tuple[Callable[[str, str, str], Member[Traits]], tuple[str, str, str]]:
        return _load_member, (self.function.__module__, self.family, self.name)  # pickled by its name

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.function) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def options(self) -> tuple[Option, ...]:
        return _declared_options(self.function)


def _load_member(module: str, family: str, name: str) -> Member[Traits]:
    """Return a member by its name, in a process that may not have imported its family yet."""
    importlib.import_module(module)
    return _FAMILIES[family].members[name]


@functools.cache
def _declared_options(function: Callable[..., object]) -> tuple[Option, ...]:
    arguments = [a for a in inspect.signature(function).parameters.values() if a.kind is a.KEYWORD_ONLY]
    if not arguments:  # reading annotations takes longer than everything else here
        return ()
    hints = typing.get_type_hints(function, include_extras=True)
    return tuple(_make_option(a, hints[a.name]) for a in arguments)


def _make_option(argument: inspect.Parameter, hint: Any) -> Option:
    """Make the option of one argument from its annotation, as in `Annotated[int, Range(low=0)] | None`."""
    special_values: tuple[str, ...] = ()
    if get_origin(hint) in (typing.Union, types.UnionType):
        alternatives = [h for h in get_args(hint) if h is not types.NoneType]  # None: it may be left out
        hint = alternatives[0]
        literals = [h for h in alternatives[1:] if get_origin(h) is Literal]  # as in `float | Literal["auto"]`
        special_values = tuple(word for literal in literals for word in get_args(literal))
    allowed_range = Range()
    if get_origin(hint) is typing.Annotated:
        hint, allowed_range = get_args(hint)[:2]
    allowed_values: tuple[str, ...] = ()
    if get_origin(hint) is Literal:
        hint, allowed_values = str, get_args(hint)
    elif get_origin(hint) is tuple:
        hint = tuple
    name = argument.name.rstrip("_").replace("_", "-")  # global_ for global, which is a keyword of Python
    return Option(name, argument.name, hint, argument.default, allowed_range, allowed_values, special_values)


@dataclass(frozen=True)
class Part(Generic[TraitsT]):
    """A choice: which member of a family, with which options. Calling it calls the member's function."""

    member: Member[TraitsT]
    option_values: Mapping[str, object] = field(default_factory=dict, hash=False)  # those that were given

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def traits(self) -> TraitsT:
        return self.member.traits

    @property
    def formula(self) -> str:
        """What is computed with these options."""
        spell = self.member.traits.formula_of_options
        if spell is None:
            return self.member.formula
        return spell({option.name: self.option_value(option.name) for option in self.member.options})

    @property
    def is_none(self) -> bool:
        """Whether it is the member that does nothing."""
        return self.member.name == "none"

    def option_value(self, name: str) -> OptionValue:
        """Return the value of an option, given or by default."""
        if name in self.option_values:
            return self.option_values[name]
        return next(option.default for option in self.member.options if option.name == name)

    def is_set(self, name: str) -> bool:
        """Whether an option was given."""
        return name in self.option_values

    @functools.cached_property
    def _arguments(self) -> Mapping[str, object]:
        """The options that were given, as the function spells them."""
        return {o.argument: self.option_values[o.name] for o in self.member.options if o.name in self.option_values}

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self.member.function(*args, **self._arguments, **kwargs)

    def __str__(self) -> str:
        if not self.option_values:
            return self.name
        options = ",".join(f"{name}={format_value(value)}" for name, value in self.option_values.items())
        return f"{self.name}:{options}"


AnyPart: TypeAlias = Part[Traits]  # of whichever family
_FAMILIES: dict[str, Family[Traits]] = {}


class Family(Generic[TraitsT]):
    """One family of parts. As a decorator it registers a member, whose traits are keyword arguments."""

    def __init__(self, name: str, help: str, traits: type[TraitsT], *, plural: str = "") -> None:
        self.name = name
        self.help = help
        self.traits = traits
        self.plural = plural or name + "s"
        self.members: dict[str, Member[TraitsT]] = {}
        _FAMILIES[name] = self

    def __call__(
        self,
        name: str,
        formula: str = "",
        *,
        why: str = "",
        source: str = "",
        parameters: tuple[Parameter, ...] = (),
        laws: tuple[str, ...] = (),
        law_exceptions: str = "",
        **traits: object,
    ) -> Callable[[Function], Function]:
        """Register the decorated function.

        Raises:
            TypeError: the family has no such trait.
        """
        try:
            declared = self.traits(**traits)
        except TypeError as error:
            raise TypeError(f"{self.name} {name!r}: {error}") from None

        def register(function: Function) -> Function:
            assert name not in self.members, f"two members of {self.name} are called {name}"
            self.members[name] = Member(
                self.name, name, function, declared, formula, why, source, parameters, frozenset(laws), law_exceptions
            )
            return function

        return register

    def __iter__(self) -> Iterator[Member[TraitsT]]:
        return iter(self.members.values())

    def __getitem__(self, name: str) -> Member[TraitsT]:
        """Return the member of a name.

        Raises:
            OptionError: there is none; the nearest name is offered.
        """
        if name not in self.members:
            raise OptionError(
                f"unknown-{self.name}",
                f"there is no {self.name} called {shorten(name)!r}",
                help=self._suggest_spelling(name) or suggestion(name, self.members),
            )
        return self.members[name]

    def _suggest_spelling(self, text: str) -> str:
        """How to write options that stand without the name of their part, as in `p=0.5`; empty: these are no options."""
        first, *others = [item.strip() for item in text.split(",")]
        keys = {item.partition("=")[0].strip().replace("_", "-") for item in (first, *others) if "=" in item}
        owners = [m for m in self if keys and keys <= {option.name for option in m.options}]
        if not owners:
            return ""
        if "=" not in first:  # 0.5,seed=3
            free = [option.name for option in owners[0].options if option.name not in keys and option.required]
            if len(free) != 1:
                return ""
            first = f"{free[0]}={first}"
        spelled = [shorten(f"{owner.name}:{','.join((first, *others))}") for owner in owners]
        return f"options follow the name of a part and a colon: {join_names(spelled, 'or')}"

    def parse(self, spec: object) -> Part[TraitsT]:
        """Parse text such as `window:left=3,right=0` as a part.

        Raises:
            OptionError: unknown name or option, an option twice, missing or out of range.
        """
        name, colon, rest = str(spec).strip().partition(":")
        member = self[name.strip()]
        owner = f"{self.name} {member.name!r}"
        options = {option.name: option for option in member.options}
        values: dict[str, object] = {}
        for item in rest.split(",") if colon else ():
            key, equals, value = (text.strip() for text in item.partition("="))
            key = key.replace("_", "-")
            key = key if key in options else _OPTION_ALIASES.get(key, key)
            if key not in options:
                raise OptionError(
                    "unknown-option", f"{owner} has no option {shorten(key)!r}", help=_describe_options(key, options)
                )
            if not equals or not value:
                raise OptionError(
                    "bad-option",
                    f"{owner}: option {key!r} has no value",
                    help=f"write {key}=…: {options[key].describe()}",
                )
            if key in values:
                raise OptionError("bad-option", f"{owner}: option {key!r} is given twice")
            values[key] = options[key].parse(value, owner)
        return self.make_part(member, values)

    def make_part(self, member: Member[TraitsT], values: Mapping[str, object]) -> Part[TraitsT]:
        """Make a part of parsed option values.

        Raises:
            OptionError: one that is required is missing, or two cannot be together.
        """
        for option in member.options:
            if option.required and option.name not in values:
                raise OptionError(
                    "missing-option",
                    f"{self.name} {member.name!r} needs {option.describe().removesuffix(', required')}",
                    help=f"write {member.name}:{option.name}=…",
                )
        in_order = {option.name: values[option.name] for option in member.options if option.name in values}
        part = Part(member, in_order)
        find_conflict = member.traits.option_conflict
        if find_conflict is not None:
            conflict = find_conflict({option.name: part.option_value(option.name) for option in member.options})
            if conflict:
                raise OptionError("bad-option", f"{self.name} {member.name!r}: {conflict}")
        return part


_OPTION_ALIASES = {"d-out": "dim", "out-features": "dim"}  # what books and nn.Linear call the width


def _describe_options(key: str, options: Mapping[str, Option]) -> str:
    """Say which options there are, and which one a misspelt key may be."""
    if not options:
        return "it takes no options"
    takes = f"it takes {', '.join(option.describe() for option in options.values())}"
    return f"{suggestion(key, options)}; {takes}" if key else takes
