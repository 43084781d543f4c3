"""Reading and writing files of every format beside the bare library: the runs of `python benchmarks reading writing`."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

TOKEN_COUNT, DIM_COUNT = 32_768, 128  # of the files that are read
_MATRIX_SIZE = 1000  # of the weights that are written: a million numbers


def write_large_files(folder: Path) -> None:
    """Write the same numbers in every format that is read."""
    import polars

    rows = np.random.default_rng(0).standard_normal((TOKEN_COUNT, DIM_COUNT))
    (folder / "large.json").write_text(json.dumps({"embeddings": rows.tolist()}))
    frame = polars.DataFrame({"token": [f"t{i}" for i in range(TOKEN_COUNT)]}).hstack(
        polars.DataFrame(rows, [f"d{i}" for i in range(DIM_COUNT)])
    )
    frame.write_csv(folder / "large.csv")
    frame.write_parquet(folder / "large.parquet")
    frame.write_ipc(folder / "large.feather")
    with (folder / "large.csv").open("rb") as plain, gzip.open(folder / "large.csv.gz", "wb", 1) as packed:
        shutil.copyfileobj(plain, packed)
    frame.write_csv(folder / "large.csv.zst", compression="zstd")


def _large_file(suffix: str) -> Path:
    return Path(os.environ["BENCH_FILES"], f"large{suffix}")


# ── the bare libraries ───────────────────────────────────────────────────────────────────────────
def read_json_with_msgspec() -> object:
    """Read with msgspec alone, into an array."""
    import msgspec

    problem_type = msgspec.defstruct("Problem", [("embeddings", list[list[float]])])
    return np.array(msgspec.json.decode(_large_file(".json").read_bytes(), type=problem_type).embeddings)


def read_with_polars(suffix: str) -> Callable[[], object]:
    """Reading by Polars alone, into tokens and an array: of the bytes, as attn reads them, and after `gzip` has unpacked them.

    By its name, Polars would map a Feather file, so that its numbers change where someone writes to it. Rows of
    the array are contiguous, as those of torch are.
    """
    import polars

    read = {".parquet": polars.read_parquet, ".feather": polars.read_ipc}.get(suffix, polars.read_csv)
    unpack = gzip.decompress if suffix.endswith(".gz") else bytes

    def read_tokens_and_array() -> object:
        frame = read(io.BytesIO(unpack(_large_file(suffix).read_bytes())))
        return frame["token"].to_list(), frame.drop("token").to_numpy(order="c")

    return read_tokens_and_array


def write_with_polars(name: str) -> Callable[[], object]:
    """Writing a matrix by Polars alone, as the same table: a row for each number, with its indices and tokens."""
    import polars

    from attncli.writers.parquet import table_schema

    schema = table_schema(("step", "query", "key", "value", "query_token", "key_token"), is_double=True)
    weights, tokens = make_weights()

    def write() -> object:
        query, key = (places.ravel().astype(np.int32) for places in np.indices(weights.shape))
        labels = polars.Series(tokens)
        known = {
            "query": polars.Series(query),
            "key": polars.Series(key),
            "value": polars.Series(weights.ravel()),
            "query_token": labels.gather(query),
            "key_token": labels.gather(key),
            "step": polars.lit("weights"),
        }
        columns = [known[column].alias(column) for column in schema]
        frame, file = polars.select(columns), io.BytesIO()
        if name == "parquet":
            frame.write_parquet(file)
        else:
            frame.write_ipc(file, compression="zstd", compat_level=polars.CompatLevel.oldest())
        return file.getvalue()

    return write


# ── attn ─────────────────────────────────────────────────────────────────────────────────────────
def read_with_attn(suffix: str) -> Callable[[], object]:
    """Reading by attn.

    Raises:
        RuntimeError: it does not read this format.
    """
    import attncli
    from attncli.errors import OptionError
    from attncli.readers import find_reader

    try:
        find_reader(f"large{suffix}")
    except OptionError:
        raise RuntimeError(f"attn does not read {suffix} yet") from None
    return lambda: attncli.read(_large_file(suffix))


def write_with_attn(name: str) -> Callable[[], object]:
    """Writing the weights of a result by attn."""
    from attncli.output_formats import RenderOptions, load_output_format
    from attncli.types import Attention, Step

    weights, tokens = make_weights()
    attention = Attention({}, tokens, tokens, (Step("weights", "", ("query", "key"), weights),))
    return lambda: load_output_format(name).write(attention, RenderOptions())


def make_weights() -> tuple[np.ndarray, tuple[str, ...]]:
    """Make a matrix of weights, and its tokens."""
    weights = np.random.default_rng(1).dirichlet(np.ones(_MATRIX_SIZE), _MATRIX_SIZE)
    return weights, tuple(f"token {i}" for i in range(_MATRIX_SIZE))
