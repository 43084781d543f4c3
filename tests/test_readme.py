"""The README is executed: every `$` line of a console block is run, and what it prints stands below it.

`python -m tests.test_readme` writes what is printed now into the README.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_BLOCK = re.compile(r"```console\n(.*?)```", re.S)


def commands(block: str) -> list[str]:
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def shown(block: str, folder: Path) -> str:
    """A console block with what its commands print today, standard error beside standard output."""
    bin = folder / "bin"
    if not bin.exists():
        bin.mkdir()
        (bin / "attn").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m attncli "$@"\n')
        (bin / "attn").chmod(0o755)
        shutil.copytree(ROOT / "sample_inputs", folder / "sample_inputs")
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"PATH": f"{bin}{os.pathsep}{env['PATH']}", "PYTHONUTF8": "1"}
    out = []
    for command in commands(block):
        done = subprocess.run(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=env,
            timeout=120,
            check=False,
        )
        out += [f"$ {command}", done.stdout.rstrip("\n")]
    return "\n".join(line for line in out if line) + "\n"


BLOCKS = _BLOCK.findall(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: commands(block)[0][:60])
def test_console_blocks_print_what_they_show(block, tmp_path):
    assert shown(block, tmp_path) == block


def test_the_python_example_prints_what_it_shows():
    [(code, printed)] = re.findall(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(encoding="utf-8"), re.S
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )

    assert done.stdout == printed


def test_the_json_example_is_a_problem(tmp_path):
    import attncli

    [text] = re.findall(r"```json\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    (tmp_path / "p.json").write_text(text)

    result = attncli.attend(attncli.read(tmp_path / "p.json"))

    assert result["weights"].values.shape == (2, 3, 3)


def test_every_command_and_exit_status_is_documented():
    from attncli.cli import app
    from attncli.errors import ExitStatus

    text = README.read_text(encoding="utf-8")

    for command in app.registered_commands:
        assert f"attn {command.name}" in text
    for status in ExitStatus:
        assert re.search(rf"^\| .*\b{int(status)}\b.* \|", text, re.M), status


def test_the_first_two_commands_are_all_the_set_up():
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
        for line in block.splitlines()
    ]

    assert lines[0] == "python -m pip install -c constraints.txt . && attn demo"
    assert lines[1] == "python -m pip install -c constraints.txt '.[dev]' && python -m pytest"


_CATALOGUE = re.compile(r"(<!-- catalogue: .*? -->\n).*?(<!-- end of the catalogue -->)", re.S)


def written_catalogue() -> str:
    """The parts and named variants as tables, from what they declare."""
    from attncli.catalogue import build_catalogue
    from attncli.views.text import escape_markdown

    def row(*cells: str) -> str:
        return f"| {' | '.join(escape_markdown(cell) for cell in cells)} |"

    out = []
    for family, members in build_catalogue().items():
        if family in ("steps", "formats", "choices"):
            continue
        out += [f"**{family}**", ""]
        if family == "variants":
            out += ["| name | stands for | source |", "|---|---|---|"]
            out += [
                row(name, said["command"].removeprefix("attn compute INPUT").strip() or "the defaults", said["source"])
                for name, said in members.items()
            ]
        else:
            out += ["| name | formula | what it does | source |", "|---|---|---|---|"]
            for name, said in members.items():
                names = [option.partition("=")[0] + "=" for option in said.get("options", ())]
                spelled = name + (":" + ",".join(names) if names else "")
                out.append(row(spelled, said["formula"], said["summary"], said.get("source", "")))
        out.append("")
    return "\n".join(out)


def test_the_catalogue_is_what_the_parts_declare():
    [(head, _)] = _CATALOGUE.findall(README.read_text(encoding="utf-8"))

    assert head + "\n" + written_catalogue() in README.read_text(encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = _BLOCK.sub(
            lambda m: f"```console\n{shown(m.group(1), Path(folder))}```", README.read_text(encoding="utf-8")
        )
    text = _CATALOGUE.sub(lambda m: f"{m.group(1)}\n{written_catalogue()}{m.group(2)}", text)
    README.write_text(text, encoding="utf-8")
