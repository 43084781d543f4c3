"""A page as one JSON record: schema attn.explain/1."""

from __future__ import annotations

from attncli.output_formats import RenderOptions
from attncli.text import escape_json_controls
from attncli.types import Json, to_json_number
from attncli.views.explain.rendered_page import RenderedPage, RenderedSection


def render_json(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page as one line of JSON."""
    import msgspec

    record = {
        "schema": "attn.explain/1",
        "title": page.explanation.title,
        "summary": page.explanation.summary,
        **({"settings": dict(page.explanation.settings)} if page.explanation.settings else {}),
        "sections": [_section_record(section) for section in page.sections],
        "closing": page.closing,
    }
    if page.formatter.gap_numbers:
        record["gaps"] = _gap_records(page)
    return escape_json_controls(msgspec.json.encode(record).decode()) + "\n"


def _section_record(rendered: RenderedSection) -> Json:
    section = rendered.section
    return {
        "title": section.title,
        "formula": section.formula,
        "remark": section.remark,
        "why": section.why,
        "idle": section.is_idle,
        "heading": section.is_heading,
        "lines": [
            {"label": line.label, "text": line.equation, "remark": line.remark, "rounded": line.is_rounded}
            for line in rendered.lines
        ],
    }


def _gap_records(page: RenderedPage) -> list[Json]:
    """Which cell each gap stands for, and with the answers its value."""
    formatter = page.formatter
    records: list[Json] = []
    for ((step, index), gap), value in zip(formatter.gap_numbers.items(), formatter.gap_values, strict=True):
        record: Json = {"gap": gap, "step": step, "index": list(index)}
        if formatter.worksheet.show_answers:
            record["value"] = to_json_number(value)
        records.append(record)
    return records
