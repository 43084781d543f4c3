"""Clusters: processes of this machine or a scheduler that runs already, and what becomes of a task there. Dask's door.

What was learned of Dask (and is tested): what became of a task is asked of its exception, never of its status, which may
be `lost` (distributed issues 6106, 7870).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from attncli.errors import CannotError, OptionError

_SCHEDULER_TIMEOUT_SECONDS = 10  # seconds for a scheduler to answer


# ── a task ───────────────────────────────────────────────────────────────────────────────────────
class WorkersDied(NamedTuple):
    """The workers that had a task are dead."""

    deaths: int


class TaskLost(NamedTuple):
    """What a task needed is gone, or the scheduler is."""


def collect_outcome(future: Any) -> Any:
    """What a finished task returned, or its fate; what it raised is raised.

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
    """What to say where a worker has no attn."""
    way = "pip install attncli on every worker"
    return CannotError("worker-lacks-attn", f"a worker cannot load attn: {error}", help=way)


def scheduler_gone_error(hint: str) -> CannotError:
    """What to say where the scheduler answers no more."""
    return CannotError("scheduler-gone", "the Dask scheduler has gone", help=hint)


@functools.cache
def limit_worker_to_one_thread() -> None:
    """A worker has one thread of torch, or as many workers would fight for the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from attncli.core import threads

    threads.limit_torch_to_one_thread()


class TaskPool:
    """What is out on a cluster: each task with something of its sender's, which comes back with what became of it."""

    def __init__(self, client: Any, device: str, on_no_workers: Callable[[], None]) -> None:
        self.client, self.on_no_workers = client, on_no_workers
        self.resources = {"GPU": 1} if device.startswith("cuda") else None
        self.in_flight: dict[str, tuple[Any, Any]] = {}  # by key: the sender's, and the future
        self.finished_futures: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.submitted_count, self.known_workers, self.workers_asked_at = 0, 0, 0.0

    @property
    def worker_count(self) -> int:
        """How many tasks are done at a time: workers come and go."""
        if time.monotonic() - self.workers_asked_at > 1:
            with suppress(OSError):
                self.known_workers = self._count_capable_threads()
            self.workers_asked_at = time.monotonic()
        return max(1, self.known_workers)

    def wait_for_workers(self) -> None:
        """Wait until there is somebody.

        Raises:
            CannotError: there is, but nobody who can do this.
        """
        if not self.client.nthreads():
            self.on_no_workers()
            self.client.wait_for_workers(1)
        if not self._count_capable_threads():
            way = "dask worker ADDRESS --resources GPU=1"
            raise CannotError("no-device", "no worker of the cluster says that it has a GPU", help=way)

    def _count_capable_threads(self) -> int:
        """Threads of those workers that have what is needed."""
        if self.resources is None:
            return sum(self.client.nthreads().values())
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        except TypeError:  # an older Dask, which tells of all
            workers = self.client.scheduler_info()["workers"].values()
        return sum(one["nthreads"] for one in workers if one["resources"].get("GPU"))

    @property
    def has_capacity(self) -> bool:
        """Whether another can be sent: the next lies ready where one is done."""
        return len(self.in_flight) < 2 * self.worker_count

    def submit(self, token: Any, function: Callable[..., Any], *args: Any) -> None:
        """One more."""
        self.submitted_count += 1
        key = f"attn-{os.getpid()}-{id(self):x}-{self.submitted_count}"
        future = self.client.submit(function, *args, key=key, pure=False, resources=self.resources)
        self.in_flight[key] = token, future
        future.add_done_callback(self.finished_futures.put)

    def completed(self, timeout_seconds: float) -> Iterator[tuple[Any, Any]]:
        """Those that are over within so long: the sender's, and what was returned, or `Died`, or `Lost`."""
        with suppress(queue.Empty):
            future = self.finished_futures.get(timeout=timeout_seconds)
            if future.key in self.in_flight:
                yield self.in_flight.pop(future.key)[0], collect_outcome(future)
            return
        for key in [key for key, (_, future) in self.in_flight.items() if future.status in ("lost", "cancelled")]:
            yield self.in_flight.pop(key)[0], TaskLost()  # what they needed was lost, and that tells nobody

    def cancel_unstarted(self) -> None:
        """Take back what no worker has."""
        with suppress(OSError):
            begun = {key for keys in self.client.processing().values() for key in keys}
            self._cancel_keys([key for key in self.in_flight if key not in begun])

    def cancel_all(self) -> None:
        """Take everything back."""
        with suppress(Exception):  # the scheduler may have gone
            self._cancel_keys([*self.in_flight])

    def _cancel_keys(self, keys: list[str]) -> None:
        self.client.cancel([self.in_flight.pop(key)[1] for key in keys])


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def local_client(process_count: int) -> Iterator[Any]:
    """A cluster of so many processes on this machine, and its client.

    Raises:
        CannotError: Dask is not installed.
    """
    dask, distributed = _import_dask(f"--jobs {process_count}")
    with (
        _dask_logging_silenced(),
        dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.worker.daemon": True}),
    ):
        with _sigint_blocked():
            cluster = distributed.LocalCluster(
                n_workers=process_count, threads_per_worker=1, memory_limit=0, resources={"GPU": 1},
                dashboard_address=None, silence_logs=logging.CRITICAL, host="127.0.0.1",
            )  # fmt: skip
        try:
            with distributed.Client(cluster) as client:
                yield client
        finally:
            cluster.close(timeout=5)


@contextmanager
def connect_to_scheduler(address_or_file: str) -> Iterator[Any]:
    """The client of a scheduler that runs already, by its address or its file.

    Raises:
        OptionError: it is empty.
        CannotError: Dask is not installed, or no scheduler answers there.
    """
    if not address_or_file.strip():
        raise OptionError("bad-option", "--scheduler is empty", help="its address, tcp://HOST:8786, or its file")
    _, distributed = _import_dask("--scheduler")
    with _dask_logging_silenced():
        try:
            address = _scheduler_address(address_or_file)
            _probe_scheduler(address)
            client = distributed.Client(address, timeout=_SCHEDULER_TIMEOUT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            why = str(error).splitlines()[0] if str(error) else "nothing that speaks Dask"
            way = "dask scheduler prints its address; --scheduler tcp://HOST:8786, or its scheduler file"
            raise CannotError(
                "no-scheduler", f"no Dask scheduler answers at {address_or_file}: {why}", help=way
            ) from None
        try:
            yield client
        finally:
            with suppress(Exception):  # it may have gone
                client.close(timeout=2)


def _scheduler_address(address_or_file: str) -> str:
    """An address, or what a scheduler file says."""
    if "://" in address_or_file or not (Path(address_or_file).exists() or address_or_file.endswith(".json")):
        return address_or_file
    try:
        return str(json.loads(Path(address_or_file).read_text())["address"])
    except FileNotFoundError:
        raise OSError("there is no such file") from None
    except (LookupError, TypeError, ValueError):
        raise OSError("this is no scheduler file") from None


def _probe_scheduler(address: str) -> None:
    """Whether a scheduler answers: the client itself would wait for ever for a server of another kind to shake hands."""
    import asyncio

    from distributed.comm.core import connect
    from distributed.security import Security

    async def complete_handshake() -> None:
        said = connect(address, timeout=_SCHEDULER_TIMEOUT_SECONDS, **Security().get_connection_args("client"))
        await (await asyncio.wait_for(said, _SCHEDULER_TIMEOUT_SECONDS)).close()

    asyncio.run(complete_handshake())


def _import_dask(option: str) -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError:
        way = "pip install 'attncli[batch]'"
        raise CannotError("missing-extra", f"{option} needs Dask, which is not installed", help=way) from None
    return dask, distributed


@contextmanager
def _dask_logging_silenced() -> Iterator[None]:
    """Dask says dozens of lines when a worker dies, by as many loggers; what matters of them is said by us."""
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Threads and processes that are started here do not hear Ctrl-C, which a terminal sends to all: this process decides."""
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    said = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"  # what it says at the end of a run that was stopped
    resource_tracker.ensure_running()  # it would open the ears again
    if said is None:
        del os.environ["PYTHONWARNINGS"]
    else:
        os.environ["PYTHONWARNINGS"] = said
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
