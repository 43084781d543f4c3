"""Hold tables of tokens and vectors that stand in JSON, as records or as rows, and make fields of them.

Entries: `Table.to_fields`; `table_of_records`, `table_of_rows` and `table_of_mixed_rows`, which make tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from attncli.errors import InputError, Location
from attncli.readers.columns import (
    FIELD_WORDS,
    TOKEN_NAMES,
    VECTOR_NAMES,
    Column,
    ColumnKind,
    TableWords,
    choose_columns,
)
from attncli.readers.csv_vector_cells import parse_vector
from attncli.readers.source import Source
from attncli.text import pluralize, quote_name, quote_value, shorten
from attncli.types import NONFINITE_SPELLINGS, Json

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
_DECODE_BASE64 = (  # of little-endian float32, as OpenAI's answers have it
    "python -c \"import base64, json, numpy, sys; x = json.load(sys.stdin); x = x['data'] if isinstance(x, dict) else x; "
    "print(json.dumps([dict(r, NAME=numpy.frombuffer(base64.b64decode(r['NAME']), '<f4').tolist()) "
    "for r in sorted(x, key=lambda r: r.get('index', 0))]))\" < FILE > NEW.json"
)
_MISSING = object()
_MAX_SPARSE_CELLS = 100_000  # of a table of records, most of which lack most fields


@dataclass(frozen=True)
class Table:
    """Columns of equal length, before it is decided which are tokens and which are vectors."""

    names: list[str]
    columns: list[list[Any]]  # whatever JSON has: what a value is, is looked at where it is taken
    words: TableWords = FIELD_WORDS
    paths: str = "$[{row}].{name}"  # where a value stands
    are_keys_tokens: bool = False  # the tokens are the keys of an object

    def to_fields(self, source: Source) -> tuple[Json, str]:
        """Return the fields of the problem, and a note on what was found.

        Raises:
            InputError: it is unclear which columns are tokens and which are vectors, or a value is missing or of another kind.
        """
        if not self.columns or not self.columns[0]:
            raise InputError(
                "empty", "there are no tokens in it", help='an item is {"token": "cat", "embedding": [0.1, 0.2]}'
            )
        if any(map(self._holds_texts_of_vectors, range(len(self.names)))):
            parsed = [
                self._parse_texts(c) if self._holds_texts_of_vectors(c) else self.columns[c]
                for c in range(len(self.names))
            ]
            return replace(self, columns=parsed).to_fields(source)
        columns = [_describe_column(name, values) for name, values in zip(self.names, self.columns, strict=True)]
        choice = choose_columns(columns, source, self.words)
        if choice.is_vector:
            vectors = self._vectors(choice.dimensions[0])
        else:
            for c in choice.dimensions:
                self._check_numbers(c)
            vectors = [list(row) for row in zip(*(self.columns[c] for c in choice.dimensions), strict=True)]
        fields: Json = {"embeddings": vectors}
        if choice.tokens is not None:
            fields["tokens"] = self._labels(choice.tokens)
        width = len(vectors[0]) if isinstance(vectors[0], list) else 0
        if self.are_keys_tokens:
            return fields, f"{pluralize(len(vectors), 'token')} × {pluralize(width, 'dim')}, each key is a token"
        return fields, choice.describe_choice(columns, len(vectors), width, self.words)

    def _holds_texts_of_vectors(self, column: int) -> bool:
        """Whether a column is called as vectors are, and holds texts, of which the first is a list or base64."""
        texts = self.columns[column]
        if self.names[column].lower() not in VECTOR_NAMES or not all(isinstance(text, str) for text in texts):
            return False
        return is_text_of_vector(texts[0])

    def _parse_texts(self, column: int) -> list[list[float]]:
        """Parse vectors that are written as texts: `"[0.1, 0.2]"`.

        Raises:
            InputError: one is none, or they are base64.
        """
        name, vectors = self.names[column], []
        for row, text in enumerate(self.columns[column]):
            if _is_base64(text):
                code = _DECODE_BASE64.replace("NAME", name) if name.isidentifier() else ""
                ways = ['ask for them with "encoding_format": "float"', *([f"decode them: {code}"] if code else [])]
                message = f"{self._column_name(column)} holds base64 texts, not lists of numbers"
                raise InputError("wrong-type", message, location=self._location(column, row), help="; or ".join(ways))
            try:
                vectors.append(parse_vector(text))
            except InputError as error:
                raise InputError(
                    error.code, error.message, location=self._location(column, row), help=error.help
                ) from None
        return vectors

    def _location(self, column: int, row: int) -> Location:
        return Location(path=self.paths.format(row=row, name=shorten(self.names[column])))

    def _check_numbers(self, column: int) -> None:
        for row, value in enumerate(self.columns[column]):
            if type(value) not in (int, float) and value not in NONFINITE_SPELLINGS:
                raise self._value_error(column, row, value, "a number")

    def _vectors(self, column: int) -> list[object]:
        for row, value in enumerate(self.columns[column]):
            if not isinstance(value, list):
                raise self._value_error(column, row, value, "a list of numbers")
            if value and isinstance(value[0], list):
                list_path = self.paths.partition("[{row}]")[0].removeprefix("$") or "."
                items = f"[{list_path}[].{self.names[column]}"
                raise InputError(
                    "two-readings",
                    f"{self._column_name(column)} of item {row} is a matrix: several vectors of one item, or one in too many brackets?",
                    location=self._location(column, row),
                    help=f"jq '{items}[0]]' FILE takes the first of each; jq '{items}]' FILE a batch of sequences",
                )
        return self.columns[column]

    def _labels(self, column: int) -> list[str]:
        values = self.columns[column]
        for row, value in enumerate(values):
            if value is _MISSING or value is None:
                message = f"item {row} has no {shorten(self.names[column])}, but others have"
                raise InputError("missing-field", message, location=self._location(column, row))
            if type(value) not in (str, int):
                raise self._value_error(column, row, value, "a text")
        return [str(value) for value in values]

    def _value_error(self, column: int, row: int, value: object, expected: str) -> InputError:
        location = self._location(column, row)
        if value is _MISSING:
            return InputError("missing-field", f"item {row} has no {shorten(self.names[column])}", location=location)
        message = f"{self._column_name(column)} of item {row} is {quote_value(value)} where {expected} should be"
        return InputError("not-a-number" if value is not None else "empty-cell", message, location=location)

    def _column_name(self, column: int) -> str:
        return quote_name(self.names[column])


def _describe_column(name: str, values: list[object]) -> Column:
    """Describe a column by the types of its values; what is mixed is judged by the first that is there."""
    types = set(map(type, values)) - {type(None), object}
    if not types:
        return Column(name, "other", "no values")
    if types == {int}:
        return Column(name, "integers")
    if types <= {int, float}:
        return Column(name, "numbers")
    if types == {str}:
        are_nonfinite = name.lower() not in TOKEN_NAMES and all(value in NONFINITE_SPELLINGS for value in values)
        kind: ColumnKind = "numbers" if are_nonfinite else "texts"
        return Column(name, kind)
    if types == {list}:
        first = next((value for value in values if isinstance(value, list) and value), [])
        while first and isinstance(first[0], list):
            first = first[0]
        is_vector = not first or type(first[0]) in (int, float) or first[0] in NONFINITE_SPELLINGS
        return Column(name, "vectors") if is_vector else Column(name, "other", "lists of something other than numbers")
    if types <= {int, float, str}:  # "NaN" among numbers, or a word among them: said at the value
        return Column(name, "numbers")
    kinds = {bool: "booleans", dict: "objects"}
    description = kinds.get(next(iter(types)), "") if len(types) == 1 else ""
    if list in types:
        return Column(name, "vectors")
    return Column(name, "other", description or "values of several kinds")


# ── lists ────────────────────────────────────────────────────────────────────────────────────────
def is_vector(value: object) -> bool:
    """Whether a value is a list that begins with a number."""
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)


def is_text_of_vector(value: object) -> bool:
    """Whether a value is a text that begins as a list does, or base64 of numbers of four bytes."""
    return isinstance(value, str) and (value.lstrip().startswith("[") or _is_base64(value))


def _is_base64(text: str) -> bool:
    return _BASE64.fullmatch(text) is not None and (len(text) * 3 // 4 - text.count("=")) % 4 == 0


def is_matrix(value: object) -> bool:
    """Whether a value is a list that begins with a vector."""
    return isinstance(value, list) and bool(value) and is_vector(value[0])


def is_labelled_row(value: object) -> bool:
    """Whether a value is `["cat", 0.1, 0.2]` or `["cat", [0.1, 0.2]]`; `["2008", 0.1]` is, too."""
    if not isinstance(value, list) or len(value) < 2 or not isinstance(value[0], str):
        return False
    return (len(value) == 2 and is_vector(value[1])) or all(type(item) in (int, float) for item in value[1:])


def has_word(row: object) -> bool:
    """Whether the first item of a row is no number in quotes."""
    return isinstance(row, list) and not _is_like_number(str(row[0]))


def table_of_mixed_rows(rows: list[object]) -> Table | None:
    """The table of lists with texts, numbers and vectors in them, whose columns have numbers for names; None where no column is of texts."""
    lists = [row for row in rows if isinstance(row, list)]
    if not lists or len(lists) < len(rows) or any(len(row) != len(lists[0]) for row in lists) or len(lists[0]) < 2:
        return None
    columns = [list(column) for column in zip(*lists, strict=True)]
    has_texts = any(
        all(isinstance(value, str) for value in column) and not all(map(_is_like_number, map(str, column)))
        for column in columns
    )
    return Table([str(i) for i in range(len(columns))], columns, paths="$[{row}][{name}]") if has_texts else None


def _is_like_number(text: str) -> bool:
    """Whether a text is a number that stands in quotes."""
    return (
        text in NONFINITE_SPELLINGS or re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text.strip(), re.IGNORECASE) is not None
    )


def table_of_rows(rows: list[Any]) -> Table:
    """Make the table of `["cat", 0.1, 0.2]`, or of `["cat", [0.1, 0.2]]`."""
    if isinstance(rows[0][1], list):
        return Table(["token", "embedding"], [[row[0] for row in rows], [row[1] for row in rows]])
    width = len(rows[0])
    for i, row in enumerate(rows):
        if len(row) != width:
            message = f"item {i} has {len(row) - 1} numbers, but item 0 has {width - 1}"
            raise InputError(
                "ragged", message, location=Location(path=f"$[{i}]"), help="all rows must have the same length"
            )
    return Table(["token", *(f"d{i}" for i in range(width - 1))], [list(column) for column in zip(*rows, strict=True)])


def table_of_records(items: list[Any], paths: str = "$[{row}].{name}") -> Table:
    """Make the table of objects, whose keys are the columns.

    Raises:
        InputError: an item is no object.
    """
    if _are_words(items):
        pairs = [next(iter(item.items())) for item in items]
        words, vectors = [word for word, _ in pairs], [vector for _, vector in pairs]
        return Table(["token", "embedding"], [words, vectors], paths="$[{row}]", are_keys_tokens=True)
    names: dict[str, None] = {}
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            message = f"item {i} is {quote_value(item)}, but the first is an object"
            raise InputError("wrong-type", message, location=Location(path=f"$[{i}]"))
        names.update(dict.fromkeys(item))
    if len(names) * len(items) > _MAX_SPARSE_CELLS + 8 * sum(map(len, items)):
        message = f"{len(items):,} items have {len(names):,} fields between them, and few in common"
        raise InputError(
            "missing-field", message, location=Location(path="$[0]"), help="give every item the same fields"
        )
    columns = [[unwrap_vector(item.get(name, _MISSING)) for item in items] for name in names]
    kept = [i for i, column in enumerate(columns) if not all(value is None for value in column)]
    known = list(names)
    return Table([known[i] for i in kept], [columns[i] for i in kept], paths=paths)


def _are_words(items: list[Any]) -> bool:
    """Whether each item is an object of one token and its vector, `{"cat": [0.1, 0.2]}`, and the tokens differ."""
    if not all(isinstance(item, dict) and len(item) == 1 for item in items):
        return False
    names = {name for item in items for name in item}
    return (
        len(names) > 1
        and not any(name.lower() in VECTOR_NAMES for name in names)
        and all(is_vector(vector) for item in items for vector in item.values())
    )


def unwrap_vector(value: object) -> object:
    """Return the numbers of `{"values": […]}`, as Gemini's answers have them, and any other value as it is."""
    if isinstance(value, dict) and is_vector(value.get("values")):
        return value["values"]
    return value
