"""Comparing claims with the reference, cell by cell and step by step.

`Comparison` computes the reference of a task once, and holds every claim against it, or against other figures.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from attncli.check import figure_precision, rules
from attncli.check.claims import Claim, describe_cell
from attncli.check.figure_tables import make_figure_tables
from attncli.check.gradients import has_shared_gradients
from attncli.check.plain_attention_errors import PlainErrors
from attncli.check.query_samples import (
    choose_large_queries,
    choose_queries,
    restrict_claim,
    restrict_figures,
    restrict_step,
)
from attncli.check.rules import CellComparison
from attncli.check.task import CheckTask
from attncli.check.top_key_ties import TIES_BY_STEP
from attncli.check.trials import Trials, at_queries, compute_or_none, finish_unedited_plan, run_projections
from attncli.step_names import GRADIENT_NAMES
from attncli.types import NumpyArray
from attncli.verdict import Rule, StepComparison

_MAX_STATISTIC_SCORES = 1 << 26  # of which a statistic is computed again
_MAX_WHOLE_SCORES = 1 << 18  # of a larger problem a sample of queries is computed wherever one will do
_MAX_BLOCK_SCORES = 1 << 22  # that are computed at once where all queries must be
_MAX_PLAIN_ERRORS = 64  # those of some queries: no others are so much larger
_MIN_CONSTANT_FIGURES = 3  # fewer figures may well be equal by chance


class Comparison:
    """A task, its reference, and every claim compared with it."""

    def __init__(self, task: CheckTask) -> None:
        self.task = task
        self.trials = Trials(task.plan, task.top, task.claims)
        with np.errstate(all="ignore"):
            plan = dataclasses.replace(task.plan, keep=task.plan.keep | self._steps_needed_for_ties())
            self.result = self.trials.run_plan(finish_unedited_plan(plan))
            self.reference = self.trials.reference = self.trials.collect_steps(plan, self.result)
        self.plain_errors = PlainErrors(Trials(task.plan, task.top, task.claims), self.reference, self.score_count)
        self.largest_figures = {step: rules.largest_finite(x) for step, x in self.reference.items()}
        self.rules = tuple(
            self._with_allowed_error(c, r, plain_errors=self._plain_errors_at_first(c))
            for c, r in zip(task.claims, task.rules, strict=True)
        )
        self.decimals = tuple(rules.written_decimals(c, r) for c, r in zip(task.claims, self.rules, strict=True))
        self.constant_claims = {n: text for n, c in enumerate(task.claims) if (text := self._constant_value_text(c))}
        self.cell_comparisons = tuple(self.compare(n, self.reference[c.step]) for n, c in enumerate(task.claims))
        self._reconsider_wrong_claims()

    @property
    def score_count(self) -> int:
        """How many scores there are: a measure of what one computation costs."""
        return self.task.plan.score_count

    @cached_property
    def sample(self) -> Comparison:
        """The comparison at some of the queries, wrong ones before right ones; of a small problem, at all of them."""
        if self.score_count <= _MAX_WHOLE_SCORES:
            return self
        return self.at_queries(choose_queries(self.task, [~cells.is_right for cells in self.cell_comparisons]))

    def at_queries(self, queries: NumpyArray) -> Comparison:
        """Return the same comparison at some of the queries; its trials compute no others.

        Args:
            queries: ascending indices.
        """
        plan = at_queries(self.task.plan, queries)
        claims = tuple(restrict_claim(claim, queries) for claim in self.task.claims)
        some = copy.copy(self)
        some.__dict__["sample"] = some
        some.task = dataclasses.replace(self.task, plan=plan, claims=claims)
        some.trials = Trials(plan, self.task.top, claims)
        some.reference = {step: restrict_step(self.task.plan, step, x, queries) for step, x in self.reference.items()}
        if self.has_shared_gradients and len(queries) < self.task.plan.size.queries:
            self._take_shared_gradients_as_right(some)
        claims, some.trials.reference = some.task.claims, some.reference
        some.decimals = tuple(
            restrict_figures(claim, x, queries) if x is not None else None
            for claim, x in zip(self.task.claims, self.decimals, strict=True)
        )
        some.cell_comparisons = tuple(some.compare(n, some.reference[claim.step]) for n, claim in enumerate(claims))
        return some

    @property
    def has_shared_gradients(self) -> bool:
        """Whether a gradient is claimed of what several queries share: each of them adds to it, and no sample shows it."""
        return has_shared_gradients(claim.step for claim in self.task.claims)

    def _take_shared_gradients_as_right(self, some: Comparison) -> None:
        """Compute the gradients of what queries share, of a loss of these queries alone, and take them for what is claimed."""
        shared = {claim.step for claim in some.task.claims if has_shared_gradients([claim.step])}
        plan = dataclasses.replace(some.task.plan, keep=frozenset(shared))
        computed = some.trials.collect_steps(plan, some.trials.run_plan(plan, is_trial=False))
        some.reference |= {step: computed[step] for step in shared}
        claims = tuple(
            dataclasses.replace(claim, values=computed[claim.step][claim.index]) if claim.step in shared else claim
            for claim in some.task.claims
        )
        some.task = dataclasses.replace(some.task, claims=claims)

    def as_whole(self) -> Comparison:
        """Return the same comparison, of which no sample is taken."""
        whole = copy.copy(self)
        whole.__dict__["sample"] = whole
        return whole

    def at_all_queries(self) -> Comparison:
        """Return the same comparison with trials that compute all queries at once."""
        return self.at_queries(np.arange(self.task.plan.size.queries))

    def part_of_step(self, step: str, values: NumpyArray) -> NumpyArray:
        """Return the part of a whole step that is of the queries of this comparison."""
        queries = self.task.plan.computed_queries
        return values if queries is None else restrict_step(self.task.plan, step, values, queries)

    def iter_blocks(self) -> Iterator[Comparison]:
        """Yield the same comparison at blocks of queries, all of them in order; the whole of a small problem."""
        size = self.task.plan.size
        scores_of_query = max(1, self.score_count // size.queries)
        step = max(1, _MAX_BLOCK_SCORES // scores_of_query)
        if step >= size.queries:
            yield self
            return
        for first in range(0, size.queries, step):
            yield self.at_queries(np.arange(first, min(size.queries, first + step)))

    @property
    def query_count(self) -> int:
        """How many queries are computed."""
        return self.task.plan.axis_length("scores", "query")

    @property
    def wrong_claims(self) -> set[int]:
        """The indices of the claims that are not right everywhere."""
        return {n for n, cells in enumerate(self.cell_comparisons) if not cells.is_right.all()}

    def units_in_last_place(self, claim_index: int) -> NumpyArray:
        """Return what one unit in the last place is of each figure of a claim: of what is printed, or of its dtype."""
        claim, decimals = self.task.claims[claim_index], self.decimals[claim_index]
        units = figure_precision.spacing(self.rules[claim_index].dtype, claim.values.astype(np.float64))
        return units if decimals is None else np.maximum(units, 10.0 ** -decimals.astype(np.float64))

    def row_statistic(self, name: str) -> NumpyArray | None:
        """A statistic of the rows of scores, on the axes that the plan says; None where there is none, or it costs too much.

        Args:
            name: max_score or log_sum_exp.
        """
        if name not in self.task.plan.steps or self.score_count > _MAX_STATISTIC_SCORES:
            return None
        return self._compute_step(name)

    @cached_property
    def values_of_keys(self) -> NumpyArray | None:
        """The values of all keys, past ones first: (…, kv_head, key, dim); None where there are none."""
        steps = self.task.plan.steps
        name = "present_v" if "present_v" in steps else "v"
        if name not in steps:
            return None
        result = compute_or_none(lambda: run_projections(self.task.plan, (name,)))
        return None if result is None else np.asarray(result[name].values, np.float64)

    def _compute_step(self, name: str) -> NumpyArray | None:
        plan = finish_unedited_plan(dataclasses.replace(self.task.plan, keep=frozenset({name})))
        result = compute_or_none(lambda: self.trials.run_plan(plan, is_trial=False))
        return None if result is None else np.asarray(result[name].values, np.float64)

    def reference_cells(self, claim: Claim) -> NumpyArray:
        """Return the reference at the cells of a claim, in the shape of its values."""
        return self.reference[claim.step][claim.index]

    def compare(
        self,
        claim_index: int,
        step_values: NumpyArray,
        values: NumpyArray | None = None,
        *,
        largest_figure: float | None = None,
    ) -> CellComparison:
        """Compare a claim with the values of its whole step, by the claim's rule.

        Args:
            claim_index: which claim of the task.
            step_values: what it is compared with, in the shape of the step.
            values: figures in the place of the claimed ones.
            largest_figure: the largest finite figure of the step; the reference's, unless it is given.
        """
        claim, rule = self.task.claims[claim_index], self.rules[claim_index]
        own_largest = self.largest_figures[claim.step]
        if (
            rule.name == "flash"
            and rule.allowed_error
            and largest_figure is not None
            and largest_figure > own_largest > 0
        ):
            # larger figures are rounded to larger units
            rule = dataclasses.replace(rule, allowed_error=rule.allowed_error * largest_figure / own_largest)
        cells = rules.compare_cells(
            rule,
            claim.values if values is None else values,
            step_values[claim.index],
            self.decimals[claim_index],
            own_largest if largest_figure is None else largest_figure,
        )
        ties = TIES_BY_STEP.get(claim.step)
        if ties is None or values is not None:
            return cells
        return dataclasses.replace(cells, is_right=cells.is_right | ties.are_tied(claim, self.reference))

    @np.errstate(all="ignore")
    def summarize(self, claim_index: int) -> StepComparison:
        """Summarize the comparison of a claim with the reference: how far off it is, and where it is furthest off."""
        claim, rule = self.task.claims[claim_index], self.rules[claim_index]
        decimals = self.decimals[claim_index] if rule.name == "digits" else None
        cells = self.cell_comparisons[claim_index]
        reference = self.reference_cells(claim)
        position = _worst_position(cells)
        cell = claim.cell_at(position)
        reference_float = reference.astype(np.float64)
        is_finite = np.isfinite(cells.error) & np.isfinite(reference_float)
        error = np.where(is_finite, cells.error, 0.0)
        relative_error = np.where(is_finite & (reference != 0), error / np.abs(reference_float), 0.0)
        max_error = float(cells.error.max(initial=0.0))
        if decimals is not None:
            ulp_error = float((error * 10.0 ** decimals.astype(np.float64)).max(initial=0.0))
        elif rule.name == "exact":
            ulp_error = max_error
        else:
            unit = rules.unit_in_last_place(rule.dtype, self.largest_figures[claim.step] or 1.0)
            ulp_error = float(error.max(initial=0.0)) / unit
        return StepComparison(
            step=claim.step,
            axes=claim.axes,
            shape=tuple(claim.values.shape),
            rule=rule,
            is_right=bool(cells.is_right.all()),
            figure_count=int(claim.values.size),
            wrong_count=int((~cells.is_right).sum()),
            max_abs_error=max_error,
            max_rel_error=float(relative_error.max(initial=0.0)),
            max_ulp_error=ulp_error,
            tolerance=float(cells.tolerance[position]),
            worst_cell=cell,
            worst_cell_text=describe_cell(self.task.plan, cell),
            actual=claim.values[position].item(),
            reference=reference[position].item(),
            decimals=None if decimals is None else int(decimals[position]),
            is_gradient=claim.step in GRADIENT_NAMES,
            is_right_to_float32=bool(cells.is_right.all()) and self._needs_float32(claim_index),
            make_tables=functools.partial(
                make_figure_tables, self.task.plan, claim, reference, cells.is_right, decimals
            ),
        )

    def _needs_float32(self, claim_index: int) -> bool:
        """Tell whether figures of few digits are right only because float32 arithmetic may be off by so much."""
        rule = self.rules[claim_index]
        if rule.name != "digits" or rule.dtype != "float32":
            return False
        exact = dataclasses.replace(rule, dtype="float64", allowed_error=None, plain_error=None)
        claim, decimals = self.task.claims[claim_index], self.decimals[claim_index]
        reference, largest_figure = self.reference_cells(claim), self.largest_figures[claim.step]
        cells = rules.compare_cells(exact, claim.values, reference, decimals, largest_figure)
        return not cells.is_right.all()

    def _steps_needed_for_ties(self) -> frozenset[str]:
        """Return the steps that tell which figures are tied, besides those that are claimed."""
        plan = self.task.plan
        claimed = {claim.step for claim in self.task.claims}
        return frozenset(ties.needed_step(plan.steps) for step, ties in TIES_BY_STEP.items() if step in claimed)

    def _plain_errors_at_first(self, claim: Claim) -> PlainErrors:
        """The errors of plain attention that will do if figures are right by them: of a large problem, those of some queries."""
        is_small = self.score_count <= _MAX_WHOLE_SCORES
        return self.plain_errors if is_small or has_shared_gradients([claim.step]) else self._plain_errors_of_sample

    @cached_property
    def _plain_errors_of_sample(self) -> PlainErrors:
        """The errors of plain attention at queries with the largest figures, and some others."""
        plan = self.task.plan
        steps = {claim.step for claim in self.task.claims if "query" in claim.axes}
        queries = choose_large_queries(plan, {step: self.reference[step] for step in steps})
        reference = {step: restrict_step(plan, step, x, queries) for step, x in self.reference.items()}
        trials = Trials(at_queries(plan, queries), self.task.top, self.task.claims)
        return PlainErrors(trials, reference, trials.plan.score_count)

    def _with_allowed_error(
        self, claim: Claim, rule: Rule, *, is_drawn: bool = False, plain_errors: PlainErrors | None = None
    ) -> Rule:
        """Fill in the error that flash allows: so many times that of plain attention in the dtype, as in FlashAttention's tests."""
        if rule.name != "flash":
            return rule
        plain_errors = plain_errors or self.plain_errors
        error = plain_errors.largest_error(claim.step, rule.dtype, is_drawn=is_drawn)
        min_allowed_error = 2 * rules.unit_in_last_place(rule.dtype, self.largest_figures[claim.step])
        allowed_error = max(rule.factor * error, min_allowed_error)
        return dataclasses.replace(rule, allowed_error=allowed_error, plain_error=error)

    def _reconsider_wrong_claims(self) -> None:
        """Judge wrong claims again by rules that suit what a program may have done, and keep a rule by which they are right."""
        for n in self.wrong_claims:
            claim = self.task.claims[n]
            if self.rules[n].name == "flash" and self._plain_errors_at_first(claim) is not self.plain_errors:
                self._judge_by(n, self._with_allowed_error(claim, self.rules[n]))
            strict = self.rules, self.cell_comparisons
            for rule in self._milder_rules(claim, self.rules[n]):
                self._judge_by(n, rule)
                if self.cell_comparisons[n].is_right.all():
                    break
            else:
                self.rules, self.cell_comparisons = strict

    def _judge_by(self, n: int, rule: Rule) -> None:
        """Judge a claim by another rule."""
        self.rules = (*self.rules[:n], rule, *self.rules[n + 1 :])
        cells = self.compare(n, self.reference[self.task.claims[n].step])
        self.cell_comparisons = (*self.cell_comparisons[:n], cells, *self.cell_comparisons[n + 1 :])

    def _milder_rules(self, claim: Claim, rule: Rule) -> Iterator[Rule]:
        """Yield what else may be allowed to a claim: large scores, a narrow dtype that only the reference tells."""
        if rule.name == "flash" and rule.reason.startswith("they are"):
            yield self._with_allowed_error(claim, rule, is_drawn=True)
        if not (rule.atol_is_relative or rule.name == "digits") or claim.step_figures.gap_numbers:
            return
        if rule.dtype == "float32" and self._may_be_plain_error(claim, rule):
            for is_drawn in (False, True):
                flash = self._with_allowed_error(
                    claim,
                    dataclasses.replace(rule, name="flash", factor=rules.flash_factor(claim.step)),
                    is_drawn=is_drawn,
                )
                yield dataclasses.replace(rule, allowed_error=flash.allowed_error, plain_error=flash.plain_error)
        if not rule.reason.startswith("they are"):
            return
        reference = self.reference_cells(claim)
        decimals = None if self.task.figures.kind == "arrays" else claim.decimals
        dtype = figure_precision.infer_dtype(claim.values, rule.dtype, decimals, reference)
        for narrow in ("bfloat16", "float16"):
            if np.array_equal(figure_precision.to_dtype(narrow, reference), claim.values):
                dtype = narrow
        if dtype == "float32" and rule.dtype == "float64":
            yield rules.close_rule(dtype)
        elif dtype != rule.dtype:
            for is_drawn in (False, True):
                yield self._with_allowed_error(claim, rules.flash_rule(claim.step, dtype), is_drawn=is_drawn)
        elif claim.decimals is not None:
            for narrow in figure_precision.possible_dtypes_of_short_figures(claim.values, claim.decimals, reference):
                yield self._with_allowed_error(claim, rules.flash_rule(claim.step, narrow), is_drawn=True)

    def _may_be_plain_error(self, claim: Claim, rule: Rule) -> bool:
        """Tell whether a large problem's errors may be those of plain attention, by some queries with large ones."""
        if self.score_count <= _MAX_WHOLE_SCORES:
            return True
        n = next(n for n, other in enumerate(self.task.claims) if other is claim)
        sample = self.at_queries(choose_queries(self.task, [~cells.is_right for cells in self.cell_comparisons]))
        plain = PlainErrors(sample.trials, sample.reference, sample.score_count).largest_error(claim.step, rule.dtype)
        least = rules.unit_in_last_place(rule.dtype, self.largest_figures[claim.step])
        return float(sample.cell_comparisons[n].error.max(initial=0.0)) <= _MAX_PLAIN_ERRORS * max(2 * plain, least)

    def _constant_value_text(self, claim: Claim) -> str:
        """Return the one value of a claim whose figures are all equal, where the reference's are not: 0, NaN, 0.25; else ""."""
        figures = claim.values
        if figures.size < _MIN_CONSTANT_FIGURES or figures.dtype.kind != "f":
            return ""
        if _is_constant(self.reference_cells(claim)) or not _is_constant(figures):
            return ""
        value = figures.flat[0]
        return "NaN" if np.isnan(value) else f"{value + 0.0:.6g}".replace("inf", "∞").replace("-", "−")


def _worst_position(cells: CellComparison) -> tuple[int, ...]:
    """Find the largest error: among the wrong cells, where any is wrong."""
    is_wrong = ~cells.is_right
    has_infinite_error = np.isinf(cells.error[is_wrong]).any()
    error = np.where(is_wrong, np.inf, 0.0) if has_infinite_error else cells.error
    position = np.unravel_index(int(np.argmax(error)), error.shape)
    if is_wrong.any() and not is_wrong[position]:
        position = np.unravel_index(int(np.argmax(np.where(is_wrong, cells.error, -1))), error.shape)
    return tuple(map(int, position))


def _is_constant(values: NumpyArray) -> bool:
    """Tell whether all figures are equal, or all are NaN."""
    return bool((values == values.flat[0]).all() or (values.dtype.kind == "f" and np.isnan(values).all()))
