"""Files of figures with bytes, numbers, keys and lines changed at random: each ends in a verdict or in an error of the input.

`python -m tests.fuzz --only figures` is the long form.
"""

from __future__ import annotations

import io
import json
import traceback
import warnings
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import attncli
from attncli.atomic_file import to_bytes
from attncli.check import check_prepared, prepare
from attncli.check.figure_files import read_figures
from attncli.errors import AttnError
from attncli.output_formats import RenderOptions, load_output_format
from attncli.validation import validate
from attncli.views.verdicts.formats import VERDICT_VIEWS
from tests.fuzz.harness import Outcome

PROBLEMS = (
    ({"embeddings": [[1.0, 0.5], [0.25, 1.0], [0.5, 0.5]], "tokens": ["the", "cat", "the"]}, {}),
    ({"embeddings": [[1.0, 0.5], [0.25, 1.0]], "tokens": ["the", "cat"]}, {"mask": "causal"}),
    ({"embeddings": [[1.0, 0.5], [0.25, 1.0], [0.5, 0.5]]}, {"heads": "2"}),
    ({"embeddings": [[[1.0, 0.5], [0.25, 1.0]], [[0.5, 0.5], [0.0, 1.0]]]}, {}),
)
VERDICTS = ("right", "wrong", "too-loose", "unanswered")
ODD_NUMBERS = (
    "nan", "NaN", "inf", "-Infinity", "∞", "−1", "1e999", "1e-999", "1e-99999999999999999999", "1e99999999999999999999",
    "0e5", "-0.0", "9007199254740993", "-9223372036854775808", "1" * 400, "1" * 5000, "0.5", "2.9", "true", "null", '""', "٣", "²",
    "1_0", "0x1", ".5", "5.", "1,5", "", "[]", "{}", '"NaN"', "[[1]]", "1e300", "0." + "3" * 400,
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, 1, -1, 2.9, 1e300, 10**30, "", "text", "NaN", [], [[]], {}, [1], ["a"], [[1, 2], [3]], {"a": 1}, [[["a"]]],
    "attn.result/1", "float64", ["query", "key"], {"query": [10**6]}, {"query": "x"}, {"weights": []},
)  # fmt: skip
ODD_TEXTS = (
    "\r",
    "\n\n",
    '"',
    ",",
    ";",
    "\t",
    "\0",
    "⟨1⟩",
    "<2>",
    "[0:99]",
    "step",
    "value",
    "token",
    "__",
    "*" * 300,
    "\ud800",
)


@cache
def originals() -> dict[str, tuple[int, bytes]]:
    """Make a right file of each kind: name → which problem, content."""
    made: dict[str, tuple[int, bytes]] = {}
    for i, (fields, choices) in enumerate(PROBLEMS):
        result = attncli.attend(attncli.Problem(**fields), attncli.Variant(**choices), ["all"], top=2)
        for suffix in ("json", "npz", "safetensors", "csv", "ndjson"):
            made[f"{i}.result.{suffix}"] = (i, to_bytes(load_output_format(suffix).write(result, RenderOptions())))
        steps = {step.name: np.asarray(step.values) for step in result.steps}
        plain = {name: steps[name].tolist() for name in ("weights", "context", "visible_keys", "top_keys")}
        made[f"{i}.steps.json"] = (i, json.dumps(plain).encode())
        made[f"{i}.rows.json"] = (i, json.dumps({"context": {"values": [plain["context"][0]], "rows": [0]}}).encode())
        file = io.BytesIO()
        np.savez(file, **{name: steps[name] for name in plain})
        made[f"{i}.arrays.npz"] = (i, file.getvalue())
        file = io.BytesIO()
        np.save(file, steps["weights"])
        made[f"{i}.weights.npy"] = (i, file.getvalue())
        matrix = np.round(steps["weights"].reshape(-1, steps["weights"].shape[-1]), 4)
        rows = [[str(token), *map(str, row)] for token, row in zip("abcdefgh", matrix, strict=False)]
        header = ["token", *(str(token) for token in range(matrix.shape[1]))]
        made[f"{i}.matrix.csv"] = (i, "\n".join(",".join(row) for row in [header, *rows]).encode())
        sheet = "a ⟨1⟩0.5 b\n⟨2⟩ 1.25\n⟨3⟩____\n\n⟨1⟩ to ⟨2⟩: weights[1][0:2]\n⟨3⟩: context[0][1]\n"
        made[f"{i}.sheet.md"] = (i, sheet.encode())
    return made


def draw_mutant(random: np.random.Generator) -> tuple[str, int, bytes]:
    """Draw a changed file: the name of the original, its problem, the content."""
    names = list(originals())
    name = str(random.choice(names))
    problem, content = originals()[name]
    for _ in range(int(random.choice((1, 1, 1, 2, 3)))):
        mutate = [mutate_bytes, mutate_text, mutate_json, mutate_member][int(random.integers(4))]
        content = mutate(random, name, content)
    return name, int(random.integers(len(PROBLEMS))) if random.random() < 0.1 else problem, content


def mutate_bytes(random: np.random.Generator, name: str, content: bytes) -> bytes:
    """Cut, double, exchange or change some bytes."""
    if not content:
        return content
    i, j = sorted(int(i) for i in random.integers(0, len(content) + 1, 2))
    choice = int(random.integers(5))
    if choice == 0:
        return content[:i] + content[j:]
    if choice == 1:
        return content[:j] + content[i:]
    if choice == 2:
        return content[:j]
    changed = bytearray(content)
    for position in random.integers(0, len(content), 1 + int(random.integers(4))):
        changed[position] = (
            int(random.integers(256)) if choice == 3 else changed[position] ^ 1 << int(random.integers(8))
        )
    return bytes(changed)


def mutate_text(random: np.random.Generator, name: str, content: bytes) -> bytes:
    """Put an odd number in the place of a number, or an odd text anywhere."""
    if name.endswith(("npz", "npy", "safetensors")):
        return mutate_bytes(random, name, content)
    import re

    text = content.decode("utf-8", "replace")
    numbers = list(re.finditer(r"-?\d+(\.\d+)?(e-?\d+)?", text))
    if numbers and random.random() < 0.7:
        match = numbers[int(random.integers(len(numbers)))]
        text = text[: match.start()] + str(random.choice(ODD_NUMBERS)) + text[match.end() :]
    else:
        i = int(random.integers(len(text) + 1))
        text = text[:i] + str(random.choice(ODD_TEXTS)) + text[i + int(random.integers(3)) :]
    return text.encode("utf-8", "surrogatepass")


def mutate_json(random: np.random.Generator, name: str, content: bytes) -> bytes:
    """Take out a field of an object, rename it, double it, or give it another value; at any depth."""
    if not name.endswith("json"):
        return mutate_text(random, name, content)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            places.append((value, key))
            if len(places) < 2000:
                collect(inner)

    collect(document)
    if not places:
        return content
    named = [place for place in places if isinstance(place[0], dict)]
    candidates = named if named and random.random() < 0.7 else places
    within, key = candidates[int(random.integers(len(candidates)))]
    choice = random.random()
    if choice < 0.3:
        del within[key]
    elif choice < 0.4 and isinstance(within, dict):
        within[f"{key}x"] = within.pop(key)
    else:
        within[key] = ODD_VALUES[int(random.integers(len(ODD_VALUES)))]
    text = json.dumps(document)
    if choice > 0.95 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]  # every key twice
    return text.encode()


def mutate_member(random: np.random.Generator, name: str, content: bytes) -> bytes:
    """Put an odd array in the place of one in an archive."""
    if not name.endswith("npz"):
        return mutate_bytes(random, name, content)
    arrays = [
        np.array("text"), np.array(["a", "b"]), np.array([1 + 2j]), np.array(1.5), np.zeros((0, 2)), np.zeros((1,) * 12),
        np.array([[1e300, np.nan], [0, 1]]), np.array([2**63], np.uint64), np.array([[True, False]]), np.array([b"x"]),
        np.array([1.0], [("a", float)]), np.array(["2020-01-01"], "M8[D]"), np.array([[0.1, 0.9]], np.float16),
    ]  # fmt: skip
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:
        return content
    if not members:
        return content
    file = io.BytesIO()
    np.save(file, arrays[int(random.integers(len(arrays)))])
    member = str(random.choice(sorted(members)))
    members[member] = file.getvalue()
    if random.random() < 0.2:
        members[f"{random.choice(('weights', 'dtype', 'axes', 'schema', 'tokens', 'weights.x'))}.npy"] = file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", int(random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as archive:
        for filename, data in members.items():
            archive.writestr(filename, data)
    return file.getvalue()


def outcome(folder: Path, name: str, problem: int, content: bytes) -> str:
    """Return the verdict on a file, or the code of its error; a warning of a library is an exception, too.

    Raises:
        Exception: anything that is no error of the input.
    """
    path = folder / f"figures.{name.rpartition('.')[2]}"
    path.write_bytes(content)
    fields, choices = PROBLEMS[problem]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            figures = read_figures(str(path))
            step = "weights" if any(figure.step is None for figure in figures.steps) else None
            task = prepare(validate(attncli.Problem(**fields)), attncli.Variant(**choices), figures, step=step)
            verdict = check_prepared(task, identify=False)
        except AttnError as error:
            return error.code
        for view in VERDICT_VIEWS.values():
            view(verdict, RenderOptions())
        return verdict.verdict


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield what becomes of the files of some indices."""
    for i in indices:
        name, problem, content = draw_mutant(np.random.default_rng([seed, i]))
        made = Outcome(name.partition(".")[2], content=content, suffix=name.rpartition(".")[2])
        try:
            ended = outcome(folder, name, problem, content)
        except Exception:
            yield made._replace(fault_kind="bug", fault=f"problem {problem}: {traceback.format_exc()}")
        else:
            yield made if ended in VERDICTS else made._replace(code=ended)
