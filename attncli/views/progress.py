"""How far a long run is, on standard error: a bar, the rate, and the time that is left."""

from __future__ import annotations

import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn


class ComputeProgressBar:
    """A bar that goes away when it is done. Standard output is left alone: what is printed there is data."""

    def __init__(self, color: bool, started_at: float, row_count: int) -> None:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # some terminals do not say
        console = Console(stderr=True, no_color=not color, width=min(80, columns))
        self.started_at, self.row_count = started_at, row_count
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"),
            console=console, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self.task = self.progress.add_task("", total=1.0, left="")
        self.progress.start()

    def update(self, fraction: float, activity: str) -> None:
        """What is being done, and how much of it is, 0 … 1."""
        taken = time.monotonic() - self.started_at
        rate = f"{fraction * self.row_count / taken:,.0f} rows/s, " if self.row_count else ""
        left = f"{rate}{taken * (1 - fraction) / fraction:.0f} s left" if fraction > 0 else ""
        self.progress.update(self.task, completed=fraction, description=activity, left=left)

    def close(self) -> None:
        """Take it away."""
        self.progress.stop()
