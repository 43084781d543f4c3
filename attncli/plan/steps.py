"""Decide which steps there will be and on which axes, which of them are kept, and which fields nothing reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from attncli.errors import OptionError, input_error
from attncli.mask_expression import MaskExpression
from attncli.parts.traits import ParameterTraits
from attncli.plan.chain import Link
from attncli.plan.head_shapes import HeadShapes
from attncli.plan.positions import is_self_attention
from attncli.plan.visibility import fields_read
from attncli.registry import Part
from attncli.step_names import require_step_name
from attncli.text import join_names
from attncli.types import BASE_STEPS, DEFAULT_STEPS, PARAMETER_STEPS, PROJECTED_STEPS, Problem
from attncli.validation import ProblemSize
from attncli.variant import Variant

ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys")
TOP_STEPS = ("top_keys", "top_weights")


def step_axes(
    problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes, chain: tuple[Link, ...], top: int | None
) -> dict[str, tuple[str, ...]]:
    """Return every step that will exist, in order of computation, with its axes."""
    position_acts_on, has_norm = variant.position.traits.acts_on, not variant.qk_norm.is_none
    absent = {
        "positioned_embeddings": position_acts_on != "embeddings",
        **{name: name not in shapes.parameters for name in PARAMETER_STEPS},
        "v": shapes.c is None,
        "normed_q": not has_norm,
        "normed_k": not has_norm,
        "positioned_q": position_acts_on != "qk",
        "positioned_k": position_acts_on != "qk",
        "present_k": problem.past is None,
        "present_v": problem.past is None or shapes.c is None,
        "sink_weights": variant.sink.is_none,
        "dropout_weights": variant.dropout.is_none,
        "mixed_weights": variant.head_mixing.is_none,
        **dict.fromkeys(TOP_STEPS, top is None),
        "head_context": shapes.c is None or not shapes.has_head_axis,
        "normed_context": shapes.c is None or variant.head_mixing.traits.transform_context is None,
        "context": shapes.c is None,
        "output": shapes.output_width is None,
    }
    names: list[str] = []
    for name in BASE_STEPS:
        if name == "mask":  # the steps of the chain go here, with the mask before the first link that applies it
            for link in chain:
                if link.grid_field == "visible" and "mask" not in names:
                    names.append("mask")
                names.append(link.step)
        elif not absent.get(name):
            names.append(name)
    is_after_position = variant.qk_norm.traits.is_after_position
    if position_acts_on == "qk" and is_after_position and is_after_position(variant.qk_norm):
        first = names.index("normed_q")
        names[first : first + 4] = ["positioned_q", "positioned_k", "normed_q", "normed_k"]
    return {
        name: _existing_axes(BASE_STEPS.get(name, BASE_STEPS["scores"]), problem, size, shapes, name) for name in names
    }


def _existing_axes(
    axes: tuple[str, ...], problem: Problem, size: ProblemSize, shapes: HeadShapes, name: str
) -> tuple[str, ...]:
    """Return the axes of a step without those that the problem lacks; a cache always has its batch and heads."""
    if name.startswith("present"):
        return axes
    absent = {"batch"} if size.batch is None else set()
    if not shapes.has_head_axis:
        absent |= {"head", "kv_head"}
    existing = tuple(axis for axis in axes if axis not in absent)
    return existing if problem.past is not None else tuple("key" if a == "new_key" else a for a in existing)


def default_steps(steps: Collection[str], top: int | None) -> list[str]:
    """Return the steps of a first look: those of `DEFAULT_STEPS` that exist, repeated links too, and q, k, v if projected."""
    has_projection = any(name in PARAMETER_STEPS and name[-1] in PROJECTED_STEPS for name in steps)
    default = {*DEFAULT_STEPS, *(PROJECTED_STEPS if has_projection else ()), *(TOP_STEPS if top else ())}
    return [step for step in steps if step in default or (step.rpartition("_")[0] in default and step[-1].isdigit())]


def resolve_keep(keep: Collection[str] | None, steps: Mapping[str, tuple[str, ...]], top: int | None) -> frozenset[str]:
    """Return the names of the steps to keep, from names and from the groups "all" and "shown".

    Raises:
        OptionError: a name that no variant has, or top_keys without how many.
        InputError: a name that this variant lacks; those it has are listed.
    """
    groups = {"all": list(steps), "shown": default_steps(steps, top)}
    if keep is None:
        return frozenset(steps)
    names: set[str] = set()
    for name in [keep] if isinstance(keep, str) else keep:
        if name not in groups:
            _require_existing_step(name, steps)
        names |= set(groups.get(name, [name]))
    return frozenset(names)


def _require_existing_step(name: str, steps: Collection[str]) -> None:
    require_step_name(name)
    if name in TOP_STEPS and name not in steps:
        hint = "--top 3 keeps the three largest weights of each query"
        raise OptionError("missing-option", f"{name} needs a number: --top N", help=hint)
    if name not in steps:
        raise input_error("absent-step", f"this variant has no step {name!r}", help=_suggest_existing_step(name, steps))


def _suggest_existing_step(name: str, steps: Collection[str]) -> str:
    """List the steps that a variant has, and how it would have the one that was asked for."""
    way = f"{_OPTIONS_OF_STEPS[name]} adds it; " if name in _OPTIONS_OF_STEPS else ""
    return f"{way}its steps are {join_names(steps)}"


_OPTIONS_OF_STEPS = {  # for a step that a variant may lack: the option that adds it
    "output": "out=yes, as in --projection linear:out=yes,",
    "dropout_weights": "--dropout 0.1",
    "masked_scores": "a mask, such as --causal,",
    "mask": "a mask, such as --causal,",
    "head_context": "--heads 2",
    "sink_weights": "--sink zero",
}


def unused_fields(
    problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes, mask: MaskExpression | None
) -> Iterator[str]:
    """Yield the fields that the problem holds and nothing of this variant reads."""
    used_parameters = _used_parameters(problem, variant, shapes)
    yield from (f"parameters.{name}" for name in problem.parameters if name not in used_parameters)
    grid_fields = _used_grid_fields(problem, variant, size, mask)
    used = {
        "k_tokens": problem.q is not None,
        "layout": problem.q is not None,
        "w_layout": bool(problem.parameters) or variant.projection.traits.is_drawn,
        "positions": "q_pos" in grid_fields,
        "k_positions": "k_pos" in grid_fields,
        "segments": "q_seg" in grid_fields,
        "k_segments": "k_seg" in grid_fields,
        "dropout_mask": not variant.dropout.is_none,
    }
    yield from (name for name, is_used in used.items() if getattr(problem, name) is not None and not is_used)


def _used_parameters(problem: Problem, variant: Variant, shapes: HeadShapes) -> set[str]:
    """Return the names of the parameters that the parts of a variant read."""
    names = {parameter.name for parameter in variant.projection.member.parameters}
    if problem.q is not None:
        names &= {"w_o", "b_o"}
    if shapes.output_width is None:
        names -= {"w_o", "b_o"}
    parts: tuple[Part[ParameterTraits], ...] = (
        variant.qk_norm,
        variant.position,
        variant.score,
        variant.sink,
        variant.head_mixing,
    )
    for part in parts:
        required_parameters = part.traits.required_parameters  # where they depend on its options
        names |= (
            {*required_parameters(part)}
            if required_parameters
            else {parameter.name for parameter in part.member.parameters}
        )
    return names


def _used_grid_fields(problem: Problem, variant: Variant, size: ProblemSize, mask: MaskExpression | None) -> set[str]:
    """Return the fields of the grid that mask and position read, as far as the problem's own fields decide them."""
    acts_on = variant.position.traits.acts_on
    mask_fields = fields_read(mask) - ({"q_pos", "k_pos"} if variant.mask_by == "index" else set())
    fields = mask_fields | ({"q_pos", "k_pos"} if acts_on else set())
    if acts_on == "embeddings" and problem.memory is None and problem.positions is not None:
        return fields if "k_pos" in mask_fields else fields - {"k_pos"}  # the keys are the queries' own embeddings
    has_one_side_at_most = problem.positions is None or problem.k_positions is None
    if is_self_attention(problem, size) and has_one_side_at_most and fields & {"q_pos", "k_pos"}:
        return fields | {"q_pos", "k_pos"}  # the positions of one side are the other's too
    return fields
