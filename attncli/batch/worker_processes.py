"""Worker processes of this machine: `ProcessTaskPool` sends them tasks over pipes, and `serve_tasks` is what they run.

A pipe has no address, so that no other process can send a task, or see one. A task and its outcome are pickled: both ends
of a pipe are this program. Each worker has one task at a time, and therefore its death is that task's.
"""

from __future__ import annotations

import functools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, Generic, NamedTuple, NoReturn, TypeAlias

from attncli.batch.task_pool import Arguments, Returned, TaskLost, Token, WorkersDied
from attncli.errors import CannotError

_MAX_FAILED_STARTS = 3  # workers that may die in a row before they can take a task
_SECONDS_TO_END = 5.0  # how long an idle worker may take to end, before it is killed
# The worker finds modules where this process does, and nowhere else: -P keeps the current folder out until then.
_WORKER_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from attncli.batch import worker_processes as w; w.serve_tasks()"
)


class _Ready(NamedTuple):
    """What a worker sends first."""


class _TaskReturned(NamedTuple, Generic[Returned]):
    """What a worker sends when a task is over."""

    value: Returned


class _TaskRaised(NamedTuple):
    """What a worker sends when a task has raised an exception."""

    error: Exception


class _WorkerEnded(NamedTuple):
    """What is received of a worker that has died."""


_Event: TypeAlias = _Ready | _TaskReturned[Returned] | _TaskRaised | _WorkerEnded


@dataclass(eq=False)
class _Worker(Generic[Token, Returned]):
    """A process that computes one task after the other."""

    process: subprocess.Popen[bytes]
    receiver: threading.Thread | None = None  # receives what it sends
    is_ready: bool = False
    task: tuple[Token, Callable[[], Returned]] | None = field(default=None)  # the task that it has, behind its token

    def send_task(self) -> None:
        """Send its task. Where it has died, that is received as an event, like any death."""
        if self.task is None or self.process.stdin is None:
            return
        with suppress(OSError):
            self.process.stdin.write(pickle.dumps(self.task[1]))
            self.process.stdin.flush()

    def receive_events(self, events: queue.SimpleQueue[tuple[_Worker[Token, Returned], _Event[Returned]]]) -> None:
        """Put what it sends into a queue, until it ends."""
        if self.process.stdout is None:
            return
        with self.process.stdout as replies:
            with suppress(Exception):  # the pipe ends, or ends in the middle
                while True:
                    events.put((self, pickle.load(replies)))
            events.put((self, _WorkerEnded()))

    def end(self, *, at_once: bool) -> None:
        """End the process: one that is idle by itself, one that computes by force."""
        if at_once:
            self.process.kill()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.receiver is not None:
            self.receiver.join(_SECONDS_TO_END)


class ProcessTaskPool(Generic[Token, Returned]):
    """So many worker processes of this machine: a `TaskPool`. They are started when there is something to do."""

    def __init__(self, process_count: int) -> None:
        self.process_count = process_count
        self.workers: list[_Worker[Token, Returned]] = []
        self.events: queue.SimpleQueue[tuple[_Worker[Token, Returned], _Event[Returned]]] = queue.SimpleQueue()
        self.failed_starts = 0  # since the last worker that could take a task

    @property
    def in_flight(self) -> list[_Worker[Token, Returned]]:
        """The workers that have a task."""
        return [worker for worker in self.workers if worker.task is not None]

    @property
    def has_capacity(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self.in_flight) < self.process_count

    def submit(self, token: Token, function: Callable[[*Arguments], Returned], *args: *Arguments) -> None:
        """Send a task to a worker that has none; `token` is returned with its outcome.

        Raises:
            CannotError: no further process can be started.
        """
        self._send_task(token, functools.partial(function, *args))

    def _send_task(self, token: Token, call: Callable[[], Returned]) -> None:
        idle = (worker for worker in self.workers if worker.task is None and worker.process.poll() is None)
        worker = next(idle, None) or self._start_worker()
        worker.task = token, call
        worker.send_task()

    def completed(self, timeout_seconds: float) -> Iterator[tuple[Token, Returned | WorkersDied | TaskLost]]:
        """Wait for a task that is over, and yield its token and its outcome; none where that takes too long.

        Raises:
            CannotError: workers die before they can take a task.
            Exception: whatever a task raised.
        """
        try:
            worker, event = self.events.get(timeout=timeout_seconds)
        except queue.Empty:
            return
        if worker not in self.workers:  # it was ended, and its last events came after that
            return
        if isinstance(event, _Ready):
            worker.is_ready, self.failed_starts = True, 0
            return
        task, worker.task = worker.task, None
        if isinstance(event, _WorkerEnded):
            self.workers.remove(worker)
            worker.end(at_once=True)
        if task is None:
            return
        if isinstance(event, _TaskRaised):
            raise event.error
        if isinstance(event, _TaskReturned):
            yield task[0], event.value
        elif worker.is_ready:
            yield task[0], WorkersDied(1)
        else:
            self._count_failed_start(worker.process.returncode)
            self._send_task(*task)

    def _count_failed_start(self, status: int) -> None:
        """Count a worker that died before it could take a task.

        Raises:
            CannotError: too many did.
        """
        self.failed_starts += 1
        if self.failed_starts >= _MAX_FAILED_STARTS:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            message = f"{self.failed_starts} worker processes ended {how} before they could start"
            raise CannotError("no-worker", message, help="without -j, everything is computed in this process")

    def _start_worker(self) -> _Worker[Token, Returned]:
        """Start a worker, and a thread that receives what it sends.

        Raises:
            CannotError: no further process can be started.
        """
        options = ["-P", *(("-X", "utf8") if sys.flags.utf8_mode else ())]
        command = [sys.executable, *options, "-c", _WORKER_CODE, *(path or os.getcwd() for path in sys.path)]
        with _sigint_blocked():
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                worker: _Worker[Token, Returned] = _Worker(process)
                worker.receiver = threading.Thread(target=worker.receive_events, args=(self.events,), daemon=True)
                worker.receiver.start()
            except (OSError, RuntimeError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                message = f"worker process {len(self.workers) + 1} cannot be started: {why}"
                raise CannotError("no-worker", message, help="use fewer: -j N") from error
        self.workers.append(worker)
        return worker

    def cancel_unstarted(self) -> None:
        """Do nothing: a worker has begun whatever was sent to it."""

    def cancel_all(self) -> None:
        """End the workers that compute."""
        for worker in self.in_flight:
            self.workers.remove(worker)
            worker.end(at_once=True)

    def end_workers(self) -> None:
        """End all workers."""
        self.cancel_all()
        while self.workers:
            self.workers.pop().end(at_once=False)


@contextmanager
def open_process_pool(process_count: int) -> Iterator[ProcessTaskPool[Any, Any]]:
    """Yield a pool of so many processes, and end them after the block. What its tasks are, whoever submits them knows."""
    pool: ProcessTaskPool[Any, Any] = ProcessTaskPool(process_count)
    try:
        yield pool
    finally:
        pool.end_workers()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Start threads and processes with SIGINT blocked: a terminal sends Ctrl-C to all of them, and this process decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)


# ── in the worker ────────────────────────────────────────────────────────────────────────────────
def serve_tasks() -> NoReturn:
    """Compute the tasks that come from standard input, and send the outcomes to standard output, until that ends.

    Raises:
        AssertionError: never; it says to type checkers that this does not return.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # what matters is in the receipt of an input
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null_device = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what a library prints is no receipt
        os.dup2(null_device, descriptor)
    tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    threading.Thread(target=_receive_tasks, args=(requests, tasks), daemon=True).start()
    _send(replies, _Ready())
    while True:
        call = tasks.get()
        try:
            reply: _Event[object] = _TaskReturned(call())
        except Exception as error:
            reply = _TaskRaised(error)
        _send(replies, reply)


def _receive_tasks(requests: IO[bytes], tasks: queue.SimpleQueue[Callable[[], object]]) -> None:
    """Put the tasks that come into a queue. Their end is the end of this process, even in the middle of a task.

    It is this way that a worker notices the death of whoever started it: another run may have the folder by now.
    """
    try:
        while True:
            tasks.put(pickle.load(requests))
    finally:
        os._exit(0)


def _send(replies: IO[bytes], reply: _Event[object]) -> None:
    """Send an event to whoever started this process; where it has gone, this process ends."""
    try:
        replies.write(pickle.dumps(reply))
        replies.flush()
    except OSError:
        os._exit(0)
