"""The documentation is executed: what a page shows is what its commands print today.

`just docs` writes what they print into the pages.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.docs.api_reference import api_reference
from tests.docs.dependencies import dependency_table
from tests.docs.notebook import NOTEBOOKS, execute, outputs
from tests.docs.pages import ROOT, Block, PageRun, Shell, agree, blocks, catalogue_tables, pages, with_sources
from tests.pictures.terminal import IMAGES, PICTURES, draw, texts

pytestmark = pytest.mark.slow

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
ERRORS = (DOCS / "errors.md").read_text(encoding="utf-8")


def identity(value: Block | Path) -> str:
    return value.name if isinstance(value, Block) else str(value.relative_to(ROOT))


def executed() -> list[Block]:
    """Blocks that print something: console blocks, and the text below a Python block."""
    found = []
    for before, block in zip([None, *BLOCKS], BLOCKS, strict=False):
        of_python = before is not None and before.page == block.page and before.language == "python"
        if block.language == "console" or (block.language == "text" and of_python):
            found.append(block)
    return found


@pytest.fixture(scope="session")
def shell(warm):
    return Shell(warm)


@pytest.fixture(scope="session")
def runs(shell, tmp_path_factory):
    """Page → its execution so far: blocks of a page share a folder, and run in order."""
    started: dict[Path, PageRun] = {}

    def of(page: Path) -> PageRun:
        if page not in started:
            started[page] = PageRun(page, shell, tmp_path_factory.mktemp("pages") / page.stem)
        return started[page]

    return of


@pytest.mark.parametrize("block", executed(), ids=identity)
def test_a_block_shows_what_its_commands_print(block, runs):
    if any(re.search(r"\bjq\b", command) for command in block.commands) and not shutil.which("jq"):
        pytest.skip("this block needs jq")

    printed = runs(block.page).shown(block)

    if not agree(block.text, printed):
        assert printed == block.text, "`just docs` writes what is printed today"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=identity)
def test_a_json_block_is_json_and_if_it_is_a_problem_it_can_be_computed(block, tmp_path):
    import attncli

    held = json.loads(block.text)

    if isinstance(held, dict) and {"embeddings", "q"} & held.keys():
        (tmp_path / "problem.json").write_text(block.text, encoding="utf-8")
        assert "weights" in attncli.attend(attncli.read(tmp_path / "problem.json"))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=identity)
def test_commands_that_are_not_executed_are_command_lines_that_attn_accepts(block, shell, tmp_path):
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    for line in lines:
        for part in re.split(r"\|(?=\s)|&&", line.partition(" #")[0]):
            words = part.split(">")[0].strip()
            if not words.startswith("attn ") or "$" in words:
                continue
            said = shell.run(f"{words} --error-format json 2>&1; echo status $?", tmp_path)
            is_accepted = re.search(r"status [0134]$", said) or '"code": "no-model"' in said  # a model is not here
            assert is_accepted, (words, said)


def test_every_block_has_a_known_language():
    assert {block.language for block in BLOCKS} <= {"console", "sh", "json", "python", "text", "csv", "ndjson", "toml"}


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_quoted_sources_are_the_code(page):
    text = page.read_text(encoding="utf-8")

    assert with_sources(text) == text


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=identity)
def test_links_lead_to_files_and_headings_that_exist(page):
    text = re.sub(r"```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path), link


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site both make them."""
    text = re.sub(r"```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_catalogue_is_what_the_parts_declare():
    text = (DOCS / "catalogue.md").read_text(encoding="utf-8")

    assert f"<!-- catalogue -->\n\n{catalogue_tables()}\n<!-- end of the catalogue -->" in text


def test_the_reference_of_the_python_interface_is_what_its_docstrings_say():
    text = (DOCS / "api.md").read_text(encoding="utf-8")

    assert f"<!-- api -->\n\n{api_reference()}\n<!-- end of the api -->" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=identity)
@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_a_notebook_shows_what_its_cells_show_today(path, tmp_path):
    kept = json.loads(path.read_text(encoding="utf-8"))

    shown = execute(path, tmp_path / "notebook")

    assert len(outputs(kept)) > 10
    assert agree(json.dumps(outputs(kept)), json.dumps(outputs(shown)))


def test_every_dependency_is_listed_with_its_licence():
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8")

    assert f"<!-- dependencies -->\n\n{dependency_table()}\n<!-- end of the dependencies -->" in text
    assert "|  |" not in text  # each says what its licence is


def test_every_command_has_a_heading_and_is_in_the_readme():
    from attncli.cli import app

    headings = "\n".join(re.findall(r"^#+ .*$", "".join(p.read_text(encoding="utf-8") for p in PAGES), re.MULTILINE))
    for command in app.registered_commands:
        assert f"`attn {command.name}`" in headings, command.name
        assert f"attn {command.name}" in README, command.name


def test_every_option_of_every_command_is_documented():
    import typer

    from attncli.cli import app

    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert re.search(rf"{re.escape(option)}(?![\w-])", text), (name, option)


def test_every_exit_status_is_documented():
    from attncli.errors import ExitStatus

    for status in ExitStatus:
        assert re.search(rf"^\| {int(status)} \|", ERRORS, re.MULTILINE), status


def code_calls() -> list[tuple[str, str]]:
    """(code, name of what is called) of every error that the code can raise."""
    found = []
    for path in (ROOT / "attncli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Return(ast.Tuple([ast.Constant(str(code)), ast.Constant() | ast.JoinedStr(), *_])):
                    found += [(code, "")] if re.fullmatch(r"[a-z]+(-[a-z]+)+", code) else []
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            if not re.search(r"(Error|error|wrong|refuse)$", called) or called == "register_error":
                continue
            codes = [node.args[0]]
            if isinstance(codes[0], ast.IfExp):
                codes = [codes[0].body, codes[0].orelse]
            for code in codes:
                if isinstance(code, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z]+)*", str(code.value)):
                    found.append((code.value, called))
                elif isinstance(code, ast.JoinedStr) and ast.unparse(code).startswith("f'unknown-"):
                    found += [(f"unknown-{family}", called) for family in families()]
    return found


def families() -> list[str]:
    from attncli.variant import FAMILIES

    return [family.name for family in FAMILIES.values()]


def test_every_error_code_is_documented_and_no_other():
    documented = set(
        re.findall(r"^\| `([a-z-]+)` \|", ERRORS.partition("## Error codes")[2].partition("## Warn")[0], re.MULTILINE)
    )

    assert documented == {code for code, _ in code_calls()}


def test_the_documented_exit_statuses_of_errors_are_those_of_their_classes():
    statuses = {"OptionError": "2", "InputError": "3", "CannotError": "4"}
    for code, called in code_calls():
        if called in statuses:
            [documented] = re.findall(rf"^\| `{code}` \| ([\d, ]+) \|", ERRORS, re.MULTILINE)
            assert statuses[called] in documented.split(", "), (code, called)


def test_every_warning_code_is_documented():
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", ERRORS.partition("## Warnings")[2], re.MULTILINE))

    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "attncli").rglob("*.py"))
    for code in documented:
        assert f'"{code}' in source, code
    assert {"unused-field", "left-out", "widened", "drawn-seed"} <= documented


def test_the_first_two_commands_of_the_readme_are_all_the_set_up():
    lines = [line for block in blocks(ROOT / "README.md") if block.language == "sh" for line in block.text.splitlines()]

    assert lines[0] == "python -m pip install -c constraints.txt . && attn demo"
    assert lines[1] == "python -m pip install -c constraints.txt '.[dev]' && python -m pytest"


@pytest.mark.parametrize("block", executed(), ids=identity)
def test_no_block_shows_a_program_that_fails(block):
    """What `just docs` wrote where an example had stopped working would pass for what it prints."""
    assert "Traceback (most recent call last)" not in block.text
    assert "error[bug]" not in block.text


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 250


def test_pictures_show_what_their_commands_print():
    for name in PICTURES:
        assert texts((IMAGES / name).read_text(encoding="utf-8")) == texts(draw(name)), name


def test_every_page_is_in_the_navigation_of_the_site():
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in named


def test_words_with_options_in_tables_are_shell_words():
    """A command in backticks can be pasted: its quotes are closed."""
    for page in PAGES:
        for command in re.findall(r"`(attn [^`]+)`", page.read_text(encoding="utf-8")):
            shlex.split(command)


@pytest.mark.parametrize("page", [ROOT / "DESIGN.md", ROOT / "CONTRIBUTING.md"], ids=identity)
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"`([a-z_/]+\.py|[a-z_/]+/)`", page.read_text(encoding="utf-8"))) - {"site/"}

    assert {name for name in named if not (ROOT / name).exists() and not (ROOT / "attncli" / name).exists()} == set()
