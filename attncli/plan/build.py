"""Make a plan of a problem and a variant, or raise what is wrong with the two together. Entry: `make_plan`.

It does so in two steps, since which queries are computed may be known only once the outline is there (`--at` names
them by token): `outline_plan` decides everything but the schedule, `finish_plan` the schedule.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from attncli.errors import InputError, OptionError, input_error
from attncli.mask_expression import MaskExpression
from attncli.plan.broadcasts import resolve_broadcasts
from attncli.plan.cache import OutlineCache, outline_key
from attncli.plan.chain import build_chain
from attncli.plan.head_shapes import HeadShapes, choose_projection, resolve_head_shapes
from attncli.plan.packed_arrays import resolve_framework_arrays
from attncli.plan.plan import Plan, SharedPlan, draws_from_seed
from attncli.plan.positions import resolve_order, resolve_positions
from attncli.plan.repeated_positions import repeated_positions_warning
from attncli.plan.schedule import MAX_TILE_SCORES, choose_schedule
from attncli.plan.steps import resolve_keep, step_axes, unused_fields
from attncli.plan.summary import describe_rows, summarize_plan
from attncli.plan.visibility import compute_visibility, effective_mask, grid_arrays
from attncli.presets import find_cross_attention
from attncli.text import join_names, pluralize, there_are
from attncli.types import Array, Problem
from attncli.validation import ProblemSize, problem_size, validate
from attncli.validation.fields import as_numpy, shape_of
from attncli.variant import Variant

OUTLINE_CACHE = OutlineCache()


def make_plan(
    problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None
) -> Plan:
    """Plan the computation of a variant on a problem.

    Args:
        problem: as it came in, or validated already.
        variant: what to compute; the problem's own choices if left out.
        keep: names of steps; None keeps every step, "shown" those of a first look.
        top: how many of the largest weights of each query to return.

    Raises:
        InputError: problem and variant do not go together, or a step is asked for that this variant lacks.
        OptionError: a step is asked for that no variant has.
        CannotError: it does not fit in memory.
    """
    return finish_plan(outline_plan(problem, variant, keep, top=top))


def outline_plan(
    problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None
) -> Plan:
    """Plan everything but the schedule. Arguments and errors are those of `make_plan`."""
    problem = validate(problem)
    variant = variant if variant is not None else Variant(**problem.variant)
    problem, variant = resolve_framework_arrays(problem, variant)
    key = outline_key(problem, variant, keep, top)
    remembered = OUTLINE_CACHE.get(key) if key else None
    if remembered:
        return remembered.with_problem(problem)
    outline = build_outline(problem, variant, keep, top)
    if key and outline.variant.seed == variant.seed:  # a seed that was drawn is drawn anew for each problem
        OUTLINE_CACHE.add(key, replace(outline.without_data(), shared=SharedPlan()))
    return outline


def build_outline(problem: Problem, variant: Variant, keep: Collection[str] | None, top: int | None) -> Plan:
    """Build the outline of a validated problem, without looking whether it is remembered."""
    size = problem_size(problem)
    _check_required_choices(problem, variant, size)
    variant = variant.replace(projection=choose_projection(problem, variant))
    shapes = resolve_head_shapes(problem, variant, size)
    problem = resolve_broadcasts(problem, size, shapes.heads)
    mask = effective_mask(problem, variant)
    is_masked = mask is not None or problem.lengths is not None or _has_minus_infinity(problem.bias)
    chain = build_chain(problem, variant, shapes.d, is_masked)
    q_pos, k_pos = resolve_positions(problem, variant, size, None if variant.mask_by == "index" else mask)
    q_order, k_order = resolve_order(problem, variant, size, mask)
    variant = variant.replace(
        mask=mask or variant.mask, seed=_choose_seed(problem, variant), dtype=_choose_dtype(problem, variant)
    )
    if shapes.has_head_axis:
        variant = variant.replace(heads=shapes.heads, kv_heads=shapes.kv_heads)
    steps = step_axes(problem, variant, size, shapes, chain, top)
    outline = Plan(
        problem=problem,
        variant=variant,
        size=size,
        shapes=shapes,
        chain=chain,
        mask=mask,
        is_masked=is_masked,
        steps=steps,
        keep=resolve_keep(keep, steps, top),
        top=min(top or 0, size.keys),
        q_pos=q_pos,
        k_pos=k_pos,
        q_order=q_order,
        k_order=k_order,
        warnings=(
            *_read_as_batch_warning(problem, shapes),
            *_read_heads_first_warning(problem, size),
            *_past_layout_warning(problem),
            *_absent_token_warnings(mask, size),
            *_self_attention_of_decoder_warning(problem, variant, mask),
            *(
                f"unused-field: {name} is not used by this variant"
                for name in unused_fields(problem, variant, size, shapes, mask)
            ),
        ),
        summary=summarize_plan(problem, variant, size, shapes, chain, is_masked),
        is_first_look=keep is not None and (keep == "shown" or list(keep) == ["shown"]),
    )
    found = [
        warning for warning in (repeated_positions_warning(outline), _uncounted_padding_warning(outline)) if warning
    ]
    return replace(outline, warnings=(*outline.warnings, *found)) if found else outline


def _uncounted_padding_warning(outline: Plan) -> str:
    if outline.variant.align != "bottom-right" or (outline.problem.mask is None and outline.problem.bias is None):
        return ""
    from attncli.plan.uncounted_padding import uncounted_padding_warning

    return uncounted_padding_warning(outline)


def _read_as_batch_warning(problem: Problem, shapes: HeadShapes) -> tuple[str, ...]:
    """Return the warning that q, k and v of three axes are taken for a batch without heads, if they are."""
    if problem.q is None or problem.q.ndim != 3 or problem.layout:
        return ()
    if shapes.has_head_axis and (shapes.heads == 1 or shapes.heads not in shape_of(problem.q)[:2]):
        return ()  # one head is said; or no axis but the last can hold the heads
    by_token = (problem.positions, problem.k_positions, problem.segments, problem.k_segments)
    labels = (problem.tokens, problem.k_tokens)
    if problem.lengths is not None or problem.past is not None or any(x is not None and x.ndim == 2 for x in by_token):
        return ()  # the file holds something for each item of a batch
    if any(x and isinstance(x[0], tuple) for x in labels):
        return ()
    b, t, d = shape_of(problem.q)
    reading = f"{pluralize(b, 'item')} of {pluralize(t, 'query', 'queries')}, {d} wide"
    if shapes.has_head_axis:
        heads = f"the {shapes.heads} heads side by side"
    else:
        heads = "without heads (--heads 1 confirms it)"
    return (
        f"read-as-batch: q, k and v of three axes are read as (B, T, d): {reading}, {heads}; "
        'where one axis holds heads, add "layout": "thd" for (T, H, d), or "htd" for (H, T, d)',
    )


def _read_heads_first_warning(problem: Problem, size: ProblemSize) -> tuple[str, ...]:
    """Return the warning that q, k and v of four axes, as many heads as tokens, are taken for (B, H, T, d), if they are."""
    sizes = (size.heads, size.kv_heads, size.queries, size.new_keys)
    if problem.q is None or problem.q.ndim != 4 or problem.layout or size.queries == 1 or len({*sizes}) > 1:
        return ()
    return (
        f"read-as-heads-first: q, k and v of four axes are read as (B, H, T, d), {pluralize(size.queries, 'head')} of as many tokens; "
        'add "layout": "bthd" for (B, T, H, d), or "bhtd", which confirms it',
    )


def _past_layout_warning(problem: Problem) -> tuple[str, ...]:
    """Return the warning that a cache of as many tokens as heads is read as (B, H, P, d) beside q, k and v with tokens first."""
    if problem.past is None or problem.layout not in ("bthd", "thd"):
        return ()
    _, heads, tokens, _ = shape_of(problem.past["k"])
    if heads != tokens or heads == 1:
        return ()
    return (
        f"past-layout: past.k and past.v are read as (B, H, P, d), whatever the layout: {pluralize(heads, 'head')} of {pluralize(tokens, 'token')}; "
        "if they are (B, P, H, d), exchange their axes 1 and 2",
    )


def _absent_token_warnings(mask: MaskExpression | None, size: ProblemSize) -> Iterator[str]:
    """Yield a warning for each mask that names a token which is not there."""
    for part in mask.iter_parts() if mask else ():
        named_tokens = part.traits.named_tokens
        absent = [token for token in named_tokens(part) if token >= size.keys] if named_tokens else []
        if absent:
            names = f"token {absent[0]}" if len(absent) == 1 else f"tokens {join_names(absent, max_names=4)}"
            yield f"absent-token: mask {part.name} names {names}, but {there_are(size.keys, 'key')}, counted from 0"


def _self_attention_of_decoder_warning(
    problem: Problem, variant: Variant, mask: MaskExpression | None
) -> tuple[str, ...]:
    """Return the warning that a memory is attended to as a decoder's own tokens are, if it is."""
    cross_attention = find_cross_attention(variant.name) if problem.memory is not None else ""
    if not cross_attention or (mask is None and variant.position.is_none):
        return ()
    return (
        f"decoder-memory: {variant.name} is the self-attention of a decoder, and here its mask and positions are applied to the memory; "
        f"the attention of its layers to a memory is {cross_attention}",
    )


def finish_plan(plan: Plan, selection: Mapping[str, tuple[int, ...]] | None = None, *, streamed: bool = False) -> Plan:
    """Give an outline its schedule; of a long run only the queries that `selection` names are computed.

    Args:
        plan: the outline.
        selection: indices by axis, as `--at` chose them.
        streamed: whether matrices go to a file as they are computed, and not to memory.

    Raises:
        InputError: the schedule that was asked for cannot run this, or a query sees no key and that is an error.
        CannotError: it does not fit in memory.
    """
    finished = plan.shared.finished_plan if plan.shared and not selection else None
    if finished is not None:
        return finished.with_problem(plan.problem)
    finished = choose_schedule(plan, selection, streamed=streamed)
    _check_empty_rows(finished)
    if plan.shared and not selection and finished.schedule == "dense":  # others depend on how much memory is free
        plan.shared.finished_plan = finished.without_data()
    return finished


def _check_empty_rows(plan: Plan) -> None:
    """Check that every query sees a key, where `--empty-rows error` asks for it.

    Raises:
        InputError: some do not.
    """
    if plan.variant.empty_rows != "error" or not plan.is_masked:
        return
    grid = plan.make_grid()
    arrays: dict[str, Array] = {name: as_numpy(x) for name, x in grid_arrays(grid).items()}
    n, rows_at_once = plan.axis_length("scores", "query"), max(1, MAX_TILE_SCORES // plan.size.keys)
    empty = np.zeros((plan.size.batch or 1, plan.shapes.heads, n), bool)
    for first in range(0, n, rows_at_once):
        rows = slice(first, first + rows_at_once)
        rows_of_arrays = {name: x[:, :, rows] for name, x in arrays.items() if x.shape[2] > 1}
        visible = compute_visibility(
            replace(grid, **(arrays | rows_of_arrays)), plan.mask
        )  # broadcasts to (b, h, n, m)
        empty[:, :, rows] = ~visible.any(-1)
    description = describe_rows(empty, plan)
    if description:
        raise InputError(
            "empty-rows",
            f"{description} no key, and empty_rows is error",
            help="choose their weights: --empty-rows zero, nan or uniform",
        )


def _has_minus_infinity(bias: Array) -> bool:
    return bias is not None and bool((bias == float("-inf")).any())


def _choose_seed(problem: Problem, variant: Variant) -> int | None:
    """Return the seed for whatever has no seed of its own; where none was given and one is needed, draw it."""
    if variant.seed is None and draws_from_seed(problem, variant):
        return secrets.randbelow(2**31)
    return None if variant.seed is None else int(variant.seed)


def _choose_dtype(problem: Problem, variant: Variant) -> str:
    """Return the variant's dtype; by default float64 for text, and of arrays the widest, at least float32.

    Where a device has no float64, the default is float32.

    Raises:
        OptionError: float64 was asked of such a device.
    """
    if variant.device == "mps" and variant.dtype == "float64":
        raise OptionError("bad-option", "the device mps has no float64", help="--dtype float32, or --device cpu")
    if variant.dtype:
        return str(variant.dtype)
    arrays = [
        problem.embeddings,
        problem.q,
        problem.k,
        problem.v,
        *(problem.memory or {}).values(),
        *(problem.past or {}).values(),
        *problem.parameters.values(),
    ]
    dtypes = {str(x.dtype).removeprefix("torch.") for x in arrays if hasattr(x, "dtype")}  # labels have none
    is_wide = bool(dtypes - {"float32", "float16", "bfloat16"})
    return "float64" if is_wide and variant.device != "mps" else "float32"


_NAMES_OF_CHOICES = {
    "heads": "a number of heads",
    "kv_heads": "a number of kv heads",
    "memory": "a memory to attend to",
    "window": "a window",
}


def _check_required_choices(problem: Problem, variant: Variant, size: ProblemSize) -> None:
    """Check that the user has made the choices that a preset leaves to the user.

    Raises:
        InputError: one is missing.
    """
    has_window = any(part.traits.is_window for part in variant.mask.iter_parts())
    choices = {  # name → whether it has been made, and how to make it
        "heads": (variant.heads or size.heads, "add --heads H; the width is split equally among them"),
        "kv_heads": (variant.kv_heads or size.kv_heads, "add --kv-heads G, which must divide the number of heads"),
        "memory": (
            problem.memory is not None or problem.q is not None,
            "give memory in the file, or --with memory=FILE",
        ),
        "window": (has_window, "add --window LEFT,RIGHT, as in --window 2,0"),
    }
    for name in variant.required_choices:
        is_made, hint = choices[name]
        if not is_made:
            raise input_error(
                "missing-choice", f"the variant {variant.name!r} needs {_NAMES_OF_CHOICES[name]}", help=hint
            )
