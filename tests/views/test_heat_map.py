"""Maps: a pixel for each number, the strongest of a square where there is no room, and which heads are drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rich.cells import cell_len

import attncli
from attncli.output_formats import RenderOptions, load_output_format
from attncli.select import select_indices
from attncli.types import Attention, Step
from tests.helpers import SAMPLES, draw_normal
from tests.views.screen import TERMINALS, lightness, read_screen
from tests.views.test_heat import kinds_of_cells


def draw(attention: Attention, **look) -> str:
    return "".join(load_output_format("table").write(attention, RenderOptions(heat="map", **look)))


def hold(values: np.ndarray, name: str = "weights") -> Attention:
    """A result of one step, of several heads."""
    tokens, k_tokens = (tuple(f"t{i}" for i in range(n)) for n in values.shape[-2:])
    return Attention({}, tokens, k_tokens, (Step(name, "x", ("head", "query", "key")[-values.ndim :], values),))


def maps(text: str) -> list[list[str]]:
    """The lines of every map in a text of one map a row, without what stands left of them."""
    blocks = re.sub(r"\x1b\[[\d;]*m", "", text).split("\n\n")
    lines = [block.split("\n") for block in blocks]
    starts = [next((i for i, line in enumerate(some) if re.fullmatch(r" +0( +\d+)*", line)), None) for some in lines]
    found = [some[start:] for some, start in zip(lines, starts, strict=True) if start is not None]
    return [[row[rows[0].index("0") :] for row in rows[1:]] for rows in found]  # the indices begin where the pixels do


def set_terminal(monkeypatch, name: str) -> None:
    for variable, value in TERMINALS[name].items():
        monkeypatch.setenv(variable, value)


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────
def test_without_colour_a_number_is_a_glyph():
    text = draw(hold(np.array([[1.0, 0.0, 0.26], [0.5, 0.75, 0.1], [0.0, 0.0, 0.0]])))

    assert text.endswith("\nshaded 0.00 ░▒▓█ 1.00 for all rows\n  0\n0 █ ░\n  ▒▓\n\n\n")


def test_with_colour_two_rows_stand_in_one_line(monkeypatch):
    """An odd last row has the ground below it, and the rows above each other are those of the matrix."""
    set_terminal(monkeypatch, "truecolor")
    values = np.array([[1.0, 0.0], [0.5, 0.0], [0.25, 1.0]])

    first, second = (
        line for line in read_screen(draw(hold(values), color=True)) if {"▀"} & {g.character for g in line}
    )

    light = [[lightness(glyph.ink), lightness(glyph.ground)] for glyph in first if glyph.character == "▀"]
    assert light[0][0] > 85
    assert 45 < light[0][1] < 60
    assert first[3].character == " "  # both are 0: one colour
    assert lightness(first[3].ground) < 20
    assert [glyph.ground for glyph in second if glyph.character == "▀"] == [None, None]


@pytest.mark.parametrize("terminal", TERMINALS)
def test_hidden_dropped_infinite_and_nan_are_told_apart(monkeypatch, terminal):
    set_terminal(monkeypatch, terminal)

    text = draw(kinds_of_cells(), color=True)

    legends = [line for line in read_screen(text) if "".join(g.character for g in line).startswith("· or no colour")]
    shown = ["".join(glyph.character for glyph in line) for line in legends]
    assert shown == [
        "· or no colour: hidden key   ██ infinite",
        "· or no colour: hidden key   ██ NaN",
        "· or no colour: hidden key   ██ dropped   ██ NaN",
    ]
    inks = [glyph.ink for line in legends for glyph in line if glyph.character == "█"]
    assert len(set(inks)) == 3
    scale = next(line for line in read_screen(text) if line and line[0].character == "s")
    assert not {glyph.ground or glyph.ink for glyph in scale if glyph.ground or glyph.ink} & set(inks)


@pytest.mark.parametrize(
    ("has_unicode", "rows"),
    [(True, ["···", " ≡·", " ≡∞", "???", "– ·", "█"]), (False, ["...", " %.", " %!", "???", "- .", "#"])],
)
def test_glyphs_of_what_is_no_number(has_unicode, rows):
    text = draw(kinds_of_cells(), has_unicode=has_unicode)

    scores, _, dropped = re.findall(r"^0 .*\n  .*\n  .*$", text, re.MULTILINE)
    assert [row[2:] for row in (scores + "\n" + dropped).split("\n")] == rows


def test_signs_are_told_apart():
    values = np.array([[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]])

    assert "≡=- ░▒█" in draw(hold(values, "scores")).splitlines()[-2]
    assert "%=- :*#" in draw(hold(values, "scores"), has_unicode=False).splitlines()[-2]


# ── how much is shown ────────────────────────────────────────────────────────────────────────────
def test_a_pixel_of_many_numbers_is_the_largest_of_them():
    """One large weight among 200 × 200 is seen on 80 columns, and the axes count tokens."""
    weights = np.full((200, 200), 0.2)
    weights[150, 90] = 1.0

    text = draw(hold(weights), width=80, normalize="full")

    [drawn] = maps(text)
    block = 3  # 200 numbers in 76 columns
    assert f"each pixel is the largest of {block} × {block} numbers" in text
    assert [(r, row.index("█")) for r, row in enumerate(drawn) if "█" in row] == [(150 // block, 90 // block)]
    assert re.search(r"^ +0 +24 +48 +72 ", text, re.MULTILINE)
    assert [int(label) for label in re.findall(r"^ *(\d+) ░", text, re.MULTILINE)] == list(range(0, 200, 4 * block))


def test_of_numbers_with_a_sign_it_is_the_one_furthest_from_zero():
    scores = np.ones((200, 200))
    scores[150, 90] = -6.0

    [drawn] = maps(draw(hold(scores, "scores"), width=80))

    assert sum(row.count("≡") for row in drawn) == 1


def test_one_nan_among_many_numbers_is_seen(monkeypatch):
    values = np.ones((200, 200))
    values[5, 7] = np.nan

    assert sum(row.count("?") for row in maps(draw(hold(values), width=80))[0]) == 1


@pytest.mark.parametrize("width", [40, 80, 120])
def test_maps_of_heads_stand_beside_each_other(monkeypatch, width):
    set_terminal(monkeypatch, "256")
    problem = attncli.Problem(embeddings=draw_normal(1, 64, 24))
    held = attncli.attend(problem, attncli.Variant(heads=12, mask="causal"), keep=["weights"])

    text = draw(held, color=True, width=width)

    lines = ["".join(glyph.character for glyph in line) for line in read_screen(text)]
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= 160
    titles = [re.findall(r"head \d+", line) for line in lines if line.startswith("head ")]
    assert max(map(len, titles)) == {40: 1, 80: 2, 120: 3}[width]
    shown = [int(title.split()[1]) for row in titles for title in row]
    if width == 40:
        assert f"12 heads ({len(shown)} shown); --full shows all, --at chooses" in " ".join(" ".join(lines).split())
        assert {0, 1, 10, 11} <= set(shown) < set(range(12))
    else:
        assert shown == list(range(12))


def test_a_pipe_has_every_number_of_every_head():
    weights = np.random.default_rng(1).dirichlet(np.ones(90), (5, 70))

    drawn = maps(draw(hold(weights), normalize="row"))

    assert len(drawn) == 5
    assert all(len(rows) == 70 for rows in drawn)
    assert max(len(row) for rows in drawn for row in rows) <= 90
    for rows, largest in zip(drawn, weights.argmax(-1).tolist(), strict=True):
        assert all(row[i] == "█" for row, i in zip(rows, largest, strict=True))


def test_axes_count_as_before_some_were_selected():
    held = select_indices(hold(np.ones((40, 40))), {"query": tuple(range(30, 40)), "key": tuple(range(20, 40))})

    text = draw(held)

    assert re.search(r"^ +20 +28 +36$", text, re.MULTILINE)
    assert [line[:2] for line in text.splitlines() if line[:1] == "3"] == ["30", "34", "38"]


def test_one_token_and_one_key():
    assert maps(draw(hold(np.ones((1, 1))), width=80)) == [["█"]]


def test_equal_batch_items_are_drawn_once():
    x = draw_normal(4, 3, 6)
    held = attncli.attend(attncli.Problem(embeddings=np.stack([x, x, x[::-1]])), keep=["weights"])

    assert re.findall(r"batch \d", draw(held, width=20)) == ["batch 0", "batch 2"]


# ── which steps ──────────────────────────────────────────────────────────────────────────────────
def test_a_map_is_of_the_weights_unless_others_are_named(attn):
    words = ["compute", SAMPLES / "cat_sat.json", "--heat", "map"]

    weights, others = attn(*words).out, attn(*words, "--only", "scores,context,entropy").out

    assert re.findall("^([a-z]+)   ", weights, re.MULTILINE) == ["weights"]
    assert re.findall("^([a-z]+)   ", others, re.MULTILINE)[:3] == ["scores", "context", "entropy"]
    assert "1.5" in others  # the entropy is no matrix, and so a table
