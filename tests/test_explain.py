"""The page of one query: what it prints can be worked with a pocket calculator, for every part, preset and published problem."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.derivation import noting
from attncli.output_formats import Look
from attncli.plan import plan
from attncli.presets import PRESETS, choices_of
from attncli.types import Problem
from attncli.variant import Variant
from attncli.views.board import WRITERS, Sheet, page_of
from attncli.views.explain import Place, explain
from tests.calculator import adds_up, comes_out
from tests.conftest import SAMPLES
from tests.test_golden import FILES
from tests.test_laws import ANSWERS, ONE_CHOICE, WIDE, H, M, N, draws, named, parameters_for, problem_for


def page(
    problem: Problem, variant: Variant | None, *, precision=4, blank=(), answers=False, form="json", grad=None, **place
):
    """The page of one query, as `form` writes it."""
    from attncli.core.attention import follow
    from attncli.core.gradients import follow_back

    made = plan(problem, variant)
    with noting():
        result, gradients = (follow(made), None) if grad is None else follow_back(made, arriving(made, grad))
    where = Place(**{"query": made.size.queries - 1, "blank": frozenset(blank), **place})
    board = explain(made, result, where, gradients)
    look = Look(precision=precision)
    sheet = Sheet(frozenset(blank), answers)
    text = WRITERS[form](page_of(board, look, sheet, result.dtype, full=where.full), look)
    return json.loads(text) if form == "json" else text


def arriving(made, seed: int):
    """A gradient of the context, drawn."""
    return draws(seed, *(made.length("context", axis) for axis in made.steps["context"]))


def equations(record) -> list[str]:
    """Every line of a page that says that something equals something."""
    lines = [line for section in record["sections"] for line in section["lines"]]
    return [line["text"] for line in lines if " = " in line["text"] and not line["text"].startswith("…")]


def sums(record) -> list[tuple[str, list[str]]]:
    """Every line that is the sum of the lines above it, with what they end in."""
    out = []
    for section in record["sections"]:
        above = [line["text"].rpartition(" = ")[2] for line in section["lines"] if " = [" in line["text"]]
        out += [(line["text"], above) for line in section["lines"] if line["label"] in ("sum", "dq") and above]
    return out


def check(record, precision: int) -> None:
    found = equations(record)
    assert found
    for equation in found:
        assert comes_out(equation, precision), equation
    for total, terms in sums(record):
        assert total.startswith("[") == all(term.startswith("[") for term in terms)
        assert not total.startswith("[") or adds_up(terms, total, precision), total


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("heads", [None, H])
def test_the_arithmetic_of_every_part_comes_out(choices, heads):
    variant = Variant(**{"heads": heads, "mask": "causal"} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

    precision, query, full = (4, 3, False) if heads else (7, N - 1, True)
    record = page(problem, variant, precision=precision, query=query, heads=((variant["heads"] or 1) - 1,), full=full)

    check(record, precision)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_the_arithmetic_of_every_preset_comes_out(preset):
    answers = {k: v for ask in preset.asks for k, v in ANSWERS[ask].items()} | {"heads": 2}
    chosen = choices_of(preset, 3 if preset.layers else None) | answers
    memory = {"embeddings": draws(7, M, WIDE)} if "memory" in preset.asks else None
    mask = np.tri(N, dtype=bool) if "given" in str(chosen.get("mask")) else None
    learned = parameters_for(Variant(**chosen), WIDE)
    if preset.choices.get("kv_heads") == 1:
        learned |= {"w_k": draws(8, WIDE, 66), "w_v": draws(9, WIDE, 66)}
    problem = Problem(embeddings=draws(6, N, WIDE), memory=memory, mask=mask, parameters=learned)

    record = page(problem, Variant(name=named(preset), **answers, align="top-left"), query=4, heads=(1,))

    check(record, 4)


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_the_arithmetic_of_the_way_back_comes_out(choices):
    variant = Variant(**{"heads": H, "mask": "causal"} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

    record = page(problem, variant, query=3, heads=(variant["heads"] - 1,), grad=4, precision=6)

    check(record, 6)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_arithmetic_of_every_published_problem_comes_out(path):
    problem = attncli.read(path)
    made = plan(problem)
    for query in {0, made.size.queries - 1}:
        for batch in range(min(made.size.batch or 1, 2)):
            check(page(problem, None, query=query, batch=batch, heads=(made.shapes.heads - 1,)), 4)


# ── what the page says ───────────────────────────────────────────────────────────────────────────
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
        (["--mask", "global:tokens=0"], "global: neither 1 nor 2 is among the tokens"),
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
            record["closing"] == {"zero": "“cat” looks nowhere.", "nan": "“cat” has weights that are no numbers."}[rule]
        )


def test_what_does_nothing_is_one_grey_line(attn):
    record = attn("explain", CAT, "cat", "--json").json

    idle = [s["title"] for s in record["sections"] if s["idle"] and s["title"]]
    assert idle == [
        "no qk-norm or position",
        "no mix, softcap, temperature, log-n, position, bias, mask or sink",
        "no dropout or head mixing",
        "no output projection",
    ]


def test_where_rounding_shows_the_line_says_so(attn):
    record = attn("explain", CAT, "cat", "--json").json
    marked = {x["text"]: x["rounded"] for s in record["sections"] for x in s["lines"]}

    assert marked["0.0629 + 0.7662 + 0.1710 = 1.0000"]  # the terms printed add up to 1.0001
    assert not marked["0.0821 + 1 + 0.2231 = 1.3052"]
    assert "†" in attn("explain", CAT, "cat").out
    assert "†" not in attn("explain", CAT, "0", "--normalizer", "hardmax").out


def test_long_rows_are_left_out_in_sum_and_shown_in_full(attn, tmp_path):
    np.save(tmp_path / "x.npy", draws(3, 40, 11))

    short, full = (attn("explain", "x.npy", "7", "--json", *more).json for more in ([], ["--full"]))
    scores = [next(s for s in record["sections"] if s["title"] == "scores") for record in (short, full)]

    assert [len(s["lines"]) for s in scores] == [8, 40]
    assert "(7 more: " in scores[0]["lines"][0]["text"]
    assert "more" not in scores[1]["lines"][0]["text"]
    check(short, 4)
    check(full, 4)


def test_of_a_long_run_the_query_alone_is_computed_and_addressed_in_the_whole(attn, tmp_path):
    x = draws(3, 1500, 4)  # 2.25 million scores
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
    assert "no numbers" in closing(attn(*say, "--mask", "not full", "--empty-rows", "nan"))
    assert "looks nowhere" in closing(attn(*say, "--mask", "not full"))


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
    off = [line for line in lines if not line["text"].startswith("…") and not comes_out(line["text"], 6)]
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


def test_heads_worked_one_after_the_other_are_told_apart(attn):
    out = attn("explain", SAMPLES / "journey_two_heads.json", "1", "--at", "head=0:2").out

    assert out.index("── head 0 ──") < out.index("── head 1 ──")
    assert out.count("takes") == 2
    assert "In head 1 “journey” takes" in out


# ── worksheets ───────────────────────────────────────────────────────────────────────────────────
def test_a_worksheet_has_gaps_and_says_which_cells_they_are(attn):
    sheet = attn("explain", CAT, "cat", "--blank", "weights,context").out
    key = attn("explain", CAT, "cat", "--blank", "weights,context", "--answers").out

    for n in range(1, 8):
        assert sheet.count(f"⟨{n}⟩____") == 1
    assert "⟨1⟩ to ⟨3⟩: weights[1][0:3]\n⟨4⟩ to ⟨7⟩: context[1][0:4]\n" in sheet
    assert "0.7662" not in sheet  # neither as a weight nor as a product with a value of 1
    assert "takes" not in sheet
    assert "⟨2⟩0.7662" in key
    assert "⟨7⟩1.7033" in key
    assert sheet.splitlines()[-2:] == key.splitlines()[-2:]


@pytest.mark.parametrize("step", ["q", "k", "v", "scores", "scaled_scores", "weights", "context"])
def test_a_step_left_blank_is_nowhere_on_the_page(attn, step):
    path = SAMPLES / "journey_two_heads.json"
    words = ["explain", path, "3", "--causal", "--scale", "0.3", "--json", "--precision", "9"]
    record = attn(*words, "--blank", step).json
    answers = attn(*words, "--blank", step, "--answers").json["gaps"]
    page_text = json.dumps(record["sections"], ensure_ascii=False)

    assert len(answers) >= 1
    for gap in answers:
        text = f"{gap['value']:.9f}" if isinstance(gap["value"], float) else "−∞"
        if len(text.strip("-0.")) > 3:
            assert text not in page_text, (step, gap)


@pytest.mark.parametrize(
    ("choices", "blank"),
    [
        ({"head_mixing": "talking-heads", "heads": 2}, ("weights",)),
        ({"head_mixing": "differential", "heads": 2}, ("weights",)),
        ({"head_mixing": "talking-heads", "heads": 2}, ("scaled_scores",)),
        ({"score": "additive"}, ("positioned_q", "positioned_k")),
        ({"score": "kernel:phi=relu"}, ("positioned_q", "positioned_k")),
        ({"heads": 2}, ("head_context", "context")),
        ({"qk_norm": "rms"}, ("normed_k",)),
    ],
    ids=str,
)
def test_results_on_the_way_do_not_give_a_gap_away(choices, blank):
    bare = attncli.Problem(
        embeddings=draws(5, N, 6), positions=list(range(1, N + 1))
    )  # without W, which would hide q and k
    variant = Variant(**choices | ({"position": "rope"} if "score" in choices else {}))
    problem = bare if "score" in choices else problem_for("", variant=variant)
    heads = tuple(range(variant["heads"] or 1))

    sheet = page(problem, variant, blank=blank, precision=9, heads=heads)
    key = page(problem, variant, blank=blank, precision=9, heads=heads, answers=True)

    shown = json.dumps(sheet["sections"], ensure_ascii=False)
    values = [f"{gap['value']:.9f}" for gap in key["gaps"]]
    assert len(values) > 3
    assert [v for v in values if v in shown] == []


def test_a_past_is_not_given_away_by_the_cache(attn, tmp_path):
    past = {"k": draws(1, 1, 1, 2, 3).tolist(), "v": draws(2, 1, 1, 2, 3).tolist()}
    fields = {"q": draws(3, 2, 3).tolist(), "k": draws(4, 2, 3).tolist(), "v": draws(5, 2, 3).tolist(), "past": past}
    (tmp_path / "p.json").write_text(json.dumps(fields))

    for step in "kv":
        words = ["explain", "p.json", "1", "--blank", step, "--json", "--precision", "9"]
        shown = json.dumps(attn(*words).json["sections"])
        for gap in attn(*words, "--answers").json["gaps"]:
            assert f"{gap['value']:.9f}" not in shown


def test_gaps_of_a_batch_and_heads_are_addressed_in_full(attn):
    path = SAMPLES / "journey_causal_batch.json"
    gaps = attn("explain", path, "2", "--at", "batch=1", "--blank", "context", "--json").json["gaps"]

    assert gaps[0] == {"gap": 1, "step": "context", "index": [1, 2, 0]}


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--blank", "wieghts"], 2, "did you mean 'weights'"),
        (["--blank", "output"], 3, "no step 'output'"),
        (["--answers"], 2, "add --blank"),
        (["--only", "weights"], 2, "goes through every step"),
        (["--top", "2"], 2, "goes through every step"),
        (["-f", "csv"], 2, "not csv"),
        (["--at", "query=0:2"], 2, "one query is explained at a time"),
        (["--at", "dim=0"], 3, "has an axis 'dim'"),
        (["--grad", "nothing.npy"], 3, "no file nothing.npy"),
        (["--grad", "zeros"], 2, "--grad takes ones or a file, not 'zeros'"),
        (["--grad", "ones", "--blank", "weights"], 2, "a worksheet goes forwards only"),
        (["--blank", "mask", "--causal"], 2, "nothing to leave blank"),
    ],
)
def test_what_cannot_be_explained_is_refused(attn, words, status, says):
    run = attn("explain", CAT, "cat" if "query=0:2" not in words else "", *words)

    assert (run.status, run.out) == (status, "")
    assert says in run.err


# ── the way back ─────────────────────────────────────────────────────────────────────────────────
def test_gradients_are_those_of_pytorch(attn, tmp_path):
    import torch
    from torch.nn import functional as F

    q, k, v, g = (draws(seed, 5, 3) for seed in range(4))
    np.savez(tmp_path / "p.npz", q=q, k=k, v=v)
    np.save(tmp_path / "g.npy", g)
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    F.scaled_dot_product_attention(*(x[None, None] for x in leaves), is_causal=True).backward(
        torch.tensor(g)[None, None]
    )

    record = attn("explain", "p.npz", "3", "--causal", "--grad", "g.npy", "--json", "--precision", "12").json

    lines = {s["title"]: {x["label"]: x["text"] for x in s["lines"]} for s in record["sections"]}
    for letter, label, row in (("q", "dq", 3), ("k", "dk 2", 2), ("v", "dv 1", 1)):
        printed = [float(x) for x in lines[f"gradient of {letter}"][label].strip("[]").split()]
        np.testing.assert_allclose(printed, leaves["qkv".index(letter)].grad[row], rtol=0, atol=1e-12)


def test_gradients_of_projections_are_those_of_pytorch(attn, tmp_path):
    import torch

    x, w = draws(1, 4, 5), {f"w_{letter}": draws(n, 5, 6) for n, letter in enumerate("qkv", start=2)}
    np.savez(tmp_path / "p.npz", embeddings=x, **{f"parameters.{name}": a for name, a in w.items()})
    leaves = {"x": torch.tensor(x, requires_grad=True)} | {n: torch.tensor(a, requires_grad=True) for n, a in w.items()}
    q, k, v = ((leaves["x"] @ leaves[f"w_{letter}"]).unflatten(-1, (2, 3)).transpose(0, 1) for letter in "qkv")
    torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()

    record = attn("explain", "p.npz", "2", "--heads", "2", "--grad", "ones", "--json", "--precision", "12").json

    lines = {s["title"]: {y["label"]: y["text"] for y in s["lines"]} for s in record["sections"]}
    for name in w:
        printed = [float(y) for y in lines[f"gradient of {name}"]["dW[4]"].strip("[]").split()]
        np.testing.assert_allclose(printed, leaves[name].grad[4], rtol=0, atol=1e-12)
    printed = lines["gradient of the embedding"]["dx"].rpartition("= ")[2].strip("[]").split()
    np.testing.assert_allclose([float(y) for y in printed], leaves["x"].grad[2], rtol=0, atol=1e-12)


def test_a_gradient_of_another_shape_is_refused(attn, tmp_path):
    np.save(tmp_path / "g.npy", draws(1, 2, 4))

    run = attn("explain", CAT, "cat", "--grad", "g.npy")

    assert run.status == 3
    assert "the gradient is (2, 4), and the context (3, 4)" in run.err


# ── formats ──────────────────────────────────────────────────────────────────────────────────────
STRANGE = '[{"token": "<b>[red]x\\u001b[31m", "embedding": [1, 2]}, {"token": "```\\n# y", "embedding": [3, 4]}]'


@pytest.mark.parametrize("form", ["table", "plain", "markdown", "latex", "json"])
def test_tokens_take_no_effect_in_any_format(attn, tmp_path, form):
    (tmp_path / "t.json").write_text(STRANGE)

    run = attn("explain", "t.json", "0", "-f", form)

    assert run.status == 0
    assert "\x1b" not in run.out
    if form == "markdown":
        outside = "".join(
            run.out.split("```text")[0::1][i].split("\n```\n")[-1] for i in range(run.out.count("```text"))
        )
        assert "<b>" not in outside
        assert run.out.count("```") % 2 == 0


@pytest.mark.parametrize("choices", ONE_CHOICE[:: max(1, len(ONE_CHOICE) // 12)], ids=str)
def test_latex_holds_no_symbol_that_plain_latex_lacks(choices):
    variant = Variant(**{"mask": "causal and window:left=1,right=0"} | choices)
    text = page(problem_for(str(choices.get("mask")), variant=variant), variant, query=3, form="latex", grad=2)

    assert set(text) - set(map(chr, range(128))) <= set("“”")
    assert text.count("{") == text.count("}")
    assert text.count(r"\begin") == text.count(r"\end")


def test_latex_of_powers_and_of_wide_vectors(attn, tmp_path):
    np.save(tmp_path / "x.npy", draws(3, 4, 12))

    text = attn("explain", "x.npy", "--full", "--normalizer", "entmax:alpha=1.3", "-f", "latex").out

    assert r"\setcounter{MaxMatrixCols}{12}" in text
    assert "^{3.3333}" in text
    assert "^3" not in text


def test_a_console_without_symbols_reads_products_as_products(monkeypatch):
    text = page(attncli.read(CAT), None, query=1, form="plain")
    board_text = WRITERS["plain"].__globals__["_ascii"](text)

    assert board_text.isascii()
    assert "0*1 + 1*0 + 1*1 + 2*0 = 1" in board_text


PAGE = """\
Attention of query 1 “cat”
self-attention · 3 tokens × 4 dims · q = k = v = x · score dot · scale 0.5 = 1/√4 · mask causal · float64

① q   x
     q   [0 1 1 2]

② k and v   x
     the   [1 0 1 0]
     cat   [0 1 1 2]
     sat   [2 1 0 1]

  – no qk-norm or position

③ scores   q·k
     the   0·1 + 1·0 + 1·1 + 2·0 = 1
     cat   0·0 + 1·1 + 1·1 + 2·2 = 6
     sat   0·2 + 1·1 + 1·0 + 2·1 = 3

④ scaled_scores   s × 0.5 = s / √d_k, d_k = 4
     the   1 × 0.5 = 0.5
     cat   6 × 0.5 = 3.0
     sat   3 × 0.5 = 1.5

  – no mix, softcap, temperature, log-n, position or bias

⑤ masked_scores   s where visible, else −∞   (2 of 3 keys may be seen; their scores stay)
     sat   −∞   causal: 2 > 1

  – no sink

⑥ weights   e^(s − max s) / Σ e^(s − max s)   (1 hidden: weight 0)
     largest   3
     the       e^(0.5 − 3) = e^(-2.5) = 0.0821
     cat       e^(3 − 3)   = e^(0)    = 1.0000
     sum       0.0821 + 1      = 1.0821
     the       0.0821 / 1.0821 = 0.0759
     cat       1 / 1.0821      = 0.9241
     check     0.0759 + 0.9241 = 1.0000

  – largest score 3 · ln Σ e^s 3.0789 · entropy in bits 0.3874 · visible keys 2

  – no dropout or head mixing

⑦ context   Σ weight × value
     the   0.0759 × [1 0 1 0] = [0.0759 0.0000 0.0759 0.0000]
     cat   0.9241 × [0 1 1 2] = [0.0000 0.9241 0.9241 1.8483] †
     sum                      = [0.0759 0.9241 1.0000 1.8483]

  – no output projection

“cat” takes 92 % of its context from itself, 8 % from “the”.
† the printed terms are rounded; the result comes from all digits, so its last digit can differ.
"""
