"""A problem and what was asked of it → its answer: plan, compute, select. Every command that computes, and every worker, comes here."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attncli.errors import AttnError, CannotError, ExitStatus
from attncli.request import OutputOptions, VariantRequest

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Attention, Problem

RunPlan = Callable[..., "Attention"]  # (plan, progress, allocate_step, tile_executor), as core.attention.run_plan
_loaded_engine: RunPlan | None = None


def plan_request(
    problem: Problem,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None = None,
    *,
    streamed: bool = False,
) -> tuple[Plan, Selection]:
    """What will be computed, and which part of it is shown.

    `seed` stands in where one would be drawn; `streamed`: matrices of a long run go to a file.
    """
    from attncli.plan import finish_plan, outline_plan
    from attncli.select import resolve_selection

    keep = list(output_options.only) or ["shown"]
    try:
        variant = variant_request.resolve_variant(problem.variant)
        drawn = outline_plan(problem, variant, keep, top=output_options.top)
        if seed is not None and variant.seed is None and drawn.variant.seed is not None:
            drawn = outline_plan(problem, variant.replace(seed=seed), keep, top=output_options.top)
        at = resolve_selection(drawn, output_options.at)
        return finish_plan(drawn, at, streamed=streamed and not {*at} - {"query"}), at
    except AttnError as error:
        raise error.add_location(file=problem.source) if error.status == ExitStatus.INPUT else error from None


def apply_selection(result: Attention, plan: Plan, selection: Selection) -> Attention:
    """The part of a result that was chosen; queries that alone were computed are chosen already."""
    from attncli.select import select_indices

    return select_indices(result, selection, () if plan.computed_queries is None else ("query",))


def compute(
    problem: Problem, variant_request: VariantRequest, output_options: OutputOptions, seed: int | None = None
) -> Attention:
    """Problem → the steps that will be shown."""
    made, at = plan_request(problem, variant_request, output_options, seed)
    return apply_selection(load_engine()(made), made, at)


def compute_stream(
    problems: Iterator[tuple[int, Problem | AttnError]],
    variant_request: VariantRequest,
    output_options: OutputOptions,
    seed: int | None = None,
) -> Iterator[tuple[str, AttnError | None]]:
    """A stream of problems → a line of JSON for each, and what is wrong where it is an error; a bad one does not stop the others."""
    import msgspec

    from attncli.output_formats import RenderOptions, choose_output_format

    write = choose_output_format(None, "ndjson").write
    for _, problem in problems:
        try:
            if isinstance(problem, AttnError):
                raise problem
            yield str(write(compute(problem, variant_request, output_options, seed), RenderOptions())), None
            continue
        except AttnError as error:
            if error.status == ExitStatus.USAGE:
                raise
            wrong = error
        except Exception as error:  # a bug costs one line, not the stream
            wrong = internal_error(error)
        yield msgspec.json.encode({"error": wrong.to_record()}).decode() + "\n", wrong


def internal_error(error: Exception) -> AttnError:
    """What nobody foresaw, as the error of one input among many."""
    return AttnError("bug", f"a bug in attn: {type(error).__name__}: {error}")


def load_engine() -> RunPlan:
    """The algebra; loading it loads torch.

    Raises:
        CannotError: torch does not load.
    """
    global _loaded_engine
    if _loaded_engine is None:
        gc.disable()  # nothing that torch makes while it loads is garbage: a quarter of the time is spent looking
        try:
            from attncli.core.attention import run_plan
        except (ImportError, OSError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CannotError(
                "torch-missing", f"torch does not load: {why}", help="pip install torch, as the README says"
            ) from error
        finally:
            gc.freeze()
            gc.enable()

        def careful(
            plan: Plan, progress: Callable[[float], None] | None = None, place: Any = None, hands: Any = None
        ) -> Attention:
            try:
                return run_plan(plan, progress, place, hands)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, MemoryError) or "memory" in str(error):
                    raise CannotError(
                        "out-of-memory",
                        "this does not fit in memory",
                        help="--dtype float32 halves it; fewer steps asked for keep less",
                    ) from error
                raise

        _loaded_engine = careful
    return _loaded_engine
