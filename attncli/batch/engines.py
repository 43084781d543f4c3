"""Who does the work: this process, or the workers of a Dask cluster. `submit` an input, and `next` hands back a receipt.

A task writes its own result and returns a small receipt, so that computing it again after a worker's death does no harm.
"""

from __future__ import annotations

import os
import queue
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from attncli.batch.clusters import Capacity, Died, Lost, gone, one_thread, outcome, resources
from attncli.batch.inputs import Input
from attncli.batch.manifest import Receipt
from attncli.batch.work import Job, Out, Tell, perform

Todo = tuple[Input, "str | None"]  # an input, and the hash of the content that its result is of
_WORTH = 0.1  # seconds that a task should take, to be worth sending
_MOST = 64  # inputs in a task: so many, for each worker twice, are computed again at most if all is killed


class Engine(Protocol):
    """Someone to give inputs to."""

    @property
    def busy(self) -> bool:
        """Whether something that was submitted has no receipt yet."""

    def room(self) -> bool:
        """Whether another input can be taken now."""

    def submit(self, input: Input, done: str | None) -> None:
        """Take an input; `done` is the hash of the content that its result is of."""

    def next(self) -> tuple[Input, Receipt] | None:
        """What is finished next; nothing, if that takes longer than a moment."""


class Here:
    """This process, one input after the other."""

    def __init__(self, job: Job, variant: str, out: Out | None, tell: Tell) -> None:
        self.job, self.variant, self.out, self.tell = job, variant, out, tell
        self.waiting: list[tuple[Input, str | None]] = []

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    def room(self) -> bool:
        return not self.waiting

    def submit(self, input: Input, done: str | None) -> None:
        self.waiting.append((input, done))

    def next(self) -> tuple[Input, Receipt]:
        input, done = self.waiting.pop()
        return input, perform(self.job, self.variant, input, done, self.out, self.tell)


class Cluster:
    """The workers of a Dask cluster.

    Inputs travel in handfuls that take about as long as a task is worth. Those whose worker died are set apart, and
    computed alone once all others are done: if its worker dies again, it is that input's doing, and no neighbour's.
    """

    def __init__(self, client: Any, job: Job, variant: str) -> None:
        self.client, self.job, self.variant = client, job, variant
        self.handful: list[Todo] = []  # what goes out next
        self.size = 1  # of a handful, as it should be
        self.running: dict[str, tuple[list[Todo], Any]] = {}  # tasks by key
        self.suspects: deque[Todo] = deque()
        self.deaths: dict[Input, int] = {}  # how many workers died of an input
        self.finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.receipts: deque[tuple[Input, Receipt]] = deque()
        self.resources = resources(str(job.choosing.choices.get("device", "")))
        self.capacity = Capacity(client)
        self.count, self.alone = 0, False

    @property
    def busy(self) -> bool:
        return bool(self.running or self.handful or self.suspects or self.receipts)

    def room(self) -> bool:
        return (
            not self.alone and len(self.running) < 2 * self.capacity.threads
        )  # the next lies ready where one is computed

    def submit(self, input: Input, done: str | None) -> None:
        self.handful.append((input, done))
        if len(self.handful) >= self.size:
            self._send()

    def _send(self) -> None:
        todo, self.handful = self.handful, []
        self.count += 1
        future = self.client.submit(
            remote, self.job, self.variant, todo,
            key=f"attn-{os.getpid()}-{id(self):x}-{self.count}", pure=False, resources=self.resources,
        )  # fmt: skip
        self.running[future.key] = (todo, future)
        future.add_done_callback(self.finished.put)

    def next(self) -> tuple[Input, Receipt] | None:
        if not self.receipts:
            if not self.running and not self.handful and self.suspects:
                self.alone = True
                self.handful.append(self.suspects.popleft())
            if self.handful:
                self._send()
            with suppress(queue.Empty):
                self._judge(self.finished.get(timeout=0.2))
        return self.receipts.popleft() if self.receipts else None

    def _judge(self, future: Any) -> None:
        """What became of a task."""
        todo, _ = self.running.pop(future.key)
        alone, self.alone = self.alone, False
        receipts: Any = outcome(future)
        if isinstance(receipts, Died):
            self._mourn(todo, receipts.workers, alone)
            return
        if isinstance(receipts, Lost):
            raise gone("what is finished is kept; start it again, and the same command goes on from there")
        slowest = max(receipt.seconds for receipt in receipts)
        self.size = max(1, min(2 * self.size, _MOST, int(_WORTH / max(slowest, 1e-6))))
        for (input, _), receipt in zip(todo, receipts, strict=True):
            attempts = receipt.attempts + self.deaths.pop(input, 0)
            self.receipts.append((input, replace(receipt, attempts=attempts)))

    def _mourn(self, todo: list[Todo], workers: int, alone: bool) -> None:
        """So many workers died over these."""
        for input, _ in todo:
            self.deaths[input] = self.deaths.get(input, 0) + workers
        if not alone:
            self.suspects.extend(todo)
            return
        [(input, _)] = todo
        deaths = self.deaths.pop(input)
        error = {
            "type": "error",
            "code": "worker-died",
            "message": f"{deaths} workers died while they computed this",
            "file": input.shown,
            "help": "most often memory: --dtype float32, fewer steps, or a worker with more",
        }
        died = Receipt(input.shown, input.result, "failed", variant=self.variant, attempts=deaths, error=error)
        self.receipts.append((input, died))


def remote(job: Job, variant: str, todo: list[Todo]) -> list[Receipt]:
    """The task itself, on a worker."""
    one_thread()
    return [perform(job, variant, input, done) for input, done in todo]
