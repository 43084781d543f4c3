"""A result as tables of HTML for a notebook: no script, no style sheet, no class; every text is escaped. Entry: `write_html_tables`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice

from attncli.text import pluralize, printable, split_warning
from attncli.types import Attention
from attncli.views.heat_html import HtmlHeat, find_html_heat
from attncli.views.labelled_matrices import LabelledMatrix
from attncli.views.shown_indices import leading_and_trailing
from attncli.views.table_order import ResultTables

_MAX_ROWS, _MAX_COLUMNS = 20, 16  # of a table; of a longer one, its first and its last are shown
_MAX_TABLES = 40
_GAP = "…"
_ALIGN = "text-align:right"
_CELL = f'style="{_ALIGN}"'


def write_html_tables(attention: Attention, *, precision: int = 4, notes: Sequence[str] = ()) -> str:
    """Return every step that was kept, as tables; what is long is abbreviated, and says so.

    Args:
        attention: the result.
        precision: digits after the point.
        notes: what was found in the input, which stands above the tables.
    """
    summary = " · ".join(map(printable, attention.summary))
    lines = [*notes, summary, "rows = query (looks), columns = key (is looked at)"]
    head = "".join(f"<p>{escape(printable(line))}</p>" for line in lines)
    slices = ResultTables(attention, precision).slices()
    tables = "".join(_format_matrix(one.matrix()) for one in islice(slices, _MAX_TABLES))
    rest = sum(1 for _ in slices)
    more = f"<p>{pluralize(rest, 'more table')}: to_text() has them all, at={{…}} chooses</p>" if rest else ""
    warnings = "".join(
        f"<p><b>warning[{escape(code)}]</b>: {escape(printable(message))}</p>"
        for code, message in map(split_warning, attention.warnings)
    )
    return f'<div style="overflow-x: auto">{head}{tables}{more}{warnings}</div>'


def write_html_text(text: str) -> str:
    """Return text as it is laid out."""
    return f'<pre style="line-height: 1.3">{escape(text)}</pre>'


def _format_matrix(matrix: LabelledMatrix) -> str:
    rows = leading_and_trailing(len(matrix.row_labels), _MAX_ROWS)
    width = len(matrix.column_labels)
    columns = [*leading_and_trailing(width, _MAX_COLUMNS), *range(width, len(matrix.cell_labels))]
    remark = f" ({escape(matrix.remark)})" if matrix.remark else ""
    left_out = None in rows or None in columns
    size = f" · {len(matrix.row_labels)} × {width}" if left_out else ""
    heat = find_html_heat(matrix)
    legends = [*map(escape, matrix.statistics_legend), *([heat.legend()] if heat else [])]
    legend = "".join(f"<br>{text}" for text in legends)
    labels = [escape(_GAP if c is None else matrix.cell_labels[c]) for c in columns]
    head = "".join(f'<th scope="col" {_CELL}>{label}</th>' for label in labels)
    body = "".join(_format_rows(matrix, heat, rows, columns))
    return (
        f'<table style="margin: 0.6em 0"><caption style="caption-side: top; text-align: left"><b>{escape(matrix.title)}</b>{size} {escape(str(matrix.formula))}{remark}{legend}</caption>'
        f"<thead><tr><th>{escape(matrix.corner_label)}</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _format_rows(
    matrix: LabelledMatrix, heat: HtmlHeat | None, rows: Sequence[int | None], columns: Sequence[int | None]
) -> Iterator[str]:
    for r in rows:
        if r is None:
            yield f'<tr><th scope="row">{_GAP}</th>{"<td></td>" * len(columns)}</tr>'
            continue
        [cells] = matrix.format_rows(r, r + 1)
        styles = heat.cell_styles(r, cells) if heat else [""] * len(cells)
        texts = "".join(
            f"<td {_CELL}>{_GAP}</td>"
            if c is None
            else f'<td style="{";".join(filter(None, (_ALIGN, styles[c])))}">{escape(cells[c])}</td>'
            for c in columns
        )
        yield f'<tr><th scope="row">{escape(matrix.row_labels[r])}</th>{texts}</tr>'
