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
from attncli.readers.long_tables import find_long_table, is_result, make_result_error
from attncli.readers.source import Source
from attncli.registry import parse_index
from attncli.text import join_names, pluralize, quote_name, shorten, split_final_digits, suggestion

TOKEN_NAMES = frozenset({
    "", "#", "token", "tokens", "word", "words", "text", "label", "labels", "name", "id", "index", "idx", "pos", "position",
    "__index_level_0__",  # of pandas, in Parquet
})  # fmt: skip
# Names of columns that hold something else than a dimension of a vector.
OTHER_NAMES = TOKEN_NAMES | {
    "unnamed: 0", "ids", "token_id", "row", "rank", "freq", "freqs", "frequency", "count", "counts", "n_tokens",
    "num_tokens", "length", "class", "target", "split", "fold", "year", "date", "timestamp", "score", "weight", "object", "model",
    "type", "vector_type", "namespace", "level_0", "key", "uid", "uuid", "guid", "n", "num", "no", "nr", "total", "occurrences", "outcome",
    "label_id",
}  # fmt: skip
# Names under which a whole vector stands, as libraries, databases and services spell them.
VECTOR_NAMES = frozenset({
    "embedding", "embeddings", "vector", "vectors", "vec", "values", "emb", "embed", "features", "representation", "hidden_state",
    "hidden_states", "sentence_embedding",
})  # fmt: skip
AXIS_NAMES = frozenset("xyzw")
# user_id, userId, word_count, n_words, numTokens, doc_idx
_OTHER_NAME = re.compile(
    r"(?i:.+[_ .-](?:ids?|idx|index|counts?|freq|frequency|num|nr|no|label|class|year|date|rank))"
    r"|(?i:(?:n|num|nr|no|count)[_ .-][a-z]+)|[a-z]+(?:I[dD]|Count|Index|Idx)|num[A-Z][A-Za-z]+"
)
# Names that say more surely than `id` or `label` which column holds the texts of the tokens.
TEXT_NAMES = ("token", "tokens", "word", "words", "text", "texts", "term", "content", "document", "sentence", "title")
_MAX_SPELLED_COLUMNS = 64  # of column names that a way out spells one by one
_MAX_SPELLED_CHARACTERS = 300

ColumnOption: TypeAlias = Literal["token-column", "columns", "drop"]
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
def find_columns(
    source: Source, option: ColumnOption, names: Sequence[str], width: int, words: TableWords = COLUMN_WORDS
) -> list[int]:
    """Return the numbers of the columns that an option names; none where it is not given.

    A column is named by its name or by its place from 0; `name:0` and `place:0` say which of the two is meant, and
    `place:0:3` is the columns 0, 1 and 2.

    Args:
        source: whose option it is.
        option: `token-column` names one column; the others several, between commas.
        names: of the columns; none where they have none.
        width: how many columns there are.
        words: how messages speak of them.

    Raises:
        InputError: there is no such column, two are called so, or a number is the name of one and the place of another.
    """
    requested = source.requested_columns(option)
    items = [requested] if option == "token-column" else [item.strip() for item in requested.split(",") if item.strip()]
    found = [_find_item(item, names, width, words) for item in items]
    unclear = [place for _, place in found]
    if any(place is not None for place in unclear):
        raise _two_readings_error(source, option, items, unclear, names, words)
    return [c for columns, _ in found for c in columns]


def _find_item(item: str, names: Sequence[str], width: int, words: TableWords) -> tuple[list[int], int | None]:
    """Return the columns that one item of an option names, and that at its place where it is the name of another one.

    Raises:
        InputError: there is none, or two are called so.
    """
    place_text, name = item.removeprefix("place:"), item.removeprefix("name:")
    is_place, is_name = place_text != item, name != item
    first, colon, last = place_text.partition(":")
    bounds = [parse_index(first), parse_index(last) if colon and is_place else None]
    place = None if is_name or (colon and not is_place) else bounds[0]
    if colon and place is not None:
        if bounds[1] is not None and 0 <= place < bounds[1] <= width:
            return list(range(place, bounds[1])), None
        place = None
    called = [] if is_place else [c for c, other in enumerate(names) if other == name]
    if len(called) > 1:
        places = join_names([spell_place(names, c) for c in called], "or", max_names=8)
        raise InputError(
            "no-such-column",
            f"{'two' if len(called) == 2 else len(called)} {words.noun}s are called {shorten(name)!r}",
            help=f"their places tell them apart: {places}",
        )
    if place is not None and 0 <= place < width and place not in called:
        return (called, place) if called else ([place], None)
    if called:
        return called, None
    hint = f"there are {width} {words.noun}s, {_spell_range(names, width)}"
    if names and not is_place and parse_index(name) is None:
        hint = suggestion(name, names)
    raise InputError("no-such-column", f"there is no {words.noun} {shorten(item)!r}", help=hint)


def _two_readings_error(
    source: Source,
    option: ColumnOption,
    items: Sequence[str],
    unclear: Sequence[int | None],
    names: Sequence[str],
    words: TableWords,
) -> InputError:
    """The error for numbers that are the name of one column and the place of another.

    Args:
        source: whose option it is.
        option: which.
        items: what it says.
        unclear: for each item the other column that is at its place, if there is one.
        names: of the columns.
        words: how messages speak of them.
    """
    pairs = list(zip(items, unclear, strict=True))
    spelled = [
        spell_option(source, option, ",".join(item if c is None else f"{kind}:{item}" for item, c in pairs), words)
        for kind in ("name", "place")
    ]
    item, place = next((item, c) for item, c in pairs if c is not None)
    return InputError(
        "two-readings",
        f"{item!r} is the name of one {words.noun}, and the place of another, {quote_name(names[place])}",
        help=f"by names: {spelled[0]}; by places, counted from 0: {spelled[1]}",
    )


def _spell_range(names: Sequence[str], width: int) -> str:
    """Spell the places of all columns."""
    return f"{spell_place(names, 0)} … {spell_place(names, width - 1)}"


def spell_place(names: Sequence[str], column: int) -> str:
    """Spell a column by its place: its number, which is no other column's name, or else `place:` before it."""
    is_clear = all(c == column for c, name in enumerate(names) if name == str(column))
    return str(column) if is_clear else f"place:{column}"


def spell_column(names: Sequence[str], column: int) -> str:
    """Spell a column as options take it: by its name, or by its place where the name cannot be typed as it stands."""
    name = names[column] if names else ""
    if not re.fullmatch(r"[\w.:/@+][\w.:/@+-]{0,80}", name) or names.count(name) > 1:
        return spell_place(names, column)
    is_other = parse_index(name) not in (None, column) and 0 <= (parse_index(name) or 0) < len(names)
    return f"name:{name}" if is_other or name.startswith(("name:", "place:")) or name == "none" else name


def spell_columns(names: Sequence[str], columns: Sequence[int]) -> str:
    """Spell columns as `--columns` and `--drop` take them; neighbours of a long list as `place:0:300`."""
    spelled = ",".join(spell_column(names, c) for c in columns[:_MAX_SPELLED_COLUMNS])
    if len(columns) <= _MAX_SPELLED_COLUMNS and len(spelled) <= _MAX_SPELLED_CHARACTERS:
        return spelled
    runs: list[list[int]] = []  # first, and the place after the last
    for c in columns:
        if runs and c == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([c, c + 1])
    return ",".join(spell_place(names, a) if b == a + 1 else f"place:{a}:{b}" for a, b in runs)


def spell_option(source: Source, option: ColumnOption, value: str, words: TableWords) -> str:
    """Spell an option that chooses columns, by the name that it has for tables of this kind."""
    own_names = {"token-column": words.token_option, "columns": words.columns_option}
    return source.spell_option(option if source.assignment or source.is_value else own_names.get(option, option), value)


def unlike_columns(names: Sequence[str], dimensions: Sequence[int]) -> list[int]:
    """Return the columns whose names say something else, or are unlike the numbered names of most others."""
    lowered = [names[c].lower() for c in dimensions]
    parts = [split_final_digits(name) for name in lowered]
    stems = Counter(stem for stem, digits in parts if digits)
    stem, count = stems.most_common(1)[0] if stems else ("", 0)
    are_numbered = count >= 2 and 2 * count > len(lowered)
    are_axes = 2 * sum(name in AXIS_NAMES for name in lowered) > max(3, len(lowered))
    return [
        c
        for c, name, part in zip(dimensions, lowered, parts, strict=True)
        if name in OTHER_NAMES
        or _OTHER_NAME.fullmatch(names[c])
        or (are_numbered and not (part[0] == stem and part[1]))
        or (are_axes and name not in AXIS_NAMES)
    ]


def are_alike(names: Sequence[str]) -> bool:
    """Whether all names are those of dimensions: d0, d1, d2, or x, y, z."""
    lowered = [name.lower() for name in names]
    stems = {split_final_digits(name)[0] for name in lowered}
    return set(lowered) <= AXIS_NAMES or (len(stems) == 1 and all(name[-1:].isdigit() for name in lowered))


def differs_from_rest(names: Sequence[str]) -> bool:
    """Whether the first of some column names is of another kind than the rest: id, d0, d1, d2."""
    stems = {split_final_digits(name)[0] for name in names[1:]}
    are_numbered = len(names) > 2 and len(stems) == 1 and all(name[-1:].isdigit() for name in names[1:])
    return names[0].lower() in TOKEN_NAMES or (are_numbered and split_final_digits(names[0])[0] not in stems)


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
            dimensions = self._find_all("columns")
            candidates = [c for c in range(len(self.columns)) if c not in dimensions]
        else:
            dropped = set(self._find_all("drop"))
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
        if is_result(self.names):
            raise make_result_error(".feather" if self.source.format == "arrow" else ".parquet")
        long = find_long_table([self.names[c] for c in candidates])
        if long and all(self.columns[c].kind in ("numbers", "integers", "texts") for c in candidates):
            raise InputError("two-readings", long.message, help=long.spell_readings(self.source))

    def _find_all(self, option: ColumnOption) -> list[int]:
        return find_columns(self.source, option, self.names, len(self.names), self.words)

    def _find_requested_tokens(self) -> int | None:
        """Return the column of the tokens where an option names one.

        Raises:
            InputError: it does not exist, or holds neither texts nor whole numbers.
        """
        if self.source.token_column in (None, "none"):
            return None
        [column] = self._find_all("token-column")
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
                f"{self._spell_drop(numbers[:1])} leaves them out, "
                f"{self._spell_option('columns', spell_columns(self.names, numbers))} takes all as dimensions",
            )
        if counts := self._find_counts(numbers):
            raise self._unclear_error(
                counts, numbers, "holds whole numbers, and all others hold fractions: is it part of the vector?", ""
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

    def _find_counts(self, numbers: list[int]) -> list[int]:
        """Return the one column of whole numbers beside several of fractions, where no name says that it is a dimension."""
        integers = [c for c in numbers if self.columns[c].kind == "integers"]
        have_names = self.names != [str(c) for c in range(len(self.names))]
        are_dimensions = have_names and are_alike([self.names[c] for c in numbers])
        return integers if len(integers) == 1 and len(numbers) > 2 and not are_dimensions else []

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
        help = f"{self._spell_drop(unclear)} leaves {'it' if is_one else 'them'} out"
        if not holds:
            help += f"; {self.source.spell_option('columns', spell_columns(self.names, numbers))} takes all"
        return InputError("unclear-columns", message, help=help)

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

    def _spell_drop(self, columns: Sequence[int]) -> str:
        """Spell the option that leaves columns out, beside those that are left out already."""
        return self._spell_option("drop", spell_columns(self.names, [*self._find_all("drop"), *columns]))

    def _spell_option(self, option: ColumnOption, value: str) -> str:
        return spell_option(self.source, option, value, self.words)

    def _column_name(self, column: int) -> str:
        return quote_name(self.names[column])

    def _describe(self, column: int) -> str:
        descriptions = {"texts": "texts", "vectors": "vectors", "numbers": "numbers", "integers": "whole numbers"}
        return self.columns[column].description or descriptions.get(self.columns[column].kind, "something else")
