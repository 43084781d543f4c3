"""One long problem on a cluster: its tiles to whoever is free, again where a worker dies, and the pieces as they come back."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from attncli import __version__
from attncli.batch.dask_cluster import Died, Lost, Tasks, gone, lacking, one_thread
from attncli.errors import CannotError

if TYPE_CHECKING:
    from attncli.core.remote import Block, Common, Piece, Task

_DEATHS = 4  # of workers that had the same task, and after that no more are tried
_LOSSES = 3  # of all that the workers held in common


class Sent(NamedTuple):
    """A task, as it was sent."""

    number: int
    task: Task
    losses: int  # of all that workers held in common, by then


class Crew:
    """The workers of a Dask cluster, as those who take the tiles of one problem (`attncli.core.remote`)."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.deaths: Counter[int] = Counter()  # by number of the task
        self.losses = 0

    @property
    def workers(self) -> int:
        """How many tasks they do at a time."""
        self.tasks.gather()
        return self.tasks.workers

    def __call__(self, common: Common, tasks: Iterator[Task]) -> Generator[tuple[Block, Piece | None]]:
        """Every task done, as they are done.

        Raises:
            CannotError: workers lack attn or die of it, or the scheduler goes.
        """
        waiting = (Sent(number, task, 0) for number, task in enumerate(tasks))
        again: deque[Sent] = deque()
        shared = self._shared(common)
        try:
            while True:
                while self.tasks.room and (sent := again.popleft() if again else next(waiting, None)):
                    self.tasks.send(sent._replace(losses=self.losses), remote, shared, sent.task)
                if not self.tasks.out:
                    return
                for sent, made in self.tasks.over(0.5):
                    if not isinstance(made, Died | Lost):
                        yield sent.task.block, made
                        continue
                    again.append(sent)
                    if isinstance(made, Died):
                        self._mourn(sent, made.workers)
                    elif sent.losses == self.losses:  # the first that tells of it
                        shared = self._shared_again(common)
        finally:
            self.tasks.cancel()

    def _shared(self, common: Common) -> Any:
        """What all need, sent to each; those who come later ask the others for it."""
        client = self.tasks.client
        try:
            self.tasks.gather()
            for said in client.run(version, on_error="return").values():
                if isinstance(said, ImportError):
                    raise lacking(said)
                if isinstance(said, str) and said != __version__:  # else it has died since
                    raise CannotError("worker-differs", f"a worker has attn {said}, and this command is {__version__}")
            [shared] = client.scatter([common], broadcast=True, hash=False)
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


def remote(common: Common, task: Task) -> Piece | None:
    """The task itself, on a worker."""
    one_thread()
    from attncli.core.remote import piece

    return piece(common, task)
