"""How far a long run is, on standard error: a bar, the rate, and the time that is left."""

from __future__ import annotations

import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn


class Bar:
    """A bar that goes away when it is done. Standard output is left alone: what is printed there is data."""

    def __init__(self, color: bool, started: float, rows: int) -> None:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # some terminals do not say
        console = Console(stderr=True, no_color=not color, width=min(80, columns))
        self.started, self.rows = started, rows
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"),
            console=console, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=1.0, left="")
        self.bar.start()

    def show(self, done: float, what: str) -> None:
        """What is being done, and how much of it is, 0 … 1."""
        taken = time.monotonic() - self.started
        rate = f"{done * self.rows / taken:,.0f} rows/s, " if self.rows else ""
        left = f"{rate}{taken * (1 - done) / done:.0f} s left" if done > 0 else ""
        self.bar.update(self.task, completed=done, description=what, left=left)

    def close(self) -> None:
        """Take it away."""
        self.bar.stop()
