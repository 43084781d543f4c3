"""Make the files beside this script: the same four tokens of three numbers as the tools of their names write them.

Needs pandas, gensim, duckdb, polars and zstandard, and the programs sqlite3 and gzip; README.md says in which versions they
were made. Files of tools that were not at hand are written here as their manuals show them.
"""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
from gensim.models import KeyedVectors

FOLDER = Path(__file__).parent
TOKENS = ["the", "to", "U.S.", "<unk>"]
X = np.array(
    [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156], [-2.02, -0.2319, -0.8652], [3.323, 0.2258, -0.3526]]
)
ROWS = [[token, *map(str, row)] for token, row in zip(TOKENS, X.tolist(), strict=True)]


def write(name: str, text: str, encoding: str = "utf-8") -> None:
    (FOLDER / name).write_bytes(text.encode(encoding))


def join(separator: str, rows: list[list[str]] = ROWS, end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in rows)


def make_pandas() -> None:
    wide = pd.DataFrame(X, columns=["d0", "d1", "d2"])
    wide.insert(0, "token", TOKENS)
    named = pd.DataFrame(X, index=TOKENS)
    wide.to_csv(FOLDER / "pandas.csv", index=False)
    named.to_csv(FOLDER / "pandas_index.csv")
    pd.DataFrame(X).to_csv(FOLDER / "pandas_numbered.csv")
    wide.to_csv(FOLDER / "pandas_numbered_tokens.csv")
    wide.to_csv(FOLDER / "pandas_semicolon.csv", index=False, sep=";", decimal=",")
    wide.to_csv(FOLDER / "pandas_space.txt", index=False, sep=" ")
    wide.assign(token=["New York", "to", '"', "<unk>"]).to_csv(FOLDER / "pandas_space_quoted.txt", index=False, sep=" ")
    wide.to_csv(FOLDER / "pandas.tsv", index=False, header=False, sep="\t")
    wide.to_csv(FOLDER / "pandas_utf16.csv", index=False, encoding="utf-16")
    wide.to_csv(FOLDER / "pandas_utf8_mark.csv", index=False, encoding="utf-8-sig")
    wide.assign(token=["café", "to", "U.S.", "<unk>"]).to_csv(
        FOLDER / "pandas_cp1252.csv", index=False, encoding="cp1252"
    )
    for suffix in ("gz", "zst", "bz2", "xz", "zip"):
        wide.to_csv(FOLDER / f"pandas.csv.{suffix}", index=False)
    cells = pd.DataFrame({"text": TOKENS, "embedding": X.tolist()})
    cells.to_csv(FOLDER / "pandas_lists.csv", index=False)
    cells.assign(embedding=list(X)).to_csv(FOLDER / "pandas_arrays.csv", index=False)
    cells.assign(embedding=[list(row) for row in X]).to_csv(FOLDER / "pandas_scalars.csv", index=False)
    cells.assign(id=range(101, 105), n_tokens=[1, 1, 2, 1]).to_csv(FOLDER / "pandas_records.csv")
    cells.assign(title=TOKENS[::-1]).drop(columns="text").assign(body=TOKENS).to_csv(
        FOLDER / "pandas_texts.csv", index=False
    )
    with np.printoptions(linewidth=20):
        cells.assign(embedding=list(X)).to_csv(FOLDER / "pandas_broken_lines.csv", index=False)
    with np.printoptions(threshold=2, edgeitems=1):
        cells.assign(embedding=list(X)).to_csv(FOLDER / "pandas_left_out.csv", index=False)


def make_numpy() -> None:
    np.savetxt(FOLDER / "savetxt.txt", X)
    np.savetxt(FOLDER / "savetxt.csv", X, delimiter=",")
    np.savetxt(FOLDER / "savetxt_header.txt", X, header="d0 d1 d2")
    np.savetxt(FOLDER / "savetxt_header.csv", X, header="d0,d1,d2", delimiter=",")
    np.savetxt(FOLDER / "savetxt_comment.txt", X, header="four tokens of GloVe")
    np.savetxt(FOLDER / "savetxt_aligned.txt", X, fmt="%10.4f")
    np.savetxt(FOLDER / "savetxt.txt.gz", X)
    write("numpy_printed.txt", f"{X}\n")


def make_others() -> None:
    vectors = KeyedVectors(3)
    vectors.add_vectors(TOKENS, X)
    vectors.save_word2vec_format(str(FOLDER / "gensim.vec"))
    vectors.save_word2vec_format(str(FOLDER / "gensim_no_header.txt"), write_header=False)
    vectors.save_word2vec_format(str(FOLDER / "gensim_binary.vec"), binary=True)
    frame = pl.DataFrame({"token": TOKENS} | {f"d{i}": X[:, i] for i in range(3)})
    frame.write_csv(FOLDER / "polars.csv")
    frame.write_csv(FOLDER / "polars.tsv", separator="\t")
    lists = pd.DataFrame({"token": TOKENS, "embedding": X.tolist()})  # noqa: F841  DuckDB finds it by its name
    duckdb.sql("select * from lists").write_csv(str(FOLDER / "duckdb.csv"))
    duckdb.sql("select * from lists").write_csv(str(FOLDER / "duckdb_pipe.csv"), sep="|")
    commands = [
        "create table t(token, d0, d1, d2);",
        *(f"insert into t values('{r[0]}', {', '.join(r[1:])});" for r in ROWS),
    ]
    commands += [".headers on", ".mode csv", f".output {FOLDER / 'sqlite.csv'}", "select * from t;"]
    subprocess.run(["sqlite3"], input="\n".join(commands), text=True, check=True)
    subprocess.run(
        ["sqlite3"],
        input="\n".join(commands).replace(".mode csv", ".mode tabs").replace("sqlite.csv", "sqlite.tsv"),
        text=True,
        check=True,
    )
    with (FOLDER / "csv_quote_all.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(ROWS)


def make_by_hand() -> None:
    numbers = [row[1:] for row in ROWS]
    write("glove.txt", join(" "))
    write(
        "glove_840B.txt",
        join(
            " ", [[". . ."] + numbers[0], ["at name@domain.com"] + numbers[1], ['"'] + numbers[2], [","] + numbers[3]]
        ),
    )
    write(
        "glove_phrases.glove",
        join(" ", [["New York"] + numbers[0], ["the"] + numbers[1], ["2008"] + numbers[2], ["San Jose"] + numbers[3]]),
    )
    write(
        "glove_numbers.txt",
        join(" ", [["the"] + numbers[0], ["to"] + numbers[1], ["room 101"] + numbers[2], ["<unk>"] + numbers[3]]),
    )
    write("fasttext.vec", "4 3\n" + join(" ", [[*row, ""] for row in ROWS]))
    write("word2vec_tabs.vec", "4\t3\n" + join("\t", [[*row, ""] for row in ROWS]))
    write("word2vec_head.vec", "400000 3\n" + join(" "))
    write("tab_and_blanks.txt", "".join(f"{row[0]}\t{' '.join(row[1:])}\n" for row in ROWS))
    write("projector_vectors.tsv", join("\t", numbers))
    write("projector_metadata.tsv", join("", [[token] for token in TOKENS]))
    write(
        "projector_metadata_columns.tsv",
        "word\tcount\n" + join("\t", [[token, str(i)] for i, token in enumerate(TOKENS)]),
    )
    write("r_table.txt", '"d0" "d1" "d2"\n' + join(" ", [[f'"{row[0]}"', *row[1:]] for row in ROWS]))
    write("r_table_unquoted.txt", "d0\td1\td2\n" + join("\t"))
    write("r_csv.csv", '"","d0","d1","d2"\n' + join(",", [[f'"{row[0]}"', *row[1:]] for row in ROWS]))
    write(
        "r_csv2.csv",
        '"";"d0";"d1";"d2"\n'
        + join(";", [[f'"{row[0]}"', *row[1:]] for row in ROWS]).replace(".", ",").replace("U,S,", "U.S."),
    )
    write("matlab_ascii.txt", "".join("".join(f"{x:16.7e}" for x in row) + "\n" for row in X))
    write("matlab_matrix.txt", f"[{';'.join(' '.join(row) for row in numbers)}]\n")
    write("matlab_comment.txt", "% d0 d1 d2\n" + join(" ", numbers))
    write("fortran_d.txt", "".join("".join(f"{x:14.6E}".replace("E", "D") for x in row) + "\n" for row in X))
    write("fortran_e.txt", "".join("".join(f"{x:14.6E}" for x in row) + "\n" for row in X))
    write("excel_utf8.csv", "\ufefftoken,d0,d1,d2\r\n" + join(",", end="\r\n"))
    write("excel_unicode_text.txt", "\ufefftoken\td0\td1\td2\r\n" + join("\t", end="\r\n"), "utf-16-le")
    write("postgres_array.csv", "token,embedding\n" + "".join(f'{row[0]},"{{{",".join(row[1:])}}}"\n' for row in ROWS))
    write("pgvector.tsv", "".join(f"{row[0]}\t[{','.join(row[1:])}]\n" for row in ROWS))
    write("trailing_comma.csv", "".join(",".join(row) + ",\n" for row in ROWS))
    write("token_is_comma.csv", join(",", [["the"] + numbers[0], [","] + numbers[1]]))
    write("lists_unquoted.csv", "".join(f"{row[0]},[{', '.join(row[1:])}]\n" for row in ROWS))


def make_second_readings() -> None:
    """Make files that were once read as something else, or refused without a way out."""
    wide = pd.DataFrame(X, columns=["d0", "d1", "d2"])
    wide.insert(0, "token", TOKENS)
    write("pandas_printed.txt", wide.to_string() + "\n")
    wide.set_index("token").T.to_csv(FOLDER / "pandas_transposed.csv")
    wide.melt("token", var_name="dim").to_csv(FOLDER / "pandas_long.csv", index=False)
    for mode in ("quote", "markdown"):
        run = subprocess.run(
            ["sqlite3", ":memory:", f".mode {mode}", ".headers on", f".import --csv {FOLDER / 'sqlite.csv'} t",
             "select token, cast(d0 as real) as d0, cast(d1 as real) as d1, cast(d2 as real) as d2 from t"],
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        write(f"sqlite_{mode}.txt", run.stdout)
    header, commas = "token,d0,d1,d2\n", [[row[0], *(x.replace(".", ",") for x in row[1:])] for row in ROWS]
    write("excel_separator_line.csv", "sep=;\r\n" + header.replace(",", ";") + join(";", commas, "\r\n"))
    write("excel_decimal_commas.tsv", header.replace(",", "\t") + join("\t", commas))
    write("excel_empty_columns.csv", header.replace("\n", ",,\n") + join(",", end=",,\n"))
    write("decimal_commas.csv", join(",", commas))
    write("decimal_commas.txt", join(" ", commas))
    write("two_lines_of_header.csv", header + "str,float,float,float\n" + join(","))
    write("title.csv", "Embeddings of my model\n" + header + join(","))
    write("minus_sign.csv", header + join(",").replace("-", "\u2212"))
    write("comment_between.csv", header + join(",", ROWS[:2]) + "# half\n" + join(",", ROWS[2:]))
    octave = "# Created by Octave 8.4.0, Mon Jan 01 00:00:00 2024 UTC <user@host>\n# name: x\n# type: matrix\n# rows: 4\n# columns: 3\n"
    write("octave_save.txt", octave + "".join(" " + " ".join(row[1:]) + "\n" for row in ROWS) + "\n\n")


for make in (make_pandas, make_numpy, make_others, make_by_hand, make_second_readings):
    make()
