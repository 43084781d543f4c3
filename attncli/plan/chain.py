"""Build the chain: the links that do something on a problem, in order, each bound to its value. Entry: `build_chain`."""

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
    """One link of the chain that does something, bound to its value, and the step that it leaves."""

    name: str
    step: str
    formula: str
    run: Callable[[Tensor, Grid], Tensor]
    value: float | None = None
    value_formula: str = ""  # where its value comes from, if it was not given
    part: Part[MixingTraits] | Part[PositionTraits] | None = None  # the part that it runs
    grid_field: Literal["", "bias", "visible"] = ""  # what it takes from the grid
    is_scale: bool = False
    is_mask: bool = False  # hidden scores stay −∞ from there on
    is_fused: bool = False  # scaled_dot_product_attention computes it
    reads_whole_row: bool = False  # it cannot act on some keys of a row without the others
    derivation: Derivation | None = None
    gradient_factor: Callable[[RowDerivation, KeyCell], EquationSide] | None = None


def build_chain(problem: Problem, variant: Variant, head_dim: int, is_masked: bool) -> tuple[Link, ...]:
    """Return the links that do something, in the chain's order; one that is repeated leaves a step of its own.

    Raises:
        InputError: the chain leaves out what this problem needs.
    """
    bound = {name: _bind_link(link[name], problem, variant, head_dim, is_masked) for name in link.members}
    active = {name: bound_link for name, bound_link in bound.items() if bound_link}
    for name, bound_link in active.items():
        if name not in variant.chain:
            hint = f"add {name} to --chain where it should act{', or give --scale none' if bound_link.is_scale else ''}"
            chain = ",".join(variant.chain) or "none"
            raise input_error("left-out", f"the chain {chain} leaves out {name}, which this problem needs", help=hint)
    links: list[Link] = []
    for name in variant.chain:
        if name in active:
            earlier_count = sum(earlier.name == name for earlier in links)
            step = f"{active[name].step}_{earlier_count + 1}" if earlier_count else active[name].step
            links.append(replace(active[name], step=step))
    return tuple(links)


def _bind_link(
    member: Member[LinkTraits], problem: Problem, variant: Variant, head_dim: int, is_masked: bool
) -> Link | None:
    """Bind a link to its value, or to the part that it runs; None where it does nothing on this problem."""
    traits = member.traits
    unbound = Link(
        member.name,
        traits.step,
        member.formula,
        member.function,
        grid_field=traits.grid_field,
        is_scale=traits.is_scale,
        is_mask=traits.is_mask,
        is_fused=traits.is_fused,
        reads_whole_row=traits.reads_whole_row,
        derivation=traits.derivation,
        gradient_factor=traits.gradient_factor,
    )
    if traits.grid_field == "bias":
        return unbound if problem.bias is not None else None
    if traits.grid_field == "visible":
        return unbound if is_masked else None
    if traits.part_choice:
        part = variant.position if traits.part_choice == "position" else variant.head_mixing
        return _bind_part(unbound, part) if _acts_on_scores(part, problem) else None
    value, value_formula = variant[member.name.replace("-", "_")], ""
    if value == "auto":
        auto_scale = variant.score.traits.auto_scale
        value, value_formula = (auto_scale(head_dim), f"1/√{head_dim}") if auto_scale else (1, "")
    if value in ("none", traits.neutral_value):
        return None
    option = member.options[0]
    formula = member.formula.format(**{option.name: f"{value:.6g}"})
    if value_formula:
        formula += f" = s / √d_k, d_k = {head_dim}"
    run = partial(member.function, **{option.argument: value})
    return replace(unbound, formula=formula, run=run, value=value, value_formula=value_formula)


def _bind_part(unbound: Link, part: Part[MixingTraits] | Part[PositionTraits]) -> Link:
    """Bind a link to the part that it runs, and whose formula and derivation it has."""
    traits = part.traits
    derivation = (traits.scores_derivation if isinstance(traits, MixingTraits) else None) or traits.derivation
    function: Callable[..., Tensor] = unbound.run  # it takes a part, too
    run = partial(function, part=part)
    return replace(unbound, formula=part.formula, run=run, part=part, derivation=derivation)


def _acts_on_scores(part: Part[MixingTraits] | Part[PositionTraits], problem: Problem) -> bool:
    """Whether a position or a head mixing does something to scores on this problem."""
    traits = part.traits
    if isinstance(traits, PositionTraits):
        return traits.acts_on == "scores"
    return traits.scores_parameter in problem.parameters
