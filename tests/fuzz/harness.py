"""What all fuzzers share: how an input ended, limits of time and memory, the counts, and processes to run in. Entries: `try_inputs`, `run_fuzzer`.

A fuzzer is a module with a function `fuzz`, which yields an `Outcome` for each index that it is given. The input of an index is drawn
from the seed and the index alone, so that each can be tried again by itself.
"""

from __future__ import annotations

import importlib
import itertools
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from tests.helpers import forking_context

MODULES = {  # name → module below tests.fuzz
    "readers": "mutate_inputs",
    "costs": "costs",
    "parts": "part_language",
    "schemas": "schemas",
    "schedules": "schedules",
    "figures": "figure_files",
    "verdicts": "verdicts",
    "command-lines": "command_lines",
    "manifests": "manifests",
    "kills": "kills",
}
SHARES = {"readers": 5, "parts": 2, "figures": 3, "schemas": 2}  # of the time; the others have 1
# Those that measure what is made of an input by themselves, apart from the making of it, or give it to a process of its own.
MEASURED_INSIDE = ("costs", "command-lines", "manifests", "kills")
MEMORY_FOLDER = Path("/dev/shm")  # a disk would take longer to write the same file again than the program to read it
HANG_SECONDS = 60
MAX_CPU_SECONDS = 2.0  # of an input below 1 MB
SPARE_BYTES, BYTES_PER_BYTE = 64 << 20, 16  # what an input below 1 MB may take
_SHOWN_FAULTS = 5  # of each kind

FaultKind = Literal["bug", "wrong", "hang", "cost"]
FAULT_KINDS: dict[FaultKind, str] = {
    "bug": "exit status 70, or an exception that is no error of the input",
    "wrong": "accepted and changed, a wrong verdict, a lost or half-written file",
    "hang": f"no end within {HANG_SECONDS} s",
    "cost": f"more than {MAX_CPU_SECONDS:g} s of CPU, or than {SPARE_BYTES >> 20} MB + {BYTES_PER_BYTE} × the input of memory",
}


class Outcome(NamedTuple):
    """How one input ended."""

    kind: str  # of the input, such as its format
    code: str = ""  # of the error that refused it; empty: it was accepted
    fault_kind: FaultKind | None = None
    fault: str = ""  # what is wrong
    content: bytes = b""  # of the input
    suffix: str = "txt"


Fuzz = Callable[[int, Iterator[int], Path], Iterator[Outcome]]  # (seed, indices, folder of its own)


@dataclass
class Tally:
    """What became of the inputs of one fuzzer."""

    name: str
    seed: int
    tried: Counter[str] = field(default_factory=Counter)  # by kind
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by code
    fault_counts: Counter[FaultKind] = field(default_factory=Counter)
    faults: list[tuple[int, Outcome]] = field(default_factory=list)  # the first few of each kind, by index
    seconds: float = 0.0

    def add(self, index: int, outcome: Outcome) -> None:
        self.tried[outcome.kind] += 1
        if outcome.fault_kind:
            self.fault_counts[outcome.fault_kind] += 1
            signature = (outcome.fault_kind, outcome.fault.splitlines()[-1][:80] if outcome.fault else "")
            known = Counter((o.fault_kind, o.fault.splitlines()[-1][:80] if o.fault else "") for _, o in self.faults)
            if known[signature] < _SHOWN_FAULTS and len(self.faults) < 100:
                self.faults.append((index, outcome))
        elif outcome.code:
            self.refused[outcome.code] += 1
        else:
            self.accepted[outcome.kind] += 1

    def merge(self, other: Tally) -> None:
        for name in ("tried", "accepted", "refused", "fault_counts"):
            getattr(self, name).update(getattr(other, name))
        self.faults += other.faults
        self.seconds += other.seconds

    def __str__(self) -> str:
        faults = ", ".join(f"{self.fault_counts[kind]} {kind}" for kind in FAULT_KINDS)
        return (
            f"{self.name:14} {self.tried.total():8,} tried, {self.accepted.total():8,} accepted, "
            f"{self.refused.total():8,} refused by {len(self.refused)} codes; {faults}"
        )

    def describe_faults(self) -> str:
        """Say what failed, and how each is tried again."""
        return "\n".join(
            f"{outcome.fault_kind}: {outcome.fault}\n    {outcome.kind}: {outcome.content[:300]!r}\n"
            f"    again: python -m tests.fuzz --only {self.name} --seed {self.seed} --first {index} --count 1"
            for index, outcome in self.faults
        )


def describe_exception(error: BaseException) -> str:
    """Say which exception it was, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {str(error)[:200]}"


class HangError(BaseException):
    """An input takes too long; nothing that catches `Exception` catches this."""


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reset_peak() -> int:
    """Let the peak of memory begin anew, and return what is resident now, in bytes; 0 where the system cannot say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def measured_outcome(next_outcome: Callable[[], Outcome]) -> Outcome:
    """Try one input, and make a fault of what it took if that is too much."""
    resident, began = _reset_peak(), time.process_time()
    outcome = next_outcome()
    seconds = time.process_time() - began
    used = _status_bytes("VmHWM") - resident if resident else 0
    allowed = SPARE_BYTES + BYTES_PER_BYTE * len(outcome.content)
    if seconds > MAX_CPU_SECONDS or used > allowed:
        took = f"{seconds:.1f} s of CPU and {used >> 20} MB for {len(outcome.content):,} bytes"
        return outcome if outcome.fault_kind else outcome._replace(fault_kind="cost", fault=took)
    return outcome


def try_inputs(name: str, fuzz: Fuzz, seed: int, indices: Iterator[int], folder: Path) -> Tally:
    """Try the inputs of some indices in this process, and count how they end."""
    tally, began, current = Tally(name, seed), time.monotonic(), -1

    def counted() -> Iterator[int]:
        nonlocal current
        for index in indices:
            current = index
            yield index

    def try_next(outcomes: Iterator[Outcome]) -> Outcome:
        return next(outcomes) if name in MEASURED_INSIDE else measured_outcome(lambda: next(outcomes))

    numbers, outcomes = counted(), None
    while True:
        if outcomes is None:
            outcomes = fuzz(seed, numbers, folder)
        try:
            with _time_limit():
                outcome = (
                    next(outcomes)
                    if name in MEASURED_INSIDE
                    else measured_outcome(lambda running=outcomes: next(running))
                )
            if outcome.fault_kind == "cost":  # once more, in case that others took the time or modules were loaded
                with _time_limit():
                    outcome = try_next(fuzz(seed, iter([current]), folder))
            tally.add(current, outcome)
        except StopIteration:
            break
        except HangError:
            tally.add(current, Outcome("unknown", fault_kind="hang", fault=f"no end after {HANG_SECONDS} s"))
            outcomes, numbers = None, counted()
        except Exception:
            tally.add(current, Outcome("unknown", fault_kind="bug", fault=traceback.format_exc()))
            outcomes, numbers = None, counted()
    tally.seconds = time.monotonic() - began
    return tally


def load_fuzz(name: str) -> Fuzz:
    return importlib.import_module(f"tests.fuzz.{MODULES[name]}").fuzz


def _work(name: str, seed: int, first: int, step: int, count: int | None, seconds: float, pipe, current) -> None:
    """Be a process that tries every `step`th input from `first`, so many or for so long."""

    def indices() -> Iterator[int]:
        end = time.monotonic() + seconds
        numbers = itertools.count(first, step)
        for i in numbers if count is None else itertools.islice(numbers, count):
            if time.monotonic() > end:
                return
            current.value = i
            yield i

    in_memory = MEMORY_FOLDER.is_dir() and name not in MEASURED_INSIDE
    with tempfile.TemporaryDirectory(prefix=f"attn-fuzz-{name}-", dir=MEMORY_FOLDER if in_memory else None) as folder:
        pipe.send(try_inputs(name, load_fuzz(name), seed, indices(), Path(folder)))


def run_fuzzer(
    name: str, seed: int, *, first: int = 0, count: int | None = None, seconds: float = 1e9, jobs: int = 1
) -> Tally:
    """Run one fuzzer in processes of its own, so many inputs or for so long; a process that dies is a fault."""
    context = forking_context()
    tally, workers = Tally(name, seed), []
    for job in range(jobs):
        receiver, sender = context.Pipe(duplex=False)
        current = context.Value("q", -1)
        share = None if count is None else len(range(job, count, jobs))
        process = context.Process(
            target=_work, args=(name, seed, first + job, jobs, share, seconds, sender, current), name=name
        )
        process.start()
        sender.close()
        workers.append((process, receiver, current))
    for process, receiver, current in workers:
        try:
            tally.merge(receiver.recv())
        except EOFError:
            process.join()
            died = f"the process ended with {process.exitcode}"
            tally.add(current.value, Outcome("unknown", fault_kind="bug", fault=died))
        process.join()
    return tally
