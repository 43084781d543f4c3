"""Arguments that nobody means: numbers of thousands of digits, digits of other scripts, names that no file can have."""

from __future__ import annotations

import json

import pytest

from tests.helpers import SAMPLES

pytestmark = pytest.mark.slow

TOKENS = str(SAMPLES / "tokens.csv")
HELLO = str(SAMPLES / "hello_shiny_sun.json")
DIGITS = "1" * 5000


@pytest.mark.parametrize("number", [DIGITS, f"-{DIGITS}", "0" * 5000 + "9", "²", "٣", "1_0", "--1", "1e5000", "\udcff"])
@pytest.mark.parametrize(
    "words",
    [
        ["compute", TOKENS, "--at", "query={}"],
        ["compute", TOKENS, "--at", "key={}:"],
        ["compute", TOKENS, "--at", "head={}"],
        ["compute", TOKENS, "--top", "{}x"],
        ["compute", TOKENS, "--precision", "{}"],
        ["compute", TOKENS, "--seed", "{}."],
        ["compute", TOKENS, "--heads", "{}"],
        ["compute", TOKENS, "--token-column", "{}"],
        ["compute", TOKENS, "--mask", "window:left={}.5"],
        ["compute", TOKENS, "--window", "{},x"],
        ["compute", TOKENS, "--temperature", "{}x"],
        ["compute", TOKENS, "--device", "cuda:{}"],
        ["compute", TOKENS, "--only", "scores_{}"],
        ["explain", TOKENS, "{}"],
        ["batch", TOKENS, "-o", "out", "--max-failures", "{}%", "--dry-run"],
        ["batch", TOKENS, "-o", "out", "-j", "{}x"],
        ["check", TOKENS, "--rtol", "{}x"],
    ],
    ids=lambda words: words[-1] if isinstance(words, list) else "",
)
def test_a_number_that_is_none_or_too_long_is_refused_in_short(attn, words, number):
    done = attn(*(word.format(number) for word in words))

    is_meant = number.startswith("0") or ":" in words[-1]  # 9 with many zeros; a range may go beyond its axis
    assert done.status in ((0, 2, 3) if is_meant else (2, 3)), done.err
    assert len(done.err) < 2000
    assert not done.out or done.status == 0


@pytest.mark.parametrize("share", [DIGITS, "0" * 5000 + "1"])
def test_as_many_failures_as_anyone_likes_may_be_allowed(attn, share):
    assert attn("batch", TOKENS, "-o", "out", "--max-failures", share, "-q").status == 0


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("x" * 300 + ".json", 4, "File name too long"),
        ("x" * 300 + "/r.json", 4, "File name too long"),
        ("folder", 2, "folder is a folder"),
        ("folder/", 2, "folder is a folder"),
        ("nope/r.json", 4, "there is no folder nope"),
        ("there.json/r.json", 4, "there is no folder there.json"),
        ("there.json", 2, "there.json exists"),
        ("circle.json", 4, "circle.json cannot be written"),
        ("dangling.json", 4, "there is no folder"),
        ("/dev/full", 4, "/dev/full cannot be written: No space left on device"),
        ("/proc/r.json", 4, "/proc/r.json cannot be written"),
        ("/proc/version", 2, "/proc/version exists"),
        ("nul\0.json", 4, "cannot be written: embedded null byte"),
        ("", 2, "is a folder"),
    ],
)
@pytest.mark.parametrize(
    "command", [["compute", HELLO], ["explain", HELLO], ["check", "expects.json"]], ids=lambda c: c[0]
)
def test_an_output_that_cannot_be_is_refused(attn, tmp_path, command, path, status, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.json").write_text("there")
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "dangling.json").symlink_to("nowhere/r.json")
    (tmp_path / "expects.json").write_text(json.dumps({"embeddings": [[1]], "expected": {"weights": [[1]]}}))
    before = {str(p) for p in tmp_path.rglob("*")}

    done = attn(*command, "-o", path, "--format", "json")

    assert (done.status, done.out) == (status, ""), done.err
    assert message in done.err
    assert {str(p) for p in tmp_path.rglob("*")} == before
    assert (tmp_path / "there.json").read_text() == "there"


@pytest.mark.parametrize("path", ["x" * 300, "x" * 300 + "/y", "nul\0"])
def test_a_folder_of_results_that_cannot_be_is_refused(attn, path):
    done = attn("batch", TOKENS, "-o", path)

    assert done.status == 4, done.err
    assert "error[cannot-write]" in done.err


@pytest.mark.parametrize(
    "name", ["", " ", "@", "@ ", "://", "*", "[", "nul\0.csv", "x" * 300, "@" + "x" * 300, "circle", "~"]
)
@pytest.mark.parametrize(
    "words",
    [
        ["batch", "-o", "out"],
        ["compute"],
        ["explain"],
        ["check"],
        ["check", HELLO, "--figures"],
        ["explain", HELLO, "0", "--grad"],
    ],
)
def test_an_input_that_is_none_is_refused(attn, tmp_path, words, name):
    (tmp_path / "circle").symlink_to("circle")

    done = attn(*words, name)

    assert done.status in ((1, 2, 3) if words[0] == "batch" else (2, 3)), done.err  # 1: an input of a batch failed
    assert done.err.startswith(("error[", "failed["))


def test_a_long_name_is_written(attn, tmp_path):
    name = "é" * 120 + ".json"

    assert attn("compute", HELLO, "-o", name).status == 0
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("request_", ["3", "nope=1", "head=a", "batch=x:2", "query=", "=1", ""])
@pytest.mark.parametrize("command", ["compute", "batch"])
def test_a_selection_that_no_result_has_stops_before_the_first_answer(attn, tmp_path, command, request_):
    (tmp_path / "lines.ndjson").write_text("{broken\n[[1]]\n")
    words = ["batch", "lines.ndjson", "-o", "-"] if command == "batch" else ["compute", "lines.ndjson"]

    done = attn(*words, "--at", request_)

    assert (done.status, done.out) == (2, "")


def test_a_line_that_contradicts_the_command_line_costs_that_line(attn, tmp_path):
    variants = ({}, {"normalizer": "sigmoid"}, {"normalizer": "softmax"})
    lines = [json.dumps({"embeddings": [[1, 2]], "variant": variant}) for variant in variants]
    (tmp_path / "lines.ndjson").write_text("\n".join(lines) + "\n")

    done = attn("compute", "lines.ndjson", "--sink", "zero")

    assert done.status == 1
    codes = [json.loads(line).get("error", {}).get("code") for line in done.out.splitlines()]
    assert codes == [None, "parts-disagree", None]


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({"embeddings": [[2]]}, "1 token × 1 dim"),
        ({"embeddings": [[2, 1]]}, "1 token × 2 dims"),
        ({"embeddings": [[2], [1]]}, "2 tokens × 1 dim"),
        ({"q": [[1]], "k": [[1], [2], [3]]}, "1 query × 3 keys"),
        ({"q": [[1], [2]], "k": [[1]]}, "2 queries × 1 key"),
    ],
)
def test_one_is_singular(attn, tmp_path, fields, summary):
    (tmp_path / "x.json").write_text(json.dumps(fields))

    assert f" · {summary} · " in attn("compute", "x.json", "--only", "scores").out


def test_a_name_that_is_no_utf_8_is_said_in_json(attn, tmp_path):
    name = "x\udcff.json"
    (tmp_path / name).write_text(json.dumps({"embeddings": [[1]], "expected": {"weights": [[1]]}}))

    verdict = attn("check", name, "--json")
    missing = attn("compute", "nope\udcff.json", "--error-format", "json")

    assert verdict.status == 0
    assert json.loads(verdict.out)["input"] == name
    assert "x\\udcff.json" in verdict.out
    assert json.loads(missing.err)["file"] == "nope\udcff.json"
    assert missing.err.isascii()
