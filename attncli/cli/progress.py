"""Signs of life on a terminal: a line while torch loads, a progress bar while something long is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from attncli.cli.messages import Messages
from attncli.pipeline import RunPlan, engine_is_loaded, load_engine
from attncli.request import OutputOptions

if TYPE_CHECKING:
    from attncli.views.progress import ProgressBar

SECONDS_WITHOUT_BAR = 1.0  # what takes no longer shows no bar
_ERASE_LINE = "\x1b[2K"


class ReportProgress(Protocol):
    """Moves a bar: the share of the work that is done, 0 … 1, and what is being done."""

    def __call__(self, fraction: float, activity: str = ..., /) -> None: ...


def load_engine_with_message(messages: Messages) -> RunPlan:
    """Load the computation, and with it torch; on a terminal a line says so meanwhile.

    Raises:
        CannotError: torch does not load.
    """
    stderr = messages.environment.stderr
    has_message = not engine_is_loaded() and messages.environment.stderr_is_terminal and not messages.quiet
    if has_message:
        print("loading torch…", end="\r", file=stderr, flush=True)
    try:
        return load_engine()
    finally:
        if has_message:
            print(_ERASE_LINE, end="\r", file=stderr, flush=True)


def has_progress(messages: Messages, output_options: OutputOptions) -> bool:
    """Whether the options let progress be shown at all."""
    return not messages.quiet and output_options.progress and messages.error_format == "full"


@contextmanager
def show_progress(
    output_options: OutputOptions,
    messages: Messages,
    row_count: int = 0,
    expect_seconds: Callable[[], float] = lambda: 0.0,
) -> Iterator[ReportProgress | None]:
    """Show a bar on a terminal while the block runs; it yields the function that moves it, or None where none is shown.

    Args:
        output_options: `--no-progress`.
        messages: `--quiet`, and the terminal.
        row_count: rows that will be computed, for the rate; 0: no rate is shown.
        expect_seconds: asked once, where a bar is shown: how long it is expected to take; 0: nobody knows.
    """
    environment = messages.environment
    if not has_progress(messages, output_options) or not environment.stderr_is_terminal:
        yield None
        return
    started_at = time.monotonic()
    bar: ProgressBar | None = None

    def report_progress(fraction: float, activity: str = "attending") -> None:
        nonlocal bar
        if bar is None and time.monotonic() - started_at > SECONDS_WITHOUT_BAR and fraction < 1:
            from attncli.views.progress import open_compute_progress

            bar = open_compute_progress(
                environment.stderr,
                environment.stderr_columns,
                row_count,
                started_at=started_at,
                expected_seconds=expect_seconds(),
                color=messages.color,
            )
        if bar is not None:
            bar.update(fraction, activity)

    try:
        yield report_progress
    finally:
        if bar is not None:
            bar.close()
