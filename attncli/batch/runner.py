"""The loop of a batch: `run_batch` gives inputs to an executor and hands on its receipts; `BatchStats` counts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from attncli.batch.executors import Executor
from attncli.batch.inputs import Input
from attncli.batch.manifest import RESUME_HINT, Manifest, Receipt, ResultRecord
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError
from attncli.plan.estimate import seconds_left
from attncli.registry import parse_index
from attncli.text import shorten, split_warning


class FailureCause(NamedTuple):
    """Inputs that failed with one error code: the receipt of the first, and how many they are."""

    first_receipt: Receipt
    input_count: int


@dataclass
class BatchStats:
    """Counts of a batch, so far."""

    total: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    causes: dict[str, FailureCause] = field(default_factory=dict)  # by code
    warning_counts: dict[str, int] = field(default_factory=dict)  # how many results have each warning
    problem_count: int = 0  # problems in finished inputs: one a file, or one a line
    has_streams: bool = False  # whether some inputs are files of JSON lines
    current_lines: int = 0  # lines done of the file of JSON lines that is being computed
    current_failed_lines: int = 0  # how many of those failed
    current_fraction: float = 0.0  # how much of that file is done, 0 … 1
    started_at: float = field(default_factory=time.monotonic)
    stop_reason: str = ""  # why the batch stopped before its end
    expected_seconds: float = 0.0  # until the end, as estimated before the first input; 0: nobody has

    @property
    def finished_count(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def left_count(self) -> int:
        return self.total - self.finished_count

    @property
    def problems_per_second(self) -> float:
        """Problems computed per second."""
        return (self.problem_count + self.current_lines) / self._elapsed_seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the end: by the speed so far, and at first by what was expected; 0 where neither is known."""
        computed, total = self.done + self.failed + self.current_fraction, self.total - self.skipped
        return seconds_left(self._elapsed_seconds, computed / total if total else 1.0, self.expected_seconds)

    @property
    def _elapsed_seconds(self) -> float:
        return max(time.monotonic() - self.started_at, 1e-9)

    @property
    def rate_text(self) -> str:
        """The rate in words."""
        return f"{self.problems_per_second:,.0f} {'problems' if self.has_streams else 'files'}/s"

    def progress_text(self) -> str:
        """Progress in words: “41,000 lines, 3 failed; 2,400 problems/s, 24 s left”."""
        failed = self.failed + self.current_failed_lines
        lines_text = f"{self.current_lines:,} lines" if self.current_lines else ""
        failed_text = f"{failed} failed" if failed else ""
        counts = ", ".join(filter(None, (lines_text, failed_text)))
        return "; ".join(filter(None, (counts, f"{self.rate_text}, {self.seconds_left:,.0f} s left")))

    def count_receipt(self, receipt: Receipt) -> None:
        """Count a finished input."""
        self.current_lines, self.current_failed_lines, self.current_fraction = 0, 0, 0.0
        if receipt.status != "skipped":
            self.problem_count += 1 if receipt.problems is None else receipt.problems
        if receipt.status == "skipped":
            self.skipped += 1
        elif receipt.status == "done":
            self.done += 1
        else:
            self.failed += 1
            code = str((receipt.error or {}).get("code"))
            first, count = self.causes.get(code, (receipt, 0))
            self.causes[code] = FailureCause(first, count + 1)
        for code in {split_warning(warning)[0] for warning in receipt.warnings}:
            self.warning_counts[code] = self.warning_counts.get(code, 0) + 1


def parse_max_failures(text: str | None, input_count: int) -> float:
    """How many inputs may fail before the batch stops: `10`, or `5%` of them; None: all.

    Raises:
        OptionError: it is neither.
    """
    if text is None:
        return float("inf")
    number, percent = parse_index(text.removesuffix("%")), text.endswith("%")
    if number is None or number < 0 or (percent and number > 100):
        message = f"--max-failures must be a number or a share of the inputs, not {shorten(text)}"
        raise OptionError("bad-option", message, help="such as 10 or 5%")
    return input_count * number / 100 if percent else number


def recorded_result(manifest: Manifest, input: Input, variant_hash: str, force: bool) -> ResultRecord | None:
    """What the manifest says of an input's result, if it was made by the same choices; None with `force`."""
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
    """Give every input to an executor, and hand on each receipt, until all are finished or the batch must stop.

    Args:
        inputs: what to compute, in order.
        executor: who computes them.
        stats: counts, which are kept here.
        find_recorded: gives what the manifest says of the result of an input, so that it may be skipped.
        on_receipt: called with each input that is finished, and its receipt.
        max_failures: how many may fail before the batch stops.
        is_interrupted: tells whether to finish what runs, and stop.
        may_begin: tells whether an input may be begun yet.

    Raises:
        AttnError: nothing more can be computed or written here, whatever the input.
    """
    waiting = iter(inputs)
    following = next(waiting, None)
    fatal_error: AttnError | None = None
    while True:
        if not stats.stop_reason and is_interrupted():
            stats.stop_reason = "interrupted"
            executor.cancel_unstarted()
        is_stopping = bool(stats.stop_reason) or fatal_error is not None
        while following and not is_stopping and executor.has_capacity() and may_begin(following):
            executor.submit(following, find_recorded(following))
            following = next(waiting, None)
        if not executor.is_busy:
            break
        if (finished := executor.next_receipt()) is None:
            continue
        input, receipt = finished
        if receipt.status == "stopped":
            fatal_error = fatal_error or _fatal_error(receipt)
            executor.cancel_unstarted()
            continue
        stats.count_receipt(receipt)
        on_receipt(input, receipt)
        if stats.failed > max_failures and not stats.stop_reason:
            stats.stop_reason = "too many failures" if max_failures else "a failure"
            executor.cancel_unstarted()
    if fatal_error is not None:
        raise fatal_error


def _fatal_error(receipt: Receipt) -> AttnError:
    """Rebuild the error that stopped the batch from the receipt of the input that met it."""
    error = receipt.error or {}
    code, message, hint = str(error.get("code")), str(error.get("message")), error.get("help", "")
    if error.get("status") == ExitStatus.USAGE:
        return OptionError(code, message, help=hint)
    if hint in ("", "nothing was left behind"):
        return CannotError(code, message, help=RESUME_HINT)
    return CannotError(code, message, help=f"{hint}; {RESUME_HINT}")


def order_receipts(
    inputs: Sequence[Input], window: int
) -> tuple[Callable[[Input], bool], Callable[[Input, Receipt], Iterator[tuple[Input, Receipt]]]]:
    """Bring receipts into the order of the inputs: (whether an input may be begun, receipts that a new one releases).

    Args:
        inputs: in order.
        window: how many inputs may be begun before the first that has no receipt yet; so many receipts are held at most.
    """
    positions = {input.result_path: i for i, input in enumerate(inputs)}
    waiting_receipts: dict[int, tuple[Input, Receipt]] = {}
    next_position = 0

    def may_begin(input: Input) -> bool:
        return positions[input.result_path] < next_position + window

    def release_in_order(input: Input, receipt: Receipt) -> Iterator[tuple[Input, Receipt]]:
        nonlocal next_position
        waiting_receipts[positions[input.result_path]] = (input, receipt)
        while next_position in waiting_receipts:
            yield waiting_receipts.pop(next_position)
            next_position += 1

    return may_begin, release_in_order
