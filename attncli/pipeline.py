"""From a problem and a request to its result: plan, compute, select. Every command that computes, and every worker, comes here.

`compute` does all three; `plan_request`, `load_engine` and `apply_selection` are its steps.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, wraps
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, Protocol, TypeVar

from attncli.errors import AttnError, CannotError, ExitStatus, OptionError
from attncli.output_formats import StepShape
from attncli.package_errors import INSTALLATION_CODES, first_line_of, package_error
from attncli.request import OutputOptions, VariantRequest
from attncli.text import escape_json_controls, replace_undecodable

if TYPE_CHECKING:
    from attncli.core.attention import TileExecutor
    from attncli.core.recorder import StepAllocator
    from attncli.core.tiles import ProgressCallback
    from attncli.output_formats import Format
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Attention, Json, Problem

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
MAX_GROUP_SIZE = 128  # problems that are begun before the first of them is answered
MAX_GROUP_SCORES = 2**17  # scores of those problems, beyond which no other is begun


class RunPlan(Protocol):
    """What computes a plan: `core.attention.run_plan`, as `load_engine` returns it."""

    def __call__(
        self,
        plan: Plan,
        progress: ProgressCallback | None = None,
        allocate_step: StepAllocator | None = None,
        tile_executor: TileExecutor | None = None,
    ) -> Attention: ...


def plan_request(
    problem: Problem,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None = None,
    *,
    streamed: bool = False,
) -> tuple[Plan, Selection]:
    """Plan what will be computed, and which part of it is shown.

    Args:
        problem: what the input holds.
        variant_request: what to compute of it.
        output_options: which steps, and which part of them.
        seed: the seed where the variant draws and names none; None: one is drawn.
        streamed: whether matrices of a long run go to a file as they are computed, and not to memory.

    Raises:
        OptionError: the request is wrong, whatever the problem.
        InputError: the request does not go with the problem.
    """
    from attncli.plan import finish_plan, outline_plan
    from attncli.select import Selectable, add_kv_heads, resolve_selection, selects_only_queries

    keep = list(output_options.kept_steps) or ["shown"]
    try:
        variant = variant_request.resolve_variant(problem.variant)
        plan = outline_plan(problem, variant, keep, top=output_options.top)
        if seed is not None and variant.seed is None and plan.variant.seed is not None:
            plan = outline_plan(problem, variant.replace(seed=seed), keep, top=output_options.top)
        selection: Selection = {}
        if output_options.at:
            selection = add_kv_heads(plan, resolve_selection(Selectable.of_plan(plan), output_options.at))
        plan = finish_plan(plan, selection, streamed=streamed and selects_only_queries(selection))
        if variant_request.settings:
            plan = replace(plan, settings=variant_request.used_settings(problem.variant))
        return plan, selection
    except AttnError as error:
        raise error.add_location(file=problem.source) if error.status == ExitStatus.INPUT else error from None


def planned_shapes(plan: Plan, selection: Selection) -> list[StepShape]:
    """Return the shapes of the steps that will be kept, with the part of them that was selected."""

    def length(step: str, axis: str) -> int:
        return len(selection[axis]) if axis in selection else plan.axis_length(step, axis)

    kept = {name: axes for name, axes in plan.steps.items() if name in plan.keep}
    return [StepShape(name, axes, tuple(length(name, axis) for axis in axes)) for name, axes in kept.items()]


def count_written_numbers(plan: Plan, selection: Selection, format: Format) -> int:
    """Return how many numbers of a result are written as text; none in a format of bytes."""
    return 0 if format.is_binary else sum(math.prod(shape.lengths) for shape in planned_shapes(plan, selection))


def apply_selection(attention: Attention, plan: Plan, selection: Selection) -> Attention:
    """Select the part of a result that was asked for; of a run that computed only those queries they are selected already."""
    from attncli.select import select_indices

    return select_indices(attention, selection, () if plan.computed_queries is None else ("query",))


def add_workings(attention: Attention, plan: Plan, run_plan: RunPlan) -> Attention:
    """Add to a result how its numbers come about, for formats that show it; where there are too many, only why there are steps.

    Args:
        attention: the result.
        plan: what it was computed by.
        run_plan: as `load_engine` returns it.
    """
    from attncli.derivation import recording_intermediates
    from attncli.plan import finish_plan, outline_plan
    from attncli.views.pages.workings import PlannedReasons, PlannedWorkings, are_workings_small

    if not are_workings_small(plan):
        return replace(attention, workings=PlannedReasons(plan))
    every_step = finish_plan(outline_plan(plan.problem, plan.variant.replace(schedule="dense")), None)
    with recording_intermediates():
        every_value = run_plan(every_step)
    return replace(attention, workings=PlannedWorkings(every_step, every_value))


def refuse_too_many_numbers(plan: Plan, selection: Selection, format: Format) -> None:
    """Refuse a result that its format cannot hold.

    Raises:
        OptionError: it has too many numbers.
    """
    if format.max_numbers is None:
        return
    count = sum(
        math.prod(len(selection[axis]) if axis in selection else plan.axis_length(name, axis) for axis in axes)
        for name, axes in plan.steps.items()
        if name in plan.keep
    )
    if count > format.max_numbers:
        raise too_many_numbers(format, count)


def too_many_numbers(format: Format, count: int) -> OptionError:
    """Return the error that a format cannot hold so many numbers."""
    message = f"{format.name} holds at most {format.max_numbers:,} numbers, and these steps have {count:,}"
    hint = "a part of them: --at query=0:100; or fewer steps: --only weights"
    return OptionError("too-many-numbers", message, help=hint)


def compute(
    problem: Problem,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None = None,
    format: Format | None = None,
) -> Attention:
    """Compute the steps that will be shown. Arguments and errors are those of `plan_request`; a format may need workings too."""
    plan, selection = plan_request(problem, variant_request, output_options, seed)
    if format is not None:
        refuse_too_many_numbers(plan, selection, format)
    run_plan = load_engine()
    attention = apply_selection(run_plan(plan), plan, selection)
    return add_workings(attention, plan, run_plan) if format is not None and format.shows_workings else attention


def compute_stream(
    problems: Iterator[tuple[int, Problem | AttnError]],
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None = None,
    has_arrived: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[bytes, AttnError | None]]:
    """Compute a stream of problems: for each a line of JSON in UTF-8, and the error where the line holds one.

    A problem that fails does not stop the others, unless each of them would fail in the same way.

    Args:
        problems: line number and problem, or why the line holds none.
        variant_request: as for `plan_request`, and so the others.
        output_options: which steps, and which part of them.
        seed: the seed where one would be drawn.
        has_arrived: tells whether the next problem is there already: those that wait are computed together. None is waited for.

    Raises:
        OptionError: the request is wrong, whatever the problem.
        CannotError: torch or another package does not load.
    """
    from attncli.output_formats import RenderOptions, choose_output_format

    format = choose_output_format(None, "ndjson")
    render_options = RenderOptions(bare=output_options.bare)
    for answer in compute_each(problems, variant_request, output_options, seed, has_arrived=has_arrived):
        if isinstance(answer, AttnError):
            yield error_line(answer).encode("utf-8", "surrogatepass"), answer
        else:
            yield format.make_bytes(answer, render_options), None


def compute_each(
    problems: Iterator[tuple[int, Problem | AttnError]],
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None = None,
    format: Format | None = None,
    has_arrived: Callable[[], bool] = lambda: False,
) -> Iterator[Attention | AttnError]:
    """Compute a stream of problems: for each its result, or why it has none. Arguments and errors are those of `compute_stream`
    and `compute`."""
    has_answered = False
    for group in _group_arrived(problems, variant_request, output_options, seed, format, has_arrived):
        for begun, answer in zip(group, _compute_group(group, format), strict=True):
            if isinstance(answer, AttnError):
                is_of_request = answer.status == ExitStatus.USAGE and not has_answered
                if is_of_request or answer.code in INSTALLATION_CODES:
                    raise answer from answer.__cause__
                if not isinstance(begun.problem, AttnError):  # of a later line it is its own variant that contradicts
                    answer.add_location(file=begun.problem.source, line=begun.line)
                    answer.identity = {
                        name: x for name in ("id", "meta") if (x := getattr(begun.problem, name)) is not None
                    }
            yield answer
            has_answered = True


class _BegunProblem(NamedTuple):
    """A problem of a stream that is planned, or why it cannot be."""

    line: int
    problem: Problem | AttnError
    planned: tuple[Plan, Selection] | AttnError


def _group_arrived(
    problems: Iterator[tuple[int, Problem | AttnError]],
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None,
    format: Format | None,
    has_arrived: Callable[[], bool],
) -> Iterator[list[_BegunProblem]]:
    """Plan the problems of a stream, and yield those together that have arrived together.

    Raises:
        Exception: whatever reading the stream raises, once what came before has been yielded.
    """
    ended: Exception | None = None
    while ended is None:
        group: list[_BegunProblem] = []
        score_count = 0
        while not group or (has_arrived() and len(group) < MAX_GROUP_SIZE and score_count < MAX_GROUP_SCORES):
            try:
                line, problem = next(problems)
            except Exception as error:
                ended = error
                break
            planned: tuple[Plan, Selection] | AttnError
            try:
                if isinstance(problem, AttnError):
                    raise problem
                planned = plan_request(problem, variant_request, output_options, seed)
                if format is not None:
                    refuse_too_many_numbers(*planned, format)
                score_count += planned[0].score_count
            except AttnError as error:
                planned = error
            except Exception as error:  # a bug costs one line, not the stream
                planned = internal_error(error)
                planned.__cause__ = error
            group.append(_BegunProblem(line, problem, planned))
        if group:
            yield group
    if not isinstance(ended, StopIteration):
        raise ended


def _compute_group(group: Sequence[_BegunProblem], format: Format | None) -> Iterator[Attention | AttnError]:
    """Compute problems that are planned: for each its result, or why it has none."""
    results = run_plans([begun.planned[0] for begun in group if not isinstance(begun.planned, AttnError)])
    for begun in group:
        if isinstance(begun.planned, AttnError):
            yield begun.planned
            continue
        answer = next(results)
        try:
            if isinstance(answer, Exception):
                raise answer
            attention = apply_selection(answer, *begun.planned)
            if format is not None and format.shows_workings:
                attention = add_workings(attention, begun.planned[0], load_engine())
            yield attention
        except AttnError as error:
            yield error
        except Exception as error:  # a bug costs one line, not the stream
            bug = internal_error(error)
            bug.__cause__ = error
            yield bug


def run_plans(plans: Sequence[Plan]) -> Iterator[Attention | Exception]:
    """Compute plans: for each, when it is asked for, its result, or what was raised instead.

    Small problems of equal shapes are computed in one call, as the items of a batch; torch is loaded for the first.
    """
    waiting: dict[int, list[int]] = {}  # indices of the plans that may be computed together, by what these share
    computed: dict[int, Attention] = {}
    for i, plan in enumerate(plans):
        try:
            run_plan = load_engine()
            if not i:
                waiting = _find_stackable(plans)
            together = waiting.pop(id(plan.shared), ())
            if len(together) > 1:
                from attncli.core.stacked import run_stacked

                with suppress(Exception):  # what is wrong is found, and said, where each is computed by itself
                    computed |= zip(together, run_stacked([plans[j] for j in together]) or (), strict=False)
            yield computed.pop(i) if i in computed else run_plan(plan)
        except Exception as error:
            yield error


def _find_stackable(plans: Sequence[Plan]) -> dict[int, list[int]]:
    """Return the indices of plans that may be computed in one call, by the identity of what they share."""
    if len(plans) < 2:
        return {}
    from attncli.core.stacked import is_stackable

    found: dict[int, list[int]] = {}
    for i, plan in enumerate(plans):
        if is_stackable(plan):
            found.setdefault(id(plan.shared), []).append(i)
    return found


def error_line(error: AttnError) -> str:
    """The line of JSON that stands in the place of a result, with `source`, `line`, `id` and `meta` as a result has them."""
    location = error.location
    return error_record_line(error.to_record(), location.file, location.line, error.identity)


def error_record_line(error: Json, source: str, line: int | None = None, identity: Json | None = None) -> str:
    """As `error_line`, of the record of an error."""
    import json

    head = {"source": replace_undecodable(source) or None, "line": line, **(identity or {})}
    record = {name: value for name, value in head.items() if value is not None} | {"error": error}
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))  # names may be no UTF-8
    return escape_json_controls(text) + "\n"


def internal_error(error: Exception) -> AttnError:
    """Turn an unexpected exception into an `AttnError`, so that the other inputs go on."""
    return package_error(error) or AttnError("bug", f"a bug in attn: {type(error).__name__}: {error}")


@cache
def load_engine(*, owns_process: bool = True) -> RunPlan:
    """Load `core.attention.run_plan`, and with it torch; the function it returns raises CannotError where memory is short.

    Args:
        owns_process: whether this process is ours, so that its garbage collector may be told that what is loaded stays.

    Raises:
        CannotError: torch does not load.
    """
    is_collecting = gc.isenabled()
    gc.disable()  # nothing that torch makes while it loads is garbage: looking for some takes a quarter of the time
    try:
        from attncli.core.attention import run_plan
    except (ImportError, OSError) as error:
        message = f"torch does not load: {first_line_of(error)}"
        raise CannotError("torch-missing", message, help="pip install torch, as described in the README") from error
    finally:
        if owns_process:
            gc.freeze()
        if is_collecting:
            gc.enable()
    return translate_memory_errors(run_plan)


def engine_is_loaded() -> bool:
    """Whether `load_engine` has loaded torch already."""
    return load_engine.cache_info().currsize > 0


def translate_memory_errors(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function so that it raises CannotError where Python or torch has no memory left."""

    @wraps(function)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                raise CannotError(
                    "out-of-memory",
                    "the computation does not fit in memory",
                    help="--dtype float32 needs half the memory; fewer steps with --only need less",
                ) from error
            raise

    return run
