"""Which steps there will be, on which axes; which of them are kept; which fields nothing reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from attncli.errors import OptionError, input_error, join_names, suggestion
from attncli.mask_expression import MaskExpression
from attncli.parts.traits import ParameterTraits
from attncli.plan.chain import Link
from attncli.plan.head_shapes import HeadShapes
from attncli.plan.visibility import fields_read, is_self_attention
from attncli.registry import Part
from attncli.types import BASE_STEPS, DEFAULT_STEPS, Problem
from attncli.validation import ProblemSize
from attncli.validation.fields import STEP_NAMES
from attncli.variant import Variant

ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys")
TOP_STEPS = ("top_keys", "top_weights")


def step_axes(
    problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes, chain: tuple[Link, ...], top: int | None
) -> dict[str, tuple[str, ...]]:
    """Every step that will exist, in order of computation, with its axes."""
    acts, normed = variant.position.traits.acts_on, not variant.qk_norm.is_none
    absent = {
        "positioned_embeddings": acts != "embeddings",
        "v": shapes.c is None,
        "normed_q": not normed,
        "normed_k": not normed,
        "positioned_q": acts != "qk",
        "positioned_k": acts != "qk",
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
        if name == "mask":  # here the chain stands
            for link in chain:
                names += ["mask", link.step] if link.grid_field == "visible" and "mask" not in names else [link.step]
        elif not absent.get(name):
            names.append(name)
    late = variant.qk_norm.traits.is_after_position
    if late and late(variant.qk_norm) and acts == "qk":  # norms follow the position
        first = names.index("normed_q")
        names[first : first + 4] = ["positioned_q", "positioned_k", "normed_q", "normed_k"]
    return {
        name: _existing_axes(BASE_STEPS.get(name, BASE_STEPS["scores"]), problem, size, shapes, name) for name in names
    }


def _existing_axes(
    axes: tuple[str, ...], problem: Problem, size: ProblemSize, shapes: HeadShapes, name: str
) -> tuple[str, ...]:
    """The axes of a step less those that the problem lacks; a cache always has its batch and heads."""
    if name.startswith("present"):
        return axes
    absent = {"batch"} if size.batch is None else set()
    if not shapes.has_head_axis:
        absent |= {"head", "kv_head"}
    left = tuple(axis for axis in axes if axis not in absent)
    return left if problem.past is not None else tuple("key" if axis == "new_key" else axis for axis in left)


def default_steps(steps: Collection[str], top: int | None) -> list[str]:
    """The steps of a first look: those of `DEFAULT_STEPS` that exist, repeated links too."""
    wanted = {*DEFAULT_STEPS, *(TOP_STEPS if top else ())}
    return [s for s in steps if s in wanted or (s.rpartition("_")[0] in wanted and s[-1].isdigit())]


def resolve_keep(keep: Collection[str] | None, steps: Mapping[str, tuple[str, ...]], top: int | None) -> frozenset[str]:
    """The names of the steps to hold.

    Raises:
        OptionError: a name that no variant has, or top_keys without how many.
        InputError: a name that this variant lacks; those it has are listed.
    """
    groups = {"all": list(steps), "shown": default_steps(steps, top)}
    out: set[str] = set()
    for name in list(steps) if keep is None else [keep] if isinstance(keep, str) else keep:
        if name not in groups:
            _require_existing_step(name, steps)
        out |= set(groups.get(name, [name]))
    return frozenset(out)


def _require_existing_step(name: str, steps: Collection[str]) -> None:
    require_step_name(name)
    if name in TOP_STEPS and name not in steps:
        way = "--top 3 keeps the three largest weights of each query"
        raise OptionError("missing-option", f"{name} needs to know how many: --top N", help=way)
    if name not in steps:
        raise input_error("absent-step", f"this variant has no step {name!r}", help=f"it has {join_names(steps)}")


def require_step_name(name: str) -> None:
    """The name of a step that some variant has.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    base, _, again = name.rpartition("_")
    if name not in STEP_NAMES and not (base in STEP_NAMES and again.isdigit()):
        raise OptionError("unknown-step", f"no step is called {name!r}", help=suggestion(name, [*STEP_NAMES, "all"]))


def unused_fields(
    problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes, mask: MaskExpression | None
) -> Iterator[str]:
    """Fields that the problem holds and nothing of this variant reads."""
    applied = {parameter.name for parameter in variant.projection.member.parameters}
    if problem.q is not None:
        applied &= {"w_o", "b_o"}
    if shapes.output_width is None:
        applied -= {"w_o", "b_o"}
    parts: tuple[Part[ParameterTraits], ...] = (
        variant.qk_norm,
        variant.position,
        variant.score,
        variant.sink,
        variant.head_mixing,
    )
    for part in parts:
        needs = part.traits.required_parameters  # which it takes may hang on its options
        applied |= set(needs(part)) if needs else {parameter.name for parameter in part.member.parameters}
    yield from (f"parameters.{name}" for name in problem.parameters if name not in applied)
    acts = variant.position.traits.acts_on
    looked = fields_read(mask) | ({"q_pos", "k_pos"} if acts else set())
    if (
        acts == "embeddings"
        and problem.memory is None
        and problem.positions is not None
        and "k_pos" not in fields_read(mask)
    ):
        looked -= {"k_pos"}  # the keys are the queries' own embeddings
    elif is_self_attention(problem, size) and (
        problem.positions is None or problem.k_positions is None
    ):  # one side's positions are the other's
        looked |= {"q_pos", "k_pos"} if looked & {"q_pos", "k_pos"} else set()
    used = {
        "k_tokens": problem.q is not None,
        "layout": problem.q is not None,
        "w_layout": bool(problem.parameters) or variant.projection.traits.is_drawn,
        "positions": "q_pos" in looked,
        "k_positions": "k_pos" in looked,
        "segments": "q_seg" in looked,
        "k_segments": "k_seg" in looked,
        "dropout_mask": not variant.dropout.is_none,
    }
    yield from (name for name, read in used.items() if getattr(problem, name) is not None and not read)
