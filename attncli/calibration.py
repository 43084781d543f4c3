"""The calibration of this machine, which is measured once and kept in the user's cache folder. Entry: `Calibrations`.

The folder is `$XDG_CACHE_HOME/attn`, `~/.cache/attn`, on macOS `~/Library/Caches/attn`, on Windows `%LOCALAPPDATA%\\attn\\Cache`;
nothing is read from the working folder. What does not parse there is measured again.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from attncli import __version__
from attncli.atomic_file import atomic_write_bytes
from attncli.errors import CannotError
from attncli.pipeline import engine_is_loaded
from attncli.plan.estimate import TYPICAL_CALIBRATION, Calibration

_MAX_FILE_BYTES = 2**12
_MAX_SECONDS = 3600.0  # of one thing that is measured


@dataclass(frozen=True)
class Calibrations:
    """Where the calibration of this machine is kept: it differs with the machine, the threads and the versions."""

    variables: Mapping[str, str]  # of the environment

    @cached_property
    def path(self) -> Path | None:
        """The file; None where the user has no cache folder."""
        folder = find_cache_folder(self.variables)
        described = json.dumps(self._conditions).encode()
        return None if folder is None else folder / f"calibration-{sha256(described).hexdigest()[:16]}.json"

    @property
    def _conditions(self) -> list[object]:
        """What the measured seconds depend on."""
        threads = [self.variables.get(name, "") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
        machine = [*os.uname()] if hasattr(os, "uname") else [self.variables.get("COMPUTERNAME", "")]
        return [__version__, sys.version, *machine, count_cores(), *threads]

    def read(self) -> Calibration | None:
        """Return what was measured before; None where nothing was, or what is there is damaged."""
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file:
                content = json.loads(file.read(_MAX_FILE_BYTES))
            names = [item.name for item in fields(Calibration)]
            values = [float(content[name]) for name in names]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        if not all(math.isfinite(value) and 0 < value < _MAX_SECONDS for value in values):
            return None
        return Calibration(*values)

    def measure(self, load: Callable[[], object]) -> Calibration:
        """Load torch by a function, measure for a fifth of a second, and keep what was measured.

        Raises:
            CannotError: torch does not load.
        """
        was_loaded = engine_is_loaded()
        started = time.perf_counter()
        load()
        load_seconds = TYPICAL_CALIBRATION.load if was_loaded else time.perf_counter() - started
        from attncli.core.calibration import measure_calibration

        measured = measure_calibration(load_seconds)
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_bytes(self.path, json.dumps(asdict(measured)).encode() + b"\n", durable=False)
            except (OSError, CannotError):  # then it is measured again
                pass
        return measured


def find_cache_folder(variables: Mapping[str, str]) -> Path | None:
    """Return the folder of the user in which files may be lost; None where there is none. No relative path is heeded."""
    home = variables.get("HOME", "") or variables.get("USERPROFILE", "")
    candidates = [(variables.get("XDG_CACHE_HOME", ""), "attn")]
    if sys.platform == "win32":
        candidates.append((variables.get("LOCALAPPDATA", ""), "attn/Cache"))
    else:
        candidates.append((home, "Library/Caches/attn" if sys.platform == "darwin" else ".cache/attn"))
    return next((Path(folder, name) for folder, name in candidates if os.path.isabs(folder)), None)  # noqa: PTH117


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
