"""Pages in a browser without a network: they are drawn, driven and edited, and what they show is what attn computes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.readers.results import read_result
from attncli.views.labelled_matrices import SlicedStep
from tests.browser import CHROMIUM, Browser
from tests.helpers import SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
TWO_HEADS = {
    "tokens": ["the", "cat", "sat", "the"],
    "embeddings": [[1, 0, 0.5, 2], [0.25, 1, 1, -1], [2, -0.5, 0, 1], [1, 1, 0, 0.125]],
    "parameters": {
        "w_q": [[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0.25, 1, 0], [0.5, 0, 0, 1]],
        "w_k": [[1, 0, 0, 0.5], [0, 1, 0.25, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        "w_v": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],
        "w_o": [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1]],
    },
    "variant": {"heads": 2, "mask": "causal"},
}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(attn, tmp_path, browser):
    """Compute a problem into a page, and open it; when the test is over, nothing has gone wrong in it and nothing been asked for."""

    def open_page(problem: dict | Path, *options: str, **window):
        path = problem
        if isinstance(problem, dict):
            path = tmp_path / "problem.json"
            path.write_text(json.dumps(problem))
        run = attn("compute", path, "-o", tmp_path / "page.html", "--force", "-q", *options)
        assert run.status == 0, run.err
        browser.open(tmp_path / "page.html", **window)
        return browser

    yield open_page
    assert browser.errors == []
    assert browser.requests == []


def shown_table(browser: Browser) -> list[list[str]]:
    return browser.evaluate(
        "[...document.querySelectorAll('.numbers tbody tr')].map(r => [...r.querySelectorAll('td')].map(c => c.innerText))"
    )


def computed_tables(fields: dict, precision: int = 4) -> dict[tuple[str, int], list[list[str]]]:
    """What the tables of `attn compute --only all` show, by step and head."""
    attention = attncli.attend(attncli.Problem(**fields), keep="all")
    tables = {}
    for step in attention:
        sliced = SlicedStep(attention, step, precision)
        for index in np.ndindex(sliced.values.shape[: len(sliced.slice_axes)]):
            matrix = sliced.matrix(index)
            rows = [row[: len(matrix.column_labels)] for row in matrix.format_rows(0, len(matrix.row_labels))]
            tables[step.name, index[-1] if index else 0] = rows
    return tables


# ── what is chosen ───────────────────────────────────────────────────────────────────────────────
def test_every_step_and_head_shows_what_attn_computes(page):
    browser = page(TWO_HEADS, "--only", "all")
    computed = computed_tables(TWO_HEADS)

    for (step, head), rows in computed.items():
        browser.choose("head", f"head {head}")
        browser.choose("step", step)
        assert shown_table(browser) == rows, (step, head)
    assert len(computed) > 20


def test_a_cell_shows_its_arithmetic_as_explain_does(page, attn):
    browser = page(SAMPLES / "cat_sat.json", "--causal")

    browser.hover(".numbers tbody tr:nth-child(3) td:nth-of-type(2)")  # sat looks at cat

    explained = attn("explain", SAMPLES / "cat_sat.json", "sat", "--causal", "--at", "key=cat", "--json").json
    lines = [line["text"] for section in explained["sections"] for line in section["lines"] if line["label"] == "cat"]
    assert browser.text(".cell h2") == "query 2 sat, key 1 cat"
    assert browser.text(".cell .figure").startswith("0.16425162762508783"[:12])
    shown = [text.removesuffix("\u00a0†") for text in browser.texts(".cell .lines td:nth-child(2)")]
    assert [line for line in lines[1:] if line not in shown] == []  # the first is the key itself
    assert "2·0 + 1·1 + 0·1 + 1·2 = 3" in shown


def test_a_long_token_leaves_room_for_the_arithmetic(page):
    browser = page({"tokens": ["a_token_of_a_hundred_letters" * 4, "b"], "embeddings": [[1, 0.5], [0.25, 2]]})
    browser.hover(".numbers tbody tr:nth-child(2) td:nth-of-type(1)")

    for panel in (".cell", ".working"):
        cut = f"[...document.querySelectorAll('{panel} .lines')].filter(table => table.scrollWidth > table.parentElement.clientWidth).length"
        assert browser.evaluate(cut) == 0, panel


def test_a_click_draws_the_lines_of_a_query(page):
    browser = page(SAMPLES / "cat_sat.json", "--causal")

    browser.click(".numbers tbody tr:nth-child(2) td:nth-of-type(1)")

    assert browser.text(".looking h2") == "Where 1 cat looks"
    assert browser.texts(".looks ol:last-child li") == ["0.0759 0 the", "0.9241 1 cat", "· 2 sat"]
    assert browser.evaluate("document.querySelectorAll('.looks line').length") == 2  # a hidden key has none
    assert "[0.0759  0.9241  1.0000  1.8483]" in browser.text(".looking")
    assert browser.text(".working h3") == "for query 1 cat"


def test_keys_move_and_say_what_they_reach(page):
    browser = page(SAMPLES / "cat_sat.json", "--causal")
    browser.evaluate("document.querySelector('.map').focus()")

    for key in ("ArrowUp", "Home"):
        browser.press(key)

    assert browser.text(".apart") == "weights, query 1 cat, key 0 the: 0.0759"
    browser.press("Enter")
    assert browser.text(".looking h2") == "Where 1 cat looks"
    browser.press("b")
    assert browser.text(".step h2") == "masked_scores"
    assert browser.evaluate("document.activeElement.className") == "map"
    for _ in range(2):
        browser.press("End")
    assert browser.text(".apart") == "masked_scores, query 1 cat, key 2 sat: hidden key"


def test_every_head_is_a_picture_that_chooses_it(page):
    browser = page(TWO_HEADS)

    browser.click(".multiples button:nth-child(2)")

    assert browser.text(".step h2") == "weights · head 1 of 2"
    assert browser.texts(".multiples button") == ["head 0", "head 1"]


def test_the_heads_of_every_layer_stand_below_each_other(attn, tmp_path, browser):
    problems = [{**TWO_HEADS, "id": name} for name in ("first", "second")]
    (tmp_path / "model.ndjson").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    assert attn("compute", tmp_path / "model.ndjson", "-o", tmp_path / "model.html").status == 0
    browser.open(tmp_path / "model.html")

    browser.click(".multiples > div:nth-of-type(2) button:nth-child(2)")

    assert browser.texts(".multiples h3") == ["first", "second"]
    assert browser.evaluate("[state.layer, state.head]") == [1, 1]
    assert browser.errors == []


# ── a number is changed ──────────────────────────────────────────────────────────────────────────
def edits(seed: int, rows: int, dims: int, count: int):
    """Numbers of few decimals, which make ties of rounding; negative zero among them."""
    draw = random.Random(seed)
    for i in range(count):
        text = (
            "-0"
            if i == 7
            else str(draw.choice((draw.randint(-3, 3), draw.randint(-24, 24) / 8, draw.randint(-300, 300) / 100)))
        )
        yield draw.randrange(rows), draw.randrange(dims), text


@pytest.mark.parametrize("case", ["two heads", "an empty row", "given q, k and v", "no projection", "a batch"])
def test_after_twenty_edits_every_figure_is_what_attn_computes(page, case):
    x = [[1, 0, 0.5, 2], [0.25, 1, 1, -1], [2, -0.5, 0, 1]]
    problem = {
        "two heads": TWO_HEADS,
        "an empty row": {"embeddings": x, "mask": [[False] * 3, [True, False, True], [True] * 3]},
        "given q, k and v": {"q": x, "k": [row[::-1] for row in x[:2]], "v": [[1.5], [-2.25]]},
        "no projection": {"embeddings": x, "variant": {"scale": "0.25", "empty_rows": "uniform"}},
        "a batch": {"embeddings": [x, x[::-1]], "variant": {"mask": "causal"}},
    }[case]
    problem = json.loads(json.dumps(problem))
    field = "q" if "q" in problem else "embeddings"
    name = "q" if field == "q" else "x"
    browser = page(problem, "--only", "all")
    where = problem[field]
    if case == "a batch":
        browser.choose("batch", "batch 1")
        where = where[1]
    for row, dim, text in edits(len(case), len(where), 4, 20):
        browser.type(f'[data-input="{name} {row} {dim}"]', text)
        where[row][dim] = float(text)

    computed = computed_tables(problem)
    figure_count = 0
    steps = browser.evaluate("layer().steps.map(step => step.name)")
    followed = browser.evaluate("layer().inputs.steps")
    for step in steps:
        if step not in followed:
            continue
        for head in range(2 if case == "two heads" else 1):
            browser.evaluate(f"update({{step: {steps.index(step)}, head: {head}}})")
            rows = computed.get((step, head if case != "a batch" else 1)) or computed[step, 0]
            assert shown_table(browser) == rows, (step, head)
            figure_count += sum(map(len, rows))
    assert figure_count > 30
    assert "computed in this page" in browser.text(".step h2")


def test_what_is_no_number_changes_nothing_and_undo_brings_all_back(page):
    browser = page(TWO_HEADS)
    before = shown_table(browser)

    browser.type('[data-input="x 0 0"]', "1e")

    assert browser.evaluate("document.querySelector('[data-input=\"x 0 0\"]').getAttribute('aria-invalid')") == "true"
    assert shown_table(browser) == before
    browser.type('[data-input="x 0 0"]', "-3")
    assert shown_table(browser) != before
    browser.click('[data-name="undo"]')
    assert shown_table(browser) == before
    assert browser.evaluate("document.querySelector('[data-input=\"x 0 0\"]').value") == "1"


def test_numbers_are_rounded_as_python_rounds_them(page):
    browser = page(SAMPLES / "cat_sat.json")
    draw = random.Random(5)
    numbers = [draw.randint(-(2**20), 2**20) / 2**k for k in range(12) for _ in range(40)]
    numbers += [draw.uniform(-1, 1) * 10.0 ** draw.randint(-12, 12) for _ in range(400)]
    numbers += [0.0, -0.0, 0.03125, 4.45305, -0.00005, 1000050000.0, 9999950000.0, 2.5e15, -1.00005e9]

    fixed = browser.evaluate(
        f"{json.dumps(numbers)}.map(x => [0, 2, 4].map(d => Math.abs(x) < 1e9 ? fixedText(x, d) : ''))"
    )
    exponents = browser.evaluate(f"{json.dumps(numbers)}.map(x => [0, 2, 4].map(d => exponentText(x, d)))")

    for x, in_page, in_page_e in zip(numbers, fixed, exponents, strict=True):
        for digits, text, text_e in zip((0, 2, 4), in_page, in_page_e, strict=True):
            expected = f"{x:.{digits}f}"
            assert text == (expected if expected.strip("-0.") else expected.lstrip("-")) or abs(x) >= 1e9, x
            assert text_e == f"{x:.{digits}e}" or x == 0, x


def test_what_a_page_cannot_compute_it_says(page):
    browser = page({**TWO_HEADS, "variant": {"heads": 2, "position": "rope"}})

    assert browser.text(".editing p") == (
        "Not in this page: a page does not compute the position rope. Change the input, and run attn compute again."
    )
    assert browser.evaluate("document.querySelectorAll('.editing input').length") == 0


# ── what is saved ────────────────────────────────────────────────────────────────────────────────
def test_numbers_and_pictures_are_saved(page, tmp_path):
    browser = page({**TWO_HEADS, "mask": [[False] * 4, *[[True] * 4] * 3]}, "--only", "all")

    for name in ("json", "png"):
        browser.click(f'[data-name="{name}"]')
    browser.wait_for_download("result.json")
    browser.wait_for_download("weights.png")

    saved = read_result(browser.downloads / "result.json")
    computed = attncli.attend(attncli.Problem(**{**TWO_HEADS, "mask": [[False] * 4, *[[True] * 4] * 3]}), keep="all")
    assert [step.name for step in saved] == [step.name for step in computed]
    for one, other in zip(saved, computed, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    assert (browser.downloads / "weights.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_page_with_a_shared_script_is_drawn(page):
    browser = page(SAMPLES / "cat_sat.json", "--shared-js")

    assert browser.text(".step h2") == "weights"


# ── hard cases ───────────────────────────────────────────────────────────────────────────────────
HOSTILE = [
    "<script>alert(1)</script>",
    "</script>",
    "\u202eabc",
    "שלום",
    "日本語",
    "the",
    "the",
    "",
    "e\u0301",
    "<!--",
    "'\"&",
    "\x1b[31m",
]


def hard_case(name: str) -> tuple[dict, tuple[str, ...]]:
    draw = np.random.default_rng(4)
    x = lambda *shape: draw.normal(size=shape).round(2).tolist()  # noqa: E731
    words = ["the" if i % 5 == 0 else f"t{i}" for i in range(300)]
    causal = {"variant": {"mask": "causal"}}
    return {
        "one token": ({"tokens": ["alone"], "embeddings": [[1, 2]]}, ()),
        "hostile tokens": ({"tokens": HOSTILE, "embeddings": x(12, 3), **causal}, ("--only", "all")),
        "300 tokens": ({"tokens": words, "embeddings": x(300, 8), **causal}, ()),
        "600 tokens": ({"embeddings": x(600, 4), **causal}, ("--only", "weights")),
        "16 heads": ({"embeddings": x(6, 64), "variant": {"heads": 16}}, ()),
        "cross-attention": ({"embeddings": x(2, 4), "memory": {"embeddings": x(5, 4)}}, ()),
        "an empty row": ({"embeddings": x(3, 4), "mask": [[False] * 3, [True] * 3, [True] * 3]}, ()),
        "not finite": ({"q": [[1, "NaN"], ["Infinity", 0.5]], "k": [[1, 1], [0.5, "-Infinity"]], "v": [[1], [2]]}, ()),
        "dropout": ({"embeddings": x(4, 4), "variant": {"dropout": "dropout:p=0.5,seed=3", "mask": "causal"}}, ()),
        "shared kv heads": ({"embeddings": x(4, 8), "variant": {"heads": 4, "kv_heads": 2}, "parameters": {"w_q": x(8, 8), "w_k": x(8, 4), "w_v": x(8, 4)}}, ("--only", "all")),
        "some of it": ({"embeddings": x(9, 4), **causal}, ("--at", "query=2:5", "--at", "key=1:4")),
    }[name]  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    "case",
    ["one token", "hostile tokens", "300 tokens", "600 tokens", "16 heads", "cross-attention", "an empty row", "not finite", "dropout", "shared kv heads", "some of it"],
)  # fmt: skip
def test_a_hard_case_is_drawn(page, case, width):
    problem, options = hard_case(case)
    browser = page(problem, *options, width=width, dark=width < 600)

    steps = browser.evaluate("layer().steps.length")
    for _ in range(steps):
        browser.press("b")
    for _ in range(steps):
        browser.press("n")
    assert browser.text(".bar .quiet").startswith(f"step {steps} of {steps}")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('main > div > *, .bar > *, header > *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).length"
    assert browser.evaluate(wide) == 0
    assert browser.evaluate("document.querySelectorAll('script').length") == 2


def test_tokens_are_text(page):
    problem, options = hard_case("hostile tokens")
    browser = page(problem, *options)

    labels = browser.texts(".numbers tbody th")

    assert labels[0] == "0 <script>alert(1)</script>"
    assert labels[2] == "2 \\u202eabc"
    assert browser.evaluate("document.querySelectorAll('main script, main img').length") == 0


def test_five_kinds_of_cells_are_five_texts(page):
    browser = page(hard_case("dropout")[0], "--only", "all")
    browser.choose("step", "dropout_weights")
    texts = {cell for row in shown_table(browser) for cell in row}
    assert {"·", "–"} < texts
    browser = page({"q": [[1000.0], ["NaN"]], "k": [[1.0], ["-Infinity"], [-1.0]]})
    browser.choose("step", "scores")
    assert shown_table(browser) == [["1000.0000", "−∞", "-1000.0000"], ["NaN", "NaN", "NaN"]]
    browser.choose("step", "weights")
    assert shown_table(browser)[0] == ["1.0000", "0.0000", "0.0000"]


def test_lines_are_those_of_the_weights_after_dropout(page):
    problem = {
        "embeddings": [[1, 0], [0, 1]],
        "dropout_mask": [[True, False], [False, False]],
        "variant": {"dropout": 0.5},
    }
    browser = page(problem, "--only", "weights,dropout_weights,context")

    assert "lines: dropout_weights" in browser.text(".looking")
    assert browser.texts(".looks ol:last-child li") == ["– 0", "– 1"]
    assert "looks nowhere: all of its weights are dropped." in browser.text(".looking")
    browser = page(problem, "--only", "weights,context")
    assert (
        browser.text(".looking .warning") == "The values are not summed with these: this page holds no dropout_weights."
    )


@pytest.mark.parametrize(("count", "width"), [(10, 1280), (12, 1280), (16, 1280), (12, 390)])
def test_the_chosen_cell_of_a_table_is_in_sight(page, count, width):
    browser = page({"embeddings": np.eye(count).tolist(), "tokens": [f"token{i}" for i in range(count)]}, width=width)
    edges = """(() => { const box = document.querySelector("td.cursor").getBoundingClientRect(),
      place = document.querySelector(".step .scroll").getBoundingClientRect();
      return [box.left - place.left, place.right - box.right]; })()"""
    browser.evaluate("document.querySelector('.map').focus()")

    before = browser.evaluate(edges)
    browser.press("Home")
    first = browser.evaluate(edges)

    assert min(before + first) >= -0.5
    fits = browser.evaluate(
        "document.querySelector('.numbers').offsetWidth <= document.querySelector('.step .scroll').clientWidth"
    )
    assert fits == (width == 1280 and count <= 12)


def test_slanted_labels_stand_apart(page):
    browser = page(*hard_case("300 tokens")[:1])

    labels = browser.evaluate(
        """(() => { const xs = [], own = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (...all) {
          const place = this.getTransform(); if (place.b) xs.push(place.e / devicePixelRatio); own.apply(this, all); };
        draw(); CanvasRenderingContext2D.prototype.fillText = own; return xs; })()"""
    )

    assert 10 < len(labels) < 60
    assert min(np.diff(labels)) >= 18  # 16 pixels between lines of text of 12


def test_blocks_say_what_they_are_and_zooming_shows_numbers(page):
    browser = page(*hard_case("600 tokens")[:1], "--only", "weights")

    assert "Each cell is the mean of 2 × 2 numbers" in browser.text(".legend")
    browser.click(".map canvas", 0.2, 0.8)

    assert "Each cell" not in browser.text(".legend")
    row, column = browser.evaluate("[state.row, state.column]")
    browser.evaluate("document.querySelector('.map').focus()")
    browser.press("ArrowDown")
    weights = attncli.attend(attncli.Problem(**hard_case("600 tokens")[0]), keep={"weights"})["weights"].values
    assert float(browser.text(".cell .figure")) == pytest.approx(float(weights[row + 1, column]), rel=1e-7)


def test_text_is_readable_in_light_and_dark(page):
    for dark in (False, True):
        browser = page(SAMPLES / "cat_sat.json", dark=dark)
        ratios = browser.evaluate(
            """(() => { const style = getComputedStyle(document.documentElement);
            const light = (name) => { const c = style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map(h => parseInt(h, 16) / 255)
              .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
            return ["--ink", "--quiet", "--accent"].flatMap(ink => ["--ground", "--panel"].map(ground => {
              const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b); return (high + 0.05) / (low + 0.05); })); })()"""
        )
        assert min(ratios) >= 4.5, (dark, ratios)
        inks = browser.evaluate("SHARE_COLORS.concat(SIGNED_COLORS).map(c => [c, inkOn(c)])")
        for rgb, ink in inks:
            linear = [x / 255 / 12.92 if x / 255 <= 0.04045 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in rgb]
            luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
            assert (1.05 / (luminance + 0.05) if ink == "#ffffff" else (luminance + 0.05) / 0.05) >= 4.5, rgb
