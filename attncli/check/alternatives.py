"""The variants one choice away, from what choices and families declare and what named variants use; nothing is named here."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from attncli import mask_expression as expression
from attncli.errors import AttnError
from attncli.mask_expression import MaskExpression
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.plan import Plan
from attncli.presets import PRESETS, preset_choices
from attncli.registry import Family, Member, Part, T, format_value
from attncli.variant import CHOICES, FAMILIES, Choice, Variant

_SMALL_INTEGERS = (1, 2, 3, 4)  # what an integer that is not known may be
_MAX_PRESET_LAYERS = 6  # of a model whose layers differ, so many are looked at
_COMMON_SEEDS = (0, 1, 42, 123, 789, 1234, 2024)


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


@functools.cache
def preset_values() -> dict[tuple[str, str, str], tuple[object, ...]]:
    """(choice, member, option) → the values that named variants give it, so that numbers of the field are tried first."""
    found: dict[tuple[str, str, str], dict[object, None]] = {}
    for preset in PRESETS.values():
        for layer in range(_MAX_PRESET_LAYERS) if preset.layer_choices else (None,):
            try:
                variant = Variant(**preset_choices(preset, layer))
            except AttnError:
                continue
            for choice in variant.explicit:
                value = variant[choice]
                parts = (
                    [value]
                    if isinstance(value, Part)
                    else value.iter_parts()
                    if isinstance(value, MaskExpression)
                    else []
                )
                for part in parts:
                    for name, option in part.option_values:
                        found.setdefault((choice, part.name, name), {})[option] = None
                if isinstance(value, int | float) and choice not in ("heads", "kv_heads"):
                    found.setdefault((choice, "", ""), {})[value] = None
    return {key: tuple(values) for key, values in found.items()}


def one_choice_alternatives(plan: Plan) -> Iterator[Alternative]:
    """Every variant that differs from a plan's by one choice, the likeliest first within each choice."""
    for choice in CHOICES.values():
        for value, rank in _alternative_values(choice, plan):
            now = plan.variant[choice.name]
            if value != now:
                yield Alternative(
                    choice.name, value, f"{choice.flag} {_option_value_text(value)}", _option_value_text(now), rank
                )


def _option_value_text(value: object) -> str:
    text = (
        ",".join(value) or "none"
        if isinstance(value, tuple)
        else "the default"
        if value is None
        else format_value(value)
    )
    return f"'{text}'" if any(c in text for c in " ()") else text


def _alternative_values(choice: Choice, plan: Plan) -> Iterator[tuple[object, int]]:
    v, size = plan.variant, plan.size
    if choice.name in ("dtype", "device"):
        return
    if choice.name == "seed":
        yield from ((seed, 3) for seed in _COMMON_SEEDS if v.seed is not None)
    elif choice.name == "chain":
        yield from ((chain, 1) for chain in _other_link_orders(plan))
    elif choice.allowed_values:
        yield from ((word, 1) for word in choice.allowed_values if word != "error")
    elif choice.integer_bounds:
        width = plan.shapes.d * plan.shapes.heads
        if size.heads is None:
            most = plan.shapes.heads if choice.name == "kv_heads" else width
            yield from ((n, 2) for n in range(1, min(most, 64) + 1) if most % n == 0)
    elif isinstance(v[choice.name], MaskExpression):
        yield from _alternative_masks(choice.name, plan)
    elif isinstance(v[choice.name], Part):
        family = FAMILIES[v[choice.name].member.family]
        if choice.name == "dropout":
            yield choice.default, 1
        else:
            yield from _alternative_parts(choice.name, family, v[choice.name], plan)
    elif choice.name.replace("_", "-") in link.members:
        words = ("none", *link[choice.name.replace("_", "-")].traits.value_words)
        yield from ((word, 1) for word in words)
        yield from ((value, 3) for value in preset_values().get((choice.name, "", ""), ()))


def _other_link_orders(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Other orders of the links that do something: all while they are few, else one moved."""
    active = [link.name for link in plan.chain]
    if len(active) <= 4:
        yield from (order for order in itertools.permutations(active) if list(order) != active)
        return
    for i, j in itertools.permutations(range(len(active)), 2):
        moved = active[:i] + active[i + 1 :]
        yield (*moved[:j], active[i], *moved[j:])


def _alternative_parts(
    choice_name: str, family: Family[T], current: Part[T], plan: Plan
) -> Iterator[tuple[Part[T], int]]:
    """Other options of the same part, and the other members of its family; what is drawn only where a seed says how."""
    yield from _parts_with_one_option_changed(choice_name, family, current)
    for member in family:
        if member.name != current.name and not (
            getattr(member.traits, "is_drawn", False) and plan.variant.seed is None
        ):
            yield from _parts_of_member(choice_name, family, member, plan)


def _parts_of_member(
    choice_name: str, family: Family[T], member: Member[T], plan: Plan
) -> Iterator[tuple[Part[T], int]]:
    """A member by its defaults, and by one option that it must or can be given."""
    required = [option for option in member.options if option.required]
    if len(required) > 1:
        return
    plain = 1 if member.name == "none" else 2
    if not required:
        base = Part(member)
        yield base, plain
        yield from ((part, 3) for part, _ in _parts_with_one_option_changed(choice_name, family, base, words_only=True))
        return
    option = required[0]
    tried = preset_values().get((choice_name, member.name, option.name), ())
    if option.kind is int:
        tried = (*_SMALL_INTEGERS, plan.size.keys - 1, *tried)
    for value in dict.fromkeys(tried):
        part = _part_or_none(family, member, {option.name: value})
        if part is not None:
            yield part, 3


def _parts_with_one_option_changed(
    choice_name: str, family: Family[T], current: Part[T], *, words_only: bool = False
) -> Iterator[tuple[Part[T], int]]:
    """The same part with one option changed: its other words, its neighbours, the field's own values."""
    given = dict(current.option_values)
    for option in current.member.options:
        value = current.option_value(option.name)
        tried: list[object] = [word for word in (*option.allowed_values, *option.special_values) if word != value]
        if option.kind is bool:
            tried.append(not value)
        tried += [x for x in preset_values().get((choice_name, current.name, option.name), ()) if x != value]
        if not words_only and isinstance(value, int) and not isinstance(value, bool):
            tried += [value + 1, value - 1, value + 2, value - 2]
        elif not words_only and isinstance(value, float):
            tried += [float(f"{x:.12g}") for x in (2 * value, value / 2, 10 * value, value / 10)]
        if words_only and option.kind is int and not option.required:
            tried += _SMALL_INTEGERS if option.default in (-1, None) else []
        for other in dict.fromkeys(tried):
            part = _part_or_none(family, current.member, {**given, option.name: other})
            if part is not None:
                word = isinstance(other, str | bool) or (isinstance(other, int) and abs(other - (value or 0)) == 1)
                yield part, 1 if word else 2


def _part_or_none(family: Family[T], member: Member[T], option_values: dict[str, object]) -> Part[T] | None:
    """A part, if its options may be that."""
    options = {option.name: option for option in member.options}
    try:
        checked = {
            name: options[name].parse(value, "this") for name, value in option_values.items() if value is not None
        }
        return family.make_part(member, checked)
    except AttnError:
        return None


def _alternative_masks(choice_name: str, plan: Plan) -> Iterator[tuple[MaskExpression, int]]:
    """No mask, the mask less one of its terms, a term changed, and another mask alone or beside it."""
    now = plan.mask or plan.variant[choice_name]
    terms = list(now.operands) if now.kind == "and" else [now]
    full = expression.parse_expression("full", mask)
    seen = {str(now)}
    for other, rank in _mask_candidates(choice_name, plan, terms, full):
        if str(other) not in seen and not (plan.problem.mask is not None and str(other) == "full"):
            seen.add(str(other))
            yield other, rank


def _mask_candidates(
    choice_name: str, plan: Plan, terms: list[MaskExpression], full: MaskExpression
) -> Iterator[tuple[MaskExpression, int]]:
    yield full, 1
    for i, term in enumerate(terms):
        rest = terms[:i] + terms[i + 1 :]
        yield expression.conjunction(*rest) if rest else full, 1
        for changed, rank in masks_with_one_option_changed(choice_name, term):
            yield expression.conjunction(*rest, changed), rank
    plain = [
        expression.parse_expression(name, mask)
        for name, member in mask.members.items()
        if not any(o.required for o in member.options)
    ]
    for other in plain:  # causal and its like are likelier than what takes numbers
        if str(other) != "full":
            rank = 1 if not other.part or not other.part.member.options else 3
            yield expression.conjunction(*terms, other), rank
            yield other, rank
    for member in mask:
        for part, rank in _parts_of_member(choice_name, mask, member, plan):
            if part.option_values:
                one = MaskExpression("part", part)
                yield one, rank
                yield expression.conjunction(*terms, one), rank


def masks_with_one_option_changed(choice_name: str, term: MaskExpression) -> Iterator[tuple[MaskExpression, int]]:
    """An expression with one option of one of its parts changed."""
    if term.part:
        yield from (
            (MaskExpression("part", part), rank)
            for part, rank in _parts_with_one_option_changed(choice_name, mask, term.part)
        )
        return
    for i, inner in enumerate(term.operands):
        for changed, rank in masks_with_one_option_changed(choice_name, inner):
            yield MaskExpression(term.kind, operands=(*term.operands[:i], changed, *term.operands[i + 1 :])), rank
