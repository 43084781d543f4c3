"""From inputs to receipts: what is left to do, how long to go on, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from attncli.batch.executors import Engine
from attncli.batch.inputs import Input
from attncli.batch.manifest import GOES_ON, Done, Manifest, Receipt
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError


class Cause(NamedTuple):
    """Why inputs failed: the first of them, and how many."""

    first: Receipt
    many: int


@dataclass
class Tally:
    """What it came to, so far."""

    total: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    causes: dict[str, Cause] = field(default_factory=dict)  # by code
    warned: dict[str, int] = field(default_factory=dict)  # how many results have each warning
    problems: int = 0  # how many were computed: one a file, or one a line
    streams: bool = False  # whether there are files of many
    lines: int = 0  # of the file of many that is at hand
    wrong: int = 0  # of those
    within: float = 0.0  # how much of it that is, 0 … 1
    started: float = field(default_factory=time.monotonic)
    stopped: str = ""  # why it ended before its time

    @property
    def seen(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def rate(self) -> float:
        """Problems computed per second."""
        return (self.problems + self.lines) / self._elapsed

    @property
    def left(self) -> float:
        """Seconds, if it goes on as it did; 0 while nothing is computed."""
        computed = self.done + self.failed + self.within
        return self._elapsed * (self.total - self.skipped - computed) / computed if computed else 0.0

    @property
    def _elapsed(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def speed(self) -> str:
        """The rate in words."""
        return f"{self.rate:,.0f} {'problems' if self.streams else 'files'}/s"

    def says(self) -> str:
        """How it goes, in words: “41,000 lines, 3 failed; 2,400 problems/s, 24 s left”."""
        failed = self.failed + self.wrong
        counts = [f"{self.lines:,} lines"] * bool(self.lines) + [f"{failed} failed"] * bool(failed)
        return "; ".join([*([", ".join(counts)] if counts else []), f"{self.speed}, {self.left:,.0f} s left"])

    def count(self, receipt: Receipt) -> None:
        """One more."""
        self.lines, self.wrong, self.within = 0, 0, 0.0
        self.problems += 0 if receipt.status == "skipped" else 1 if receipt.problems is None else receipt.problems
        if receipt.status == "skipped":
            self.skipped += 1
        elif receipt.status == "done":
            self.done += 1
        else:
            self.failed += 1
            code = str((receipt.error or {}).get("code"))
            first, count = self.causes.get(code, (receipt, 0))
            self.causes[code] = Cause(first, count + 1)
        for code in {warning.partition(":")[0] for warning in receipt.warnings}:
            self.warned[code] = self.warned.get(code, 0) + 1


def most_failures(said: str | None, total: int) -> float:
    """`10` or `5%` → how many inputs may fail before the batch stops.

    Raises:
        OptionError: it is neither.
    """
    if said is None:
        return float("inf")
    number, percent = said.removesuffix("%"), said.endswith("%")
    if not number.isascii() or not number.isdecimal() or (percent and int(number) > 100):
        raise OptionError(
            "bad-option", f"--max-failures is a number or a share of the inputs, not {said}", help="10, or 5%"
        )
    return total * int(number) / 100 if percent else int(number)


def finished(manifest: Manifest, input: Input, variant: str, again: bool) -> Done | None:
    """What the manifest says of a result that was made as is asked now."""
    receipt = manifest.receipts.get(input.result)
    if receipt is None or again or receipt.status != "done" or receipt.variant != variant:
        return None
    if receipt.sha256 is None or receipt.bytes is None or receipt.result_sha256 is None:
        return None
    return Done(receipt.sha256, receipt.bytes, receipt.result_sha256)


def run(
    inputs: Sequence[Input],
    engine: Engine,
    tally: Tally,
    done: Callable[[Input], Done | None],
    record: Callable[[Input, Receipt], None],
    *,
    most: float = float("inf"),
    interrupted: Callable[[], bool] = lambda: False,
    ahead: Callable[[Input], bool] = lambda input: True,
) -> None:
    """Give the engine every input, and hand on each receipt, until all is done or it must stop.

    Args:
        inputs: in order.
        engine: who computes them.
        tally: counted here.
        done: what an input's result was made of, if it may be there.
        record: told of each receipt.
        most: how many may fail.
        interrupted: whether to finish what runs, and stop.
        ahead: whether an input may be begun yet.

    Raises:
        AttnError: nothing more can be done here, whatever the input.
    """
    waiting = iter(inputs)
    following = next(waiting, None)
    stop: AttnError | None = None
    while True:
        if not tally.stopped and interrupted():
            tally.stopped = "interrupted"
            engine.withdraw()
        while following and not tally.stopped and stop is None and engine.room() and ahead(following):
            engine.submit(following, done(following))
            following = next(waiting, None)
        if not engine.busy:
            break
        if (found := engine.next()) is None:
            continue
        input, receipt = found
        if receipt.status == "stopped":
            stop = stop or _everyones(receipt)
            continue
        tally.count(receipt)
        record(input, receipt)
        if tally.failed > most and not tally.stopped:
            tally.stopped = "too many failures" if most else "a failure"
    if stop is not None:
        raise stop


def _everyones(receipt: Receipt) -> AttnError:
    """What stopped the batch, as the error it was."""
    error = receipt.error or {}
    kind = OptionError if error.get("status") == ExitStatus.USAGE else CannotError
    said = error.get("help", "")
    way = said if kind is OptionError else GOES_ON if said in ("", "nothing was left behind") else f"{said}; {GOES_ON}"
    return kind(str(error.get("code")), str(error.get("message")), help=way)


def in_order(
    inputs: Sequence[Input], window: int
) -> tuple[Callable[[Input], bool], Callable[[Input, Receipt], Iterator[tuple[Input, Receipt]]]]:
    """Receipts as they come → in the order of the inputs, no more than a window ahead of the first that lacks its own."""
    place = {input.result: i for i, input in enumerate(inputs)}
    held: dict[int, tuple[Input, Receipt]] = {}
    turn = 0

    def ahead(input: Input) -> bool:
        return place[input.result] < turn + window

    def sorted_out(input: Input, receipt: Receipt) -> Iterator[tuple[Input, Receipt]]:
        nonlocal turn
        held[place[input.result]] = (input, receipt)
        while turn in held:
            yield held.pop(turn)
            turn += 1

    return ahead, sorted_out
