"""Clusters: processes of this machine or a scheduler that runs already, and what becomes of a task there. Dask's door.

What was learned of Dask (and is tested): what became of a task is asked of its exception, never of its status, which may
be `lost` (distributed issues 6106, 7870).
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from attncli.errors import CannotError


# ── a task ───────────────────────────────────────────────────────────────────────────────────────
class Died(NamedTuple):
    """The workers that had a task are dead."""

    workers: int


class Lost(NamedTuple):
    """What a task needed is gone, or the scheduler is."""


def outcome(future: Any) -> Any:
    """What a finished task returned, or its fate; what it raised is raised.

    Raises:
        CannotError: the workers lack attn.
    """
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return Died(1 + error.allowed_failures)
    except ImportError as error:
        raise lacking(error) from None
    except BaseException as error:
        if isinstance(error, OSError) or type(error).__name__ in ("FutureCancelledError", "CancelledError"):
            return Lost()
        raise


def lacking(error: BaseException) -> CannotError:
    """What to say where a worker has no attn."""
    way = "pip install attncli on every worker"
    return CannotError("worker-lacks-attn", f"a worker cannot load attn: {error}", help=way)


def gone(way: str) -> CannotError:
    """What to say where the scheduler answers no more."""
    return CannotError("scheduler-gone", "the Dask scheduler has gone", help=way)


def resources(device: str) -> dict[str, float] | None:
    """What a worker must have for a task on that device."""
    return {"GPU": 1} if device.startswith("cuda") else None


@functools.cache
def one_thread() -> None:
    """A worker has one thread of torch, or as many workers would fight for the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from attncli.core import threads

    threads.one_thread()


class Capacity:
    """How many tasks a cluster does at a time: workers come and go."""

    def __init__(self, client: Any) -> None:
        self.client, self.known, self.asked = client, 1, 0.0

    @property
    def threads(self) -> int:
        if time.monotonic() - self.asked > 1:
            with suppress(OSError):
                self.known = max(1, sum(self.client.nthreads().values()))
            self.asked = time.monotonic()
        return self.known


# ── clusters ─────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def local(jobs: int) -> Iterator[Any]:
    """A cluster of so many processes on this machine, and its client.

    Raises:
        CannotError: Dask is not installed.
    """
    dask, distributed = _dask(f"--jobs {jobs}")
    with _quiet(), dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.worker.daemon": True}):
        with _deaf():
            cluster = distributed.LocalCluster(
                n_workers=jobs, threads_per_worker=1, memory_limit=0, resources={"GPU": 1},
                dashboard_address=None, silence_logs=logging.CRITICAL, host="127.0.0.1",
            )  # fmt: skip
        try:
            with distributed.Client(cluster) as client:
                yield client
        finally:
            cluster.close(timeout=5)


@contextmanager
def reached(scheduler: str) -> Iterator[Any]:
    """The client of a scheduler that runs already, by its address or its file.

    Raises:
        CannotError: Dask is not installed, or no scheduler answers there.
    """
    _, distributed = _dask("--scheduler")
    with _quiet():
        try:
            said: dict[str, Any] = {"address": scheduler}
            if "://" not in scheduler and (Path(scheduler).exists() or scheduler.endswith(".json")):
                said = {"scheduler_file": scheduler}
                if not Path(scheduler).exists():
                    raise OSError("there is no such file")
            client = distributed.Client(**said, timeout=10, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            said_by = str(error).splitlines()[0] if str(error) else "nothing answers"
            way = "dask scheduler prints its address; --scheduler tcp://HOST:8786, or its scheduler file"
            raise CannotError(
                "no-scheduler", f"no Dask scheduler answers at {scheduler}: {said_by}", help=way
            ) from None
        try:
            yield client
        finally:
            with suppress(Exception):  # it may have gone
                client.close(timeout=2)


def _dask(option: str) -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError:
        way = "pip install 'attncli[batch]'"
        raise CannotError("missing-extra", f"{option} needs Dask, which is not installed", help=way) from None
    return dask, distributed


@contextmanager
def _quiet() -> Iterator[None]:
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
def _deaf() -> Iterator[None]:
    """Threads and processes that are started here do not hear Ctrl-C, which a terminal sends to all: this process decides."""
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would open the ears again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
