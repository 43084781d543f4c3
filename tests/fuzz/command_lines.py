"""Random command lines: `python -m tests.fuzz --only command-lines`, or `fuzz`.

Options of every command with odd values, on broken and whole inputs, in odd environments, some with closed streams, in forks of
this process. None ends as a bug, hangs, needs much memory, shows a traceback or a library's warning, or writes anything to standard output and
then refuses.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.forks import load_everything, start
from tests.fuzz.harness import Outcome

MAX_SECONDS, MAX_BYTES = 30, 12 << 30
DIGITS = "1" * 5000
ODD_VALUES = (
    *("", " ", "-", "--", "-1", "0", "1", "2", "3", "1.5", "1e400", "-1e400", "nan", "inf", "²", "٣", "1_0", "0x1", "+1", DIGITS, f"-{DIGITS}"),
    *("x" * 300, "x" * 5000, "\udcff\udcfe", "\u202e", "\x1b[31m", "日本", "a\nb", "*", "[", "[a-", "{}", "%s", "~", "~nobody/x", "@", "@@", "@nope"),
    *("..", ".", "/", "//", "../..", "folder", "folder/", "nope/x.json", "loop.json", "dangling.json", "/dev/null", "/dev/full", "/dev/stdout"),
    *("/proc/self/fd/1", "/proc/version", "/proc/x.json", "/proc/self/mem", "s3://b/x.csv", "http://", "://", "file:///etc/passwd", "c:\\x"),
    *("true", "yes", "none", "auto", "all", "shown", "ones", "=", "a=", "=b", "a=b", "a:b=c", ":", ",", "and", "not", "(", ")))", "a" * 999 + "(" * 999),
)  # fmt: skip
INPUTS = (
    *("x.json", "x.csv", "x.tsv", "x.npz", "x.npy", "x.safetensors", "lines.ndjson", "batch.json", "qkv.json", "answered.json", "one.csv"),
    *("empty.json", "empty.csv", "cut.npz", "cut.safetensors", "cut.npy", "bad.json", "ragged.csv", "binary.csv", "nul.csv", "list.txt"),
    *("-", "folder", "x.json", "x.csv", "loop.json", "result.json", "x"),
)  # fmt: skip
AXES = ("batch", "head", "query", "key", "dim", "rank", "new_key", "nope", "")
WHICH = ("0", "-1", "1:2", ":", "5", "a", "b", "-", "0:", DIGITS, f"{DIGITS}:", "²", "1:2:3", "--1", "\udcff", "")
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {}, {}, {}, {"TERM": "dumb"}, {"COLUMNS": "0"}, {"COLUMNS": "abc"}, {"COLUMNS": "1000000000"}, {"COLUMNS": "²"}, {"COLUMNS": DIGITS},
    {"LINES": "-1", "COLUMNS": "-1"}, {"COLUMNS": "1"}, {"LANG": "C", "LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"HOME": "/nonexistent"},
    {"HOME": ""}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TMPDIR": "/nonexistent"}, {"TERMINAL_WIDTH": "abc"}, {"_ATTN_COMPLETE": "bash_complete"},
    {"_ATTN_COMPLETE": "x"}, {"PYTHONIOENCODING": "utf-16"}, {"FORCE_COLOR": "1", "COLUMNS": "7"},
)  # fmt: skip
STREAMS = (
    (1, 1, 1),
    (1, 1, 1),
    (1, 1, 1),
    (1, 1, 1),
    (0, 1, 1),
    (1, 0, 1),
    (1, 1, 0),
    (0, 0, 1),
    (0, 1, 0),
    (1, 0, 0),
    (0, 0, 0),
)
# What would leave this machine, start processes, or take its time by design.
SLOW_OPTIONS = {"--scheduler", "--install-completion", "--show-completion"}


def write_inputs(folder: Path) -> None:
    """Write whole and broken inputs of every format."""
    import numpy as np
    from safetensors.numpy import save_file

    def write(name: str, content: str | bytes) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    x = np.arange(12.0).reshape(3, 4) / 7
    problem: dict[str, Any] = {"tokens": ["a", "b", "-1"], "embeddings": x.tolist()}
    write("x.json", json.dumps(problem))
    write("x", json.dumps(problem))
    write("batch.json", json.dumps({"embeddings": [x.tolist(), (x + 1).tolist()], "variant": {"heads": 2}}))
    write(
        "qkv.json",
        json.dumps({"q": x[:2].tolist(), "k": x.tolist(), "v": x.tolist(), "past": {"k": x.tolist(), "v": x.tolist()}}),
    )
    write("answered.json", json.dumps(problem | {"expected": {"weights": [[1, 0, 0]] * 3}}))
    write("result.json", json.dumps({"schema": "attn.result/1", "weights": 3}))
    write("x.csv", "token,c,d\na,1,2\nb,3,4\n")
    write("one.csv", "a,1\n")
    write("x.tsv", "a\t1\t2\nb\t3\t4\n")
    np.savez(folder / "x.npz", embeddings=x, tokens=np.array(["a", "b", "c"]))
    np.save(folder / "x.npy", x)
    save_file({"embeddings": x}, folder / "x.safetensors")
    write("lines.ndjson", json.dumps(problem) + "\n{broken\n" + json.dumps({"variant": {"heads": 3}} | problem) + "\n")
    for name in ("x.npz", "x.safetensors", "x.npy"):
        write(f"cut{Path(name).suffix}", (folder / name).read_bytes()[:-40])
    write("empty.json", "")
    write("empty.csv", "")
    write("bad.json", '{"embeddings": [[1, "x"], [2]]')
    write("ragged.csv", "a,1,2\nb,3\n")
    write("binary.csv", bytes(range(256)))
    write("nul.csv", "a,1\n\0,2\n")
    write("list.txt", "x.json\nnope.json\n\n")
    (folder / "folder").mkdir()
    write("folder/y.json", json.dumps(problem | {"expected": {"weights": [[1, 0, 0]] * 3}}))
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "dangling.json").symlink_to("nowhere/x.json")


class CommandLines:
    """Draws command lines from what the program declares."""

    def __init__(self) -> None:
        import typer

        from attncli.catalogue import build_catalogue
        from attncli.cli.app import app
        from attncli.variant import CHOICES

        self.draw = random.Random(0)
        group: Any = typer.main.get_command(app)
        self.commands = {name: command.params for name, command in group.commands.items()}
        catalogue: Any = build_catalogue()
        self.names = [name for members in catalogue.values() for name in members]
        plural = {
            "mask": "masks",
            "score": "scores",
            "position": "positions",
            "normalizer": "normalizers",
            "qk_norm": "norms",
        }
        self.names_by_option = {
            f"--{choice.replace('_', '-')}": [*catalogue.get(plural.get(choice, choice + "s"), [])]
            for choice in CHOICES
        }
        self.names_by_option |= {"--variant": [*catalogue["variants"]], "--only": [*catalogue["steps"]]}

    def next(self) -> tuple[str, ...]:
        draw = self.draw
        if draw.random() < 0.03:
            return tuple(draw.choices(ODD_VALUES, k=draw.randrange(3)))
        command = draw.choice([*self.commands, "compute", "compute", "explain", "check", "batch"])
        words = [command]
        parameters = self.commands[command]
        arguments = [p for p in parameters if p.param_type_name == "argument"]
        options = [p for p in parameters if p.param_type_name == "option" and p.opts[0] not in SLOW_OPTIONS]
        for argument in arguments:
            if draw.random() < (0.95 if argument.required else 0.15):
                pool = (
                    INPUTS
                    if argument.name in ("input", "inputs") and draw.random() < 0.95
                    else (*ODD_VALUES, *self.names, *INPUTS)
                )
                words.append(draw.choice(pool))
        if command in ("batch", "compute", "explain") and draw.random() < 0.5:
            words += ["-o", draw.choice(("out", "r.json", "r.npz", "r.md", "-", draw.choice(ODD_VALUES)))]
        if command == "plot" and draw.random() < 0.9:
            words += ["-o", draw.choice(("r.png", "r.svg", "r.pdf"))]
        for option in draw.choices(options, k=draw.choice((0, 0, 1, 1, 1, 2, 3))):
            flag = draw.choice([*option.opts, *option.secondary_opts])
            words.append(flag)
            if not option.is_flag:
                words.append(self.value(option.opts[0], option))
        if "-j" not in words and "--jobs" not in words and draw.random() < 0.02:
            draw.shuffle(words)
        return tuple(words)

    def value(self, flag: str, option: Any) -> str:
        draw = self.draw
        kind = draw.random()
        if flag in ("--jobs", "-j"):
            return draw.choice(("1", "0", "-1", "²", DIGITS, "", "x"))
        if kind < 0.2:
            return draw.choice(ODD_VALUES)
        if flag == "--at":
            return f"{draw.choice(AXES)}={draw.choice(WHICH)}"
        if flag in ("--figures", "--grad", "--input-format", "--with"):
            field_name = draw.choice(("tokens", "parameters.w_q", "bias", "layout", "positions", "nope", "q"))
            return (
                f"{field_name}={draw.choice(INPUTS)}"
                if flag == "--with"
                else draw.choice((*INPUTS, "json", "csv", "npz"))
            )
        annotation = option.type_descriptor.annotation
        if typing.get_origin(annotation) is typing.Literal:
            return str(draw.choice(typing.get_args(annotation)))
        if names := self.names_by_option.get(flag):
            name = draw.choice(names)
            suffix = draw.choice(
                (
                    "",
                    "",
                    "",
                    ":",
                    ":x=1",
                    f":left={DIGITS}",
                    ":left=1,right=2",
                    ":dim=2",
                    f":dim={DIGITS}",
                    ":k=1",
                    ":rate=2",
                )
            )
            return name + suffix
        return draw.choice(("0", "1", "2", "3", "json", "table", "npz", *self.names))


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield how the command lines of some indices end, each given in a folder of its own below `folder`."""
    load_everything()
    inputs, place = folder / "inputs", folder / "place"
    if not inputs.exists():
        inputs.mkdir()
        write_inputs(inputs)
    lines = CommandLines()
    for i in indices:
        draw = lines.draw = random.Random(f"{seed} {i}")
        words = tuple(word.replace("\0", "") for word in lines.next())
        environment, open_streams = draw.choice(ENVIRONMENTS), draw.choice(STREAMS)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(inputs, place, symlinks=True)
        given = draw.choice((b"", b"a,1,2\n", b"[[1, 2]]", b"\xff"))
        status, out, err = run_one(words, place, environment, open_streams, given)
        made = Outcome(
            words[0] if words and words[0] in lines.commands else "other", f"status {status}" if status else ""
        )
        if fault := find_fault(words, status, out, err):
            said = f"{shown(words)} {environment} {open_streams}: {err[-1500:]!r}: {fault}"
            made = made._replace(
                fault_kind="hang" if fault == "it hangs" else "bug", fault=said, content=repr(words).encode()
            )
        yield made


def shown(words: tuple[str, ...]) -> str:
    return " ".join(repr(word if len(word) < 80 else f"{word[:20]}…{len(word)}") for word in words)


def run_one(
    words: tuple[str, ...], place: Path, environment: dict[str, str], open_streams: tuple[int, ...], given: bytes
) -> tuple[int, bytes, bytes]:
    """Run one command line, with limits of time and memory: (status, output, errors)."""

    def limit() -> None:
        signal.alarm(MAX_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        os.environ.update(environment)

    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        files = [
            stream.fileno() if is_open else None
            for stream, is_open in zip((stdin, stdout, stderr), open_streams, strict=True)
        ]
        pid = start(words, place, (files[0], files[1], files[2]), limit)
        _, status = os.waitpid(pid, 0)
        stdout.seek(0)
        stderr.seek(0)
        return os.waitstatus_to_exitcode(status), stdout.read(), stderr.read()


def find_fault(words: tuple[str, ...], status: int, out: bytes, err: bytes) -> str:
    """Say what is wrong with how a command line ended; empty: nothing."""
    if status == -signal.SIGALRM:
        return "it hangs"
    if status not in (0, 1, 2, 3, 4):
        return f"status {status}"
    if b"Traceback" in err and "--debug" not in words:
        return "a traceback"
    if b"Warning:" in err or b"Exception ignored" in err:
        return "a warning of a library"
    if status in (2, 3) and out and not any("ndjson" in word for word in words):
        return f"it refuses, and has written {out[:200]!r}"
    if status in (2, 3, 4) and b"[" not in err and "--error-format" not in words and "json" not in words and err:
        return "an error without a code"
    return ""
