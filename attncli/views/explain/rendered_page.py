"""A page with its lines printed, before a format lays them out. `render_page` is the entry, `RENDERERS` the formats."""

from __future__ import annotations

from dataclasses import dataclass

from attncli.output_formats import RenderOptions
from attncli.views.explain.lines import PrintedLine, print_lines
from attncli.views.explain.numbers import NumberFormatter
from attncli.views.explain.page import ExplanationPage, Section
from attncli.views.explain.worksheet import Worksheet, gap_lines

ROUNDED_MARK = "†"
GAPS_NOTE = "which cell each one is; fill them in, and the last line is the command that marks them"
_ROUNDED_NOTE = (
    f"{ROUNDED_MARK} the printed terms are rounded; the result comes from all digits, so its last digit can differ."
)


@dataclass(frozen=True)
class RenderedSection:
    """A section with its place in the derivation, which idle ones, headings and what is given have not, and its lines."""

    position: int  # counted from 1; 0: it is no step of the derivation
    section: Section
    lines: list[PrintedLine]

    @property
    def number(self) -> str:
        """The position as it is printed: ①."""
        return _circled_number(self.position) if self.position else ""

    @property
    def idle_text(self) -> str:
        """What the grey line of an idle section says."""
        return self.section.title or " ".join(line.equation for line in self.lines)


@dataclass(frozen=True)
class RenderedPage:
    """What every format writes: section by section, then what stands below."""

    explanation: ExplanationPage
    formatter: NumberFormatter
    sections: tuple[RenderedSection, ...]
    dtype: str
    check_command: str = ""  # that marks a worksheet

    @property
    def closing(self) -> str:
        """Where the query looks; a worksheet does not say it."""
        return "" if self.formatter.worksheet.blank_steps else self.explanation.closing

    @property
    def footer_lines(self) -> list[str]:
        """Where the query looks, and what rounding did."""
        lines = [] if self.formatter.worksheet.blank_steps else [self.explanation.closing]
        if any(line.is_rounded for section in self.sections for line in section.lines):
            half = f" Each result is rounded to {self.dtype}." if self.dtype in ("float16", "bfloat16") else ""
            lines.append(_ROUNDED_NOTE + half)
        return lines

    @property
    def gap_lines(self) -> list[str]:
        """Which cell each gap stands for, and the command that marks the sheet; none where there are no gaps."""
        lines = gap_lines(self.formatter.gap_numbers)
        return [*lines, self.check_command] if lines and self.check_command else lines


def render_page(
    explanation: ExplanationPage, render_options: RenderOptions, worksheet: Worksheet, dtype: str, *, full: bool
) -> RenderedPage:
    """Print the lines of every section in order, so that gaps are counted from the top.

    Args:
        explanation: the page.
        render_options: the precision counts here.
        worksheet: which steps are left blank.
        dtype: of the result; 0.3 as float32 is 0.30000001192…, and is printed 0.3.
        full: no vector is shortened.
    """
    exact_tolerance = 2e-7 if dtype == "float32" else 1e-12
    formatter = NumberFormatter(render_options.precision, worksheet, full, exact_tolerance)
    sections: list[RenderedSection] = []
    section_count = 0
    for section in explanation.sections:
        is_counted = section.is_numbered and not (section.is_idle or section.is_heading)
        section_count += is_counted
        position = section_count if is_counted else 0
        sections.append(RenderedSection(position, section, print_lines(section, formatter)))
    return RenderedPage(explanation, formatter, tuple(sections), dtype)


def _circled_number(number: int) -> str:
    return "①②③④⑤⑥⑦⑧⑨⑩"[number - 1] if number <= 10 else f"({number})"  # fonts that know ⑪ are few
