"""Numbers that are solved for: a factor, the scale, a cap, a slope, a sink, theta, a fill value; and their names, where they have one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from attncli.check.claims import Claim
from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import (
    divide_where_nonzero,
    subtract_row_max,
    with_head_context,
    with_link,
    with_mask_link,
    with_normalizer,
)
from attncli.check.trials import StepArrays, Trials, compute_or_none
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import NumpyArray, Tensor

_COST_DIGITS = 16.0  # digits of evidence: one number can be chosen so that one figure fits
_MAX_STEPS = 14  # of Gauss and Newton
_MAX_RELATIVE_STEP = 0.4  # of a step that does not halve the error
_STEPS_TO_HALF = 4  # after so many the error must have halved
_MAX_SHARE_LEFT = 0.05  # of the reference's error, for a number that is no chance
_MAX_DEVIATIONS = 3  # standard deviations by which a number may be off
_RELATIVE_ROUNDINGS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_NAMED_TO = 1e-4  # relative: so near a number with a name, it is meant
_POWERS_OF_TWO = tuple(2.0**i for i in range(-6, 7))
_FACTORS = (*_POWERS_OF_TWO, *(-x for x in _POWERS_OF_TWO))
Edit = Callable[[float], Plan | None]


@fault
def wrong_number(trials: Trials) -> Iterator[Hypothesis]:
    """A number is another one, which the figures tell."""
    plan = trials.plan
    scale = next((link.value for link in plan.chain if link.is_scale and link.value), None)
    if scale or plan.variant.scale in ("none", 1):
        own = scale or 1.0
        yield _solved_hypothesis(
            trials, "another scale", partial(_with_scale, trials),
            [own * f for f in _FACTORS], partial(_describe_scale, plan, own),
            [*_scale_names(plan).values(), *(own * f for f in _factor_names(plan).values())],
        )  # fmt: skip
    if isinstance(plan.variant.softcap, int | float):
        cap = float(plan.variant.softcap)
        yield _solved_hypothesis(
            trials, "another softcap", lambda c: trials.with_choices(softcap=c) if c > 0 else None,
            [cap * x for x in _POWERS_OF_TWO], lambda c: f"with a softcap of {c:.6g} instead of {cap:.6g}",
        )  # fmt: skip
    for link_name, what in (("position", plan.variant.position.name), ("bias", "the bias")):
        if any(link.name == link_name for link in plan.chain):
            yield _solved_hypothesis(
                trials, f"{what} × a number", partial(_multiply_link, plan, link_name),
                _FACTORS, partial(_describe_factor, plan, what), _factor_names(plan).values(),
            )  # fmt: skip
    yield from _other_sinks(trials)
    if plan.is_masked:
        yield _solved_hypothesis(
            trials, "another fill value", lambda c: with_mask_link(trials, lambda s, mask: s.masked_fill(~mask, c)),
            (0.0, -2.0, -5.0, -10.0, -15.0, -20.0), _describe_fill,
        )  # fmt: skip
    position = plan.variant.position
    if any(option.name == "theta" for option in position.member.options):
        theta = position.option_value("theta")
        yield _solved_hypothesis(
            trials, "another theta", partial(_with_theta, trials),
            [theta * math.exp(x) for x in np.linspace(-7, 7, 29)],
            lambda t: f"with {position.name} of theta {t:.6g} instead of {theta:.6g}",
        )  # fmt: skip
    if plan.variant.normalizer.traits.is_exponential and plan.variant.sink.is_none:
        yield _solved_hypothesis(
            trials, "something added to the sum", partial(_with_added_to_sum, plan),
            (1e-8, 1e-6, 1e-4, 1e-2, 0.1, 1.0), _describe_epsilon,
        )  # fmt: skip
    if plan.shapes.c is not None:
        yield _solved_hypothesis(
            trials, "context × a number", lambda f: with_head_context(plan, lambda z, *_: z * f),
            _FACTORS, partial(_describe_factor, plan, "the context"), _factor_names(plan).values(),
        )  # fmt: skip


@fault
def steps_times_a_number(trials: Trials) -> Iterator[Hypothesis]:
    """The figures of a step alone are the reference's × a number: the slope of the one on the other."""
    for claim in trials.claims:
        if claim.step in trials.reference and claim.step != "context" and claim.values.dtype.kind == "f":
            yield _factor_hypothesis(trials, claim)
            if claim.step.endswith("weights"):
                yield Hypothesis(
                    f"{claim.step} in percent",
                    "× 100, in percent",
                    partial(_multiply_step, trials, claim.step, 100.0),
                    is_of_reference=True,
                )


def _factor_hypothesis(trials: Trials, claim: Claim) -> Hypothesis:
    name = f"{claim.step} × a number"

    def compute() -> StepArrays | None:
        reference = trials.reference[claim.step]
        if trials.is_confirming:
            return (
                _multiply_step(trials, claim.step, trials.solved_numbers[name])
                if name in trials.solved_numbers
                else None
            )
        own, mine = (np.where(np.isfinite(x), x, 0).ravel() for x in (reference[claim.index], claim.values))
        square = float(own @ own)
        if not square > 0:
            return None
        factor = float(own @ mine) / square
        off = _MAX_DEVIATIONS * float(np.linalg.norm(own * (mine - factor * own))) / square
        rounding = _RELATIVE_ROUNDINGS.get(claim.step_figures.dtype, 1e-13)
        factor = _Solution(factor, off, rounding).plainest(_factor_names(trials.plan).values())
        trials.solved_numbers[name] = factor
        hypothesis.description = _describe_factor(trials.plan, claim.step, factor)
        return _multiply_step(trials, claim.step, factor)

    hypothesis = Hypothesis(name, name, compute, 3, evidence_cost=_COST_DIGITS, is_solved=True, is_of_reference=True)
    return hypothesis


def _multiply_step(trials: Trials, step: str, factor: float) -> StepArrays:
    return {**trials.reference, step: factor * trials.reference[step]}


def _other_sinks(trials: Trials) -> Iterator[Hypothesis]:
    plan = trials.plan
    if plan.variant.sink.is_none or "sinks" not in plan.problem.parameters:
        return
    sinks = np.asarray(plan.problem.parameters["sinks"], np.float64)

    def with_sinks(values: NumpyArray) -> Plan:
        return trials.with_fields(parameters={**plan.problem.parameters, "sinks": values})

    yield _solved_hypothesis(
        trials, "sinks × a number", lambda f: with_sinks(sinks * f), _FACTORS,
        lambda f: f"with the sinks × {_spell_number(f, _factor_names(plan))}: a sink's logit is taken as it is",
        _factor_names(plan).values(),
    )  # fmt: skip
    yield _solved_hypothesis(
        trials, "sinks + a number", lambda c: with_sinks(sinks + c), (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0),
        lambda c: f"with {c:.6g} added to the sinks: a sink's logit is taken as it is",
    )  # fmt: skip


# ── what a number changes ────────────────────────────────────────────────────────────────────────
def _with_scale(trials: Trials, scale: float) -> Plan | None:
    plan = trials.with_choices(scale=abs(scale))
    if scale > 0:
        return plan
    return with_link(plan, "scale", lambda link, s, grid: -link.run(s, grid))


def _multiply_link(plan: Plan, name: str, factor: float) -> Plan | None:
    """Make the plan in which what a link adds to the scores is multiplied; where it adds −∞, it still does."""

    def run(link: object, s: Tensor, grid: object) -> Tensor:
        after: Tensor = link.run(s, grid)  # type: ignore[attr-defined]
        return after.where(after.isinf(), s + factor * (after - s))

    return with_link(plan, name, run)


def _with_theta(trials: Trials, theta: float) -> Plan:
    position: AnyPart = trials.plan.variant.position
    values: Mapping[str, object] = {**position.option_values, "theta": theta}
    return trials.with_choices(position=dataclasses.replace(position, option_values=values))


def _with_added_to_sum(plan: Plan, added: float) -> Plan | None:
    def normalize(_: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        e = subtract_row_max(s.masked_fill(~visible, -math.inf)).exp()
        return divide_where_nonzero(e, e.sum(-1, keepdim=True) + added)

    return with_normalizer(plan, normalize)


# ── solving ──────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class _Solution:
    """A number that was solved for, and how far it may be off as far as the figures tell."""

    number: float
    uncertainty: float
    relative_rounding: float  # of the dtype of the figures, to which a number with a name may have been rounded

    def may_be(self, x: float, relative_rounding: float = 1e-13) -> bool:
        return abs(self.number - x) <= max(self.uncertainty, relative_rounding * abs(x))

    def plainest(self, named: Iterable[float]) -> float:
        """Return the named number that it may be, the nearest; or else the one of the fewest digits."""
        rounded = (float(f"{self.number:.{digits}g}") for digits in range(1, 13))
        possible = (x for x in named if self.may_be(x, self.relative_rounding))
        nearest = min(possible, key=lambda x: abs(x - self.number), default=None)
        return next(filter(self.may_be, rounded), self.number) if nearest is None else nearest


def _solved_hypothesis(
    trials: Trials,
    name: str,
    edit: Edit,
    starts: Sequence[float],
    describe: Callable[[float], str],
    named: Iterable[float] = (),
) -> Hypothesis:
    """Make a hypothesis whose number is solved for when it is computed; its description then says which it is.

    Args:
        trials: of the problem.
        name: of the hypothesis.
        edit: makes the plan of a number.
        starts: numbers to begin with.
        describe: makes the description of a number.
        named: numbers that have a name: one of them is meant where the figures cannot tell it from the one that is found.
    """

    def compute() -> Plan | None:
        solution = None if trials.is_confirming else _solve(trials, edit, starts)
        if solution is not None:
            trials.solved_numbers[name] = solution.plainest(named)
        number = trials.solved_numbers.get(name)
        if number is None:
            return None
        hypothesis.description = describe(number)
        return edit(number)

    hypothesis = Hypothesis(name, name, compute, 3, evidence_cost=_COST_DIGITS, is_solved=True)
    return hypothesis


def _solve(trials: Trials, edit: Edit, starts: Sequence[float]) -> _Solution | None:
    """Find the number that gives the claimed figures, from the best of some starts by Gauss and Newton; None: there is none."""

    def residuals(number: float) -> NumpyArray | None:
        plan = compute_or_none(lambda: edit(number))
        return None if plan is None else _residuals(trials, plan)

    own = _residuals(trials, trials.plan)
    if own is None or not own.size:
        return None
    before = float(own @ own)
    tried = [(float(r @ r), x) for x in starts if (r := residuals(x)) is not None and r.shape == own.shape]
    if not tried:
        return None
    _, number = min(tried)
    here, slope, steepness = residuals(number), own, 0.0
    for i in range(_MAX_STEPS):
        step = 1e-6 * max(abs(number), 1e-3)
        there = residuals(number + step)
        if here is None or there is None or here.shape != there.shape:
            return None
        slope = (there - here) / step
        steepness = float(slope @ slope)
        if not steepness > 0 or (i >= _STEPS_TO_HALF and not float(here @ here) < 0.25 * before):
            return None
        change = -float(slope @ here) / steepness
        limit = _MAX_RELATIVE_STEP * abs(number) if number else abs(change)
        after = residuals(number + change)
        if abs(change) > limit and not _is_much_smaller(after, here):
            change = max(-limit, min(limit, change))
            after = residuals(number + change)
        number, here = number + change, after
        if abs(change) <= 1e-13 * abs(number):
            break
    if here is None or not float(here @ here) < _MAX_SHARE_LEFT**2 * before:
        return None
    off = _MAX_DEVIATIONS * float(np.linalg.norm(slope * here)) / steepness
    return _Solution(number, off, max(_RELATIVE_ROUNDINGS.get(c.step_figures.dtype, 1e-13) for c in trials.claims))


def _is_much_smaller(after: NumpyArray | None, before: NumpyArray) -> bool:
    """Whether a step has halved the error, so that it may be as long as it is."""
    return after is not None and after.shape == before.shape and float(after @ after) < 0.25 * float(before @ before)


def _residuals(trials: Trials, plan: Plan) -> NumpyArray | None:
    """Return how far the figures of a plan are off from those claimed, where both are numbers, as a share of the largest."""
    figures = compute_or_none(lambda: trials.collect_steps(plan, trials.run_plan(plan, is_trial=False)))
    if figures is None:
        return None
    parts = []
    for claim in trials.claims:
        values = figures.get(claim.step)
        if values is None or claim.values.dtype.kind != "f":
            continue
        with np.errstate(all="ignore"):
            off = np.asarray(values[claim.index] - claim.values.astype(np.float64)).ravel()
            finite = claim.values[np.isfinite(claim.values)]
        if finite.size:
            parts.append(np.where(np.isfinite(off), off, 0) / max(float(np.abs(finite).max()), 1e-300))
    return np.concatenate(parts) if parts else None


# ── naming ───────────────────────────────────────────────────────────────────────────────────────
def _factor_names(plan: Plan) -> dict[str, float]:
    """Numbers by which something is multiplied by mistake."""
    d, heads = plan.shapes.d, plan.shapes.heads
    named = {
        "−1": -1.0, "2": 2.0, "1/2": 0.5, "√2": math.sqrt(2), "1/√2": math.sqrt(0.5), "log₂ e": 1 / math.log(2), "ln 2": math.log(2),
        "(log₂ e)²": math.log(2) ** -2, "√d_k": math.sqrt(d), "1/√d_k": 1 / math.sqrt(d), "d_k": float(d), "1/d_k": 1 / d,
        "H": float(heads), "1/H": 1 / heads, "√H": math.sqrt(heads), "1/√H": 1 / math.sqrt(heads),
    }  # fmt: skip
    dropout = plan.variant.dropout
    if not dropout.is_none:
        p = dropout.option_value("p")
        named |= {f"(1 − p), p = {p}": 1 - p, f"1/(1 − p), p = {p}": 1 / (1 - p)}
    return named


def _scale_names(plan: Plan) -> dict[str, float]:
    """Numbers that stand for the scale by mistake."""
    shapes = plan.shapes
    d, c = shapes.d, shapes.c or shapes.d
    widths = {"2 d_k": 2 * d, "d_k/2": d / 2, "d_v": c, "H": shapes.heads, "kv heads · d_k": shapes.kv_heads * d}
    widths |= {f"{n}": n for n in (8, 16, 32, 64, 80, 96, 128, 256)}
    named = {f"1/√({name}) = 1/√{width:g}": 1 / math.sqrt(width) for name, width in widths.items()}
    return named | {"d_k^(−1/4)": d**-0.25, "d_k^(−3/4)": d**-0.75}


def _spell_number(x: float, named: Mapping[str, float]) -> str:
    """Write a number with its name, where it has one."""
    name = _find_name(x, named)
    return f"{x:.6g} = {name}" if name and name != f"{x:.6g}" else f"{x:.6g}"


def _find_name(x: float, named: Mapping[str, float]) -> str:
    """Find the name of a number; "" where it has none."""
    return next((name for name, value in named.items() if math.isclose(x, value, rel_tol=_NAMED_TO)), "")


def _describe_scale(plan: Plan, own: float, value: float) -> str:
    name = _find_name(value, _scale_names(plan))
    if name:
        return f"scaled by {value:.6g} = {name} instead of {own:.6g}"
    name = _find_name(value / own, _factor_names(plan))
    text = f", which is {own:.6g} × {name}," if name else ""
    return f"scaled by {value:.6g}{text} instead of {own:.6g}"


def _describe_factor(plan: Plan, what: str, factor: float) -> str:
    return f"with {what} × {_spell_number(factor, _factor_names(plan))}"


def _describe_fill(c: float) -> str:
    return f"with hidden scores set to {c:.6g} instead of −∞, so that hidden keys keep weight"


def _describe_epsilon(added: float) -> str:
    return f"with {added:.4g} added to the sum Σ e^(s − max): softmax adds nothing"
