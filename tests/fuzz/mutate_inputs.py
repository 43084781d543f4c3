"""Broken inputs of every format from a seed, read in this process, with the opinion of another library on what is accepted.

Entries: `fuzz`, for the formats that it is given. `python -m tests.fuzz --only readers` is the long form.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars
import zstandard

import attncli
from attncli.errors import AttnError
from attncli.plan import make_plan
from attncli.types import INPUT_NAMES
from tests.fuzz.harness import Outcome, describe_exception
from tests.fuzz.second_opinions import check_opinion, polars_opinion

Rng = random.Random


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────
NUMBERS = ["0", "-1", "2.5", "1e308", "1e309", "-0.0", "1E-400", "9007199254740993", "18446744073709551616", "1" * 400, "1" * 5000, "0.1" + "1" * 400, "1e-5", "01", "1.", ".5", "+1", "NaN", "-Infinity", "1_0"]  # fmt: skip
TEXTS = ['""', '"a"', '"NaN"', '"-Infinity"', '"\\u003a"', '"\\ud800"', '"é"', '"causal"', '"a:b"', '"' + "x" * 300 + '"', '"\\u0000"', '"window:left=1"', '"1"']  # fmt: skip
CHOICES = ["mask", "heads", "kv_heads", "scale", "softcap", "position", "score", "normalizer", "chain", "dropout", "seed", "dtype", "name", "self", "sink", "qk_norm", "empty_rows", "align", "head_mixing", "projection"]  # fmt: skip
NAMES = [*sorted(INPUT_NAMES), "w_q", "w_k", "values", "rows", "decimals", "weights", "scores", "schema", "token", "embedding", *CHOICES]  # fmt: skip


def random_json(rng: Rng, depth: int = 0) -> str:
    """Return JSON text, now and then of what is none."""
    kind = rng.random()
    if depth > 4 or kind < 0.25:
        return rng.choice(NUMBERS[:3] * 12 + NUMBERS)
    if kind < 0.4:
        return rng.choice([*TEXTS, "true", "false", "null"])
    if kind < 0.5:
        return matrix(rng)
    if kind < 0.75:
        return "[" + ",".join(random_json(rng, depth + 1) for _ in range(rng.randrange(4))) + "]"
    return "{" + ",".join(f'"{rng.choice(NAMES)}":{random_json(rng, depth + 1)}' for _ in range(rng.randrange(4))) + "}"


def matrix(rng: Rng, rows: int | None = None, columns: int | None = None) -> str:
    """Return the text of a matrix of numbers, now and then with one that is odd."""
    rows, columns = rows or rng.randrange(1, 4), columns or rng.randrange(1, 4)
    odd = rng.random() < 0.05
    return (
        "["
        + ",".join(
            "[" + ",".join(rng.choice(NUMBERS if odd else NUMBERS[:3]) for _ in range(columns)) + "]"
            for _ in range(rows)
        )
        + "]"
    )


def json_problem(rng: Rng) -> bytes:
    """Return a problem in JSON in which a field or a few are anything."""
    n = rng.randrange(1, 4)
    members = [f'"embeddings":{matrix(rng, n)}'] if rng.random() < 0.7 else []
    for _ in range(rng.randrange(4)):
        name = rng.choice(NAMES[: len(INPUT_NAMES)])
        if name == "variant" and rng.random() < 0.8:
            value = (
                "{" + ",".join(f'"{rng.choice(CHOICES)}":{random_json(rng, 3)}' for _ in range(rng.randrange(3))) + "}"
            )
        elif name in ("positions", "segments", "lengths", "k_positions") and rng.random() < 0.7:
            value = "[" + ",".join(rng.choice(NUMBERS[:2] * 8 + NUMBERS) for _ in range(n)) + "]"
        elif name == "tokens" and rng.random() < 0.7:
            value = "[" + ",".join(rng.choice(TEXTS) for _ in range(n)) + "]"
        else:
            value = random_json(rng)
        members.append(f'"{name}":{value}')
    rng.shuffle(members)
    if rng.random() < 0.2:
        items = [f'{{"token":{rng.choice(TEXTS)},"embedding":[{rng.choice(NUMBERS)}]}}' for _ in range(n)]
        return ("[" + ",".join(items) + "]").encode()
    return ("{" + ",".join(members) + "}").encode()


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────
CELLS = [
    *NUMBERS,
    "cat",
    "",
    " ",
    "nan",
    "٣",
    "1,5",
    '"a"',
    '"a',
    'a"',
    "\ufeff",
    "a b",
    "-",
    "1e",
    "\x0b",
    "0x1",
    "x" * 200,
]


def csv_problem(rng: Rng) -> bytes:
    """Return rows of cells, most of them alike."""
    separator, end = rng.choice(",,,;\t"), rng.choice(["\n", "\n", "\r\n", "\r", "\n\n"])
    width, odd = rng.randrange(1, 5), rng.choice([0.0, 0.0, 0.05, 0.4])

    def row(i: int) -> str:
        cells = [f"w{i}" if c == 0 and width > 1 else rng.choice(["1", "2.5", "-3e-2"]) for c in range(width)]
        cells = [rng.choice(CELLS) if rng.random() < odd else cell for cell in cells]
        return separator.join(cells[: rng.randrange(1, width + 1)] if rng.random() < odd / 4 else cells)

    rows = [row(i) for i in range(rng.randrange(1, 6))]
    if rng.random() < 0.3:
        rows.insert(0, separator.join(rng.choice(["token", "d0", "d1", "0", "1", "id", "x"]) for _ in range(width)))
    return (rng.choice(["", "", "\ufeff", "\n"]) + end.join(rows) + rng.choice(["", end, end * 3])).encode()


def txt_problem(rng: Rng) -> bytes:
    """Return rows between blanks, as GloVe, word2vec and numpy.savetxt write them, most of them alike."""
    end, width, odd = rng.choice(["\n", "\n", " \n", "\r\n"]), rng.randrange(1, 5), rng.choice([0.0, 0.0, 0.05, 0.3])
    blank, token_words = rng.choice([" ", " ", "  ", "\t"]), rng.choice([0, 1, 1, 1, 2])
    words = ["cat", ".", "at", "name@domain.com", '"', ",", "#", "2008", "[", "x\x0by"]
    rows = []
    for _ in range(rng.randrange(1, 6)):
        numbers = [rng.choice(["1", "2.5", "-3e-2", "0.125"]) for _ in range(width)]
        cells = [*(rng.choice(words) for _ in range(token_words)), *numbers]
        rows.append(blank.join(rng.choice(CELLS) if rng.random() < odd else cell for cell in cells))
    if rng.random() < 0.3:
        rows.insert(0, f"{rng.choice([len(rows)] * 4 + [0, 7])} {rng.choice([width] * 4 + [2])}")
    elif rng.random() < 0.2:
        rows.insert(0, rng.choice(["# d0 d1", "% a comment", "token d0 d1"]))
    return (rng.choice(["", "", "\ufeff"]) + end.join(rows) + rng.choice(["", end])).encode()


def packed_problem(rng: Rng, packing: str, make: Callable[[Rng], bytes]) -> bytes:
    """Return a text in one or two parts, packed."""
    data = make(rng)
    if rng.random() < 0.2:
        data = damage(rng, data) if data else data
    cut = rng.choice([0, len(data) // 2])
    pack = gzip.compress if packing == "gz" else zstandard.compress
    return b"".join(pack(part) for part in (data[:cut], data[cut:]) if part) or pack(b"")


# ── tables ───────────────────────────────────────────────────────────────────────────────────────
def table_problem(rng: Rng, format_name: str) -> bytes:
    """Return a table of Parquet or Arrow whose columns are of any type, most of them of numbers."""
    n, out, is_odd = rng.randrange(1, 4), io.BytesIO(), rng.random() < 0.3
    columns: dict[str, polars.Series] = {}
    for i in range(rng.randrange(1, 5)):
        kinds = (
            [polars.Int16, polars.UInt64, polars.Boolean, polars.Date] if is_odd else [polars.Float64, polars.Float32]
        )
        numbers = [0.5, 1.5, None, float("nan")] if is_odd else [0.5, 1.5, -2.0]
        kind = rng.choice(kinds)
        values = [rng.choice(numbers if kind.is_float() else [0, 1, 2]) for _ in range(n)]
        columns[rng.choice(["freq", "token", "", f"d{i}"]) if is_odd else f"d{i}"] = polars.Series(values).cast(kind)
    if rng.random() < 0.3:
        columns["embedding"] = polars.Series(
            [[0.5, float(i)][: rng.choice([2] * 8 + [1])] for i in range(n)], dtype=polars.List(polars.Float64)
        )
    if rng.random() < 0.6:
        columns["token"] = polars.Series([rng.choice(["a", "é", ""]) for _ in range(n)], dtype=polars.String)
    frame = polars.DataFrame(columns)
    if format_name == "parquet":
        frame.write_parquet(
            out, compression=rng.choice(["uncompressed", "snappy", "zstd"]), row_group_size=rng.choice([None, 2])
        )
    elif rng.random() < 0.5:
        frame.write_ipc(out, compression=rng.choice(["uncompressed", "lz4", "zstd"]))
    else:
        frame.write_ipc_stream(out)
    return out.getvalue()


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
DTYPES = ["<f8", "<f4", "<f2", ">f8", "<i8", "|i1", "<u8", "|b1", "<U3", "|S2", "<c16", "<f16", "|V4", "<M8[s]", "<U0"]
ARRAY_NAMES = ["embeddings", "q", "k", "v", "positions", "segments", "lengths", "mask", "bias", "tokens", "attn", "layout", "about", "about.x", "variant", "variant.heads", "parameters.w_q", "parameters", "past.k", "memory.embeddings", "expected.weights", "expected.weights.values", "a.b.c.d", "", ".", "schema"]  # fmt: skip


def random_array(rng: Rng) -> np.ndarray:
    """Return an array of any dtype and some small shape, with extreme numbers in it."""
    shape = rng.choice([(2, 2), (2,), (), (1, 2, 2), (2, 0), (1, 1, 2, 2), (3, 2)])
    dtype = np.dtype(rng.choice(DTYPES[:5] * 3 + DTYPES))
    count = int(np.prod(shape))
    raw = rng.choice([bytes, rng.randbytes])(count * dtype.itemsize)
    array = np.frombuffer(raw, dtype, count) if dtype.itemsize else np.zeros(count, dtype)
    if dtype.kind == "f" and rng.random() < 0.7:
        with np.errstate(all="ignore"):
            numbers = [0.0, 1.0, -2.0, 0.5, 1e300, np.nan, np.inf, 2.0**62] if rng.random() < 0.4 else [0.0, 1.0, 2.0]
            array = np.array([rng.choice(numbers) for _ in range(count)]).astype(dtype)
    if dtype.kind in "iu" and rng.random() < 0.7:
        array = np.array([rng.choice([0, 1, 2]) for _ in range(count)], dtype)
    return array.reshape(shape)


def npy_bytes(array: np.ndarray) -> bytes:
    """Return an array as an NPY file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def npz_problem(rng: Rng) -> bytes:
    """Return an archive by one of zip's four methods."""
    out = io.BytesIO()
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that stands twice
        if rng.random() < 0.7:
            archive.writestr("embeddings.npy", npy_bytes(np.array([[1, 2], [3, 4]], rng.choice(DTYPES[:6]))))
        for _ in range(rng.randrange(3)):
            name = rng.choice(ARRAY_NAMES)
            array = random_array(rng)
            if name == "attn" or rng.random() < 0.1:
                array = np.array(rng.choice([json_problem(rng).decode("utf-8", "replace"), "{}", "[]", "{"]))
            archive.writestr((name + rng.choice([".npy", ".npy", ""])) or ".npy", npy_bytes(array))
    return out.getvalue()


def safetensors_problem(rng: Rng) -> bytes:
    """Return a safetensors file whose header may lie."""
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "U64": 8, "BOOL": 1, "F8_E5M2": 1, "X": 1}
    members, data = [], b""
    if rng.random() < 0.7:
        members, data = (
            ['"embeddings":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}'],
            struct.pack("<4f", 1, 2, 3, 4),
        )
    for _ in range(rng.randrange(3)):
        dtype = rng.choice(list(sizes))
        shape = rng.choice([[2, 2], [2], [], [1, 2, 2], [2, 0], [0, 2**62], [0, 2**31, 2**31, 2**31], [1] * 65, [-1]])
        size = max(0, int(np.prod([float(n) for n in shape]))) * sizes[dtype] if 0 not in shape else 0
        offsets: list[Any] = [len(data), len(data) + size]
        if rng.random() < 0.1:
            offsets = rng.choice([[0, 2**64], [len(data)], [None, 1], ["0", "8"], [0.0, 8.0], [True, 8]])
        data += rng.choice([bytes, rng.randbytes])(size)
        members.append(f'"{rng.choice(ARRAY_NAMES)}":' + json.dumps({"dtype": dtype, "shape": shape, "data_offsets": offsets}))  # fmt: skip
    if rng.random() < 0.4:
        text = rng.choice([json_problem(rng).decode("utf-8", "replace"), "{}", "[]"])
        metadata = rng.choice([{"attn": text}, {"attn": text}, {"attn": 5}, {"a": []}, 5, None])
        members.append(f'"__metadata__":{json.dumps(metadata)}')
    header = ("{" + ",".join(members) + "}").encode()
    return struct.pack("<Q", rng.choice([len(header)] * 9 + [2**60])) + header + data


MAKERS: dict[str, Callable[[Rng], bytes]] = {
    "json": json_problem,
    "csv": csv_problem,
    "tsv": csv_problem,
    "npy": lambda rng: npy_bytes(random_array(rng)),
    "npz": npz_problem,
    "safetensors": safetensors_problem,
    "txt": txt_problem,
    "csv.gz": functools.partial(packed_problem, packing="gz", make=csv_problem),
    "json.zst": functools.partial(packed_problem, packing="zst", make=json_problem),
    "parquet": functools.partial(table_problem, format_name="parquet"),
    "arrow": functools.partial(table_problem, format_name="arrow"),
}


def damage(rng: Rng, data: bytes) -> bytes:
    """Change, cut, double or insert a few bytes."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        data = rng.choice([
            data[:i] + rng.randbytes(1) + data[i + 1 :],
            data[:i] + data[min(j, i + 40) :],
            data[:i],
            data[:j] + data[i:],
            data[:i] + rng.choice(b'{}[]",:0123456789.eE-\n\r\0"').to_bytes(1) + data[i:],
        ])  # fmt: skip
    return data


# ── the fuzzer ───────────────────────────────────────────────────────────────────────────────────
def fuzz(
    seed: int, indices: Iterator[int], folder: Path, formats: tuple[str, ...] = tuple(MAKERS)
) -> Iterator[Outcome]:
    """Yield what becomes of the inputs of some indices; the formats take turns."""
    for i in indices:
        rng = Rng(f"{seed} {i}")
        format_name = formats[i // 2 % len(formats)]  # every second index may be another process's
        data = MAKERS[format_name](rng)
        if data and rng.random() < 0.3:
            data = damage(rng, data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # none may reach standard error
            yield try_input(format_name, data, folder)


def try_input(format_name: str, data: bytes, folder: Path) -> Outcome:
    """Read an input, plan it, and ask the other library."""
    path = folder / f"x.{format_name}"
    path.write_bytes(data)
    outcome = Outcome(format_name, content=data, suffix=format_name)
    try:
        problem = attncli.read(path)
    except AttnError as error:
        outcome = outcome._replace(code=error.code)
        problem = None
        if len(str(error.message)) + len(str(error.help)) > 5000:
            return outcome._replace(fault_kind="wrong", fault="a message of more than 5,000 characters")
    except Exception as error:
        return outcome._replace(fault_kind="bug", fault=describe_exception(error))
    try:
        if format_name in ("csv", "txt"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                polars_opinion(data, path)
        if problem is None:
            return outcome
        check_opinion(format_name, data, path, problem)
        make_plan(problem, keep=["scores"])
        assert all(np.isfinite(getattr(problem, f.name)).all() for f in fields(problem) if f.name in ("embeddings", "positions") and getattr(problem, f.name) is not None)  # fmt: skip
    except AttnError as error:
        return outcome._replace(code=error.code)
    except AssertionError as error:
        return outcome._replace(fault_kind="wrong", fault=describe_exception(error))
    except Exception as error:
        return outcome._replace(fault_kind="bug", fault=describe_exception(error))
    return outcome
