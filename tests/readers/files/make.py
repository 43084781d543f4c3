"""Make the files of this folder: `python tests/readers/files/make.py`, with pandas, pyarrow and openpyxl installed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather, ipc, parquet

HERE = Path(__file__).parent
TOKENS = ["the", "to", "U.S.", "<unk>"]
VECTORS = np.array(
    [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156], [-2.02, -0.2319, -0.8652], [3.323, 0.2258, -0.3526]]
)
NAMES = ["d0", "d1", "d2"]


def main() -> None:
    """Write every file."""
    frame = pd.DataFrame(VECTORS, columns=NAMES)
    with_tokens = frame.assign(token=TOKENS)[["token", *NAMES]]
    labelled = frame.set_axis(pd.Index(TOKENS), axis=0)
    lists = pd.DataFrame(
        {"id": [101, 102, 103, 104], "text": TOKENS, "n_tokens": [1, 1, 2, 1], "embedding": VECTORS.tolist()}
    )
    for orient in ("records", "split", "index", "columns", "table", "values"):
        with_tokens.to_json(HERE / f"pandas_{orient}.json", orient=orient)
        labelled.to_json(HERE / f"pandas_labels_{orient}.json", orient=orient)
        lists.to_json(HERE / f"pandas_lists_{orient}.json", orient=orient)
    with_tokens.to_json(HERE / "pandas_lines.jsonl", orient="records", lines=True)
    lists.to_json(HERE / "pandas_lists_lines.jsonl", orient="records", lines=True)
    with_tokens.to_parquet(HERE / "pandas.parquet")
    labelled.to_parquet(HERE / "pandas_labels.parquet")
    lists.to_parquet(HERE / "pandas_lists.parquet")
    with_tokens.to_feather(HERE / "pandas.feather")
    with_tokens.to_excel(HERE / "pandas.xlsx", index=False)

    floats = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.astype(np.float32).ravel()), 3)
    table = pa.table({"word": pa.array(TOKENS).dictionary_encode(), "vector": floats})
    parquet.write_table(table, HERE / "pyarrow_fixed_size.parquet", compression="zstd")
    parquet.write_table(
        pa.table({"token": TOKENS, "embedding": VECTORS.tolist()}),
        HERE / "pyarrow_lists.parquet",
        data_page_version="2.0",
    )
    feather.write_feather(table, HERE / "pyarrow_lz4.feather", compression="lz4")
    with ipc.new_stream(HERE / "pyarrow_stream.arrow", table.schema) as stream:
        stream.write_table(table)
    feather.write_feather(with_tokens, HERE / "pyarrow_version_1.feather", version=1)


if __name__ == "__main__":
    main()
