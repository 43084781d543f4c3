"""How the program ends: exit statuses, closed pipes, full disks, interrupts, bugs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import attncli
from tests.helpers import ROOT, SAMPLES, TIMEOUT

pytestmark = pytest.mark.slow

HELLO = SAMPLES / "hello_shiny_sun.json"


def test_a_closed_pipe_is_141():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "attncli", "compute", str(HELLO), "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=TIMEOUT,
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
        timeout=TIMEOUT,
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
        timeout=TIMEOUT,
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
            timeout=TIMEOUT,
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
        _, err = child.communicate(timeout=TIMEOUT)

    assert (child.returncode, err) == (130, b"interrupted\n")


def test_a_bug_is_70(attn, monkeypatch):
    monkeypatch.setattr("attncli.readers.files.open_input", lambda *_: 1 / 0)

    plain, debug = attn("compute", HELLO), attn("compute", HELLO, "--debug")

    assert (plain.status, plain.out) == (70, "")
    assert plain.err.startswith(
        "error[bug]: a bug in attn: ZeroDivisionError: division by zero\n  = help: please report it"
    )
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err


def test_a_console_that_cannot_show_it_gets_ascii(warm):
    done = warm.run("compute", HELLO, "--causal", env={"PYTHONIOENCODING": "ascii"})
    tokens = json.dumps({"tokens": ["日×本", "😀"], "embeddings": [[1], [2]], "about": "→∞"}).encode()
    named, table = (
        warm.run("compute", "-", "--input-format", "json", "-f", form, stdin=tokens, env={"PYTHONIOENCODING": "ascii"})
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
