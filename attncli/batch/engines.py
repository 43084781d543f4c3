"""Who does the work: this process, or the workers of a Dask cluster. `submit` an input, and `next` hands back a receipt.

Dask's door is here, inside the functions that need it. What was learned of it (and is tested): a task writes its own
result and returns a small receipt, so that computing it again after a worker's death does no harm; what became of it is
asked of the exception, never of the status, which may be `lost` (distributed issues 6106, 7870).
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from attncli.batch.inputs import Input
from attncli.batch.manifest import Receipt
from attncli.batch.work import Job, Out, perform
from attncli.errors import CannotError


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

    def __init__(self, job: Job, variant: str, out: Out | None = None) -> None:
        self.job, self.variant, self.out = job, variant, out
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
        return input, perform(self.job, self.variant, input, done, self.out)


class Cluster:
    """The workers of a Dask cluster.

    An input whose worker died is set apart, and computed alone once all others are done: if its worker dies again, it
    is that input's doing, and no neighbour's.
    """

    def __init__(self, client: Any, job: Job, variant: str) -> None:
        self.client, self.job, self.variant = client, job, variant
        self.running: dict[str, tuple[Input, str | None, int, Any]] = {}  # by key, with how many workers died of it
        self.suspects: deque[tuple[Input, str | None, int]] = deque()
        self.finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.resources = {"GPU": 1} if str(job.choosing.choices.get("device", "")).startswith("cuda") else None
        self.count, self.alone, self.window, self.asked = 0, False, 2, 0.0

    @property
    def busy(self) -> bool:
        return bool(self.running or self.suspects)

    def room(self) -> bool:
        if time.monotonic() - self.asked > 1:  # workers come and go
            with suppress(OSError):
                self.window = 2 * max(
                    1, sum(self.client.nthreads().values())
                )  # the next lies ready where one is computed
            self.asked = time.monotonic()
        return not self.alone and len(self.running) < self.window

    def submit(self, input: Input, done: str | None) -> None:
        self._submit(input, done, 0)

    def _submit(self, input: Input, done: str | None, deaths: int) -> None:
        self.count += 1
        future = self.client.submit(
            remote, self.job, self.variant, input, done,
            key=f"attn-{os.getpid()}-{id(self):x}-{self.count}", pure=False, resources=self.resources,
        )  # fmt: skip
        self.running[future.key] = (input, done, deaths, future)
        future.add_done_callback(self.finished.put)

    def next(self) -> tuple[Input, Receipt] | None:
        if not self.running and self.suspects:
            self.alone = True
            self._submit(*self.suspects.popleft())
        try:
            future = self.finished.get(timeout=0.2)
        except queue.Empty:
            return None
        return self._judged(future)

    def _judged(self, future: Any) -> tuple[Input, Receipt] | None:
        from distributed import KilledWorker

        input, done, deaths, _ = self.running.pop(future.key)
        alone, self.alone = self.alone, False
        try:
            receipt: Receipt = future.result()
        except KilledWorker:
            if alone:
                return input, self._poison(input, deaths + 1)
            self.suspects.append((input, done, deaths + 1))
            return None
        except ImportError as error:
            way = "pip install attncli on every worker"
            raise CannotError("worker-lacks-attn", f"a worker cannot load attn: {error}", help=way) from None
        except BaseException as error:
            if type(error).__name__ in ("FutureCancelledError", "CancelledError", "CommClosedError") or isinstance(
                error, OSError
            ):
                raise CannotError(
                    "scheduler-gone",
                    "the Dask scheduler has gone",
                    help="what is finished is kept; start it again, and the same command goes on from there",
                ) from None
            raise
        return input, replace(receipt, attempts=receipt.attempts + deaths)

    def _poison(self, input: Input, deaths: int) -> Receipt:
        """An input that its worker does not survive."""
        error = {
            "type": "error",
            "code": "worker-died",
            "message": f"{deaths} workers died while they computed this",
            "file": input.shown,
            "help": "most often memory: --dtype float32, fewer steps, or a worker with more",
        }
        return Receipt(input.shown, input.result, "failed", variant=self.variant, attempts=deaths, error=error)


def remote(job: Job, variant: str, input: Input, done: str | None) -> Receipt:
    """The task itself, on a worker."""
    _settle()
    return perform(job, variant, input, done)


@functools.cache
def _settle() -> None:
    """A worker has one thread of torch, or as many workers would fight for the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from attncli.core.threads import one_thread

    one_thread()


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
    """Dask says dozens of lines when a worker dies; what matters of them is said by us."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio", "bokeh")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


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
