"""Worksheets that were filled in are marked."""

from __future__ import annotations

import json
import re
import shlex

import jsonschema
import pytest

from tests.helpers import SAMPLES

CAT_SAT = SAMPLES / "cat_sat.json"
SHEET = """\
# Where does cat look?

scores: 2·0 + … = {0}, {1} and {2}; divided by 2

weights | {3} | {4} | {5} |
context = {3} × 1 + {4} × 0 + ⟨6⟩ × 2 = {6}

⟨1⟩ to ⟨3⟩: scaled_scores[1][0:3]
⟨4⟩ to ⟨6⟩: weights[1][0:3]
`⟨7⟩: context[1][0]`
"""


BLANK = [f"⟨{n}⟩____" for n in range(1, 8)]
RIGHT = ["⟨1⟩0.5", "⟨2⟩ 3.00", "⟨3⟩__1.5__", "⟨4⟩0.0629", "⟨5⟩0,7662", "⟨6⟩ 0.17", "⟨7⟩_0.405_"]


def marked(attn, tmp_path, gaps, name="sheet.md", escape=lambda text: text):
    (tmp_path / name).write_text(escape(SHEET.format(*gaps)), encoding="utf-8")
    run = attn("check", SAMPLES / "tokens.csv", "--figures", name, "--json", "--no-identify", "-q")
    assert run.out, run.err
    return run.status, run.json["verdict"], [a["right"] for a in run.json["answers"]]


def test_a_worksheet_is_marked(attn, tmp_path):
    some = [*RIGHT[:4], *BLANK[4:]]
    off = ["⟨1⟩0.6", *RIGHT[1:6], "⟨7⟩0.406"]

    assert marked(attn, tmp_path, RIGHT) == (0, "right", [True] * 7)
    assert marked(attn, tmp_path, BLANK) == (1, "unanswered", [None] * 7)
    assert marked(attn, tmp_path, some) == (1, "unanswered", [True] * 4 + [None] * 3)
    assert marked(attn, tmp_path, off) == (1, "wrong", [False, *[True] * 5, False])


def test_a_worksheet_in_ascii_and_as_markdown_escapes_it(attn, tmp_path):
    def ascii(text):
        return text.replace("⟨", "<").replace("⟩", ">").replace("×", "x").replace("·", ".").replace("…", "...")

    def markdown(text):
        return ascii(text).replace("_", "\\_").replace("<", "&lt;").replace(">", "&gt;")

    assert marked(attn, tmp_path, RIGHT, "sheet.txt", ascii) == (0, "right", [True] * 7)
    assert marked(attn, tmp_path, RIGHT, "sheet.md", markdown) == (0, "right", [True] * 7)
    assert marked(attn, tmp_path, BLANK, "sheet.md", markdown) == (1, "unanswered", [None] * 7)


def test_each_answer_is_right_by_its_own_digits(attn, tmp_path):
    exact = [0.5, 3.0, 1.5, 0.0628900132, 0.7661572066, 0.1709527802, 0.4047955737]
    for digits in range(1, 7):
        rounded = [f"⟨{n}⟩{x:.{digits}f}" for n, x in enumerate(exact, 1)]
        off = [f"⟨{n}⟩{x + 2 * 10**-digits:.{digits}f}" for n, x in enumerate(exact, 1)]

        assert marked(attn, tmp_path, rounded)[2] == [True] * 7
        assert marked(attn, tmp_path, off)[2] == [False] * 7


def test_a_sheet_shows_what_was_written_and_what_is_right(attn, tmp_path):
    (tmp_path / "sheet.md").write_text(SHEET.format("⟨1⟩0.6", *RIGHT[1:4], *BLANK[4:]), encoding="utf-8")

    run = attn("check", SAMPLES / "tokens.csv", "--figures", "sheet.md", "--no-identify", "-q")

    rows = [line.split() for line in run.out.splitlines() if line.startswith("⟨")]
    assert rows[0] == ["⟨1⟩", "scaled_scores,", "cat", "→", "the", "0.6", "0.50", "✗"]
    assert rows[1][-2:] == ["3.00", "✓"]
    assert rows[4][-3:] == ["____", "0.7662", "–"]
    assert run.out.splitlines()[-1] == "wrong: 4 of 7 answered, 3 right, 3 left open"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("⟨1⟩0.5\n", "no-figures"),
        ("⟨1⟩0.5\n⟨1⟩: nothing[0][0]\n", "absent-step"),
        ("⟨1⟩0.5\n⟨1⟩: weights[0]\n", "wrong-place"),
        ("⟨1⟩0.5\n⟨1⟩: weights[0][9]\n", "out-of-range"),
        ("⟨1⟩0.5\n⟨1⟩ to ⟨3⟩: weights[0][0:2]\n", "bad-gap"),
        ("⟨1⟩0.5\n⟨1⟩: weights[0:1][0]\n", "bad-gap"),
        ("⟨1⟩__many__\n⟨1⟩: weights[0][0]\n", "not-a-number"),
        ("⟨1⟩0.5 ⟨1⟩0.6\n⟨1⟩: weights[0][0]\n", "two-answers"),
        ("⟨1⟩nan ⟨1⟩0.6\n⟨1⟩: weights[0][0]\n", "two-answers"),
        ("⟨1⟩0.6 ⟨1⟩nan\n⟨1⟩: weights[0][0]\n", "two-answers"),
        ("⟨2⟩0.5\n⟨1⟩: weights[0][0]\n", "unknown-gap"),
    ],
)
def test_sheets_that_are_refused(attn, tmp_path, text, code):
    (tmp_path / "sheet.md").write_text(text, encoding="utf-8")

    run = attn("check", CAT_SAT, "--figures", "sheet.md")

    assert (run.status, run.out) == (3, "")
    assert f"error[{code}]" in run.err


@pytest.mark.parametrize("format", ["markdown", "plain"])
def test_a_worksheet_of_explain_is_marked(attn, tmp_path, format):
    """Written by attn, filled in by a script: right digits are right, wrong ones wrong, open gaps open."""
    problem = [SAMPLES / "journey_two_heads.json", "--causal"]
    sheet = attn("explain", problem[0], "2", "--causal", "--blank", "weights,context", "--format", format).out
    (tmp_path / "open.md").write_text(sheet, encoding="utf-8")
    words = [*problem, "--json", "-q", "--no-identify", "--figures"]
    answers = attn("check", *words, "open.md").json["answers"]
    assert len(answers) >= 4
    assert {a["right"] for a in answers} == {None}

    filled = sheet
    for a in answers:
        value = a["reference"] + (0.02 if a["gap"] == 2 else 0)
        assert f"⟨{a['gap']}⟩____" in filled
        filled = filled.replace(f"⟨{a['gap']}⟩____", f"⟨{a['gap']}⟩{value:.4f}", 1) if a["gap"] != 3 else filled
    (tmp_path / "filled.md").write_text(filled, encoding="utf-8")
    marked = attn("check", *words, "filled.md")

    assert marked.status == 1
    assert {a["gap"]: a["right"] for a in marked.json["answers"] if a["right"] is not True} == {2: False, 3: None}


def test_a_verdict_goes_to_a_file(attn, tmp_path):
    assert attn("check", CAT_SAT, "-o", "verdict.json").out == ""
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "right"
    assert "error[output-exists]" in attn("check", CAT_SAT, "-o", "verdict.json").err
    assert attn("check", CAT_SAT, "-o", "verdict.md").status == 0
    assert "**right" in (tmp_path / "verdict.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("answer", ["0.33", "nan"])
def test_an_answer_may_be_written_twice(attn, tmp_path, answer):
    (tmp_path / "sheet.md").write_text(f"⟨1⟩{answer} and ⟨1⟩{answer}\n⟨1⟩: weights[0][0]\n", encoding="utf-8")

    assert attn("check", CAT_SAT, "--figures", "sheet.md", "--no-identify").status in (0, 1)


NEARLY = [*RIGHT[:5], "⟨6⟩ 0.1712", "⟨7⟩_0.4051_"]  # two units off in the fourth digit, and three


def test_an_answer_that_rounding_explains_is_named_with_what_accepts_it(attn, tmp_path):
    (tmp_path / "sheet.md").write_text(SHEET.format(*NEARLY), encoding="utf-8")
    words = ["check", SAMPLES / "tokens.csv", "--figures", "sheet.md", "-q"]

    run = attn(*words)

    assert run.status == 1
    remarks = [line for line in run.out.splitlines() if line.startswith("⟨") and ": off by " in line]
    assert [line[: line.index(" after")] for line in remarks] == [
        "⟨6⟩: off by 2 in the fourth digit",
        "⟨7⟩: off by 3 in the fourth digit",
    ]
    assert all(line.endswith("--atol 0.0005 accepts it") for line in remarks)
    assert "max |Δ|" not in run.out  # nothing is searched where rounding explains all
    accepted = attn(*words, "--atol", "0.0005", "--json").json
    assert [answer["right"] for answer in accepted["answers"]] == [
        True
    ] * 7  # also ⟨1⟩ and ⟨6⟩, written with fewer digits
    assert attn(*words, "--atol", "0.0001").status == 1


def test_an_answer_that_is_far_off_is_not_put_down_to_rounding(attn, tmp_path):
    (tmp_path / "sheet.md").write_text(SHEET.format("⟨1⟩0.6", "⟨2⟩3.02", *RIGHT[2:6], "⟨7⟩0.4063"), encoding="utf-8")

    run = attn("check", SAMPLES / "tokens.csv", "--figures", "sheet.md", "-q", "--no-identify")

    assert run.status == 1
    assert ": off by " not in run.out


@pytest.mark.parametrize("form", ["table", "plain", "markdown", "json"])
@pytest.mark.parametrize(
    "gaps", [NEARLY, BLANK, ["⟨1⟩0.6", *BLANK[1:3], "⟨4⟩0.4", *RIGHT[4:]]], ids=["near", "open", "mixed"]
)
def test_marks_alone_hold_no_figure_of_the_key(attn, tmp_path, form, gaps):
    exact = {1: 0.5, 2: 3.0, 3: 1.5, 4: 0.0628900132, 5: 0.7661572066, 6: 0.1709527802, 7: 0.4047955737}
    sheet = SHEET.format(*gaps)
    (tmp_path / "sheet.md").write_text(sheet, encoding="utf-8")
    words = ["check", SAMPLES / "tokens.csv", "--figures", "sheet.md", "-q"]
    told = attn(*words, "--json", "--no-identify").json

    run = attn(*words, "--no-reveal", "-f", form)

    assert run.status == (0 if told["verdict"] == "right" else 1)
    shown = re.findall(r"\d+\.\d+", run.out.replace(",", "."))
    written = {answer["written"].replace(",", ".") for answer in told["answers"]}
    figures = [text for text in shown if text not in written | {"0.5"}]  # 0.5 is the scale, which the head names
    assert [text for text in figures if any(abs(float(text) - x) < 0.01 for x in exact.values())] == []
    assert "off by" not in run.out
    if form == "json":
        assert [a["right"] for a in run.json["answers"]] == [a["right"] for a in told["answers"]]
        assert "reference" not in run.out
        jsonschema.validate(run.json, attn("schema", "check").json)


def test_marks_alone_of_other_figures_and_of_a_folder(attn, tmp_path):
    (tmp_path / "mine.json").write_text(
        '{"weights": [[0.4223, 0.1554, 0.4223], [0.0629, 0.7662, 0.1710], [0.1, 0.2, 0.7]]}'
    )
    words = ["check", CAT_SAT, "--figures", "mine.json", "--no-reveal"]

    assert [line.split() for line in attn(*words).out.splitlines() if line.startswith("weights ")] == [
        ["weights", "3×3", "✗", "3/9"],
        ["weights", "is", "the", "first", "step", "that", "is", "wrong,", "3", "of", "9", "figures"],
    ]
    assert "0.1643" not in attn(*words, "-f", "markdown").out
    assert set(attn(*words, "--json").json["steps"][0]) == {"step", "axes", "shape", "of", "wrong", "right"}
    assert "--identify" in attn(*words, "--identify").err
    folder = attn("check", SAMPLES, "--no-reveal", "--json").json
    assert all(problem["revealed"] is False for problem in folder["problems"])
    jsonschema.validate(folder, attn("schema", "check").json)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["markdown", "plain"])
def test_the_last_line_of_a_sheet_marks_it(attn, tmp_path, format):
    """Whatever it was made with: the seed that was drawn, how the file is read, a mask whose spelling has blanks."""
    (tmp_path / "n.csv").write_text("7,1,0\n8,0,1\n9,2,1\n")
    options = "--token-column 0 --projection randn:dim=2 --causal --window 1,0 --blank weights --format"
    sheet, key = (f"{name}.{'md' if format == 'markdown' else 'txt'}" for name in ("sheet", "key"))
    attn("explain", "n.csv", *options.split(), format, "-o", sheet, "-q")
    command = next(line for line in (tmp_path / sheet).read_text().splitlines() if line.startswith("attn check"))
    attn("explain", "n.csv", *options.split(), format, "--seed", command.split()[-1], "--answers", "-o", key, "-q")

    words = shlex.split(command.replace(sheet, key))[1:]
    marked, otherwise = attn(*words, "--json"), attn(*words[:-6], "--json", "--no-identify")

    assert words[4:-6] == ["--figures", key]
    assert (marked.status, marked.json["warnings"]) == (0, [])
    [warning] = otherwise.json["warnings"]
    made = shlex.join(words[-6:])
    assert warning == (
        f"other-options: the worksheet was made with {made}, but is marked here without options; "
        "its last line is the command that marks it"
    )
    assert otherwise.status == 1


def test_a_sheet_that_other_options_spell_alike_is_marked_without_a_word(attn, tmp_path):
    attn("explain", CAT_SAT, "cat", "--causal", "--blank", "weights", "--answers", "-o", "key.txt", "-q")

    for options in (["--causal"], ["--variant", "causal"], ["--mask", "causal", "--scale", "auto"]):
        done = attn("check", CAT_SAT, "--figures", "key.txt", *options, "--json")
        assert (done.status, done.json["warnings"]) == (0, [])


def test_a_range_of_gaps_and_of_figures_that_differ_in_length_are_counted(attn, tmp_path):
    (tmp_path / "p.json").write_text('{"embeddings": [[1, 0], [0, 1], [1, 1]]}')
    (tmp_path / "s.md").write_text("⟨2⟩0.5\n\n⟨2⟩ to ⟨4⟩: weights[0][1:3]\n")

    done = attn("check", "p.json", "--figures", "s.md")

    assert done.status == 3
    assert done.err.startswith("error[bad-gap]: ⟨2⟩ to ⟨4⟩: weights[0][1:3]: 3 gaps, 2 figures\n")
