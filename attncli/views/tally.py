"""How far a batch is, on standard error: a bar, the rate, what failed so far, and the time that is left."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Bar:
    """A bar that goes away when it is done. Standard output is left alone: what is printed there is data."""

    def __init__(self, total: int, color: bool) -> None:
        width = min(80, os.get_terminal_size(sys.stderr.fileno()).columns)
        console = Console(stderr=True, no_color=not color, width=width)
        self.total = total
        self.bar = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[says]}"),
            console=console, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=total, says="")
        self.bar.start()

    def show(self, seen: int, failed: int, rate: float) -> None:
        """How many are done, of which failed, and how many are computed in a second."""
        left = f"{rate:,.0f} files/s, {(self.total - seen) / rate:,.0f} s left" if rate else ""
        self.bar.update(self.task, completed=seen, says=f"{failed} failed, {left}" if failed else left)

    def close(self) -> None:
        """Take it away."""
        self.bar.stop()
