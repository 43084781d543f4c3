"""One long problem on a cluster: its tiles to whoever is free, again where a worker dies, and the pieces as they come back."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from attncli import __version__
from attncli.batch.dask_cluster import (
    TaskLost,
    TaskPool,
    WorkersDied,
    limit_worker_to_one_thread,
    scheduler_gone_error,
    worker_lacks_attn_error,
)
from attncli.errors import CannotError

if TYPE_CHECKING:
    from attncli.core.remote import BlockResult, BlockTask, SharedTensors, TileBlock

_MAX_DEATHS_PER_TASK = 4  # of workers that had the same task, and after that no more are tried
_MAX_SHARED_TENSOR_LOSSES = 3  # of all that the workers held in common


class SentTask(NamedTuple):
    """A task, as it was sent."""

    number: int
    task: BlockTask
    losses_before: int  # of all that workers held in common, by then


class DaskWorkerPool:
    """The workers of a Dask cluster, as those who take the tiles of one problem (`attncli.core.remote`)."""

    def __init__(self, task_pool: TaskPool) -> None:
        self.task_pool = task_pool
        self.deaths_by_task: Counter[int] = Counter()  # by number of the task
        self.shared_tensor_losses = 0

    @property
    def workers(self) -> int:
        """How many tasks they do at a time."""
        self.task_pool.wait_for_workers()
        return self.task_pool.worker_count

    def __call__(
        self, shared_tensors: SharedTensors, tasks: Iterator[BlockTask]
    ) -> Generator[tuple[TileBlock, BlockResult | None]]:
        """Every task done, as they are done.

        Raises:
            CannotError: workers lack attn or die of it, or the scheduler goes.
        """
        waiting = (SentTask(number, task, 0) for number, task in enumerate(tasks))
        again: deque[SentTask] = deque()
        shared = self._scatter_tensors(shared_tensors)
        try:
            while True:
                while self.task_pool.has_capacity and (sent := again.popleft() if again else next(waiting, None)):
                    self.task_pool.submit(
                        sent._replace(losses_before=self.shared_tensor_losses),
                        compute_block_on_worker,
                        shared,
                        sent.task,
                    )
                if not self.task_pool.in_flight:
                    return
                for sent, made in self.task_pool.completed(0.5):
                    if not isinstance(made, WorkersDied | TaskLost):
                        yield sent.task.block, made
                        continue
                    again.append(sent)
                    if isinstance(made, WorkersDied):
                        self._handle_worker_death(sent, made.deaths)
                    elif sent.losses == self.shared_tensor_losses:  # the first that tells of it
                        shared = self._scatter_tensors_again(shared_tensors)
        finally:
            self.task_pool.cancel_all()

    def _scatter_tensors(self, shared_tensors: SharedTensors) -> Any:
        """What all need, sent to each; those who come later ask the others for it."""
        client = self.task_pool.client
        try:
            self.task_pool.wait_for_workers()
            for said in client.run(installed_attn_version, on_error="return").values():
                if isinstance(said, ImportError):
                    raise worker_lacks_attn_error(said)
                if isinstance(said, str) and said != __version__:  # else it has died since
                    raise CannotError("worker-differs", f"a worker has attn {said}, and this command is {__version__}")
            [shared] = client.scatter([shared_tensors], broadcast=True, hash=False)
        except OSError:
            raise scheduler_gone_error("start it again, and give the same command") from None
        return shared

    def _scatter_tensors_again(self, shared_tensors: SharedTensors) -> Any:
        """The same, when every worker that held it has died."""
        self.shared_tensor_losses += 1
        if self.shared_tensor_losses > _MAX_SHARED_TENSOR_LOSSES:
            raise CannotError(
                "workers-died", f"all workers have died, {self.shared_tensor_losses} times", help=_MEMORY_HINT
            )
        return self._scatter_tensors(shared_tensors)

    def _handle_worker_death(self, sent: SentTask, death_count: int) -> None:
        """So many workers died while they had this."""
        self.deaths_by_task[sent.number] += death_count
        if self.deaths_by_task[sent.number] >= _MAX_DEATHS_PER_TASK:
            rows = sent.task.block.combined_tile.rows
            message = f"{self.deaths_by_task[sent.number]} workers died while they computed queries {rows.start} to {rows.stop - 1}"
            raise CannotError("worker-died", message, help=_MEMORY_HINT)


_MEMORY_HINT = "most often memory: --dtype float32, fewer steps, or workers with more"


def installed_attn_version() -> str:
    """Which attn a worker has."""
    return __version__


def compute_block_on_worker(shared_tensors: SharedTensors, task: BlockTask) -> BlockResult | None:
    """The task itself, on a worker."""
    limit_worker_to_one_thread()
    from attncli.core.remote import compute_block

    return compute_block(shared_tensors, task)
