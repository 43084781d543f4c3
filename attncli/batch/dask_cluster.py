"""Dask clusters: `connect_to_scheduler` reaches one; `DaskTaskPool` sends tasks and collects outcomes.

Whoever names a scheduler trusts it: tasks and outcomes are pickled, and it may run what it likes. Only this package imports Dask. What became of a task is asked of the exception that its future raises, never of its status,
which may be `lost` (distributed issues 6106, 7870).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeAlias

from attncli.batch.task_pool import Arguments, Returned, TaskLost, Token, WorkersDied
from attncli.errors import CannotError, OptionError

_SCHEDULER_TIMEOUT_SECONDS = 10  # how long a scheduler may take to answer

Client: TypeAlias = Any  # distributed.Client, which has no types
Future: TypeAlias = Any  # distributed.Future


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────
def collect_outcome(future: Future) -> Any:
    """What a finished task returned, or WorkersDied or TaskLost; an exception of the task is raised.

    Raises:
        CannotError: the workers lack attn.
    """
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return WorkersDied(1 + error.allowed_failures)
    except ImportError as error:
        raise worker_lacks_attn_error(error) from None
    except BaseException as error:
        if isinstance(error, OSError) or type(error).__name__ in ("FutureCancelledError", "CancelledError"):
            return TaskLost()
        raise


def worker_lacks_attn_error(error: BaseException) -> CannotError:
    """The error to raise where a worker has no attn."""
    hint = "pip install attncli on every worker"
    return CannotError("worker-lacks-attn", f"a worker cannot load attn: {error}", help=hint)


def scheduler_gone_error(hint: str) -> CannotError:
    """The error to raise where the scheduler answers no more."""
    return CannotError("scheduler-gone", "the connection to the Dask scheduler was lost", help=hint)


class DaskTaskPool(Generic[Token, Returned]):
    """Tasks in flight on a cluster: a `task_pool.TaskPool`."""

    def __init__(self, client: Client, device: str, on_no_workers: Callable[[], None]) -> None:
        self.client, self.on_no_workers = client, on_no_workers
        self.resources = {"GPU": 1} if device.startswith("cuda") else None
        self.in_flight: dict[str, tuple[Token, Future]] = {}  # by the key of the task
        self.finished_futures: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self.submitted_count, self.known_workers, self.workers_asked_at = 0, 0, 0.0

    @property
    def worker_count(self) -> int:
        """How many tasks are done at a time, 1 at least. Workers come and go: it is asked anew each second."""
        if time.monotonic() - self.workers_asked_at > 1:
            with suppress(OSError):
                self.known_workers = self._count_capable_threads()
            self.workers_asked_at = time.monotonic()
        return max(1, self.known_workers)

    def wait_for_workers(self) -> None:
        """Wait until the cluster has a worker.

        Raises:
            CannotError: it has some, but none with the GPU that is needed.
        """
        if not self.client.nthreads():
            self.on_no_workers()
            self.client.wait_for_workers(1)
        if not self._count_capable_threads():
            hint = "dask worker ADDRESS --resources GPU=1"
            raise CannotError("no-device", "no worker of the cluster has announced a GPU", help=hint)

    def _count_capable_threads(self) -> int:
        """The threads of the workers that have the resources needed."""
        if self.resources is None:
            return sum(self.client.nthreads().values())
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        except TypeError:  # an older Dask, which returns all of them anyway
            workers = self.client.scheduler_info()["workers"].values()
        return sum(worker["nthreads"] for worker in workers if worker["resources"].get("GPU"))

    @property
    def has_capacity(self) -> bool:
        """Whether to send another task: each worker has one to do and one to begin next."""
        return len(self.in_flight) < 2 * self.worker_count

    def submit(self, token: Token, function: Callable[[*Arguments], Returned], *args: *Arguments) -> None:
        """Send a task; `token` is returned with its outcome."""
        self.submitted_count += 1
        key = f"attn-{os.getpid()}-{id(self):x}-{self.submitted_count}"
        future = self.client.submit(function, *args, key=key, pure=False, resources=self.resources)
        self.in_flight[key] = token, future
        future.add_done_callback(self.finished_futures.put)

    def completed(self, timeout_seconds: float) -> Iterator[tuple[Token, Returned | WorkersDied | TaskLost]]:
        """Wait for tasks that are over, and yield the token and the outcome of each; none where that takes too long.

        Raises:
            Exception: whatever a task raised.
        """
        with suppress(queue.Empty):
            future = self.finished_futures.get(timeout=timeout_seconds)
            if future.key in self.in_flight:
                yield self.in_flight.pop(future.key)[0], collect_outcome(future)
            return
        for key in [key for key, (_, future) in self.in_flight.items() if future.status in ("lost", "cancelled")]:
            yield self.in_flight.pop(key)[0], TaskLost()  # no callback is called for those

    def cancel_unstarted(self) -> None:
        """Cancel the tasks that no worker has."""
        with suppress(OSError):
            started = {key for keys in self.client.processing().values() for key in keys}
            self._cancel_keys([key for key in self.in_flight if key not in started])

    def cancel_all(self) -> None:
        """Cancel every task."""
        with suppress(Exception):  # the scheduler may have gone
            self._cancel_keys([*self.in_flight])

    def _cancel_keys(self, keys: list[str]) -> None:
        self.client.cancel([self.in_flight.pop(key)[1] for key in keys])


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def connect_to_scheduler(address_or_file: str) -> Iterator[Client]:
    """Connect to a scheduler that runs already, by its address or its scheduler file, and yield the client.

    Raises:
        OptionError: the address is empty.
        CannotError: Dask is not installed, or no scheduler answers there.
    """
    if not address_or_file.strip():
        raise OptionError(
            "bad-option", "--scheduler is empty", help="give its address, tcp://HOST:8786, or its scheduler file"
        )
    _, distributed = _import_dask("--scheduler")
    with _dask_logging_silenced():
        try:
            address = _scheduler_address(address_or_file)
            _probe_scheduler(address)
            client = distributed.Client(address, timeout=_SCHEDULER_TIMEOUT_SECONDS, set_as_default=False)
        except Exception as error:  # each kind of address has its own
            why = str(error).splitlines()[0] if str(error) else "what answers there is not Dask"
            hint = "dask scheduler prints its address; --scheduler tcp://HOST:8786, or its scheduler file"
            raise CannotError(
                "no-scheduler", f"no Dask scheduler answers at {address_or_file}: {why}", help=hint
            ) from None
        try:
            yield client
        finally:
            with suppress(Exception):  # the scheduler may have gone
                client.close(timeout=2)


def _scheduler_address(address_or_file: str) -> str:
    """The address itself, or the one in a scheduler file.

    Raises:
        OSError: there is no such file, or it is none of a scheduler.
    """
    if "://" in address_or_file or not (Path(address_or_file).exists() or address_or_file.endswith(".json")):
        return address_or_file
    try:
        return str(json.loads(Path(address_or_file).read_text())["address"])
    except FileNotFoundError:
        raise OSError("there is no such file") from None
    except (LookupError, TypeError, ValueError):
        raise OSError("this is not a scheduler file") from None


def _probe_scheduler(address: str) -> None:
    """Shake hands with a scheduler: the client itself would wait for ever for a server of another kind.

    Raises:
        OSError: nobody answers, or nobody who speaks Dask. TimeoutError is one of them.
    """
    import asyncio

    from distributed.comm.core import connect
    from distributed.security import Security

    async def complete_handshake() -> None:
        arguments = Security().get_connection_args("client")
        connecting = connect(address, timeout=_SCHEDULER_TIMEOUT_SECONDS, **arguments)
        connection = await asyncio.wait_for(connecting, _SCHEDULER_TIMEOUT_SECONDS)
        await connection.close()

    asyncio.run(complete_handshake())


def _import_dask(option: str) -> tuple[ModuleType, ModuleType]:
    """Import dask and distributed for an option.

    Raises:
        CannotError: they are not installed.
    """
    try:
        import dask
        import distributed
    except ImportError:
        hint = "pip install 'attncli[batch]'"
        raise CannotError("missing-extra", f"{option} needs Dask, which is not installed", help=hint) from None
    return dask, distributed


@contextmanager
def _dask_logging_silenced() -> Iterator[None]:
    """Silence Dask's loggers, which write dozens of lines when a worker dies: messages of our own tell what matters."""
    import warnings

    level_before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level_before)
