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
from attncli.check.alternatives import Alternative
from attncli.check.changes import (
    rebuild_choice,
    rebuild_fault,
    rebuild_fault_on,
    rebuild_two_choices,
    single_changes,
    two_choices_hypothesis,
)
from attncli.check.comparison import Comparison
from attncli.check.diagnoses import find_nearest_candidates, make_diagnoses
from attncli.check.evidence import Evidence, is_within_own_rounding, key_of_figures, largest_residual_of_cause
from attncli.check.faults import Hypothesis, fault_hypotheses
from attncli.check.trial_results import (
    RebuildHypothesis,
    SingleTrial,
    TrialResult,
    is_real_match,
    pairable_choices,
    pairable_faults,
)
from attncli.check.trials import StepArrays, Trials, compute_or_none
from attncli.plan import Plan
from attncli.verdict import Diagnosis

_MAX_PAIR_TRIALS = 2000  # computations of two changes that are tried on a small problem, and fewer on a larger one
_PAIR_IMPLAUSIBILITY_LIMIT = 5  # two changes that are together as implausible as this are not tried
_SMALL_PROBLEM_SCORES = 2048
_LARGE_PROBLEM_SCORES = 1 << 20  # of a larger problem only likely changes are tried
_MAX_NUMBERS = 1 << 31  # that a search by a sample reads and makes: scores, and keys and values for each head
_MAX_SCORES_AT_ONCE = 1 << 24  # of what only all queries together show
_MAX_SCORES_BACK = 1 << 23  # of a problem whose way back is computed again and again; a quarter for less likely changes
_MAX_CONFIRMED = 3  # of the matches that a sample gives: each is computed for all queries
_SIGNIFICANCE_MARGIN_DIGITS = 1.0  # digits by which a match must exceed what so many trials reach by chance
_INDEPENDENT_DIGITS_SHARE = 0.7  # of all digits: figures depend on each other (rows sum to 1)

ProgressCallback: TypeAlias = Callable[[float, str], None]  # (share done, what is being done)
FaultsByName: TypeAlias = dict[str, Hypothesis]


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
        self.unmatched_keys: set[bytes] = set()  # of those that are not the claimed figures
        self.nearest_residual = math.inf  # of what gives the figures, whether or not that is evidence enough
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
        if self.is_sampled and self.whole.has_shared_gradients:
            identified = make_diagnoses(self.whole.as_whole(), self._try_ways_back(report_progress))
            return dataclasses.replace(self._make_result(identified=identified), sampled_queries=0)
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
            matches = [r for r in results if is_real_match(r) and r.hypothesis.explains_constant]
            return self._make_result(identified=make_diagnoses(self.comparison, matches))
        matches = self._confirm(self._significant_matches(results))
        if not matches:
            matches = self._confirm(self._significant_matches(self._try_pairs(singles, report_progress)))
        if matches:
            return self._make_result(identified=make_diagnoses(self.comparison, matches))
        if self.is_sampled:  # what is near there may be far off elsewhere
            return self._make_result(identified=make_diagnoses(self.comparison, self._try_changes_across_queries()))
        return self._make_result(nearest_candidates=find_nearest_candidates(self.comparison, results))

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
        """Try every single change: the way back first, and nothing else if that is it; rounding last, where nothing matches."""
        is_large = self.comparison.score_count > _LARGE_PROBLEM_SCORES
        changes = [
            (hypothesis, alternative)
            for hypothesis, alternative in single_changes(self.trials)
            if not is_large or hypothesis.implausibility <= 1
        ]
        changes.sort(
            key=lambda change: (
                change[0].is_rounding,
                not change[0].is_backward,
                change[0].implausibility if self.is_sampled else 0,
            )
        )
        singles: list[SingleTrial] = []
        for i, (hypothesis, alternative) in enumerate(changes):
            report_progress(i / len(changes), "one change")
            is_first_rounding = hypothesis.is_rounding and not changes[i - 1][0].is_rounding
            is_less_likely = self.is_sampled and i and hypothesis.implausibility > changes[i - 1][0].implausibility
            is_first_forward = i and changes[i - 1][0].is_backward and not hypothesis.is_backward
            if is_first_rounding or is_less_likely or is_first_forward:
                matches = self._significant_matches([single.result for single in singles])
                if self._confirm(matches):
                    break
            if self.is_sampled and self.numbers_left <= 0:
                self.left_out_count += len(changes) - i
                break
            rebuild = partial(rebuild_choice, alternative) if alternative else partial(rebuild_fault, hypothesis.name)
            result = self._try_hypothesis(hypothesis, is_fault=alternative is None, rebuild=rebuild)
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
        rebuild: RebuildHypothesis | None = None,
        is_pair: bool = False,
    ) -> TrialResult | None:
        """Compute a hypothesis and compare its figures with every claim; None where it cannot be computed.

        Two changes that give figures which have been compared already give no result, either, unless they match.
        """
        if self.is_sampled and hypothesis.mixes_queries:
            return None
        self.numbers_left -= self.numbers_of_trial
        figures = self._compute_figures(hypothesis, trials or self.trials)
        if figures is None:
            return None
        if is_pair and key_of_figures(self.comparison, figures) in self.unmatched_keys:
            return None
        return self._judge_figures(hypothesis, figures, is_fault=is_fault, names=names, rebuild=rebuild)

    def _judge_figures(
        self,
        hypothesis: Hypothesis,
        figures: StepArrays,
        *,
        is_fault: bool,
        names: tuple[str, ...] = (),
        rebuild: RebuildHypothesis | None = None,
    ) -> TrialResult | None:
        """Compare the figures that a hypothesis gives with every claim; None where they are of another shape."""
        evidence = Evidence()
        for n, claim in enumerate(self.comparison.task.claims):
            step_values = figures.get(claim.step)
            if step_values is None or step_values.shape != self.comparison.reference[claim.step].shape:
                return None
            evidence.add_claim(self.comparison, n, step_values, is_sampled=self.is_sampled)
        is_match = evidence.is_match and (evidence.shrinks_error or not self.wrong_claims)
        digits, steps = evidence.gained_digits, evidence.explained_steps
        approximate = hypothesis.approximate and not is_match
        is_near = is_match or (
            evidence.takes_off_most
            and (not approximate or is_within_own_rounding(self.comparison, hypothesis, figures))
        )
        figures_key = key_of_figures(self.comparison, figures)
        self.distinct_figures_keys.add(figures_key)
        if not is_match:
            self.unmatched_keys.add(figures_key)
        if is_match and evidence.differs_from_reference:
            self.nearest_residual = min(self.nearest_residual, evidence.residual)
        return TrialResult(
            names=names or (hypothesis.name,),
            description=hypothesis.description,
            implausibility=hypothesis.implausibility,
            is_fault=is_fault,
            is_match=is_match,
            evidence_digits=_INDEPENDENT_DIGITS_SHARE * digits - hypothesis.evidence_cost,
            max_error=evidence.max_error,
            max_relative_error=evidence.max_relative_error,
            residual=evidence.residual,
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

    def _significant_matches(self, results: Iterable[TrialResult]) -> list[TrialResult]:
        """Select the matches with more evidence than so many trials would reach by chance, but none that another is nearer than.

        The rule of half precision allows so much that another number may do in the place of the right one.
        """
        needed_digits = math.log10(max(len(self.distinct_figures_keys), 10)) + _SIGNIFICANCE_MARGIN_DIGITS
        largest_residual = largest_residual_of_cause(self.comparison, self.nearest_residual)
        return [
            r
            for r in results
            if is_real_match(r) and r.evidence_digits >= needed_digits and r.residual <= largest_residual
        ]

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

    def _try_ways_back(self, report_progress: ProgressCallback) -> list[TrialResult]:
        """Try what may be wrong on the way back, on all queries: no sample shows what these add up to."""
        search = Search(self.whole.as_whole())
        changes = [hypothesis for hypothesis in fault_hypotheses(search.trials) if hypothesis.is_backward]
        count = self.whole.score_count
        tried = [
            hypothesis
            for hypothesis in changes
            if hypothesis.is_of_reference or count * max(hypothesis.implausibility, 1) ** 2 <= _MAX_SCORES_BACK
        ]
        results: list[TrialResult] = []
        for i, hypothesis in enumerate(tried):
            report_progress(i / len(tried), "one change")
            result = search._try_hypothesis(hypothesis, is_fault=True)
            results += [result] if result else []
        self.left_out_count += len(changes) - len(tried)
        self.trials.trial_count += search.trials.trial_count
        return search._significant_matches(results)

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
            trials = block.trials.confirming()
            trials.solved_numbers = self.trials.solved_numbers
            found = match.rebuild(trials) if match.rebuild else None
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
        choices, faults = pairable_choices(singles), pairable_faults(singles)
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
        hypothesis = two_choices_hypothesis(self.trials, first, second)
        rebuild = partial(rebuild_two_choices, first, second)
        return self._try_hypothesis(hypothesis, is_fault=False, rebuild=rebuild, is_pair=True)

    def _faults_under_choice(self, alternative: Alternative) -> tuple[Trials, FaultsByName] | None:
        """Return the trials of the problem with one choice changed, and the faults on it."""
        plan = compute_or_none(partial(self.trials.with_choices, **{alternative.choice_name: alternative.value}))
        return None if plan is None else self._faults_on(plan)

    def _faults_on_top_of(self, result: TrialResult) -> tuple[Trials, FaultsByName] | None:
        """Return the trials of the problem with one fault in it, and the faults on top of that."""
        plan = compute_or_none(result.hypothesis.compute)
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
            rebuild=partial(rebuild_fault_on, fault.name, base),
            is_pair=True,
        )


def _ignore_progress(share: float, activity: str) -> None: ...


def _count_numbers(plan: Plan) -> int:
    """Count the numbers that one computation of a plan reads and makes: scores, and keys and values for each head."""
    heads = (plan.size.batch or 1) * plan.shapes.heads
    return plan.score_count + heads * plan.size.keys * (plan.shapes.d + (plan.shapes.c or 0))


def _compute_figures(hypothesis: Hypothesis, trials: Trials, comparison: Comparison) -> StepArrays | None:
    """Compute the steps that a hypothesis gives, those that it leaves unchanged as the reference has them."""
    computed = compute_or_none(hypothesis.compute)
    figures = compute_or_none(lambda: trials.compute_steps(computed)) if isinstance(computed, Plan) else computed
    if figures is None:
        return None
    unchanged = (*hypothesis.unchanged_steps, "positioned_embeddings")
    reference = comparison.reference
    return figures | {step: reference[step] for step in unchanged if step in reference}
