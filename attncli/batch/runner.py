"""From inputs to receipts: what is left to do, how long to go on, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from attncli.batch.executors import Executor
from attncli.batch.inputs import Input
from attncli.batch.manifest import RESUME_HINT, Manifest, Receipt, ResultRecord
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError


class FailureCause(NamedTuple):
    """Why inputs failed: the first of them, and how many."""

    first_receipt: Receipt
    input_count: int


@dataclass
class BatchStats:
    """What it came to, so far."""

    total: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    causes: dict[str, FailureCause] = field(default_factory=dict)  # by code
    warning_counts: dict[str, int] = field(default_factory=dict)  # how many results have each warning
    problem_count: int = 0  # how many were computed: one a file, or one a line
    has_streams: bool = False  # whether there are files of many
    current_lines: int = 0  # of the file of many that is at hand
    current_failed_lines: int = 0  # of those
    current_fraction: float = 0.0  # how much of it that is, 0 … 1
    started_at: float = field(default_factory=time.monotonic)
    stop_reason: str = ""  # why it ended before its time

    @property
    def finished_count(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def problems_per_second(self) -> float:
        """Problems computed per second."""
        return (self.problem_count + self.current_lines) / self._elapsed_seconds

    @property
    def seconds_left(self) -> float:
        """Seconds, if it goes on as it did; 0 while nothing is computed."""
        computed = self.done + self.failed + self.current_fraction
        return self._elapsed_seconds * (self.total - self.skipped - computed) / computed if computed else 0.0

    @property
    def _elapsed_seconds(self) -> float:
        return max(time.monotonic() - self.started_at, 1e-9)

    @property
    def rate_text(self) -> str:
        """The rate in words."""
        return f"{self.problems_per_second:,.0f} {'problems' if self.has_streams else 'files'}/s"

    def describe(self) -> str:
        """How it goes, in words: “41,000 lines, 3 failed; 2,400 problems/s, 24 s left”."""
        failed = self.failed + self.current_failed_lines
        counts = [f"{self.current_lines:,} lines"] * bool(self.current_lines) + [f"{failed} failed"] * bool(failed)
        return "; ".join(
            [*([", ".join(counts)] if counts else []), f"{self.rate_text}, {self.seconds_left:,.0f} s left"]
        )

    def count_receipt(self, receipt: Receipt) -> None:
        """One more."""
        self.current_lines, self.current_failed_lines, self.current_fraction = 0, 0, 0.0
        self.problem_count += 0 if receipt.status == "skipped" else 1 if receipt.problems is None else receipt.problems
        if receipt.status == "skipped":
            self.skipped += 1
        elif receipt.status == "done":
            self.done += 1
        else:
            self.failed += 1
            code = str((receipt.error or {}).get("code"))
            first, count = self.causes.get(code, (receipt, 0))
            self.causes[code] = FailureCause(first, count + 1)
        for code in {warning.partition(":")[0] for warning in receipt.warnings}:
            self.warning_counts[code] = self.warning_counts.get(code, 0) + 1


def parse_max_failures(text: str | None, input_count: int) -> float:
    """`10` or `5%` → how many inputs may fail before the batch stops.

    Raises:
        OptionError: it is neither.
    """
    if text is None:
        return float("inf")
    number, percent = text.removesuffix("%"), text.endswith("%")
    if not number.isascii() or not number.isdecimal() or (percent and int(number) > 100):
        raise OptionError(
            "bad-option", f"--max-failures is a number or a share of the inputs, not {text}", help="10, or 5%"
        )
    return input_count * int(number) / 100 if percent else int(number)


def recorded_result(manifest: Manifest, input: Input, variant_hash: str, force: bool) -> ResultRecord | None:
    """What the manifest says of a result that was made as is asked now."""
    receipt = manifest.receipts.get(input.result_path)
    if receipt is None or force or receipt.status != "done" or receipt.variant != variant_hash:
        return None
    if receipt.sha256 is None or receipt.bytes is None or receipt.result_sha256 is None:
        return None
    return ResultRecord(receipt.sha256, receipt.bytes, receipt.result_sha256)


def run_batch(
    inputs: Sequence[Input],
    executor: Executor,
    stats: BatchStats,
    find_recorded: Callable[[Input], ResultRecord | None],
    on_receipt: Callable[[Input, Receipt], None],
    *,
    max_failures: float = float("inf"),
    is_interrupted: Callable[[], bool] = lambda: False,
    may_begin: Callable[[Input], bool] = lambda input: True,
) -> None:
    """Give the executor every input, and hand on each receipt, until all is done or it must stop.

    Args:
        inputs: in order.
        executor: who computes them.
        stats: counted here.
        find_recorded: what an input's result was made of, if it may be there.
        on_receipt: told of each receipt.
        max_failures: how many may fail.
        is_interrupted: whether to finish what runs, and stop.
        may_begin: whether an input may be begun yet.

    Raises:
        AttnError: nothing more can be done here, whatever the input.
    """
    waiting = iter(inputs)
    following = next(waiting, None)
    stop: AttnError | None = None
    while True:
        if not stats.stop_reason and is_interrupted():
            stats.stop_reason = "interrupted"
            executor.cancel_unstarted()
        while following and not stats.stop_reason and stop is None and executor.has_capacity() and may_begin(following):
            executor.submit(following, find_recorded(following))
            following = next(waiting, None)
        if not executor.is_busy:
            break
        if (found := executor.next_receipt()) is None:
            continue
        input, receipt = found
        if receipt.status == "stopped":
            stop = stop or _fatal_error(receipt)
            continue
        stats.count_receipt(receipt)
        on_receipt(input, receipt)
        if stats.failed > max_failures and not stats.stop_reason:
            stats.stop_reason = "too many failures" if max_failures else "a failure"
    if stop is not None:
        raise stop


def _fatal_error(receipt: Receipt) -> AttnError:
    """What stopped the batch, as the error it was."""
    error = receipt.error or {}
    kind = OptionError if error.get("status") == ExitStatus.USAGE else CannotError
    said = error.get("help", "")
    way = (
        said
        if kind is OptionError
        else RESUME_HINT
        if said in ("", "nothing was left behind")
        else f"{said}; {RESUME_HINT}"
    )
    return kind(str(error.get("code")), str(error.get("message")), help=way)


def order_receipts(
    inputs: Sequence[Input], window: int
) -> tuple[Callable[[Input], bool], Callable[[Input, Receipt], Iterator[tuple[Input, Receipt]]]]:
    """Receipts as they come → in the order of the inputs, no more than a window ahead of the first that lacks its own."""
    place = {input.result_path: i for i, input in enumerate(inputs)}
    held: dict[int, tuple[Input, Receipt]] = {}
    turn = 0

    def may_begin(input: Input) -> bool:
        return place[input.result_path] < turn + window

    def release_in_order(input: Input, receipt: Receipt) -> Iterator[tuple[Input, Receipt]]:
        nonlocal turn
        held[place[input.result_path]] = (input, receipt)
        while turn in held:
            yield held.pop(turn)
            turn += 1

    return may_begin, release_in_order
