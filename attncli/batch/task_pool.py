"""What a pool of workers is for whoever sends it tasks: `TaskPool`, and what becomes of a task whose worker dies."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple

from attncli.errors import CannotError
from attncli.pipeline import load_engine

Token = TypeVar("Token")  # what a caller wants back with the outcome of its task
Returned = TypeVar("Returned")  # what a task returns
Arguments = TypeVarTuple("Arguments")  # what a task is called with


class WorkersDied(NamedTuple):
    """The outcome of a task whose workers died."""

    deaths: int


class TaskLost(NamedTuple):
    """The outcome of a task when the data it needed is gone, or the scheduler is."""


class TaskPool(Protocol[Token, Returned]):
    """Workers, and the tasks that they have: each with a token of the caller's, which is returned with the outcome."""

    @property
    def in_flight(self) -> Collection[object]:
        """The tasks that have been sent and are not over."""

    @property
    def has_capacity(self) -> bool:
        """Whether to send another task now."""

    def submit(self, token: Token, function: Callable[[*Arguments], Returned], *args: *Arguments) -> None:
        """Send a task; `token` is returned with its outcome."""

    def completed(self, timeout_seconds: float) -> Iterator[tuple[Token, Returned | WorkersDied | TaskLost]]:
        """Wait for tasks that are over, and yield the token and the outcome of each; none where that takes too long."""

    def cancel_unstarted(self) -> None:
        """Cancel the tasks that no worker has."""

    def cancel_all(self) -> None:
        """Cancel every task."""


@functools.cache
def limit_worker_threads(count: int = 1) -> None:
    """Load torch in this worker, and let it compute with so many threads: its share of the cores."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    with suppress(CannotError):  # the input that needs it says so
        load_engine()
        import torch

        torch.set_num_threads(count)
