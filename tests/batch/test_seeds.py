"""`attn batch`: seeds that are drawn, recorded and used again."""

from __future__ import annotations

import json

from tests.batch.helpers import GOOD, lines, read_results, write


def test_a_seed_is_drawn_once_recorded_and_used_again(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD, "in/own.json": GOOD[:-1] + ', "variant": {"seed": 5}}'})
    words = ("batch", "in", "-o", "out", "--projection", "linear:dim=2")
    attn(*words, "-q")
    seed = lines(tmp_path / "out/manifest.ndjson")[0]["seed"]
    first = read_results(tmp_path / "out")

    assert [json.loads(first[f"{n}.json"])["variant"]["seed"] for n in ("a", "b", "own")] == [seed, seed, 5]
    write(tmp_path, {"in/c.json": GOOD})
    (tmp_path / "out/a.json").unlink()
    attn(*words, "-q")
    assert read_results(tmp_path / "out") == {**first, "c.json": first["b.json"].replace(b"in/b.json", b"in/c.json")}
    attn("compute", "in/a.json", "--projection", "linear:dim=2", "--seed", seed, "-o", "x.json")
    assert (tmp_path / "x.json").read_bytes() == first["a.json"]


def test_what_draws_nothing_has_no_seed(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")

    assert "seed" not in json.loads((tmp_path / "out/a.json").read_text())["variant"]
