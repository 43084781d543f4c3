"""What the shades of a step stand for: `choose_scale`. Whatever shows them, a terminal or a page, asks the same scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attncli.output_formats import Normalize
from attncli.types import NumpyArray
from attncli.views.labelled_matrices import WEIGHT_STEPS, LabelledMatrix

# From 0 upwards, unless a variant makes them negative.
_AMOUNTS = (*WEIGHT_STEPS, "top_weights", "sink_weights", "entropy")
_MAX_KEYS_OF_ONE_SCALE = 16  # with more keys, weights are small, and are shaded by their share of the row's largest
_ROUNDING = 1e-3  # weights of few digits may exceed 1 by so much
_LEGEND_NUMBERS = 9  # evenly from one end of the scale to the other


@dataclass(frozen=True)
class Scale:
    """What shades stand for: numbers from 0, or from −`largest`, to `largest`; or shares of the largest of each row."""

    largest: float  # in the whole step; where numbers are shaded by row, the size of one row's
    is_signed: bool = False  # there are negative numbers
    is_by_row: bool = False

    @property
    def unit(self) -> str:
        """What the numbers of `spell` are of."""
        return "% of the row's largest" if self.is_by_row else "for all rows"

    def spell(self, share: float) -> str:
        """Return the number that a share stands for, in few digits; the share in percent where rows differ."""
        if self.is_by_row:
            return f"{100 * share:.0f}"
        number = share * self.largest
        return f"{number:.2f}" if 0.1 <= abs(number) < 10 or not number else f"{number:.3g}"

    def legend(self) -> Iterator[tuple[float, str]]:
        """Yield where a number stands between the two ends of the scale, from 0 to 1, and the number: nine, evenly spaced."""
        for i in range(_LEGEND_NUMBERS):
            place = i / (_LEGEND_NUMBERS - 1)
            yield place, self.spell(2 * place - 1 if self.is_signed else place)

    def shares(self, values: NumpyArray) -> NumpyArray:
        """Return numbers as shares of the largest, from 0 or −1 to 1; NaN where one is not finite.

        Args:
            values: whole rows: (row, column).
        """
        finite = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        if not self.is_by_row:
            return finite / self.largest
        largest = np.fmax.reduce(np.abs(finite), axis=-1, keepdims=True, initial=0.0)
        return finite / np.where(largest > 0, largest, 1.0)


def choose_scale(
    step_name: str, value_range: tuple[float, float], column_count: int, normalize: Normalize | None
) -> Scale:
    """Choose what the shades of a step stand for.

    Args:
        step_name: weights go from 0 to 1; scores and vectors have a sign, whether or not a negative one is there.
        value_range: the smallest and the largest finite number of the step.
        column_count: how many numbers a row has.
        normalize: one scale for the whole step, or one for each row; None: by row for many weights.
    """
    smallest, largest = value_range
    is_weights = step_name in WEIGHT_STEPS
    is_signed = step_name not in _AMOUNTS or smallest < 0
    is_by_row = normalize == "row" or (
        normalize is None and is_weights and not is_signed and column_count > _MAX_KEYS_OF_ONE_SCALE
    )
    if is_by_row or (is_weights and not is_signed and largest <= 1 + _ROUNDING):
        return Scale(1.0, is_signed, is_by_row)
    return Scale(max(-smallest, largest) or 1.0, is_signed)


def find_levels(shares: NumpyArray, count: int, *, is_signed: bool = False) -> NumpyArray:
    """Return which of so many levels each share has: integers; −1 where it is NaN.

    Args:
        shares: from 0 to 1, or from −1 to 1; what is beyond has the level of that end.
        count: of levels.
        is_signed: the level in the middle is 0.
    """
    from_zero = (np.clip(shares, -1, 1) + 1) / 2 if is_signed else np.clip(shares, 0, 1)
    levels = np.rint(from_zero * (count - 1))
    return np.where(np.isnan(levels), -1, levels).astype(np.int64)


def find_scale(matrix: LabelledMatrix, normalize: Normalize | None) -> Scale | None:
    """Return what the shades of a matrix stand for; None: it holds no floats.

    Args:
        matrix: of a step, whose whole range decides.
        normalize: as in `choose_scale`.
    """
    if matrix.values.dtype.kind != "f" or not matrix.values.size:
        return None
    return choose_scale(matrix.name, matrix.find_range(), len(matrix.column_labels), normalize)
