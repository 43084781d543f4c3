"""What the page of one query says."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

import attncli
from attncli.types import Problem
from attncli.variant import Variant
from tests.calculator import equation_holds
from tests.helpers import SAMPLES, draw_normal
from tests.laws.problems import problem_for
from tests.views.pages import check_arithmetic, page

CAT = SAMPLES / "cat_sat.json"


def test_the_whole_page_of_three_tokens(attn):
    run = attn("explain", CAT, "cat", "--causal")

    assert run.status == 0
    assert run.err == ""
    assert run.out == PAGE


def test_without_a_query_it_is_the_last(attn):
    assert attn("explain", CAT).out == attn("explain", CAT, "sat").out == attn("explain", CAT, "2").out


def test_one_cell(attn):
    record = attn("explain", CAT, "cat", "--at", "key=sat", "--json").json
    lines = {s["title"]: [(x["label"], x["text"]) for x in s["lines"]] for s in record["sections"]}

    assert lines["scores"] == [("sat", "0·2 + 1·1 + 1·0 + 2·1 = 3")]
    assert lines["weights"][-2] == ("sat", "0.2231 / 1.3052 = 0.1710")
    assert [label for label, _ in lines["context"]] == ["sat", "2 more", "sum"]


def test_heads_one_at_a_time(attn):
    path = SAMPLES / "journey_two_heads.json"
    first, second = (attn("explain", path, "1", "--at", f"head={h}", "--json").json for h in (0, 1))
    both = attn("explain", path, "1", "--at", "head=0:2", "--json").json

    def of(record, title):
        return [s["lines"] for s in record["sections"] if s["title"] == title]

    assert "head 0 of 2" in first["title"]
    assert of(first, "weights") + of(second, "weights") == of(both, "weights")
    assert of(first, "weights") != of(second, "weights")
    assert of(first, "context") == of(second, "context")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--causal"], "causal: 2 > 1"),
        (["--mask", "window:left=0"], "window: 0 − 1 < 0"),
        (["--mask", "not prefix:length=1"], "not prefix: 0 < 1"),
        (["--mask", "causal and chunk:size=1"], "causal: 2 > 1, chunk: ⌊1/1⌋ ≠ ⌊2/1⌋"),
        (["--mask", "dilated:rate=2"], "dilated: (1 − 0) mod 2 ≠ 0"),
        (["--mask", "global:tokens=0"], "global: neither 1 nor 2 is one of the tokens"),
    ],
)
def test_the_predicate_that_hides_a_key_stands_beside_it(attn, words, says):
    record = attn("explain", CAT, "cat", *words, "--json").json

    remarks = [x["remark"] for s in record["sections"] if s["title"] == "masked_scores" for x in s["lines"]]
    assert says in remarks


def test_padding_and_bias_hide_keys_too(attn, tmp_path):
    fields = {
        "embeddings": [[1, 0], [0, 1], [1, 1]],
        "lengths": [2],
        "bias": [[0, 0, 0], ["-Infinity", 0, 0], [0, 0, 0]],
    }
    (tmp_path / "p.json").write_text(json.dumps(fields))

    record = attn("explain", "p.json", "1", "--json").json

    masked = next(s for s in record["sections"] if s["title"] == "masked_scores")
    assert [(x["label"], x["remark"]) for x in masked["lines"]] == [("0", "bias: −∞"), ("2", "padding: 2 ≥ 2")]


def test_a_query_that_sees_nothing(attn):
    for rule, weight in (("zero", "0"), ("nan", "NaN")):
        record = attn("explain", CAT, "cat", "--mask", "not full", "--empty-rows", rule, "--json").json
        weights = next(s for s in record["sections"] if s["title"] == "weights")
        assert weights["remark"] == f"the query sees no key: empty rows are {rule}"
        assert {x["text"] for x in weights["lines"]} == {weight}
        assert (
            record["closing"]
            == {"zero": "“cat” looks nowhere.", "nan": "“cat” has weights that are not numbers."}[rule]
        )


def test_what_does_nothing_is_named_in_full_only(attn):
    short, full = (attn("explain", CAT, "cat", "--json", *more).json for more in ([], ["--full"]))

    idle = [s["title"] for s in full["sections"] if s["idle"]]
    assert idle == [
        "no qk-norm or position",
        "no mix, softcap, temperature, log-n, position, bias, mask or sink",
        "no dropout or head mixing",
        "no output projection",
    ]
    assert not any(s["idle"] for s in short["sections"])
    assert [s for s in full["sections"] if not s["idle"] and s["title"] != "the row in numbers"] == short["sections"]


def test_the_row_in_numbers_is_explained(attn):
    record = attn("explain", CAT, "cat", "--json", "--full").json

    lines = next(s["lines"] for s in record["sections"] if s["title"] == "the row in numbers")
    scores = np.array([0.5, 3, 1.5])
    weights = np.exp(scores) / np.exp(scores).sum()
    assert [(x["label"], float(x["text"])) for x in lines] == [
        ("largest score", 3),
        ("ln Σ e^s", pytest.approx(math.log(np.exp(scores).sum()), abs=5e-5)),
        ("entropy in bits", pytest.approx(-(weights * np.log2(weights)).sum(), abs=5e-5)),
        ("visible keys", 3),
    ]
    assert all(x["remark"] for x in lines)


def test_the_textbook_softmax_gives_the_same_weight(attn):
    record = attn("explain", CAT, "cat", "--json").json
    weights = next(s["lines"] for s in record["sections"] if s["title"] == "weights")
    lines = [(x["label"], x["text"], x["remark"]) for x in weights[-3:-1]]

    e = [math.exp(s) for s in (0.5, 3, 1.5)]
    terms = " + ".join(f"{x:.4f}" for x in e)
    assert lines == [
        ("Σ e^s", f"e^(0.5) + e^(3) + e^(1.5) = {terms} = {sum(e):.4f}", "without − max s"),
        ("cat", f"{e[1]:.4f} / {sum(e):.4f} = {e[1] / sum(e):.4f}", "the same weight"),
    ]


@pytest.mark.parametrize(
    "words", [["--normalizer", "relu"], ["--at", "key=sat"], ["--blank", "weights"], ["--scale", "1000"]], ids=" ".join
)
def test_the_textbook_softmax_is_left_out_where_it_does_not_fit(attn, words):
    assert "without − max s" not in attn("explain", CAT, "cat", *words).out


def test_why_says_a_sentence_on_every_step(attn):
    words = ["explain", CAT, "cat", "--causal", "--rope", "--sink", "zero", "--projection", "randn", "--seed", "1"]
    plain, reasoned = (attn(*words, *more, "--json").json for more in ([], ["--why"]))

    steps = [s for s in reasoned["sections"] if not s["idle"]]
    assert len(steps) == 10
    assert all(s["why"].endswith(".") for s in steps)
    assert len({s["why"] for s in steps}) == len(steps)
    assert (
        "must not look at the words that come later" in next(s for s in steps if s["title"] == "masked_scores")["why"]
    )
    assert not any(s["why"] for s in plain["sections"])
    assert steps[0]["why"] in attn(*words, "--why", "-f", "plain").out


def test_without_a_query_a_note_says_which_one_it_is(attn):
    unasked, asked = attn("explain", CAT), attn("explain", CAT, "2")

    assert (
        unasked.err
        == f"this is the last of 3 queries; to choose another, add its token or index: attn explain {CAT} 0\n"
    )
    assert asked.err == ""
    assert attn("explain", CAT, "-q").err == ""


def test_where_rounding_shows_the_line_says_so(attn):
    record = attn("explain", CAT, "cat", "--json").json
    marked = {x["text"]: x["rounded"] for s in record["sections"] for x in s["lines"]}

    assert marked["0.0629 + 0.7662 + 0.1710 = 1.0000"]  # the terms printed add up to 1.0001
    assert not marked["0.0821 + 1.0000 + 0.2231 = 1.3052"]
    assert "†" in attn("explain", CAT, "cat").out
    assert "†" not in attn("explain", CAT, "0", "--normalizer", "hardmax").out


def test_long_rows_are_left_out_in_sum_and_shown_in_full(attn, tmp_path):
    np.save(tmp_path / "x.npy", draw_normal(3, 40, 11))

    short, full = (attn("explain", "x.npy", "7", "--json", *more).json for more in ([], ["--full"]))
    scores = [next(s for s in record["sections"] if s["title"] == "scores") for record in (short, full)]

    assert [len(s["lines"]) for s in scores] == [8, 40]
    assert "(7 more: " in scores[0]["lines"][0]["text"]
    assert "more" not in scores[1]["lines"][0]["text"]
    check_arithmetic(short, 4)
    check_arithmetic(full, 4)


@pytest.mark.slow
def test_of_a_long_run_the_query_alone_is_computed_and_addressed_in_the_whole(attn, tmp_path):
    x = draw_normal(3, 1500, 4)  # 2.25 million scores
    np.save(tmp_path / "x.npy", x)

    words = [
        "explain",
        "x.npy",
        "--at",
        "query=-3",
        "--causal",
        "--rope",
        "--blank",
        "weights,q",
        "--answers",
        "--json",
    ]
    gaps = attn(*words).json["gaps"]

    weights = [gap for gap in gaps if gap["step"] == "weights"]
    assert {gap["index"][0] for gap in gaps} == {1497}
    assert [gap["value"] for gap in gaps if gap["step"] == "q"] == pytest.approx(x[1497])
    expected = attncli.attend(Problem(embeddings=x), Variant(mask="causal", position="rope"))["weights"].values[1497]
    assert [gap["value"] for gap in weights] == pytest.approx([expected[gap["index"][1]] for gap in weights], rel=1e-12)
    assert len(weights) == 8


def test_the_closing_sentence_says_where_the_query_looks(attn):
    assert attn("explain", CAT, "cat", "--json").json["closing"] == (
        "“cat” takes 77 % of its context from itself, 17 % from “sat”, 6 % from “the”."
    )


def test_the_closing_sentence_tells_dropped_weights_from_none(attn, tmp_path):
    (tmp_path / "x.json").write_text('{"embeddings": [[1, 0], [0, 1]], "dropout_mask": [[false, false], [true, true]]}')

    dropped, hidden = (
        closing(attn("explain", "x.json", "0", "--dropout", "0.5", "--json", *more))
        for more in ([], ["--mask", "not full"])
    )

    assert dropped == "“0” looks nowhere: all of its weights are dropped."
    assert hidden == "“0” looks nowhere."


def closing(run) -> str:
    return run.json["closing"]


def test_the_closing_sentence_is_true_of_weights_that_are_no_shares(attn, tmp_path):
    (tmp_path / "q.json").write_text('{"q": [[1, 0], [0, 1]], "k": [[1, 0], [0, 1], [1, 1]], "v": [[1], [2], [3]]}')
    say = ["explain", "q.json", "0", "--json"]

    assert closing(attn(*say, "--normalizer", "relu")) == "“0” weighs “0” by 0.7071, “2” by 0.7071."
    assert closing(attn(*say, "--sink", "zero")) == (
        "“0” gives 33 % to “0”, 33 % to “2”, 17 % to “1”, 17 % to the sink."  # e^0.7071 = 2.0281 of 2·2.0281 + 1 + 1
    )
    assert "itself" not in closing(attn(*say))  # q and k need not be of the same tokens
    assert "not numbers" in closing(attn(*say, "--mask", "not full", "--empty-rows", "nan"))
    assert "looks nowhere" in closing(attn(*say, "--mask", "not full"))


def test_the_closing_sentence_accounts_for_all_of_the_weight(attn, tmp_path):
    scores = [0.1, 0.5, 0.2, 0.4, 0.3, 0.15]
    (tmp_path / "q.json").write_text(json.dumps({"q": [[1]], "k": [[s] for s in scores], "v": [[1]] * 6}))

    sentence = closing(attn("explain", "q.json", "0", "--json"))

    weights = np.exp(scores) / np.exp(scores).sum()  # 0.1382, 0.2062, 0.1528, 0.1866, 0.1688, 0.1453
    assert [round(100 * w) for w in weights[[1, 3, 4]]] == [21, 19, 17]
    assert sentence == "“0” takes 21 % of its context from “1”, 19 % from “3”, 17 % from “4”, 43 % from the other 3."


@pytest.mark.parametrize(
    ("weights", "percentages"), [([1, 1, 1], ["34", "33", "33"]), ([5, 5, 3, 3], ["31", "31", "19", "19"])]
)
def test_percentages_sum_to_100(attn, tmp_path, weights, percentages):
    fields = {"q": [[1]], "k": [[math.log(w)] for w in weights], "v": [[1]] * len(weights)}
    (tmp_path / "q.json").write_text(json.dumps(fields))

    sentence = closing(attn("explain", "q.json", "0", "--json"))

    assert re.findall(r"(\d+) %", sentence) == percentages


def test_repeated_tokens_stand_apart(attn, tmp_path):
    (tmp_path / "t.csv").write_text("the,1,0\ncat,0,1\nthe,1,1\n")

    record = attn("explain", "t.csv", "1", "--json").json

    scores = next(s for s in record["sections"] if s["title"] == "scores")
    assert [x["label"] for x in scores["lines"]] == ["0 the", "cat", "2 the"]


HUGE = {"q": [[1e200, 3.0, 1e-300]], "k": [[1e200, -1e200, 1.0], [2.0, 1e200, 5.0]], "v": [[1.0], [2.0]]}
INFINITE = {"q": [[1.0] * 12], "k": [[1.0, "Infinity", "-Infinity"] + [1.0] * 9, ["NaN"] * 12], "v": [[1.0], [2.0]]}


@pytest.mark.parametrize("fields", [HUGE, INFINITE], ids=["huge", "infinite"])
@pytest.mark.parametrize(
    "words",
    [[], ["--qk-norm", "rms"], ["--qk-norm", "layer"], ["--score", "euclidean"], ["--score", "cosine"], ["--grad", "ones"],
     ["--normalizer", "sparsemax", "--grad", "ones"], ["--normalizer", "sum"]],
    ids=" ".join,
)  # fmt: skip
def test_no_number_is_too_large_to_be_shown(attn, tmp_path, fields, words):
    (tmp_path / "p.json").write_text(json.dumps(fields))

    assert attn("explain", "p.json", *words).status == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_line_that_does_not_come_out_is_marked(dtype):
    problem = problem_for("", variant=Variant())

    record = page(problem, Variant(dtype=dtype, softcap=2.5), precision=6)

    lines = [line for s in record["sections"] for line in s["lines"] if " = " in line["text"]]
    off = [line for line in lines if not line["text"].startswith("…") and not equation_holds(line["text"], 6)]
    assert dtype == "float32" or len(off) > 5
    assert all(line["rounded"] for line in off if dtype != "float32")


def test_tau_goes_with_its_formula(attn):
    record = attn(
        "explain", CAT, "cat", "--normalizer", "entmax15", "--softcap", "2", "--json", "--precision", "12"
    ).json

    weights = next(s for s in record["sections"] if s["title"] == "weights")
    lines = {x["label"]: x["text"] for x in weights["lines"]}
    assert weights["formula"] == "max(s/2 − τ, 0)² with τ such that Σ = 1"
    score, weight = float(lines["cat"].split()[0].removeprefix("max(")), float(lines["cat"].rpartition(" = ")[2])
    assert max(score / 2 - float(lines["τ"]), 0) ** 2 == pytest.approx(weight, abs=1e-11)


def test_what_is_multiplied_by_1_is_not_written(attn):
    record = attn("explain", CAT, "cat", "--normalizer", "sparsemax", "--json").json

    weights = next(s for s in record["sections"] if s["title"] == "weights")
    assert all("×" not in line["text"] for line in weights["lines"])


@pytest.mark.parametrize(
    ("layout", "pairs"), [("interleaved", [(4, 3), (4, 3), (2, 1), (2, 1)]), ("half", [(4, 2), (3, 1), (4, 2), (3, 1)])]
)
def test_each_column_of_a_rotation_stands_with_the_other_of_its_pair(attn, tmp_path, layout, pairs):
    (tmp_path / "r.json").write_text('{"embeddings": [[1, 2, 3, 4], [4, 3, 2, 1]]}')
    record = attn("explain", "r.json", "1", "--position", f"rope:layout={layout}", "--json").json

    rotated = next(s for s in record["sections"] if s["title"] == "positioned_q")
    lines = {x["label"]: x["text"] for x in rotated["lines"]}
    starts = [re.match(r"(\d)·\S+ [−+] (\d)·", lines[f"q[{i}]"]).groups() for i in range(4)]
    assert [tuple(map(int, pair)) for pair in starts] == pairs


def test_heads_worked_one_after_the_other_are_told_apart(attn):
    out = attn("explain", SAMPLES / "journey_two_heads.json", "1", "--at", "head=0:2").out

    assert out.index("── head 0 ──") < out.index("── head 1 ──")
    assert out.count("takes") == 2
    assert "In head 1 “journey” takes" in out


PAGE = """\
Attention of query 1 “cat”
self-attention · 3 tokens × 4 dims · q = k = v = x · score dot · scale 0.5 = 1/√4 · mask causal · float64

① q   x
     q   [0 1 1 2]

② k and v   x
     the   [1 0 1 0]
     cat   [0 1 1 2]
     sat   [2 1 0 1]

③ scores   q·k
     the   0·1 + 1·0 + 1·1 + 2·0 = 1
     cat   0·0 + 1·1 + 1·1 + 2·2 = 6
     sat   0·2 + 1·1 + 1·0 + 2·1 = 3

④ scaled_scores   s × 0.5 = s / √d_k, d_k = 4
     the   1 × 0.5 = 0.5
     cat   6 × 0.5 = 3.0
     sat   3 × 0.5 = 1.5

⑤ masked_scores   s where visible, else −∞   (2 of 3 keys are visible; the scores of the others become −∞)
     sat   −∞   causal: 2 > 1

⑥ weights   e^(s − max s) / Σ e^(s − max s)   (1 hidden: weight 0)
     largest   3
     the       e^(0.5 − 3) = e^(-2.5) = 0.0821
     cat       e^(3 − 3)   = e^(0)    = 1.0000
     sum       0.0821 + 1.0000 = 1.0821
     the       0.0821 / 1.0821 = 0.0759
     cat       1.0000 / 1.0821 = 0.9241
     Σ e^s     e^(0.5) + e^(3) = 1.6487 + 20.0855 = 21.7343 †   without − max s
     cat       20.0855 / 21.7343 = 0.9241   the same weight
     check     0.0759 + 0.9241   = 1.0000

⑦ context   Σ weight × value
     the   0.0759 × [1 0 1 0] = [0.0759 0.0000 0.0759 0.0000]
     cat   0.9241 × [0 1 1 2] = [0.0000 0.9241 0.9241 1.8483] †
     sum                      = [0.0759 0.9241 1.0000 1.8483]

“cat” takes 92 % of its context from itself, 8 % from “the”.
† the printed terms are rounded; the result comes from all digits, so its last digit can differ.
"""


def test_a_key_that_is_not_among_the_largest_says_so(attn):
    record = attn("explain", CAT, "cat", "--normalizer", "topk:k=2", "--json").json

    [weights] = [section["lines"] for section in record["sections"] if section["title"] == "weights"]
    remarks = [(line["label"], line["text"]) for line in weights if line["remark"] == "not among the 2 largest"]
    assert remarks == [("the", "0")]  # the scores are 0.5, 3 and 1.5


def test_columns_are_numbered_from_0_in_every_head():
    parameters = {f"w_{letter}": draw_normal(seed, 4, 6) for seed, letter in enumerate("qkv")}
    problem = Problem(embeddings=draw_normal(3, 5, 4), parameters=parameters)

    record = page(problem, Variant(heads=2), heads=(1,))

    labels = [line["label"] for section in record["sections"] if section["title"] == "q" for line in section["lines"]]
    assert [label for label in labels if label.startswith("q[")] == ["q[0]", "q[1]", "q[2]"]


@pytest.mark.parametrize(
    "words",
    [
        ["journey_two_heads.json", "1", "--causal"],
        ["cross_attention.json", "0", "--chain", "scale,mask,scale", "--causal", "--align", "top-left"],
        [
            "journey_linear.json",
            "1",
            "--projection",
            "linear:dim=2,bias=qkv",
            "--seed",
            "1",
            "--rope",
            "--dropout",
            "0.5",
        ],
        ["cat_sat.json", "cat", "--normalizer", "sparsemax", "--qk-norm", "rms", "--softcap", "5"],
    ],
)
def test_why_says_a_sentence_on_the_way_back(attn, words):
    name, *more = words
    sections = attn("explain", SAMPLES / name, *more, "--grad", "ones", "--why", "--json").json["sections"]
    back = [s for s in sections if s["title"].startswith("gradient of ") and not s["idle"]]
    assert len(back) >= 5
    assert all(re.fullmatch("[A-Z].*[.]", s["why"]) for s in back)
    of_softmax = [s["title"] for s in back if s["why"].startswith("The weights always sum to 1")]
    assert len(of_softmax) == (0 if "sparsemax" in words else 1)
