"""Shades of numbers: readable and in order, whatever a terminal can show, and what is no number looks like none."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from rich.cells import cell_len

import attncli
from attncli.output_formats import RenderOptions, load_output_format
from attncli.types import Attention, Step
from attncli.views.cell_formats import HIDDEN
from attncli.views.heat import choose_shading
from attncli.views.heat_colors import shade_colors
from attncli.views.heat_html import find_html_heat
from attncli.views.heat_scale import Scale, choose_scale, find_levels
from attncli.views.table_order import labelled_matrices
from tests.helpers import SAMPLES, draw_normal
from tests.views.screen import TERMINALS, contrast, lightness, read_screen

SPECTRUM = np.linspace(0, 1, 64)


@pytest.fixture(params=TERMINALS)
def colors(request, monkeypatch):
    """Each kind of terminal, by its colours."""
    for name, value in TERMINALS[request.param].items():
        monkeypatch.setenv(name, value)
    return request.param


@pytest.fixture
def truecolor(monkeypatch):
    for name, value in TERMINALS["truecolor"].items():
        monkeypatch.setenv(name, value)


def write(attention: Attention, **look) -> str:
    return "".join(load_output_format("table").write(attention, RenderOptions(**look)))


def hold(name: str, values: np.ndarray, axes: tuple[str, ...] = ("query", "key")) -> Attention:
    """A result of one step."""
    tokens, k_tokens = (tuple(f"t{i}" for i in range(n)) for n in values.shape[-2:])
    return Attention({}, tokens, k_tokens, (Step(name, "x", axes, values),))


def ground_of(text: str, number: str) -> object:
    """The colour behind a number, where one stands upon a colour."""
    for line in read_screen(text):
        shown = "".join(glyph.character for glyph in line)
        for match in re.finditer(re.escape(number), shown):
            grounds = {glyph.ground for glyph in line[match.start() : match.end()]}
            if None not in grounds:
                assert len(grounds) == 1
                return grounds.pop()
    return None


# ── colours ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("step", ["weights", "scores"])
def test_every_number_is_readable_upon_its_colour(colors, step):
    values = SPECTRUM.reshape(8, 8) * (2 if step == "scores" else 1) - (step == "scores")

    screen = read_screen(write(hold(step, values), color=True, heat="steps"))

    pairs = {(glyph.ink, glyph.ground) for line in screen for glyph in line if glyph.ground is not None}
    if colors == "16":
        assert not pairs
    else:
        assert len({ground for _, ground in pairs}) >= (9 if colors == "256" else 40)
        for ink, ground in pairs:
            assert contrast(ink, ground) >= 4.5


def test_larger_weights_are_lighter(colors):
    """By the lightness that the eye sees, from one colour to the next by more than nothing."""
    text = write(hold("weights", SPECTRUM.reshape(-1, 4)), color=True, heat="weights")

    if colors == "16":
        blocks = re.findall(r"\.\d{4}(?:\x1b\[\d+m)?([ ▁-█])", text)
        assert blocks == sorted(blocks, key=" ▁▂▃▄▅▆▇█".index)
        assert set(blocks) == set(" ▁▂▃▄▅▆▇█")
        return
    grounds = [ground_of(text, f"{value:.4f}") for value in SPECTRUM.tolist()]
    steps = [lightness(ground) for ground in dict.fromkeys(grounds)]
    assert len(steps) == (9 if colors == "256" else len(SPECTRUM))
    assert all(b > a for a, b in itertools.pairwise(steps))
    assert lightness(grounds[-1]) - lightness(grounds[0]) > 60


@pytest.mark.parametrize("is_signed", [False, True])
def test_colours_are_even_steps(is_signed):
    """Viridis rises from dark to light; with a sign, both ends are dark and 0, in the middle, is nearly white."""
    light = [lightness(color) for color in shade_colors(is_signed=is_signed)]

    steps = np.diff(light)
    middle = len(light) // 2
    if is_signed:
        assert light[middle] > 95
        assert (steps[:middle] > 0).all()
        assert (steps[middle:] < 0).all()
    else:
        assert (steps > 0).all()
        assert steps.max() / steps.min() < 2


def test_signs_have_colours_of_their_own(truecolor):
    text = write(hold("scores", np.array([[-2.0, -1.0, 0.0, 1.0]])), color=True, heat="steps")

    red, green, blue = zip(*(ground_of(text, n) for n in ("-2.0000", "-1.0000", " 0.0000", " 1.0000")), strict=True)
    assert blue[0] > red[0]
    assert blue[1] > red[1]
    assert min(red[2], green[2], blue[2]) > 240
    assert red[3] > blue[3]


@pytest.mark.parametrize(
    ("color_system", "has_unicode", "glyphs"),
    [("standard", True, " ▁▂▃▄▅▆▇█"), ("standard", False, " ░▒▓█"), (None, True, " ░▒▓█"), ("windows", True, " ░▒▓█")],
)
def test_a_console_of_few_colours_shows_glyphs(color_system, has_unicode, glyphs):
    shading = choose_shading(color_system, has_unicode=has_unicode)

    assert (shading.glyphs, shading.fills, shading.signed_fills) == (glyphs, (), ())


# ── cells ────────────────────────────────────────────────────────────────────────────────────────
def kinds_of_cells() -> Attention:
    """A query that sees nothing, a key whose score is −∞, one whose weight is 0 in four digits, hidden and dropped ones."""
    problem = attncli.Problem(
        q=[[0.0], [1.0], [1.0]],
        k=[[0.0], [-900.0], ["-Infinity"]],
        mask=[[False] * 3, [True, True, False], [True] * 3],
        dropout_mask=[[True] * 3, [False, True, True], [True] * 3],
    )
    variant = attncli.Variant(scale="none", dropout="dropout:p=0.5", empty_rows="nan")
    return attncli.attend(problem, variant, keep=["masked_scores", "weights", "dropout_weights"])


def test_what_is_no_number_is_on_the_ground(colors):
    """Hidden, dropped, NaN, −∞ and a 0 that was seen: five different cells."""
    text = write(kinds_of_cells(), color=True, heat="steps")
    rows = ["".join(glyph.character for glyph in line) for line in read_screen(text)]
    scores, dropped = ([row for row in rows if re.match(r"[012] ", row)][part] for part in (slice(3), slice(6, 9)))

    assert [re.sub("[▁-█]", "", row).split()[1:] for row in scores] == [
        ["·", "·", "·"], ["0.0000", "-900.0000", "·"], ["0.0000", "-900.0000", "−∞"],
    ]  # fmt: skip
    assert [re.sub("[▁-█]", "", row).split()[1:4] for row in dropped] == [
        ["NaN", "NaN", "NaN"], ["–", "0.0000", "·"], ["2.0000", "0.0000", "0.0000"],
    ]  # fmt: skip
    below_rules = [line for line, row in zip(read_screen(text), rows, strict=True) if re.match(r"[012] ", row)]
    unfilled = {glyph.character for line in below_rules for glyph in line if glyph.ground is None}
    filled = {glyph.character for line in below_rules for glyph in line if glyph.ground is not None}
    assert {"·", "–", "N", "∞"} <= unfilled
    assert not filled & {"·", "–", "N", "a", "∞"}
    assert all(glyph.is_dim for line in below_rules for glyph in line if glyph.character in "·–∞")
    if colors != "16":
        assert ground_of(text, "0.0000") is not None


def test_cells_touch_each_other(truecolor):
    """From the first to the last that is seen, no column of a row is left without a colour."""
    held = attncli.attend(
        attncli.Problem(embeddings=draw_normal(1, 5, 3)), attncli.Variant(mask="causal"), keep=["weights"]
    )

    for width in (80, None):
        rows = [
            line
            for line in read_screen(write(held, color=True, heat="weights", width=width))
            if line and line[0].character in "01234"
        ]
        assert len(rows) == 5
        for count, row in enumerate(rows, start=1):
            grounds = "".join(" " if glyph.ground is None else "█" for glyph in row)
            assert re.fullmatch(rf" +█{{{9 * count}}} +", grounds)


def test_sixteen_colours_and_none_show_a_glyph_after_the_number(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLORTERM", "")
    held = hold("scores", np.array([[-4.0, 0.0, 1.0, 2.0]]))

    with_16, without = (re.sub(r"\x1b\[[\d;]*m", "", write(held, color=color, heat="steps")) for color in (True, False))

    assert with_16.endswith("-4.0000█   0.0000    1.0000▂   2.0000▄\n")
    assert "shaded by size, 0 ▁▂▃▄▅▆▇█ 4.00 for all rows" in with_16
    assert without.endswith("-4.0000█   0.0000    1.0000░   2.0000▒\n")


# ── the scale ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("step", "value_range", "columns", "normalize", "scale"),
    [
        ("weights", (0.0, 0.3), 16, None, Scale(1.0)),
        ("weights", (0.0, 0.3), 17, None, Scale(1.0, is_by_row=True)),
        ("weights", (0.0, 0.3), 17, "full", Scale(1.0)),
        ("weights", (0.0, 0.3), 3, "row", Scale(1.0, is_by_row=True)),
        ("weights", (-0.5, 0.3), 17, None, Scale(0.5, is_signed=True)),
        ("dropout_weights", (0.0, 2.0), 3, None, Scale(2.0)),
        ("entropy", (0.0, 3.0), 1, None, Scale(3.0)),
        ("scores", (1.0, 3.0), 30, None, Scale(3.0, is_signed=True)),
        ("context", (-5.0, 3.0), 30, "row", Scale(1.0, is_signed=True, is_by_row=True)),
        ("scores", (0.0, 0.0), 3, None, Scale(1.0, is_signed=True)),
    ],
)  # fmt: skip
def test_the_scale_of_a_step(step, value_range, columns, normalize, scale):
    assert choose_scale(step, value_range, columns, normalize) == scale


def test_shares_by_row_and_of_all():
    values = np.array([[0.5, -1.0, np.inf], [0.0, 0.0, np.nan], [-0.1, 0.2, -np.inf]])

    by_row, of_all = Scale(1.0, is_signed=True, is_by_row=True).shares(values), Scale(2.0).shares(values)

    np.testing.assert_array_equal(by_row, [[0.5, -1.0, np.nan], [0.0, 0.0, np.nan], [-0.5, 1.0, np.nan]])
    np.testing.assert_array_equal(of_all[:, :2], [[0.25, -0.5], [0.0, 0.0], [-0.05, 0.1]])


@pytest.mark.parametrize(
    ("share", "level", "signed_level"),
    [(0.0, 0, 4), (0.06, 0, 4), (0.07, 1, 4), (0.5, 4, 6), (0.94, 8, 8), (1.0, 8, 8), (-3.0, 0, 0), (7.0, 8, 8), (-0.25, 0, 3), (math.nan, -1, -1)],
)  # fmt: skip
def test_the_level_of_a_share(share, level, signed_level):
    [[found]], [[signed]] = find_levels(np.array([[share]]), 9), find_levels(np.array([[share]]), 9, is_signed=True)

    assert (found, signed) == (level, signed_level)


def test_a_scale_is_said_where_it_changes(truecolor):
    """Once for two heads, whose scale is one; its numbers stand upon the colours."""
    values = np.stack([np.eye(3), np.full((3, 3), 1 / 3)])
    held = Attention({}, ("a", "b", "c"), ("a", "b", "c"), (Step("weights", "x", ("head", "query", "key"), values), Step("context", "y", ("query", "key"), 2 * np.eye(3)))
    )  # fmt: skip

    text = write(held, color=True, heat="steps")

    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert re.findall("^shaded.*", plain, re.MULTILINE) == [
        "shaded  0.00  0.12  0.25  0.38  0.50  0.62  0.75  0.88  1.00  for all rows",
        "shaded  -2.00  -1.50  -1.00  -0.50  0.00  0.50  1.00  1.50  2.00  for all rows",
    ]
    legend = next(line for line in read_screen(text) if line and line[0].character == "s")
    shades = [glyph.ground for glyph in legend if glyph.ground]
    assert len(shades) == 9 * 6
    assert shades[0] == ground_of(text, " 0.0000")
    assert shades[-1] == ground_of(text, " 1.0000")


def test_rows_are_shaded_by_their_own_largest(truecolor):
    held = hold("weights", np.array([[0.02, 0.04], [0.5, 1.0]]))

    full, row = (write(held, color=True, heat="weights", normalize=normalize) for normalize in ("full", "row"))

    assert ground_of(full, "0.0400") != ground_of(full, "1.0000")
    assert ground_of(row, "0.0400") == ground_of(row, "1.0000")
    assert ground_of(row, "0.0200") == ground_of(row, "0.5000")


# ── HTML ─────────────────────────────────────────────────────────────────────────────────────────
def test_each_cell_of_html_has_both_colours_or_none():
    """A query that sees two keys of three, one of them with the weight 0."""
    problem = attncli.Problem(q=[[0.0], [1.0]], k=[[0.0], [-900.0], [0.0]], mask=[[True] * 3, [True, True, False]])
    held = attncli.attend(problem, attncli.Variant(scale="none"), keep=["scores", "weights"])
    scores, weights = labelled_matrices(held, 4)
    [texts] = weights.format_rows(1, 2)
    assert texts == ["1.0000", "0.0000", HIDDEN, "1.0000"]

    heat = find_html_heat(weights)
    styles = heat.cell_styles(1, texts)

    assert styles == ["background:#fde725;color:#000", "background:#440154;color:#fff", "opacity:0.55", ""]
    assert find_html_heat(scores) is None
    assert re.fullmatch(r'shaded (<span style="[^"<>]+">\d\.\d\d</span>){9} for all rows', heat.legend())


def test_a_notebook_shows_shaded_weights():
    """Styles of cells alone: what a notebook strips is not needed, and tokens are text."""
    problem = attncli.Problem(embeddings=draw_normal(1, 3, 2), tokens=["<script>", "b&w", '"q"'])

    html = attncli.attend(problem, attncli.Variant(mask="causal"), keep=["scores", "weights"])._repr_html_()

    scores, weights = html.partition("<b>weights</b>")[::2]
    assert not re.search(r"<script|<style|class=|http|background", scores)
    assert not re.search(r"<script|<style|class=|http", weights)
    cells = re.findall(r'<td style="([^"]*)">([^<]*)</td>', weights)
    assert len(cells) == 3 * 4  # with the sums
    assert all(("background:#" in style) == (";color:#" in style) for style, _ in cells)
    assert sum("background" in style for style, _ in cells) == 6
    assert not any("background" in style for style, text in cells if text == HIDDEN)
    assert sum(text == HIDDEN for _, text in cells) == 3
    assert "&lt;script&gt;" in weights


# ── what is left out ─────────────────────────────────────────────────────────────────────────────
def test_the_strongest_are_shown_with_the_first_and_the_last():
    """Query 60 looks at key 37: both are far from the ends of 100."""
    weights = np.full((100, 100), 0.001)
    weights[60, 37] = 0.9

    text = write(hold("weights", weights), width=80)

    head = next(line for line in text.splitlines() if line.startswith("query"))
    assert "37 t37" in head
    assert re.search(r"^60 t60 .*0\.9000", text, re.MULTILINE)
    assert "those with the largest weights among them" in " ".join(text.split())
    for end in ("0 t0", "1 t1", "98 t98", "99 t99"):
        assert re.search(rf"^{end} ", text, re.MULTILINE)
    assert max(map(cell_len, text.splitlines())) <= 80


@pytest.mark.parametrize("heat", ["steps", "map"])
def test_no_terminal_is_overrun(colors, heat):
    """Tokens of every width, on terminals where everything fits, some of it, or not even two columns."""
    labels = ("日本語", "e\u0301te\u0301", "🐈\u200d⬛", "שלום", "❤\ufe0f", "🇩🇪", "a\tb", "\u202eabc", "\x9b31m")
    values = draw_normal(3, 2, 9, 9)
    steps = (
        Step("scores", "x", ("head", "query", "key"), values),
        Step("weights", "x", ("query", "key"), abs(values[0])),
    )
    held = Attention({}, labels, labels, steps)

    for width in (20, 33, 35, 36, 37, 80, 120, 121, 200):
        text = re.sub(r"\x1b\[[\d;]*m", "", write(held, color=True, heat=heat, width=width))
        assert max(map(cell_len, text.split("\n"))) <= width
        assert text.replace("\n", "").isprintable()


# ── options ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("words", "error", "help"),
    [
        (["-f", "markdown", "--heat", "on"], "--heat on shades the numbers of tables, but this is markdown", "--format table, or -o FILE.txt"),
        (["-o", "x.csv", "--heat", "map"], "--heat map shades the numbers of tables, but this is csv", "--format table, or -o FILE.txt"),
        (["--json", "--normalize", "row"], "--normalize chooses the scale of the shades of tables, but this is json", "--format table, or -o FILE.txt"),
        (["--heat", "off", "--normalize", "row"], "--normalize chooses the scale of the shades, but --heat off shows none", "--heat on"),
    ],
)  # fmt: skip
def test_formats_without_shades_refuse_them(attn, words, error, help):
    done = attn("compute", SAMPLES / "cat_sat.json", *words)

    assert done.status == 2
    assert error in done.err
    assert f"help: {help}\n" in done.err


@pytest.mark.parametrize("words", [["--heat", "on"], ["--heat", "map"], ["--normalize", "row"]])
def test_explain_has_no_shades(attn, words):
    done = attn("explain", SAMPLES / "cat_sat.json", "cat", *words)

    assert done.status == 2
    assert "is for tables, but explain writes a page" in done.err


def test_auto_shades_weights_and_on_every_step(attn):
    words = ["compute", SAMPLES / "cat_sat.json", "--only", "scores,weights"]
    variables = TERMINALS["truecolor"]

    on_terminal = attn(*words, columns=80, variables=variables).out
    in_pipe, every_step = attn(*words).out, attn(*words, "--heat", "on").out

    assert "shaded" in on_terminal
    assert "shaded" not in on_terminal.partition("weights")[0]
    assert "shaded" not in in_pipe
    assert every_step.count("shaded") == 2
