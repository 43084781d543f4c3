"""A file below 1 MB costs at most two seconds and 64 MB and 16 times its size, whatever is in it, until it is computed."""

from __future__ import annotations

import functools
import gzip
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

import attncli
from attncli.errors import AttnError, CannotError, InputError
from attncli.plan import make_plan
from attncli.readers import unpacked_size
from tests.costs import measure_cost
from tests.validation.bad_files import npy, safetensors

pytestmark = pytest.mark.uncounted

X = {"embeddings": [[1, 2], [3, 4]]}
MAX_CPU_SECONDS = 2 if "coverage" not in sys.modules else 20
MAX_BYTES = 2**26
MAX_BYTES_PER_BYTE = 16
POLARS_BYTES = 2**24  # that its first use may take, beside what is read


def document(**fields: object) -> bytes:
    return json.dumps({**X, **fields}, separators=(",", ":")).encode()


def deflated(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def many_members(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(count):
            archive.writestr(f"a{i}.npy", npy(np.zeros(1)))
    return out.getvalue()


def tensors(count: int) -> bytes:
    return safetensors({f"t{i}": {"dtype": "F64", "shape": [0], "data_offsets": [0, 0]} for i in range(count)})


# Polars has threads, which a fork does not take along: it writes in a process of its own.
_WRITE_TABLES = """
import sys, numpy as np, polars as pl
ones, texts = pl.DataFrame({"a": np.ones(250_000)}), pl.DataFrame({"a": np.ones(900), "token": ["x" * 9000] * 900})
lists = pl.DataFrame({"embedding": [np.ones(400_000).tolist()]})
wide = pl.DataFrame({f"d{i}": [0.5] for i in range(2500)})
for name, frame in (("long", ones), ("texts", texts), ("lists", lists), ("wide", wide), ("bomb", pl.DataFrame({"a": np.ones(9_000_000)}))):
    frame.write_parquet(f"{sys.argv[1]}/{name}.parquet")
    frame.write_ipc(f"{sys.argv[1]}/{name}.arrow", compression="zstd")
"""


@functools.cache
def tables() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", _WRITE_TABLES, folder], check=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def parquet_footer(content: bytes) -> bytes:
    return b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1"


def packed(unit: bytes, count: int, suffix: str) -> bytes:
    """A unit so many times, packed in pieces."""
    pieces, rest = divmod(count, 10_000)
    if suffix == "gz":
        out = io.BytesIO()
        with gzip.GzipFile(fileobj=out, mode="wb") as file:
            for _ in range(pieces):
                file.write(unit * 10_000)
            file.write(unit * rest)
        return out.getvalue()
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(
        [*(packer.compress(unit * 10_000) for _ in range(pieces)), packer.compress(unit * rest), packer.flush()]
    )


def random_digits(count: int) -> bytes:
    return b"".join(b"%d,%d\n" % (i, j) for i, j in np.random.default_rng(0).integers(0, 10, (count // 4, 2)).tolist())


def random_rows(size: int) -> bytes:
    """A packed file of about so many bytes: vectors of 10 numbers of 6 digits."""
    rows = np.random.default_rng(0).normal(size=(size // 39, 10))
    return gzip.compress("".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in rows.tolist()).encode())


BIGBIRD = '{"variant": {"mask": "bigbird:block=1"}}'
# name of the file and what is in it → its bytes
FILES: dict[str, Callable[[], bytes]] = {
    "a.json: keys in about": lambda: document(about={f"a{i:05}": 1 for i in range(75_000)}),
    "a.json: keys in a token": lambda: b'[{"embedding":[1],' + b",".join(b'"k%d":1' % i for i in range(80_000)) + b"}]",
    "a.json: keys with escaped colons": lambda: b'{"about":{' + b",".join(b'"\\u003a%d":1' % i for i in range(60_000)) + b"}}",
    "a.json: fields": lambda: json.dumps({f"a{i:05}": 1 for i in range(75_000)}).encode(),
    "a.json: choices": lambda: document(variant={f"a{i:05}": 1 for i in range(75_000)}),
    "a.json: steps": lambda: document(expected={f"weights_{i}": [1] for i in range(1, 50_000)}),
    "a.json: empty lists": lambda: b'{"embeddings":[' + b",".join([b"[]"] * 330_000) + b"]}",
    "a.json: ragged rows": lambda: b'{"embeddings":[' + b",".join([b"[1]"] * 200_000) + b",[1,2]]}",
    "a.json: objects": lambda: document(about=[{"": 0}] * 140_000),
    "a.json: opening brackets": lambda: b"[ " * 490_000,
    "a.json: a long field": lambda: json.dumps({"x" * 990_000: 1}).encode(),
    "a.json: a long token": lambda: document(tokens=["x" * 900_000, "b"]),
    "a.json: a long mask": lambda: document(variant={"mask": "x" * 900_000}),
    "a.json: spaces in a mask": lambda: document(variant={"mask": "causal" + " " * 900_000 + ")"}),
    "a.json: masks joined": lambda: document(variant={"mask": " and ".join(["causal"] * 90_000)}),
    "a.json: masks in a list": lambda: document(variant={"mask": ["causal"] * 110_000}),
    "a.json: parentheses": lambda: document(variant={"mask": "(" * 990_000}),
    "a.json: nots": lambda: document(variant={"mask": "not " * 240_000 + "causal"}),
    "a.json: links": lambda: document(variant={"chain": ",".join(["scale"] * 160_000)}),
    "a.json: global tokens": lambda: document(variant={"mask": "global:tokens=" + "+".join(map(str, range(100_000)))}),
    "a.json: a global token again": lambda: document(variant={"mask": "global:tokens=" + "+".join(["0"] * 400_000)}),
    "a.json: every other token global": lambda: json.dumps(
        {"embeddings": [[1]] * 20_000, "variant": {"mask": "global:tokens=" + "+".join(map(str, range(0, 20_000, 2)))}}
    ).encode(),
    "a.json: random blocks": lambda: json.dumps({"embeddings": [[1]] * 4000, "variant": {"mask": "bigbird:block=1"}}).encode(),
    "a.json: digits": lambda: b'{"embeddings":[[1]],"variant":{"seed":' + b"1" * 990_000 + b"}}",
    "a.json: integers": lambda: b'{"embeddings":[[' + b",".join([b"1" * 300] * 3300) + b"]]}",
    "a.csv: digits and a letter": lambda: b"a,1\nb," + b"1" * 990_000 + b"x\n",
    "a.csv: digits, e, digits and a letter": lambda: b"a,1\nb," + b"1" * 490_000 + b"e" + b"1" * 490_000 + b"x\n",
    "a.csv: underscores": lambda: b"a,1\nb," + b"1_" * 490_000 + b"\n",
    "a.csv: decimal commas": lambda: b"a;1\nb;" + b"1," * 490_000 + b"\n",
    "a.csv: points": lambda: b"a,1\nb," + b"." * 990_000 + b"\n",
    "a.csv: one column": lambda: b"1\n" * 495_000,
    "a.csv: one row": lambda: b"1," * 495_000 + b"1\n",
    "a.csv: old Mac lines": lambda: b"a,1\r" * 249_000,
    "a.csv: quotes": lambda: b'"",' * 330_000 + b"1\n",
    "a.csv: names": lambda: b",".join(b"n%d" % i for i in range(70_000)) + b"\n" + b",".join([b"1"] * 70_000) + b"\n",
    "a.txt: rows of two numbers": lambda: b"1 1\n" * 247_000,
    "a.txt: tokens with blanks": lambda: b"a b 1\nc 1\n" * 99_000,
    "a.txt: a long token": lambda: b"a " * 490_000 + b"1\nb 1\n",
    "a.txt: blanks": lambda: b"1" + b" " * 990_000 + b"2\n3 4\n",
    "a.txt: comments": lambda: b"#\n" * 490_000 + b"a,1\n",
    "a.csv: vectors": lambda: b'"1,1"\n' * 165_000,
    "a.csv: a long vector": lambda: b'a,"[' + b"1," * 490_000 + b'1]"\n',
    "a.csv: opening brackets": lambda: b"a," + b"[" * 990_000 + b"\n",
    "a.csv: opening arrays": lambda: b"a," + b"array(" * 160_000 + b"\n",
    "a.csv: UTF-16": lambda: ("1\n" * 247_000).encode("utf-16"),
    "a.csv.gz: zeros": lambda: packed(b"\0", 10**8, "gz"),
    "a.csv.gz: lines": lambda: packed(b"\n", 10**8, "gz"),
    "a.csv.gz: as many numbers as are read": lambda: packed(b"1\n", 65_000, "gz"),
    "a.json.gz: as many lists as are read": lambda: packed(b"[],", 60_000, "gz"),
    "a.csv.zst: zeros": lambda: packed(b"\0", 10**8, "zst"),
    "a.csv.zst: as many rows as are read": lambda: packed(b"1 1\n", 53_000, "zst"),
    "a.csv.gz: numbers of one digit": lambda: gzip.compress(random_digits(2_500_000)),
    "a.csv.gz: as large a file as small ones are": lambda: random_rows(960_000),
    "a.npz: zeros": lambda: deflated(embeddings=np.zeros((1, 60_000_000))),
    "a.npz: tokens": lambda: deflated(embeddings=np.zeros((4_000_000, 1), np.float32)),
    "a.npz: tokens that are read": lambda: deflated(embeddings=np.zeros((300_000, 1), np.float32)),
    "a.npz: cached keys": lambda: deflated(
        embeddings=np.zeros((1, 1)), **{f"past.{name}": np.zeros((1, 1, 10**6, 1), np.float32) for name in "kv"}
    ),
    "a.npz: more random blocks than are drawn": lambda: deflated(
        q=np.zeros((200_000, 1)), k=np.zeros((200_000, 1)), v=np.zeros((200_000, 1)), attn=np.array(BIGBIRD)
    ),
    "a.npz: random blocks": lambda: deflated(
        q=np.zeros((6000, 1)), k=np.zeros((6000, 1)), v=np.zeros((6000, 1)), attn=np.array(BIGBIRD)
    ),
    "a.safetensors: tokens": lambda: safetensors(
        {"embeddings": {"dtype": "I8", "shape": [980_000, 1], "data_offsets": [0, 980_000]}}, bytes(980_000)
    ),
    "a.json: a wide projection": lambda: document(variant={"projection": "linear:dim=2147483647", "heads": 2}),
    "a.json: many heads": lambda: document(variant={"heads": 2**20, "kv_heads": 2**20 - 1}),
    "a.npz: small integers": lambda: deflated(embeddings=np.zeros((1, 20_000_000), np.int8)),
    "a.npz: labels": lambda: deflated(embeddings=np.eye(2), tokens=np.array([b"ab"] * 2_000_000)),
    "a.npz: labels without characters": lambda: deflated(embeddings=np.eye(2), tokens=np.zeros(4_000_000, "<U0")),
    "a.npz: several arrays": lambda: deflated(**{f"a{i}": np.zeros(10**6) for i in range(20)}),
    "a.npz: members": lambda: many_members(5000),
    "a.npz: as many members as are read": lambda: many_members(1000),
    "a.safetensors: tensors": lambda: tensors(15_000),
    "a.safetensors: dots": lambda: safetensors({"a" + "." * 490_000: {"dtype": "F64", "shape": [0], "data_offsets": [0, 0]}}),
    "a.safetensors: axes": lambda: safetensors({"q": {"dtype": "F64", "shape": [0] * 300_000, "data_offsets": [0, 0]}}),
    **{
        f"a.{suffix}: {name}": lambda name=name, suffix=suffix: tables()[f"{name}.{suffix}"]
        for name in ("long", "texts", "lists", "wide", "bomb")
        for suffix in ("parquet", "arrow")
    },
    "a.parquet: empty structures": lambda: parquet_footer(b"\x49\xfc\x80\x8e\x37" + bytes(900_000)),
    "a.parquet: structures in each other": lambda: parquet_footer(b"\x1c" * 900_000),
    "a.arrow: nothing": lambda: b"ARROW1\0\0" + bytes(900_000) + b"ARROW1",
    "a.json: records with nothing in common": lambda: b"[" + b",".join(b'{"a%d":1}' % i for i in range(70_000)) + b"]",
    "a.json: an object of vectors": lambda: b"{" + b",".join(b'"a%d":[1]' % i for i in range(75_000)) + b',"b":[1,2]}',
    "a.json: an object of objects": lambda: b"{" + b",".join(b'"a%d":{"b":1,"c":2}' % i for i in range(40_000)) + b"}",
    "a.json: bare NaN": lambda: b'{"bias":[[' + b",".join([b"NaN"] * 240_000) + b'],[1]],"embeddings":[[1]]}',
    "a.jsonl: tokens": lambda: b'{"t":"a","vector":[1]}\n' * 42_000,
    "a.safetensors: keys in the text": lambda: safetensors(
        {"__metadata__": {"attn": json.dumps({"about": {f"a{i:05}": 1 for i in range(55_000)}})}}
    ),
}  # fmt: skip


def read_and_plan(path: str) -> int:
    """Read and plan a file: how many characters the error has, if there is one."""
    try:
        make_plan(attncli.read(path), keep=["context"])
    except AttnError as error:
        return len(error.message) + len(error.help) + len(str(error.location))
    return 0


@functools.cache
def cost_of_first_use() -> int:
    """Bytes of memory that reading and planning take the first time, whatever the file: libraries that are imported then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        path.write_bytes(tensors(1))
        return measure_cost(read_and_plan, str(path)).size


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("case", FILES)
def test_a_small_file_costs_little(tmp_path, case):
    path, data = tmp_path / case.split(":")[0], FILES[case]()
    assert len(data) < 1_000_000
    path.write_bytes(data)

    seconds, size, characters = measure_cost(read_and_plan, str(path))

    assert seconds <= MAX_CPU_SECONDS
    first = cost_of_first_use() + POLARS_BYTES * (path.suffix in (".arrow", ".parquet"))
    assert size - first <= MAX_BYTES + MAX_BYTES_PER_BYTE * len(data)
    assert characters < 2000


# ── archives ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "arrays",
    [
        {"embeddings": np.zeros((1000, 2000))},
        {"embeddings": np.zeros((1, 2)), "mask": np.tri(4000, dtype=bool)[:1, :1]},
        {"embeddings": np.zeros((4, 4000), np.int8)},
        {"embeddings": np.zeros((1000, 1)), "tokens": np.array(["a"] * 1000)},
    ],
)
def test_an_archive_of_zeros_is_read_where_it_fits(tmp_path, arrays):
    (tmp_path / "a.npz").write_bytes(deflated(**arrays))

    problem = attncli.read(tmp_path / "a.npz")

    np.testing.assert_array_equal(problem.embeddings, arrays["embeddings"])


def test_an_archive_of_zeros_that_does_not_fit_is_read_uncompressed(tmp_path):
    zeros = np.zeros((3000, 1000))
    (tmp_path / "a.npz").write_bytes(deflated(embeddings=zeros))
    np.savez(tmp_path / "b.npz", embeddings=zeros)

    with pytest.raises(
        InputError, match="would take 24,144,000 in memory, more than 16 MiB and 16 times as many"
    ) as caught:
        attncli.read(tmp_path / "a.npz")

    assert caught.value.code == "too-compressed"
    assert "numpy.savez, not savez_compressed" in caught.value.help
    assert attncli.read(tmp_path / "b.npz").embeddings.shape == (3000, 1000)


def test_what_an_archive_unpacks_to_is_held_against_the_memory_that_is_free(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", embeddings=np.zeros((1000, 100)))
    monkeypatch.setattr(unpacked_size, "_LARGE_BYTES", 0)
    monkeypatch.setattr("attncli.plan.memory.available_memory_bytes", lambda: 799_999)

    with pytest.raises(CannotError, match=r"the arrays take 0\.0 GiB, but only 0\.0 GiB are free"):
        attncli.read(tmp_path / "a.npz")
