"""Read CSV, TSV and text between blanks, a row for each token. Entries: `read_csv`, `read_tsv`, `read_txt`.

Separator, header and token column are detected and reported in the problem's notes; where they are unclear, the file is
refused. The standard library parses the text (`csv_rows`), and Polars that of large files; `csv_table` decides what a row of
numbers with a label means. The result of Polars is used only where it finds nothing wrong: then both read the same.
"""

from __future__ import annotations

import re
from dataclasses import replace

from attncli.arrays import has_finite_sum
from attncli.readers.base import make_problem, nest_fields, reader
from attncli.readers.csv_ambiguities import check_readings
from attncli.readers.csv_labels import read_labels
from attncli.readers.csv_rows import COUNT_LINE, SEPARATORS
from attncli.readers.csv_table import CsvTable
from attncli.readers.source import Source
from attncli.types import Problem

_POLARS_MIN_BYTES = 2**20  # for so many bytes Polars is worth loading
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which some programs put before UTF-8
_SNIFF_BYTES = 2**16  # bytes from which separator, header and token column are detected
_COUNT_LINE = re.compile(COUNT_LINE.pattern.encode() + rb"\r?\n")
_QUOTED_START = re.compile(rb'^"[^"\n]*"', re.MULTILINE)  # of a row: then quotation marks may enclose cells


@reader("csv", ".csv", is_text=True, holds_one_array=True)
def read_csv(source: Source) -> Problem:
    """Read rows between commas, semicolons, tabs or blanks, whichever the first lines have."""
    return _read_rows(source, None)


@reader("tsv", ".tsv", ".tab", is_text=True, holds_one_array=True)
def read_tsv(source: Source) -> Problem:
    """Read rows between tabs."""
    return _read_rows(source, "\t")


@reader("txt", ".txt", ".vec", ".glove", is_text=True, holds_one_array=True)
def read_txt(source: Source) -> Problem:
    """Read rows between blanks, as GloVe, word2vec, fastText and numpy.savetxt write them, or between what `read_csv` knows."""
    return _read_rows(source, None)


def _read_rows(source: Source, separator: str | None) -> Problem:
    if source.field_kind == "texts":
        labels, note = read_labels(source)
        return replace(make_problem(nest_fields({source.field: labels})), notes=(note,))
    if source.separator is not None:
        separator = SEPARATORS[source.separator]
    return _read_with_polars(source, separator) or CsvTable(source, separator).parse_problem()


def _read_with_polars(source: Source, separator: str | None) -> Problem | None:
    """Read a large file with Polars.

    None where the standard library must read it, since it is small, has quotes, or something is wrong with it.
    """
    if len(source.data) < _POLARS_MIN_BYTES or b"\0" in source.data or source.field_kind == "booleans":
        return None
    data = _trim_lines(source.data)
    counts = _COUNT_LINE.match(data)
    if counts:
        if int(counts[2]) <= 2:  # they may be a row as well
            return None
        data = data[counts.end() :]
    head = data[: data.rfind(b"\n", 0, _SNIFF_BYTES) + 1]
    if not head or data.startswith(b"\n"):  # Polars would count a blank line as the header
        return None
    import numpy as np
    import polars

    try:
        table = CsvTable(replace(source, data=head), separator)
        if table.separator == " ":
            data = data.replace(b" \n", b"\n")  # word2vec ends lines in a blank
        if not _is_plain(table, data, bool(counts)):
            return None
        width, column = len(table.rows[0]), table.find_token_column()
        if not table.is_token_column_certain(column):
            return None
        dimensions = table.find_dimensions(column)
        check_readings(table, column, dimensions)
        if column in dimensions:  # the tokens are those numbers as they are written
            return None
        names = [f"column {i}" for i in range(width)]
        schema = {name: polars.Float64 if i in dimensions else polars.String for i, name in enumerate(names)}
        frame = polars.read_csv(  # of the bytes: Polars has rules of its own for names of files
            data, has_header=False, skip_rows=table.first, separator=table.separator, quote_char=None, schema=schema
        )
        numeric = [names[i] for i in dimensions]
        vectors = frame.select(numeric).to_numpy(order="c")
    except (Exception, polars.exceptions.PanicException):  # whatever it is, the standard library says where
        return None
    has_gaps = any(frame.null_count().row(0)) or not numeric  # an empty cell, a short row or a blank line
    if has_gaps or not (has_finite_sum(vectors) or np.isfinite(vectors).all()):
        return None
    if counts:
        if (int(counts[1]), int(counts[2])) != vectors.shape or table.first:
            return None
        table.text_rows.remarks.append("line with counts")
    return table.to_problem(vectors, None if column is None else frame[names[column]].to_list(), column)


def _trim_lines(data: bytes) -> bytes:
    """Return a text with the line ends of Unix, without a byte order mark and blank lines at the end; nothing if others stay."""
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
        if b"\r" in data:
            return b""
    return data.rstrip(b"\n") if data.endswith(b"\n\n") else data


def _is_plain(table: CsvTable, data: bytes, has_counts: bool) -> bool:
    """Whether Polars reads a text as we do: a number a cell, no quotes, no lines of comment, one blank between cells.

    Args:
        table: its first rows.
        data: all of it.
        has_counts: whether a line with counts stood before it.

    Raises:
        InputError: its first rows are refused.
    """
    if (
        len(table.rows) < 2 or table.text_rows.first_line > 1
    ):  # two rows tell whether there is a header, as in a small file
        return False
    if data.endswith(table.separator.encode()):  # Polars passes over an empty cell at the very end
        return False
    if table.separator == " ":  # here a token may be a quotation mark
        if b"  " in data or b"\t" in data or _QUOTED_START.search(data):
            return False
    elif b'"' in data or has_counts or (table.separator == ";" and b"," in data):
        return False
    table.check_widths()
    return len(table.rows[0]) == len(table.body[0]) and table.find_vector_column() is None
