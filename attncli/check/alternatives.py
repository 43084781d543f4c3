"""Finding the variants one choice away, from what choices and families declare and what named variants use; no part is named here.

`one_choice_alternatives` is the entry.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from attncli.errors import AttnError
from attncli.mask_expression import MaskExpression, conjunction, parse_expression
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.plan import Plan
from attncli.presets import PRESETS, preset_choices
from attncli.registry import AnyPart, Family, Member, Option, Part, T, format_value
from attncli.variant import CHOICES, FAMILIES, Choice, Variant

_SMALL_INTEGERS = (1, 2, 3, 4)  # tried for an integer option that is not set
_MAX_PRESET_LAYERS = 6  # so many layers are read of a model whose layers differ
_COMMON_SEEDS = (0, 1, 42, 123, 789, 1234, 2024)
_MAX_PERMUTED_LINKS = 4  # every order of so many links is tried
_MAX_HEADS = 64

Masks: TypeAlias = Iterator[tuple[MaskExpression, int]]  # each with its implausibility


@dataclass(frozen=True)
class Alternative:
    """Another value of one choice."""

    choice_name: str
    value: object
    option_text: str  # as the command line writes it: --mask causal
    current_text: str  # what it is instead of
    implausibility: int = 2  # how far-fetched

    @property
    def description(self) -> str:
        return f"with {self.option_text} (here it is {self.current_text})"


def one_choice_alternatives(plan: Plan) -> Iterator[Alternative]:
    """Yield every variant that differs from a plan's by one choice, the likeliest first within each choice."""
    for choice in CHOICES.values():
        current = plan.variant[choice.name]
        for value, implausibility in _alternative_values(choice, plan):
            if value != current:
                option_text = f"{choice.flag} {_option_value_text(value)}"
                yield Alternative(choice.name, value, option_text, _option_value_text(current), implausibility)


@functools.cache
def preset_values() -> dict[tuple[str, str, str], tuple[object, ...]]:
    """Collect the values that named variants give each (choice, member, option), so that known numbers are tried first."""
    values: dict[tuple[str, str, str], dict[object, None]] = {}
    for preset in PRESETS.values():
        for layer in range(_MAX_PRESET_LAYERS) if preset.layer_choices else (None,):
            try:
                variant = Variant(**preset_choices(preset, layer))
            except AttnError:
                continue
            for choice in variant.explicit:
                value = variant[choice]
                for part in _parts_of(value):
                    for option, option_value in part.option_values.items():
                        values.setdefault((choice, part.name, option), {})[option_value] = None
                if isinstance(value, int | float) and choice not in ("heads", "kv_heads"):
                    values.setdefault((choice, "", ""), {})[value] = None
    return {key: tuple(option_values) for key, option_values in values.items()}


def _parts_of(value: object) -> Iterable[AnyPart]:
    """Return the parts in a choice's value."""
    if isinstance(value, Part):
        return [value]
    return value.iter_parts() if isinstance(value, MaskExpression) else []


def _option_value_text(value: object) -> str:
    """Format a choice's value as the command line writes it."""
    if isinstance(value, tuple):
        text = ",".join(value) or "none"
    else:
        text = "the default" if value is None else format_value(value)
    return f"'{text}'" if any(c in text for c in " ()") else text


def _alternative_values(choice: Choice, plan: Plan) -> Iterator[tuple[object, int]]:
    """Yield other values of a choice, each with its implausibility."""
    current, link_name = plan.variant[choice.name], choice.name.replace("_", "-")
    if choice.name in ("dtype", "device"):
        return
    if choice.name == "seed":
        if current is not None:
            yield from ((seed, 3) for seed in _COMMON_SEEDS)
    elif choice.name == "chain":
        yield from ((chain, 1) for chain in _other_link_orders(plan))
    elif choice.name == "dropout":
        yield choice.default, 1
    elif choice.allowed_values:
        yield from ((word, 1) for word in _alternative_words(choice, plan))
    elif choice.integer_bounds:
        if plan.size.heads is None:
            dividend = plan.shapes.heads if choice.name == "kv_heads" else plan.shapes.d * plan.shapes.heads
            yield from ((n, 2) for n in range(1, min(dividend, _MAX_HEADS) + 1) if dividend % n == 0)
    elif isinstance(current, MaskExpression):
        yield from _alternative_masks(choice.name, plan)
    elif isinstance(current, Part):
        yield from _alternative_parts(choice.name, FAMILIES[current.member.family], current, plan)
    elif link_name in link.members:
        yield from ((word, 1) for word in ("none", *link[link_name].traits.value_words))
        yield from ((value, 3) for value in preset_values().get((choice.name, "", ""), ()))


def _alternative_words(choice: Choice, plan: Plan) -> tuple[str, ...]:
    """Return the words of a choice that may change what is computed."""
    has_positions = plan.problem.positions is not None or plan.problem.k_positions is not None
    if choice.name == "mask_by" and not has_positions:
        return ()
    return tuple(word for word in choice.allowed_values if word != "error")


def _other_link_orders(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Yield other orders of the links that do something: every order of a few, otherwise those with one link moved."""
    names = [link.name for link in plan.chain]
    if len(names) <= _MAX_PERMUTED_LINKS:
        yield from (order for order in itertools.permutations(names) if list(order) != names)
        return
    for i, j in itertools.permutations(range(len(names)), 2):
        others = names[:i] + names[i + 1 :]
        yield (*others[:j], names[i], *others[j:])


# ── parts ────────────────────────────────────────────────────────────────────────────────────────
def _alternative_parts(
    choice_name: str, family: Family[T], current: Part[T], plan: Plan
) -> Iterator[tuple[Part[T], int]]:
    """Yield the same part with other options, and the other members of its family; one whose arrays are drawn needs a seed."""
    yield from _parts_with_one_option_changed(choice_name, family, current)
    for member in family:
        needs_seed = getattr(member.traits, "is_drawn", False) and plan.variant.seed is None
        if member.name != current.name and not needs_seed:
            yield from _parts_of_member(choice_name, family, member, plan)


def _parts_of_member(
    choice_name: str, family: Family[T], member: Member[T], plan: Plan
) -> Iterator[tuple[Part[T], int]]:
    """Yield a member with its defaults, and with one option that it requires or may be given."""
    required = [option for option in member.options if option.required]
    if len(required) > 1:
        return
    if not required:
        default_part = Part(member)
        yield default_part, 1 if member.name == "none" else 2
        for part, _ in _parts_with_one_option_changed(choice_name, family, default_part, words_only=True):
            yield part, 3
        return
    option = required[0]
    values = preset_values().get((choice_name, member.name, option.name), ())
    if option.kind is int:
        values = (*_SMALL_INTEGERS, plan.size.keys - 1, *values)
    for value in dict.fromkeys(values):
        part_or_none = _part_or_none(family, member, {option.name: value})
        if part_or_none is not None:
            yield part_or_none, 3


def _parts_with_one_option_changed(
    choice_name: str, family: Family[T], current: Part[T], *, words_only: bool = False
) -> Iterator[tuple[Part[T], int]]:
    """Yield the same part with one option changed: to its other words, to nearby numbers, to values of named variants."""
    for option in current.member.options:
        if option.name in getattr(current.member.traits, "input_options", ()):
            continue
        value = current.option_value(option.name)
        used = preset_values().get((choice_name, current.name, option.name), ())
        for other in dict.fromkeys(_other_option_values(option, value, used, words_only=words_only)):
            part = _part_or_none(family, current.member, {**dict(current.option_values), option.name: other})
            if part is not None:
                is_word = isinstance(other, str | bool)
                is_neighbour = isinstance(other, int) and abs(other - (value or 0)) == 1
                yield part, 1 if is_word or is_neighbour else 2


def _other_option_values(
    option: Option, value: object, preset_option_values: Sequence[object], *, words_only: bool
) -> Iterator[object]:
    """Yield other values of an option, the likeliest first; with words_only, no numbers near its own value."""
    yield from (word for word in (*option.allowed_values, *option.special_values) if word != value)
    if option.kind is bool:
        yield not value
    yield from (x for x in preset_option_values if x != value)
    if words_only:
        if option.kind is int and not option.required and option.default in (-1, None):
            yield from _SMALL_INTEGERS
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from (value + 1, value - 1, value + 2, value - 2)
    elif isinstance(value, float):
        yield from (float(f"{x:.12g}") for x in (2 * value, value / 2, 10 * value, value / 10))


def _part_or_none(family: Family[T], member: Member[T], option_values: dict[str, object]) -> Part[T] | None:
    """Make a part with these options; None where they are refused."""
    options = {option.name: option for option in member.options}
    try:
        parsed = {
            name: options[name].parse(value, "this") for name, value in option_values.items() if value is not None
        }
        return family.make_part(member, parsed)
    except AttnError:
        return None


# ── masks ────────────────────────────────────────────────────────────────────────────────────────
def _alternative_masks(choice_name: str, plan: Plan) -> Masks:
    """Yield no mask, the mask without one of its terms, with a term changed, and other masks alone or and-ed with it."""
    current: MaskExpression = plan.mask or plan.variant.mask
    seen = {str(current)}
    if plan.problem.mask is not None:
        seen.add("full")  # the file's mask stays
    for candidate, implausibility in _mask_candidates(choice_name, plan, current):
        if str(candidate) not in seen:
            seen.add(str(candidate))
            yield candidate, implausibility


def _mask_candidates(choice_name: str, plan: Plan, current: MaskExpression) -> Masks:
    terms = list(current.operands) if current.kind == "and" else [current]
    full = parse_expression("full", mask)
    yield full, 1
    for i, term in enumerate(terms):
        others = terms[:i] + terms[i + 1 :]
        yield conjunction(*others) if others else full, 1
        for changed, implausibility in masks_with_one_option_changed(choice_name, term):
            yield conjunction(*others, changed), implausibility
    for name, member in mask.members.items():  # causal and its like are likelier than what takes numbers
        if name != "full" and not any(option.required for option in member.options):
            other = parse_expression(name, mask)
            implausibility = 3 if member.options else 1
            yield conjunction(*terms, other), implausibility
            yield other, implausibility
    for member in mask:
        for part, implausibility in _parts_of_member(choice_name, mask, member, plan):
            if part.option_values:
                other = MaskExpression("part", part)
                yield other, implausibility
                yield conjunction(*terms, other), implausibility


def masks_with_one_option_changed(choice_name: str, term: MaskExpression) -> Masks:
    """Yield an expression with one option of one of its parts changed."""
    if term.part:
        for part, implausibility in _parts_with_one_option_changed(choice_name, mask, term.part):
            yield MaskExpression("part", part), implausibility
        return
    for i, operand in enumerate(term.operands):
        for changed, implausibility in masks_with_one_option_changed(choice_name, operand):
            operands = (*term.operands[:i], changed, *term.operands[i + 1 :])
            yield MaskExpression(term.kind, operands=operands), implausibility
