"""Read labels, a line a token, out of a text file: vocab.txt, or the metadata.tsv of TensorFlow's projector. Entry: `read_labels`."""

from __future__ import annotations

from attncli.errors import InputError, Location
from attncli.readers.base import decode_text
from attncli.readers.columns import find_columns, spell_columns
from attncli.readers.csv_rows import SEPARATOR_NAMES, SEPARATORS, CsvRows, split_lines
from attncli.readers.source import Source
from attncli.text import join_names, pluralize, shorten

_LABEL_COLUMN_NAMES = ("token", "tokens", "word", "words", "text", "label", "labels", "name")


def read_labels(source: Source) -> tuple[list[str], str]:
    """Read the labels of tokens, and a note on what was found.

    One column has no header unless it is said, several have one, as TensorFlow's projector has it.

    Raises:
        InputError: there are none, or it is unclear which column holds them.
    """
    rows, separator = _split_rows(source)
    width = len(rows[0])
    has_header = source.header == "yes" or (source.header is None and width > 1)
    names = rows[0] if has_header else ()
    body = rows[1:] if has_header else rows
    if not body:
        raise InputError("empty", "there is a header, but no label below it", location=Location(line=1))
    column = _find_column(source, names, width)
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            message = f"row {number} has {pluralize(len(row), 'column')}, but the first has {width}"
            raise InputError("ragged-row", message, location=Location(line=number))
    name = f"column {shorten(names[column])!r}" if names else f"column {column}"
    header = "header row" if names else "no header"
    note = f"{source.name}: {pluralize(len(body), 'label')}, {header}, {name}, separator {SEPARATOR_NAMES[separator]}"
    return [row[column] for row in body], note


def _split_rows(source: Source) -> tuple[list[tuple[str, ...]], str]:
    """Split the rows: between tabs every character is the label's, otherwise it is CSV.

    Raises:
        InputError: the file is empty, or no CSV.
    """
    separator = SEPARATORS[source.separator] if source.separator else ("," if source.format == "csv" else "\t")
    if separator == "\t":
        lines = split_lines(decode_text(source.data, format_name="a list of labels"))
        if lines and not lines[-1]:
            lines.pop()
        if not any(lines):
            raise InputError("empty", "the file is empty", help="write one label per line")
        return [tuple(line.split("\t")) for line in lines], separator
    return CsvRows(source, separator).rows, separator


def _find_column(source: Source, names: tuple[str, ...], width: int) -> int:
    """Return the number of the column that holds the labels.

    Raises:
        InputError: there is no such column, or it is unclear.
    """
    if source.token_column is not None:
        return find_columns(source, "token-column", names, width)[0]
    if width == 1:
        return 0
    found = [i for i, name in enumerate(names) if name.strip().lower() in _LABEL_COLUMN_NAMES]
    if len(found) == 1:
        return found[0]
    spelled = [source.spell_option("token-column", spell_columns(names, [i])) for i in range(min(width, 3))]
    shown = join_names([repr(shorten(name, 40)) for name in names] or map(str, range(width)), max_names=8)
    message = f"which column holds the labels: {shown}?"
    raise InputError("unclear-tokens", message, location=Location(line=1), help=join_names(spelled, "or"))
