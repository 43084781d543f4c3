"""Reports: every claimed figure in its matrix, the wrong ones marked."""

from __future__ import annotations

import html
import json
import re

import pytest

from tests.helpers import SAMPLES


@pytest.fixture
def report(attn, tmp_path):
    def write(problem, figures: dict, *options: str) -> str:
        (tmp_path / "mine.json").write_text(json.dumps(figures))
        if isinstance(problem, dict):
            (tmp_path / "problem.json").write_text(json.dumps(problem))
            problem = tmp_path / "problem.json"
        run = attn(
            "check", problem, "--figures", tmp_path / "mine.json", "-o", tmp_path / "report.html", "--force", *options
        )
        assert run.out == ""
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def cells(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", text)
    return [
        [html.unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


@pytest.mark.slow
def test_wrong_cells_are_marked_in_their_matrix(report):
    weights = [[1, 0, 0], [0.0759, 0.9241, 0], [0.0996, 0.2643, 0.7361]]

    text = report(SAMPLES / "cat_sat.json", {"weights": weights}, "--causal", "--no-identify")

    assert cells(text) == [
        ["the", "1", "0", "0"],
        ["cat", "0.0759", "0.9241", "0"],
        ["sat", "0.0996", "✗ 0.2643  right: 0.164252", "0.7361"],
    ]
    assert text.count('class="wrong"') == 1
    assert "✗ weights: 1 figure of 9 wrong" in text
    assert "script" not in text


def test_a_report_reveals_nothing_that_is_hidden(report):
    weights = [[1, 0, 0], [0.0759, 0.9241, 0], [0.0996, 0.2643, 0.7361]]

    text = report(SAMPLES / "cat_sat.json", {"weights": weights}, "--causal", "--no-reveal")

    assert cells(text)[2] == ["sat", "0.0996", "✗ 0.2643", "0.7361"]
    assert "0.16" not in text


def test_every_batch_item_and_head_has_its_matrix(report):
    x = [[[1, 0, 0, 1], [0, 1, 1, 0]], [[0, 0, 1, 1], [1, 1, 0, 0]]]
    half = [[[[0.5, 0.5]] * 2] * 2] * 2

    text = report(
        {"embeddings": x, "tokens": [["a", "<b>"], ["c", "d"]], "variant": {"heads": 2}},
        {"weights": half},
        "--no-identify",
    )

    assert re.findall(r"<h3>(.*?)</h3>", text) == [f"batch {b}, head {h}" for b in (0, 1) for h in (0, 1)]
    assert [row[0] for row in cells(text)] == ["a", "<b>"] * 2 + ["c", "d"] * 2


@pytest.mark.slow
def test_a_figure_alone_and_a_row_have_their_tables(report):
    text = report(SAMPLES / "cat_sat.json", {"entropy": [1.5, 0.1, 0.2]}, "--causal", "--no-identify")

    assert [row[0] for row in cells(text)] == ["the", "cat", "sat"]
    assert [row[1][:5] for row in cells(text)] == ["✗ 1.5", "✗ 0.1", "✗ 0.2"]


def test_a_folder_has_one_report(attn, tmp_path):
    folder = tmp_path / "problems"
    folder.mkdir()
    for name, weight in (("right", 0.5), ("wrong", 0.75)):
        problem = {"embeddings": [[1, 0], [1, 0]], "expected": {"weights": [[weight, 0.5]] * 2}}
        (folder / f"{name}.json").write_text(json.dumps(problem))

    run = attn("check", folder, "-o", tmp_path / "report.html")

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert run.status == 1
    assert text.count('class="wrong"') == 2
    assert "<td>right.json</td>" in text
