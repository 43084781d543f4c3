"""How far a batch is, on standard error: a bar, the rate, what failed so far, and the time that is left."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class BatchProgressBar:
    """A bar that goes away when it is done. Standard output is left alone: what is printed there is data."""

    def __init__(self, total: int, color: bool) -> None:
        width = min(80, os.get_terminal_size(sys.stderr.fileno()).columns)
        console = Console(stderr=True, no_color=not color, width=width)
        self.progress = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"),
            console=console, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self.task = self.progress.add_task("", total=total, status="")
        self.progress.start()

    def update(self, finished: float, status: str) -> None:
        """How many are done, and how it goes."""
        self.progress.update(self.task, completed=finished, status=status)

    def close(self) -> None:
        """Take it away."""
        self.progress.stop()
