"""Who does the work: this process, or the workers of a Dask cluster. `submit` an input, and `next` hands back a receipt.

A task writes its own result and returns a small receipt, so that computing it again after a worker's death does no harm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, Protocol

from attncli.batch.dask_cluster import Died, Lost, Tasks, gone, one_thread
from attncli.batch.inputs import Input
from attncli.batch.job import Job, Out, Tell, perform
from attncli.batch.manifest import Done, Receipt

Todo = tuple[Input, "Done | None"]  # an input, and what its result was made of, if there is one
_WORTH = 0.1  # seconds that a task should take, to be worth sending
_MOST = 64  # inputs in a task: so many, for each worker twice, are computed again at most if all is killed


class Engine(Protocol):
    """Someone to give inputs to."""

    @property
    def busy(self) -> bool:
        """Whether something that was submitted has no receipt yet."""

    def room(self) -> bool:
        """Whether another input can be taken now."""

    def submit(self, input: Input, done: Done | None) -> None:
        """Take an input; `done` is what its result was made of, if there is one."""

    def withdraw(self) -> None:
        """Take back what nobody has begun."""

    def next(self) -> tuple[Input, Receipt] | None:
        """What is finished next; nothing, if that takes longer than a moment."""


class Here:
    """This process, one input after the other."""

    def __init__(self, job: Job, variant: str, out: Out | None, tell: Tell) -> None:
        self.job, self.variant, self.out, self.tell = job, variant, out, tell
        self.waiting: list[Todo] = []

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    def room(self) -> bool:
        return not self.waiting

    def submit(self, input: Input, done: Done | None) -> None:
        self.waiting.append((input, done))

    def withdraw(self) -> None:
        """What has been taken is begun."""

    def next(self) -> tuple[Input, Receipt]:
        input, done = self.waiting.pop()
        return input, perform(self.job, self.variant, input, done, self.out, self.tell)


class Cluster:
    """The workers of a Dask cluster.

    Inputs travel in handfuls that take about as long as a task is worth. Those whose worker died are set apart, and
    computed alone once all others are done: if its worker dies again, it is that input's doing, and no neighbour's.
    """

    def __init__(self, tasks: Tasks, job: Job, variant: str) -> None:
        self.tasks, self.job, self.variant = tasks, job, variant
        self.handful: list[Todo] = []  # what goes out next
        self.size = 1  # of a handful, as it should be
        self.suspects: deque[Todo] = deque()
        self.deaths: dict[Input, int] = {}  # how many workers died of an input
        self.receipts: deque[tuple[Input, Receipt]] = deque()
        self.alone = False

    @property
    def busy(self) -> bool:
        return bool(self.tasks.out or self.handful or self.suspects or self.receipts)

    def room(self) -> bool:
        return not self.alone and self.tasks.room

    def submit(self, input: Input, done: Done | None) -> None:
        self.handful.append((input, done))
        if len(self.handful) >= self.size:
            self._send()

    def withdraw(self) -> None:
        self.handful, self.suspects = [], deque()
        self.tasks.withdraw()

    def _send(self) -> None:
        todo, self.handful = self.handful, []
        self.tasks.send(todo, remote, self.job, self.variant, todo)

    def next(self) -> tuple[Input, Receipt] | None:
        if not self.receipts:
            if not self.tasks.out and not self.handful and self.suspects:
                self.alone = True
                self.handful.append(self.suspects.popleft())
            if self.handful:
                self._send()
            for todo, made in self.tasks.over(0.2):
                self._judge(todo, made)
        return self.receipts.popleft() if self.receipts else None

    def _judge(self, todo: list[Todo], made: Any) -> None:
        """What became of a task."""
        alone, self.alone = self.alone, False
        if isinstance(made, Died):
            self._mourn(todo, made.workers, alone)
            return
        if isinstance(made, Lost):
            raise gone("what is finished is kept; start it again, and the same command goes on from there")
        slowest = max(receipt.seconds for receipt in made)
        self.size = max(1, min(2 * self.size, _MOST, int(_WORTH / max(slowest, 1e-6))))
        for (input, _), receipt in zip(todo, made, strict=True):
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
