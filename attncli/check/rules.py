"""When a figure is right: digits, close, flash; and how far each is off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attncli.check.claims import Claim
from attncli.types import NumpyArray
from attncli.verdict import Rule

NAMES = ("digits", "close", "flash")
_CLOSE = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
_SMALLEST = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}


def rule_for(claim: Claim, said: str | None, rtol: float | None, atol: float | None) -> Rule:
    """The rule that was said, or that goes with what the figures are; with the reason."""
    given = claim.given
    dtype = "float64" if given.dtype == "text" else given.dtype
    if claim.values.dtype.kind in "biu":
        return Rule("exact", "they are booleans or integers")
    if said == "digits":
        return Rule("digits", "--rule digits", dtype)
    if said == "flash":
        return Rule("flash", "--rule flash", dtype if dtype != "float64" else "float32")
    if rtol is not None or atol is not None:
        return Rule("close", "as the command line says", dtype, rtol or 0.0, atol or 0.0)
    if said is None and (given.rtol is not None or given.atol is not None):
        return Rule("close", "expected says rtol and atol", dtype, given.rtol or 0.0, given.atol or 0.0)
    if said is None and given.rounded is not None:
        return Rule("digits", "expected says decimals", dtype)
    if said is None and given.dtype == "text":
        return Rule("digits", "they are written with few digits", dtype)
    if said is None and dtype in ("float16", "bfloat16"):
        return Rule("flash", f"they are {dtype}", dtype)
    near = _CLOSE[dtype]
    return Rule("close", f"they are {dtype}" if said is None else "--rule close", dtype, near, near, relative=True)


def decimals_of(claim: Claim, rule: Rule) -> NumpyArray | None:
    """How many decimals each figure was written with, where digits are what counts."""
    if rule.name != "digits":
        return None
    if claim.given.rounded is not None:
        return np.full(claim.values.shape, int(claim.given.rounded))
    if claim.decimals is not None:
        return claim.decimals
    from attncli.check.figures import digits_of

    flat = [digits_of(repr(float(x)))[1] if np.isfinite(x) else 0 for x in claim.values.ravel()]
    return np.array(flat, int).reshape(claim.values.shape)


@dataclass(frozen=True)
class Judged:
    """Figures held against a reference, cell by cell."""

    ok: NumpyArray
    error: NumpyArray  # |Δ|; ∞ where one is not finite and the other is not the same
    tolerance: NumpyArray


def judge(rule: Rule, mine: NumpyArray, ref: NumpyArray, decimals: NumpyArray | None, largest: float) -> Judged:
    """Each figure against the reference, by the rule. `largest`: of the reference's whole step, finite ones."""
    if mine.dtype.kind in "biu" and ref.dtype.kind in "biu":
        same = mine == ref
        return Judged(same, np.abs(mine.astype(np.float64) - ref), np.zeros(mine.shape))
    mine, ref = mine.astype(np.float64), ref.astype(np.float64)
    with np.errstate(all="ignore"):
        strange = ~(np.isfinite(mine) & np.isfinite(ref))
        same = (mine == ref) | (np.isnan(mine) & np.isnan(ref))
        error = np.where(strange, np.where(same, 0.0, np.inf), np.abs(mine - ref))
        if rule.name == "digits":
            assert decimals is not None
            unit = 10.0 ** -decimals.astype(np.float64)
            slack = np.maximum(unit * 1e-9, 4 * np.spacing(np.abs(ref)))
            short = np.abs(mine) < np.abs(ref)  # it may be cut off
            cut = short & ((mine == 0) | (np.sign(mine) == np.sign(ref)))
            tolerance = np.where(cut, unit - slack, unit / 2 + slack)
        elif rule.name == "flash":
            tolerance = np.full(mine.shape, rule.bound or 0.0)
        else:
            base = (rule.atol or 0.0) * (largest if rule.relative else 1.0)
            tolerance = base + (rule.rtol or 0.0) * np.abs(ref)
        tolerance = np.where(np.isfinite(tolerance), tolerance, 0.0)
        ok = np.where(strange, same, error <= tolerance)
    return Judged(ok, error, tolerance)


def largest_of(ref: NumpyArray) -> float:
    """The largest finite figure of a step."""
    if ref.dtype.kind in "biu":
        return 1.0
    size = np.abs(ref[np.isfinite(ref)])
    return float(size.max(initial=0.0))


def unit(dtype: str, x: float) -> float:
    """One unit in the last place of a dtype, at x."""
    exponent = max(np.frexp(abs(x))[1] - 1, _SMALLEST[dtype]) if x and np.isfinite(x) else _SMALLEST[dtype]
    return float(2.0 ** (float(exponent) - BITS[dtype]))


def rounded(values: NumpyArray, decimals: NumpyArray) -> NumpyArray:
    """Figures as they would have been written with so many decimals."""
    with np.errstate(all="ignore"):
        factor = 10.0 ** decimals.astype(np.float64)
        made = np.rint(values * factor) / factor
    return np.where(np.isfinite(made), made, values)
