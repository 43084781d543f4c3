"""What a call costs in processor time and memory, in a process that has everything loaded: `measure_cost`."""

from __future__ import annotations

import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.helpers import forking_context

_MAX_SECONDS = 60


class Cost(NamedTuple):
    """Seconds of processor time, bytes of memory beyond what the process began with, and what the call returned."""

    seconds: float
    size: int
    returned: Any


def measure_cost(call: Callable[..., Any], *arguments: Any) -> Cost:
    """Call a function of a module in a process of its own, and return what that cost."""
    context = forking_context(call.__module__)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, call, arguments))
    process.start()
    sender.close()
    try:
        return Cost(*receiver.recv())
    except EOFError:
        raise AssertionError(f"it has failed, or taken {_MAX_SECONDS} s") from None
    finally:
        process.join()


def _measure(sender: Connection, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_SECONDS, _MAX_SECONDS))
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        returned = call(*arguments)
    except BaseException:
        traceback.print_exc()
        raise
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sender.send((seconds, 1024 * (after.ru_maxrss - before.ru_maxrss), returned))
