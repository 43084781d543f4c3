"""The program as a user meets it: what it prints where, what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.readers.results import read_result
from tests.conftest import ROOT, SAMPLES, process

HELLO = SAMPLES / "hello_shiny_sun.json"


# ── the main job ─────────────────────────────────────────────────────────────────────────────────
def test_the_first_example(attn):
    shown = attn("compute", HELLO, "--variant", "simplified", "--at", "query=shiny")
    whole = attn("compute", HELLO, "--variant", "simplified", "--json").json

    assert shown.status == 0
    assert shown.err == ""
    for row in (
        "1 shiny        0.7842    1.3569   1.2487",
        "1 shiny        0.2291    0.4063   0.3646   1.0000",
        "1 shiny       0.3990   0.3854   0.8610",
    ):
        assert row in shown.out
    np.testing.assert_allclose(whole["weights"][1], [0.22913359, 0.40626482, 0.36460159], atol=5e-9)
    np.testing.assert_allclose(whole["context"][1], [0.39896024, 0.38542429, 0.86095114], atol=5e-9)


@pytest.mark.parametrize(
    ("words", "step", "rows"),
    [
        (["--projection", "linear:dim=2", "--seed", "789"], "context", [[-0.0739, 0.0713], [-0.0748, 0.0703]]),
        (
            ["--projection", "linear:dim=2", "--seed", "123", "--causal"],
            "context",
            [[-0.4519, 0.2216], [-0.5874, 0.0058]],
        ),
        (
            ["--projection", "linear:dim=2,bias=o,out=yes", "--seed", "123", "--causal", "--heads", "2"],
            "output",
            [[0.3190, 0.4858], [0.2943, 0.3897]],
        ),
    ],
)
def test_the_book_by_options(attn, tmp_path, words, step, rows):
    source = json.loads((SAMPLES / "journey_linear.json").read_text())
    (tmp_path / "six.json").write_text(json.dumps({k: source[k] for k in ("tokens", "embeddings")}))

    done = attn("compute", "six.json", *words, "--json")

    np.testing.assert_allclose(done.json[step][:2], rows, atol=5.1e-5)


def test_csv_says_what_it_found_and_quiet_does_not(attn):
    loud, quiet = (attn("compute", SAMPLES / "tokens.csv", *words) for words in ([], ["--quiet"]))

    assert loud.err == f"{SAMPLES}/tokens.csv: 3 tokens × 4 dims, header row, token column 'token', separator comma\n"
    assert quiet.err == ""
    assert loud.out == quiet.out


def test_a_drawn_seed_is_shown_and_recorded(attn):
    first = attn("compute", SAMPLES / "tokens.csv", "--projection", "randn", "--json", "-q").json
    again = attn(
        "compute", SAMPLES / "tokens.csv", "--projection", "randn", "--seed", first["variant"]["seed"], "--json", "-q"
    ).json
    other = attn("compute", SAMPLES / "tokens.csv", "--projection", "randn", "--json", "-q").json
    table = attn("compute", SAMPLES / "tokens.csv", "--projection", "randn", "-q")

    assert first["weights"] == again["weights"]
    assert first["parameters"] == again["parameters"]
    assert set(first["parameters"]) == {"w_q", "w_k", "w_v"}
    assert other["variant"]["seed"] != first["variant"]["seed"]
    assert re.search(r" · seed \d+ · float64\n", table.out)


def test_only_at_top_and_precision(attn):
    only = attn("compute", SAMPLES / "cat_sat.json", "--only", "weights,context", "--only", "q", "--json").json
    every = attn("compute", SAMPLES / "cat_sat.json", "--only", "all", "--json").json
    part = attn(
        "compute", SAMPLES / "cat_sat.json", "--at", "query=1", "--at", "key=1:", "--at", "dim=0", "--json"
    ).json
    top = attn("compute", SAMPLES / "cat_sat.json", "--top", "2", "--json").json
    table = attn(
        "compute", SAMPLES / "cat_sat.json", "--top", "1", "--precision", "2", "--only", "top_keys,top_weights"
    )

    assert list(only["axes"]) == ["q", "weights", "context"]
    assert list(every["axes"]) == [
        "q",
        "k",
        "v",
        "scores",
        "scaled_scores",
        "max_score",
        "log_sum_exp",
        "entropy",
        "visible_keys",
        "weights",
        "context",
    ]
    np.testing.assert_allclose(every["log_sum_exp"], [1.9580, 3.2664, 3.3064], atol=5e-5)
    np.testing.assert_allclose(every["entropy"], [1.550, 0.981, 1.085], atol=5e-4)
    assert part["at"] == {"query": [1], "key": [1, 2], "dim": [0]}
    assert (part["tokens"], part["k_tokens"]) == (["cat"], ["cat", "sat"])
    assert part["scores"] == [[6.0, 3.0]]
    assert part["shapes"] == {"scores": [1, 2], "scaled_scores": [1, 2], "weights": [1, 2], "context": [1, 1]}
    assert top["top_keys"] == [[0, 2], [1, 2], [2, 1]]  # a tie of 0 and 2 for the first query: the lower index first
    assert re.search(r"^1 cat +1 cat$", table.out, re.M)
    assert re.search(r"1 cat +0\.77\n", table.out)


@pytest.mark.parametrize(
    ("wish", "indices"),
    [("query=sat", [2]), ("query=-1", [2]), ("query=0:2", [0, 1]), ("query=:", [0, 1, 2]), ("key=1", None)],
)
def test_at_chooses(attn, wish, indices):
    done = attn("compute", SAMPLES / "cat_sat.json", "--at", wish, "--json").json

    assert done["at"].get("query") == indices


def test_a_token_is_looked_up_in_the_batch_item_chosen(attn, tmp_path):
    (tmp_path / "b.json").write_text(
        json.dumps({"tokens": [["a", "b"], ["b", "a"]], "embeddings": [[[1], [2]], [[3], [4]]]})
    )

    unclear = attn("compute", "b.json", "--at", "query=a")
    clear = attn("compute", "b.json", "--at", "query=a", "--at", "batch=1", "--json").json

    assert unclear.status == 3
    assert "choose one first: --at batch=0 --at query=a" in unclear.err
    assert clear["at"] == {"batch": [1], "query": [1]}
    assert clear["tokens"] == [["a"]]
    assert clear["scores"] == [[[12.0, 16.0]]]


def test_warnings_stand_on_standard_error_and_in_the_result(attn, tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({"embeddings": [[1], [2]], "segments": [0, 0], "mask": [[True, True], [False, False]]})
    )

    done = attn("compute", "a.json", "--json", "--quiet")

    assert done.json["warnings"] == [
        "unused-field: segments is not used by this variant",
        "empty-rows: query 1 sees no key: weights and context are 0",
    ]
    assert (
        done.err
        == "warning[unused-field]: segments is not used by this variant\nwarning[empty-rows]: query 1 sees no key: weights and context are 0\n"
    )


# ── files ────────────────────────────────────────────────────────────────────────────────────────
def test_drawn_parameters_reproduce_the_result_they_came_with(attn, tmp_path):
    first = attn(
        "compute",
        SAMPLES / "tokens.csv",
        "-q",
        "--projection",
        "linear:dim=3,bias=all,out=yes",
        "--seed",
        "7",
        "--json",
    ).json
    source = json.loads((SAMPLES / "cat_sat.json").read_text())
    (tmp_path / "again.json").write_text(
        json.dumps({"embeddings": source["embeddings"], "parameters": first["parameters"]})
    )

    assert attn("compute", "again.json", "--json").json["output"] == first["output"]


@pytest.mark.parametrize("name", ["r.json", "r.npz", "r.safetensors"])
def test_output_is_the_same_result_in_every_format(attn, tmp_path, name):
    done = attn("compute", SAMPLES / "journey_two_heads.json", "--output", name, "--only", "all")

    assert (done.status, done.out) == (0, "")
    held = read_result(tmp_path / name)
    whole = attncli.attend(attncli.read(SAMPLES / "journey_two_heads.json"))
    for one, other in zip(held, whole, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_output_exists_only_whole(attn, tmp_path, monkeypatch):
    first = attn("compute", HELLO, "-o", "r.json")
    again = attn("compute", HELLO, "-o", "r.json")
    forced = attn("compute", HELLO, "-o", "r.json", "--force", "--only", "q")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    full = attn("compute", HELLO, "-o", "full.json")

    assert [first.status, again.status, forced.status, full.status] == [0, 2, 0, 4]
    assert again.err == "error[output-exists]: r.json exists\n  = help: --force replaces it\n"
    assert "full.json cannot be written: No space left on device" in full.err
    assert list(json.loads((tmp_path / "r.json").read_text())["axes"]) == ["q"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_output_follows_a_link_and_keeps_the_mode(attn, tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to("real.json")

    done = attn("compute", HELLO, "-o", "link.json", "--force")

    assert done.status == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["schema"] == "attn.result/1"
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640


def test_a_device_is_written_to_not_replaced(attn):
    done = attn("compute", HELLO, "-o", "/dev/null", "--format", "json")

    assert done.status == 0
    assert Path("/dev/null").stat().st_rdev == os.makedev(1, 3)


# ── streams ──────────────────────────────────────────────────────────────────────────────────────
def test_a_stream_answers_each_line_before_the_next():
    """A script keeps the process open: it writes a problem and has its answer before it writes another."""
    with subprocess.Popen(
        [sys.executable, "-m", "attncli", "compute", "-", "--input-format", "ndjson"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        answers = []
        for line in (b'{"embeddings": [[1, 2]]}', b"{broken", b"", b'{"embeddings": [[1], [2, 3]]}', b"[[3, 4]]"):
            child.stdin.write(line + b"\n")
            child.stdin.flush()
            if line:
                answers.append(json.loads(child.stdout.readline()))
        child.stdin.close()
        status = child.wait(timeout=30)

    assert status == 1
    assert answers[0]["scores"] == [[5.0]]
    assert answers[1]["error"]["code"] == "bad-json"
    assert answers[1]["error"]["location"]["row"] == 2
    assert answers[2]["error"]["code"] == "ragged"
    assert answers[2]["error"]["location"]["row"] == 4
    assert answers[2]["error"]["path"] == "$.embeddings[1]"
    assert answers[3]["scores"] == [[25.0]]


def test_a_stream_in_a_file_and_to_a_file(attn, tmp_path):
    (tmp_path / "p.ndjson").write_text('[[1, 2]]\n{"embeddings": [[2]], "variant": {"heads": 3}}\n')

    done = attn("compute", "p.ndjson", "-o", "r.ndjson", "--only", "weights")

    lines = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert done.status == 1
    assert lines[0]["weights"] == [[1.0]]
    assert lines[1]["error"]["message"] == "q has 1 column, which 3 heads do not divide"


def test_a_wrong_command_line_stops_a_stream_at_once(attn):
    for words in (["--format", "table"], ["--only", "weigths"], ["--header", "yes"], ["--mask", "cusal"]):
        done = attn("compute", "-", "--input-format", "ndjson", *words, stdin=b"[[1]]\n")
        assert (done.status, done.out) == (2, ""), words


def test_a_bug_costs_a_stream_one_line(attn, monkeypatch):
    import attncli.select as select

    was, calls = select.select, iter([1, 0, 1])
    monkeypatch.setattr(select, "select", lambda *a: was(*a) if next(calls) else 1 / 0)

    done = attn("compute", "-", "--input-format", "ndjson", "--only", "q", stdin=b"[[1]]\n[[2]]\n[[3]]\n")

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert [line.get("q") for line in lines] == [[[1.0]], None, [[3.0]]]
    assert lines[1]["error"]["code"] == "bug"


def test_standard_input(attn):
    done = attn("compute", "-", "--input-format", "csv", "--only", "scores", "--json", stdin=b"a,1,2\nb,3,4\n")

    assert done.json["scores"] == [[5.0, 11.0], [11.0, 25.0]]
    assert done.err.startswith("<stdin>: 2 tokens × 2 dims")


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────
def test_a_closed_pipe_is_141():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "attncli", "compute", str(HELLO), "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["--help", "compute --help", "list"])
def test_help_into_a_closed_pipe_is_141(command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "attncli", *command.split()],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        (f"compute {HELLO} >&-", 4),
        ("compute - --input-format json <&-", 3),
        ("compute nope.json 2>/dev/full", 3),
        ("compute nope.json 2>&-", 3),
        (f"compute {HELLO} --quiet >/dev/null 2>&-", 0),
    ],
)
def test_closed_and_full_streams(redirection, status):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m attncli {redirection}"],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )

    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_a_full_disk_is_4():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "attncli", "compute", str(HELLO)],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    assert done.returncode == 4
    assert done.stderr == b"error[cannot-write]: standard output cannot be written: No space left on device\n"


def test_an_interrupt_is_130():
    with subprocess.Popen(
        [sys.executable, "-m", "attncli", "compute", "-", "--input-format", "ndjson"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        child.stdin.write(b"[[1]]\n")
        child.stdin.flush()
        child.stdout.readline()  # it is up, and waits for the next line
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)

    assert (child.returncode, err) == (130, b"interrupted\n")


def test_a_bug_is_70(attn, monkeypatch):
    monkeypatch.setattr("attncli.readers.slurp", lambda *_: 1 / 0)

    plain, debug = attn("compute", HELLO), attn("compute", HELLO, "--debug")

    assert (plain.status, plain.out) == (70, "")
    assert plain.err.startswith(
        "error[bug]: a bug in attn: ZeroDivisionError: division by zero\n  = help: please report it"
    )
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err


def test_a_console_that_cannot_show_it_gets_ascii():
    done = process("compute", HELLO, "--causal", env={"PYTHONIOENCODING": "ascii"})
    tokens = json.dumps({"tokens": ["日×本", "😀"], "embeddings": [[1], [2]], "about": "→∞"}).encode()
    named, table = (
        process("compute", "-", "--input-format", "json", "-f", form, stdin=tokens, env={"PYTHONIOENCODING": "ascii"})
        for form in ("json", "csv")
    )

    assert done.returncode == 0
    assert b"e^(s - max s) / sum e^(s - max s)" in done.stdout
    assert b"-inf" in done.stdout
    assert named.stdout.isascii()
    assert (json.loads(named.stdout)["tokens"], json.loads(named.stdout)["about"]) == (["日×本", "😀"], "→∞")
    assert table.stdout.decode().startswith("step,")
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith(("query \\ key", "0 Hello"))]
    assert len({len(line) for line in lines[:2]}) == 1  # columns stay in line


def test_no_command_is_help_and_2(attn):
    done = attn()

    assert (done.status, done.out) == (2, "")
    assert "Usage: attn" in done.err
    assert "error[usage]: no command was given" in done.err
    assert attn("--version").out == f"attn {attncli.__version__}\n"


# ── colour and terminals ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("words", "env", "coloured"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour(attn, monkeypatch, words, env, coloured):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm-256color")

    done = attn("compute", HELLO, *words)

    assert ("\x1b[" in done.out) == coloured


def _on_a_terminal(command: str, columns: int) -> str:
    """What a terminal of so many columns shows."""
    import pty

    pid, master = pty.fork()
    if pid == 0:
        os.execvpe(
            "sh",
            ["sh", "-c", f"stty cols {columns} rows 50; cd {ROOT}; {sys.executable} -m attncli {command}"],
            {**os.environ, "TERM": "xterm-256color"},
        )
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.waitpid(pid, 0)
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_has_colour_and_keeps_its_width(columns):
    from rich.cells import cell_len

    shown = _on_a_terminal("demo journey_two_heads --quiet", columns)

    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(cell_len(line) for line in plain.splitlines()) <= columns
    assert "output" in plain


@pytest.mark.parametrize("columns", [40, 80])
def test_numbers_on_a_terminal_are_whole_or_absent(tmp_path, columns):
    x = (np.random.default_rng(0).normal(size=(40, 12)) * 3).round(3)
    (tmp_path / "x.json").write_text(json.dumps({"tokens": [f"word{i}" for i in range(40)], "embeddings": x.tolist()}))

    shown = _on_a_terminal(f"compute {tmp_path}/x.json --only context,weights --color never", columns)

    assert not re.search(r"\d…|…\d", shown)
    assert len(re.findall(r"^\d+ wo.*\d\.\d{4} +… +.*\d\.\d{4}", shown, re.M)) >= 40


def test_csv_on_a_terminal_sends_no_escape(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"tokens": ["\x1b[31mred"], "embeddings": [[1]]}))

    assert "\x1b" not in _on_a_terminal(f"compute {tmp_path}/x.json --only context -f csv --quiet", 80)


def test_json_on_a_terminal_is_indented_and_coloured():
    shown = _on_a_terminal("demo --json --only weights --quiet", 80)

    assert "\x1b[" in shown
    assert len(shown.splitlines()) > 20
    assert json.loads(re.sub(r"\x1b\[[0-9;]*m", "", shown))["weights"][1][1] > 0.76


# ── commands ─────────────────────────────────────────────────────────────────────────────────────
def test_demo_names_its_examples(attn):
    from attncli.cli.demo import samples

    assert set(samples()) == {p.stem for p in SAMPLES.glob("*.json")}
    assert "1 cat         0.0629   0.7662   0.1710   1.0000" in attn("demo").out
    assert attn("demo", "cross_attention", "--only", "context", "--json").json["shapes"] == {"context": [2, 2]}


def test_list_is_the_manual(attn):
    from attncli.catalogue import catalogue

    whole, masks, window, machine = (
        attn("list"),
        attn("list", "masks"),
        attn("list", "mask", "window"),
        attn("list", "--json"),
    )

    for family, members in catalogue().items():
        assert family in whole.out
        for name in members:
            assert re.search(rf"^  {re.escape(name)} ", whole.out, re.M), name
    assert "−left ≤ j − i ≤ right" in masks.out
    assert "option: left=integer ≥ -1, default -1" in window.out
    assert "source: Beltagy et al. 2020, §3.1" in window.out
    assert "causal" not in window.out
    assert machine.json == catalogue()
    assert "  safetensors  .safetensors, to a file only\n" in attn("list", "formats").out


@pytest.mark.parametrize("name", ["simplified", "self-attention", "causal"])
def test_a_preset_prints_a_command_line_that_runs(attn, name):
    import shlex

    [line] = [line for line in attn("list", "variants", name).out.splitlines() if "attn compute" in line]
    words = shlex.split(line.partition("attn ")[2].replace("INPUT", str(SAMPLES / "tokens.csv")))

    typed, named = (
        attn(*words, "--json").json,
        attn("compute", SAMPLES / "tokens.csv", "--variant", name, "--json").json,
    )

    assert {k: v for k, v in typed.items() if k != "variant"} == {k: v for k, v in named.items() if k != "variant"}


def test_sugar_adds_to_the_mask(attn):
    done = attn("compute", SAMPLES / "journey_two_heads.json", "--window", "1,0", "--json").json

    assert done["variant"]["mask"] == "causal and window:left=1,right=0"
    assert done["weights"][0][3][:2] == [0.0, 0.0]


def _presets():
    from attncli.presets import PRESETS

    return PRESETS.values()


@pytest.mark.parametrize("preset", _presets(), ids=lambda p: p.name)
def test_every_preset_prints_a_command_line_that_pastes(attn, tmp_path, preset):
    import shlex

    from attncli.presets import choices_of
    from tests.test_laws import WIDE, parameters_for

    layer = 2 if preset.layers else None
    chosen = attncli.Variant(**choices_of(preset, layer) | {"heads": 2})
    learned = parameters_for(chosen, WIDE)
    if chosen["kv_heads"] == 1:
        learned |= {"w_k": np.ones((WIDE, WIDE // 2)), "w_v": np.ones((WIDE, WIDE // 2))}
    problem = {
        "embeddings": np.random.default_rng(0).normal(size=(4, WIDE)).tolist(),
        "parameters": {k: v.tolist() for k, v in learned.items()},
    }
    if "given" in str(chosen["mask"]):
        problem["mask"] = np.tri(4, dtype=bool).tolist()
    (tmp_path / "p.json").write_text(json.dumps(problem))
    (tmp_path / "memory.json").write_text(json.dumps({"memory": {"embeddings": np.ones((3, WIDE)).tolist()}}))
    name = preset.name if layer is None else f"{preset.name}:layer={layer}"

    [line] = [line for line in attn("list", "variants", name).out.splitlines() if "attn compute" in line]
    line = (
        line.partition("attn ")[2]
        .replace("LEFT,RIGHT", "1,0")
        .replace("--kv-heads G", "--kv-heads 2")
        .replace("--heads H", "--heads 2")
    )
    words = shlex.split(line.replace("INPUT", "p.json").replace("=FILE", "=memory.json"))
    pasted = attn(*words, *([] if "--heads" in words else ["--heads", "2"]), "--json", "--only", "weights")

    assert pasted.status == 0, pasted.err
    assert np.isfinite(pasted.json["weights"]).all()
