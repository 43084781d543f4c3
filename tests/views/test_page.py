"""The structure of a page: what it holds, and that nothing in it can reach out or be taken for markup."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib

import numpy as np
import pytest

import attncli
from attncli.views.pages.document import fill_template, read_script
from tests.helpers import SAMPLES, run_process
from tests.views.test_formats import HOSTILE

TYPES = {"f8": "<f8", "f4": "<f4", "i4": "<i4", "u1": "|u1"}


def record_of(page: str) -> dict:
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def inflate(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text.translate(str.maketrans(",.:", "&<>"))))


def unpack(text: str, kind: str) -> np.ndarray:
    data = inflate(text)
    size = int(TYPES[kind][-1])
    return np.frombuffer(data, np.uint8).reshape(size, -1).T.copy().view(TYPES[kind])[:, 0]


def values_of(step: dict) -> np.ndarray:
    return unpack(step["values"], step["kind"]).reshape(step["shape"])


@pytest.fixture
def page(attn, tmp_path):
    def write(problem, *options: str) -> str:
        path = problem
        if isinstance(problem, dict):
            path = tmp_path / "problem.json"
            path.write_text(json.dumps(problem, default=lambda values: values.tolist()))
        run = attn("compute", path, "-o", tmp_path / "page.html", "--force", *options)
        assert (run.status, run.out) == (0, ""), run.err
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


def test_a_page_holds_every_step_exactly(page):
    record = record_of(page(SAMPLES / "journey_causal_batch.json", "--only", "all"))

    [layer] = record["layers"]
    computed = attncli.attend(attncli.read(SAMPLES / "journey_causal_batch.json"), keep="all")
    assert [step["name"] for step in layer["steps"]] == [step.name for step in computed]
    for step, own in zip(layer["steps"], computed, strict=True):
        np.testing.assert_array_equal(values_of(step), own.values)
        assert (step["axes"], step["formula"]) == (list(own.axes), own.formula)


@pytest.mark.parametrize("size", [0.01, 1, 1000])  # even weights, plain ones, and such as underflow
def test_a_page_of_many_numbers_is_exact_to_float32_and_small(size, page):
    draw = np.random.default_rng(0)
    problem = {"embeddings": size * draw.normal(size=(64, 96)), "variant": {"heads": 12}}

    weights, every = page(problem, "--only", "weights"), page(problem, "--only", "all")

    computed = attncli.attend(attncli.Problem(embeddings=problem["embeddings"]), attncli.Variant(heads=12), keep="all")
    for step in record_of(every)["layers"][0]["steps"]:
        np.testing.assert_array_equal(values_of(step), computed[step["name"]].values.astype(np.float32))
    assert len(weights.encode()) < 300_000
    assert len(every.encode()) < 1_500_000


def test_hidden_and_dropped_cells_are_marked(page):
    problem = {"embeddings": np.eye(4), "variant": {"mask": "causal", "dropout": "dropout:p=0.5,seed=3"}}
    steps = {step["name"]: step for step in record_of(page(problem, "--only", "all"))["layers"][0]["steps"]}

    hidden = np.triu(np.ones((4, 4), dtype=bool), 1)
    marks = {name: unpack(step["marks"], "u1").reshape(4, 4) for name, step in steps.items() if step["marks"]}
    assert sorted(marks) == ["dropout_weights", "mask", "masked_scores", "weights"]
    for name in ("mask", "masked_scores", "weights"):
        np.testing.assert_array_equal(marks[name] == 1, hidden)
    np.testing.assert_array_equal(marks["dropout_weights"] == 1, hidden)
    np.testing.assert_array_equal(marks["dropout_weights"] == 2, (values_of(steps["dropout_weights"]) == 0) & ~hidden)


def test_a_page_holds_the_weights_that_values_are_summed_with(page):
    problem = {"embeddings": np.eye(4), "variant": {"dropout": "dropout:p=0.5,seed=3"}}
    [layer] = record_of(page(problem, "--only", "weights,dropout_weights,context"))["layers"]
    steps = {step["name"]: values_of(step) for step in layer["steps"]}

    np.testing.assert_array_equal(steps["context"], steps["dropout_weights"] @ np.eye(4))
    assert (
        layer["record"]["variant"]["dropout"] == "dropout:p=0.5,seed=3"
    )  # by which the script says that a page lacks them


def test_the_lines_of_every_query_are_those_of_explain(page, attn):
    layer = record_of(page(SAMPLES / "cat_sat.json", "--causal"))["layers"][0]

    packed = inflate(layer["explanations"])
    [[queries]] = json.loads(packed)
    for query, explanation in enumerate(queries):
        explained = attn("explain", SAMPLES / "cat_sat.json", query, "--causal", "--why", "--json").json
        sections = [section for section in explained["sections"] if not section["idle"]]
        for mine, section in zip(explanation["sections"], sections, strict=True):
            assert (mine["title"], mine["why"]) == (section["title"], section["why"])
            assert [line["equation"] for line in mine["lines"]] == [line["text"] for line in section["lines"]]
        assert explanation["closing"] == explained["closing"]


def test_every_step_says_why_it_is_taken_however_many_keys_there_are(page):
    small, large = (
        record_of(page({"embeddings": np.eye(n), "variant": {"mask": "causal"}}))["layers"][0]["reasons"]
        for n in (4, 17)
    )

    assert large == small
    assert large["weights"].startswith("A weight says how much of each value the query takes. Exponentials")
    assert all(large[name] for name in ("scores", "scaled_scores", "masked_scores", "context"))


def test_a_token_that_is_called_like_a_line_is_no_line(page):
    layer = record_of(page({"tokens": ["sum", "cat"], "embeddings": [[1, 0], [1, 2]]}))["layers"][0]

    [[queries]] = json.loads(inflate(layer["explanations"]))
    [weights] = [section for section in queries[1]["sections"] if section["title"] == "weights"]
    keys = {line["label"]: line["key"] for line in weights["lines"]}
    assert (keys["0 sum"], keys["cat"], keys["sum"], keys["largest"]) == (0, 1, None, None)


@pytest.mark.parametrize(
    ("more", "obstacle"),
    [
        ({"variant": {"position": "rope"}}, "a page does not compute the position rope"),
        ({"variant": {"normalizer": "hardmax"}}, "a page does not compute the normaliser hardmax"),
        ({"variant": {"dtype": "float32"}}, "a page does not compute the dtype float32"),
        ({"bias": np.ones((3, 3))}, "a page does not compute the link bias"),
        ({"memory": {"embeddings": np.eye(4)}}, "a page does not compute more than one source of keys"),
        ({"embeddings": np.ones((13, 2))}, "a page computes problems of at most 12 tokens"),
        ({}, ""),
    ],
)
def test_what_may_be_changed(page, more, obstacle):
    layer = record_of(page({"embeddings": np.arange(12.0).reshape(3, 4), **more}))["layers"][0]

    assert layer["why_no_inputs"] == obstacle
    assert (layer["inputs"] is None) == bool(obstacle)


def test_a_page_reaches_nothing_and_no_token_is_markup(page):
    n = len(HOSTILE)
    text = page(
        {"tokens": [*HOSTILE, "</script><img src=x>"], "embeddings": np.ones((n + 1, 2)), "variant": {"mask": "causal"}}
    )

    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text
    assert re.findall(r"<(?:script|img|link|iframe|style)[^>]*>", text) == [
        "<style>",
        '<script type="application/json" id="data">',
        "<script>",
    ]
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert record_of(text)["layers"][0]["labels"]["query"][0][-1] == f"{n} </script><img src=x>"
    assert "<title>Attention of [red]x[/red] ␛[31mred␛[0m a|b*_`&lt;b&gt;" in text


def test_the_script_makes_no_markup_and_asks_for_nothing():
    script = read_script()

    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "fetch(",
        "XMLHttpRequest",
        "import(",
        "var ",
    ):
        assert word not in script, word
    assert script.startswith('"use strict";\n')
    assert [line for line in script.splitlines() if line != line.rstrip() or "\t" in line or "console." in line] == []


def test_braces_in_what_is_filled_in_stay():
    assert "<title>a {{body}} &lt;b&gt;</title>" in fill_template("a {{body}} <b>", "{{style}}")


def test_too_many_numbers_are_refused_before_anything_is_computed(attn, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5000, 2)))

    run = attn("compute", tmp_path / "x.npy", "-o", "page.html", "--only", "scores,weights")

    assert run.status == 2
    assert run.err == (
        "error[too-many-numbers]: html holds at most 16,777,216 numbers, and these steps have 50,000,000\n"
        "  = help: a part of them: --at query=0:100; or fewer steps: --only weights\n"
    )
    words = ("compute", tmp_path / "x.npy", "-o", "page.html", "--only", "scores,weights", "--at", "query=0:100")
    assert attn(*words).status == 0


@pytest.mark.slow
def test_a_saved_result_is_drawn_without_torch(tmp_path):
    run_process("compute", SAMPLES / "cat_sat.json", "-o", tmp_path / "result.json")
    code = (
        "import sys; from attncli.readers.results import read_result; from attncli.output_formats import *; "
        f"text = load_output_format('html').write(read_result({str(tmp_path / 'result.json')!r}), RenderOptions()); "
        "print(len(text) > 10000, sorted({'torch', 'typer', 'matplotlib', 'polars'} & {*sys.modules}))"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True []\n"


def test_a_result_in_python_is_saved_with_its_arithmetic(attn, tmp_path):
    result = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), mask="causal")

    result.save(tmp_path / "saved.html")

    attn("compute", SAMPLES / "cat_sat.json", "--causal", "-o", "page.html")
    saved, own = (record_of((tmp_path / name).read_text(encoding="utf-8")) for name in ("saved.html", "page.html"))
    [layer], [computed] = saved["layers"], own["layers"]
    assert layer["explanations"] is not None
    assert {name: layer[name] for name in ("explanations", "inputs", "labels")} == {
        name: computed[name] for name in ("explanations", "inputs", "labels")
    }


# ── several layers ───────────────────────────────────────────────────────────────────────────────
def test_a_stream_of_problems_is_one_page_of_layers(attn, tmp_path):
    problems = [{"id": f"layer {i}", "embeddings": [[i, 1], [1, 2]]} for i in range(3)]
    (tmp_path / "model.ndjson").write_text("".join(json.dumps(problem) + "\n" for problem in problems))

    assert attn("compute", tmp_path / "model.ndjson", "-o", "model.html").status == 0

    layers = record_of((tmp_path / "model.html").read_text(encoding="utf-8"))["layers"]
    assert [layer["name"] for layer in layers] == ["layer 0", "layer 1", "layer 2"]
    for layer, problem in zip(layers, problems, strict=True):
        weights = next(step for step in layer["steps"] if step["name"] == "weights")
        own = attncli.attend(attncli.Problem(embeddings=problem["embeddings"]))["weights"].values
        np.testing.assert_array_equal(values_of(weights), own)


def test_a_page_of_layers_is_written_whole_or_not_at_all(attn, tmp_path):
    (tmp_path / "model.ndjson").write_text('{"embeddings": [[1, 2]]}\n{"embeddings": [["x"]]}\n')

    run = attn("compute", tmp_path / "model.ndjson", "-o", "model.html")

    assert run.status == 3
    assert "line 2" in run.err or ":2" in run.err
    assert not (tmp_path / "model.html").exists()


# ── a folder of pages ────────────────────────────────────────────────────────────────────────────
def test_pages_of_a_folder_share_their_script(attn, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a.json", "b.json", "deep/c.json"):
        (tmp_path / "in" / name).write_text('{"embeddings": [[1, 2], [2, 1]]}')

    assert attn("batch", "in", "-o", "out", "-f", "html", "--shared-js").status == 0
    assert attn("compute", "in/a.json", "-o", "alone.html", "--shared-js").status == 0

    [script] = {path.name for path in tmp_path.rglob("*.js")}
    assert sorted(str(path.relative_to(tmp_path).parent) for path in tmp_path.rglob("*.js")) == [".", "out", "out/deep"]
    for path in tmp_path.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert f'<script src="{script}"></script>' in text
        assert "script-src 'self' file:; style" in text
        assert len(text) < 12_000
    assert (tmp_path / script).read_text(encoding="utf-8") == read_script()
    assert attn("batch", "in", "-o", "out", "-f", "html", "--shared-js").err.count("skipped") == 1  # all are up to date


@pytest.mark.parametrize("words", [("-f", "html"), ("-f", "csv"), ("-o", "x.json")])
def test_a_shared_script_is_for_pages_in_files(attn, words):
    run = attn("compute", SAMPLES / "cat_sat.json", "--shared-js", *words)

    assert (run.status, "-o FILE.html" in run.err) == (2, True)


# ── explanations ─────────────────────────────────────────────────────────────────────────────────
def test_a_board_holds_the_lines_of_explain(attn, tmp_path):
    problem = tmp_path / "problem.json"
    problem.write_text(json.dumps({"tokens": ["<b>a</b>", "c"], "embeddings": [[1, 0], [1, 2]]}))

    assert attn("explain", problem, "c", "--why", "-o", "board.html").status == 0

    text = (tmp_path / "board.html").read_text(encoding="utf-8")
    explained = attn("explain", problem, "c", "--why", "--json").json
    for section in explained["sections"]:
        for line in section["lines"]:
            assert f"<bdi>{html.escape(line['label'])}</bdi></td><td>{html.escape(line['text'])}" in text
        assert html.escape(section["why"]) in text
    assert html.escape(explained["closing"]) in text
    assert "<b>a" not in text
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert "<script" not in text


def test_a_worksheet_is_a_document_too(attn, tmp_path):
    attn("explain", SAMPLES / "cat_sat.json", "cat", "--blank", "weights", "-o", "sheet.html")

    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "⟨1⟩____" in text
    assert "<p>⟨1⟩ to ⟨3⟩: weights[1][0:3]</p>" in text
