"""Decide which columns of a table are tokens and which are vectors. Entries: `choose_columns`, and the rules for names.

The same rules hold wherever columns have names: CSV, Parquet, Arrow, records in JSON. In CSV every cell is a text, so
`readers/csv_table.py` asks for the rules one by one; where columns have types, `choose_columns` applies them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attncli.errors import InputError
from attncli.readers.long_tables import find_long_table
from attncli.readers.source import Source
from attncli.registry import parse_index
from attncli.text import join_names, pluralize, quote_name, shorten, suggestion

TOKEN_NAMES = frozenset({
    "", "#", "token", "tokens", "word", "words", "text", "label", "labels", "name", "id", "index", "idx", "pos", "position",
    "__index_level_0__",  # of pandas, in Parquet
})  # fmt: skip
# Names of columns that hold something else than a dimension of a vector.
OTHER_NAMES = TOKEN_NAMES | {
    "unnamed: 0", "ids", "token_id", "row", "rank", "freq", "freqs", "frequency", "count", "counts", "n_tokens",
    "num_tokens", "length", "class", "target", "split", "fold", "year", "date", "timestamp", "score", "weight", "object", "model",
    "type", "level_0",
}  # fmt: skip
# Names under which a whole vector stands, as libraries, databases and services spell them.
VECTOR_NAMES = frozenset({
    "embedding", "embeddings", "vector", "vectors", "vec", "values", "emb", "embed", "features", "representation", "hidden_state",
    "hidden_states", "sentence_embedding",
})  # fmt: skip
AXIS_NAMES = frozenset("xyzw")
# Names that say more surely than `id` or `label` which column holds the texts of the tokens.
TEXT_NAMES = ("token", "tokens", "word", "words", "text", "texts", "term", "content", "document", "sentence", "title")
_MAX_SPELLED_COLUMNS = 64  # of column names that a way out spells

ColumnKind: TypeAlias = Literal["numbers", "integers", "texts", "vectors", "other"]


@dataclass(frozen=True)
class Column:
    """A column of a table, before its values are looked at."""

    name: str
    kind: ColumnKind
    description: str = ""  # what it holds, in words, where its kind is "other"


@dataclass(frozen=True)
class TableWords:
    """How messages speak of a table, and which options choose among its columns."""

    noun: str  # of a column
    token_option: str
    columns_option: str


COLUMN_WORDS = TableWords("column", "token-column", "columns")
FIELD_WORDS = TableWords("field", "token-field", "vector-field")


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns are read, by their numbers."""

    tokens: int | None
    dimensions: tuple[int, ...]  # columns of numbers; or one column of vectors
    is_vector: bool
    left_out: tuple[int, ...]  # neither named nor asked about, and not read

    def describe_choice(self, columns: Sequence[Column], token_count: int, width: int, words: TableWords) -> str:
        """Describe in a note what was found in a table."""
        size = f"{pluralize(token_count, 'token')} × {pluralize(width, 'dim')}"
        parts = [size]
        if self.is_vector:
            parts.append(f"vectors from {words.noun} {shorten(columns[self.dimensions[0]].name)!r}")
        if self.tokens is None:
            parts.append(f"no token {words.noun}")
        else:
            parts.append(f"token {words.noun} {shorten(columns[self.tokens].name)!r}")
        if self.left_out:
            names = join_names([repr(shorten(columns[c].name)) for c in self.left_out], max_names=8)
            parts.append(f"left out: {names}")
        return ", ".join(parts)


# ── the rules for names ──────────────────────────────────────────────────────────────────────────
def find_column(requested: str, names: Sequence[str], width: int, words: TableWords = COLUMN_WORDS) -> int:
    """Return the number of a column; a number is always a place, whatever the columns are called.

    Args:
        requested: a name, or a number from 0.
        names: of the columns; none where they have none.
        width: how many columns there are.
        words: how messages speak of them.

    Raises:
        InputError: there is no such column, or two of that name.
    """
    index = parse_index(requested)
    if index is None and names.count(requested) == 1:
        return names.index(requested)
    if index is not None and 0 <= index < width:
        return index
    message = f"there is no {words.noun} {shorten(requested)!r}"
    if names.count(requested) > 1:
        message = f"two {words.noun}s are called {shorten(requested)!r}"
        hint = f"their numbers tell them apart, 0 … {width - 1}"
    else:
        hint = suggestion(requested, names) if names else f"there are {width} {words.noun}s, 0 … {width - 1}"
    raise InputError("no-such-column", message, help=hint)


def spell_column(names: Sequence[str], column: int) -> str:
    """Return what names a column in an option: its name, or its number where its name cannot be typed as it stands."""
    name = names[column]
    is_plain = re.fullmatch(r"[\w.:/@+][\w.:/@+-]{0,80}", name) is not None
    return name if is_plain and parse_index(name) is None and names.count(name) == 1 else str(column)


def unlike_columns(names: Sequence[str], dimensions: Sequence[int]) -> list[int]:
    """Return the columns whose names say something else, or are unlike the numbered names of most others."""
    lowered = [names[c].lower() for c in dimensions]
    stems = Counter(match[1] for name in lowered if (match := re.fullmatch(r"(.*?)\d+", name)))
    stem, count = stems.most_common(1)[0] if stems else ("", 0)
    are_numbered = count >= 2 and 2 * count > len(lowered)
    pattern = re.compile(rf"{re.escape(stem)}\d+")
    return [
        c
        for c, name in zip(dimensions, lowered, strict=True)
        if name in OTHER_NAMES or (are_numbered and not pattern.fullmatch(name))
    ]


def are_alike(names: Sequence[str]) -> bool:
    """Whether all names are those of dimensions: d0, d1, d2, or x, y, z."""
    lowered = [name.lower() for name in names]
    stems = {re.sub(r"\d+$", "", name) for name in lowered}
    return set(lowered) <= AXIS_NAMES or (len(stems) == 1 and all(name[-1:].isdigit() for name in lowered))


def differs_from_rest(names: Sequence[str]) -> bool:
    """Whether the first of some column names is of another kind than the rest: id, d0, d1, d2."""
    stems = {re.sub(r"\d+$", "", name) for name in names[1:]}
    are_numbered = len(names) > 2 and len(stems) == 1 and all(name[-1:].isdigit() for name in names[1:])
    return names[0].lower() in TOKEN_NAMES or (are_numbered and re.sub(r"\d+$", "", names[0]) not in stems)


# ── columns with types ───────────────────────────────────────────────────────────────────────────
def choose_columns(columns: Sequence[Column], source: Source, words: TableWords = COLUMN_WORDS) -> ColumnChoice:
    """Decide which columns are read: those that options name, or else those that nothing speaks against.

    Raises:
        InputError: a column that was named does not exist or holds something else, or it is unclear; the help spells every way out.
    """
    return _Chooser(columns, source, words).choose()


class _Chooser:
    def __init__(self, columns: Sequence[Column], source: Source, words: TableWords) -> None:
        self.columns = columns
        self.names = [column.name for column in columns]
        self.source = source
        self.words = words

    def choose(self) -> ColumnChoice:
        tokens = self._find_requested_tokens()
        if self.source.columns:
            dimensions = self._find_all(self.source.columns)
            candidates = [c for c in range(len(self.columns)) if c not in dimensions]
        else:
            dropped = set(self._find_all(self.source.drop or ""))
            candidates = [c for c in range(len(self.columns)) if c not in dropped]
            self._check_is_not_long(candidates)
            dimensions = self._find_dimensions([c for c in candidates if c != tokens])
        vectors = [c for c in dimensions if self.columns[c].kind == "vectors"]
        if len(vectors) > 1 or (vectors and len(dimensions) > 1):
            raise self._several_vectors_error(dimensions)
        if not vectors:
            self._check_numbers(dimensions)
        texts = [c for c in candidates if self.columns[c].kind == "texts" and c not in dimensions]
        if tokens is None and self.source.token_column is None:
            tokens = self._choose_tokens(texts)
        read = {*dimensions, tokens}
        left_out = tuple(c for c in candidates if c not in read)
        return ColumnChoice(tokens, tuple(dimensions), bool(vectors), left_out)

    def _check_is_not_long(self, candidates: Sequence[int]) -> None:
        """Check that no row holds one number of a vector.

        Raises:
            InputError: by the names of the columns it may.
        """
        long = find_long_table([self.names[c] for c in candidates])
        if long and all(self.columns[c].kind in ("numbers", "integers", "texts") for c in candidates):
            raise InputError("two-readings", long.message, help=long.spell_readings(self.source))

    def _find_all(self, requested: str) -> list[int]:
        names = (name.strip() for name in requested.split(","))
        return [find_column(name, self.names, len(self.names), self.words) for name in names if name]

    def _find_requested_tokens(self) -> int | None:
        """Return the column of the tokens where an option names one.

        Raises:
            InputError: it does not exist, or holds neither texts nor whole numbers.
        """
        requested = self.source.token_column
        if requested in (None, "none"):
            return None
        column = find_column(str(requested), self.names, len(self.names), self.words)
        if self.columns[column].kind not in ("texts", "integers"):
            raise InputError(
                "unclear-tokens",
                f"{self.words.noun} {self._column_name(column)} holds {self._describe(column)}, which are not tokens",
                help=f"{self._spell_option('token-column', 'COLUMN')} names a {self.words.noun} of texts, or says none",
            )
        return column

    def _find_dimensions(self, candidates: list[int]) -> list[int]:
        """Return the columns that are dimensions, or the one that holds vectors, where no option names them.

        Raises:
            InputError: there is none, or it is unclear.
        """
        vectors = [c for c in candidates if self.columns[c].kind == "vectors"]
        numbers = [c for c in candidates if self.columns[c].kind in ("numbers", "integers")]
        if len(vectors) > 1:
            raise self._several_vectors_error(vectors)
        if vectors:
            self._check_vector_is_clear(vectors[0], numbers)
            return vectors
        others = [c for c in candidates if self.columns[c].kind == "other"]
        if not numbers and not others:
            raise InputError(
                "not-a-number",
                f"no {self.words.noun} holds numbers",
                help=f"there are {self.words.noun}s {join_names(map(self._column_name, candidates), max_names=8)}"
                if candidates
                else "write one row per token, with its numbers in columns or in one list",
            )
        if others:
            raise self._unclear_error(others, numbers, "is not a dimension", "are not dimensions")
        has_tokens = self.source.token_column is not None or any(self.columns[c].kind == "texts" for c in candidates)
        names = [self.names[c] for c in numbers]
        if not has_tokens and not self.source.drop and len(names) > 1 and differs_from_rest(names):
            spelled = spell_column(self.names, numbers[0])
            raise InputError(
                "unclear-tokens",
                f"{self.words.noun} {self._column_name(numbers[0])} holds numbers under a name unlike the others: tokens, or a dimension?",
                help=f"{self._spell_option('token-column', spelled)} makes them the tokens, "
                f"{self._spell_option('drop', spelled)} leaves them out, "
                f"{self.source.spell_option('columns', self._spell_all(numbers) or f'{spelled},…')} takes all as dimensions",
            )
        unlike = unlike_columns(self.names, numbers)
        if unlike:
            raise self._unclear_error(
                unlike,
                numbers,
                "has a name unlike the dimensions: is it part of the vector?",
                "have names unlike the dimensions: are they part of the vector?",
            )
        return numbers

    def _check_vector_is_clear(self, vector: int, numbers: list[int]) -> None:
        """Check that a column of vectors is called as one, and that nothing beside it may be a part of the vector.

        Raises:
            InputError: it is unclear.
        """
        spelled = spell_column(self.names, vector)
        takes_it = self._spell_option("columns", spelled)
        if self.names[vector].lower() not in VECTOR_NAMES and self.words is FIELD_WORDS:
            raise InputError(
                "missing-field",
                f"no field is called embedding, vector or values, but {self._column_name(vector)} holds lists of numbers",
                help=f"{takes_it} takes them as the vectors",
            )
        unclear = [c for c in numbers if self.names[c].lower() not in OTHER_NAMES]
        if unclear:
            is_one = len(unclear) == 1
            raise InputError(
                "unclear-columns",
                f"{self.words.noun if is_one else f'{self.words.noun}s'} {join_names(map(self._column_name, unclear), max_names=8)} {'is' if is_one else 'are'} "
                f"beside the vectors of {self._column_name(vector)}: part of them?",
                help=f"{takes_it} leaves {'it' if is_one else 'them'} out",
            )

    def _several_vectors_error(self, columns: Sequence[int]) -> InputError:
        vectors = [c for c in columns if self.columns[c].kind == "vectors"]
        ways = [self._spell_option("columns", spell_column(self.names, c)) for c in vectors]
        if len(vectors) == 1:
            message = (
                f"{self._column_name(vectors[0])} holds whole vectors, and the other {self.words.noun}s single numbers"
            )
        else:
            message = f"{self.words.noun}s {join_names(map(self._column_name, vectors), max_names=8)} hold vectors: which are they?"
        return InputError("two-readings", message, help=f"choose one: {join_names(ways, 'or', max_names=8)}")

    def _unclear_error(self, unclear: list[int], numbers: list[int], one: str, several: str) -> InputError:
        names = join_names(map(self._column_name, unclear), max_names=8)
        is_one = len(unclear) == 1
        holds = ""
        if self.columns[unclear[0]].kind == "other":
            holds = f"holds {self.columns[unclear[0]].description} and " if is_one else "hold no numbers and "
        message = f"{self.words.noun if is_one else f'{self.words.noun}s'} {names} {holds}{one if is_one else several}"
        ways = []
        if spelled := self._spell_all(unclear):
            ways.append(f"{self._spell_option('drop', spelled)} leaves {'it' if is_one else 'them'} out")
        if (not holds or not ways) and (spelled := self._spell_all(numbers)):
            columns = self.source.spell_option("columns", spelled)
            ways.append(f"{columns} takes the numbers alone" if holds else f"{columns} takes all")
        return InputError(
            "unclear-columns",
            message,
            help="; ".join(ways) or f"{self._spell_option('drop', 'COLUMN,…')} says what is left out",
        )

    def _check_numbers(self, dimensions: Sequence[int]) -> None:
        """Check that columns which an option names as dimensions hold numbers.

        Raises:
            InputError: one does not.
        """
        for c in dimensions:
            if self.columns[c].kind not in ("numbers", "integers"):
                raise InputError(
                    "not-a-number",
                    f"{self.words.noun} {self._column_name(c)} holds {self._describe(c)}, not numbers",
                    help=f"{self.source.spell_option('columns', 'COLUMN,…')} names those that are dimensions",
                )

    def _choose_tokens(self, texts: list[int]) -> int | None:
        """Return the column of the tokens, where no option names it.

        Raises:
            InputError: several hold texts, and none is the only one that is called as tokens are.
        """
        texts = [
            c for c in texts if self.names[c].lower() not in OTHER_NAMES - TOKEN_NAMES
        ]  # `object`, `split`, `date`
        if len(texts) <= 1:
            return texts[0] if texts else None
        named = [c for c in texts if self.names[c].lower() in TEXT_NAMES]
        others = [c for c in texts if self.names[c].lower() in OTHER_NAMES]
        if len(named) == 1 and len({*named, *others}) == len(texts):
            return named[0]
        ways = [self._spell_option("token-column", spell_column(self.names, c)) for c in texts[:8]]
        raise InputError(
            "unclear-tokens",
            f"{self.words.noun}s {join_names(map(self._column_name, texts), max_names=8)} hold texts: which are the tokens?",
            help=f"choose one: {join_names(ways, 'or')}",
        )

    def _spell_option(self, name: str, value: str) -> str:
        """Spell an option that chooses columns, by the name that it has for tables of this kind."""
        if not self.source.assignment:  # --with has one name for each
            name = {"token-column": self.words.token_option, "columns": self.words.columns_option}.get(name, name)
        return self.source.spell_option(name, value)

    def _column_name(self, column: int) -> str:
        return quote_name(self.names[column])

    def _describe(self, column: int) -> str:
        descriptions = {"texts": "texts", "vectors": "vectors", "numbers": "numbers", "integers": "whole numbers"}
        return self.columns[column].description or descriptions.get(self.columns[column].kind, "something else")

    def _spell_all(self, columns: Sequence[int]) -> str:
        """Return what names some columns in an option; nothing where that would be too long to type."""
        if len(columns) > _MAX_SPELLED_COLUMNS:
            return ""
        return ",".join(spell_column(self.names, c) for c in columns)
