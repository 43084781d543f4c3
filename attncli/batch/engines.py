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
        self.resources = {"GPU": 1} if str(job.choosing.choices.get("device", "")).startswith("cuda") else None
        self.count, self.alone, self.window, self.asked = 0, False, 2, 0.0

    @property
    def busy(self) -> bool:
        return bool(self.running or self.handful or self.suspects or self.receipts)

    def room(self) -> bool:
        if time.monotonic() - self.asked > 1:  # workers come and go
            with suppress(OSError):
                self.window = 2 * max(
                    1, sum(self.client.nthreads().values())
                )  # the next lies ready where one is computed
            self.asked = time.monotonic()
        return not self.alone and len(self.running) < self.window

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
        from distributed import KilledWorker

        todo, _ = self.running.pop(future.key)
        alone, self.alone = self.alone, False
        try:
            receipts: list[Receipt] = future.result()
        except KilledWorker:
            self._mourn(todo, alone)
            return
        except ImportError as error:
            way = "pip install attncli on every worker"
            raise CannotError("worker-lacks-attn", f"a worker cannot load attn: {error}", help=way) from None
        except BaseException as error:
            if isinstance(error, OSError) or type(error).__name__ in ("FutureCancelledError", "CancelledError"):
                way = "what is finished is kept; start it again, and the same command goes on from there"
                raise CannotError("scheduler-gone", "the Dask scheduler has gone", help=way) from None
            raise
        slowest = max(receipt.seconds for receipt in receipts)
        self.size = max(1, min(2 * self.size, _MOST, int(_WORTH / max(slowest, 1e-6))))
        for (input, _), receipt in zip(todo, receipts, strict=True):
            attempts = receipt.attempts + self.deaths.pop(input, 0)
            self.receipts.append((input, replace(receipt, attempts=attempts)))

    def _mourn(self, todo: list[Todo], alone: bool) -> None:
        """A worker died over these."""
        for input, _ in todo:
            self.deaths[input] = self.deaths.get(input, 0) + 1
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
    _settle()
    return [perform(job, variant, input, done) for input, done in todo]


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
