"""One long problem on a Dask cluster: `DaskWorkerPool` sends its tiles to the workers, again where a worker dies."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from attncli import __version__
from attncli.batch.dask_cluster import DaskTaskPool, Future, scheduler_gone_error, worker_lacks_attn_error
from attncli.batch.task_pool import TaskLost, WorkersDied, limit_worker_threads
from attncli.errors import CannotError

if TYPE_CHECKING:
    from attncli.core.remote import BlockResult, BlockTask, SharedTensors, TileBlock

_MAX_DEATHS_PER_TASK = 4  # workers that may die while they have the same task
_MAX_SHARED_TENSOR_LOSSES = 3  # how often all workers that hold the shared tensors may die
_MEMORY_HINT = "most often it is memory: use --dtype float32, fewer steps, or workers with more memory"


class SentTask(NamedTuple):
    """A task in flight."""

    number: int
    task: BlockTask
    losses_before: int  # how often the shared tensors had been lost when it was sent


class DaskWorkerPool:
    """The workers of a Dask cluster, which compute the tiles of one problem: a `core.remote.WorkerPool`."""

    def __init__(self, task_pool: DaskTaskPool[SentTask, BlockResult | None]) -> None:
        self.task_pool = task_pool
        self.deaths_by_task: Counter[int] = Counter()  # by the number of the task
        self.shared_tensor_losses = 0

    @property
    def worker_count(self) -> int:
        """How many tasks are done at a time."""
        self.task_pool.wait_for_workers()
        return self.task_pool.worker_count

    def compute_tasks(
        self, shared_tensors: SharedTensors, tasks: Iterator[BlockTask]
    ) -> Generator[tuple[TileBlock, BlockResult | None]]:
        """Compute every task, and yield the results in the order in which they are finished.

        Raises:
            CannotError: workers lack attn, or die again and again, or the scheduler has gone.
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
                for sent, outcome in self.task_pool.completed(0.5):
                    if not isinstance(outcome, WorkersDied | TaskLost):
                        yield sent.task.block, outcome
                        continue
                    again.append(sent)
                    if isinstance(outcome, WorkersDied):
                        self._handle_worker_death(sent, outcome.deaths)
                    elif sent.losses_before == self.shared_tensor_losses:  # the first task that meets this loss
                        shared = self._scatter_tensors_again(shared_tensors)
        finally:
            self.task_pool.cancel_all()

    def _scatter_tensors(self, shared_tensors: SharedTensors) -> Future:
        """Send to each worker what all tasks need; a worker that comes later gets it from the others.

        Raises:
            CannotError: a worker lacks attn or has another version, or the scheduler has gone.
        """
        client = self.task_pool.client
        try:
            self.task_pool.wait_for_workers()
            for version in client.run(installed_attn_version, on_error="return").values():
                if isinstance(version, ImportError):
                    raise worker_lacks_attn_error(version)
                if isinstance(version, str) and version != __version__:  # any other exception: it has died since
                    message = f"a worker has attn {version}, but this command is {__version__}"
                    raise CannotError("worker-differs", message)
            [shared] = client.scatter([shared_tensors], broadcast=True, hash=False)
        except OSError:
            raise scheduler_gone_error("start it again, and run the same command") from None
        return shared

    def _scatter_tensors_again(self, shared_tensors: SharedTensors) -> Future:
        """Send the shared tensors anew, because every worker that held them has died.

        Raises:
            CannotError: that has happened too often.
        """
        self.shared_tensor_losses += 1
        if self.shared_tensor_losses > _MAX_SHARED_TENSOR_LOSSES:
            message = f"all workers have died, {self.shared_tensor_losses} times"
            raise CannotError("workers-died", message, help=_MEMORY_HINT)
        return self._scatter_tensors(shared_tensors)

    def _handle_worker_death(self, sent: SentTask, death_count: int) -> None:
        """Count the workers that died while they had a task.

        Raises:
            CannotError: too many did.
        """
        self.deaths_by_task[sent.number] += death_count
        deaths = self.deaths_by_task[sent.number]
        if deaths >= _MAX_DEATHS_PER_TASK:
            rows = sent.task.block.combined_tile.rows
            message = f"{deaths} workers died while they computed queries {rows.start} to {rows.stop - 1}"
            raise CannotError("worker-died", message, help=_MEMORY_HINT)


def installed_attn_version() -> str:
    """The version of attn that a worker has."""
    return __version__


def compute_block_on_worker(shared_tensors: SharedTensors, task: BlockTask) -> BlockResult | None:
    """Compute one task, on a worker."""
    limit_worker_threads()
    from attncli.core.remote import compute_block

    return compute_block(shared_tensors, task)
