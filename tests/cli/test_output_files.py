"""`-o`: results in files, whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.readers.results import read_result
from tests.helpers import SAMPLES

HELLO = SAMPLES / "hello_shiny_sun.json"


def test_drawn_parameters_reproduce_the_result_they_came_with(attn, tmp_path):
    first = attn(
        "compute",
        SAMPLES / "tokens.csv",
        "-q",
        "--projection",
        "linear:dim=3,bias=all,out=yes",
        "--seed",
        "7",
        "--json",
    ).json
    source = json.loads((SAMPLES / "cat_sat.json").read_text())
    (tmp_path / "again.json").write_text(
        json.dumps({"embeddings": source["embeddings"], "parameters": first["parameters"]})
    )

    assert attn("compute", "again.json", "--json").json["output"] == first["output"]


@pytest.mark.parametrize("name", ["r.json", "r.npz", "r.safetensors"])
def test_output_is_the_same_result_in_every_format(attn, tmp_path, name):
    done = attn("compute", SAMPLES / "journey_two_heads.json", "--output", name, "--only", "all")

    assert (done.status, done.out) == (0, "")
    held = read_result(tmp_path / name)
    whole = attncli.attend(attncli.read(SAMPLES / "journey_two_heads.json"))
    for one, other in zip(held, whole, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_output_exists_only_whole(attn, tmp_path, monkeypatch):
    first = attn("compute", HELLO, "-o", "r.json")
    again = attn("compute", HELLO, "-o", "r.json")
    forced = attn("compute", HELLO, "-o", "r.json", "--force", "--only", "q")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    full = attn("compute", HELLO, "-o", "full.json")

    assert [first.status, again.status, forced.status, full.status] == [0, 2, 0, 4]
    assert again.err == "error[output-exists]: r.json exists\n  = help: --force replaces it\n"
    assert "full.json cannot be written: No space left on device" in full.err
    assert list(json.loads((tmp_path / "r.json").read_text())["axes"]) == ["q"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_output_follows_a_link_and_keeps_the_mode(attn, tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to("real.json")

    done = attn("compute", HELLO, "-o", "link.json", "--force")

    assert done.status == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["schema"] == "attn.result/1"
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640


def test_output_follows_a_link_to_a_file_that_is_not_there_yet(attn, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "link.json").symlink_to("results/new.json")

    done = attn("compute", HELLO, "-o", "link.json")

    assert done.status == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "results/new.json").read_text())["schema"] == "attn.result/1"


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="this system opens no folder without reading it")
@pytest.mark.parametrize("is_nameless", [True, False])
def test_a_folder_that_may_be_written_to_but_not_listed_is_written_to(attn, tmp_path, monkeypatch, is_nameless):
    """Of mode 0333; root may list it all the same, so that the refusal is simulated."""
    folder, real_open = tmp_path / "drop", os.open
    folder.mkdir()

    def open_without_listing(path, flags, *args, **options):
        is_temporary = flags & os.O_TMPFILE == os.O_TMPFILE
        if Path(path) == folder and not flags & os.O_PATH and not (is_nameless and is_temporary):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, *args, **options)

    monkeypatch.setattr("os.open", open_without_listing)
    for words in ((), ("--force",)):
        assert attn("compute", HELLO, "-o", "drop/r.json", *words).err == ""

    assert [path.name for path in folder.iterdir()] == ["r.json"]


def test_a_new_name_is_synchronised_with_its_folder(attn, tmp_path, monkeypatch):
    synchronised: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synchronised.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))

    assert attn("compute", HELLO, "-o", "r.json").status == 0
    assert synchronised == [False, True]  # what the file holds, then its name


def test_a_device_is_written_to_not_replaced(attn):
    done = attn("compute", HELLO, "-o", "/dev/null", "--format", "json")

    assert done.status == 0
    assert Path("/dev/null").stat().st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        ("-f csv -o x.json", "--format csv contradicts the suffix of x.json, which stands for json", "--format json, or a file called x.csv"),
        ("--json -o x.tsv", "--format json contradicts the suffix of x.tsv, which stands for tsv", "--format tsv, or a file called x.json"),
        ("-f npz -o x.txt", "--format npz contradicts the suffix of x.txt, which stands for table", "--format table, or a file called x.npz"),
        ("-f plain -o x.md", "--format plain contradicts the suffix of x.md, which stands for markdown", "--format markdown, or a file called x.txt"),
        ("--tidy", "--tidy is for CSV and Parquet, but this is table", "--format csv, or --format tsv"),
        ("--tidy --json", "--tidy is for CSV and Parquet, but this is json", "--format csv, or --format tsv"),
        ("--bare", "--bare leaves out fields of JSON, but table is not JSON", "--json, or --format ndjson"),
        ("--bare -o x.csv", "--bare leaves out fields of JSON, but csv is not JSON", "--json, or --format ndjson"),
    ],
)  # fmt: skip
def test_options_that_say_two_things_are_refused(attn, tmp_path, words, says, hint):
    done = attn("compute", HELLO, *words.split())

    assert (done.status, done.err) == (2, f"error[bad-option]: {says}\n  = help: {hint}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--bare", "--tidy"])
def test_explain_has_no_shape_of_results(attn, option):
    done = attn("explain", HELLO, "--json", option)

    says = f"error[bad-option]: {option} is for results, but explain writes a page"
    assert done.err == f"{says}\n  = help: attn compute has it\n"


@pytest.mark.parametrize(
    "words", ["-f ndjson -o x.json", "--json -o x.jsonl", "-f csv -o x.txt", "-f csv -o x.dat", "-f latex -o x"]
)
def test_a_format_may_have_a_suffix_that_says_no_other(attn, tmp_path, words):
    assert attn("compute", HELLO, *words.split()).status == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_tidy_rows_are_figures_and_their_tokens_are_compared(attn, tmp_path):
    attn("compute", SAMPLES / "cat_sat.json", "--only", "weights,context", "-o", "r.csv")
    right = attn("check", SAMPLES / "cat_sat.json", "--figures", "r.csv", "-q")
    text = (tmp_path / "r.csv").read_text()
    (tmp_path / "moved.csv").write_text(text.replace("the,cat\n", "the,sat\n", 1))
    moved = attn("check", SAMPLES / "cat_sat.json", "--figures", "moved.csv", "-q")
    (tmp_path / "without.csv").write_text(text.replace("the,cat\n", ",\n", 1))

    assert (right.status, right.err) == (0, "")
    assert (moved.status, moved.err) == (
        3,
        "error[unknown-label]: a figure of weights is of key 1, 'cat', but its key_token is 'sat'\n"
        " --> moved.csv\n"
        "  = help: correct both, or leave key_token out\n",
    )
    assert attn("check", SAMPLES / "cat_sat.json", "--figures", "without.csv", "-q").status == 0


@pytest.mark.parametrize("name", ["r.parquet", "r.feather"])
def test_tables_of_one_result(attn, tmp_path, name):
    import polars

    done = attn("compute", SAMPLES / "cat_sat.json", "-o", name, "--only", "weights", "--tidy")

    rows = (polars.read_parquet if name == "r.parquet" else polars.read_ipc)(tmp_path / name)
    assert (done.status, done.out) == (0, "")
    weights = attn("compute", SAMPLES / "cat_sat.json", "--only", "weights", "--json").json["weights"]
    assert rows["value"].to_list() == [x for row in weights for x in row]
    assert set(rows["source"]) == {str(SAMPLES / "cat_sat.json")}
    assert attn("compute", HELLO, "--format", name[2:]).status == 2


# ── packed files ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "ndjson", "md", "tex", "txt", "html"])
@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_text_is_packed_as_the_suffix_says(attn, tmp_path, suffix, packing):
    import gzip

    import zstandard

    unpack = {"gz": gzip.decompress, "zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)}
    words = ["compute", SAMPLES / "cat_sat.json", "--causal", "--only", "weights", "-o"]
    for name in (f"plain.{suffix}", f"packed.{suffix}.{packing}", f"again.{suffix}.{packing}"):
        assert attn(*words, name).status == 0

    packed = (tmp_path / f"packed.{suffix}.{packing}").read_bytes()
    assert unpack[packing](packed) == (tmp_path / f"plain.{suffix}").read_bytes()
    assert packed == (tmp_path / f"again.{suffix}.{packing}").read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("r.npz.gz", [], "npz is binary, but only text can be packed\n  = help: -o r.npz"),
        ("r.parquet.zst", [], "-o r.parquet"),
        ("r.gz", [], "r.gz has no suffix before .gz"),
        ("r.json.gz", ["--format", "csv"], "which stands for json\n  = help: --format json, or a file called r.csv.gz"),
    ],
)
def test_what_is_not_packed_is_refused(attn, tmp_path, name, options, says):
    run = attn("compute", SAMPLES / "cat_sat.json", "-o", name, *options)
    assert (run.status, list(tmp_path.iterdir())) == (2, [])
    assert says in run.err
