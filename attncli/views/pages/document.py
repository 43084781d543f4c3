"""A whole HTML document from its body: the template with title, style and policy filled in. Entry: `fill_template`."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files

from attncli.text import escape_json_controls
from attncli.types import Json

_SCRIPT_FILES = ("numbers.js", "controls.js", "maps.js", "panels.js", "editing.js")
_COMMENT = re.compile(r"^ *(/\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)  # one that has its lines for itself
# Nothing is loaded from anywhere: not by a mistake of ours either, nor by what an input holds.
STATIC_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
SHARED_SCRIPT_POLICY = "default-src 'none'; script-src 'self' file:; style-src 'unsafe-inline'; img-src data: blob:"
SCRIPT_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def fill_template(title: str, body: str, policy: str = STATIC_POLICY) -> str:
    """Return a whole document.

    Args:
        title: plain text.
        body: HTML.
        policy: what the browser may load and run.
    """
    parts = {"policy": policy, "title": html.escape(title), "style": read_part("page.css"), "body": body}
    pieces = []
    for piece in read_part("page.html").split("{{"):
        name, end, rest = piece.partition("}}")
        pieces.append(parts[name] + rest if end else piece)
    return "".join(pieces)


def element(name: str, text: str, attributes: str = "") -> str:
    """Return an element that holds text, which is escaped, in a direction of its own."""
    return f"<{name}{' ' * bool(attributes)}{attributes}>{escape_html(text)}</{name}>"


def escape_html(text: str) -> str:
    """Escape text, so that the browser shows it as it is."""
    return html.escape(text)


def json_for_html(record: Json) -> str:
    """Return JSON that no browser takes for markup, whatever its texts hold: `</script>` and `<!--` neither."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return escape_json_controls(text)


def read_part(name: str) -> str:
    """Return one of the files beside this module."""
    return (files("attncli.views.pages") / name).read_text(encoding="utf-8")


def read_script() -> str:
    """Return the script of a page: its files one after the other, without what only their readers need."""
    script = "".join(read_part(f"script/{name}") for name in _SCRIPT_FILES)
    return re.sub(r"\n\s+", "\n", _COMMENT.sub("", script))
