"""The documentation as something that can be run.

A page is a Markdown file. Its fenced blocks are executed in order, in a folder of the page's own that holds
`sample_inputs/`:

* ```` ```console ```` : every line that begins with `$ ` is run by `sh`; what it prints, standard error beside standard
  output, stands below it.
* ```` ```LANGUAGE title="NAME" ```` : the block is the content of the file NAME, which is written for the blocks below.
* ```` ```python ```` followed by ```` ```text ```` : the code is run; the text is what it prints.
* ```` ```sh ```` : commands that need a network, a cluster or an installation; they are not run, but their `attn` lines
  must be command lines that attn accepts.

Four more things are written from the code: `<!-- source: FILE NAME -->` before a Python block is followed by the source
of that function, `<!-- catalogue -->` by the tables of every part and named variant, `<!-- dependencies -->` by the
packages that attn installs, and `<!-- api -->` by the reference of the Python interface.
"""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.docs.api_reference import api_reference
from tests.docs.dependencies import dependency_table
from tests.helpers import ROOT, TIMEOUT
from tests.warm import WarmProgram

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_LONG_NUMBER = re.compile(r"-?\d+\.\d{14,}(?:e[+-]?\d+)?")
_CATALOGUE = re.compile(r"(?<=<!-- catalogue -->\n).*?(?=<!-- end of the catalogue -->)", re.DOTALL)
_DEPENDENCIES = re.compile(r"(?<=<!-- dependencies -->\n).*?(?=<!-- end of the dependencies -->)", re.DOTALL)
_API = re.compile(r"(?<=<!-- api -->\n).*?(?=<!-- end of the api -->)", re.DOTALL)
_SOURCE = re.compile(r"(<!-- source: (\S+) (\w+) -->\n```python\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)


def agree(shown: str, printed: str) -> bool:
    """Whether two texts are equal, where numbers of 15 digits and more may differ in rounding (another processor)."""
    if _LONG_NUMBER.sub("#", shown) != _LONG_NUMBER.sub("#", printed):
        return False
    pairs = zip(_LONG_NUMBER.findall(shown), _LONG_NUMBER.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-13) for a, b in pairs)


def pages() -> list[Path]:
    """Every page whose blocks are executed."""
    named = [ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md")]
    return [*named, *sorted((ROOT / "docs").rglob("*.md"))]


class Shell:
    """Runs shell commands whose `attn` and `python` are forks of one warm process."""

    def __init__(self, program: WarmProgram) -> None:
        self.environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
        self.environment |= {"PATH": f"{program.bin}{os.pathsep}{os.environ['PATH']}", "PYTHONUTF8": "1"}
        self.environment |= {"OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}

    def run(self, command: str, folder: Path) -> str:
        """What one command prints, standard error beside standard output."""
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=self.environment,
            timeout=TIMEOUT,
            check=False,
        )
        return done.stdout


@dataclass
class Block:
    """One fenced block of a page."""

    page: Path
    language: str
    title: str | None
    body: str
    indent: int
    start: int  # where the body begins in the page's text
    line: int

    @cached_property
    def text(self) -> str:
        """The body without the indentation of the fence (a block inside a list or a tab)."""
        return "".join(line[self.indent :] if line.strip() else "\n" for line in self.body.splitlines(keepends=True))

    @property
    def commands(self) -> list[str]:
        """The commands of a console block; a line that ends in a backslash goes on in the next."""
        found: list[str] = []
        continued = False
        for line in self.text.splitlines():
            if continued:
                found[-1] += "\n" + line.removeprefix("> ")
            elif line.startswith("$ "):
                found.append(line[2:])
            continued = (continued or line.startswith("$ ")) and line.endswith("\\")
        return found

    @property
    def name(self) -> str:
        """A readable identity: the page, the line, and how it begins."""
        first = (self.commands or [self.title or self.text.strip().partition("\n")[0]])[0]
        return f"{self.page.relative_to(ROOT)}:{self.line} {first.partition(chr(10))[0][:60]}"

    def __str__(self) -> str:
        return self.name


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            m["language"],
            m["title"],
            m["body"],
            len(m["indent"]),
            m.start("body"),
            text.count("\n", 0, m.start()) + 1,
        )
        for m in _FENCE.finditer(text)
    ]


@dataclass
class PageRun:
    """The execution of one page: blocks run in order, each at most once, in one folder."""

    page: Path
    shell: Shell
    folder: Path
    printed: dict[int, str] = field(default_factory=dict)  # start of a block → what stands in it after it has run

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "sample_inputs", self.folder / "sample_inputs")
        self._pending = self._execute()

    def shown(self, block: Block) -> str:
        """The block as it would be written now; blocks above it are run first."""
        while block.start not in self.printed:
            next(self._pending)
        return self.printed[block.start]

    def _execute(self) -> Iterator[None]:
        code: str | None = None
        for block in blocks(self.page):
            text = block.text
            if block.title:
                target = self.folder / block.title
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            elif block.language == "console":
                text = self._console(block)
            elif block.language == "text" and code is not None:
                (self.folder / ".example.py").write_text(code, encoding="utf-8")
                text = self.shell.run("python .example.py", self.folder)
                (self.folder / ".example.py").unlink()
            code = block.text if block.language == "python" else None
            self.printed[block.start] = text
            yield

    def _console(self, block: Block) -> str:
        lines: list[str] = []
        for command in block.commands:
            lines.append("$ " + command.replace("\n", "\n> "))
            lines.append(self.shell.run(command, self.folder).rstrip("\n"))
        return "\n".join(line for line in lines if line) + "\n"


def rewritten(page: Path, shell: Shell) -> str:
    """The page with what its commands print today, and what is written from the code."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        run = PageRun(page, shell, Path(folder) / "page")
        for block in reversed(blocks(page)):
            if agree(block.text, run.shown(block)):
                continue
            new = "".join(
                " " * block.indent + line if line.strip() else line
                for line in run.shown(block).splitlines(keepends=True)
            )
            text = text[: block.start] + new + text[block.start + len(block.body) :]
    text = _CATALOGUE.sub(lambda _: f"\n{catalogue_tables()}\n", text)
    text = _API.sub(lambda _: f"\n{api_reference()}\n", text)
    return with_sources(_DEPENDENCIES.sub(lambda _: f"\n{dependency_table()}\n", text))


def with_sources(text: str) -> str:
    """A page with the source of each function that it quotes."""
    return _SOURCE.sub(lambda m: m[1] + source_of(m[2], m[3]), text)


def source_of(file: str, name: str) -> str:
    """The source of a function, with its decorators."""
    text = (ROOT / file).read_text(encoding="utf-8")
    [found] = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name]
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)])
    return "".join(text.splitlines(keepends=True)[first - 1 : found.end_lineno])


def catalogue_tables() -> str:
    """Every part and named variant as tables, from what they declare."""
    from attncli.catalogue import build_catalogue
    from attncli.views.text import escape_markdown

    def row(name: str, *cells: str) -> str:
        return f"| {' | '.join([f'`{name}`' if len(name) < 30 else escape_markdown(name), *map(escape_markdown, cells)])} |"

    out: list[str] = []
    for family, members in build_catalogue().items():
        if family in ("steps", "formats", "choices"):
            continue
        out += [f"## {family}", ""]
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
