"""What a result does in Python: items, arrays, frames, files, a prompt, pages of explain, figures that are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import attncli
from tests.helpers import assert_close
from tests.python.three_tokens import CAUSAL, CSV, TOKENS, W, X, weigh


@pytest.fixture(scope="module")
def result():
    return attncli.attend(X, causal=True, tokens=TOKENS, only=["weights", "context"])


def test_steps_are_items_and_arrays(result):
    assert list(result.keys()) == ["weights", "context"]
    assert len(result) == 2
    assert_close(np.asarray(result["weights"]), CAUSAL)
    assert_close(np.asarray(result["weights"]) @ X, result["context"].values)
    assert np.asarray(result["weights"], dtype=np.float32).dtype == np.float32


def test_a_result_is_plain_values_and_json(result):
    record = result.to_dict()

    assert_close(record["weights"], CAUSAL)
    assert json.loads(json.dumps(record)) == json.loads(result.to_json())
    assert record["schema"] == "attn.result/1"


def test_a_result_is_a_frame_with_labels(result):
    frame = result.to_pandas("weights")

    assert frame.loc["cat", "the"] == pytest.approx(CAUSAL[1, 0], rel=1e-12)
    assert (frame.index.name, frame.columns.name) == ("query", "key")
    assert list(result.to_pandas("context").columns) == [0, 1, 2, 3]


def test_heads_and_batches_are_levels_of_the_index():
    x = np.stack([X, X[::-1]])

    frame = attncli.attend(x, heads=2, tokens=[list(TOKENS), list(TOKENS[::-1])]).to_pandas("weights")

    assert frame.index.names == ["batch", "head", "query"]
    assert frame.shape == (12, 3)
    own = weigh(X[::-1][:, :2], X[::-1][:, :2], scale=2**-0.5)
    assert_close(frame.loc[(1, 0, "sat")].to_numpy(), own[0])
    assert list(frame.columns) == [0, 1, 2]  # the keys of the two items have other tokens


def test_all_steps_are_one_tidy_frame(result):
    frame = result.to_pandas()

    assert len(frame) == 9 + 12
    one = frame[(frame.step == "weights") & (frame.query_token == "sat") & (frame.key_token == "cat")]
    assert one.value.item() == pytest.approx(CAUSAL[2, 1], rel=1e-12)
    assert result.to_polars("weights").height == 9


def test_a_result_is_an_array_with_coordinates(result):
    pytest.importorskip("xarray")

    array = result.to_xarray("weights")

    assert array.dims == ("query", "key")
    assert array.sel(query=1, key=0).item() == pytest.approx(CAUSAL[1, 0], rel=1e-12)
    assert list(array.key_token.values) == list(TOKENS)


@pytest.mark.parametrize(
    "suffix", ["json", "ndjson", "csv", "tsv", "npz", "safetensors", "parquet", "feather", "md", "tex", "txt"]
)
def test_a_result_is_saved_as_the_command_line_writes_it(attn, tmp_path, suffix):
    (tmp_path / "x.csv").write_text(CSV, encoding="utf-8")
    attn("compute", "x.csv", "--causal", "--only", "weights", "-o", f"theirs.{suffix}")

    attncli.attend("x.csv", causal=True, only="weights").save(f"ours.{suffix}")

    theirs, ours = Path(f"theirs.{suffix}").read_bytes(), Path(f"ours.{suffix}").read_bytes()
    assert ours == theirs


def test_print_shows_the_tables_and_a_prompt_a_few_lines(result):
    assert "2 sat         0.0996   0.1643   0.7361   1.0000" in str(result)
    assert repr(result).splitlines()[1:] == [
        "  query: 0 the, 1 cat, 2 sat",
        "  key: 0 the, 1 cat, 2 sat",
        "  weights  query 3 × key 3  1.0000, 0.0000 … 0.7361",
        "  context  query 3 × dim 4  1.0000, 0.0000 … 1.0646",
    ]
    assert repr(result["weights"]).splitlines()[0] == (
        "weights · query 3 × key 3 · float64 · e^(s − max s) / Σ e^(s − max s)"
    )


def test_what_was_selected_keeps_its_indices():
    some = attncli.attend(X, tokens=TOKENS, at={"query": "sat", "key": [0, 2]}, only="weights")

    assert repr(some).splitlines()[1:3] == ["  query: 2 sat", "  key: 0 the, 2 sat"]
    assert_close(some.to_pandas("weights").loc["sat", ["the", "sat"]], W[2, [0, 2]])
    assert some != attncli.attend(X)
    assert len({some, some}) == 1


def test_long_results_are_abbreviated():
    long = attncli.attend(np.random.default_rng(0).normal(size=(500, 4)))

    assert len(repr(long)) < 1500
    assert len(str(long).splitlines()) < 600
    assert max(map(len, str(long).splitlines())) <= 100
    assert len(long._repr_html_()) < 80_000
    assert len(repr(long["weights"])) < 800


def test_a_notebook_shows_tables_in_which_tokens_are_text():
    html = attncli.attend(
        X, tokens=["<script>alert(1)</script>", "a\x1b[31m", "b"], causal=True, only="weights"
    )._repr_html_()

    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\x1b" not in html
    assert ">0.7361</td>" in html
    assert html.count(">·</td>") == 3


def test_a_result_explains_a_query_as_the_command_line_does(attn, tmp_path):
    (tmp_path / "x.csv").write_text(CSV, encoding="utf-8")
    result = attncli.attend("x.csv", causal=True)
    printed = attn("explain", "x.csv", "cat", "--causal", "--quiet").out

    assert result.explain("cat") == printed
    assert result.explain(1) == printed
    assert attncli.explain("x.csv", "cat", mask="causal") == printed
    assert "0.9241" in result.explain("cat", format="markdown")
    assert "<pre" in result.explain("cat")._repr_html_()


@pytest.mark.slow
def test_a_result_draws_the_figure_of_the_command_line(attn, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "x.csv").write_text("the,1,0\ncat,0,1\n")
    attn("plot", "x.csv", "--causal", "--only", "scores", "--title", "T", "-o", "cli.png", "-q")
    figure = attncli.attend("x.csv", mask="causal").plot("scores", title="T")

    assert figure._repr_png_() == (tmp_path / "cli.png").read_bytes()
    figure.save(tmp_path / "mine.svg")
    assert (tmp_path / "mine.svg").read_text().startswith("<?xml")
    assert repr(figure) == "<Figure of scores: .save('figure.png') writes it>"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"steps": "wieghts"}, "unknown-step"),
        ({"steps": "output"}, "absent-step"),
        ({"kind": "pie"}, "bad-option"),
        ({"width": "8.5"}, "bad-option"),
        ({"dpi": 2.5}, "bad-option"),
        ({"cmap": "cividsi"}, "bad-option"),
    ],
)
def test_what_no_figure_can_be_is_refused(options, code):
    pytest.importorskip("matplotlib")
    with pytest.raises(attncli.AttnError) as caught:
        attncli.attend(X).plot(**options)
    assert caught.value.code == code


def test_a_figure_without_matplotlib_says_what_to_install(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("attncli.views.figures.library.version", version)
    with pytest.raises(attncli.CannotError) as caught:
        attncli.attend(X).plot()
    assert (caught.value.code, caught.value.help) == ("missing-extra", "pip install 'attncli[plot]'")


def test_what_was_drawn_is_explained_as_it_was_drawn():
    result = attncli.attend(X, projection="randn:dim=2", only="weights")

    seed = result.variant["seed"]
    assert result.explain(0) == attncli.explain(X, 0, projection="randn:dim=2", seed=seed)
    assert result.explain(0) != attncli.explain(X, 0, projection="randn:dim=2", seed=seed + 1)


def test_numbers_of_numpy_are_indices():
    result = attncli.attend(X, at={"query": np.array([0, 2])}, positions=range(3), mask="causal")

    assert result.at == {"query": (0, 2)}
    assert result.explain(np.int64(1)) == result.explain(1)


def test_a_step_is_an_array_for_other_libraries(result):
    weights = torch.as_tensor(result["weights"])

    assert weights.tolist() == np.asarray(result["weights"]).tolist()


def test_a_page_has_the_precision_that_is_asked_for(result):
    assert "0.9241" in result.explain("cat")
    assert "0.92 " in result.explain("cat", precision=2)
    assert "0.924" not in result.explain("cat", precision=2)


def test_a_gradient_is_explained():
    result = attncli.attend(X, mask="causal", tokens=TOKENS)

    assert result.explain("cat", grad="ones") == result.explain("cat", grad=np.ones((3, 4)))
    assert result.explain("cat", grad="ones") != result.explain("cat", grad=torch.zeros(3, 4))


def test_a_tensor_keeps_its_graph():
    x = torch.tensor(X, requires_grad=True)

    result = attncli.attend(x, mask="causal")
    result["context"].values.sum().backward()

    assert x.grad is not None
    assert_close(np.asarray(result["weights"]), CAUSAL)


def test_protocols_of_python_go_on_working(result):
    import copy
    import pickle

    assert not hasattr(result, "weights")
    with pytest.raises(KeyError):
        result["nothing"]
    for again in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert str(again) == str(result)
        assert again.explain("cat") == result.explain("cat")
    report = attncli.check(X, {"weights": W})
    assert str(pickle.loads(pickle.dumps(report))) == str(report)
    assert dict(result).keys() == {"weights", "context"}
