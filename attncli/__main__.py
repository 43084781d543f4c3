"""The program: `attn`, and `python -m attncli`. Light, so that an interrupt while the rest loads is one too."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line, then leave at once, without tearing down what torch set up."""
    try:
        from attncli.cli import main

        status = main()
    except KeyboardInterrupt:
        status = 130
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = status or 141
    os._exit(status)


if __name__ == "__main__":
    run()
