"""Results without a terminal: what Rich would print, at once, in little memory, and the first of it before the last is made."""

from __future__ import annotations

import io
import os
import re
import threading
import tracemalloc

import numpy as np
import pytest
from rich import box
from rich.cells import cached_cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

import attncli
from attncli.output_formats import RenderOptions, load_output_format
from attncli.types import Attention, Step
from attncli.views.cell_formats import NumberFormat
from attncli.views.labelled_matrices import LabelledMatrix
from attncli.views.table_order import labelled_matrices
from tests.helpers import draw_normal

TEXT_FORMATS = ("table", "plain", "markdown", "latex")
WIDE_TOKENS = ("日本語", "e\u0301", "trailing  ", "", "👩\u200d👩\u200d👧", "\x1b[31mred", "[b]|_x_", "−∞")


def attend(**more) -> Attention:
    """A batch of two, two heads, a causal mask: 8 tokens of 6 dims, of every width that a token can have."""
    tokens = [WIDE_TOKENS, WIDE_TOKENS[::-1]]
    problem = attncli.Problem(tokens=tokens, embeddings=draw_normal(3, 2, len(WIDE_TOKENS), 6))
    return attncli.attend(problem, attncli.Variant(mask="causal", heads=2, **more), top=3)


def hold(name: str, values: np.ndarray, axes: tuple[str, ...] = ("query", "dim")) -> Attention:
    """A result of one step."""
    tokens, k_tokens = (tuple(f"t{i}" for i in range(n)) for n in values.shape[-2:])
    return Attention({}, tokens, k_tokens, (Step(name, "x", axes, values),))


def write(name: str, attention: Attention, **look) -> str:
    return "".join(load_output_format(name).write(attention, RenderOptions(**look)))


# ── the same as Rich ─────────────────────────────────────────────────────────────────────────────
def print_with_rich(matrix: LabelledMatrix, look: RenderOptions) -> str:
    """One matrix as Rich prints it: a renderer of cells, which measures each of them."""
    out = io.StringIO()
    system = "auto" if look.color else None
    console = Console(
        file=out,
        width=10**6,
        force_terminal=look.color,
        color_system=system,
        highlight=False,
        markup=False,
        emoji=False,
    )
    table = Table(
        box=box.SIMPLE_HEAD if look.has_unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
        header_style="",
    )
    table.add_column(Text(matrix.corner_label, style="dim"), no_wrap=True)
    for label in matrix.column_labels:
        table.add_column(Text(label), justify="right", no_wrap=True)
    for column in matrix.statistics:
        table.add_column(Text(column.name, style="dim"), justify="right", no_wrap=True)
    for r, label in enumerate(matrix.row_labels):
        [row] = matrix.format_rows(r, r + 1)
        cells = [Text(text, style="dim" if text in ("−∞", "·") else "") for text in row[: len(matrix.column_labels)]]
        if look.heat != "off" and matrix.name == "weights":
            for cell, weight in zip(cells, matrix.values[r].tolist(), strict=True):
                is_hidden = cell.plain in ("·", ".")
                cell.append("¤" if is_hidden else "¤░▒▓█"[round(weight * 4)])  # Rich drops a space at the end
        statistics = [Text(text, style="dim") for text in row[len(matrix.column_labels) :]]
        table.add_row(Text(label), *cells, *statistics)
    console.print(table, soft_wrap=True)
    return out.getvalue().replace("¤", " ")


@pytest.mark.parametrize("look", [{}, {"has_unicode": False}, {"heat": "weights"}, {"color": True}], ids=str)
def test_a_table_in_a_pipe_is_what_rich_prints(monkeypatch, look):
    monkeypatch.setenv("TERM", "xterm-256color")
    held, options = attend(), RenderOptions(**look)

    text = write("table", held, **look)

    matrices = list(labelled_matrices(held, options.precision))
    assert len(matrices) > 20
    for labelled in matrices:
        matrix = labelled if options.has_unicode else labelled.with_ascii_symbols()
        assert print_with_rich(matrix, options) in text, matrix.title


def test_colours_behind_numbers_move_none_of_them(monkeypatch):
    """A cell is filled up to its neighbour, in which no column becomes wider; after the last there is one more."""
    monkeypatch.setenv("TERM", "xterm-256color")
    held = attend()

    shaded = re.sub(r"\x1b\[[\d;]*m", "", write("table", held, color=True, heat="steps", precision=1))

    lines = [line.rstrip() for line in shaded.splitlines() if not line.startswith("shaded ")]
    assert lines == [line.rstrip() for line in write("table", held, precision=1).splitlines()]


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_pages_do_not_show(monkeypatch, name):
    whole = write(name, attend())
    monkeypatch.setattr("attncli.views.cell_formats._NUMBERS_AT_ONCE", 17)  # two or three rows a page

    assert write(name, attend()) == whole


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("precision", [0, 4, 11])
def test_many_numbers_are_written_as_each_alone(dtype, precision):
    special = [0.0, -0.0, 0.5, -0.5, 2.5, -1e-5, -0.00005, 0.00005, -1e-4, np.nan, np.inf, -np.inf, 6e4]
    values = np.array([*special, *draw_normal(1, 500)]).astype(dtype)

    texts = NumberFormat("fixed", precision).format(values)

    for value, text in zip(values.tolist(), texts, strict=True):
        if not np.isfinite(value):
            assert text == {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[str(value)]
        else:
            rounded = f"{value:.{precision}f}"
            assert text == (rounded if float(rounded) else f"{0:.{precision}f}")


# ── piece by piece ───────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def formatted(monkeypatch):
    """How many numbers have been written as text, in a list of one."""
    count = [0]
    format_all = NumberFormat.format

    def format_and_count(self: NumberFormat, values: np.ndarray) -> list[str]:
        count[0] += values.size
        return format_all(self, values)

    monkeypatch.setattr(NumberFormat, "format", format_and_count)
    return count


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_the_first_piece_leaves_before_the_last_is_made(formatted, name):
    held = hold("scores", draw_normal(2, 9, 40, 41), ("head", "query", "key"))
    pieces = iter(load_output_format(name).write(held, RenderOptions()))

    text = next(pieces)
    while "head 0" not in text:
        text += next(pieces)

    assert formatted[0] <= 40 * 41
    assert "head 8" in "".join(pieces)
    assert formatted[0] == 9 * 40 * 41  # and no number is written twice


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_memory_does_not_grow_with_the_result(monkeypatch, name):
    monkeypatch.setattr("attncli.views.cell_formats._NUMBERS_AT_ONCE", 2048)

    def peak_bytes(head_count: int, row_count: int) -> int:
        held = hold("scores", np.zeros((head_count, row_count, 64)), ("head", "query", "dim"))
        cached_cell_len.cache_clear()  # it holds what other tests have printed, and grows by leaps
        tracemalloc.start()
        for _ in load_output_format(name).write(held, RenderOptions()):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(1, 8)  # what is loaded at the first call
    small = peak_bytes(1, 64)
    assert peak_bytes(6, 64) < small + 50_000
    assert peak_bytes(1, 384) < small + 50_000 + 320 * 500  # labels: one of each row


def test_a_pipe_that_is_read_slowly_holds_the_writer_up(formatted):
    from attncli.cli import main
    from attncli.cli.environment import Environment

    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", encoding="utf-8") as out:
        stdin = io.TextIOWrapper(io.BytesIO(problem_bytes(token_count=43)))
        environment = Environment(stdin, out, io.StringIO())

        def run() -> None:
            main(["compute", "-", "--input-format", "json", "--heads", "8", "--only", "scores,weights"], environment)
            out.close()

        thread = threading.Thread(target=run)
        thread.start()
        first = reader.read(200)
        count_meanwhile = formatted[0]
        rest = reader.read()
        thread.join()

    assert b"scores" in first
    assert count_meanwhile <= formatted[0] // 2  # a pipe holds 64 KiB, and a table here is 20
    assert b"weights \xc2\xb7 head 7" in rest


def problem_bytes(token_count: int) -> bytes:
    import json

    return json.dumps({"embeddings": draw_normal(4, token_count, 8).tolist()}).encode()
