"""A page as an HTML document without a script: each section with its formula, its reasons and its lines."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.output_formats import RenderOptions
from attncli.views.explain.lines import PrintedLine
from attncli.views.explain.rendered_page import GAPS_NOTE, ROUNDED_MARK, RenderedPage, RenderedSection
from attncli.views.pages.document import element, escape_html, fill_template


def render_html(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page as a document that opens without a network."""
    title = page.explanation.title
    pieces = [
        "<header>",
        element("h1", title),
        element("p", page.explanation.summary, 'class="quiet"'),
        "</header>",
        *(piece for section in page.sections for piece in _section_elements(section)),
        '<footer class="panel">',
        *(element("p", line) for line in page.footer_lines),
        "</footer>",
    ]
    if page.gap_lines:
        pieces += ["<section>", element("h2", "Gaps"), element("p", GAPS_NOTE, 'class="quiet"')]
        pieces += [*(element("p", line) for line in page.gap_lines), "</section>"]
    return fill_template(title, f'<main class="board">\n{chr(10).join(pieces)}\n</main>')


def _section_elements(rendered: RenderedSection) -> Iterator[str]:
    section = rendered.section
    if section.is_heading:
        yield element("h1", section.title)
        return
    if section.is_idle:
        yield element("p", f"– {rendered.idle_text}", 'class="quiet"')
        return
    yield "<section>"
    yield element("h2", f"{rendered.number} {section.title}".lstrip())
    if section.formula:
        yield element("p", section.formula, 'class="formula"')
    if section.why:
        yield element("p", section.why)
    if rendered.lines:
        yield f'<div class="scroll"><table class="lines"><tbody>{"".join(map(_row, rendered.lines))}</tbody></table></div>'
    if section.remark:
        yield element("p", section.remark, 'class="quiet"')
    yield "</section>"


def _row(line: PrintedLine) -> str:
    rounded = f" {ROUNDED_MARK}" if line.is_rounded else ""
    cells = (f"<bdi>{escape_html(line.label)}</bdi>", escape_html(line.equation + rounded), escape_html(line.remark))
    label, equation, remark = cells
    return f'<tr><td class="quiet">{label}</td><td>{equation}</td><td class="quiet">{remark}</td></tr>\n'
