"""Commands that are ended at random moments: `python -m tests.fuzz --only kills`, or `fuzz`.

Commands run in forks of this process, which has everything loaded, and are ended by SIGKILL, SIGTERM, SIGHUP, SIGINT, SIGQUIT or a
reader that goes away. Then what they were to write is old, absent or whole; no hidden file is left (after SIGKILL, where the
file system has files without a name; every fourth is tried as if it had none); and a batch that is given again ends with the very bytes of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.batch.helpers import read_manifest, read_results, write_problems
from tests.fuzz.forks import load_everything, start
from tests.fuzz.harness import Outcome

SIGNALS = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE")}
OLD = b"what was there before\n"


@dataclass(frozen=True)
class Command:
    """A command line, given in a folder of its own, and what it writes."""

    words: tuple[str, ...]
    output: str  # a file, or the folder of a batch
    has_old: bool = False  # whether the file is there before
    is_batch: bool = False


COMMANDS = (
    Command(("compute", "../x.json", "-o", "r.json"), "r.json"),
    Command(("compute", "../x.json", "-o", "r.npz", "--only", "all"), "r.npz"),
    Command(("compute", "../x.json", "-o", "r.json", "--force", "--only", "all"), "r.json", has_old=True),
    Command(("compute", "../long.npz", "-o", "r.safetensors", "--only", "weights", "--schedule", "tiled"), "r.safetensors"),
    Command(("compute", "../lines.ndjson", "-o", "r.ndjson"), "r.ndjson"),
    Command(("compute", "../lines.ndjson"), ""),
    Command(("explain", "../x.json", "-o", "page.md"), "page.md"),
    Command(("explain", "../x.json", "-f", "latex", "-o", "page.tex", "--force"), "page.tex", has_old=True),
    Command(("check", "../x.json", "--figures", "../figures.json", "-o", "verdict.json"), "verdict.json"),
    Command(("check", "../x.json", "--figures", "../figures.json", "--junit", "verdict.xml"), "verdict.xml"),
    Command(("plot", "../x.json", "-o", "figure.svg"), "figure.svg"),
    Command(("compute", "../x.json", "-o", "page.html", "--force"), "page.html", has_old=True),
    Command(("batch", "../in", "-o", "out"), "out", is_batch=True),
    Command(("batch", "../in", "-o", "out", "-f", "npz", "--keep-suffix"), "out", is_batch=True),
    Command(("batch", "../in", "../lines.ndjson", "-o", "out", "--only", "weights"), "out", is_batch=True),
)  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Write what the commands read."""
    draws = np.random.default_rng(5)
    x = draws.normal(size=(30, 8)).round(3).tolist()
    (folder / "x.json").write_text(json.dumps({"embeddings": x}))
    (folder / "figures.json").write_text(json.dumps({"weights": (np.ones((30, 30)) / 30).tolist()}))
    np.savez(folder / "long.npz", **{name: draws.normal(size=(1200, 8)) for name in "qkv"})
    lines = [json.dumps({"embeddings": draws.normal(size=(3, 4)).round(3).tolist()}) for _ in range(60)]
    (folder / "lines.ndjson").write_text("\n".join(lines) + "\n")
    write_problems(folder / "in", 40)


class Undisturbed:
    """What each command writes, and how long it takes, if nothing ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[Command, float] = {}
        self.contents: dict[Command, object] = {}
        for i, command in enumerate(COMMANDS):
            place = folder / f"whole{i}"
            place.mkdir()
            began = time.monotonic()
            status, errors = run_to_end(command.words, place)
            assert status in (0, 1), (command, status, errors)
            self.seconds[command] = time.monotonic() - began
            self.contents[command] = content_of(command, place)


def content_of(command: Command, place: Path) -> object:
    if command.is_batch:
        receipts = {result: receipt for result, receipt in read_manifest(place / command.output).items() if result}
        return read_results(place / command.output), receipts  # without the header, whose seed is drawn
    path = place / command.output
    return path.read_bytes() if command.output and path.exists() else None


def run_to_end(words: tuple[str, ...], place: Path, kill: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
    """Run a command, and end it if `kill` does: (exit status, or minus the signal; what standard error says)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as given:
        pid = start(words, place, (given.fileno(), out.fileno(), err.fileno()))
        kill(pid)
        _, status = os.waitpid(pid, 0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), err.read().decode(errors="replace")


def run_to_closed_pipe(words: tuple[str, ...], place: Path, seconds: float) -> tuple[int, str]:
    """Run a command whose output somebody reads for a while, and then no longer."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as err, Path(os.devnull).open() as given:
        pid = start(words, place, (given.fileno(), writer, err.fileno()))
        os.close(writer)
        time.sleep(seconds)
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), err.read().decode(errors="replace")


def hidden_files(place: Path) -> list[str]:
    return [str(path.relative_to(place)) for path in place.rglob(".*")]


def has_nameless_files(folder: Path) -> bool:
    """Whether the file system has files without a name, so that SIGKILL leaves nothing either."""
    flag = getattr(os, "O_TMPFILE", 0)
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDWR | flag))
        return bool(flag)
    return False


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield what the kills of some indices leave in `folder`."""
    load_everything()
    folder = Path(tempfile.mkdtemp(dir=folder))
    write_inputs(folder)
    undisturbed = Undisturbed(folder)
    nameless_flag = getattr(os, "O_TMPFILE", 0)
    can_be_nameless = has_nameless_files(folder)
    for i in indices:
        draw = random.Random(f"{seed} {i}")
        is_nameless = can_be_nameless and i % 8 < 6
        os.O_TMPFILE = nameless_flag if is_nameless else 0  # type: ignore[misc]  # which the fork inherits
        command, name = draw.choice(COMMANDS), draw.choice([*SIGNALS])
        if not command.output and draw.random() < 0.7:
            name = "SIGPIPE"  # it writes to standard output
        moment = draw.uniform(0, 1.1) * undisturbed.seconds[command]
        place = folder / f"kill{i}"
        place.mkdir()
        if command.has_old:
            (place / command.output).write_bytes(OLD)

        def kill(pid: int, number: int = SIGNALS[name], moment: float = moment) -> None:
            time.sleep(moment)
            os.kill(pid, number)

        if name == "SIGPIPE":
            status, errors = run_to_closed_pipe(command.words, place, moment)
        else:
            status, errors = run_to_end(command.words, place, kill)
        faults = find_faults(command, name, status, errors, place, undisturbed, is_nameless)
        said = f"{' '.join(command.words)}, {name} after {moment:.3f} s, status {status}: {'; '.join(faults)}"
        shutil.rmtree(place)
        made = Outcome(name, "" if status in (0, 1) else "ended")
        yield made._replace(fault_kind="wrong", fault=said) if faults else made


def find_faults(
    command: Command, name: str, status: int, errors: str, place: Path, undisturbed: Undisturbed, leaves_nothing: bool
) -> list[str]:
    """Say what is wrong after a kill; a batch is given again here."""
    faults = []
    number = SIGNALS[name]
    # minus the signal: it came before the command could handle it, or is SIGKILL
    if status not in (0, 1, 128 + number, -number):
        faults.append("the status is neither that of success nor the signal's")
    if "Traceback" in errors or "error[" in errors:
        faults.append(f"it says {errors!r}")
    if (name != "SIGKILL" or leaves_nothing) and (hidden := hidden_files(place)):
        faults.append(f"it leaves {hidden}")
    if command.is_batch:
        again, errors = run_to_end(command.words, place)
        if again != 0:
            faults.append(f"the same command again ends with {again}: {errors}")
        if hidden := hidden_files(place):
            faults.append(f"the same command again leaves {hidden}")
        if content_of(command, place) != undisturbed.contents[command]:
            faults.append("the same command again does not end with what an undisturbed run leaves")
        return faults
    allowed = [undisturbed.contents[command], OLD if command.has_old else None]
    if content_of(command, place) not in allowed:
        faults.append("the output is neither whole nor as before")
    if strangers := [path.name for path in place.iterdir() if path.name not in (command.output, *hidden_files(place))]:
        faults.append(f"it leaves {strangers}")
    return faults
