"""The chain: which links do something on this problem, in which order, each bound to its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from attncli.errors import input_error
from attncli.parts.links import link
from attncli.parts.traits import LinkTraits, MixingTraits, PositionTraits
from attncli.registry import Member, Part
from attncli.types import Grid, Problem, Tensor
from attncli.variant import Variant

if TYPE_CHECKING:
    from attncli.derivation import Derivation, EquationSide, KeyCell, RowDerivation


@dataclass(frozen=True)
class Link:
    """One link of the chain that does something, bound to its value, and the step it leaves."""

    name: str
    step: str
    formula: str
    run: Callable[[Tensor, Grid], Tensor]
    value: float | None = None
    value_formula: str = ""  # where its value comes from, if nobody said it
    part: Part[MixingTraits] | Part[PositionTraits] | None = None  # the one that says what it does
    grid_field: Literal["", "bias", "visible"] = ""  # what it takes from the grid
    is_scale: bool = False
    is_mask: bool = False  # what is hidden stays −∞ from there on
    is_fused: bool = False  # scaled_dot_product_attention computes it
    derivation: Derivation | None = None
    gradient_factor: Callable[[RowDerivation, KeyCell], EquationSide] | None = None


def build_chain(problem: Problem, variant: Variant, head_dim: int, is_masked: bool) -> tuple[Link, ...]:
    """The links that do something, in the chain's order; one that stands again leaves a step of its own.

    Raises:
        InputError: the chain leaves out what this problem needs.
    """
    bound = {name: _bind_link(link[name], problem, variant, head_dim, is_masked) for name in link.members}
    used = {name: made for name, made in bound.items() if made}
    for name, made in used.items():
        if name not in variant.chain:
            way = f"add {name} to --chain where it should stand{', or say --scale none' if made.is_scale else ''}"
            chain = ",".join(variant.chain) or "none"
            raise input_error("left-out", f"the chain {chain} leaves out {name}, which this problem needs", help=way)
    out: list[Link] = []
    for name in variant.chain:
        if name in used:
            again = sum(done.name == name for done in out)
            out.append(replace(used[name], step=used[name].step + (f"_{again + 1}" if again else "")))
    return tuple(out)


def _bind_link(
    member: Member[LinkTraits], problem: Problem, variant: Variant, head_dim: int, is_masked: bool
) -> Link | None:
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
        return made if (problem.bias is not None if traits.grid_field == "bias" else is_masked) else None
    if traits.part_choice:
        part = variant.position if traits.part_choice == "position" else variant.head_mixing
        if not _acts_on_scores(part, problem):
            return None
        own = part.traits
        derivation = (own.scores_derivation if isinstance(own, MixingTraits) else None) or own.derivation
        run = partial(member.function, part=part)
        return replace(made, formula=part.member.formula, run=run, part=part, derivation=derivation)
    value, why = variant[member.name.replace("-", "_")], ""
    if value == "auto":  # the score knows its scale
        rule = variant.score.traits.auto_scale
        value, why = (rule(head_dim), f"1/√{head_dim}") if rule else (1, "")
    if value in ("none", traits.neutral_value):
        return None
    option = member.options[0]
    formula = member.formula.format(**{option.name: f"{value:.6g}"}) + (f" = s / √d_k, d_k = {head_dim}" if why else "")
    return replace(
        made, formula=formula, run=partial(member.function, **{option.argument: value}), value=value, value_formula=why
    )


def _acts_on_scores(part: Part[MixingTraits] | Part[PositionTraits], problem: Problem) -> bool:
    """Whether a position or a head mixing does something to scores on this problem."""
    traits = part.traits
    if isinstance(traits, PositionTraits):
        return traits.acts_on == "scores"
    return traits.scores_parameter in problem.parameters
