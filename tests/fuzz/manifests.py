"""Manifests that somebody else wrote, then the same `attn batch` again: right results, nothing outside of the folder, no bug."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.batch.helpers import write_problems
from tests.fuzz.forks import load_everything
from tests.fuzz.harness import Outcome
from tests.fuzz.kills import run_to_end

NAMES = ("in/p00000.json", "p00000.json", "p00001.json", "../victim.json", "manifest.ndjson", "sub/p00000.json", "link/x.json", ".", "..", "", "/", "\0", "x" * 300)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**53, 2**63, 2**64, 10**400, 1e300, float("nan"), "", "a", "done", "failed", "skipped", [], {}, [1], {"a": 1},
    {"code": "x", "message": 1}, {"message": "\x1b[1m"}, [[[[]]]], "attn.batch/1", "0" * 64, "NaN",
)  # fmt: skip
LINES = (
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b'{"a":' * 3000, b'{"schema": "attn.batch/1"}', b'{"schema": "attn.batch/1", "seed": "x"}',
    b'{"schema": "attn.batch/2", "seed": 3}', b"\0" * 100, b'"' + b"x" * 5000, b"1" * 5000,
)  # fmt: skip
COMMANDS = (
    ("batch", "../in", "-o", "out"),
    ("batch", "../in", "-o", "out"),
    ("batch", "../in", "-o", "out", "--force"),
    ("batch", "../in", "-o", "out", "--retry-failed"),
    ("batch", "@out/failed.txt", "-o", "out"),
    ("batch", "../in", "-o", "out", "--dry-run"),
)


def draw_manifest(draw: random.Random, original: bytes) -> bytes:
    """Draw a manifest: the original with lines exchanged, fields changed, bytes damaged."""
    lines = original.splitlines()
    for _ in range(draw.choice((1, 1, 2, 4))):
        i = draw.randrange(len(lines) or 1)
        kind = draw.random()
        if kind < 0.15 or not lines:
            lines.insert(i, draw.choice(LINES))
        elif kind < 0.2:
            del lines[i]
        elif kind < 0.3:
            cut = draw.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:cut] + draw.choice((b"", draw.randbytes(2), lines[i][cut + 1 :]))
        else:
            lines[i] = change_field(draw, lines[i])
    return b"\n".join(lines) + draw.choice((b"\n", b"\n", b"", b"\r\n"))


def change_field(draw: random.Random, line: bytes) -> bytes:
    """Change, remove or double a field of a line."""
    try:
        fields = json.loads(line)
        key = draw.choice([*fields, "result", "error", "seed", "extra"])
    except (ValueError, TypeError, RecursionError):
        return line
    if not isinstance(fields, dict):
        return line
    kind = draw.random()
    if kind < 0.15:
        fields.pop(key, None)
    elif key in ("input", "result") and kind < 0.8:
        fields[key] = draw.choice(NAMES)
    else:
        fields[key] = draw.choice(ODD)
    text = json.dumps(fields)
    return (text[:-1] + ", " + text[1:] if kind > 0.97 else text).encode()


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield how the command ends with the manifests of some indices, and what is wrong with what it leaves."""
    load_everything()
    folder = Path(tempfile.mkdtemp(dir=folder))
    write_problems(folder / "in", 3)
    (folder / "whole").mkdir()
    status, errors = run_to_end(COMMANDS[0], folder / "whole")
    assert status == 0, errors
    results = {path.name: path.read_bytes() for path in (folder / "whole/out").glob("p*")}
    original = (folder / "whole/out/manifest.ndjson").read_bytes()
    place = folder / "place"
    for i in indices:
        draw = random.Random(f"{seed} {i}")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "whole", place)
        content = draw_manifest(draw, original)
        words = draw.choice(COMMANDS)
        (place / "out/manifest.ndjson").write_bytes(content)
        (place / "out/failed.txt").write_text(
            draw.choice(("", "../in/p00000.json\twhy\n", "nope\n", "../victim.json\n"))
        )
        for name in draw.choices((*results, "none"), k=2):
            (place / "out" / name).unlink(missing_ok=True)
        for name in ("victim.json", "elsewhere/x.json"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text("precious")
        (place / "out/link").symlink_to("../elsewhere")
        status, errors = run_to_end(words, place)
        outcome = Outcome(" ".join(words[3:]), f"status {status}" if status else "", content=content, suffix="ndjson")
        if fault := find_fault(status, errors, place, results, words):
            kind = "bug" if status not in (0, 1, 2, 3, 4) else "wrong"
            outcome = outcome._replace(fault_kind=kind, fault=f"{' '.join(words)}: {errors[-600:]!r}: {fault}")
        yield outcome


def find_fault(status: int, errors: str, place: Path, results: dict[str, bytes], words: tuple[str, ...]) -> str:
    """Say what is wrong with what a batch leaves; empty: nothing."""
    if status not in (0, 1, 2, 3, 4) or "Traceback" in errors or "error[bug]" in errors:
        return f"status {status}"
    for name in ("victim.json", "elsewhere/x.json"):
        if (place / name).read_text() != "precious":
            return f"{name} was written to"
    if unknown := {path.name for path in place.iterdir()} - {"out", "victim.json", "elsewhere"}:
        return f"{unknown} was made outside of the folder"
    if status == 0 and words in COMMANDS[:3]:
        for name, content in results.items():
            if not (place / "out" / name).exists():
                return f"{name} is missing"
            if (place / "out" / name).read_bytes() != content:
                return f"{name} is not what an undisturbed run writes"
    return ""
