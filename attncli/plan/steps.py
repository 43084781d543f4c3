"""Which steps there will be, on which axes; which of them are kept; which fields nothing reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from attncli.errors import OptionError, listed, nearest, wrong
from attncli.mask_expression import Expression
from attncli.parts.traits import ParameterTraits
from attncli.plan.chain import Link
from attncli.plan.head_shapes import Shapes
from attncli.plan.visibility import follows, reads
from attncli.registry import Part
from attncli.types import BASE_STEPS, SHOWN, Problem
from attncli.validation import Extent
from attncli.validation.fields import STEP_NAMES
from attncli.variant import Variant

ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys")
TOP = ("top_keys", "top_weights")


def steps_of(
    p: Problem, v: Variant, size: Extent, shapes: Shapes, chain: tuple[Link, ...], top: int | None
) -> dict[str, tuple[str, ...]]:
    """Every step that will exist, in order of computation, with its axes."""
    acts, normed = v.position.traits.acts_on, not v.qk_norm.is_none
    absent = {
        "positioned_embeddings": acts != "embeddings",
        "v": shapes.c is None,
        "normed_q": not normed,
        "normed_k": not normed,
        "positioned_q": acts != "qk",
        "positioned_k": acts != "qk",
        "present_k": p.past is None,
        "present_v": p.past is None or shapes.c is None,
        "sink_weights": v.sink.is_none,
        "dropout_weights": v.dropout.is_none,
        "mixed_weights": v.head_mixing.is_none,
        **dict.fromkeys(TOP, top is None),
        "head_context": shapes.c is None or not shapes.headed,
        "normed_context": shapes.c is None or v.head_mixing.traits.transform_context is None,
        "context": shapes.c is None,
        "output": shapes.out is None,
    }
    names: list[str] = []
    for name in BASE_STEPS:
        if name == "mask":  # here the chain stands
            for link in chain:
                names += ["mask", link.step] if link.grid_field == "visible" and "mask" not in names else [link.step]
        elif not absent.get(name):
            names.append(name)
    late = v.qk_norm.traits.is_after_position
    if late and late(v.qk_norm) and acts == "qk":  # norms follow the position
        first = names.index("normed_q")
        names[first : first + 4] = ["positioned_q", "positioned_k", "normed_q", "normed_k"]
    return {name: _axes(BASE_STEPS.get(name, BASE_STEPS["scores"]), p, size, shapes, name) for name in names}


def _axes(axes: tuple[str, ...], p: Problem, size: Extent, shapes: Shapes, name: str) -> tuple[str, ...]:
    """The axes of a step less those that the problem lacks; a cache always has its batch and heads."""
    if name.startswith("present"):
        return axes
    absent = {"batch"} if size.batch is None else set()
    if not shapes.headed:
        absent |= {"head", "kv_head"}
    left = tuple(axis for axis in axes if axis not in absent)
    return left if p.past is not None else tuple("key" if axis == "new_key" else axis for axis in left)


def shown(steps: Collection[str], top: int | None) -> list[str]:
    """The steps of a first look: those of `SHOWN` that exist, repeated links too."""
    wanted = {*SHOWN, *(TOP if top else ())}
    return [s for s in steps if s in wanted or (s.rpartition("_")[0] in wanted and s[-1].isdigit())]


def kept(keep: Collection[str] | None, steps: Mapping[str, tuple[str, ...]], top: int | None) -> frozenset[str]:
    """The names of the steps to hold.

    Raises:
        OptionError: a name that no variant has, or top_keys without how many.
        InputError: a name that this variant lacks; those it has are listed.
    """
    groups = {"all": list(steps), "shown": shown(steps, top)}
    out: set[str] = set()
    for name in list(steps) if keep is None else [keep] if isinstance(keep, str) else keep:
        if name not in groups:
            _check_there(name, steps)
        out |= set(groups.get(name, [name]))
    return frozenset(out)


def _check_there(name: str, steps: Collection[str]) -> None:
    check_step(name)
    if name in TOP and name not in steps:
        way = "--top 3 keeps the three largest weights of each query"
        raise OptionError("missing-option", f"{name} needs to know how many: --top N", help=way)
    if name not in steps:
        raise wrong("absent-step", f"this variant has no step {name!r}", help=f"it has {listed(steps)}")


def check_step(name: str) -> None:
    """The name of a step that some variant has.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    base, _, again = name.rpartition("_")
    if name not in STEP_NAMES and not (base in STEP_NAMES and again.isdigit()):
        raise OptionError("unknown-step", f"no step is called {name!r}", help=nearest(name, [*STEP_NAMES, "all"]))


def unused(p: Problem, v: Variant, size: Extent, shapes: Shapes, mask: Expression | None) -> Iterator[str]:
    """Fields that the problem holds and nothing of this variant reads."""
    applied = {parameter.name for parameter in v.projection.member.parameters}
    if p.q is not None:
        applied &= {"w_o", "b_o"}
    if shapes.out is None:
        applied -= {"w_o", "b_o"}
    parts: tuple[Part[ParameterTraits], ...] = (v.qk_norm, v.position, v.score, v.sink, v.head_mixing)
    for part in parts:
        needs = part.traits.required_parameters  # which it takes may hang on its options
        applied |= set(needs(part)) if needs else {parameter.name for parameter in part.member.parameters}
    yield from (f"parameters.{name}" for name in p.parameters if name not in applied)
    acts = v.position.traits.acts_on
    looked = reads(mask) | ({"q_pos", "k_pos"} if acts else set())
    if acts == "embeddings" and p.memory is None and p.positions is not None and "k_pos" not in reads(mask):
        looked -= {"k_pos"}  # the keys are the queries' own embeddings
    elif follows(p, size) and (p.positions is None or p.k_positions is None):  # one side's positions are the other's
        looked |= {"q_pos", "k_pos"} if looked & {"q_pos", "k_pos"} else set()
    used = {
        "k_tokens": p.q is not None,
        "layout": p.q is not None,
        "w_layout": bool(p.parameters) or v.projection.traits.is_drawn,
        "positions": "q_pos" in looked,
        "k_positions": "k_pos" in looked,
        "segments": "q_seg" in looked,
        "k_segments": "k_seg" in looked,
        "dropout_mask": not v.dropout.is_none,
    }
    yield from (name for name, read in used.items() if getattr(p, name) is not None and not read)
