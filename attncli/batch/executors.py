"""Executors, which compute inputs: `LocalExecutor` in this process, `PoolExecutor` by worker processes or on a Dask cluster.

An input is submitted, and `next_receipt` returns a receipt. A task writes its own result and returns only the receipt,
which is small, so that computing an input again after the death of a worker does no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from attncli.batch.dask_cluster import scheduler_gone_error
from attncli.batch.inputs import Input
from attncli.batch.job import Job
from attncli.batch.manifest import Receipt, ResultRecord
from attncli.batch.process import MAX_INPUTS_TOGETHER, BytesWriter, LineProgressCallback, PendingInput, process_inputs
from attncli.batch.task_pool import TaskLost, TaskPool, WorkersDied, limit_worker_threads

_TARGET_TASK_SECONDS = 0.1  # how long a task should take, to be worth sending
# Inputs in a task. If everything is killed, two tasks of each worker are computed again at most.
_MAX_INPUTS_PER_TASK = 64


class Executor(Protocol):
    """Computes inputs, in whatever order."""

    @property
    def is_busy(self) -> bool:
        """Whether something that was submitted has no receipt yet."""

    def has_capacity(self) -> bool:
        """Whether another input can be taken now."""

    def submit(self, input: Input, recorded: ResultRecord | None) -> None:
        """Take an input; `recorded` is what the manifest says of its result."""

    def cancel_unstarted(self) -> None:
        """Drop the inputs that nobody has begun to compute."""

    def next_receipt(self) -> tuple[Input, Receipt] | None:
        """The input that is finished next, and its receipt; None where that takes longer than a moment."""


class LocalExecutor:
    """Computes in this process. A few inputs are read before the first of them is computed; they are written one by one."""

    def __init__(
        self, job: Job, variant_hash: str, write_bytes: BytesWriter | None, report_progress: LineProgressCallback
    ) -> None:
        self.job, self.variant_hash = job, variant_hash
        self.write_bytes, self.report_progress = write_bytes, report_progress
        self.waiting: deque[PendingInput] = deque()
        self.unfinished_count = 0
        self.receipts: Iterator[tuple[Input, Receipt]] = iter(())

    @property
    def is_busy(self) -> bool:
        return self.unfinished_count > 0

    def has_capacity(self) -> bool:
        return len(self.waiting) < MAX_INPUTS_TOGETHER

    def submit(self, input: Input, recorded: ResultRecord | None) -> None:
        self.waiting.append((input, recorded))
        self.unfinished_count += 1

    def cancel_unstarted(self) -> None:
        self.waiting.clear()
        self.receipts = iter(())
        self.unfinished_count = 0

    def next_receipt(self) -> tuple[Input, Receipt]:
        finished = next(self.receipts, None)
        if finished is None:  # all that were waiting then have been computed
            self.receipts = process_inputs(
                self.job, self.variant_hash, self.waiting, self.write_bytes, self.report_progress
            )
            finished = next(self.receipts)
        self.unfinished_count -= 1
        return finished


class PoolExecutor:
    """Computes on the workers of a pool.

    A task is a chunk of inputs that takes about `_TARGET_TASK_SECONDS`. The inputs of a task whose worker died are
    isolated: each is computed alone once all others are done. If its worker dies again, it is that input's doing.
    """

    def __init__(self, task_pool: TaskPool[list[PendingInput], list[Receipt]], job: Job, variant_hash: str) -> None:
        self.task_pool, self.job, self.variant_hash = task_pool, job, variant_hash
        self.pending_chunk: list[PendingInput] = []  # the next task, while it is being filled
        self.chunk_size = 1  # inputs in a task, by how long the last ones took
        self.isolated: deque[PendingInput] = deque()
        self.worker_deaths: dict[Input, int] = {}  # how many workers died while they had an input
        self.ready_receipts: deque[tuple[Input, Receipt]] = deque()
        self.is_isolating = False

    @property
    def is_busy(self) -> bool:
        return bool(self.task_pool.in_flight or self.pending_chunk or self.isolated or self.ready_receipts)

    def has_capacity(self) -> bool:
        return not self.is_isolating and self.task_pool.has_capacity

    def submit(self, input: Input, recorded: ResultRecord | None) -> None:
        self.pending_chunk.append((input, recorded))
        if len(self.pending_chunk) >= self.chunk_size:
            self._send_chunk()

    def cancel_unstarted(self) -> None:
        self.pending_chunk, self.isolated = [], deque()
        self.task_pool.cancel_unstarted()

    def _send_chunk(self) -> None:
        chunk, self.pending_chunk = self.pending_chunk, []
        self.task_pool.submit(chunk, process_chunk, self.job, self.variant_hash, chunk)

    def next_receipt(self) -> tuple[Input, Receipt] | None:
        if not self.ready_receipts:
            if not self.task_pool.in_flight and not self.pending_chunk and self.isolated:
                self.is_isolating = True
                self.pending_chunk.append(self.isolated.popleft())
            if self.pending_chunk:
                self._send_chunk()
            for chunk, outcome in self.task_pool.completed(0.2):
                self._handle_outcome(chunk, outcome)
        return self.ready_receipts.popleft() if self.ready_receipts else None

    def _handle_outcome(self, chunk: list[PendingInput], outcome: list[Receipt] | WorkersDied | TaskLost) -> None:
        """Take the receipts of a finished task, or isolate its inputs.

        Raises:
            CannotError: the scheduler has gone.
        """
        was_isolated, self.is_isolating = self.is_isolating, False
        if isinstance(outcome, WorkersDied):
            self._handle_worker_death(chunk, outcome.deaths, was_isolated)
            return
        if isinstance(outcome, TaskLost):
            raise scheduler_gone_error("finished results are kept; start it again, and run the same command to resume")
        slowest = max(receipt.seconds for receipt in outcome)
        self.chunk_size = max(
            1, min(2 * self.chunk_size, _MAX_INPUTS_PER_TASK, int(_TARGET_TASK_SECONDS / max(slowest, 1e-6)))
        )
        for (input, _), receipt in zip(chunk, outcome, strict=True):
            attempts = receipt.attempts + self.worker_deaths.pop(input, 0)
            self.ready_receipts.append((input, replace(receipt, attempts=attempts)))

    def _handle_worker_death(self, chunk: list[PendingInput], death_count: int, was_isolated: bool) -> None:
        """Isolate the inputs of a task whose workers died; one that was isolated has failed."""
        for input, _ in chunk:
            self.worker_deaths[input] = self.worker_deaths.get(input, 0) + death_count
        if not was_isolated:
            self.isolated.extend(chunk)
            return
        [(input, _)] = chunk
        deaths = self.worker_deaths.pop(input)
        error = {
            "type": "error",
            "code": "worker-died",
            "message": f"{deaths} workers died while they computed this",
            "file": input.display_name,
            "help": "most often it is memory: use --dtype float32, fewer steps, or a worker with more memory",
        }
        receipt = Receipt(
            input.display_name, input.result_path, "failed", variant=self.variant_hash, attempts=deaths, error=error
        )
        self.ready_receipts.append((input, receipt))


def process_chunk(job: Job, variant_hash: str, chunk: list[PendingInput]) -> list[Receipt]:
    """Compute the inputs of one task, on a worker."""
    limit_worker_threads(job.thread_count)
    return [receipt for _, receipt in process_inputs(job, variant_hash, deque(chunk))]
