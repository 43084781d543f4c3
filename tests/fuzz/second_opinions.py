"""What other libraries say of an input that was accepted. Entries: `check_opinion`, `polars_opinion` for the two readers of CSV."""

from __future__ import annotations

import csv as csv_library
import gzip
import io
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars
import zstandard

import attncli
from attncli.errors import AttnError
from attncli.readers import csv as csv_reader
from attncli.readers.columns import VECTOR_NAMES

_LABEL_TYPES = (polars.String, polars.Int16, polars.UInt64)


def check_opinion(format_name: str, data: bytes, path: Path, problem: attncli.Problem) -> None:
    """Compare what was accepted with what another library reads.

    Raises:
        AssertionError: they differ.
    """
    if format_name.endswith((".gz", ".zst")):
        plain, _, packing = format_name.partition(".")
        if packing == "gz":
            data = gzip.decompress(data)
        else:
            data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        check_opinion(plain, data, path, problem)
    elif format_name == "txt":
        _compare_blank_separated(data, problem)
    elif format_name in ("parquet", "arrow"):
        _compare_table(format_name, data, problem)
    elif format_name == "json":
        _compare_json(json.loads(data, object_pairs_hook=_unique_pairs), problem)
    elif format_name in ("csv", "tsv"):
        _compare_csv(data, problem, "\t" if format_name == "tsv" else None)
    elif format_name == "npy":
        _assert_same(problem.embeddings, np.load(io.BytesIO(data)))
    elif format_name == "npz":
        if not data.startswith(b"PK"):  # numpy.load goes by the first bytes, and zipfile by the last
            return
        with np.load(io.BytesIO(data)) as archive:
            arrays = {name: archive[name] for name in archive.files}
        _compare_arrays(
            {name: x for name, x in arrays.items() if getattr(x, "dtype", np.dtype("V")).kind in "fiub"}, problem
        )
    else:
        from safetensors.numpy import load

        try:
            arrays = load(data)
        except Exception as error:  # numpy has no bfloat16
            if "bf" in str(error).lower():
                return
            raise AssertionError("the library refuses it") from error
        _compare_arrays(arrays, problem)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key stands twice"
    return dict(pairs)


def _compare_json(document: Any, problem: attncli.Problem) -> None:
    if isinstance(document, list):
        document = {
            "embeddings": [item["embedding"] if isinstance(item, dict) else item for item in document],
            "tokens": [item.get("token") if isinstance(item, dict) else None for item in document],
        }
    elif (
        len(document) == 1
        and (name := next(iter(document)).lower()) in VECTOR_NAMES
        and (name == "embeddings" or np.ndim(document[next(iter(document))]) == 2)
    ):  # a column of a table, in whatever case
        document = {"embeddings": next(iter(document.values()))}
    elif not any(hasattr(problem, name) for name in document):  # each key is a token
        document = {"embeddings": list(document.values()), "tokens": list(document)}
    for name, value in document.items():
        have = getattr(problem, name)
        if name in ("embeddings", "q", "k", "v", "bias", "positions", "k_positions", "segments", "lengths", "mask"):
            _assert_same(have, np.array(_numbers(value)))
        elif name in ("tokens", "k_tokens") and value and None not in value:
            assert [list(x) if isinstance(x, tuple) else x for x in have] == value, name
        elif name in ("about", "variant"):
            assert have == value, name
        elif name in ("parameters", "past", "memory"):
            for key, inner in value.items():
                if key != "tokens":
                    _assert_same(have[key], np.array(_numbers(inner)))


def _numbers(value: Any) -> Any:
    return (
        [_numbers(item) for item in value]
        if isinstance(value, list)
        else float(value)
        if isinstance(value, str)
        else value
    )


_DIALECTS = (  # separators, and whether a quotation mark is one; between tabs it may be a character like any other
    *((delimiter, csv_library.QUOTE_MINIMAL) for delimiter in ",;\t"),
    ("\t", csv_library.QUOTE_NONE),
)


def _compare_csv(data: bytes, problem: attncli.Problem, separator: str | None) -> None:
    text = data.decode("utf-8-sig")
    found = []
    for delimiter, quoting in _DIALECTS:
        if delimiter != (separator or delimiter):
            continue
        rows = [
            row
            for row in csv_library.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
            if "".join(row).strip()
        ]
        for body in (rows, rows[1:]):
            for column in (None, 0):
                cells = [row[:0] + row[1:] if column == 0 else row for row in body]
                readings = [cells]
                if delimiter != "," and all(len(row) == 1 for row in cells):  # perhaps a whole vector in a cell
                    readings.append([re.split("," if "," in row[0] else "[ \t\r\n]+", row[0].strip()) for row in cells])
                for rows_of_cells in readings:
                    with suppress(ValueError):
                        numbers = np.array([[_parse_number(c, delimiter) for c in row] for row in rows_of_cells])
                        found.append((numbers, None if column is None else tuple(row[0] for row in body)))
    have = np.asarray(problem.embeddings)
    assert any(
        numbers.shape == have.shape and np.array_equal(numbers, have) and labels == problem.tokens
        for numbers, labels in found
    ), "no reading of it by the csv module is these numbers"


def _parse_number(cell: str, delimiter: str) -> float:
    return float(cell.strip().replace(",", ".") if delimiter == ";" else cell.strip())


def _compare_blank_separated(data: bytes, problem: attncli.Problem) -> None:
    """Compare with the ends of the lines: each row of numbers is the end of one, in order, and its token stands before it."""
    if any("vectors from column" in note for note in problem.notes):  # in cells between something else
        return
    have = np.asarray(problem.embeddings)
    rows = [line.replace("\t", " ").split(" ") for line in re.split("\r\n|\r|\n", data.decode("utf-8-sig"))]
    rows = [row for cells in rows if (row := [cell for cell in cells if cell])]
    if len(rows[0]) == 2 and len(have) == len(rows) - 1:  # a line with counts, or a header
        is_counts = all(re.fullmatch("[0-9]+", cell) for cell in rows[0])
        assert not is_counts or [int(cell) for cell in rows[0]] == list(have.shape), "counts"
    rows = rows[-len(have) :]
    try:
        want = [[float(cell) for cell in row[-have.shape[1] :]] for row in rows]
    except ValueError:  # it was separated by something else
        _compare_csv(data, problem, None)
        return
    _assert_same(have, np.array(want))
    found = tuple(" ".join(row[: -have.shape[1]]) for row in rows)
    tokens = problem.tokens and tuple(re.sub("[ \t]+", " ", token) for token in problem.tokens)
    if tokens not in (None, found) and b'"' not in data:  # it was separated by something else as well
        _compare_csv(data, problem, None)


def _compare_table(format_name: str, data: bytes, problem: attncli.Problem) -> None:
    """Compare with what Polars reads: each dimension is a column of numbers, or all are one column of lists."""
    read = {"parquet": polars.read_parquet, "arrow": polars.read_ipc}[format_name]
    if format_name == "arrow" and not data.startswith(b"ARROW1"):
        read = polars.read_ipc_stream
    try:
        frame = read(io.BytesIO(data))
    except Exception:  # a column is damaged that is not read here
        return
    vectors = [series for series in frame if series.dtype.is_nested()]
    if vectors:
        assert len(vectors) == 1
        _assert_same(problem.embeddings, np.array(vectors[0].to_list()))
    else:
        numeric = [series for series in frame if series.dtype.is_numeric() and series.name != "token"]
        _assert_same(
            problem.embeddings, np.stack([series.cast(polars.Float64).to_numpy() for series in numeric], axis=1)
        )
    if problem.tokens is not None:
        assert problem.tokens in {
            tuple(map(str, series.to_list())) for series in frame if series.dtype in _LABEL_TYPES
        }, "the tokens"


def _compare_arrays(arrays: dict[str, np.ndarray], problem: attncli.Problem) -> None:
    for name, want in arrays.items():
        group, _, rest = name.partition(".")
        have = getattr(problem, group)
        if group == "expected":
            have, rest = have[rest.split(".")[0]], "values"
        _assert_same(have[rest] if rest else have, want)


def _assert_same(have: Any, want: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        have = np.asarray(have)
        assert have.shape == want.shape, (have.shape, want.shape)
        assert np.array_equal(have, want.astype(have.dtype), equal_nan=have.dtype.kind == "f"), (have, want)
        if have.dtype.kind == "i":
            assert np.array_equal(want.astype(np.float64), have.astype(np.float64)), (have, want)


def polars_opinion(data: bytes, path: Path) -> None:
    """Compare both readers of CSV.

    Raises:
        AssertionError: they differ.
    """
    kept = csv_reader._POLARS_MIN_BYTES, csv_reader._SNIFF_BYTES

    def outcome() -> object:
        try:
            problem = attncli.read(path)
        except AttnError as error:
            return error.code, error.message, str(error.location), error.help
        return problem.embeddings.tolist(), problem.tokens, problem.notes

    try:
        csv_reader._POLARS_MIN_BYTES, csv_reader._SNIFF_BYTES = 0, 2**16 if len(data) % 2 else 8
        fast = outcome()
        csv_reader._POLARS_MIN_BYTES = 2**60
        assert fast == outcome(), "Polars and the standard library read it differently"
    finally:
        csv_reader._POLARS_MIN_BYTES, csv_reader._SNIFF_BYTES = kept
