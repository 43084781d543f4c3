"""Command lines in forks of this process, once it has loaded everything: `load_everything`, then `start`."""

from __future__ import annotations

import os
import posix
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def load_everything() -> None:
    """Import what the commands import, so that forks have it."""
    import tests.everything  # noqa: F401


def start(
    words: tuple[str, ...],
    folder: Path,
    streams: tuple[int | None, int | None, int | None],
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """Start a command in a fork, and return its process id.

    Args:
        words: what stands behind `attn`.
        folder: where it is given.
        streams: file descriptors of standard input, output and error; None: it is closed.
        prepare: what the fork does first, such as to limit its memory.
    """
    pid = os.fork()
    if pid == 0:
        _become(words, folder, streams, prepare)
    return pid


def _become(
    words: tuple[str, ...], folder: Path, streams: tuple[int | None, ...], prepare: Callable[[], object]
) -> NoReturn:
    """Be `attn` in this process, which is a fork; whatever happens, it ends here."""
    os._exit = posix._exit  # what counts lines may have replaced it, and a signal may come while it writes its counts
    try:
        os.chdir(folder)
        for number, stream in enumerate(streams):
            if stream is None:
                os.close(number)
            else:
                os.dup2(stream, number)
        os.closerange(3, 256)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python begins
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        prepare()
        encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
        opened = [
            None if stream is None else (number, mode)
            for number, stream, mode in zip(range(3), streams, "rww", strict=True)
        ]
        sys.stdin, sys.stdout, sys.stderr = (
            item and open(item[0], item[1], encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
            for item, errors in zip(opened, ("surrogateescape", "strict", "backslashreplace"), strict=True)
        )
        sys.argv = ["attn", *words]
        from attncli.__main__ import run

        run()
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        os._exit(99)
