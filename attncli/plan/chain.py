"""The chain: which links do something on this problem, in which order, each bound to its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from attncli.errors import wrong
from attncli.parts.links import link
from attncli.parts.traits import LinkTraits, MixingTraits, PositionTraits
from attncli.registry import Member, Part
from attncli.types import Grid, Problem, Tensor
from attncli.variant import Variant

if TYPE_CHECKING:
    from attncli.derivation import Cell, Expr, Work, Worked


@dataclass(frozen=True)
class Link:
    """One link of the chain that does something, bound to its value, and the step it leaves."""

    name: str
    step: str
    formula: str
    run: Callable[[Tensor, Grid], Tensor]
    value: float | None = None
    why: str = ""  # where its value comes from, if nobody said it
    part: Part[MixingTraits] | Part[PositionTraits] | None = None  # the one that says what it does
    grid_field: Literal["", "bias", "visible"] = ""  # what it takes from the grid
    is_scale: bool = False
    is_mask: bool = False  # what is hidden stays −∞ from there on
    is_fused: bool = False  # scaled_dot_product_attention computes it
    derivation: Worked | None = None
    gradient_factor: Callable[[Work, Cell], Expr] | None = None


def chain_of(p: Problem, v: Variant, width: int, masked: bool) -> tuple[Link, ...]:
    """The links that do something, in the chain's order; one that stands again leaves a step of its own.

    Raises:
        InputError: the chain leaves out what this problem needs.
    """
    bound = {name: _bound(link[name], p, v, width, masked) for name in link.members}
    used = {name: made for name, made in bound.items() if made}
    for name, made in used.items():
        if name not in v.chain:
            way = f"add {name} to --chain where it should stand{', or say --scale none' if made.is_scale else ''}"
            chain = ",".join(v.chain) or "none"
            raise wrong("left-out", f"the chain {chain} leaves out {name}, which this problem needs", help=way)
    out: list[Link] = []
    for name in v.chain:
        if name in used:
            again = sum(done.name == name for done in out)
            out.append(replace(used[name], step=used[name].step + (f"_{again + 1}" if again else "")))
    return tuple(out)


def _bound(member: Member[LinkTraits], p: Problem, v: Variant, width: int, masked: bool) -> Link | None:
    """The link with its value, or with the part that says what it does; None where it does nothing."""
    traits = member.traits
    made = Link(
        member.name,
        traits.step,
        member.formula,
        member.function,
        grid_field=traits.grid_field,
        is_scale=traits.is_scale,
        is_mask=traits.is_mask,
        is_fused=traits.is_fused,
        derivation=traits.derivation,
        gradient_factor=traits.gradient_factor,
    )
    if traits.grid_field:
        return made if (p.bias is not None if traits.grid_field == "bias" else masked) else None
    if traits.part_choice:
        part = v.position if traits.part_choice == "position" else v.head_mixing
        if not _acts_on_scores(part, p):
            return None
        own = part.traits
        derivation = (own.scores_derivation if isinstance(own, MixingTraits) else None) or own.derivation
        run = partial(member.function, part=part)
        return replace(made, formula=part.member.formula, run=run, part=part, derivation=derivation)
    value, why = v[member.name.replace("-", "_")], ""
    if value == "auto":  # the score knows its scale
        rule = v.score.traits.auto_scale
        value, why = (rule(width), f"1/√{width}") if rule else (1, "")
    if value in ("none", traits.neutral_value):
        return None
    option = member.options[0]
    formula = member.formula.format(**{option.name: f"{value:.6g}"}) + (f" = s / √d_k, d_k = {width}" if why else "")
    return replace(
        made, formula=formula, run=partial(member.function, **{option.argument: value}), value=value, why=why
    )


def _acts_on_scores(part: Part[MixingTraits] | Part[PositionTraits], p: Problem) -> bool:
    """Whether a position or a head mixing does something to scores on this problem."""
    traits = part.traits
    if isinstance(traits, PositionTraits):
        return traits.acts_on == "scores"
    return traits.scores_parameter in p.parameters
