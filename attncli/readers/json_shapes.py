"""Recognise tables of tokens and vectors in JSON, as data frames, vector stores and services write them.

Entries: `find_table`, which tells what a decoded value is; `expand_embeddings`; `is_token`, for one line of JSON lines.
Nothing is guessed where a value can be read in two ways: both are spelled. A value that is no table is left to the reader
of problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from attncli.errors import InputError, Location
from attncli.readers.columns import AXIS_NAMES, OTHER_NAMES, VECTOR_NAMES, spell_columns
from attncli.readers.json_tables import (
    Table,
    has_word,
    is_labelled_row,
    is_matrix,
    is_text_of_vector,
    is_vector,
    table_of_mixed_rows,
    table_of_records,
    table_of_rows,
    unwrap_vector,
)
from attncli.readers.source import Source
from attncli.text import closest, join_names, printable, shorten, split_final_digits
from attncli.types import INPUT_NAMES, Json

# Fields of a problem that other things have too, so that they alone make no problem.
_SHARED_NAMES = frozenset({"id", "meta", "embeddings"})
PROBLEM_NAMES = INPUT_NAMES - _SHARED_NAMES
# Fields that hold several rows in a problem; a single vector beside a token may have one of these names, too.
_MATRIX_NAMES = frozenset("qkv")
_NAMES_OF_WORDS = frozenset({"token", "word", "text", "label", "name"})
# What services and vector stores say beside the vectors, in an object that is no problem.
_ANSWER_NAMES = frozenset({
    "object", "model", "usage", "id", "meta", "created", "texts", "images", "response_type", "total_duration", "load_duration",
    "prompt_eval_count", "ids", "documents", "metadatas", "uris", "included", "data", "index", "provider", "embeddings",
})  # fmt: skip
_LABEL_NAMES = ("texts", "documents", "ids")  # of answers, the surest first
_COHERE_TYPES = frozenset({"float", "int8", "uint8", "binary", "ubinary", "base64"})
_SPLIT_NAMES = {"columns", "data", "index", "index_names", "column_names"}
_ASIDES = ("usage", "meta")  # objects beside the list of an answer
_QKV_NAMES = frozenset({"query", "queries", "querys", "key", "keys", "value", "values"})
_MAX_ENVELOPES = 3  # objects within each other around that list
_TO_RECORDS = (
    'python -c "import json, sys; print(json.dumps([dict(token=t, embedding=v) for t, v in json.load(sys.stdin).items()]))" '
    "< FILE > NEW.json"
)


# ── what a value is ──────────────────────────────────────────────────────────────────────────────
def is_problem(names: Iterable[str]) -> bool:
    """Whether an object with these keys is a problem or a result, and nothing else that holds vectors."""
    keys = set(names)
    if keys & PROBLEM_NAMES or (keys and keys <= {"id", "meta"}):
        return True
    return "embeddings" in keys and not (keys <= _ANSWER_NAMES and keys - _SHARED_NAMES)


def find_table(value: object, source: Source) -> Table | None:
    """Find the table that a decoded JSON value is; None where it is none.

    Raises:
        InputError: it is one in two ways, or one that is refused.
    """
    if isinstance(value, list):
        return _table_of_list(value)
    if not isinstance(value, dict) or not value:
        return None
    for find in (_table_of_answer, _table_of_split, _table_of_record, _table_of_envelope, _table_of_frame):
        table = find(value)
        if table is not None:
            return table
    return _table_of_lists(value, source)


def expand_embeddings(value: object, source: Source) -> tuple[Json, str] | None:
    """Return the fields that `embeddings` stands for where it is an object, or a list of objects; None where it is neither.

    Raises:
        InputError: it is no table of tokens and vectors.
    """
    if isinstance(value, dict) and set(value) <= _COHERE_TYPES and any(map(is_matrix, value.values())):
        return _cohere_fields(value), "embeddings of type float"
    table = None
    if isinstance(value, dict) and value and all(map(is_vector, value.values())):
        table = _table_of_words(value)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        table = table_of_records(value)
    return None if table is None else table.to_fields(source)


def is_token(value: object) -> bool:
    """Whether one line of JSON lines is a token with its vector, so that it is no problem."""
    if isinstance(value, list):
        return is_vector(value) or (is_labelled_row(value) and has_word(value))
    if not isinstance(value, dict) or not value:
        return False
    fields = set(value) & PROBLEM_NAMES
    if fields and not (
        _NAMES_OF_WORDS & set(value) and fields < _MATRIX_NAMES and all(is_vector(value[f]) for f in fields)
    ):
        return False
    if "embeddings" in value and not is_vector(value["embeddings"]):  # of a problem it is a matrix
        return False
    if any(
        is_vector(inner) or (name.lower() in VECTOR_NAMES and is_text_of_vector(inner)) for name, inner in value.items()
    ):
        return True
    are_scalars = all(inner is None or type(inner) in (int, float, str, bool) for inner in value.values())
    return are_scalars and any(
        type(inner) in (int, float) and name.lower() not in OTHER_NAMES for name, inner in value.items()
    )


def table_of_tokens(values: list[object]) -> Table | None:
    """Make the table of a token a line; None where a line is none."""
    if all(isinstance(value, dict) for value in values):
        return table_of_records(values)
    if all(map(is_labelled_row, values)):
        return table_of_rows(values)
    if all(map(is_vector, values)):
        return Table(["embedding"], [values])
    return None


# ── lists ────────────────────────────────────────────────────────────────────────────────────────
def _table_of_list(items: list[object]) -> Table | None:
    if items and isinstance(items[0], dict):
        return table_of_records(items)
    if items and all(map(is_labelled_row, items)) and any(map(has_word, items)):
        return table_of_rows(items)
    return table_of_mixed_rows(items)


# ── objects ──────────────────────────────────────────────────────────────────────────────────────
def _table_of_answer(value: Json) -> Table | None:
    """The table of an answer with a list of vectors: of Ollama, Cohere, Chroma, or of OpenAI's form, in the order of `index`."""
    vectors = value.get("embeddings")
    if vectors is not None and set(value) <= _ANSWER_NAMES:
        if isinstance(vectors, dict):
            vectors = _cohere_fields(vectors)["embeddings"]
        if isinstance(vectors, list) and vectors and isinstance(vectors[0], dict):
            return table_of_records(vectors, "$.embeddings[{row}].{name}")
        if is_matrix(vectors):
            labels = (value[name] for name in _LABEL_NAMES if _is_list_of_texts(value.get(name), len(vectors)))
            found = next(labels, None)
            names, columns = ["embedding"], [vectors]
            return Table([*names, *(["text"] if found else [])], [*columns, *([found] if found else [])])
        return None
    items = value.get("data")
    if (
        not isinstance(items, list)
        or not items
        or not all(isinstance(item, dict) for item in items)
        or "schema" in value
    ):
        return None
    if all(type(item.get("index")) is int and "embedding" in item for item in items):
        items = _in_order_of_index(items)
    return table_of_records(items, "$.data[{row}].{name}")


def _in_order_of_index(items: list[Json]) -> list[Json]:
    """Bring items into the order that their `index` says.

    Raises:
        InputError: the numbers are not 0 … n−1.
    """
    numbers = sorted(item["index"] for item in items)
    if numbers != list(range(len(items))):
        raise InputError(
            "out-of-range",
            f"the items are numbered {join_names(numbers, max_names=6)}, not 0 … {len(items) - 1}",
            location=Location(path="$.data"),
            help="an answer that was cut or joined: join its items, or remove `index`",
        )
    return sorted(items, key=lambda item: int(item["index"]))


def _is_list_of_texts(value: object, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(isinstance(item, str) for item in value)


def _cohere_fields(embeddings: Json) -> Json:
    if is_matrix(embeddings.get("float")):
        return {"embeddings": embeddings["float"]}
    raise InputError(
        "wrong-type",
        f"these embeddings are of type {join_names(map(shorten, embeddings), max_names=6)}, and none are floats",
        location=Location(path="$.embeddings"),
        help='ask for them with "embedding_types": ["float"]',
    )


def _table_of_split(value: Json) -> Table | None:
    """The table of pandas' orient="split", "tight" and "table"."""
    rows = value.get("data")
    schema = value.get("schema")
    if isinstance(schema, dict) and isinstance(rows, list) and isinstance(schema.get("fields"), list) and rows:
        table = table_of_records(rows, "$.data[{row}].{name}")
        key = schema.get("primaryKey")
        index = key[0] if isinstance(key, list) and len(key) == 1 else None
        return _without_numbering(table, index)
    names = value.get("columns")
    if not set(value) <= _SPLIT_NAMES or not isinstance(names, list) or not isinstance(rows, list) or not rows:
        return None
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            message = f"row {i} does not have the {len(names)} columns that are named"
            raise InputError("ragged", message, location=Location(path=f"$.data[{i}]"), help="a value for each column")
    columns = [list(column) for column in zip(*rows, strict=True)]
    labels = value.get("index")
    if isinstance(labels, list) and len(labels) == len(rows):
        names, columns = ["index", *names], [labels, *columns]
    return _without_numbering(Table([str(name) for name in names], columns, paths="$.data[{row}].{name}"), "index")


def _without_numbering(table: Table, index: object) -> Table:
    """Leave out an index that only counts the rows."""
    if index in table.names:
        i = table.names.index(str(index))
        if table.columns[i] == list(range(len(table.columns[i]))):
            names = table.names[:i] + table.names[i + 1 :]
            return Table(names, table.columns[:i] + table.columns[i + 1 :], table.words, table.paths)
    return table


def _table_of_record(value: Json) -> Table | None:
    """The table of one token: an object with one vector under a name that vectors have."""
    unwrapped = {name: unwrap_vector(inner) for name, inner in value.items()}
    vectors = [name for name, inner in unwrapped.items() if is_vector(inner)]
    if len(vectors) == 1 and vectors[0].lower() in VECTOR_NAMES and len(unwrapped) < 50:
        others_are_plain = all(not isinstance(inner, list) for name, inner in unwrapped.items() if name not in vectors)
        if others_are_plain:
            return table_of_records([unwrapped], "$.{name}")
    return None


def _table_of_envelope(value: Json) -> Table | None:
    """The table of the one list of objects that stands in an object, or in one that stands in it."""
    path = "$"
    items: object = value
    while isinstance(items, dict) and path.count(".") < _MAX_ENVELOPES:
        inner = [(name, item) for name, item in items.items() if isinstance(item, list | dict) and name not in _ASIDES]
        if len(inner) != 1:
            return None
        name, items = inner[0]
        path += f".{shorten(name)}"
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return None
    if name == "predictions":
        items = [item["embeddings"] if isinstance(item.get("embeddings"), dict) else item for item in items]
    braceless = path.replace("{", "{{").replace("}", "}}")
    return table_of_records(list(map(_unwrap_point, items)), braceless + "[{row}].{name}")


def _unwrap_point(item: Json) -> Json:
    """Return a point of Qdrant with the texts of its payload beside its one vector; any other item as it is."""
    payload, vector = item.get("payload"), item.get("vector")
    if not isinstance(payload, dict) or "vector" not in item:
        return item
    if isinstance(vector, dict) and len(vector) == 1:  # vectors have names
        vector = next(iter(vector.values()))
    texts = {name: inner for name, inner in payload.items() if isinstance(inner, str) and name not in item}
    return {**texts, **{name: inner for name, inner in item.items() if name != "payload"}, "vector": vector}


def _table_of_frame(value: Json) -> Table | None:
    """The table of an object of objects with the same keys: pandas' orient="columns" and "index".

    Raises:
        InputError: rows and columns cannot be told apart.
    """
    inner = list(value.values())
    if not all(isinstance(item, dict) and item for item in inner) or any(
        item.keys() != inner[0].keys() for item in inner
    ):
        return None
    cells = [cell for item in inner for cell in item.values()]
    if any(isinstance(cell, dict) or is_matrix(cell) for cell in cells) or not any(
        type(cell) in (int, float) or is_vector(cell) for cell in cells
    ):
        return None
    if len(value) == 1 and _find_likely_fields(value):  # {"embedings": {"cat": […]}}: the error names the field
        return None
    outer_names, inner_names = list(value), list(inner[0])
    rows_in_columns = [[item[name] for name in inner_names] for item in inner]
    rows_in_order = [list(column) for column in zip(*rows_in_columns, strict=True)]
    columns_first = Table(["index", *outer_names], [inner_names, *rows_in_columns], paths="$.{name}[{row}]")
    rows_first = Table(["index", *inner_names], [outer_names, *rows_in_order], paths="$[{row}].{name}")
    are_columns_alike, are_rows_alike = _are_uniform(rows_in_columns), _are_uniform(rows_in_order)
    if are_columns_alike and are_rows_alike:
        outer_are_columns, inner_are_columns = _are_column_names(outer_names), _are_column_names(inner_names)
        if outer_are_columns == inner_are_columns:
            raise InputError(
                "two-readings",
                "an object of objects: are the outer keys the tokens, or the columns?",
                help=_spell_frames(outer_names, inner_names),
            )
        are_columns_alike = outer_are_columns
    return _with_labels(columns_first if are_columns_alike else rows_first)


def _spell_frames(outer_names: Sequence[str], inner_names: Sequence[str]) -> str:
    """Spell the command for each reading of a data frame; labels that only count the rows are left out."""
    by_outer, by_inner = "jq '[.[] | [.[]]]'", "jq '[.[] | [.[]]] | transpose'"
    if not all(name.isdigit() for name in outer_names):
        by_outer = "jq '[to_entries[] | {token: .key, embedding: [.value[]]}]'"
    if not all(name.isdigit() for name in inner_names):
        by_inner = "jq '[.[] | to_entries] | transpose | [.[] | {token: .[0].key, embedding: [.[].value]}]'"
    return f"tokens: {by_outer} FILE > NEW.json; columns: {by_inner} FILE > NEW.json"


def _are_uniform(columns: list[list[object]]) -> bool:
    """Whether the values of each column are of one kind."""
    return all(
        len({float if type(value) is int else type(value) for value in column if value is not None}) <= 1
        for column in columns
    )


def _are_column_names(names: list[str]) -> bool:
    """Whether names are those of dimensions: d0, d1, d2, or x, y, z."""
    lowered = [name.lower() for name in names]
    if set(lowered) <= AXIS_NAMES:
        return True
    stems = {split_final_digits(name)[0] for name in lowered}
    return len(stems) == 1 and all(name[-1:].isdigit() for name in lowered) and stems != {""}


def _with_labels(table: Table) -> Table:
    """Keep the index of a data frame only where it holds labels, and no other column does."""
    labels, others = table.columns[0], table.columns[1:]
    has_texts = any(values and all(isinstance(value, str) for value in values) for values in others)
    if has_texts or all(re.fullmatch(r"\d+", label) for label in labels):
        return Table(table.names[1:], others, table.words, table.paths)
    return table


def _table_of_lists(value: Json, source: Source) -> Table | None:
    """The table of an object of lists: a vector for each token, or a list for each column.

    Raises:
        InputError: it may be either.
    """
    lists = list(value.values())
    if not all(isinstance(items, list) and items for items in lists):
        return None
    names = list(value)
    columns = Table(names, lists, paths="$.{name}[{row}]")
    if not all(map(is_vector, lists)):
        if {name.lower() for name in names} <= _QKV_NAMES and all(map(is_matrix, lists)):
            return None  # q, k and v by other names: the error names ours
        same_length = all(len(items) == len(lists[0]) for items in lists)
        has_labels = any(all(isinstance(item, str) for item in items) for items in lists)
        has_vectors = any(is_matrix(items) and name.lower() in VECTOR_NAMES for name, items in value.items())
        return columns if same_length and (has_labels or has_vectors) else None
    if source.columns or source.drop:
        return columns
    lowered = {name.lower() for name in names}
    are_numbers = all(re.fullmatch(r"\d+", name) for name in names)
    if likely := _find_likely_fields(value):
        raise _misspelt_fields_error(names, likely)
    if are_numbers or _are_column_names(names) or lowered & (OTHER_NAMES | VECTOR_NAMES):
        spelled = spell_columns(names, range(len(names)))
        raise InputError(
            "two-readings",
            f"{join_names([repr(shorten(name)) for name in names], max_names=4)} hold a list of numbers each: are they tokens, or columns?",
            help=f"columns: {source.spell_option('columns', spelled)}; tokens: {_TO_RECORDS}",
        )
    return _table_of_words(value)


def _find_likely_fields(value: Json) -> list[str]:
    """Return the fields that the keys of an object are like; none where a key is like no field."""
    found = [closest(name.strip(), INPUT_NAMES) for name in value] if len(value) <= len(INPUT_NAMES) else [None]
    return [] if None in found else [str(name) for name in found]


def _misspelt_fields_error(names: list[str], fields: list[str]) -> InputError:
    """The error for an object of vectors whose keys may be misspelt fields, or tokens that are called so."""
    spelled = join_names([repr(printable(shorten(name))) for name in names], max_names=4)
    likely = join_names([repr(name) for name in dict.fromkeys(fields)], max_names=4)
    is_one = len(names) == 1
    form = (
        ", with a list of numbers for each token, as in [[0.1, 0.2]]"
        if set(fields) <= set("qkv") | {"embeddings"}
        else ""
    )
    return InputError(
        "two-readings",
        f"{spelled} {'is' if is_one else 'are'} like {likely}: {'a field' if is_one else 'fields'} misspelt, or {'a token' if is_one else 'tokens'} called so?",
        location=Location(path=f"$.{shorten(names[0])}"),
        help=f"{'a field' if is_one else 'fields'}: write {join_names(fields, max_names=4)}{form}; {'a token' if is_one else 'tokens'}: {_TO_RECORDS}",
    )


def _table_of_words(value: Mapping[str, Sequence[object]]) -> Table:
    """The table of `{"cat": [0.1, 0.2], "sat": [0.3, 0.4]}`.

    Raises:
        InputError: the vectors are not equally long.
    """
    width = len(next(iter(value.values())))
    for word, vector in value.items():
        if len(vector) != width:
            message = f"{printable(shorten(word))!r} has {len(vector)} numbers, but the first has {width}"
            raise InputError(
                "ragged",
                message,
                location=Location(path=f"$.{shorten(word)}"),
                help="all vectors must have the same length",
            )
    return Table(["token", "embedding"], [list(value), list(value.values())], are_keys_tokens=True)


def check_finite_values(value: object, path: str) -> None:
    """Check that what is only carried along holds no NaN and no ∞, which JSON cannot hold.

    Raises:
        InputError: it does; with the place.
    """
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        inner = ((f".{shorten(name)}", item) for name, item in value.items())
    elif isinstance(value, list):
        inner = ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, float) and value - value != 0:
        raise InputError(
            "not-finite",
            f"{path} is {value}, which JSON cannot hold",
            location=Location(path=path),
            help="put it in quotes",
        )
    for name, item in chain(inner):
        check_finite_values(item, path + name)
