"""CSV and TSV: what Python's own writer would write, the shortest digits, and piece by piece."""

from __future__ import annotations

import csv
import io
import tracemalloc

import numpy as np
import pytest

import attncli
from attncli.output_formats import RenderOptions, load_output_format
from attncli.types import AXES, Attention, Step
from attncli.writers import csv as csv_writer
from tests.helpers import draw_normal

TOKENS = ("plain", "a,b", 'say "no"', "two\nlines", "\ttab", "", " spaces ", "日本語", "the", "the")


def write_by_hand(attention: Attention, separator: str) -> str:
    """The tidy rows, one after another, by Python's writer of CSV and `repr`."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    present = {axis for step in attention for axis in step.axes} | {"batch", "head", "query", "key"}
    axes = [axis for axis in AXES if axis in present]
    writer.writerow(["step", *axes, "value", "query_token", "key_token"])
    for step in attention:
        for index in np.ndindex(step.values.shape):
            at = dict(zip(step.axes, index, strict=True))
            item = at.get("batch", 0)
            value = step.values[index]
            tokens = [
                attention.tokens[item][at["query"]] if "query" in at else "",
                attention.k_tokens[item][at.get("key", at.get("new_key"))] if {"key", "new_key"} & set(at) else "",
            ]
            text = str(value).lower() if isinstance(value, np.bool_) else repr(value.item())
            writer.writerow([step.name, *(at.get(axis, "") for axis in axes), text, *tokens])
    return out.getvalue()


def spread(seed: int, count: int) -> np.ndarray:
    """Doubles of any bits, and of every size that prints without an exponent; both signs."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    sizes = 10 ** generator.uniform(-6, 18, count)
    special = [0.0, -0.0, 1e-4, 9.999999999999999e-05, 1e-5, 1e16, 9999999999999998.0, 5e-324, np.nan, np.inf, -np.inf]
    return np.concatenate([bits, sizes, -sizes, np.round(sizes, 2), generator.integers(0, 10**15, count), special])


def test_doubles_are_written_as_repr_writes_them():
    values = spread(3, 4000)

    assert csv_writer._format_cells(values) == list(map(repr, values.tolist()))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_smaller_floats_are_the_shortest_that_read_back(dtype):
    values = draw_normal(5, 300).astype(dtype)

    texts = csv_writer._format_cells(values)

    np.testing.assert_array_equal(np.array(texts, dtype=dtype), values)
    assert texts == [np.format_float_positional(x, trim="0") if abs(x) >= 1e-4 else str(x) for x in values]


@pytest.mark.parametrize(("name", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tidy_rows_are_those_of_pythons_writer(name, separator):
    problem = attncli.Problem(embeddings=draw_normal(6, 2, len(TOKENS), 4), tokens=[TOKENS, TOKENS[::-1]])
    held = attncli.attend(problem, attncli.Variant(mask="causal", heads=2))

    pieces = list(load_output_format(name).write(held, RenderOptions()))

    assert "".join(pieces) == write_by_hand(held, separator)


@pytest.mark.parametrize("numbers_at_once", [1, 7, 2**16])
def test_a_matrix_is_the_same_in_pages(monkeypatch, numbers_at_once):
    monkeypatch.setattr(csv_writer, "_MATRIX_NUMBERS_AT_ONCE", numbers_at_once)
    values = spread(7, 6)[:30].reshape(10, 3)
    held = Attention({}, TOKENS, TOKENS, (Step("context", "x", ("query", "dim"), values),))

    rows = list(csv.reader(io.StringIO("".join(load_output_format("csv").write(held, RenderOptions())))))

    assert rows == [
        ["token", "d0", "d1", "d2"],
        *([t, *map(repr, row)] for t, row in zip(TOKENS, values.tolist(), strict=True)),
    ]


def hold_steps(count: int) -> Attention:
    """A result of several steps, of 40 × 41 numbers each."""
    tokens, k_tokens = (tuple(f"t{i}" for i in range(n)) for n in (40, 41))
    values = draw_normal(8, 40, 41)
    return Attention({}, tokens, k_tokens, tuple(Step(f"s{i}", "x", ("query", "key"), values) for i in range(count)))


def test_the_first_rows_leave_before_the_last_are_made(monkeypatch):
    formatted = []
    format_cells = csv_writer._format_cells
    monkeypatch.setattr(
        csv_writer, "_format_cells", lambda values: formatted.append(values.size) or format_cells(values)
    )
    pieces = iter(load_output_format("csv").write(hold_steps(9), RenderOptions()))

    header, first = next(pieces), next(pieces)

    assert header.startswith("step,batch,")
    assert first.startswith("s0,")
    assert formatted == [40 * 41]
    assert "".join(pieces).count("\n") == 8 * 40 * 41


def test_memory_does_not_grow_with_the_result():
    def peak_bytes(step_count: int) -> int:
        held = hold_steps(step_count)
        tracemalloc.start()
        for _ in load_output_format("csv").write(held, RenderOptions()):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(1)  # what is loaded at the first call
    assert peak_bytes(7) < peak_bytes(2) + 50_000
