"""What a shell is answered at the TAB key: values of every kind, tokens of a file, and nothing that it could run."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from attncli.cli.app import app
from attncli.cli.completion import answer_shell, split_words
from attncli.cli.environment import Environment
from attncli.output_formats import FORMAT_MODULES
from attncli.presets import PRESETS
from attncli.views.explain import RENDERERS
from tests.helpers import ROOT, SAMPLES, TIMEOUT, Run

SHELLS = ("bash", "zsh", "fish")
HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "a'b",
    'a"b',
    "*",
    "; touch pwned",
    "\\$(touch pwned)",
    "x:y",
    "a b",
    "\x1b[31m",
    "‮",
]


@pytest.fixture(scope="module")
def program():
    return typer.main.get_command(app)


@pytest.fixture
def ask(program, monkeypatch, tmp_path, capfd):
    """Return a function that asks as a shell does: ask("bash", "attn", "compute", "x.csv", "--mask", "ca") → its answer."""
    monkeypatch.chdir(tmp_path)

    def answer(shell: str, *words: str, action: str = "get-args") -> Run:
        variables = {"_ATTN_COMPLETE": f"complete_{shell}"}
        if shell == "bash":
            variables |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        else:
            variables |= {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": action}
        out = io.StringIO()
        status = answer_shell(program, Environment(io.StringIO(), out, io.StringIO(), variables))
        assert capfd.readouterr() == ("", "")
        return Run(status, out.getvalue(), "")

    return answer


@pytest.fixture
def bash(ask):
    """Return a function that gives the lines with which bash is answered, where it splits at : and =."""
    return lambda *words: ask("bash", "attn", *words).out.splitlines()


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["comp"], ["compute"]),
        (["compute", "x.csv", "--mas"], ["--mask", "--mask-by"]),
        (["compute", "x.csv", "--mask", "ca"], ["causal"]),
        (["compute", "x.csv", "--mask", "window", ":"], ["left=", "right="]),
        (["compute", "x.csv", "--mask", "window", ":", "left", "=", "2,"], ["2,right=", "2,right=-1"]),
        (["compute", "x.csv", "--mask", "'causal and win"], ["causal and window"]),
        (["compute", "x.csv", "--mask", "'causal "], ["causal and", "causal or"]),
        (["compute", "x.csv", "--mask", "'not (glo"], ["not (global:", "not (global:tokens="]),
        (["compute", "x.csv", "--mask", "causal\\ a"], ["causal\\ and"]),
        (["compute", "x.csv", "--position", "rope", ":", "th"], ["theta=", "theta=10000"]),
        (["compute", "x.csv", "--position", "rope", ":", "theta", "="], ["10000"]),
        (["compute", "x.csv", "--projection", "linear", ":", "out", "="], ["yes", "no"]),
        (["compute", "x.csv", "--variant", "mistr"], ["mistral"]),
        (["compute", "x.csv", "--variant", "gemma2", ":"], ["layer=", *(f"layer={n}" for n in range(12))]),
        (["compute", "x.csv", "--scale", ""], ["auto", "none", "2"]),
        (["compute", "x.csv", "--chain", "scale,soft"], ["scale,softcap"]),
        (["compute", "x.csv", "--only", "weights,con"], ["weights,context"]),
        (["compute", "x.csv", "--dtype", "=", "bf"], ["bfloat16"]),
        (["compute", "x.csv", "--schedule", ""], ["dense", "tiled", "fused"]),
        (["compute", "x.csv", "-f", "n"], ["ndjson", "npz"]),
        (["compute", "x.csv", "--input-format", "par"], ["parquet"]),
        (["compute", "x.csv", "--separator", "s"], ["semicolon", "space"]),
        (["compute", "x.csv", "--heat", "o"], ["on", "off"]),
        (["compute", "x.csv", "--at", "he"], ["head=", "head=0"]),
        (["compute", "x.csv", "--with", "memory.em"], ["memory.embeddings=", "memory.embeddings=FILE"]),
        (["check", "x.json", "--layout", "t"], ["thd"]),
        (["check", "x.json", "--format", "m"], ["markdown"]),
        (["check", "x.json", "--step", "log"], ["log_sum_exp"]),
        (["explain", "x.csv", "--blank", "weights,exp"], ["weights,exponentials"]),
        (["explain", "x.csv", "--grad", ""], ["ones"]),
        (["demo", "hello"], ["hello_shiny_sun"]),
        (["list", "mas"], ["masks", "mask", "masked_scores"]),
        (["list", "masks", "win"], ["window"]),
        (["config", "ch"], ["check"]),
        (["schema", "p"], ["problem"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_values_are_completed(bash, words, candidates):
    assert bash(*words) == candidates


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["explain", "t.csv", ""], ["the", "cat", "sat"]),
        (["explain", "t.csv", "c"], ["cat"]),
        (["compute", "t.csv", "--at", "key", "=", "s"], ["sat"]),
        (["compute", "t.csv", "--at", "qu"], ["query=", "query=the", "query=cat", "query=sat"]),
        (["explain", "n.csv", ""], ["0", "1", "x", "3", "4"]),  # those that read as indices, or stand twice
    ],
    ids=" ".join,
)
def test_tokens_are_those_that_the_reader_finds(bash, words, candidates):
    shutil.copy(SAMPLES / "tokens.csv", "t.csv")
    Path("n.csv").write_text("token,d0\n7,1.5\n8,2.5\nx,3.5\ny,4.5\ny,5.5\n")

    assert bash(*words) == candidates


@pytest.mark.parametrize("shell", SHELLS)
def test_no_token_reaches_a_shell_that_could_act_on_it(ask, shell):
    rows = [f'"{token.replace(chr(34), chr(34) * 2)}",{i},1' for i, token in enumerate(HOSTILE)]
    Path("t.csv").write_text("\n".join(["token,d0,d1", *rows, "кот,1,9", "the,1,7", "the,1,8"]), encoding="utf-8")

    answer = ask(shell, "attn", "explain", "t.csv", "").out

    assert not [token for token in HOSTILE if token in answer]
    if shell == "bash":
        assert answer.split() == [*map(str, range(len(HOSTILE))), "кот", "12", "13"]


@pytest.mark.parametrize(
    "content", [b"", b"token,d0\nthe,1\ncat", b"\xff\xfe\x00", b"\x1f\x8b\x08", b"{" * 100_000, b'{"embeddings": [[1], [2, 3]]}']
)  # fmt: skip
@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.npz", "t.ndjson", "t", "no/t.csv"])
def test_a_file_that_cannot_be_read_completes_to_nothing(ask, name, content):
    if "/" not in name:
        Path(name).write_bytes(content)

    assert ask("bash", "attn", "explain", name, "").out == ""


def test_of_a_long_table_the_first_rows_are_read_and_of_other_long_files_nothing(bash, monkeypatch):
    monkeypatch.setattr("attncli.cli.completion_values._MAX_FILE_BYTES", 1000)
    Path("t.csv").write_text("token,d0\n" + "".join(f"t{i},{i}.5\n" for i in range(1000)))
    Path("t.json").write_text(f'{{"tokens": ["a"], "embeddings": [[{"1" * 2000}]]}}')

    assert bash("explain", "t.csv", "t1")[:3] == ["t1", "t10", "t11"]
    assert len(bash("explain", "t.csv", "")) < 120
    assert bash("explain", "t.json", "") == []


def test_a_pipe_is_not_waited_for(ask):
    os.mkfifo("t.csv")

    assert ask("bash", "attn", "explain", "t.csv", "").out == ""


@pytest.mark.parametrize(
    "words", [["compute", ""], ["compute", "x.csv", "-o", ""], ["check", "x", "--figures", ""]], ids=str
)
def test_where_a_path_belongs_the_shell_completes_it(ask, words):
    """bash does where nothing is printed, fish at status 1."""
    assert ask("bash", "attn", *words).out == ""
    assert ask("zsh", "attn", *words).out == "_files\n"
    assert ask("fish", "attn", *words, action="is-args").status == 1
    assert ask("fish", "attn", "compute", "x", "--mask", "", action="is-args").status == 0
    assert ask("zsh", "attn", "compute", "x", "--with", "k=to").out == "compset -P '*='; _files\n"


def test_zsh_and_fish_are_told_what_a_candidate_is(ask):
    assert ask("fish", "attn", "compute", "x", "--mask=cau").out == "--mask=causal\tj ≤ i\n"
    assert ask("zsh", "attn", "compute", "x", "--mask", "'not giv").out == (
        "local -a w d; w=('not given'); d=('not given\u00a0 the problem'\\''s mask'); compadd -V attn -l -d d -a w\n"
    )
    assert "compadd -S '' -V attn" in ask("zsh", "attn", "compute", "x", "--mask", "window:").out


@pytest.mark.parametrize(
    ("line", "words", "quote"),
    [
        ("attn compute ", ["attn", "compute", ""], ""),
        ("attn 'a b' \"c'd\" e\\ f", ["attn", "a b", "c'd", "e f"], ""),
        ("attn --mask 'causal and ", ["attn", "--mask", "causal and "], "'"),
        ('attn "a\\"b', ["attn", 'a"b'], '"'),
        ("", [""], ""),
    ],
)
def test_a_command_line_is_split_as_shells_do(line, words, quote):
    assert split_words(line) == (words, quote)


@pytest.mark.parametrize(
    "variables",
    [
        {"_ATTN_COMPLETE": "complete_bash", "COMP_WORDS": "attn", "COMP_CWORD": "x"},
        {"_ATTN_COMPLETE": "complete_bash", "COMP_WORDS": "attn", "COMP_CWORD": "-3"},
        {"_ATTN_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "attn nothing --such '"},
    ],
)
def test_a_strange_question_is_answered_by_silence(attn, variables):
    done = attn(variables=variables)

    assert (done.out.strip() in ("", "_files"), done.err) == (True, "")


def test_what_is_completed_is_all_that_there_is(bash):
    assert bash("compute", "x", "--variant", "") == [*PRESETS]
    assert bash("compute", "x", "--format", "") == [*FORMAT_MODULES]
    assert bash("explain", "x", "--format", "") == [*RENDERERS]


@pytest.mark.slow
def test_neither_torch_nor_numpy_nor_polars_is_loaded():
    code = (
        "import os, sys; from attncli.cli import main; status = main([]);"
        "sys.stderr.write(str([name for name in ('torch', 'numpy', 'polars', 'rich') if name in sys.modules]))"
    )
    env = {**os.environ, "_ATTN_COMPLETE": "complete_bash", "COMP_CWORD": "4", "PYTHONPATH": str(ROOT)}
    words = "\n".join(["attn", "compute", "x.csv", "--mask", "ca"])
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"COMP_WORDS": words}, capture_output=True, timeout=TIMEOUT, check=True
    )

    assert (done.stdout, done.stderr) == (b"causal\n", b"[]")


SCRIPT_OF_BASH = """
attn() {{ PYTHONPATH={root} {python} -P -m attncli "$@"; }}
mkdir bin; printf '#!/bin/sh\\nPYTHONPATH={root} exec {python} -P -m attncli "$@"\\n' > bin/attn; chmod +x bin/attn; PATH=$PWD/bin:$PATH
eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 attn --show-completion bash)"
complete_line() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _attn_completion attn; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
complete_line attn compute t.csv --mask window : l
complete_line attn explain t.csv ''
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_gets_candidates_and_runs_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("token,d0\n$(touch pwned),1\n*,2\ncat,3\n")
    script = SCRIPT_OF_BASH.format(root=ROOT, python=sys.executable)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )

    assert (done.stdout.split(), done.stderr) == (["left=", "left=-1", "0", "1", "cat"], "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "t.csv"]
