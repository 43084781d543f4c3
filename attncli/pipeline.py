"""A problem and what was asked of it → its answer: plan, compute, select. Every command that computes, and every worker, comes here."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attncli.errors import AttnError, CannotError, ExitStatus
from attncli.request import Choosing, Showing

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import At
    from attncli.types import Attention, Problem

Follow = Callable[..., "Attention"]  # (plan, progress, place, hands), as core.attend.follow
_follow: Follow | None = None


def planned(
    problem: Problem, choosing: Choosing, showing: Showing, seed: int | None = None, *, streamed: bool = False
) -> tuple[Plan, At]:
    """What will be computed, and which part of it is shown.

    `seed` stands in where one would be drawn; `streamed`: matrices of a long run go to a file.
    """
    from attncli.plan import outline, settled
    from attncli.select import choose

    keep = list(showing.only) or ["shown"]
    try:
        variant = choosing.variant(problem.variant)
        drawn = outline(problem, variant, keep, top=showing.top)
        if seed is not None and variant.seed is None and drawn.variant.seed is not None:
            drawn = outline(problem, variant.but(seed=seed), keep, top=showing.top)
        at = choose(drawn, showing.at)
        return settled(drawn, at, streamed=streamed and not {*at} - {"query"}), at
    except AttnError as error:
        raise error.at(file=problem.source) if error.status == ExitStatus.INPUT else error from None


def picked(result: Attention, made: Plan, at: At) -> Attention:
    """The part of a result that was chosen; queries that alone were computed are chosen already."""
    from attncli.select import select

    return select(result, at, () if made.rows is None else ("query",))


def answer(problem: Problem, choosing: Choosing, showing: Showing, seed: int | None = None) -> Attention:
    """Problem → the steps that will be shown."""
    made, at = planned(problem, choosing, showing, seed)
    return picked(core()(made), made, at)


def answers(
    incoming: Iterator[tuple[int, Problem | AttnError]], choosing: Choosing, showing: Showing, seed: int | None = None
) -> Iterator[tuple[str, AttnError | None]]:
    """A stream of problems → a line of JSON for each, and what is wrong where it is an error; a bad one does not stop the others."""
    import msgspec

    from attncli.output_formats import Look, format_for

    write = format_for(None, "ndjson").function
    for _, problem in incoming:
        try:
            if isinstance(problem, AttnError):
                raise problem
            yield str(write(answer(problem, choosing, showing, seed), Look())), None
            continue
        except AttnError as error:
            if error.status == ExitStatus.USAGE:
                raise
            wrong = error
        except Exception as error:  # a bug costs one line, not the stream
            wrong = bug(error)
        yield msgspec.json.encode({"error": wrong.record()}).decode() + "\n", wrong


def bug(error: Exception) -> AttnError:
    """What nobody foresaw, as the error of one input among many."""
    return AttnError("bug", f"a bug in attn: {type(error).__name__}: {error}")


def core() -> Follow:
    """The algebra; loading it loads torch.

    Raises:
        CannotError: torch does not load.
    """
    global _follow
    if _follow is None:
        gc.disable()  # nothing that torch makes while it loads is garbage: a quarter of the time is spent looking
        try:
            from attncli.core.attention import follow
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
                return follow(plan, progress, place, hands)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, MemoryError) or "memory" in str(error):
                    raise CannotError(
                        "out-of-memory",
                        "this does not fit in memory",
                        help="--dtype float32 halves it; fewer steps asked for keep less",
                    ) from error
                raise

        _follow = careful
    return _follow
