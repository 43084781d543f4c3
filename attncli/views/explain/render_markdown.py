"""A page in Markdown: a heading a section, its lines in a code block, where every character stands as it is."""

from __future__ import annotations

from attncli.output_formats import RenderOptions
from attncli.views.explain.layout import LEFT_MARGIN_WIDTH, layout_lines
from attncli.views.explain.rendered_page import GAPS_NOTE, RenderedPage, RenderedSection
from attncli.views.text import escape_markdown, formula_in_markdown


def render_markdown(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page in Markdown."""
    paragraphs = [f"# {escape_markdown(page.explanation.title)}", escape_markdown(page.explanation.summary)]
    for section in page.sections:
        paragraphs += _section_paragraphs(section)
    paragraphs += map(escape_markdown, page.footer_lines)
    if page.gap_lines:
        paragraphs += ["## Gaps", GAPS_NOTE, _code_block(page.gap_lines)]
    return "\n\n".join(paragraphs) + "\n"


def _section_paragraphs(rendered: RenderedSection) -> list[str]:
    section = rendered.section
    if section.is_heading:
        return [f"# {escape_markdown(section.title)}"]
    if section.is_idle:
        return [f"*{escape_markdown(rendered.idle_text)}*"]
    remark = f" ({escape_markdown(section.remark)})" if section.remark else ""
    paragraphs = [f"## {rendered.number} {escape_markdown(section.title)}".replace("  ", " ")]
    if section.formula + remark:
        paragraphs.append((formula_in_markdown(section.formula) + remark).lstrip())
    if section.why:
        paragraphs.append(f"*{escape_markdown(section.why)}*")
    lines = ["".join(text for text, _ in line)[LEFT_MARGIN_WIDTH:] for line in layout_lines(rendered.lines, None)]
    if lines:
        paragraphs.append(_code_block([line.rstrip().replace("```", "'''") for line in lines]))
    return paragraphs


def _code_block(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```"])
