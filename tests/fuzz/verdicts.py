"""Right figures and wrong ones, drawn by a seed, in every kind of file: a verdict is right where they are, and only there.

`python -m tests.fuzz --only verdicts` is the long form.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

import attncli
from attncli.check import check_prepared, prepare
from attncli.check.figure_files import read_figures
from attncli.errors import AttnError
from attncli.output_formats import RenderOptions
from attncli.validation import validate
from attncli.writers.json import write_json
from attncli.writers.npz import write_npz
from attncli.writers.safetensors import write_safetensors
from tests.fuzz.harness import Outcome

WORDS = ("the", "cat", " sat", "The", "2", "a,b", '"', "mat", "nan", "d0", "é")
KINDS = ("result.json", "result.npz", "result.safetensors", "arrays.npz", "steps.json", "matrix.csv", "tidy.csv", "sheet.md")  # fmt: skip
NUMBERED_STEPS = ("scores", "weights", "context")


class Figure(NamedTuple):
    """A figure as it is written, and what it is."""

    text: str
    value: float


@dataclass(frozen=True)
class Trial:
    """One file of figures and what its verdict has to be."""

    kind: str
    change: str  # "": the figures are right
    problem: attncli.Problem
    choices: dict[str, str]
    step: str
    content: bytes
    wanted: str  # right, not right, not wrong, or refused

    def describe(self) -> str:
        return f"{self.kind} {self.step} {self.change or 'unchanged'} {self.choices} {self.problem.tokens}\n{self.content[:2000]!r}"


def outcome(trial: Trial, folder: Path) -> str:
    """Return the verdict on a trial, or `refused`."""
    path = folder / f"figures.{trial.kind.rpartition('.')[2]}"
    path.write_bytes(trial.content)
    try:
        figures = read_figures(str(path))
        step = trial.step if trial.kind == "matrix.csv" else None
        task = prepare(validate(trial.problem), attncli.Variant(**trial.choices), figures, step=step)
        return check_prepared(task, identify=False).verdict
    except AttnError as error:
        return f"refused: {error.code}"


def is_as_wanted(trial: Trial, verdict: str) -> bool:
    """Whether a verdict is no fault: right figures may be too coarse to tell, wrong ones may be refused."""
    if trial.wanted == "right":
        return verdict in ("right", "too-loose")
    if trial.wanted == "not wrong":
        return verdict != "wrong"
    if trial.wanted == "refused":
        return verdict.startswith("refused")
    return verdict != "right"


def draw_trial(seed: int, index: int) -> Trial:
    """Draw the trial of an index."""
    random = np.random.default_rng([seed, index])
    while (trial := _draw_trial(random)) is None:
        pass
    return trial


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield what the verdicts of some trials are."""
    for i in indices:
        trial = draw_trial(seed, i)
        verdict = outcome(trial, folder)
        kind = f"{trial.kind}, {trial.change or 'unchanged'}"
        made = Outcome(kind, content=trial.content, suffix=trial.kind.rpartition(".")[2])
        if not is_as_wanted(trial, verdict):
            yield made._replace(fault_kind="wrong", fault=f"{verdict}, wanted {trial.wanted}: {trial.describe()}")
        else:
            refused, _, code = verdict.partition(": ")
            yield made._replace(code=code if refused == "refused" else "")


def _draw_trial(random: np.random.Generator) -> Trial | None:
    n, d = int(random.integers(2, 6)), int(random.integers(2, 5))
    tokens = tuple(str(word) for word in random.choice(WORDS, n, replace=bool(random.random() < 0.2)))
    embeddings = random.normal(size=(n, d)).round(int(random.integers(1, 4)))
    problem = attncli.Problem(embeddings=embeddings, tokens=tokens if random.random() < 0.9 else None)
    choices = {"mask": "causal"} if random.random() < 0.3 else {}
    result = attncli.attend(problem, attncli.Variant(**choices))
    kind, step = str(random.choice(KINDS)), str(random.choice(NUMBERED_STEPS))
    values = np.asarray(result[step].values, np.float64)
    if kind.startswith(("result", "arrays")):
        return _draw_array_trial(random, problem, choices, result, kind, step, values)
    decimals = int(random.choice((2, 3, 4, 6, 17)))
    write: Callable[[float], str] = random.choice((_write_rounded(decimals), _write_cut_off(decimals)))
    figures = [[Figure(write(x), float(x)) for x in row] for row in values.tolist()]
    change = str(random.choice(("", "", "one", "several", "rows swapped", "columns swapped", "twice", "unknown")))
    # up to 9 digits may be a float32's, which may be off by 1e-5 of the value and of the largest
    unit = max(10.0**-decimals, (2e-5 if decimals < 17 else 1e-6) * float(np.abs(values).max()))
    if change in ("one", "several"):
        cells = [(i, j) for i in range(n) for j in range(values.shape[1])]
        for i, j in random.permutation(cells)[: 1 if change == "one" else 3]:
            off = values[i, j] + (3 + 5 * random.random()) * unit * int(random.choice((-1, 1)))
            figures[i][j] = Figure(write(float(off)), float(off))
        return _write_trial(random, problem, choices, kind, step, figures, change, "not right")
    if change in ("rows swapped", "columns swapped"):
        matrix = values if change == "rows swapped" else values.T
        i, j = random.choice(len(matrix), 2, replace=False)
        if np.abs(matrix[i] - matrix[j]).max() <= 4 * unit:
            return None
        return _write_trial(
            random, problem, choices, kind, step, figures, change, "not right", swapped=(int(i), int(j))
        )
    wanted = "refused" if change in ("twice", "unknown") else "right"
    return _write_trial(random, problem, choices, kind, step, figures, change, wanted)


def _write_rounded(decimals: int) -> Callable[[float], str]:
    return repr if decimals == 17 else lambda x: f"{x:.{decimals}f}"


def _write_cut_off(decimals: int) -> Callable[[float], str]:
    if decimals == 17:
        return repr
    return lambda x: f"{Decimal(repr(x)).quantize(Decimal(1).scaleb(-decimals), ROUND_DOWN):f}"


def _draw_array_trial(random, problem, choices, result, kind: str, step: str, values: np.ndarray) -> Trial | None:
    """Draw a binary file, or a result: unchanged, with a changed figure, or with two rows exchanged."""
    import dataclasses

    change = str(random.choice(("", "", "one", "rows swapped", "tokens swapped")))
    changed = values.copy()
    scale = float(np.abs(values).max())
    if change == "one":
        i, j = (int(random.integers(length)) for length in values.shape)
        changed[i, j] += scale * 10.0 ** random.uniform(-4, 0) * random.choice((-1, 1))
    i, j = (int(i) for i in random.choice(len(values), 2, replace=False))
    if change.endswith("swapped"):
        if np.abs(values[i] - values[j]).max() <= 1e-4 * scale:
            return None
        if change == "rows swapped":
            changed[[i, j]] = changed[[j, i]]
    new_step = dataclasses.replace(result[step], values=changed)
    written = dataclasses.replace(result, steps=(new_step,))
    if change == "tokens swapped":
        tokens = list(result.tokens)
        if kind == "arrays.npz" or problem.tokens is None or tokens[i].strip() == tokens[j].strip():
            return None
        tokens[i], tokens[j] = tokens[j], tokens[i]
        written = dataclasses.replace(written, tokens=tuple(tokens))
    if kind == "result.json":
        content = write_json(written, RenderOptions()).encode()
    elif kind == "result.npz":
        content = write_npz(written, RenderOptions())
    elif kind == "result.safetensors":
        content = b"".join(write_safetensors(written, RenderOptions()))
    else:
        file = io.BytesIO()
        np.savez(file, **{step: changed.astype(np.float32) if random.random() < 0.3 else changed})
        content = file.getvalue()
    return Trial(kind, change, problem, choices, step, content, "not right" if change else "right")


@dataclass(frozen=True)
class _Table:
    """Figures as texts, and what becomes of them as they are written."""

    step: str
    tokens: list[str]
    texts: list[list[str]]
    change: str
    swapped: tuple[int, int] | None  # rows or columns that stand under each other's names

    @property
    def cells(self) -> list[tuple[int, int, str]]:
        cells = [(i, j, text) for i, row in enumerate(self.texts) for j, text in enumerate(row)]
        return [(*_exchange(i, j, self.swapped, self.change), text) for i, j, text in cells] if self.swapped else cells


def _write_trial(
    random: np.random.Generator,
    problem: attncli.Problem,
    choices: dict[str, str],
    kind: str,
    step: str,
    figures: list[list[Figure]],
    change: str,
    wanted: str,
    swapped: tuple[int, int] | None = None,
) -> Trial | None:
    """Write figures as text; with `swapped`, two rows or columns stand under each other's names."""
    texts = [[figure.text for figure in row] for row in figures]
    table = _Table(step, [str(token) for token in problem.tokens or range(len(figures))], texts, change, swapped)
    if kind == "matrix.csv":
        content, wanted = _write_matrix(random, table, wanted)
    elif kind == "tidy.csv":
        content = _write_tidy(random, table)
    elif kind == "steps.json":
        content = _write_steps(table)
    else:
        content = _write_sheet(table)
    return Trial(kind, change, problem, choices, step, content, wanted) if content else None


def _write_matrix(random: np.random.Generator, table: _Table, wanted: str) -> tuple[bytes, str]:
    """Write a labelled matrix, and say what its verdict has to be; nothing where two labels are the same."""
    n, width, texts = len(table.texts), len(table.texts[0]), table.texts
    rows = list(table.tokens)
    names = [f"d{j}" for j in range(width)] if table.step == "context" else list(table.tokens)
    if table.swapped:
        labels = rows if table.change == "rows swapped" else names
        i, j = table.swapped
        if labels[i].strip() == labels[j].strip():
            return b"", wanted
        labels[i], labels[j] = labels[j], labels[i]
    elif not table.change and len({name.strip() for name in rows}) == n and random.random() < 0.7:
        order, column_order = random.permutation(n), random.permutation(width)
        rows, names = [rows[i] for i in order], [names[j] for j in column_order]
        texts = [[texts[i][j] for j in column_order] for i in order]
        if {*rows} & {*map(str, range(n + 1))}:  # tokens that may as well be numbers
            wanted = "not wrong"
    elif table.change == "twice":
        rows, texts = [*rows, rows[0]], [*texts, texts[0]]
    elif table.change == "unknown":
        rows[int(random.integers(n))] = "foo"
    return _csv([["token", *names], *([label, *row] for label, row in zip(rows, texts, strict=True))]), wanted


def _write_tidy(random: np.random.Generator, table: _Table) -> bytes:
    axis = "column" if table.change == "unknown" else "dim" if table.step == "context" else "key"
    cells = [*table.cells, *(table.cells[:1] if table.change == "twice" else [])]
    rows = [[table.step, *cells[i]] for i in random.permutation(len(cells))]
    return _csv([["step", "query", axis, "value"], *rows])


def _write_steps(table: _Table) -> bytes:
    texts = [list(row) for row in table.texts]
    for i, j, text in table.cells:
        texts[i][j] = text
    entry = f'"{table.step}": [{", ".join("[" + ", ".join(map(_json_number, row)) + "]" for row in texts)}]'
    if table.change == "twice":
        entry = f"{entry}, {entry}"
    return f"{{{entry.replace(table.step, 'scorex', 1) if table.change == 'unknown' else entry}}}".encode()


def _write_sheet(table: _Table) -> bytes:
    lines = [f"gap ⟨{gap}⟩{text} here" for gap, (*_, text) in enumerate(table.cells, 1)]
    legend = [f"⟨{gap}⟩: {table.step}[{i}][{j}]" for gap, (i, j, _) in enumerate(table.cells, 1)]
    if table.change == "twice":
        legend.append(f"⟨1⟩: {table.step}[{len(table.texts) - 1}][{len(table.texts[0]) - 1}]")
    if table.change == "unknown":
        lines.append(f"⟨{len(lines) + 1}⟩0.5")
    return "\n".join([*lines, "", *legend, ""]).encode()


def _exchange(i: int, j: int, swapped: tuple[int, int], change: str) -> tuple[int, int]:
    """Exchange two rows, or two columns."""
    other = dict((swapped, swapped[::-1]))
    return (other.get(i, i), j) if change == "rows swapped" else (i, other.get(j, j))


def _json_number(text: str) -> str:
    return json.dumps("-Infinity" if float(text) < 0 else "Infinity") if math.isinf(float(text)) else text


def _csv(rows: list[list[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()
