"""Figures: what their axes hold. Numbers come from the results, texts and colours from what is asked for."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb, to_rgba

from attncli.output_formats import FigureOptions, RenderOptions, load_output_format
from attncli.readers.results import parse_result
from attncli.select import select_indices
from attncli.views.figures.drawing import draw_figure, drawing_settings
from attncli.views.figures.fonts import find_missing_characters
from attncli.views.figures.labels import column_labels, fit_text, row_labels, text_width
from attncli.views.figures.theme import THEMES, relative_luminance, text_color_on
from tests.helpers import compute, draw_normal

LIGHT = THEMES["light"]
HOSTILE = (
    "$x$",
    "$\\bad",
    "<script>alert(1)</script>",
    "the",
    "the",
    "\u202eabc",
    "\x1b[31m",
    "x\ny",
    "שלום",
    "",
    "日本",
    "e\u0301",
)


def draw(attention, **options):
    with drawing_settings(attention):
        figure = draw_figure(attention, RenderOptions(figure=FigureOptions(**options)))
        figure.canvas.draw()
    return figure


def causal(token_count=4, heads=1, tokens=None, **choices):
    fields = {"embeddings": draw_normal(1, token_count, 4 * heads)} | ({"tokens": tokens} if tokens else {})
    return compute(fields, mask="causal", **({"heads": heads} if heads > 1 else {}), **choices)


def panels(figure):
    """The axes of heat maps, without those of colour bars and of marks."""
    return [axes for axes in figure.axes if axes.images]


def texts(figure):
    """Every text that stands on a figure."""
    return [
        text.get_text()
        for axes in figure.axes
        for text in axes.findobj(lambda a: hasattr(a, "get_text"))
        if text.get_text()
    ] + [text.get_text() for text in figure.texts]


def tick_texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(figure):
    """What the squares of the legend mean → their colours."""
    return {
        artist.get_label(): to_hex(artist.get_facecolor())
        for artist in figure.patches + figure.artists
        if not artist.get_label().startswith("_")
    }


# ── heat maps ────────────────────────────────────────────────────────────────────────────────────
def test_a_heat_map_holds_the_numbers_and_masks_the_hidden_ones():
    attention = causal(4, tokens=("a", "b", "a", "c"))
    figure = draw(attention)
    [axes] = panels(figure)
    [image] = axes.images

    assert image.get_array().mask.tolist() == (~np.tri(4, dtype=bool)).tolist()
    np.testing.assert_array_equal(
        image.get_array().data[np.tri(4, dtype=bool)], attention["weights"].values[np.tri(4, dtype=bool)]
    )
    assert (image.norm.vmin, image.norm.vmax, image.cmap.name) == (0, 1, "cividis")
    assert to_hex(image.cmap.get_bad()) == LIGHT.hidden
    assert (tick_texts(axes.yaxis), tick_texts(axes.xaxis)) == (
        ["0 a", "1 b", "2 a", "3 c"],
    ) * 2  # repeated tokens stay apart
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("query", "key")
    assert [text.get_text() for text in figure.texts] == ["weights", attention["weights"].formula, "hidden key"]
    assert legend(figure) == {"hidden key": LIGHT.hidden}
    assert f"{attention['weights'].values[1, 0]:.4f}" in texts(figure)


def test_steps_with_a_sign_are_symmetric_about_0():
    attention = causal()
    [axes] = panels(draw(attention, steps=("scores",)))
    limit = np.abs(attention["scores"].values).max()

    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (-limit, limit)
    assert axes.images[0].cmap.name == "RdBu_r"


@pytest.mark.parametrize(("key_count", "note"), [(16, ""), (17, "√ scale")])
def test_many_weights_are_coloured_by_their_roots_and_the_bar_says_so(key_count, note):
    figure = draw(compute({"embeddings": draw_normal(1, key_count, 4)}))
    bar = figure.axes[-1]

    assert bar.get_title(loc="left") == note
    norm = panels(figure)[0].images[0].norm
    assert norm(norm.vmax / 4) == pytest.approx(0.5 if note else 0.25)


def test_sixteen_heads_share_one_scale_and_the_labels_of_the_edge():
    figure = draw(causal(20, heads=16))
    grid = panels(figure)

    assert [axes.get_title() for axes in grid] == [f"head {i}" for i in range(16)]
    assert len({(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in grid}) == 1
    assert [bool(tick_texts(axes.yaxis)) for axes in grid] == [i % 4 == 0 for i in range(16)]
    assert [bool(tick_texts(axes.xaxis)) for axes in grid] == [i >= 12 for i in range(16)]
    boxes = [axes.get_position() for axes in grid]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_mask_has_two_colours_and_no_bar():
    figure = draw(causal(), steps=("mask",))

    assert len(figure.axes) == 1
    assert figure.axes[0].images[0].get_array().tolist() == np.tri(4, dtype=bool).tolist()
    assert legend(figure) == {"visible key": LIGHT.bar, "hidden key": LIGHT.hidden}


def test_what_is_no_number_has_its_own_colour_and_legend():
    q = [["Infinity", 1.0], ["NaN", 1.0], [1.0, 2.0]]
    attention = compute(
        {"q": q, "k": [[-1.0, 0.0], [1.0, 0.0], [0.5, 1.0]], "mask": [[True] * 3, [True] * 3, [False] * 3]}
    )
    figure = draw(attention, steps=("scores", "masked_scores"))

    scores, masked = panels(figure)
    kinds = scores.images[1].get_array()
    colors = [to_hex(c) for c in scores.images[1].cmap.colors]
    assert colors == [to_hex(c) for c in (LIGHT.nan, LIGHT.minus_infinity, LIGHT.infinity)]
    assert np.nan_to_num(kinds.filled(-1), nan=-1).tolist() == [[1, 2, 2], [0, 0, 0], [-1, -1, -1]]
    assert masked.images[0].get_array().mask[2].all()  # an empty row is hidden
    assert {*legend(figure)} == {"NaN", "−∞", "∞", "hidden key"}
    assert {"NaN", "−∞", "∞", "·"} <= {*texts(figure)}
    assert len({*legend(figure).values()}) == 4


def test_dropped_weights_are_no_small_weights():
    attention = causal(6, dropout="dropout:p=0.5,seed=1")
    figure = draw(attention, steps=("dropout_weights",))
    dropped = (attention["dropout_weights"].values == 0) & np.tri(6, dtype=bool)
    [axes] = panels(figure)

    assert dropped.any()
    assert axes.images[0].get_array().mask.tolist() == (dropped | ~np.tri(6, dtype=bool)).tolist()
    assert legend(figure) == {"hidden key": LIGHT.hidden, "dropped": LIGHT.dropped}
    assert texts(figure).count("×") == dropped.sum() + 1


def test_numbers_stand_in_the_ink_that_can_be_read():
    figure = draw(causal(5))
    [axes] = panels(figure)
    image = axes.images[0]

    for text in axes.texts:
        x, y = map(int, text.get_position())
        if text.get_text() != "·":
            ground, ink = (
                relative_luminance(to_rgba(c)[:3]) for c in (image.to_rgba(image.get_array()[y, x]), text.get_color())
            )
            assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5
    assert [text_color_on(color) for color in ((0, 0, 0), (1, 1, 1))] == ["#ffffff", "#000000"]


def test_three_hundred_tokens_thin_their_labels_and_have_no_numbers():
    figure = draw(causal(300, tokens=tuple(f"word{i % 7}" for i in range(300))))
    [axes] = panels(figure)

    assert tick_texts(axes.yaxis)[:3] == ["0 word0", "20 word6", "40 word5"]
    assert len(tick_texts(axes.xaxis)) <= 16
    assert not axes.texts
    assert not axes.collections  # no lines between cells


@pytest.mark.parametrize(("query_count", "key_count"), [(2, 40), (40, 2), (1, 1), (3, 5)])
def test_cross_attention_of_other_lengths(query_count, key_count):
    attention = compute({
        "tokens": tuple(f"q{i}" for i in range(query_count)),
        "embeddings": draw_normal(1, query_count, 4),
        "memory": {"tokens": tuple(f"k{i}" for i in range(key_count)), "embeddings": draw_normal(2, key_count, 4)},
    })  # fmt: skip
    [axes] = panels(draw(attention, kind="heat"))

    assert axes.images[0].get_array().shape == (query_count, key_count)
    assert tick_texts(axes.yaxis)[0] == "0 q0"
    assert tick_texts(axes.xaxis)[0] == "0 k0"


def test_batch_items_have_their_own_labels_and_one_scale():
    fields = {"tokens": (("a", "b"), ("c", "d")), "embeddings": draw_normal(1, 2, 2, 4)}
    figure = draw(compute(fields), steps=("scores",))
    first, second = panels(figure)

    assert (tick_texts(first.yaxis), tick_texts(second.yaxis)) == (["0 a", "1 b"], ["0 c", "1 d"])
    assert first.images[0].norm.vmax == second.images[0].norm.vmax
    assert {"scores · batch 0", "scores · batch 1"} <= {*texts(figure)}


# ── other kinds ──────────────────────────────────────────────────────────────────────────────────
def one_query(attention, query):
    return select_indices(attention, {"query": (query,)})


def test_one_query_is_bars_with_their_numbers():
    attention = one_query(causal(5, tokens=tuple("abcde")), 3)
    figure = draw(attention)
    [axes] = figure.axes
    weights = attention["weights"].values[0]

    assert [patch.get_width() for patch in axes.patches[:5]] == weights.tolist()
    assert tick_texts(axes.yaxis) == ["0 a", "1 b", "2 c", "3 d", "4 e"]
    assert [text.get_text() for text in axes.texts] == [*(f"{w:.4f}" for w in weights[:4]), "·"]
    assert "weights of query 3 d" in texts(figure)
    assert legend(figure) == {"hidden key": LIGHT.hidden}


def test_the_bars_of_many_keys_stand_side_by_side():
    attention = one_query(causal(300), 250)
    [axes] = draw(attention, kind="flow").axes

    assert [patch.get_height() for patch in axes.patches[:300]] == attention["weights"].values[0].tolist()
    assert tick_texts(axes.xaxis)[:2] == ["0", "20"]


def test_negative_bars_have_another_colour():
    attention = one_query(causal(5), 4)
    [axes] = draw(attention, steps=("scores",)).axes
    scores = attention["scores"].values[0]

    assert (scores < 0).any()
    assert [to_hex(p.get_facecolor()) for p in axes.patches[:5]] == [
        LIGHT.negative_bar if s < 0 else LIGHT.bar for s in scores
    ]


def test_numbers_of_each_query_are_a_line_for_each_head():
    attention = causal(5, heads=3)
    [axes] = draw(attention, steps=("entropy",)).axes

    assert [line.get_label() for line in axes.lines] == ["head 0", "head 1", "head 2"]
    for line, entropy in zip(axes.lines, attention["entropy"].values, strict=True):
        assert line.get_ydata().tolist() == entropy.tolist()
    assert axes.get_ylabel() == "how spread the weights are, in bits"


def test_two_heads_are_points_where_both_have_a_number():
    attention = causal(5, heads=2)
    figure = draw(attention, kind="heads")
    scatter = figure.axes[-1]
    first, second = attention["weights"].values[:, np.tri(5, dtype=bool)]

    assert scatter.collections[0].get_offsets().tolist() == np.stack([first, second], 1).tolist()
    assert (scatter.get_xlabel(), scatter.get_ylabel()) == ("weights · head 0", "weights · head 1")
    assert scatter.get_xlim() == scatter.get_ylim()
    assert len(panels(figure)) == 2


def test_names_of_points_at_one_place_do_not_lie_on_each_other():
    scores = np.full((2, 3, 3), 0.0)
    scores[0, :, 0] = scores[1, :, 1] = (
        50  # each query of head 0 looks at key 0, and of head 1 at key 1: two places for six points
    )
    attention = compute({"q": scores, "k": np.stack([np.eye(3)] * 2), "layout": "htd"})
    scatter = draw(attention, kind="heads").axes[-1]

    assert [text.get_text() for text in scatter.texts if "→" in text.get_text()] == ["0 → 0", "0 → 1"]


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────
def test_tokens_are_text_and_never_mathematics():
    attention = compute({"tokens": HOSTILE, "embeddings": draw_normal(1, len(HOSTILE), 3)})
    [axes] = panels(draw(attention))

    assert tick_texts(axes.yaxis) == [
        "0 $x$", "1 $\\bad", "2 <script>alert(1)</script>", "3 the", "4 the", "5 \\u202eabc", "6 \\e[31m", "7 x↵y", "8 שלום", "9 ", "10 日本", "11 e\u0301",
    ]  # fmt: skip
    assert not any(label.get_parse_math() for label in axes.get_yticklabels() + axes.get_xticklabels())


def test_characters_that_no_font_has_are_one_warning(recwarn):
    attention = compute({"tokens": ("\U00013000", "\U00013000\U00013001", "שלום"), "embeddings": draw_normal(1, 3, 3)})
    options = RenderOptions(figure=FigureOptions(title="\U00013002"))
    warned = load_output_format("svg").prepare_result(attention, options).warnings[len(attention.warnings) :]
    draw(attention)

    assert find_missing_characters(attention) == ["\U00013000", "\U00013001"]
    assert warned == (
        "missing-glyphs: no font that matplotlib finds has 3 characters, which the figure shows as boxes: "
        "\U00013000 (U+13000), \U00013001 (U+13001) and \U00013002 (U+13002)",
    )
    assert not recwarn.list


def test_long_labels_are_cut_and_marks_stay_with_their_letters():
    assert fit_text("short", 100) == "short"
    cut = fit_text("a" * 80, 60)
    assert cut.endswith("a…")
    assert text_width(cut) <= 60
    assert fit_text("e\u0301" * 40, 31).removesuffix("…").count("e") == fit_text("e\u0301" * 40, 31).count("\u0301")


def test_labels_stand_upright_where_they_have_room():
    tokens = tuple(f"{i} token" for i in range(8))

    assert not column_labels(tokens, 60, 90).is_slanted
    assert column_labels(tokens, 20, 90).is_slanted
    assert column_labels(tuple(map(str, range(100))), 5, 90).places == tuple(range(0, 100, 10))
    assert row_labels(tokens, 9, 90).places == tuple(range(8))
    assert row_labels(tokens, 3, 90).places == (0, 5)


# ── the page ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"width": 2.0},
        {"steps": ("scores", "weights", "context")},
        {"kind": "heads"},
        {"title": "A title " * 20},
        {"steps": ("entropy",)},
    ],
    ids=str,
)
def test_nothing_reaches_beyond_the_page(options):
    tokens = ("the", "antidisestablishmentarianism", "cat", "sat", "שלום", "on")
    attention = causal(6, heads=2, tokens=tokens)
    figure = draw(attention, **options)

    page = figure.bbox
    for box in (artist.get_window_extent() for artist in [*figure.texts, *figure.axes]):
        assert box.x0 >= page.x0 - 1 and box.y0 >= page.y0 - 1  # noqa: PT018
        assert box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1  # noqa: PT018
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= page.x0 - 1 and box.y0 >= page.y0 - 1, axes.get_title()  # noqa: PT018
        assert box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1, axes.get_title()  # noqa: PT018


def test_width_and_resolution_are_those_asked_for():
    figure = draw(causal(), width=3.4, dpi=100)

    assert figure.get_size_inches()[0] == pytest.approx(3.4)
    assert figure.dpi == 100


def test_the_dark_style_has_a_dark_ground_and_light_text():
    figure = draw(causal(), style="dark", steps=("scores", "weights"))

    assert to_hex(figure.get_facecolor()) == THEMES["dark"].ground
    for text in figure.texts:
        ground, ink = (relative_luminance(to_rgba(c)[:3]) for c in (THEMES["dark"].ground, text.get_color()))
        assert (ink + 0.05) / (ground + 0.05) >= 4.5, text.get_text()
    assert [axes.images[0].cmap.name for axes in panels(figure)] == ["berlin", "cividis"]


# How colours look without one kind of cones (Machado, Oliveira and Fernandes 2009), on linear RGB.
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def to_lab(colors, eye):
    """CIELAB of sRGB colours, (n, 3), as one kind of eye sees them."""
    colors = np.asarray(colors, float)
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.transpose(EYES[eye]), 0, 1) @ TO_XYZ.T / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("style", THEMES)
@pytest.mark.parametrize("eye", EYES)
def test_each_mark_differs_from_the_others_and_from_every_number(style, eye):
    theme = THEMES[style]
    maps = {name: colormaps[name](np.linspace(0, 1, 128))[:, :3] for name in (theme.sequential, theme.diverging)}
    marks = {
        name: [to_rgb(getattr(theme, name))] for name in ("hidden", "dropped", "nan", "minus_infinity", "infinity")
    }

    for name, color in marks.items():
        beside = [c for other, c in marks.items() if other != name]
        beside += [colors for map_name, colors in maps.items() if name != "dropped" or map_name == theme.sequential]
        distances = np.linalg.norm(to_lab(np.concatenate(beside), eye) - to_lab(color, eye), axis=1)
        assert distances.min() > 9, name  # 2 is about what an eye can tell


# ── saved results ────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("held", [{"weights", "mask"}, {"weights", "masked_scores", "scaled_scores"}])
def test_a_saved_result_knows_its_hidden_keys(held):
    attention = causal(4, heads=2)
    kept = dataclasses.replace(attention, steps=tuple(step for step in attention if step.name in held))
    record = json.loads("".join(load_output_format("json").write(kept, RenderOptions())))

    for axes in panels(draw(parse_result(record))):
        assert axes.images[0].get_array().mask.tolist() == (~np.tri(4, dtype=bool)).tolist()


def test_a_score_of_minus_infinity_is_no_hidden_key_in_a_saved_result():
    attention = compute({"q": [[1.0], ["-Infinity"]], "k": [[1.0], [2.0]]}, mask="causal")
    record = json.loads("".join(load_output_format("json").write(attention, RenderOptions())))
    read = parse_result(
        {name: value for name, value in record.items() if name != "mask"}
        | {"axes": {n: a for n, a in record["axes"].items() if n != "mask"}}
    )

    assert read.hidden_keys.find("masked_scores", 0, 0, (0, 1)).tolist() == [[False, True], [False, False]]
