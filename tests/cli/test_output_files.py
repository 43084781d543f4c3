"""`-o`: results in files, whole or not at all."""

from __future__ import annotations

import json
import os
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


def test_a_device_is_written_to_not_replaced(attn):
    done = attn("compute", HELLO, "-o", "/dev/null", "--format", "json")

    assert done.status == 0
    assert Path("/dev/null").stat().st_rdev == os.makedev(1, 3)
