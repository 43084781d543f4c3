"""One long problem on a cluster: its tiles to whoever is free, again where a worker dies, and the pieces as they come back."""

from __future__ import annotations

import os
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from attncli import __version__
from attncli.batch.clusters import Capacity, Died, Lost, gone, lacking, one_thread, outcome, resources
from attncli.errors import CannotError

if TYPE_CHECKING:
    from attncli.core.away import Block, Common, Piece, Task

_DEATHS = 4  # of workers that had the same task, and after that no more are tried
_LOSSES = 3  # of all that the workers held in common


class Sent(NamedTuple):
    """A task that is out."""

    number: int
    task: Task
    losses: int  # of all that workers held in common, by then
    future: Any


class Crew:
    """The workers of a Dask cluster, as those who take the tiles of one problem (`attncli.core.away`)."""

    def __init__(self, client: Any, device: str, waits: Callable[[], None] = lambda: None) -> None:
        self.client, self.waits = client, waits
        self.resources = resources(device)
        self.capacity = Capacity(client)
        self.finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.running: dict[str, Sent] = {}  # by key
        self.deaths: Counter[int] = Counter()  # by number of the task
        self.losses = self.count = 0

    @property
    def workers(self) -> int:
        """How many tasks they do at a time."""
        self._gather()
        return self.capacity.threads

    def __call__(self, common: Common, tasks: Iterator[Task]) -> Iterator[tuple[Block, Piece]]:
        """Every task done, as they are done.

        Raises:
            CannotError: workers lack attn or die of it, or the scheduler goes.
        """
        waiting = enumerate(tasks)
        again: deque[tuple[int, Task]] = deque()
        shared = self._shared(common)
        try:
            while True:
                while len(self.running) < 2 * self.capacity.threads:
                    following = again.popleft() if again else next(waiting, None)
                    if following is None:
                        break
                    self._send(shared, *following)
                if not self.running:
                    return
                for future in self._finished():
                    sent = self.running.pop(future.key)
                    made: Any = Lost() if future.status == "lost" else outcome(future)
                    if not isinstance(made, Died | Lost):
                        yield sent.task.block, made
                        continue
                    again.append((sent.number, sent.task))
                    if isinstance(made, Died):
                        self._mourn(sent, made.workers)
                    elif sent.losses == self.losses:  # the first that tells of it
                        shared = self._shared_again(common)
        finally:
            with suppress(Exception):  # it may have gone
                self.client.cancel([sent.future for sent in self.running.values()])

    def _send(self, shared: Any, number: int, task: Task) -> None:
        self.count += 1
        key = f"attn-{os.getpid()}-{id(self):x}-{self.count}"
        future = self.client.submit(remote, shared, task, key=key, pure=False, resources=self.resources)
        self.running[key] = Sent(number, task, self.losses, future)
        future.add_done_callback(self.finished.put)

    def _finished(self) -> list[Any]:
        """Tasks that are over; those whose common part was lost tell nobody, and are asked."""
        with suppress(queue.Empty):
            future = self.finished.get(timeout=0.5)
            return [future] if future.key in self.running else []
        return [sent.future for sent in self.running.values() if sent.future.status in ("lost", "cancelled")]

    def _gather(self) -> None:
        """Wait until there is somebody."""
        if not self.client.nthreads():
            self.waits()
            self.client.wait_for_workers(1)

    def _shared(self, common: Common) -> Any:
        """What all need, sent to each; those who come later ask the others for it."""
        try:
            self._gather()
            for said in self.client.run(version, on_error="return").values():
                if isinstance(said, ImportError):
                    raise lacking(said)
                if isinstance(said, str) and said != __version__:  # else it has died since
                    raise CannotError("worker-differs", f"a worker has attn {said}, and this command is {__version__}")
            [shared] = self.client.scatter([common], broadcast=True, hash=False)
        except OSError:
            raise gone("start it again, and give the same command") from None
        return shared

    def _shared_again(self, common: Common) -> Any:
        """The same, when every worker that held it has died."""
        self.losses += 1
        if self.losses > _LOSSES:
            raise CannotError("workers-died", f"all workers have died, {self.losses} times", help=_MEMORY)
        return self._shared(common)

    def _mourn(self, sent: Sent, workers: int) -> None:
        """So many workers died while they had this."""
        self.deaths[sent.number] += workers
        if self.deaths[sent.number] >= _DEATHS:
            rows = sent.task.block.whole.rows
            message = (
                f"{self.deaths[sent.number]} workers died while they computed queries {rows.start} to {rows.stop - 1}"
            )
            raise CannotError("worker-died", message, help=_MEMORY)


_MEMORY = "most often memory: --dtype float32, fewer steps, or workers with more"


def version() -> str:
    """Which attn a worker has."""
    return __version__


def remote(common: Common, task: Task) -> Piece:
    """The task itself, on a worker."""
    one_thread()
    from attncli.core.away import piece

    return piece(common, task)
