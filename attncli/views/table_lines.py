"""The lines of one table, put together cell by cell: `TableLines`.

They look as those of a Rich table do, which would take a hundred times as long: it measures, wraps and cuts each cell. And
cells with a colour behind them touch each other, whereas Rich leaves the gaps between columns uncoloured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attncli.views.table_style import StyledCell, TableStyle, pad_left, pad_right


class TableLines:
    """The lines of one table, or of some of its columns."""

    def __init__(
        self,
        style: TableStyle,
        corner_label: str,
        labels: Sequence[str],
        widths: Sequence[int],
        *,
        row_label_width: int,
        statistic_count: int,
        is_narrow: bool,
    ) -> None:
        """Prepare a table.

        Args:
            style: of its cells.
            corner_label: above the labels of the rows.
            labels: above the cells of a row.
            widths: of these cells.
            row_label_width: of the labels of the rows.
            statistic_count: how many of the cells, at the end, are statistics.
            is_narrow: whether every character of a cell takes one column.
        """
        self._style = style
        self._corner_label = corner_label
        self._labels = labels
        self._widths = widths
        self._row_label_width = row_label_width
        self._statistics_from = len(labels) - statistic_count
        self._pad = str.rjust if is_narrow else pad_left
        self._divider = f" {style.box.head_vertical} "

    @property
    def width(self) -> int:
        """How many columns a line takes."""
        return self._row_label_width + sum(len(self._divider) + width for width in self._widths)

    def head(self) -> str:
        """The labels of the columns, and a rule."""
        paint, widths = self._style.paint, self._widths
        styles = ["" if c < self._statistics_from else "dim" for c in range(len(widths))]
        corner = paint(pad_right(self._corner_label, self._row_label_width), "dim")
        cells = map(paint, map(pad_left, self._labels, widths), styles)
        padded_widths = [
            self._row_label_width + 1,
            *(width + 2 for width in widths[:-1]),
            *(w + 1 for w in widths[-1:]),
        ]
        rule = self._style.box.get_row(padded_widths, "head", edge=False)
        return f"{self._divider.join((corner, *cells))}\n{rule}\n"

    def plain_rows(self, row_labels: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
        """Rows without any style."""
        pad, widths, join = self._pad, self._widths, self._divider.join
        lines = (
            join((pad_right(label, self._row_label_width), *map(pad, cells, widths)))
            for label, cells in zip(row_labels, rows, strict=True)
        )
        return "".join(f"{line}\n" for line in lines)

    def rows(self, row_labels: Iterable[str], rows: Iterable[Sequence[StyledCell]]) -> str:
        """Rows in their styles: what is between two cells belongs to the second, but for its first column."""
        find_codes, pad, gap = self._style.codes, self._pad, self._divider[1:]
        blank = " " * len(gap)
        lines = []
        for label, cells in zip(row_labels, rows, strict=True):
            parts = [pad_right(label, self._row_label_width), " "]
            for (text, style, glyph, is_filled), width in zip(cells, self._widths, strict=True):
                before, after = find_codes(style)
                if is_filled:
                    parts.append(f"{before}{blank}{pad(text, width)} {after}")
                elif glyph:
                    parts.append(f"{gap}{before}{pad(text, width - 1)}{after}{glyph} ")
                else:
                    parts.append(f"{gap}{before}{pad(text, width)}{after} ")
            line = "".join(parts)
            lines.append(line if cells[-1].is_filled else line[:-1])
        return "".join(f"{line}\n" for line in lines)
