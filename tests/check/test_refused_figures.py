"""What is refused in figures, by kind: keys that stand twice, fractions for whole numbers, results that are none, odd numbers."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.cli import main
from attncli.cli.environment import Environment
from attncli.errors import InputError
from attncli.readers.results import read_result
from tests.costs import Cost, measure_cost
from tests.helpers import draw_normal

PROBLEM = {"tokens": ["a", "b"], "embeddings": [[1, 0], [0, 1]]}
WEIGHTS = [[0.6698, 0.3302], [0.3302, 0.6698]]
RIGHT = json.dumps(WEIGHTS)


@pytest.fixture
def checked(attn, tmp_path):
    """Check one file of figures: its name, its content, options → Run."""
    (tmp_path / "p.json").write_text(json.dumps(PROBLEM))

    def run(name, content, *options, problem="p.json"):
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return attn("check", problem, "--figures", name, "--no-identify", *options)

    return run


# ── what stands twice ────────────────────────────────────────────────────────────────────────────
def safetensors(header: str, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + data


def archive(**members) -> bytes:
    file = io.BytesIO()
    np.savez(file, **members)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", f'{{"weights": [[9, 9], [9, 9]], "weights": {RIGHT}}}'),
        ("r.json", f'{{"w\\u0065ights": [[9, 9], [9, 9]], "weights": {RIGHT}}}'),
        ("r.json", f'{{"weights": {{"values": [[9, 9], [9, 9]], "values": {RIGHT}}}}}'),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "atol": 9, "atol": 0.1}}}}'),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "rows": [0, 0]}}}}'),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "rows": [0, -2]}}}}'),
        ("r.json", f'{{"expected": {{"weights": [[9, 9], [9, 9]], "weights": {RIGHT}}}, "embeddings": [[1]]}}'),
        ("r.ndjson", f'{{"weights": [[9, 9], [9, 9]], "weights": {RIGHT}}}\n'),
        ("r.json", f'{{"weights": [[9, 9], [9, 9]], "about": "{"x" * 2_000_000}", "weights": {RIGHT}}}'),
        ("r.csv", "step,query,key,value\nweights,0,0,9\nweights,0,0,0.6698\n"),
        ("r.csv", "step,query,query,key,value\nweights,0,0,0,0.6698\n"),
        ("r.csv", "step,query,key,value\nweights,0,0,0.3302\nweights,0,1,0.33\nweights,00,01,0.33\n"),
        ("r.npz", archive(weights=np.array(WEIGHTS), attn=np.array('{"weights": [[9, 9], [9, 9]]}'))),
        ("r.md", "⟨1⟩0.6698\n\n⟨1⟩: weights[0][1]\n⟨1⟩: weights[0][0]\n"),
    ],
)  # fmt: skip
def test_figures_that_stand_twice_are_refused(checked, name, content):
    run = checked(name, content)

    assert (run.status, "error[two-sources]" in run.err) == (3, True), run.err


@pytest.mark.parametrize("place", ["$", "$.axes", "$.variant"])
def test_a_key_that_stands_twice_in_a_result_is_refused(attn, tmp_path, place):
    (tmp_path / "p.json").write_text(json.dumps(PROBLEM))
    attn("compute", "p.json", "--only", "weights", "-o", "r.json")
    text = (tmp_path / "r.json").read_text()
    key = {"$": '"weights":[', "$.axes": '"weights":["query"', "$.variant": '"score":"dot"'}[place]
    twice = {"$": '"weights":[[9,9],[9,9]],', "$.axes": '"weights":["key"],', "$.variant": '"score":"general",'}[place]
    (tmp_path / "twice.json").write_text(text[: text.rindex(key)] + twice + text[text.rindex(key) :])

    with pytest.raises(InputError, match="occurs twice"):
        read_result(tmp_path / "twice.json")
    assert attn("check", "p.json", "--figures", "twice.json").status == 3


# ── whole numbers and booleans ───────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("step", ["visible_keys", "top_keys", "mask"])
@pytest.mark.parametrize("number", ["2.9", "0.5", "nan", "1e300", "-1e300", "-9223372036854775808", "9007199254740994", "inf", "1.0000001"])  # fmt: skip
def test_what_is_no_whole_number_is_not_made_one(checked, step, number):
    tidy = "".join(f"{step},{i},{j},{number}\n" for i in range(2) for j in range(2 if step != "visible_keys" else 1))
    axis = {"visible_keys": "head", "top_keys": "rank", "mask": "key"}[step]
    array = np.full((2,) if step == "visible_keys" else (2, 2), float(number))
    matrix = "\n".join([number] * 2) if step == "visible_keys" else f"{number},{number}\n{number},{number}\n"
    runs = [
        checked("r.csv", f"step,query,{axis},value\n{tidy}", "--causal"),
        checked("m.csv", matrix, "--step", step, "--causal"),
        checked("r.npz", archive(**{step: array}), "--causal"),
    ]
    if number not in ("nan", "inf"):
        runs.append(checked("r.json", json.dumps({step: array.tolist()}), "--causal"))

    for run in runs:
        assert run.status in (1, 3)
        assert "right:" not in run.out
        assert "Warning" not in run.err
        assert "absent-step" not in run.err
    if not number.startswith("-9") and number != "9007199254740994":
        assert [run.status for run in runs] == [3] * len(runs)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.json", '{"weights": [[true, false], [false, true]]}', "where numbers should be"),
        ("r.json", '{"visible_keys": [true, true]}', "where whole numbers should be"),
        ("r.csv", "step,query,value\nvisible_keys,0,true\nvisible_keys,1,true\n", "where whole numbers should be"),
        ("r.csv", "step,query,key,value\nweights,0,0,true\nweights,0,1,0.5\n", "it mixes true and false with numbers"),
        ("r.json", '{"mask": [[0.5, 1], [1, 1]]}', "mask has 0.5 where true or false should be"),
        ("r.json", '{"mask": [[true, 3], [true, true]]}', "mask holds 3, but a mask must hold booleans"),
        ("r.json", "[true, 3, 3]", "figures holds true where a number should be\n --> r.json at $.figures[0]"),
        ("r.json", '{"weights": [[true, 0.5], [0.5, 0.5]]}', "weights holds true where a number should be"),
        (
            "r.json",
            '{"expected": {"weights": [[true, 0.5], [0.5, 0.5]]}}',
            "weights.values holds true where a number should be",
        ),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "decimals": 2.5}}}}', "decimals of weights is 2.5"),
    ],
)
def test_booleans_and_numbers_do_not_stand_for_each_other(checked, name, content, said):
    run = checked(name, content)

    assert (run.status, said in run.err) == (3, True), run.err


def test_whole_numbers_in_any_spelling_are_right(checked):
    assert checked("r.json", '{"visible_keys": [1, 2], "mask": [[1, 0], [1, 1]]}', "--causal").status == 0
    assert checked("r.npz", archive(visible_keys=np.array([2.0, 2.0]), scores=np.array([[1, 0], [0, 1]]))).status == 0
    assert checked("r.csv", "step,query,value\nvisible_keys,0,2.0\nvisible_keys,1,2\n").status == 0
    assert (
        checked(
            "r.json", '{"visible_keys": [2, 2.0], "top_keys": [[0.0, 1], [1.0, 0e0]], "q": [[1, 0.0], [0, 1.0]]}'
        ).status
        == 0
    )


def test_a_fraction_in_a_gap_for_a_whole_number_is_wrong(checked):
    sheet = "⟨1⟩{}\n\n⟨1⟩: visible_keys[0]\n"

    assert checked("r.md", sheet.format("2")).status == 0
    for answer in ("2.9", "1.9", "nan", "1e300", "0e9"):
        run = checked("r.md", sheet.format(answer))
        assert (run.status, "wrong: 1 of 1 answered, 0 right" in run.out) == (1, True)


# ── results ──────────────────────────────────────────────────────────────────────────────────────
def odd_results():
    """A result with each of its fields missing, or of another type: name and content."""
    result = attncli.attend(attncli.Problem(**PROBLEM), keep=["weights", "visible_keys"])
    from attncli.output_formats import RenderOptions
    from attncli.writers.json import write_json

    record = json.loads(write_json(result, RenderOptions()))
    odd = (None, True, 7, 2.5, "x", [], [[]], {}, [None], ["x"], {"weights": None}, {"weights": ["x"]}, {"query": [10**6]}, {"query": [10**30]})  # fmt: skip
    for name in record:
        yield f"without {name}", {key: value for key, value in record.items() if key != name}
        for value in odd:
            yield f"{name} {value!r}", {**record, name: value}
    for group in ("axes", "formulas"):
        for name in record[group]:
            less = copy.deepcopy(record)
            del less[group][name]
            yield f"{group} without {name}", less
    yield "axes exchanged", {**record, "axes": {**record["axes"], "weights": ["key", "query"]}}
    yield "axes twice", {**record, "axes": {**record["axes"], "weights": ["query", "query"]}}
    yield "dtype", {**record, "dtype": "float8"}


@pytest.mark.slow
@pytest.mark.parametrize("problem", [{}, {"variant": {"heads": 1}}, {"embeddings": [[1, 0], [0, 1], [1, 1]], "tokens": ["a", "b", "c"]}])  # fmt: skip
def test_a_result_with_a_field_missing_or_of_another_type_ends_in_a_verdict_or_an_error(checked, tmp_path, problem):
    (tmp_path / "q.json").write_text(json.dumps({**PROBLEM, **problem}))
    refused = 0

    for name, record in odd_results():
        run = checked("r.json", json.dumps(record), problem="q.json")
        assert run.status in (0, 1, 3), (name, run.err)
        assert (run.status == 3) == run.err.startswith("error["), name
        refused += run.status == 3

    assert refused > 100


def test_a_result_of_another_size_is_refused_with_both_shapes(checked, attn, tmp_path):
    (tmp_path / "two.json").write_text(json.dumps(PROBLEM))
    attn("compute", "two.json", "--only", "weights", "-o", "r.json")
    for heads in (1, 2):
        problem = {"embeddings": [[1, 0], [0, 1], [1, 1]], "variant": {"heads": heads}}
        (tmp_path / "q.json").write_text(json.dumps(problem))

        run = checked("r.json", (tmp_path / "r.json").read_bytes(), problem="q.json")

        assert run.status == 3
        assert f"are (query 2, key 2), but should be (head {heads}, query 3, key 3)" in run.err


def test_a_result_without_heads_is_no_claim_about_several(checked, attn, tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"embeddings": [[1, 1], [1, 1]]}))
    (tmp_path / "two.json").write_text(json.dumps({"embeddings": [[1, 1], [1, 1]], "variant": {"heads": 2}}))
    attn("compute", "one.json", "--only", "weights", "-o", "r.json")

    assert checked("r.json", (tmp_path / "r.json").read_bytes(), problem="two.json").status == 3


# ── parsers ──────────────────────────────────────────────────────────────────────────────────────
class OddError(Exception):
    """Nothing that a parser says it raises."""


@pytest.mark.parametrize(
    ("name", "content", "parser"),
    [
        ("r.json", '{"weights": [[1]]}', "json.loads"),
        ("r.csv", "1,2\n", "csv.reader"),
        ("r.npz", archive(weights=np.eye(2)), "attncli.readers.npz.read_archive"),
        ("r.npy", b"\x93NUMPY", "attncli.readers.npz.read_npy_array"),
        ("r.safetensors", b"{}", "attncli.readers.safetensors.read_tensors"),
        ("r.json", '{"schema": "attn.result/1"}', "msgspec.json.decode"),
        ("r.json", '{"schema": "attn.result/1", "dtype": "float64"}', "msgspec.convert"),
    ],
)
def test_whatever_a_parser_raises_is_the_files_error(checked, tmp_path, monkeypatch, name, content, parser):
    class Reader:
        line_num = 0

        def __init__(self, *_, **__): ...

        def __iter__(self):
            raise OddError("odd")

    def fail(*_, **__):
        raise OddError("odd")

    (tmp_path / "p.csv").write_text("a,1,0\nb,0,1\n")
    problem = "p.json" if parser == "csv.reader" else "p.csv"
    checked(name, content, problem=problem)  # everything is imported
    monkeypatch.setattr(parser, Reader if parser == "csv.reader" else fail)
    run = checked(name, content, problem=problem)

    assert (run.status, "odd" in run.err) == (3, True), run.err


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("r.csv", "a,0.6698,0.3302\rb,0.3302,0.6698\r", 0),
        ("r.csv", "a,0.6698,0.3302\r\nb,0.3302,0.6698\r\n", 0),
        ("r.csv", '"a",0.6698,0.3302\nb,0.3302,"0.6698\n', 3),
        ("r.csv", "a" * 140_000 + ",0.5,0.5\nb,0.5,0.5\n", 3),
        ("r.csv", "0." + "3" * 140_000 + ",0.5\n0.5,0.5\n", 1),
        ("r.json", '{"weights": [[1e-99999999999999999999, 0.3], [0.3, 0.7]]}', 1),
        ("r.json", f'{{"weights": [[1e-{"9" * 5000}, 0.3], [0.3, 0.7]]}}', 1),
        ("r.json", f'{{"weights": [[{"1" * 400}, 0.3], [0.3, 0.7]]}}', 3),
        ("r.json", f'{{"weights": [[{"1" * 5000}, 0.3], [0.3, 0.7]]}}', 3),
        ("r.json", '{"weights": [[1e999, 0.3], [0.3, 0.7]]}', 3),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "rows": [{"1" * 5000}]}}}}', 3),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "decimals": {"1" * 300}}}}}', 3),
        ("r.json", f'{{"weights": {{"values": {RIGHT}, "decimals": 1e300}}}}', 3),
        ("r.json", '{"weights": ' + "[" * 900 + "]" * 900 + "}", 3),
        ("r.json", '{"weights": ' + "[" * 100_000 + "]" * 100_000 + "}", 3),
        ("r.csv", f"step,query,key,value\nweights,{'1' * 5000},0,0.5\n", 3),
        ("r.csv", "step,query,key,value\nweights,²,0,0.5\n", 3),
        ("r.csv", "step,query,key,value\nweights,0,0,1e999\n", 3),
        ("r.csv", f"step,query,key,value\nweights,0,0,1e-{'9' * 5000}\n", 1),
        ("r.md", f"<{'1' * 5000}>0.5\n\n<1>: weights[0][0]\n", 3),
        ("r.md", f"<1>0.5\n\n<1>: weights[0][{'1' * 5000}]\n", 3),
        ("r.md", f"<1>0.5\n\n<{'1' * 5000}>: weights[0][0]\n", 3),
        ("r.md", f"<1>1e-{'9' * 5000}\n\n<1>: weights[0][0]\n", 1),
        ("r.md", "<1>1e999\n\n<1>: weights[0][0]\n", 3),
        ("r.md", "<1>0.5\n\n<1> to <1000000000>: weights[1][0:1000000000]\n", 3),
    ],
)  # fmt: skip
def test_odd_numbers_and_lines_end_in_a_verdict_or_an_error(checked, name, content, status):
    run = checked(name, content, *(["--step", "weights"] if content.startswith(("a", '"a', "0.3")) else []))

    assert run.status == status, run.err[:500]
    assert len(run.out + run.err) < 4000


def test_any_cut_of_an_archive_is_an_error(checked):
    whole = archive(weights=np.array(WEIGHTS), context=np.array(WEIGHTS))

    for first, last in np.random.default_rng(3).integers(0, len(whole), (40, 2)):
        run = checked("r.npz", whole[: min(first, last)] + whole[max(first, last) :])
        assert run.status in ((0, 1, 3) if abs(first - last) < 30 else (3,)), run.err


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────
LARGE = {
    "ones.json": '{"weights": [' + "1," * 450_000 + "1]}",
    "tens.json": '{"weights": [' + "10," * 300_000 + "1]}",
    "keys.json": "{" + ",".join(f'"k{i}": 1' for i in range(80_000)) + "}",
    "pairs.json": '{"weights": [' + "[1]," * 240_000 + "[1]]}",
    "deep.json": '{"weights": [' + "[[[1]]]," * 120_000 + "[[[1]]]]}",
    "result.json": '{"schema": "attn.result/1", ' + ",".join(f'"k{i}": 1' for i in range(70_000)) + "}",
    "column.csv": "1\n" * 480_000,
    "names.csv": "token," + ",".join(f"t{i}" for i in range(100_000)) + "\na," + ",".join("1" * 100_000) + "\n",
    "ones.csv": "1," * 450_000 + "1\n",
    "rows.csv": "a,1\n" * 240_000,
    "tidy.csv": "step,value\n" + "mask,1\n" * 140_000,
    "header.csv": "token," + ",".join(f"t{i % 7}" for i in range(200_000)) + "\n",
    "labels.csv": "token,a\n" + "".join(f"{i},1\n" for i in range(110_000)),
    "gaps.md": "<1>" * 300_000 + "\n<1>: weights[0][0]\n",
    "stars.md": "<1>" + "*" * 400_000 + "_" * 400_000 + "x\n<1>: weights[0][0]\n",
    "legend.md": "".join(f"<1> to <60000>: weights[0][0:{60000}]\n" for _ in range(20_000)),
    "digits.csv": "9" * 900_000 + "\n",
}


def check_quietly(folder: str, figures: str) -> None:
    """Check figures; what is printed goes nowhere."""
    os.chdir(folder)
    with open(os.devnull, "r+") as nowhere:  # noqa: PTH123  a stream, no path
        streams = Environment(nowhere, nowhere, nowhere)
        main(["check", "p.json", "--figures", figures, "--step", "weights", "--no-identify", "-q"], streams)


@functools.cache
def cost_of_few_figures() -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "p.json").write_text(json.dumps(PROBLEM))
        Path(folder, "small.json").write_text(f'{{"weights": {RIGHT}}}')
        return measure_cost(check_quietly, folder, "small.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_file_below_a_megabyte_costs_two_seconds_and_bounded_memory(tmp_path, name):
    (tmp_path / "p.json").write_text(json.dumps(PROBLEM))
    (tmp_path / name).write_text(LARGE[name])
    size = (tmp_path / name).stat().st_size
    assert size < 10**6

    seconds, memory, _ = measure_cost(check_quietly, str(tmp_path), name)
    own_seconds, own_memory, _ = cost_of_few_figures()

    assert seconds - own_seconds < 2
    assert memory - own_memory < 64 * 2**20 + 16 * size


# ── averages over heads ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("batch", [None, 5])
def test_weights_averaged_over_heads_are_refused_and_it_is_said_how_to_get_those_of_each(attn, own_stream, batch):
    import torch

    x = torch.tensor(draw_normal(31, *([] if batch is None else [batch]), 3, 8))
    layer = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True, dtype=torch.float64)
    matrices = dict(zip(("w_q", "w_k", "w_v"), layer.in_proj_weight.detach().chunk(3), strict=True))
    arrays = {f"parameters.{name}": w.numpy() for name, w in matrices.items()}
    np.savez("p.npz", embeddings=x.numpy(), attn='{"w_layout": "out-in", "variant": {"heads": 2}}', **arrays)
    for name, is_averaged in (("averaged.npz", True), ("each.npz", False)):
        np.savez(name, weights=layer(x, x, x, average_attn_weights=is_averaged)[1].detach().numpy())

    averaged, each = (attn("check", "p.npz", "--figures", name) for name in ("averaged.npz", "each.npz"))

    assert averaged.status == 3
    assert "error[wrong-shape]" in averaged.err
    assert "average_attn_weights=False" in averaged.err
    assert each.status == 0


def test_scores_averaged_over_heads_are_refused_without_a_word_of_what_returns_weights(attn):
    q = draw_normal(32, 2, 3, 4)
    np.savez("p.npz", q=q, k=q, attn='{"layout": "htd"}')
    np.savez("mean.npz", scores=(q @ q.swapaxes(1, 2)).mean(0))

    run = attn("check", "p.npz", "--figures", "mean.npz")

    assert run.status == 3
    assert "an average over heads cannot be checked" in run.err
    assert "average_attn_weights" not in run.err
