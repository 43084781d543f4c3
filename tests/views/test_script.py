"""The script of a page is linted: it parses, and every name is declared once, used, and not changed where it is a constant."""

from __future__ import annotations

import pytest

pytest.importorskip("tree_sitter_javascript", reason="the extra dev installs the parser of JavaScript")

from importlib.resources import files

from attncli.views.pages.document import _SCRIPT_FILES, read_script
from tests.views.javascript import BROWSER_NAMES, lint, words_of


def test_the_script_of_a_page_is_sound():
    script = read_script()

    assert lint(script) == []
    assert [name for name in sorted(BROWSER_NAMES) if name not in script] == []


def test_a_page_holds_every_word_of_the_script_but_its_comments():
    folder = files("attncli.views.pages") / "script"
    whole = "".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPT_FILES)

    assert words_of(read_script()) == words_of(whole)
    assert "/*" not in read_script()


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        ("const a = ;", "1: this is no JavaScript"),
        ("function f() {\n  return 1;", "2: this is no JavaScript"),
        ("document.title = titel;", "1: titel is declared nowhere"),
        ("const f = ({ a, b: [c = 1, ...d] }, e = a) => a + c + d + e;\nf(b);", "2: b is declared nowhere"),
        ("{\n  const a = 1;\n  document.title = a;\n}\ndocument.title = a;", "5: a is declared nowhere"),
        ("for (const i of []) document.title = i;\ndocument.title = i;", "2: i is declared nowhere"),
        ("document.title = { title };", "1: title is declared nowhere"),
        ("const a = 1;", "1: a is never used"),
        ("let a = 1;\na = 2;", "1: a is never used"),
        ("function f() {}\nconst { a, b } = {};\nf(a);", "2: b is never used"),
        ("const a = 1;\na += 1;", "2: a is a constant"),
        ("let i = 0;\nlet i = 1;\ndocument.title = i;", "2: i is declared twice"),
        ("let a = 1;\nif (a == 2) a = 3;", "2: == converts types"),
    ],
)
def test_what_is_wrong_is_found(script, finding):
    assert lint(script) == [finding]


def test_what_is_right_is_not_found():
    script = """
        const { a, b: [c], ...d } = JSON.parse("{}");
        const f = (x, { y = a, ...z } = {}) => { try { return x + y + z.w?.v ?? c; } catch (error) { return `${error} ${d.e}`; } };
        function g(...all) { for (let i = 0, n = all.length; i < n; i++) if (all[i] == null) continue; return late; }
        class Table { draw(row) { return { row, key: row.f, [a]: this.g }; } }
        const late = new Table();
        document.title = f(g(1)) + late.draw(2);
    """

    assert lint(script) == []
