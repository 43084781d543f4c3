"""Text that is packed by gzip or Zstandard."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError, InputError, OptionError
from attncli.readers import find_reader
from tests.readers.test_text_formats import FILES


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", b"[[1, 2], [3, 4]]"), ("a.tsv", b"a\t1\t2\nb\t3\t4\n"), ("a.vec", b"2 2\na 1 2\nb 3 4\n")],
)
def test_text_is_read_packed(tmp_path, suffix, name, text):
    path = tmp_path / f"{name}.{suffix}"
    path.write_bytes(pack(text, suffix))
    lying = tmp_path / name
    lying.write_bytes(pack(text, suffix))

    problem, other = attncli.read(path), attncli.read(lying)

    assert problem.embeddings.tolist() == other.embeddings.tolist() == [[1, 2], [3, 4]]
    assert not any("packed by" in note for note in problem.notes)
    assert other.notes[-1].endswith(f"packed by {'gzip' if suffix == 'gz' else 'zstd'}")


def pack(data: bytes, suffix: str) -> bytes:
    if suffix == "gz":
        return gzip.compress(data)
    import zstandard

    return zstandard.compress(data)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_packed_files_may_have_several_parts(tmp_path, suffix):
    (tmp_path / f"a.csv.{suffix}").write_bytes(pack(b"a,1\n", suffix) + pack(b"b,2\n", suffix))

    assert attncli.read(tmp_path / f"a.csv.{suffix}").tokens == ("a", "b")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("cut", [6, 12, 20])
def test_a_packed_file_that_was_cut_short_is_refused(tmp_path, suffix, cut):
    rows = "".join(f"w{i},{i * 7919 % 997}\n" for i in range(40)).encode()
    (tmp_path / f"a.csv.{suffix}").write_bytes(pack(rows, suffix)[:-cut])

    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / f"a.csv.{suffix}")

    assert caught.value.code == "bad-file"


def test_zstandard_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)

    with pytest.raises(AttnError, match="need a package that is not there: zstandard") as caught:
        attncli.read(FILES / "pandas.csv.zst")

    assert (caught.value.code, int(caught.value.status)) == ("missing-extra", 4)
    assert "pip install zstandard" in caught.value.help


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("text", [b"\0" * 10**7, b"1,1\n" * 10**5, b"[]," * 10**5, b" " * 10**7])
def test_what_unpacks_to_far_more_is_refused_before_it_is_parsed(tmp_path, suffix, text):
    (tmp_path / f"a.csv.{suffix}").write_bytes(pack(text, suffix))

    with pytest.raises(InputError, match="16 MiB and 60 times as many") as caught:
        attncli.read(tmp_path / f"a.csv.{suffix}")

    assert caught.value.code == "too-compressed"
    assert re.search(r"(gunzip -k|zstd -d) \S+a\.csv\.", caught.value.help)


@pytest.mark.slow
def test_numbers_are_read_packed_however_many_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(20_000, 20)).round(6)
    np.savetxt(tmp_path / "x.txt.gz", x, fmt="%.6f")

    np.testing.assert_array_equal(attncli.read(tmp_path / "x.txt.gz").embeddings, x)


def test_arrays_are_not_read_packed():
    with pytest.raises(OptionError, match="only text is") as caught:
        find_reader("a.safetensors.gz")

    assert caught.value.help == "unpack it first: gunzip -k a.safetensors.gz"
