"""Searching for a computation that gives the figures: classic faults and other choices, one change at a time, then two.

`Search(comparison).find_changes()` is the entry. Every trial is compared with every claim; a match counts only if it
says more than so many trials would reach by chance.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from attncli.check import rules
from attncli.check.alternatives import Alternative, one_choice_alternatives
from attncli.check.comparison import Comparison
from attncli.check.faults import Hypothesis, fault_hypotheses
from attncli.check.trials import StepArrays, Trials, or_none
from attncli.plan import Plan
from attncli.text import join_names
from attncli.types import NumpyArray
from attncli.verdict import Diagnosis

_MAX_PAIR_TRIALS = 2000  # computations of two changes that are tried on a small problem, and fewer on a larger one
_PAIR_IMPLAUSIBILITY_LIMIT = 5  # two changes that are together as implausible as this are not tried
_SMALL_PROBLEM_SCORES = 2048
_LARGE_PROBLEM_SCORES = 1 << 20  # of a larger problem only likely changes are tried
_MAX_NUMBERS = 1 << 31  # that a search by a sample reads and makes: scores, and keys and values for each head
_MAX_SCORES_AT_ONCE = 1 << 24  # of what only all queries together show
_MAX_CONFIRMED = 3  # of the matches that a sample gives: each is computed for all queries
_MAX_NEAREST_CANDIDATES = 5
# of the reference's own error, of what is near but does not give the figures: on the whole, and where it is largest
_MAX_LIKENESS_ERROR_SHARE, _MAX_LARGEST_ERROR_SHARE = 0.25, 0.4
_NONFINITE_PATTERN_DIGITS = 6.0  # digits of evidence, for NaN and ∞ in exactly the claimed cells
_SIGNIFICANCE_MARGIN_DIGITS = 1.0  # digits by which a match must exceed what so many trials reach by chance
_EXTREME_DIGITS = 0.35  # of evidence that a figure is worth which is 0, 1 or NaN: many computations give that
_INDEPENDENT_DIGITS_SHARE = 0.7  # of all digits: figures depend on each other (rows sum to 1)
_MIN_SCALE = 1e-300  # an error is divided by this where the largest figure is 0

ProgressCallback: TypeAlias = Callable[[float, str], None]  # (share done, what is being done)
FaultsByName: TypeAlias = dict[str, Hypothesis]
# trials of a problem → a change of it, and the trials that it is computed with
Recipe: TypeAlias = Callable[[Trials], tuple[Hypothesis, Trials] | None]


@dataclass(frozen=True)
class TrialResult:
    """A computation that was tried, and how its figures compare with the claims."""

    names: tuple[str, ...]
    description: str
    implausibility: int
    is_fault: bool
    is_match: bool
    evidence_digits: float  # by which it is nearer to the figures than the reference is, over all wrong figures
    max_error: float
    max_relative_error: float  # the same as a share of each step's largest figure
    explained_steps: tuple[str, ...]  # wrong steps that it gives
    figures_key: bytes  # equal for computations that give the same figures
    differs_from_reference: bool  # somewhere in the claimed cells
    breaks_right_claims: bool  # a claim that is right would be wrong
    claimed_cells: tuple[NumpyArray, ...]  # its figures, if it matches: they tell it from other matches
    hypothesis: Hypothesis
    approximate: bool  # it does not match, and need not: its errors go in the same directions
    rebuild: Recipe | None = None  # the same on other queries
    is_near: bool = False  # it matches, or takes off most of the error and breaks nothing that is right


@dataclass(frozen=True)
class SingleTrial:
    """A trial of one change; without an alternative the change is a fault."""

    result: TrialResult
    alternative: Alternative | None


@dataclass(frozen=True)
class PairTrial:
    """Two changes that will be tried together."""

    implausibility: int
    run: Callable[[], TrialResult | None]


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    identified: tuple[Diagnosis, ...] = ()
    nearest_candidates: tuple[Diagnosis, ...] = ()
    equivalent_choices: tuple[str, ...] = ()
    trial_count: int = 0
    left_out_count: int = 0  # changes that were not tried, because others were likelier
    sampled_queries: int = 0  # of how many queries everything was tried; 0: of all


class Search:
    """One search for the computation behind the claims of a comparison."""

    def __init__(self, comparison: Comparison) -> None:
        self.whole = comparison
        self.comparison = comparison.sample
        self.trials = self.comparison.trials
        self.wrong_claims = self.comparison.wrong_claims
        self.distinct_figures_keys: set[bytes] = set()
        self.left_out_count = 0
        self.numbers_left = _MAX_NUMBERS
        self.numbers_of_trial = _count_numbers(self.trials.plan)
        self.confirmed: dict[tuple[str, ...], TrialResult | None] = {}

    @property
    def is_sampled(self) -> bool:
        """Whether only some of the queries are computed."""
        return self.comparison is not self.whole

    def find_changes(self, report_progress: ProgressCallback | None = None) -> SearchResult:
        """Try one change, and two only where no single one matches."""
        report_progress = report_progress or _ignore_progress
        singles = self._try_single_changes(report_progress)
        results = [single.result for single in singles]
        if not self.wrong_claims:
            same = [
                single.result.names[0]
                for single in singles
                if single.alternative and not single.result.differs_from_reference and single.result.implausibility < 3
            ]
            return self._make_result(equivalent_choices=tuple(dict.fromkeys(same)))
        if self.comparison.constant_claims and self.wrong_claims <= set(self.comparison.constant_claims):
            # figures that are all equal are little evidence: any match counts, of what explains constant figures
            matches = [r for r in results if _is_real_match(r) and r.hypothesis.explains_constant]
            return self._make_result(identified=self._diagnose(matches))
        matches = self._confirm(self._significant_matches(results))
        if not matches:
            matches = self._confirm(self._significant_matches(self._try_pairs(singles, report_progress)))
        if matches:
            return self._make_result(identified=self._diagnose(matches))
        if self.is_sampled:  # what is near there may be far off elsewhere
            return self._make_result(identified=self._diagnose(self._try_changes_across_queries()))
        return self._make_result(nearest_candidates=self._find_nearest_candidates(results))

    def _make_result(
        self,
        *,
        identified: tuple[Diagnosis, ...] = (),
        nearest_candidates: tuple[Diagnosis, ...] = (),
        equivalent_choices: tuple[str, ...] = (),
    ) -> SearchResult:
        return SearchResult(
            identified,
            nearest_candidates,
            equivalent_choices,
            self.trials.trial_count,
            self.left_out_count,
            self.comparison.query_count if self.is_sampled else 0,
        )

    # ── one change ───────────────────────────────────────────────────────────────────────────────
    def _try_single_changes(self, report_progress: ProgressCallback) -> list[SingleTrial]:
        """Try every single change; rounding comes last, and only where nothing else matches."""
        is_large = self.comparison.score_count > _LARGE_PROBLEM_SCORES
        changes = [
            (hypothesis, alternative)
            for hypothesis, alternative in single_changes(self.trials)
            if not is_large or hypothesis.implausibility <= 1
        ]
        changes.sort(key=lambda change: (change[0].is_rounding, change[0].implausibility if self.is_sampled else 0))
        singles: list[SingleTrial] = []
        for i, (hypothesis, alternative) in enumerate(changes):
            report_progress(i / len(changes), "one change")
            is_first_rounding = hypothesis.is_rounding and not changes[i - 1][0].is_rounding
            is_less_likely = self.is_sampled and i and hypothesis.implausibility > changes[i - 1][0].implausibility
            if is_first_rounding or is_less_likely:
                matches = self._significant_matches([single.result for single in singles])
                if self._confirm(matches):
                    break
            if self.is_sampled and self.numbers_left <= 0:
                self.left_out_count += len(changes) - i
                break
            recipe = partial(_rebuild_choice, alternative) if alternative else partial(_rebuild_fault, hypothesis.name)
            result = self._try_hypothesis(hypothesis, is_fault=alternative is None, rebuild=recipe)
            if result:
                singles.append(SingleTrial(result, alternative))
        return singles

    def _try_hypothesis(
        self,
        hypothesis: Hypothesis,
        *,
        is_fault: bool,
        trials: Trials | None = None,
        names: tuple[str, ...] = (),
        rebuild: Recipe | None = None,
    ) -> TrialResult | None:
        """Compute a hypothesis and compare its figures with every claim; None where it cannot be computed."""
        if self.is_sampled and hypothesis.mixes_queries:
            return None
        self.numbers_left -= self.numbers_of_trial
        figures = self._compute_figures(hypothesis, trials or self.trials)
        if figures is None:
            return None
        return self._judge_figures(hypothesis, figures, is_fault=is_fault, names=names, rebuild=rebuild)

    def _judge_figures(
        self,
        hypothesis: Hypothesis,
        figures: StepArrays,
        *,
        is_fault: bool,
        names: tuple[str, ...] = (),
        rebuild: Recipe | None = None,
    ) -> TrialResult | None:
        """Compare the figures that a hypothesis gives with every claim; None where they are of another shape."""
        evidence = _Evidence()
        for n, claim in enumerate(self.comparison.task.claims):
            step_values = figures.get(claim.step)
            if step_values is None or step_values.shape != self.comparison.reference[claim.step].shape:
                return None
            self._add_evidence(evidence, n, step_values)
        is_match = evidence.is_match and (evidence.shrinks_error or not self.wrong_claims)
        digits, steps = evidence.gained_digits, evidence.explained_steps
        approximate = hypothesis.approximate and not is_match
        is_near = is_match or (
            evidence.takes_off_most and (not approximate or self._is_within_own_rounding(hypothesis, figures))
        )
        figures_key = b"".join(evidence.figures_keys)
        self.distinct_figures_keys.add(figures_key)
        return TrialResult(
            names=names or (hypothesis.name,),
            description=hypothesis.description,
            implausibility=hypothesis.implausibility,
            is_fault=is_fault,
            is_match=is_match,
            evidence_digits=_INDEPENDENT_DIGITS_SHARE * digits - hypothesis.evidence_cost,
            max_error=evidence.max_error,
            max_relative_error=evidence.max_relative_error,
            explained_steps=tuple(dict.fromkeys(steps)),
            figures_key=figures_key,
            differs_from_reference=evidence.differs_from_reference,
            breaks_right_claims=evidence.breaks_right_claims,
            claimed_cells=tuple(evidence.claimed_cells) if is_match else (),
            hypothesis=hypothesis,
            rebuild=rebuild,
            approximate=approximate,
            is_near=is_near,
        )

    def _compute_figures(self, hypothesis: Hypothesis, trials: Trials) -> StepArrays | None:
        """Compute the steps that a hypothesis gives, and count it as a trial of this search."""
        figures = _compute_figures(hypothesis, trials, self.comparison)
        if figures is not None and trials is not self.trials:
            self.trials.trial_count += 1
        return figures

    def _add_evidence(self, evidence: _Evidence, claim_index: int, step_values: NumpyArray) -> None:
        """Compare a hypothesis's values of a step with one claim, and add up what that tells."""
        comparison = self.comparison
        claim, before = comparison.task.claims[claim_index], comparison.cell_comparisons[claim_index]
        scale = max(comparison.largest_figures[claim.step], _MIN_SCALE)
        values, reference = step_values[claim.index], comparison.reference_cells(claim)
        largest_figure = rules.largest_finite(step_values)
        if self.is_sampled:  # others may be larger
            largest_figure = max(largest_figure, comparison.largest_figures[claim.step])
        cells = comparison.compare(claim_index, step_values, largest_figure=largest_figure)
        is_right = bool(cells.is_right.all())
        evidence.claimed_cells.append(values)
        evidence.figures_keys.append(np.ascontiguousarray(_drop_last_digits(values)).tobytes())
        evidence.differs_from_reference |= _differ_beyond_noise(values, reference, scale)
        evidence.is_match &= is_right
        if claim_index in self.wrong_claims:
            if is_right:
                evidence.explained_steps.append(claim.step)
            repaired = ~before.is_right & cells.is_right
            evidence.gained_digits += _count_gained_digits(
                before.error, claim.values, cells.tolerance, repaired, (values == claim.values) & (values == 0)
            )
            if (
                claim_index not in comparison.constant_claims
                and _have_same_nonfinite_cells(claim.values, values)
                and not _have_same_nonfinite_cells(claim.values, reference)
            ):
                evidence.gained_digits += _NONFINITE_PATTERN_DIGITS
            evidence.breaks_right_cells |= bool((before.is_right & ~cells.is_right).any())
            evidence.has_unexplained_cells |= bool((~cells.is_right & ~np.isfinite(cells.error)).any())
            compared = np.isfinite(before.error) & np.isfinite(cells.error)
            with np.errstate(all="ignore"):
                evidence.residual += float((cells.error[compared] ** 2).sum() / scale**2)
                evidence.residual_before += float((before.error[compared] ** 2).sum() / scale**2)
            evidence.max_error_before = max(evidence.max_error_before, float(before.error.max(initial=0.0)) / scale)
        else:
            evidence.breaks_right_claims |= not is_right
        error = float(cells.error.max(initial=0.0))
        evidence.max_error = max(evidence.max_error, error)
        evidence.max_relative_error = max(evidence.max_relative_error, error / scale)

    def _is_within_own_rounding(self, hypothesis: Hypothesis, figures: StepArrays) -> bool:
        """Tell whether the error that is left is no larger than the change that the hypothesis's own rounding makes.

        What is rounded to so many decimals has no more of them.
        """
        for claim in self.comparison.task.claims:
            values = figures[claim.step][claim.index].astype(np.float64)
            if hypothesis.decimals is not None:
                has_more, claim_has_more = (_has_more_decimals(x, hypothesis.decimals) for x in (values, claim.values))
                if claim_has_more and not has_more:
                    return False
            with np.errstate(all="ignore"):
                moved, left = np.abs(values - self.comparison.reference_cells(claim)), np.abs(values - claim.values)
            is_finite = np.isfinite(moved) & np.isfinite(left)
            if not is_finite.any():
                continue
            slack = 1e-9 * self.comparison.largest_figures[claim.step]
            if float(left[is_finite].max()) > 2 * float(moved[is_finite].max()) + slack:
                return False
        return True

    def _significant_matches(self, results: Iterable[TrialResult]) -> list[TrialResult]:
        """Select the matches with more evidence than so many trials would reach by chance."""
        needed_digits = math.log10(max(len(self.distinct_figures_keys), 10)) + _SIGNIFICANCE_MARGIN_DIGITS
        return [r for r in results if _is_real_match(r) and r.evidence_digits >= needed_digits]

    # ── all queries ──────────────────────────────────────────────────────────────────────────────
    def _confirm(self, matches: list[TrialResult]) -> list[TrialResult]:
        """Keep the matches that give the figures of all queries, the likeliest, where they were found by a sample."""
        if not self.is_sampled:
            return matches
        if self.whole.wrong_claims != self.wrong_claims:
            return []
        in_order = sorted(matches, key=lambda r: (r.implausibility, not r.is_fault, r.max_error))
        confirmed: list[TrialResult] = []
        for match in in_order[:_MAX_CONFIRMED]:
            if match.names not in self.confirmed:
                self.confirmed[match.names] = self._try_on_all_queries(match)
            result = self.confirmed[match.names]
            if result is not None and result.is_match:
                confirmed.append(result)
        return confirmed

    def _try_changes_across_queries(self) -> list[TrialResult]:
        """Try what no sample shows, on all queries at once, if they are not too many."""
        if self.whole.score_count > _MAX_SCORES_AT_ONCE:
            self.left_out_count += sum(hypothesis.mixes_queries for hypothesis in fault_hypotheses(self.trials))
            return []
        search = Search(self.whole.at_all_queries())
        changes = [hypothesis for hypothesis in fault_hypotheses(search.trials) if hypothesis.mixes_queries]
        results = [search._try_hypothesis(hypothesis, is_fault=True) for hypothesis in changes]
        self.trials.trial_count += search.trials.trial_count
        return self._significant_matches(result for result in results if result is not None)

    def _try_on_all_queries(self, match: TrialResult) -> TrialResult | None:
        """Compute a match block by block of queries, and judge it by all figures; None where a block is wrong."""
        parts: list[StepArrays] = []
        for block in self.whole.iter_blocks():
            found = match.rebuild(block.trials) if match.rebuild else None
            figures = None if found is None else _compute_figures(found[0], found[1], block)
            if figures is None:
                return None
            for n, claim in enumerate(block.task.claims):
                step_values = figures.get(claim.step)
                if step_values is None or step_values.shape != block.reference[claim.step].shape:
                    return None
                largest_figure = max(rules.largest_finite(step_values), self.whole.largest_figures[claim.step])
                if not block.compare(n, step_values, largest_figure=largest_figure).is_right.all():
                    return None
            parts.append({claim.step: figures[claim.step] for claim in block.task.claims})
        steps = self.whole.task.plan.steps
        joined = {
            step: np.concatenate([part[step] for part in parts], steps[step].index("query"))
            if "query" in steps[step]
            else parts[0][step]
            for step in parts[0]
        }
        judge = Search(self.whole.at_all_queries())
        return judge._judge_figures(match.hypothesis, joined, is_fault=match.is_fault, names=match.names)

    # ── two changes ──────────────────────────────────────────────────────────────────────────────
    def _try_pairs(self, singles: Sequence[SingleTrial], report_progress: ProgressCallback) -> list[TrialResult]:
        """Try two choices, or a choice and a fault: the likeliest first, and no further than the first that matches."""
        pairs = sorted(
            (pair for pair in self._pair_trials(singles) if pair.implausibility < _PAIR_IMPLAUSIBILITY_LIMIT),
            key=lambda pair: pair.implausibility,
        )
        max_trials = int(_MAX_PAIR_TRIALS * min(1.0, _SMALL_PROBLEM_SCORES / self.comparison.score_count))
        if self.is_sampled:
            max_trials = min(max_trials, max(self.numbers_left, 0) // self.numbers_of_trial)
        self.left_out_count += max(len(pairs) - max_trials, 0)
        pairs = pairs[:max_trials]
        results: list[TrialResult] = []
        matched_implausibility: int | None = None
        for i, pair in enumerate(pairs):
            if matched_implausibility is not None and pair.implausibility > matched_implausibility:
                break
            report_progress(i / len(pairs), "two changes")
            result = pair.run()
            if result is None:
                continue
            results.append(result)
            if self._significant_matches([result]):
                matched_implausibility = pair.implausibility
        return results

    def _pair_trials(self, singles: Sequence[SingleTrial]) -> Iterator[PairTrial]:
        """Yield pairs of changes that change something and break nothing that is right.

        A likely choice that changes nothing alone may matter together with another: what an empty row gets, say.
        """
        choices, faults = _pairable_choices(singles), _pairable_faults(singles)
        for (first, first_choice), (second, second_choice) in itertools.combinations(choices, 2):
            if first_choice.choice_name != second_choice.choice_name and (
                first.differs_from_reference or second.differs_from_reference
            ):
                implausibility = first.implausibility + second.implausibility
                yield PairTrial(implausibility, partial(self._try_two_choices, first_choice, second_choice))
        combinable = [result for result in faults if result.hypothesis.combinable]
        for i, base in enumerate(combinable):
            get_faults = functools.cache(partial(self._faults_on_top_of, base))
            done = {result.names for result in combinable[: i + 1]}
            for result in faults:
                if result.names not in done:
                    yield PairTrial(
                        result.implausibility + base.implausibility,
                        partial(self._try_fault_on, result, base, get_faults),
                    )
        for base, choice in choices:
            if base.implausibility == 1:
                get_faults = functools.cache(partial(self._faults_under_choice, choice))
                for result in faults:
                    yield PairTrial(
                        result.implausibility + base.implausibility,
                        partial(self._try_fault_on, result, base, get_faults),
                    )

    def _try_two_choices(self, first: Alternative, second: Alternative) -> TrialResult | None:
        hypothesis = _hypothesis_of_two_choices(self.trials, first, second)
        rebuild = partial(_rebuild_two_choices, first, second)
        return self._try_hypothesis(hypothesis, is_fault=False, rebuild=rebuild)

    def _faults_under_choice(self, alternative: Alternative) -> tuple[Trials, FaultsByName] | None:
        """Return the trials of the problem with one choice changed, and the faults on it."""
        plan = or_none(partial(self.trials.with_choices, **{alternative.choice_name: alternative.value}))
        return None if plan is None else self._faults_on(plan)

    def _faults_on_top_of(self, result: TrialResult) -> tuple[Trials, FaultsByName] | None:
        """Return the trials of the problem with one fault in it, and the faults on top of that."""
        plan = or_none(result.hypothesis.compute)
        return self._faults_on(plan) if isinstance(plan, Plan) else None

    def _faults_on(self, plan: Plan) -> tuple[Trials, FaultsByName]:
        trials = Trials(plan, self.trials.top, self.trials.claims)
        return trials, {h.name: h for h in fault_hypotheses(trials) if not h.is_rounding}

    def _try_fault_on(
        self, fault_result: TrialResult, base: TrialResult, get_faults: Callable[[], tuple[Trials, FaultsByName] | None]
    ) -> TrialResult | None:
        """Try a fault of the original problem on the problem that another change has made."""
        changed = get_faults()
        if changed is None:
            return None
        trials, faults = changed
        fault = faults.get(fault_result.names[0])
        if fault is None:
            return None
        hypothesis = dataclasses.replace(
            fault,
            description=f"{fault.description}; and {base.description}",
            implausibility=fault.implausibility + base.implausibility,
        )
        return self._try_hypothesis(
            hypothesis,
            is_fault=True,
            trials=trials,
            names=(f"{fault.name} and {base.hypothesis.name}",),
            rebuild=partial(_rebuild_fault_on, fault.name, base),
        )

    # ── naming ───────────────────────────────────────────────────────────────────────────────────
    def _diagnose(self, matches: list[TrialResult]) -> tuple[Diagnosis, ...]:
        """Turn matches into diagnoses, the simplest first; matches that the figures cannot tell apart share one."""
        matches = sorted(matches, key=lambda r: (r.implausibility, not r.is_fault, r.max_error))
        groups: list[list[TrialResult]] = []
        for match in matches:
            group = next((group for group in groups if self._are_indistinguishable(group[0], match)), None)
            if group is None:
                groups.append([match])
            else:
                group.append(match)
        return tuple(self._make_diagnosis(group) for group in groups)

    def _are_indistinguishable(self, match: TrialResult, other: TrialResult) -> bool:
        """Tell whether the claimed figures cannot tell two computations apart."""
        if match.figures_key == other.figures_key:
            return True
        for n, (values, other_values) in enumerate(zip(match.claimed_cells, other.claimed_cells, strict=True)):
            cells = rules.compare_cells(
                self.comparison.rules[n],
                values,
                other_values,
                self.comparison.decimals[n],
                rules.largest_finite(other_values),
            )
            if not cells.is_right.all():
                return False
        return True

    def _make_diagnosis(self, group: Sequence[TrialResult], *, is_match: bool = True) -> Diagnosis:
        """Make one diagnosis of results that give the same figures, with the sentence of the first."""
        first = group[0]
        steps = join_names(first.explained_steps or [claim.step for claim in self.comparison.task.claims])
        verb = "are" if steps.endswith("s") or " and " in steps else "is"
        if not is_match:
            verb += " like"
        return Diagnosis(
            tuple(dict.fromkeys(name for result in group for name in result.names)),
            f"your {steps} {verb} the reference {first.description}",
            first.explained_steps,
            first.max_error,
            is_match,
        )

    def _find_nearest_candidates(self, results: Sequence[TrialResult]) -> tuple[Diagnosis, ...]:
        """Find the few results that match, if by chance; or else those that take off most of the error."""
        near = [r for r in results if r.is_near and r.differs_from_reference]
        if any(r.is_match for r in near):
            near = [r for r in near if r.is_match]
        groups: dict[bytes, list[TrialResult]] = {}
        for result in sorted(near, key=lambda r: (r.max_relative_error, r.implausibility)):
            groups.setdefault(result.figures_key, []).append(result)
        nearest = itertools.islice(groups.values(), _MAX_NEAREST_CANDIDATES)
        return tuple(self._make_diagnosis(group, is_match=group[0].is_match) for group in nearest)


@dataclass
class _Evidence:
    """What the comparison of one hypothesis with every claim adds up to."""

    is_match: bool = True
    breaks_right_claims: bool = False
    differs_from_reference: bool = False
    gained_digits: float = 0.0
    max_error: float = 0.0
    max_relative_error: float = 0.0
    breaks_right_cells: bool = False  # of claims that are wrong elsewhere
    has_unexplained_cells: bool = False  # NaN or ∞ on one side only
    residual: float = 0.0  # Σ error², over the wrong claims, as a share of each step's largest figure
    residual_before: float = 0.0  # the same of the reference
    max_error_before: float = 0.0  # the reference's largest, as such a share
    explained_steps: list[str] = dataclasses.field(default_factory=list)
    figures_keys: list[bytes] = dataclasses.field(default_factory=list)
    claimed_cells: list[NumpyArray] = dataclasses.field(default_factory=list)

    @property
    def takes_off_most(self) -> bool:
        """Whether most of the error is gone, on the whole and where it is largest, and nothing that was right is wrong."""
        is_smaller = self.residual <= _MAX_LIKENESS_ERROR_SHARE**2 * self.residual_before
        is_smaller &= self.max_relative_error < _MAX_LARGEST_ERROR_SHARE * self.max_error_before
        return is_smaller and not (self.breaks_right_claims or self.breaks_right_cells or self.has_unexplained_cells)

    @property
    def shrinks_error(self) -> bool:
        """Whether the error is smaller than the reference's, on the whole and where it is largest."""
        if not math.isfinite(self.max_error_before):
            return self.residual <= self.residual_before
        return self.residual < self.residual_before and self.max_relative_error < self.max_error_before


def _ignore_progress(share: float, activity: str) -> None: ...


def _count_numbers(plan: Plan) -> int:
    """Count the numbers that one computation of a plan reads and makes: scores, and keys and values for each head."""
    heads = (plan.size.batch or 1) * plan.shapes.heads
    return plan.score_count + heads * plan.size.keys * (plan.shapes.d + (plan.shapes.c or 0))


def _compute_figures(hypothesis: Hypothesis, trials: Trials, comparison: Comparison) -> StepArrays | None:
    """Compute the steps that a hypothesis gives, those that it leaves unchanged as the reference has them."""
    computed = or_none(hypothesis.compute)
    figures = or_none(lambda: trials.compute_steps(computed)) if isinstance(computed, Plan) else computed
    if figures is None:
        return None
    unchanged = (*hypothesis.unchanged_steps, "positioned_embeddings")
    reference = comparison.reference
    return figures | {step: reference[step] for step in unchanged if step in reference}


# ── the same change on other queries ─────────────────────────────────────────────────────────────
def _rebuild_fault(name: str, trials: Trials) -> tuple[Hypothesis, Trials] | None:
    found = next((hypothesis for hypothesis in fault_hypotheses(trials) if hypothesis.name == name), None)
    return None if found is None else (found, trials)


def _rebuild_choice(alternative: Alternative, trials: Trials) -> tuple[Hypothesis, Trials]:
    return _choice_hypothesis(trials, alternative), trials


def _rebuild_two_choices(first: Alternative, second: Alternative, trials: Trials) -> tuple[Hypothesis, Trials]:
    return _hypothesis_of_two_choices(trials, first, second), trials


def _rebuild_fault_on(name: str, base: TrialResult, trials: Trials) -> tuple[Hypothesis, Trials] | None:
    found = base.rebuild(trials) if base.rebuild else None
    plan = None if found is None else or_none(found[0].compute)
    return _rebuild_fault(name, Trials(plan, trials.top, trials.claims)) if isinstance(plan, Plan) else None


def _choice_hypothesis(trials: Trials, alternative: Alternative) -> Hypothesis:
    compute = partial(trials.with_choices, **{alternative.choice_name: alternative.value})
    return Hypothesis(alternative.option_text, alternative.description, compute, alternative.implausibility)


def _hypothesis_of_two_choices(trials: Trials, first: Alternative, second: Alternative) -> Hypothesis:
    return Hypothesis(
        f"{first.option_text} {second.option_text}",
        f"{first.description} and {second.description}",
        partial(trials.with_choices, **{first.choice_name: first.value, second.choice_name: second.value}),
        first.implausibility + second.implausibility,
    )


def _is_real_match(result: TrialResult) -> bool:
    return result.is_match and result.differs_from_reference


def single_changes(trials: Trials) -> Iterator[tuple[Hypothesis, Alternative | None]]:
    """Yield everything one change away: faults, then choices, each with its alternative."""
    for hypothesis in fault_hypotheses(trials):
        yield hypothesis, None
    for alternative in one_choice_alternatives(trials.plan):
        yield _choice_hypothesis(trials, alternative), alternative


def _pairable_choices(singles: Sequence[SingleTrial]) -> list[tuple[TrialResult, Alternative]]:
    """Return the choices that may be one of two changes: one for each set of figures, and likely ones that change nothing."""
    changing: dict[bytes, tuple[TrialResult, Alternative]] = {}
    silent: list[tuple[TrialResult, Alternative]] = []
    for single in sorted(singles, key=lambda single: single.result.implausibility):
        result, alternative = single.result, single.alternative
        if alternative is None:
            continue
        if not result.differs_from_reference:
            if result.implausibility == 1:
                silent.append((result, alternative))
        elif not result.breaks_right_claims:
            changing.setdefault(result.figures_key, (result, alternative))
    return [*changing.values(), *silent]


def _pairable_faults(singles: Sequence[SingleTrial]) -> list[TrialResult]:
    """Return the faults that may be one of two changes: one for each set of figures."""
    faults = [
        single.result
        for single in singles
        if single.alternative is None
        and single.result.differs_from_reference
        and not single.result.breaks_right_claims
        and single.result.implausibility < 3
    ]
    return list({result.figures_key: result for result in reversed(faults)}.values())[::-1]


def _differ_beyond_noise(values: NumpyArray, reference: NumpyArray, scale: float) -> bool:
    """Tell whether figures differ from the reference by more than rounding errors of float64."""
    with np.errstate(all="ignore"):
        is_same = (values == reference) | ((values != values) & (reference != reference))
        is_same |= np.abs(values.astype(np.float64) - reference) <= 1e-12 * scale
    return not is_same.all()


def _drop_last_digits(values: NumpyArray) -> NumpyArray:
    """Round figures so far that two ways of computing the same give equal figures."""
    if values.dtype.kind in "biu":
        return values
    with np.errstate(all="ignore"):
        rounded: NumpyArray = np.round(values, 10) + 0.0
    return rounded


def _has_more_decimals(values: NumpyArray, decimals: int) -> bool:
    """Tell whether some figure has more decimals than so many."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return bool((np.abs(finite - np.round(finite, decimals)) > 1e-9 * np.maximum(np.abs(finite), 1.0)).any())


def _have_same_nonfinite_cells(values: NumpyArray, other: NumpyArray) -> bool:
    """Tell whether the same cells are NaN, ∞ and −∞, and some are."""
    if values.dtype.kind != "f" or other.dtype.kind != "f" or np.isfinite(values).all():
        return False
    return all(np.array_equal(is_kind(values), is_kind(other)) for is_kind in (np.isnan, np.isposinf, np.isneginf))


def _count_gained_digits(
    error_before: NumpyArray,
    values: NumpyArray,
    tolerance: NumpyArray,
    repaired: NumpyArray,
    are_zero: NumpyArray | bool = False,
) -> float:
    """Count the digits by which figures are nearer than before, over the cells that were wrong and are right.

    Args:
        error_before: of the reference.
        values: the claimed figures.
        tolerance: what the rule allows.
        repaired: which figures were wrong and are right.
        are_zero: which are computed as 0, and not merely small.
    """
    # the error is not finite where a number stands in the place of NaN or ∞: the number's size counts
    error = np.where(np.isfinite(error_before), error_before, np.abs(values.astype(np.float64)))
    with np.errstate(all="ignore"):
        gain = np.log10(np.maximum(error, 1e-300) / np.maximum(tolerance, 1e-15 * np.maximum(error, 1e-300)))
    is_extreme = ((np.abs(values) <= tolerance) & ~np.asarray(are_zero)) | (
        np.abs(np.abs(values) - 1.0) <= tolerance
    )  # all of the weight, or none
    gain = np.where(np.isfinite(error), np.clip(gain, 0, np.where(is_extreme, _EXTREME_DIGITS, 15)), _EXTREME_DIGITS)
    return float(gain[repaired].sum())
