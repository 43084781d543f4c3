"""A page for people: on a terminal with colours and folded to its width, elsewhere as plain text."""

from __future__ import annotations

import io
import re
import textwrap

from rich.cells import cell_len
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import to_ascii
from attncli.views.console import console_for
from attncli.views.explain.layout import LEFT_MARGIN_WIDTH, StyledFragment, layout_lines
from attncli.views.explain.rendered_page import GAPS_NOTE, RenderedPage, RenderedSection

_UNFOLDED_WIDTH = 10**6


def render_text(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page as text."""
    return _TextWriter(render_options).write_page(page)


class _TextWriter:
    """Prints a page piece by piece on a console that keeps what it is given."""

    def __init__(self, render_options: RenderOptions) -> None:
        self.has_unicode, self.width = render_options.has_unicode, render_options.width
        self.out = io.StringIO()
        self.console = console_for(self.out, render_options)

    def write_page(self, page: RenderedPage) -> str:
        self._write_folded(page.explanation.title, "bold")
        self._write_folded(page.explanation.summary, "dim")
        for section in page.sections:
            self._write(("", ""))
            self._write_section(section)
        self._write(("", ""))
        for line in page.footer_lines:
            self._write_folded(line, "bold" if line == page.explanation.closing else "dim")
        if page.gap_lines:
            self._write(("Gaps", "bold"), (f"   {GAPS_NOTE}", "dim"))
            for line in page.gap_lines:
                self._write((line, ""))
        return self.out.getvalue()

    def _write_section(self, rendered: RenderedSection) -> None:
        section = rendered.section
        if section.is_heading:
            self._write((f"── {section.title} ──", "bold"))
            return
        if section.is_idle:
            self._write_folded(f"  – {rendered.idle_text}", "dim", "    ")
            return
        title = (f"{rendered.number} {section.title}".lstrip(), "bold")
        formula = (f"   {section.formula}" if section.formula else "", "")
        remark = (f"   ({section.remark})" if section.remark else "", "dim")
        margin = " " * LEFT_MARGIN_WIDTH
        if self.width and sum(cell_len(text) for text, _ in (title, formula, remark)) > self.width:
            self._write(title)
            self._write_folded(margin + section.formula, "", margin)
            self._write_folded(margin + remark[0].strip(), "dim", margin)
        else:
            self._write(title, formula, remark)
        if section.why:
            self._write_folded(margin + section.why, "italic", margin)
        for fragments in layout_lines(rendered.lines, self.width):
            self._write(*fragments)

    def _write(self, *fragments: StyledFragment) -> None:
        """One line."""
        text = Text()
        for piece, style in fragments:
            text.append(piece if self.has_unicode else _page_in_ascii(piece), style=style or None)
        self.console.print(text, soft_wrap=True)

    def _write_folded(self, text: str, style: str, indent: str = "") -> None:
        """As many lines as the terminal needs."""
        for line in textwrap.wrap(text, self.width or _UNFOLDED_WIDTH, subsequent_indent=indent):
            self._write((line, style))


def _page_in_ascii(text: str) -> str:
    """A page without symbols; 2·3 becomes 2*3, not 2.3."""
    return to_ascii(re.sub(r"(?<=\S)·(?=\S)", "*", text))
