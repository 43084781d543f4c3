"""How far a run is: a bar on standard error that goes away when the run is done.

`open_compute_progress` and `open_batch_progress` start one; standard output is left alone, since what is printed there is data.
"""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from attncli.plan.estimate import seconds_left

_MAX_WIDTH = 80  # columns of the terminal, and what is taken for its width if it says 0
_SPEED_PERIOD_SECONDS = 24 * 3600.0  # a tile can take minutes, so that Rich's 30 seconds would hold no two of them


class ProgressBar:
    """A bar between the columns that it is given."""

    def __init__(
        self, *columns: ProgressColumn, stream: TextIO, terminal_width: int, total: float, color: bool
    ) -> None:
        console = Console(file=stream, no_color=not color, width=min(_MAX_WIDTH, terminal_width or _MAX_WIDTH))
        self._progress = Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            speed_estimate_period=_SPEED_PERIOD_SECONDS,
        )
        self._task = self._progress.add_task("", total=total, status="")
        self._progress.start()

    def update(self, completed: float, status: str) -> None:
        """Show how much is done, and what is being done or how it goes."""
        self._progress.update(self._task, completed=completed, status=status)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class RateColumn(ProgressColumn):
    """Rows a second, where a run has rows, and the seconds that are left: by the speed, and at first by what was expected."""

    def __init__(self, row_count: int, started_at: float, expected_seconds: float) -> None:
        super().__init__()
        self.row_count = row_count  # that the task's total stands for
        self.started_at = started_at  # by `time.monotonic`
        self.expected_seconds = expected_seconds  # 0: nobody knows

    def render(self, task: Task) -> Text:
        fraction = task.completed / (task.total or 1)
        if not fraction and not self.expected_seconds:
            return Text()
        elapsed = time.monotonic() - self.started_at
        left = f"{seconds_left(elapsed, fraction, self.expected_seconds):.0f} s left"
        return Text(f"{self.row_count * fraction / elapsed:,.0f} rows/s, {left}" if self.row_count else left)


def open_compute_progress(
    stream: TextIO,
    terminal_width: int,
    row_count: int,
    *,
    started_at: float,
    expected_seconds: float = 0.0,
    color: bool,
) -> ProgressBar:
    """What is being done, and how much of it is, from 0 to 1."""
    rate = RateColumn(row_count, started_at, expected_seconds)
    columns = (TextColumn("{task.fields[status]}"), BarColumn(), TaskProgressColumn(), rate)
    return ProgressBar(*columns, stream=stream, terminal_width=terminal_width, total=1.0, color=color)


def open_batch_progress(stream: TextIO, terminal_width: int, input_count: int, *, color: bool) -> ProgressBar:
    """How many inputs of a batch are done, and how it goes."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
    return ProgressBar(*columns, stream=stream, terminal_width=terminal_width, total=input_count, color=color)
