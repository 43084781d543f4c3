"""The variants one choice away, from what choices and families declare and what named variants use; nothing is named here."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from attncli import mask_expression as expression
from attncli.errors import AttnError
from attncli.mask_expression import Expression
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.plan import Plan
from attncli.presets import PRESETS, choices_of
from attncli.registry import Family, Member, Part, T, spelled
from attncli.variant import CHOICES, FAMILIES, Choice, Variant

_COUNTS = (1, 2, 3, 4)  # what an integer that is not known may be
_LAYERS = 6  # of a model whose layers differ, so many are looked at
_SEEDS = (0, 1, 42, 123, 789, 1234, 2024)


@dataclass(frozen=True)
class Alternative:
    """Another value of one choice."""

    choice: str
    value: object
    text: str  # as the command line writes it: --mask causal
    now: str  # what it is instead of
    rank: int = 2  # how far-fetched

    @property
    def says(self) -> str:
        return f"with {self.text} (here it is {self.now})"


@functools.cache
def known() -> dict[tuple[str, str, str], tuple[object, ...]]:
    """(choice, member, option) → the values that named variants give it, so that numbers of the field are tried first."""
    found: dict[tuple[str, str, str], dict[object, None]] = {}
    for preset in PRESETS.values():
        for layer in range(_LAYERS) if preset.layers else (None,):
            try:
                variant = Variant(**choices_of(preset, layer))
            except AttnError:
                continue
            for choice in variant.chosen:
                value = variant[choice]
                parts = [value] if isinstance(value, Part) else value.parts() if isinstance(value, Expression) else []
                for part in parts:
                    for name, option in part.options:
                        found.setdefault((choice, part.name, name), {})[option] = None
                if isinstance(value, int | float) and choice not in ("heads", "kv_heads"):
                    found.setdefault((choice, "", ""), {})[value] = None
    return {key: tuple(values) for key, values in found.items()}


def alternatives(plan: Plan) -> Iterator[Alternative]:
    """Every variant that differs from a plan's by one choice, the likeliest first within each choice."""
    for choice in CHOICES.values():
        for value, rank in _values(choice, plan):
            now = plan.variant[choice.name]
            if value != now:
                yield Alternative(choice.name, value, f"{choice.option} {_text(value)}", _text(now), rank)


def _text(value: object) -> str:
    text = ",".join(value) or "none" if isinstance(value, tuple) else "the default" if value is None else spelled(value)
    return f"'{text}'" if any(c in text for c in " ()") else text


def _values(choice: Choice, plan: Plan) -> Iterator[tuple[object, int]]:
    v, size = plan.variant, plan.size
    if choice.name in ("dtype", "device"):
        return
    if choice.name == "seed":
        yield from ((seed, 3) for seed in _SEEDS if v.seed is not None)
    elif choice.name == "chain":
        yield from ((chain, 1) for chain in _chains(plan))
    elif choice.words:
        yield from ((word, 1) for word in choice.words if word != "error")
    elif choice.whole:
        width = plan.shapes.d * plan.shapes.heads
        if size.heads is None:
            most = plan.shapes.heads if choice.name == "kv_heads" else width
            yield from ((n, 2) for n in range(1, min(most, 64) + 1) if most % n == 0)
    elif isinstance(v[choice.name], Expression):
        yield from _masks(choice.name, plan)
    elif isinstance(v[choice.name], Part):
        family = FAMILIES[v[choice.name].member.family]
        if choice.name == "dropout":
            yield choice.default, 1
        else:
            yield from _parts(choice.name, family, v[choice.name], plan)
    elif choice.name.replace("_", "-") in link.members:
        words = ("none", *link[choice.name.replace("_", "-")].traits.value_words)
        yield from ((word, 1) for word in words)
        yield from ((value, 3) for value in known().get((choice.name, "", ""), ()))


def _chains(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Other orders of the links that do something: all while they are few, else one moved."""
    active = [link.name for link in plan.chain]
    if len(active) <= 4:
        yield from (order for order in itertools.permutations(active) if list(order) != active)
        return
    for i, j in itertools.permutations(range(len(active)), 2):
        moved = active[:i] + active[i + 1 :]
        yield (*moved[:j], active[i], *moved[j:])


def _parts(choice: str, family: Family[T], now: Part[T], plan: Plan) -> Iterator[tuple[Part[T], int]]:
    """Other options of the same part, and the other members of its family; what is drawn only where a seed says how."""
    yield from _changed(choice, family, now)
    for member in family:
        if member.name != now.name and not (getattr(member.traits, "is_drawn", False) and plan.variant.seed is None):
            yield from _members(choice, family, member, plan)


def _members(choice: str, family: Family[T], member: Member[T], plan: Plan) -> Iterator[tuple[Part[T], int]]:
    """A member by its defaults, and by one option that it must or can be given."""
    required = [option for option in member.options if option.required]
    if len(required) > 1:
        return
    plain = 1 if member.name == "none" else 2
    if not required:
        base = Part(member)
        yield base, plain
        yield from ((part, 3) for part, _ in _changed(choice, family, base, words_only=True))
        return
    option = required[0]
    tried = known().get((choice, member.name, option.name), ())
    if option.kind is int:
        tried = (*_COUNTS, plan.size.keys - 1, *tried)
    for value in dict.fromkeys(tried):
        part = _made(family, member, {option.name: value})
        if part is not None:
            yield part, 3


def _changed(
    choice: str, family: Family[T], now: Part[T], *, words_only: bool = False
) -> Iterator[tuple[Part[T], int]]:
    """The same part with one option changed: its other words, its neighbours, the field's own values."""
    given = dict(now.options)
    for option in now.member.options:
        value = now.get(option.name)
        tried: list[object] = [word for word in (*option.choices, *option.words) if word != value]
        if option.kind is bool:
            tried.append(not value)
        tried += [x for x in known().get((choice, now.name, option.name), ()) if x != value]
        if not words_only and isinstance(value, int) and not isinstance(value, bool):
            tried += [value + 1, value - 1, value + 2, value - 2]
        elif not words_only and isinstance(value, float):
            tried += [float(f"{x:.12g}") for x in (2 * value, value / 2, 10 * value, value / 10)]
        if words_only and option.kind is int and not option.required:
            tried += _COUNTS if option.default in (-1, None) else []
        for other in dict.fromkeys(tried):
            part = _made(family, now.member, {**given, option.name: other})
            if part is not None:
                word = isinstance(other, str | bool) or (isinstance(other, int) and abs(other - (value or 0)) == 1)
                yield part, 1 if word else 2


def _made(family: Family[T], member: Member[T], given: dict[str, object]) -> Part[T] | None:
    """A part, if its options may be that."""
    options = {option.name: option for option in member.options}
    try:
        checked = {name: options[name].parse(value, "this") for name, value in given.items() if value is not None}
        return family.part(member, checked)
    except AttnError:
        return None


def _masks(choice: str, plan: Plan) -> Iterator[tuple[Expression, int]]:
    """No mask, the mask less one of its terms, a term changed, and another mask alone or beside it."""
    now = plan.mask or plan.variant[choice]
    terms = list(now.terms) if now.word == "and" else [now]
    full = expression.parse("full", mask)
    seen = {str(now)}
    for other, rank in _other_masks(choice, plan, terms, full):
        if str(other) not in seen and not (plan.problem.mask is not None and str(other) == "full"):
            seen.add(str(other))
            yield other, rank


def _other_masks(
    choice: str, plan: Plan, terms: list[Expression], full: Expression
) -> Iterator[tuple[Expression, int]]:
    yield full, 1
    for i, term in enumerate(terms):
        rest = terms[:i] + terms[i + 1 :]
        yield expression.both(*rest) if rest else full, 1
        for changed, rank in reworked(choice, term):
            yield expression.both(*rest, changed), rank
    plain = [
        expression.parse(name, mask)
        for name, member in mask.members.items()
        if not any(o.required for o in member.options)
    ]
    for other in plain:  # causal and its like are likelier than what takes numbers
        if str(other) != "full":
            rank = 1 if not other.part or not other.part.member.options else 3
            yield expression.both(*terms, other), rank
            yield other, rank
    for member in mask:
        for part, rank in _members(choice, mask, member, plan):
            if part.options:
                one = Expression("part", part)
                yield one, rank
                yield expression.both(*terms, one), rank


def reworked(choice: str, term: Expression) -> Iterator[tuple[Expression, int]]:
    """An expression with one option of one of its parts changed."""
    if term.part:
        yield from ((Expression("part", part), rank) for part, rank in _changed(choice, mask, term.part))
        return
    for i, inner in enumerate(term.terms):
        for changed, rank in reworked(choice, inner):
            yield Expression(term.word, terms=(*term.terms[:i], changed, *term.terms[i + 1 :])), rank
