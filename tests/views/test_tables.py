"""Tables for people: what looks hidden, what is left out of a terminal, which tables stand together."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rich.cells import cell_len

import attncli
from attncli.output_formats import RenderOptions, load_output_format
from attncli.select import select_indices
from attncli.types import Attention
from attncli.views.table_order import ResultTables
from tests.helpers import SAMPLES, draw_normal


def write(name: str, attention: Attention, **look) -> str:
    return "".join(load_output_format(name).write(attention, RenderOptions(**look)))


def attend(
    n: int, heads: int | None = None, *, keep="shown", batch: int | None = None, width: int = 12, **more
) -> Attention:
    """Random embeddings of n tokens."""
    shape = (n, width) if batch is None else (batch, n, width)
    tokens = [f"t{i}" for i in range(n)]
    problem = attncli.Problem(tokens=tokens if batch is None else [tokens] * batch, embeddings=draw_normal(7, *shape))
    return attncli.attend(problem, attncli.Variant(heads=heads, **more), keep=keep)


def titles(text: str) -> list[str]:
    """The first words of every heading: `weights · head 0`."""
    return re.findall(r"^\n([a-z][a-z_0-9]*(?: · [a-z ]+\d+(?: and [a-z ]+\d+)?)*)(?=   |\n)", text, re.MULTILINE)


def table(text: str, title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its labels."""
    lines = text.partition(f"\n\n{title}")[2].partition("\n\n")[0].splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    return [line.split() for line in lines[rule + 1 :]]


# ── hidden keys ──────────────────────────────────────────────────────────────────────────────────
def test_hidden_keys_look_hidden_and_small_weights_do_not():
    """cat sees nothing of sat; the weight of far is 0 in four digits, and it is seen."""
    problem = attncli.Problem(q=[[0.0], [1.0], [1.0]], k=[[0.0], [-30.0], [0.0]], tokens=["the", "far", "sat"])
    held = attncli.attend(problem, attncli.Variant(mask="causal", scale="none"), keep=["masked_scores", "weights"])

    text = write("table", held)

    assert table(text, "masked_scores") == [
        ["0", "the", "0.0000", "·", "·"],
        ["1", "far", "0.0000", "-30.0000", "·"],
        ["2", "sat", "0.0000", "-30.0000", "0.0000"],
    ]
    assert table(text, "weights") == [
        ["0", "the", "1.0000", "·", "·", "1.0000"],
        ["1", "far", "1.0000", "0.0000", "·", "1.0000"],
        ["2", "sat", "0.5000", "0.0000", "0.5000", "1.0000"],
    ]
    assert "(· = hidden key, −∞)" in text
    assert "(every row sums to 1; · = hidden key)" in text


def test_a_score_of_minus_infinity_is_not_hidden():
    problem = attncli.Problem(q=[[1.0], [1.0]], k=[["-Infinity"], [2.0]])
    held = attncli.attend(problem, attncli.Variant(mask="causal"), keep=["masked_scores"])

    assert table(write("table", held), "masked_scores") == [["0", "−∞", "·"], ["1", "−∞", "2.0000"]]


@pytest.mark.parametrize("name", ["plain", "markdown", "latex"])
def test_hidden_keys_look_hidden_in_every_text(name):
    held = attend(3, mask="causal", keep=["weights"])
    first, others = held["weights"].values[0, 0], held["weights"].values[1:]

    text = write(name, held)

    marks = {"plain": "t1=·", "markdown": " · |", "latex": "$\\cdot$ &"}
    assert first == 1
    assert text.count(marks[name]) == {"plain": 1, "markdown": 3, "latex": 3}[name]
    for value in others[others > 0]:
        assert f"{value:.4f}" in text


@pytest.mark.parametrize(
    ("choices", "rows"),
    [
        ({"empty_rows": "uniform"}, [["0", "0.3333", "0.3333", "0.3333", "1.0000"]]),
        ({"empty_rows": "nan"}, [["0", "NaN", "NaN", "NaN", "NaN"]]),
        ({"empty_rows": "zero"}, [["0", "·", "·", "·", "0.0000"]]),
    ],
)
def test_a_number_of_a_hidden_key_is_shown(choices, rows):
    problem = attncli.Problem(embeddings=draw_normal(1, 3, 2), mask=[[False] * 3, [True, True, False], [True] * 3])
    held = attncli.attend(problem, attncli.Variant(**choices), keep=["weights"])

    assert table(write("table", held), "weights")[:1] == rows


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_dropped_weight_is_neither_hidden_nor_zero(with_weights):
    """The weight of far underflows to 0 and is not dropped; that of the is."""
    problem = attncli.Problem(
        q=[[0.0], [1.0], [1.0]], k=[[0.0], [-900.0], [0.0]], dropout_mask=[[True] * 3, [False, True, True], [True] * 3]
    )
    variant = attncli.Variant(mask="causal", scale="none", dropout="dropout:p=0.5")
    held = attncli.attend(problem, variant, keep=["dropout_weights", *(["weights"] if with_weights else [])])

    text = write("table", held)

    zero = "0.0000" if with_weights else "–"
    assert table(text, "dropout_weights") == [
        ["0", "2.0000", "·", "·", "2.0000"],
        ["1", "–", zero, "·", "0.0000"],
        ["2", "1.0000", zero, "1.0000", "2.0000"],
    ]
    assert ("– = dropped, or a weight of 0)" in text) == (not with_weights)


def test_what_is_selected_is_marked_as_it_was():
    """The third and the first of four queries, and keys from the second on, of the second head: it sees the key before."""
    visible = np.tril(np.ones((2, 4, 4), bool))
    visible[1] = np.eye(4, dtype=bool) | np.eye(4, k=-1, dtype=bool)
    problem = attncli.Problem(embeddings=draw_normal(2, 4, 6), mask=visible[None])
    held = attncli.attend(problem, attncli.Variant(heads=2), keep=["weights"])

    part = select_indices(held, {"query": (2, 0), "key": (1, 2, 3), "head": (1,)})

    cells = table(write("table", part), "weights · head 1")
    assert [[cell == "·" for cell in row[1:]] for row in cells] == [[False, False, True], [True, True, True]]


@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_a_pair_of_heads_hides_what_both_hide(pairing):
    visible = np.ones((4, 3, 3), bool)
    first, second = {"adjacent": (2, 3), "halves": (1, 3)}[pairing]
    visible[first, 2, :2] = visible[second, 2, 1:] = False  # key 1 from both, of query 2 in the second pair
    problem = attncli.Problem(
        embeddings=draw_normal(2, 3, 8),
        mask=visible[None],
        parameters={f"lambda_{letter}{i}": draw_normal(3 + i, 2) for letter in "qk" for i in (1, 2)},
    )
    held = attncli.attend(
        problem, attncli.Variant(heads=4, head_mixing=f"differential:pairing={pairing}"), keep=["mixed_weights"]
    )

    text = write("table", held)

    assert [row.count("·") for row in table(text, "mixed_weights · head 0")] == [0, 0, 0]
    assert [[cell == "·" for cell in row[1:4]] for row in table(text, "mixed_weights · head 1")][2] == [
        False,
        True,
        False,
    ]


# ── shades ───────────────────────────────────────────────────────────────────────────────────────
def test_sixteen_colours_show_eighths_after_the_number(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLORTERM", "")
    held = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), keep={"weights"})

    plain = re.sub(r"\x1b\[[\d;]*m", "", write("table", held, color=True, heat="weights"))

    assert table(plain, "weights")[0] == ["0", "the", "0.3837▃", "0.2327▂", "0.3837▃", "1.0000"]
    assert "\nshaded 0 ▁▂▃▄▅▆▇█ 1.00 for all rows\n" in plain


def test_the_scale_of_many_keys_is_said():
    text = write("table", attend(17, keep=["weights"]), heat="weights")

    assert "\nshaded 0 ░▒▓█ 100 % of the row's largest\n" in text
    assert all("█" in line for line in text.splitlines()[-17:])


# ── which tables stand together ──────────────────────────────────────────────────────────────────
def test_all_steps_of_a_head_stand_together():
    held = attend(
        3, 2, projection="linear:dim=12,out=yes", seed=1, keep=["w_q", "q", "k", "weights", "context", "output"]
    )

    assert titles(write("table", held)) == [
        "w_q",
        "q · head 0", "k · kv head 0", "weights · head 0",
        "q · head 1", "k · kv head 1", "weights · head 1",
        "context", "output",
    ]  # fmt: skip


def test_a_batch_item_is_told_before_the_next():
    held = attend(3, 2, batch=2, keep=["scores", "weights", "context"])

    assert titles(write("table", held)) == [
        *(f"{step} · batch {b} · head {h}" for b in (0,) for h in (0, 1) for step in ("scores", "weights")),
        "context · batch 0",
        *(f"{step} · batch {b} · head {h}" for b in (1,) for h in (0, 1) for step in ("scores", "weights")),
        "context · batch 1",
    ]


@pytest.mark.parametrize(
    ("kv_map", "order"),
    [("interleave", ["kv head 0", "head 0", "head 1", "kv head 1", "head 2", "head 3"]),
     ("tile", ["kv head 0", "head 0", "kv head 1", "head 1", "head 2", "head 3"])],
)  # fmt: skip
def test_a_kv_head_stands_with_the_first_head_that_reads_it(kv_map, order):
    q, k = draw_normal(1, 1, 4, 3, 2), draw_normal(2, 1, 2, 3, 2)
    held = attncli.attend(attncli.Problem(q=q, k=k), attncli.Variant(kv_map=kv_map), keep=["k", "weights"])

    assert [title.rpartition(" · ")[2] for title in titles(write("table", held))] == order


def test_a_pair_stands_with_its_second_head():
    problem = attncli.Problem(
        embeddings=draw_normal(2, 3, 8),
        parameters={f"lambda_{letter}{i}": draw_normal(3 + i, 2) for letter in "qk" for i in (1, 2)},
    )
    held = attncli.attend(
        problem, attncli.Variant(heads=4, head_mixing="differential"), keep=["v", "weights", "head_context"]
    )

    assert titles(write("table", held)) == [
        "v · kv head 0", "weights · head 0", "weights · head 1", "head_context · head 0",
        "v · kv head 1", "weights · head 2", "weights · head 3", "head_context · head 1",
    ]  # fmt: skip


# ── a terminal ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("choices", [{}, {"mask": "causal", "projection": "linear", "seed": 1}], ids=str)
def test_twelve_heads_of_many_tokens_are_a_page(width, choices):
    held = attend(200, 12, width=24, **choices)

    text = write("table", held, width=width)

    lines = text.splitlines()
    assert len(lines) <= 150
    assert max(map(cell_len, lines)) <= width
    assert re.search(r"^12 heads \([124] shown\); --full shows all, --at chooses$", text, re.MULTILINE)
    assert "200 rows (" in text


def test_few_rows_of_few_heads_are_shown_whole():
    held = attend(6, 4, batch=2, mask="causal", projection="linear", seed=1)

    assert not re.search(r"(heads|items|rows) \(", write("table", held, width=80))


def test_heads_that_are_left_out_are_in_the_middle():
    held = attend(3, 12, keep=["weights"])

    text = write("table", held, width=80)

    assert titles(text) == [f"weights · head {h}" for h in (0, 1, 10, 11)]
    assert "12 heads (4 shown); --full shows all, --at chooses" in text
    assert len(titles(write("table", held))) == 12


@pytest.mark.parametrize(("width", "is_paired"), [(119, False), (120, True)])
def test_two_heads_stand_side_by_side_where_there_is_room(width, is_paired):
    held = attend(3, 3, keep=["weights", "entropy"])

    text = write("table", held, width=width)

    expected = (
        ["weights · head 0 and head 1", "weights · head 2"] if is_paired else [f"weights · head {h}" for h in range(3)]
    )
    assert titles(text) == expected
    row = table(text, expected[0])[0]
    values = [f"{x:.4f}" for x in held["weights"].values[:2, 0].ravel()]
    shown = [cell for cell in row if cell in values]
    assert shown == values[: 6 if is_paired else 3]
    assert max(map(cell_len, text.splitlines())) <= width


def test_heads_whose_tables_do_not_all_fit_stand_one_after_the_other():
    """Two columns fit twice, nine do not."""
    held = attend(9, 2, keep=["q", "weights"], width=4)

    assert titles(write("table", held, width=120)) == [
        f"{step} · head {h}" for h in (0, 1) for step in ("q", "weights")
    ]
    assert titles(write("table", held, width=220)) == ["q · head 0 and head 1", "weights · head 0 and head 1"]


def test_wide_tables_do_not_stand_side_by_side():
    held = attend(9, 2, keep=["weights"])

    assert titles(write("table", held, width=120)) == ["weights · head 0", "weights · head 1"]


def test_equal_batch_items_are_said():
    x = draw_normal(4, 3, 6)
    held = attncli.attend(attncli.Problem(embeddings=np.stack([x, x, x[::-1], x])), keep=["weights", "context"])

    on_terminal, in_pipe = write("table", held, width=80), write("table", held)

    assert titles(on_terminal) == [f"{step} · batch {b}" for b in (0, 2) for step in ("weights", "context")]
    assert on_terminal.endswith("\n\nbatch 1 and batch 3: every number is equal to that of batch 0\n")
    assert titles(in_pipe) == [f"{step} · batch {b}" for b in range(4) for step in ("weights", "context")]
    assert in_pipe.count("equal to batch 0)") == 4


def test_equal_numbers_of_other_tokens_are_not_equal():
    x = draw_normal(4, 3, 6)
    problem = attncli.Problem(embeddings=np.stack([x, x]), tokens=[["a", "b", "c"], ["a", "b", "d"]])

    assert "equal" not in write("table", attncli.attend(problem, keep=["weights"]), width=80)


@pytest.mark.parametrize("look", [{}, {"width": 80}], ids=str)
@pytest.mark.parametrize("name", ["table", "markdown"])
def test_statistics_beside_the_weights_are_explained_once(name, look):
    held = attend(3, 2, keep=["weights", "entropy", "visible_keys"])

    text = " ".join(write(name, held, **look).replace("\\_", "_").split())

    meanings = ("entropy: how spread the weights are, in bits", "visible_keys: how many keys are not hidden")
    legend = (" " if look and name == "table" else " · ").join(meanings)
    assert text.count(legend) == (2 if name == "markdown" else 1)
    assert "max_score" not in text


def test_statistics_that_are_left_out_are_not_explained():
    held = attend(3, keep=["weights", "max_score", "log_sum_exp", "entropy", "visible_keys"])

    assert "entropy" not in write("table", held, width=40)


def test_tables_of_part_of_the_heads_come_with_the_kv_heads_that_they_read():
    held = attend(3, 4, kv_heads=2, projection="linear", seed=1, keep=["q", "k"])
    part = select_indices(held, {"head": (3, 1), "kv_head": (1, 0)})

    slices = [(one.step.step.name, one.index) for one in ResultTables(part, 4).slices()]

    assert slices == [("q", (0,)), ("k", (0,)), ("q", (1,)), ("k", (1,))]


def test_hidden_keys_of_queries_that_alone_were_computed(attn, tmp_path):
    """Queries 1000, 1001 and 1002 of 1600: 599, 598 and 597 keys come later. The whole would be 2.6 million scores."""
    np.save(tmp_path / "x.npy", draw_normal(5, 1600, 8))

    done = attn("compute", tmp_path / "x.npy", "--causal", "--only", "weights", "--at", "query=1000:1003")

    assert [line.split().count("·") for line in done.out.splitlines()[-3:]] == [599, 598, 597]
