"""What a run warns of: which queries see no key, weights that are not finite or negative. Entry: `RunWarnings`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attncli.core.tiles import Tile
from attncli.plan import Plan
from attncli.plan.summary import describe_rows
from attncli.validation.fields import as_numpy


class RunWarnings:
    """The warnings of one run: their codes, and the rows that some of them name."""

    def __init__(self) -> None:
        self.codes: set[str] = set()  # of warnings that name no rows
        self.rows: dict[str, Tensor] = {}  # code → the rows that the warning names, (b, h, n)

    def add(self, unusual: Mapping[str, Tensor | None], plan: Plan, tile: Tile | None) -> None:
        """Remember warnings by code, with the rows of a tile that they name, (b, h, n), or None if they name none."""
        for code, marked in unusual.items():
            if marked is None:
                self.codes.add(code)
            elif marked.any():
                b, h, n = plan.size.batch or 1, plan.shapes.heads, plan.axis_length("scores", "query")
                rows = self.rows.setdefault(code, torch.zeros(b, h, n, dtype=torch.bool))
                select_rows(rows, tile)[:] = marked.cpu()

    def messages(self, plan: Plan) -> list[str]:
        """Return the plan's warnings and those of the run, as "code: sentence"."""
        variant = plan.variant
        sentences = {
            "not-finite": f"some scores, weights or sums of values are not finite: a visible NaN or ∞, or numbers beyond {variant.dtype}",
            "negative-weights": f"with {variant.normalizer.name}, negative scores give negative weights",
            "zero-sum": "{}: scores sum to 0, so weights are 0",
            "rounded-sum": "{}: scores sum to 0 but for rounding, so no digit of the weights is certain",
            "empty-rows": {
                "zero": "{} see no key: weights and context are 0",
                "nan": "{} see no key: weights and context are NaN",
                "uniform": "{} see no key: weights are uniform over all keys",
            }.get(variant.empty_rows, ""),
            "no-entropy": "some weights are negative, and the entropy there is NaN",
        }
        messages = list(plan.warnings)
        for code, sentence in sentences.items():
            if code in self.rows:
                rows = describe_rows(as_numpy(self.rows[code]), plan)  # "queries 0 and 2 see"
                names, _, verb = rows.rpartition(" ")
                messages.append(f"{code}: {sentence.replace('{} see', f'{names} {verb}').replace('{}', names)}")
            elif code in self.codes:
                messages.append(f"{code}: {sentence}")
        return messages


def select_rows(rows: Tensor, tile: Tile | None) -> Tensor:
    """Return a tile's part of (b, h, n); None: all."""
    return rows if tile is None else tile.select(rows[..., None], has_key_axis=False)[..., 0]
