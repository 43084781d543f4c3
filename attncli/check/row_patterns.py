"""What the wrong rows of a claim look like: zeros, NaN, the reference times a factor, rows of another head. `describe_wrong_rows` is the entry.

A row is a vector of context, or the weights or scores of one query. A pattern is told only where every row that it is
told of has it, within the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from attncli.check.claim_grid import ClaimGrid
from attncli.check.comparison import Comparison
from attncli.check.index_sets import axis_noun, describe_indices
from attncli.plan.head_shapes import kv_head_of
from attncli.step_names import GRADIENT_NAMES
from attncli.types import NumpyArray

_MAX_FIGURES = 1 << 22  # of the rows that are looked at
_MAX_MOVED_ROWS = 64  # whose origin is looked for
_MAX_RANK_ROWS = 256
_SIMPLEX_NORMALIZERS = ("softmax", "sparsemax", "entmax15", "entmax", "topk", "hardmax")
_EXPONENTIAL_LIMITS = (  # below the one e^s is 0, above the other ∞
    ("float16", math.log(2.0**-25), math.log(65520)),
    ("float32", math.log(2.0**-150), math.log(3.4028235677973366e38)),
)
_MIN_ROW_NUMBERS = 3  # that may be alike by more than chance
_SLACK = 4e-15  # of the reference's own arithmetic, relative


class WrongRows:
    """The wrong rows of a grid, flattened: values, reference and tolerance (n, width), and where each row is."""

    def __init__(self, comparison: Comparison, grid: ClaimGrid) -> None:
        self.comparison, self.step, self.axes = comparison, grid.step, grid.axes[:-1]
        self.lead_shape, width = grid.values.shape[:-1], grid.values.shape[-1]
        self.positions = np.flatnonzero(grid.is_wrong.reshape(-1, width).any(axis=1))  # among all claimed rows
        self.total_count = len(self.positions)
        stride = -(-self.total_count * width // _MAX_FIGURES)
        self.positions = self.positions[::stride]
        self.axis_indices, self.columns = grid.indices[:-1], grid.indices[-1]
        self.all_values = grid.values.astype(np.float64).reshape(-1, width)
        self.all_reference = grid.reference.astype(np.float64).reshape(-1, width)
        self.values, self.reference = self.all_values[self.positions], self.all_reference[self.positions]
        slack = _SLACK * comparison.largest_figures[grid.step]
        self.tolerance = grid.tolerance.reshape(-1, width)[self.positions] + slack

    def cells(self, rows: NumpyArray) -> dict[str, NumpyArray]:
        """The index of rows on each leading axis."""
        unravelled = np.unravel_index(self.positions[rows], self.lead_shape)
        return {axis: indices[i] for axis, indices, i in zip(self.axes, self.axis_indices, unravelled, strict=True)}

    def subject(self, rows: NumpyArray) -> str:
        """Name rows: the wrong rows, or where they are."""
        if rows.all():
            return "the wrong row is" if self.total_count == 1 else "the wrong rows are"
        words = []
        cells = self.cells(rows)
        for axis, indices in zip(self.axes, self.axis_indices, strict=True):
            described = describe_indices(np.isin(indices, cells[axis]), indices, axis)
            words += [described] if described else []
        count = int(rows.sum())
        place = f" ({', '.join(words)})" if words else ""
        return f"{count:,} of the {len(rows):,} wrong rows{place} {'is' if count == 1 else 'are'}"


def describe_wrong_rows(comparison: Comparison, grid: ClaimGrid) -> list[str]:
    """Describe what the wrong rows of a claim look like, in sentences.

    Args:
        comparison: of all claims.
        grid: a claim with a wrong figure.
    """
    if grid.values.dtype.kind != "f" or not grid.axes:
        return []
    if grid.axes[-1] == "query":
        return list(_describe_row_numbers(grid))
    return list(_describe_rows(WrongRows(comparison, grid)))


def _describe_rows(rows: WrongRows) -> Iterator[str]:
    is_left = np.ones(len(rows.values), bool)  # rows that no pattern has explained
    is_finite = ~_is_in_row(~np.isfinite(rows.values) | ~np.isfinite(rows.reference))
    yield from _describe_nonfinite(rows)
    is_left &= is_finite
    is_zero = is_left & (rows.values == 0).all(axis=1)
    if is_zero.any():
        yield f"{rows.subject(is_zero)} all 0"
    is_left &= ~is_zero
    factors, is_multiple = _row_factors(rows, is_left)
    if is_multiple.any() and is_multiple.sum() * 2 >= is_left.sum():
        yield from _describe_factors(rows, factors, is_multiple)
        is_left &= ~is_multiple
    if is_left.any():
        moved = list(_describe_moved_rows(rows, is_left))
        yield from moved
        if not moved and rows.step not in GRADIENT_NAMES:
            yield from _describe_rank(rows, is_left)
    yield from _describe_weights(rows, is_finite)
    yield from _describe_value_range(rows, is_finite)


def _is_in_row(flags: NumpyArray) -> NumpyArray:
    """Whether a flag is set anywhere in a row: (n, width) → (n)."""
    return np.asarray(flags.any(axis=1))


# ── not finite ───────────────────────────────────────────────────────────────────────────────────
def _describe_nonfinite(rows: WrongRows) -> Iterator[str]:
    """Say where NaN and ∞ stand, and whether they stand where the exponential of a score overflows."""
    for word, is_such in (("NaN", np.isnan), ("∞", np.isposinf), ("−∞", np.isneginf)):
        has_it = _is_in_row(is_such(rows.values) & ~is_such(rows.reference))
        if has_it.any():
            whole = "all " if is_such(rows.values[has_it]).all() else "partly "
            yield f"{rows.subject(has_it)} {whole}{word}{_overflow_words(rows, has_it)}"
    lost = _is_in_row(np.isnan(rows.reference) & np.isfinite(rows.values))
    if lost.any():
        yield f"{rows.subject(lost)} finite where the reference is NaN"


def _overflow_words(rows: WrongRows, has_it: NumpyArray) -> str:
    """Say which dtype overflows in these rows and in no other; empty where none does."""
    largest = rows.comparison.row_statistic("max_score")
    if largest is None:
        return ""
    cells = rows.cells(has_it)
    there = _pick_statistic(rows.comparison, "max_score", largest, cells)
    is_finite_row = np.isfinite(rows.all_values).all(axis=1)
    others = np.unravel_index(np.flatnonzero(is_finite_row), rows.lead_shape)
    elsewhere = _pick_statistic(
        rows.comparison,
        "max_score",
        largest,
        {axis: indices[i] for axis, indices, i in zip(rows.axes, rows.axis_indices, others, strict=True)},
    )
    if there is None or elsewhere is None or not there.size:
        return ""
    for dtype, low, high in _EXPONENTIAL_LIMITS:
        is_over, is_under = there > high, there < low
        if not (is_over | is_under).all() or ((elsewhere > high) | (elsewhere < low)).any():
            continue
        over = f"exceeds {high:.2f}, where e^s overflows {dtype}" if is_over.any() else ""
        under = f"is below {low:.2f}, where e^s is 0 in {dtype}".replace("-", "−") if is_under.any() else ""
        return f": these are the rows whose largest score {' or '.join(filter(None, (over, under)))}"
    return f"; the largest score there is {there.max():.4g}"


def _pick_statistic(
    comparison: Comparison, name: str, values: NumpyArray, cells: dict[str, NumpyArray]
) -> NumpyArray | None:
    """The statistic of rows; the largest of all heads where rows have none."""
    axes = comparison.task.plan.steps[name]
    if "head" in axes and "head" not in cells:
        values, axes = values.max(axis=axes.index("head")), tuple(axis for axis in axes if axis != "head")
    if not set(axes) <= set(cells):
        return None
    picked: NumpyArray = values[tuple(cells[axis] for axis in axes)]
    return picked


# ── the reference times a factor ─────────────────────────────────────────────────────────────────
def _row_factors(rows: WrongRows, is_left: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """Fit each row by a factor of the reference's: (n), and of which rows it is that, in two entries at least."""
    square = (rows.reference**2).sum(axis=1)
    factors = np.divide((rows.values * rows.reference).sum(axis=1), square, out=np.zeros(len(square)), where=square > 0)
    scale = np.maximum(1.0, np.abs(factors))[:, None]
    fits = (np.abs(rows.values - factors[:, None] * rows.reference) <= rows.tolerance * scale).all(axis=1)
    is_told = (np.abs(rows.reference) > 10 * rows.tolerance).sum(axis=1) >= 2
    return factors, is_left & fits & is_told


def _describe_factors(rows: WrongRows, factors: NumpyArray, is_multiple: NumpyArray) -> Iterator[str]:
    """Say what the factors have in common: one for all, one a head, or what they are of each denominator."""
    subject, own = rows.subject(is_multiple), factors[is_multiple]
    common = _common_factor(rows, is_multiple)
    if _is_constant(own) or common is not None:
        yield f"{subject} the reference × {own.mean() if common is None else common:.6g}"
        return
    cells = rows.cells(is_multiple)
    by_head = _value_of_each_head(own, cells)
    if by_head:
        listed = ", ".join(f"{h}: {factor:.4g}" for h, factor in list(by_head.items())[:8])
        yield f"{subject} the reference × a factor for each head ({listed})"
        return
    divided = "" if rows.step in GRADIENT_NAMES else ": right except for what they are divided by"
    yield f"{subject} the reference × a factor of their own, from {own.min():.4g} to {own.max():.4g}{divided}"
    if divided == "":
        return
    sums = rows.comparison.row_statistic("log_sum_exp")
    log_sums = None if sums is None else _pick_statistic(rows.comparison, "log_sum_exp", sums, cells)
    if log_sums is not None and (own > 0).all():
        yield from _describe_denominator(own, log_sums, cells)


def _common_factor(rows: WrongRows, is_multiple: NumpyArray) -> float | None:
    """Return the one factor that all these rows may have, rounded as they are; None where there is none."""
    values, reference = rows.values[is_multiple], rows.reference[is_multiple]
    factor = float((values * reference).sum() / (reference**2).sum())
    bound = rows.tolerance[is_multiple] * max(1.0, abs(factor))
    return factor if (np.abs(values - factor * reference) <= bound).all() else None


def _describe_denominator(factors: NumpyArray, log_sums: NumpyArray, cells: dict[str, NumpyArray]) -> Iterator[str]:
    """Say what the denominators have in excess: Z / factor − Z, where Z is the sum of the exponentials."""
    with np.errstate(all="ignore"):
        excess = np.exp(log_sums) * (1 / factors - 1)
    if not np.isfinite(excess).all():
        return
    if _is_constant(excess, 1e-4):
        x = float(excess.mean())
        count = round(x)
        if count >= 1 and abs(x - count) < 1e-3 * count:
            keys = "one more key" if count == 1 else f"{count} more keys"
            yield f"their denominators are too large by {count}: {keys} with score 0, as padding has"
        elif x > 0:
            yield f"their denominators are too large by {x:.4g} = e^{math.log(x):.4g}"
        else:
            yield f"their denominators are too small by {-x:.4g} = e^{math.log(-x):.4g}"
        return
    by_head = _value_of_each_head(excess, cells, 1e-4)
    if by_head and all(x > 0 for x in by_head.values()):
        listed = ", ".join(f"{h}: e^{math.log(x):.4g}" for h, x in list(by_head.items())[:8])
        yield f"their denominators hold one term too many for each head, as with a sink ({listed})"


def _is_constant(values: NumpyArray, tolerance: float = 1e-5) -> bool:
    return bool(np.ptp(values) <= tolerance * np.abs(values).max())


def _value_of_each_head(values: NumpyArray, cells: dict[str, NumpyArray], tolerance: float = 1e-5) -> dict[int, float]:
    """The one value of each head; nothing where a head has several."""
    if "head" not in cells:
        return {}
    heads = np.unique(cells["head"])
    if len(heads) < 2 or len(values) < 2 * len(heads):
        return {}
    grouped = {int(h): values[cells["head"] == h] for h in heads}
    if not all(_is_constant(group, tolerance) for group in grouped.values()):
        return {}
    return {h: float(group.mean()) for h, group in grouped.items()}


def _describe_row_numbers(grid: ClaimGrid) -> Iterator[str]:
    """Say by how much numbers of rows, such as log_sum_exp, are off, where that is one number, or one of each head."""
    is_told = grid.is_wrong & np.isfinite(grid.values) & np.isfinite(grid.reference)
    for word, is_such in (("NaN", np.isnan), ("∞", np.isposinf), ("−∞", np.isneginf)):
        count = int((grid.is_wrong & is_such(grid.values)).sum())
        if count:
            yield f"{count:,} of the {int(grid.is_wrong.sum()):,} wrong figures {'is' if count == 1 else 'are'} {word}"
    if is_told.sum() < _MIN_ROW_NUMBERS:
        return
    values = grid.values[is_told]
    if (values == values[0]).all():
        yield f"the wrong figures are all {values[0] + 0.0:.6g}"
        return
    difference = values - grid.reference[is_told]
    with np.errstate(all="ignore"):
        ratio = values / grid.reference[is_told]
    if _is_constant(difference):
        yield f"the wrong figures are the reference {_format_signed(float(difference.mean()))}"
    elif np.isfinite(ratio).all() and _is_constant(ratio):
        yield f"the wrong figures are the reference × {ratio.mean():.6g}"
    elif grid.step == "log_sum_exp":
        places = np.nonzero(is_told)
        cells = {axis: indices[i] for axis, indices, i in zip(grid.axes, grid.indices, places, strict=True)}
        with np.errstate(all="ignore"):
            yield from _describe_denominator(np.exp(-difference), grid.reference[is_told], cells)


def _format_signed(x: float) -> str:
    return f"{'−' if x < 0 else '+'} {abs(x):.6g}"


# ── rows of another place ────────────────────────────────────────────────────────────────────────
def _describe_moved_rows(rows: WrongRows, is_left: NumpyArray) -> Iterator[str]:
    """Say whose rows the wrong ones are: those of another head, item or query, or their own in another order."""
    chosen = np.flatnonzero(is_left)
    chosen = chosen[:: -(-len(chosen) // _MAX_MOVED_ROWS)]
    for axis in ("head", "kv_head", "batch", "query", "key", "new_key"):
        if axis not in rows.axes:
            continue
        sources = [_find_source(rows, int(row), axis) for row in chosen]
        if any(source is None for source in sources):
            continue
        mine = rows.cells(np.isin(np.arange(len(is_left)), chosen))[axis]
        yield f"{rows.subject(is_left)} those of {_describe_sources(mine, np.array(sources), axis)}"
        return
    order = _find_order(rows, chosen)
    if order:
        yield f"{rows.subject(is_left)} the reference's own numbers {order}"


def _find_source(rows: WrongRows, row: int, axis: str) -> int | None:
    """Find the one other index of an axis whose row of the reference this row is."""
    position = np.unravel_index(int(rows.positions[row]), rows.lead_shape)
    place = rows.axes.index(axis)
    reference = rows.all_reference.reshape(*rows.lead_shape, -1)
    candidates = reference[tuple(slice(None) if i == place else p for i, p in enumerate(position))]
    fits = (np.abs(candidates - rows.values[row]) <= rows.tolerance[row]).all(axis=1)
    found = np.flatnonzero(fits)
    return int(rows.axis_indices[place][found[0]]) if len(found) == 1 else None


def _describe_sources(mine: NumpyArray, sources: NumpyArray, axis: str) -> str:
    """Describe a map of indices: another one, the next one, or a few pairs."""
    shift = sources - mine
    if len(np.unique(mine)) > 1 and (shift == shift[0]).all():
        steps = int(abs(shift[0]))
        side = "after" if shift[0] > 0 else "before"
        return f"the {axis_noun(axis)} {side} them" if steps == 1 else f"the {axis_noun(axis)} {steps} {side} them"
    pairs = dict(zip(mine.tolist(), sources.tolist(), strict=True))
    if any(pairs[m] != s for m, s in zip(mine.tolist(), sources.tolist(), strict=True)):
        return f"other {axis_noun(axis, 2)}"
    if len(set(pairs.values())) == 1:
        return f"{axis_noun(axis)} {sources[0]}"
    listed = ", ".join(f"{m} has those of {s}" for m, s in list(pairs.items())[:6])
    return f"other {axis_noun(axis, 2)} ({listed})"


def _find_order(rows: WrongRows, chosen: NumpyArray) -> str:
    """Say in which other order the entries of rows stand; empty where they are other numbers."""
    values, reference, tolerance = rows.values[chosen], rows.reference[chosen], rows.tolerance[chosen]
    width = values.shape[1]
    if width < 3:
        return ""

    def fits(arranged: NumpyArray) -> bool:
        return bool((np.abs(values - arranged) <= tolerance).all())

    if fits(reference[:, ::-1]):
        return "in reverse order"
    for shift in range(1, min(width, 257)):
        if fits(np.roll(reference, shift, axis=1)):
            return f"shifted by {shift}" if shift <= width // 2 else f"shifted by −{width - shift}"
    ascending = np.argsort(values, axis=1)
    allowed = np.take_along_axis(tolerance, ascending, axis=1)  # what is allowed to each figure goes with it
    if bool((np.abs(np.sort(values, axis=1) - np.sort(reference, axis=1)) <= allowed).all()):
        return "in another order"
    return ""


# ── rank, sums, range ────────────────────────────────────────────────────────────────────────────
def _describe_rank(rows: WrongRows, is_left: NumpyArray) -> Iterator[str]:
    """Say where the difference from the reference is one column times one row in each head."""
    cells = rows.cells(is_left)
    difference = (rows.values - rows.reference)[is_left]
    tolerance = rows.tolerance[is_left].max(initial=0.0)
    groups = np.unique(np.stack([cells[axis] for axis in cells if axis not in ("query", "key", "new_key")] or [np.zeros(len(difference))]), axis=1, return_inverse=True)[1].ravel()  # fmt: skip
    widths: set[str] = set()
    for group in np.unique(groups):
        block = difference[groups == group][:_MAX_RANK_ROWS]
        if min(block.shape) < 3:
            return
        _, sizes, right = np.linalg.svd(block, full_matrices=False)
        noise = tolerance * math.sqrt(block.size)
        if sizes[1] > 1e-4 * sizes[0] + noise or sizes[0] < 100 * noise:
            return
        column = np.flatnonzero(np.abs(right[0]) > 1e-3)
        widths.add(str(rows.columns[column[0]]) if len(column) == 1 else "")
    name = axis_noun(rows.comparison.task.plan.steps[rows.step][-1])
    [only] = widths if len(widths) == 1 else [""]
    if only:
        return  # one column: the axes say so
    yield f"{rows.subject(is_left)} off by one vector along {name} times a number for each query: as if one key or one value were another"


def _describe_weights(rows: WrongRows, is_finite: NumpyArray) -> Iterator[str]:
    """Say which rows of weights do not sum to 1 as the reference's do, and whether some are negative."""
    if (
        not rows.step.endswith("weights")
        or rows.axes[-1:] != ("query",)
        or rows.step in ("sink_weights", "top_weights")
    ):
        return
    if len(rows.columns) != rows.comparison.reference[rows.step].shape[-1]:
        return
    values, reference = rows.values[is_finite], rows.reference[is_finite]
    negative = int((values < -rows.tolerance[is_finite]).sum()) if not (reference < 0).any() else 0
    if negative:
        yield f"{negative:,} of the weights {'is' if negative == 1 else 'are'} negative"
    bound = rows.tolerance[is_finite].sum(axis=1) + 1e-6
    sums, expected = values.sum(axis=1), reference.sum(axis=1)
    is_off = np.abs(sums - expected) > bound
    if is_off.any():
        flags = np.zeros(len(is_finite), bool)
        flags[np.flatnonzero(is_finite)[is_off]] = True
        low, high = sums[is_off].min(), sums[is_off].max()
        to = f"{low:.4g}" if math.isclose(low, high, rel_tol=1e-6) else f"{low:.4g} to {high:.4g}"
        should = f"{expected[is_off][0]:.4g}" if _is_constant(expected[is_off]) else "what the reference's sum to"
        subject = rows.subject(flags)
        yield f"{subject.removesuffix(' are').removesuffix(' is')} {'sums' if subject.endswith(' is') else 'sum'} to {to}, not to {should}"


def _describe_value_range(rows: WrongRows, is_finite: NumpyArray) -> Iterator[str]:
    """Say how many figures of a context are outside the range of the values, where no weights can bring them."""
    plan = rows.comparison.task.plan
    variant = plan.variant
    if rows.step not in ("context", "head_context") or variant.normalizer.name not in _SIMPLEX_NORMALIZERS:
        return
    if not variant.dropout.is_none or not variant.head_mixing.is_none:
        return
    values = rows.comparison.values_of_keys
    if values is None:
        return
    low, high = values.min(axis=-2), values.max(axis=-2)  # (…, kv_head, dim) or (…, dim)
    if not variant.sink.is_none:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    shapes = plan.shapes
    if shapes.has_head_axis:
        kv = [kv_head_of(h, shapes.heads, shapes.kv_heads, variant.kv_map) for h in range(shapes.heads)]
        low, high = low[..., kv, :], high[..., kv, :]
        low, high = low[..., rows.columns], high[..., rows.columns]
    cells = rows.cells(np.ones(len(rows.values), bool))
    where = tuple(cells[axis] for axis in ("batch", "head") if axis in cells)
    low, high = low[where], high[where]
    slack = rows.tolerance + 1e-6 * np.maximum(np.abs(low), np.abs(high))
    outside = ((rows.values < low - slack) | (rows.values > high + slack)) & is_finite[:, None]
    count = int(outside.sum())
    if count:
        is_are = "is" if count == 1 else "are"
        yield f"{count:,} of the figures {is_are} outside the range of the values: weights that sum to 1 cannot give them"
