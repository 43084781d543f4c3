"""`attn plot`: which figure is drawn of what, what is refused before anything is computed, and the bytes of files."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from PIL import Image

from attncli.views.figures.options import parse_width
from tests.helpers import ROOT, SAMPLES, TIMEOUT, draw_normal, run_process, run_without_torch

TOKENS = SAMPLES / "tokens.csv"


def save(path, **fields):
    path.write_text(json.dumps({name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in fields.items()}))
    return path


# ── from a problem, from compute, and from a saved result ────────────────────────────────────────
@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot_compute_and_a_saved_result_give_the_same_bytes(attn, tmp_path, suffix):
    runs = [
        attn("plot", TOKENS, "--causal", "-o", f"a.{suffix}", "-q"),
        attn("compute", TOKENS, "--causal", "-o", f"b.{suffix}", "-q"),
        attn("compute", TOKENS, "--causal", "-o", "r.json", "-q"),
        attn("plot", "r.json", "-o", f"c.{suffix}"),
    ]

    assert [(run.status, run.out, run.err) for run in runs] == [(0, "", "")] * 4
    drawn = {(tmp_path / f"{name}.{suffix}").read_bytes() for name in "abc"}
    assert len(drawn) == 1
    assert drawn.pop().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "json"])
def test_parts_of_saved_results_are_drawn(attn, tmp_path, suffix):
    attn("compute", TOKENS, "--causal", "-o", f"r.{suffix}", "-q")
    attn("plot", TOKENS, "--causal", "--at", "query=cat", "-o", "a.svg", "-q")
    done = attn("plot", f"r.{suffix}", "--at", "query=cat", "-o", "b.svg")

    assert (done.status, done.err) == (0, "")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_part_of_a_part_keeps_its_indices(attn, tmp_path):
    attn("compute", TOKENS, "--causal", "--at", "query=1:", "-o", "r.json", "-q")
    attn("plot", TOKENS, "--causal", "--at", "query=sat", "-o", "a.svg", "-q")

    assert attn("plot", "r.json", "--at", "query=2", "-o", "b.svg").status == 0
    assert attn("plot", "r.json", "--at", "query=sat", "-o", "c.svg").status == 0
    assert len({(tmp_path / f"{name}.svg").read_bytes() for name in "abc"}) == 1
    refused = attn("plot", "r.json", "--at", "query=0", "-o", "d.svg")
    assert refused.status == 3
    assert (
        refused.err
        == "error[out-of-range]: the result holds no query 0\n --> r.json\n  = help: of query it holds 1 and 2\n"
    )


def test_settings_choose_the_variant_and_neither_the_format_nor_the_steps(attn, tmp_path):
    settings = {"ATTN_MASK": "causal", "ATTN_FORMAT": "json", "ATTN_ONLY": "context"}
    attn("plot", TOKENS, "--causal", "-o", "a.svg", "-q")
    attn("compute", TOKENS, "--causal", "-o", "r.json", "-q")
    done = [
        attn("plot", *words, "-q", variables=settings) for words in ((TOKENS, "-o", "b.svg"), ("r.json", "-o", "c.svg"))
    ]

    assert [run.status for run in done] == [0, 0]
    assert len({(tmp_path / f"{name}.svg").read_bytes() for name in "abc"}) == 1


def test_results_come_through_a_pipe(attn):
    result = attn("compute", TOKENS, "--causal", "--json", "-q").out.encode()
    done = attn("plot", "-", "--format", "svg", stdin=result)
    named = attn("plot", "-", "--input-format", "json", "--format", "svg", stdin=result)

    assert done.status == named.status == 0
    assert done.out == named.out
    assert done.out.startswith("<?xml")


def test_hidden_keys_that_a_result_does_not_tell_are_a_note(attn):
    attn("compute", TOKENS, "--causal", "--only", "weights", "-o", "r.json", "-q")
    done = attn("plot", "r.json", "-o", "a.svg")

    assert done.err == "the result holds neither mask nor masked_scores, so hidden keys look like weights of 0\n"


@pytest.mark.slow
def test_torch_is_loaded_neither_for_saved_results_nor_for_what_is_refused(attn, tmp_path):
    attn("compute", TOKENS, "--causal", "-o", "r.json", "-q")
    save(tmp_path / "b.json", embeddings=draw_normal(1, 37, 2, 8))
    drawn, refused = run_without_torch([
        ["plot", str(tmp_path / "r.json"), "-o", str(tmp_path / "a.png")],
        ["plot", str(tmp_path / "b.json"), "--heads", "4", "-o", str(tmp_path / "b.png")],
    ])  # fmt: skip

    assert drawn == (0, False, 0, "")
    assert refused[:2] == (3, False)
    assert "the figure would have 148 panels, and at most 144 can be read" in refused[3]
    assert "--at batch=0:4 or --at head=0:4" in refused[3]


# ── options ──────────────────────────────────────────────────────────────────────────────────────
def test_width_and_resolution_make_the_pixels(attn, tmp_path):
    attn("plot", TOKENS, "-o", "a.png", "--width", "8.5cm", "--dpi", "300", "-q")

    assert Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).size[0] == pytest.approx(8.5 / 2.54 * 300, abs=1)


@pytest.mark.parametrize(
    ("text", "inches"), [("8.5cm", 8.5 / 2.54), ("85mm", 8.5 / 2.54), ("3.4in", 3.4), ("240 pt", 240 / 72)]
)
def test_lengths_have_their_units(text, inches):
    assert parse_width(text) == pytest.approx(inches)


def test_options_change_the_figure(attn, tmp_path):
    options = (
        [],
        ["--style", "dark"],
        ["--cmap", "magma"],
        ["--title", "Mine"],
        ["--kind", "flow", "--at", "query=0"],
        ["--precision", "2"],
    )
    for i, more in enumerate(options):
        assert attn("plot", TOKENS, "-o", f"{i}.svg", "-q", *more).status == 0

    assert len({(tmp_path / f"{i}.svg").read_bytes() for i in range(len(options))}) == len(options)


@pytest.mark.parametrize(
    ("options", "status", "code", "says"),
    [
        ([], 2, "missing-option", "-o FILE.png, .svg, .pdf or .html; or --format svg for standard output"),
        (["-o", "a.csv"], 2, "bad-option", "attn plot draws png, svg, pdf or html, not csv"),
        (["-o", "a.jpg"], 2, "unknown-format", "there is no output format for '.jpg'"),
        (["-f", "png"], 2, "binary-output", "--output result.png"),
        (["-o", "a.png", "--width", "8"], 2, "bad-option", "--width 8cm, or --width 8in"),
        (["-o", "a.png", "--width", "1e3cm"], 2, "bad-option", "--width takes a length such as 8.5cm"),
        (["-o", "a.png", "--width", "1cm"], 2, "bad-option", "from 1in to 60in"),
        (["-o", "a.png", "--width", "50in", "--dpi", "2400"], 2, "bad-option", "120000 pixels"),
        (["-o", "a.png", "--dpi", "0"], 2, "bad-option", "--dpi takes an integer from 20 to 2400"),
        (["-o", "a.png", "--cmap", "virids"], 2, "bad-option", "did you mean 'viridis'?"),
        (["-o", "a.png", "--only", "wieghts"], 2, "unknown-step", "did you mean 'weights'?"),
        (["-o", "a.png", "--only", "top_keys", "--top", "2"], 2, "bad-option", "--only top_weights"),
        (["-o", "a.png", "--only", "context", "--kind", "heads"], 2, "bad-option", "--only weights, or --kind heat"),
        (["-o", "a.png", "--kind", "flow"], 3, "several-queries", "--at query=0 chooses the first"),
        (["-o", "a.png", "--kind", "heads"], 3, "other-head-count", "there is 1"),
        (["-o", "a.png", "--only", "mask"], 3, "absent-step", "this variant has no step 'mask'"),
        (["-o", "a.jpg"], 2, "unknown-format", "add --format png, svg, pdf or html"),
        (["-o", "a.png", "--bare"], 2, "usage", "No such option: --bare"),
        (["-o", "nowhere/a.png"], 4, "cannot-write", "there is no folder nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(attn, tmp_path, options, status, code, says):
    done = attn("plot", TOKENS, *options)

    assert (done.status, done.out) == (status, "")
    assert f"error[{code}]: " in done.err
    assert says in done.err
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_not_replaced(attn, tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")

    assert attn("plot", TOKENS, "-o", "a.png").status == 2
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert attn("plot", TOKENS, "-o", "a.png", "--force").status == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--causal"], "options of the variant change nothing"),
        (["--top", "2"], "--top changes nothing"),
        (["--header", "no"], "this is a result"),
        (["--only", "entropy"], "the result has no step 'entropy': it has scores, scaled_scores, weights and context"),
    ],
)
def test_what_a_result_does_not_hold_is_refused(attn, words, says):
    attn("compute", TOKENS, "-o", "r.json", "-q")
    done = attn("plot", "r.json", "-o", "a.svg", *words)

    assert done.status in (2, 3)
    assert says in done.err


def test_one_problem_is_drawn_at_a_time(attn, tmp_path):
    (tmp_path / "p.ndjson").write_text('{"embeddings": [[1]]}\n' * 2)

    assert "error[many-problems]" in attn("plot", "p.ndjson", "-o", "a.png").err
    assert (
        "the results of a stream of problems are JSON lines, not png" in attn("compute", "p.ndjson", "-o", "a.png").err
    )


@pytest.mark.parametrize("installed", [None, "3.10.8"])
@pytest.mark.parametrize("words", [["plot"], ["compute"], ["batch", "--plot", "png"]], ids=str)
def test_a_missing_matplotlib_is_said_before_anything_is_read(attn, tmp_path, monkeypatch, installed, words):
    known = metadata.version

    def find_version(name):
        if name != "matplotlib":
            return known(name)
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("attncli.views.figures.library.version", find_version)
    (tmp_path / "x.csv").write_text("a,1,2\n")
    done = attn(words[0], "x.csv", *words[1:], "-o", "out" if "batch" in words else "a.png")

    assert done.status == 4
    assert done.err.startswith("error[missing-extra]: figures need matplotlib")
    assert done.err.endswith("  = help: pip install 'attncli[plot]'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.slow
def test_settings_of_matplotlib_change_nothing_and_are_not_spoken_of(attn, tmp_path):
    (tmp_path / "matplotlibrc").write_text("axes.titlesize: nonsense\nbackend: TkAgg\nfont.family: serif\n")
    attn("compute", TOKENS, "--causal", "-o", "r.json", "-q")
    attn("plot", "r.json", "-o", "a.svg")
    odd = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLCONFIGDIR": "/proc/nowhere"}
    drawn = run_process("plot", "r.json", "-o", "b.svg", env=odd, cwd=tmp_path)
    refused = run_process("plot", "r.json", "-o", "c.svg", env={"MPLBACKEND": "nonsense"}, cwd=tmp_path)

    assert (drawn.returncode, drawn.stderr) == (0, b"")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert refused.returncode == 4
    assert refused.stderr.startswith(b"error[missing-extra]: matplotlib does not load: ")


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────
DRAW = """
import sys, time
from attncli.cli import main
for suffix in ("svg", "pdf", "png"):
    assert main(["plot", sys.argv[1], "-o", f"{sys.argv[2]}/x.{suffix}", "-q"]) == 0
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.slow
def test_files_are_the_same_bytes_in_every_process(attn, tmp_path):
    tokens = ["$x$", "שלום", "<b>", "日本", "a"]
    save(tmp_path / "x.json", tokens=tokens, embeddings=draw_normal(1, 5, 4))
    attn("compute", "x.json", "--causal", "-o", "r.json", "-q")
    for folder, seed in (("a", "1"), ("b", "77")):
        (tmp_path / folder).mkdir()
        subprocess.run(
            [sys.executable, "-c", DRAW, "r.json", folder, "1.1" if folder == "a" else "0"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            timeout=TIMEOUT,
            check=True,
            stderr=subprocess.DEVNULL,
        )

    for suffix in ("svg", "pdf", "png"):
        assert (tmp_path / f"a/x.{suffix}").read_bytes() == (tmp_path / f"b/x.{suffix}").read_bytes(), suffix


def test_an_svg_holds_no_markup_of_tokens(attn, tmp_path):
    save(tmp_path / "x.json", tokens=["<script>alert(1)</script>", "a & b"], embeddings=[[1, 2], [3, 4]])
    attn("plot", "x.json", "-o", "a.svg", "-q")
    svg = (tmp_path / "a.svg").read_text()

    assert not re.search("<script|alert\\(1\\)<", svg.replace("<!--", "").replace("-->", ""))
    assert "http" not in re.sub(
        r'(xmlns(:\w+)?|rdf:resource|rdf:about|DTD)\S*="[^"]*"|"http://www.w3.org[^"]*"', "", svg
    ).replace("https://matplotlib.org/", "")


def test_a_page_of_a_saved_result_is_made_without_computing(attn, tmp_path):
    assert attn("compute", SAMPLES / "cat_sat.json", "--causal", "-o", "result.json").status == 0
    assert attn("plot", "result.json", "-o", "page.html").status == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert '"weights"' in page
    refused = attn("plot", "result.json", "-o", "other.html", "--title", "Mine", "--dpi", "90")
    assert (refused.status, not (tmp_path / "other.html").exists()) == (2, True)
    assert "--dpi and --title are for figures, but this is a page" in refused.err
