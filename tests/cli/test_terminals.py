"""Colour, width and escapes on terminals and off them."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

from tests.helpers import ROOT, SAMPLES

HELLO = SAMPLES / "hello_shiny_sun.json"


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
    monkeypatch.setenv("TERM", "xterm-256color")  # by which Rich knows how many colours there are

    done = attn("compute", HELLO, *words, variables=env)

    assert ("\x1b[" in done.out) == coloured


def _on_a_terminal(warm, command: str, columns: int) -> str:
    """What a terminal of so many columns shows."""
    import pty

    pid, master = pty.fork()
    if pid == 0:
        os.execvpe(
            "sh",
            ["sh", "-c", f"stty cols {columns} rows 50; cd {ROOT}; {warm.bin}/attn {command}"],
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
def test_a_terminal_has_colour_and_keeps_its_width(warm, columns):
    from rich.cells import cell_len

    shown = _on_a_terminal(warm, "demo journey_two_heads --quiet", columns)

    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(cell_len(line) for line in plain.splitlines()) <= columns
    assert "output" in plain


@pytest.mark.parametrize("columns", [40, 80])
def test_numbers_on_a_terminal_are_whole_or_absent(warm, tmp_path, columns):
    x = (np.random.default_rng(0).normal(size=(40, 12)) * 3).round(3)
    (tmp_path / "x.json").write_text(json.dumps({"tokens": [f"word{i}" for i in range(40)], "embeddings": x.tolist()}))

    shown = _on_a_terminal(warm, f"compute {tmp_path}/x.json --only context,weights --color never", columns)

    assert not re.search(r"\d…|…\d", shown)
    assert len(re.findall(r"^\d+ wo.*\d\.\d{4} +… +.*\d\.\d{4}", shown, re.MULTILINE)) >= 40


def test_csv_on_a_terminal_sends_no_escape(warm, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"tokens": ["\x1b[31mred"], "embeddings": [[1]]}))

    assert "\x1b" not in _on_a_terminal(warm, f"compute {tmp_path}/x.json --only context -f csv --quiet", 80)


def test_json_on_a_terminal_is_indented_and_coloured(warm):
    shown = _on_a_terminal(warm, "demo --json --only weights --quiet", 80)

    assert "\x1b[" in shown
    assert len(shown.splitlines()) > 20
    assert json.loads(re.sub(r"\x1b\[[0-9;]*m", "", shown))["weights"][1][1] > 0.76


@pytest.mark.parametrize("columns", [50, 100])
def test_a_table_is_as_wide_as_the_terminal_allows(attn, columns):
    done = attn("compute", SAMPLES / "journey_two_heads.json", "--color", "never", columns=columns)
    full = attn("compute", SAMPLES / "journey_two_heads.json", "--color", "never", "--full", columns=columns)

    assert max(map(len, done.out.splitlines())) <= columns
    assert ("…" in done.out) == (columns == 50)
    assert "…" not in full.out


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_has_colour_unless_it_is_not_wanted(attn, variables, coloured):
    done = attn("compute", "nope.json", variables=variables, columns=80)

    assert ("\x1b[" in done.err) == coloured


def test_a_terminal_is_told_that_torch_loads(attn):
    from attncli import pipeline

    pipeline.load_engine.cache_clear()
    first, second = (attn("compute", HELLO, "--json", columns=80) for _ in range(2))

    assert first.err == "loading torch…\r\x1b[2K\r"
    assert second.err == ""
    pipeline.load_engine.cache_clear()
    assert attn("compute", HELLO, "--json", "--quiet", columns=80).err == ""


def test_streams_that_are_closed_are_said_where_they_can_be(tmp_path):
    import io

    from attncli.cli import main
    from attncli.cli.environment import Environment

    for words in (
        ["schema", "problem"],
        ["list"],
        ["--version"],
        ["--help"],
        ["check", "--help"],
        ["--show-completion", "bash"],
    ):
        err = io.StringIO()
        assert (main(words, Environment(None, None, err)), err.getvalue()) == (
            4,
            "error[cannot-write]: standard output is closed\n",
        ), words
    assert main(["compute", "-", "--input-format", "json"], Environment(None, io.StringIO(), err)) == 3
    assert "standard input is closed" in err.getvalue()
