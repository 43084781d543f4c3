"""Whatever a token, a file name or an argument says, a terminal does nothing: every command and format, on a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from attncli.text import escape_json_controls, printable
from tests.helpers import TIMEOUT

pytestmark = pytest.mark.uncounted

HOSTILE = (
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\link", "\x1b[2J\x1b[H", "\x1bP1$r\x1b\\", "\x9b31mC1"),
    *("\x9d0;title\x9c", "\x90q\x9c", "\x85next", "\x7f\x08back", "\x07bell", "a\nb", "a\r\x0bc", "tab\there", "nul\x00nul"),
    *("\u202eright to left", "\u2066isolate", "\u200fmark", "zero\u200bwidth", "join\u200der", "👩\u200d👧", "\u2060", "\ufeffbom"),
    *("\xadsoft", "line\u2028line", "\U000e0041tag", "\U0001d173music", "[red]markup[/red]", "[/]", "[link=http://x]l[/link]"),
    *(":smile:", "e" + "\u0301" * 50, "😀", "日本", "x" * 3000, "$(id)", "`id`", "| a |", "\\textbf{x}", "% c", "<b>x</b>"),
)  # fmt: skip
SGR = re.compile("\x1b\\[[0-9;]*m")
# What our own messages and bars write beside colours: a line that goes away.
OWN = re.compile("\r?\x1b\\[2K\r?|\x1b\\[[0-9;]*m|\x1b\\[\\?25[hl]|\x1b\\[1A")
FORMATS = ("table", "plain", "json", "ndjson", "csv", "tsv", "markdown", "latex")


def write_hostile_files(folder: Path) -> None:
    n = len(HOSTILE)
    x = [[(i * 7 + j * 3) % 5 - 2 for j in range(3)] for i in range(n)]
    (folder / "x.json").write_text(json.dumps({"tokens": HOSTILE, "embeddings": x, "about": "\x9b31m\u202e"}))
    wrong = [[0.5] * n for _ in range(n)]
    (folder / "figures.json").write_text(json.dumps({"weights": wrong}))
    cells = [
        token.replace('"', '""') for token in HOSTILE if "\x00" not in token and "\n" not in token and "\r" not in token
    ]
    (folder / "x.csv").write_text("".join(f'"{cell}",{i % 3},{i % 4}\n' for i, cell in enumerate(cells)), newline="")
    (folder / "bad.csv").write_text("token,\x9b1m,b\n\x1b[31mx\u202e,1\n")
    (folder / "bad.json").write_text('{"embeddings": [[1, "\x9b31m\u202e"]]}')
    (folder / "field.json").write_text(
        json.dumps({"embeddings": [[1]], "\x1b[31m\u202e": 1, "variant": {"mask": "\x9b1m"}})
    )
    (folder / "lines.ndjson").write_text(
        '{"tokens": ["\\u009b31m\\u202e"], "embeddings": [[1]]}\n{"\\u009bx": 1}\n\x9b\n'
    )
    (folder / "\x1b[31m\x9b1m\u202e.csv").write_text("a,1\n\x9b,x\n")
    (folder / "expects.json").write_text(
        json.dumps(
            {"tokens": ["\x9b1m", "\u202e"], "embeddings": [[1], [2]], "expected": {"weights": [[1, 0], [0, 1]]}}
        )
    )
    (folder / "in\x9b\u202e").mkdir()
    (folder / "in\x9b\u202e" / "\x1b[31mx\u202e.csv").write_text("\x9b1m,1,2\n")
    (folder / "in\x9b\u202e" / "bad\x9b.csv").write_text("\x9b1m,1,2\n\u202e,1\n")


NAME = "\x1b[31m\x9b1m\u202e"  # an argument
COMMANDS = [
    *(["compute", "x.json", "-f", f] for f in FORMATS),
    *(["compute", "x.json", "-f", f, "--only", "weights,context", "--heat", "on", "--full"] for f in ("table", "csv")),
    *(["compute", "x.csv", "--only", "context", "-f", f] for f in FORMATS),
    ["compute", "x.json", "--top", "2", "--color", "never"],
    *(["explain", "x.json", "0", "--causal", "-f", f] for f in ("table", "markdown", "latex", "json")),
    ["explain", "x.json", "0", "--blank", "weights", "--answers", "-f", "json"],
    ["explain", "x.json", "3", "--grad", "ones", "--full"],
    *(["check", "x.json", "--figures", "figures.json", "--no-identify", "-f", f] for f in ("table", "plain", "markdown", "json")),
    *(["check", ".", "-f", f] for f in ("table", "plain", "markdown", "json")),
    ["compute", "lines.ndjson"],
    *(["compute", name, *form] for name in ("bad.csv", "bad.json", "field.json", f"{NAME}.csv", f"{NAME}.nope", NAME) for form in
      ([], ["--error-format", "json"], ["--error-format", "concise"])),
    *(["compute", "x.json", option, NAME, *form] for option in
      ("--at", "--only", "--mask", "--variant", "--with", "--top", "--format", "--dtype", "--input-format", "--device", "-o")
      for form in ([], ["--error-format", "json"])),
    *(["compute", "x.json", "--at", f"query={NAME}", *form] for form in ([], ["--error-format", "json"])),
    ["compute", "x.csv", "--token-column", NAME],
    ["compute", "x.json", f"--{NAME}"], [NAME], ["list", NAME], ["list", "masks", NAME], ["schema", NAME], ["demo", NAME],
    ["explain", "x.json", NAME], ["explain", "x.json", "0", "--grad", NAME], ["check", "x.json", "--figures", NAME],
    ["check", "x.json", "--step", NAME], ["batch", NAME, "-o", "out1"], ["batch", "x.csv", "-o", "out1", "-j", NAME],
    ["batch", "in\x9b\u202e", "-o", "out2"], ["batch", "in\x9b\u202e", "-o", "out2", "--error-format", "json"],
    ["batch", "in\x9b\u202e", "-o", f"{NAME}-out", "--dry-run"], ["batch", "in\x9b\u202e", "lines.ndjson", "-o", "-"],
    ["batch", "@x.csv", "-o", "out3"], ["batch", "x.json", "-o", "x.json"], ["compute", "x.json", "-o", f"{NAME}/x.json"],
    *(["list", "--json"], ["list", "masks"], ["schema", "problem"], ["schema", "result"], ["demo"], ["--help"], ["compute", "--help"]),
]  # fmt: skip


def show_on_terminals(warm, commands: list[list[str]], folder: Path, together: int = 6) -> list[bytes]:
    """Return what a terminal of 100 columns is sent by each command; a few run at a time."""
    shown = [b""] * len(commands)
    waiting, running = list(enumerate(commands)), {}
    deadline = time.monotonic() + TIMEOUT
    while waiting or running:
        while waiting and len(running) < together:
            i, words = waiting.pop(0)
            pid, master = pty.fork()
            if pid == 0:
                os.chdir(folder)
                try:
                    os.environ.update(TERM="xterm-256color", COLUMNS="100")
                    os.execv(warm.bin / "attn", ["attn", *words])
                finally:
                    os._exit(99)
            running[master] = i, pid
        ready, _, _ = select.select([*running], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, "a command does not end"
        for master in ready:
            try:
                chunk = os.read(master, 1 << 16)
            except OSError:  # nobody has the terminal any more
                chunk = b""
            i, pid = running[master]
            shown[i] += chunk
            if not chunk:
                os.close(master)
                os.waitpid(pid, 0)
                del running[master]
    return shown


def acting_characters(shown: str) -> set[str]:
    """Return what a terminal would act on, beside line ends, our own colours and our own erasing of a line."""
    rest = OWN.sub("", shown.replace("\r\n", "").replace("loading torch…\r", ""))
    rest = rest.replace("\n", "").removesuffix("\r")  # after a line that went away
    return {f"U+{ord(c):04X}" for c in rest if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.slow
def test_no_command_and_no_format_lets_a_terminal_act(warm, tmp_path):
    write_hostile_files(tmp_path)

    shown = show_on_terminals(warm, COMMANDS, tmp_path)

    acted = {}
    for words, sent in zip(COMMANDS, shown, strict=True):
        text = sent.decode()
        assert text, words
        assert "Traceback" not in text, (words, text)
        assert "error[bug]" not in text, (words, text)
        separators = {"U+0009"} if "tsv" in words else set()
        if found := acting_characters(text) - separators:
            acted[" ".join(words).encode("unicode_escape").decode()] = sorted(found)
    assert acted == {}
    assert len(COMMANDS) > 100


def test_the_look_for_acting_characters_finds_them():
    for token in HOSTILE[:27]:  # those that act; the others are markup to somebody else
        assert acting_characters(f"| {token} |") - {"U+000A"} or "\n" in token or token.startswith("\x1b[31m"), token
    assert acting_characters("\x1b[1mbold\x1b[0m plain\r\n日本 😀\x1b[2K") == set()


def test_what_is_printable_and_what_json_holds_is_said_of_every_character():
    for code in range(sys.maxunicode + 1):
        c = chr(code)
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert printable(c) != c, hex(code)
            text = json.dumps(c, ensure_ascii=False)
            escaped = escape_json_controls(text)
            assert code < 0x20 or (escaped != text and escaped.isascii()), hex(code)
            assert json.loads(escaped) == c
        elif unicodedata.category(c)[0] in "LNPSM":
            assert printable(c) == c == escape_json_controls(c), hex(code)
