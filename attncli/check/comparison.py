"""A task → its verdict: the reference is computed, claims are judged, and what is wrong is traced to its cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from attncli.check import rules
from attncli.check.claims import Claim, describe_cell, step_shape, to_step_array
from attncli.check.rules import CellComparison
from attncli.check.search import Search, SearchResult
from attncli.check.sensitivity import check_sensitivity
from attncli.check.trials import Trials, compute_or_default
from attncli.core.attention import run_plan
from attncli.types import Attention, NumpyArray
from attncli.verdict import GapMark, Outcome, Rule, StepComparison, Verdict

if TYPE_CHECKING:
    from attncli.check import CheckTask, SearchProgressCallback

_MIN_SCORES_FOR_THREADS = 1 << 16  # cells
_MIN_CONSTANT_FIGURES = 3  # figures that may well be alike
_WEIGHTS_STEPS_LAST_FIRST = ("mixed_weights", "dropout_weights", "weights")


class Comparison:
    """One task being judged."""

    def __init__(self, task: CheckTask, progress: SearchProgressCallback | None = None) -> None:
        self.task = task
        self.progress = progress
        self.trials = Trials(task.plan, task.top, task.claims)
        with np.errstate(all="ignore"):
            whole = dataclasses.replace(task.plan, keep=task.plan.keep | self._steps_needed_to_compare())
            self.result: Attention = run_plan(whole)
            self.reference = self.trials.compute_steps(whole)
        self.largest_figures = {step: rules.largest_finite(x) for step, x in self.reference.items()}
        self.rules = tuple(self._with_allowed_error(c, r) for c, r in zip(task.claims, task.rules, strict=True))
        self.cell_comparisons: list[CellComparison] = []
        self.constant_claims = {n: how for n, c in enumerate(task.claims) if (how := self._constant_value_text(c))}
        self.decimals = tuple(rules.written_decimals(c, r) for c, r in zip(task.claims, self.rules, strict=True))

    def _constant_value_text(self, claim: Claim) -> str:
        """How a claim's figures are all alike, where the reference's are not: all 0, all NaN, all 0.25."""
        mine, ref = claim.values, self.reference[claim.step][claim.index]
        if mine.size < _MIN_CONSTANT_FIGURES or mine.dtype.kind != "f" or _is_constant(ref) or not _is_constant(mine):
            return ""
        value = mine.flat[0]
        return "NaN" if np.isnan(value) else f"{value + 0.0:.6g}".replace("inf", "∞").replace("-", "−")

    @property
    def score_count(self) -> int:
        """How many scores there are: what one computation costs."""
        size = self.task.plan.size
        return (size.batch or 1) * self.task.plan.shapes.heads * size.queries * size.keys

    def _steps_needed_to_compare(self) -> frozenset[str]:
        """Steps that judging needs beside those that are claimed."""
        if not any(c.step == "top_keys" for c in self.task.claims):
            return frozenset()
        return frozenset([next(step for step in _WEIGHTS_STEPS_LAST_FIRST if step in self.task.plan.steps)])

    def _with_allowed_error(self, claim: Claim, rule: Rule) -> Rule:
        """Under flash, the error that is allowed: twice that of plain attention in the dtype (FlashAttention's own test)."""
        if rule.name != "flash":
            return rule
        ref = self.reference[claim.step]
        plain = self.compute_at_dtype(rule.dtype).get(claim.step)
        error = 0.0
        if plain is not None:
            both = np.isfinite(plain) & np.isfinite(ref)
            error = float(np.abs(plain - ref)[both].max(initial=0.0))
        least = 2 * rules.unit_in_last_place(rule.dtype, self.largest_figures[claim.step])
        return dataclasses.replace(rule, allowed_error=max(2 * error, least), plain_error=error)

    def compute_at_dtype(self, dtype: str) -> dict[str, NumpyArray]:
        """The same problem computed in a dtype."""
        plan = compute_or_default(lambda: self.trials.with_choices(dtype=dtype))
        found: dict[str, NumpyArray] = compute_or_default(lambda: self.trials.compute_steps(plan), {}) if plan else {}
        return found

    def compare(
        self,
        claim_index: int,
        reference: NumpyArray,
        values: NumpyArray | None = None,
        *,
        largest_figure: float | None = None,
    ) -> CellComparison:
        """The n-th claim, or other values in its place, against figures of its whole step."""
        claim = self.task.claims[claim_index]
        mine = claim.values if values is None else values
        found = rules.compare_cells(
            self.rules[claim_index], mine, reference[claim.index], self.decimals[claim_index], self.largest_figures[claim.step] if largest_figure is None else largest_figure
        )  # fmt: skip
        return self._accept_ties(claim, found) if claim.step == "top_keys" and values is None else found

    def _accept_ties(self, claim: Claim, cells: CellComparison) -> CellComparison:
        """Another key with the same weight is as right."""
        weights = self.reference[next(step for step in _WEIGHTS_STEPS_LAST_FIRST if step in self.reference)]
        at = np.broadcast_arrays(*claim.index)[:-1]
        inside = (claim.values >= 0) & (claim.values < weights.shape[-1])
        mine = weights[(*at, np.where(inside, claim.values, 0))]
        equal = inside & (mine == weights[(*at, self.reference["top_keys"][claim.index])])
        if claim.is_whole_step and claim.values.ndim and claim.values.shape == self.reference["top_keys"].shape:
            rows = np.sort(claim.values, -1)
            equal &= ~(rows[..., 1:] == rows[..., :-1]).any(-1, keepdims=True)  # no key stands twice
        return dataclasses.replace(cells, is_right=cells.is_right | equal)

    def summarize(self, claim_index: int) -> StepComparison:
        """What is to be said of the n-th claim."""
        claim, rule, decimals = self.task.claims[claim_index], self.rules[claim_index], self.decimals[claim_index]
        found = self.cell_comparisons[claim_index]
        mine, ref = claim.values, self.reference[claim.step][claim.index]
        wrong = ~found.is_right
        score = np.where(wrong, np.inf, 0.0) if np.isinf(found.error[wrong]).any() else found.error
        place = np.unravel_index(int(np.argmax(score)), score.shape)
        if wrong.any() and not wrong[place]:
            place = np.unravel_index(int(np.argmax(np.where(wrong, found.error, -1))), wrong.shape)
        finite = np.isfinite(found.error) & np.isfinite(ref.astype(np.float64))
        error = np.where(finite, found.error, 0.0)
        with np.errstate(all="ignore"):
            relative = np.where(finite & (ref != 0), error / np.abs(ref.astype(np.float64)), 0.0)
        at = claim.cell_at(tuple(map(int, place)))
        written = None if decimals is None else int(decimals[place])
        most = float(found.error.max(initial=0.0))
        if decimals is not None:
            ulp = float((error * 10.0 ** decimals.astype(np.float64)).max(initial=0.0))
        elif rule.name == "exact":
            ulp = float(most)
        else:
            ulp = float(error.max(initial=0.0)) / rules.unit_in_last_place(
                rule.dtype, self.largest_figures[claim.step] or 1.0
            )
        return StepComparison(
            step=claim.step,
            axes=claim.axes,
            shape=tuple(claim.values.shape),
            rule=rule,
            is_right=bool(found.is_right.all()),
            figure_count=int(claim.values.size),
            wrong_count=int(wrong.sum()),
            max_abs_error=most,
            max_rel_error=float(relative.max(initial=0.0)),
            max_ulp_error=ulp,
            tolerance=float(found.tolerance[place]),
            worst_cell=at,
            worst_cell_text=describe_cell(self.task.plan, at),
            actual=mine[place].item(),
            reference=ref[place].item(),
            decimals=written,
        )

    def make_verdict(self, identify: bool | None = None) -> Verdict:
        """Everything that can be said."""
        task = self.task
        self.cell_comparisons = [self.compare(n, self.reference[c.step]) for n, c in enumerate(task.claims)]
        findings = [self.summarize(n) for n in range(len(task.claims))]
        right = all(f.is_right for f in findings)
        findings = self.trace_causes(findings)
        told = check_sensitivity(self) if task.claims else ()
        loose = any(p.caught is False for p in told)
        verdict: Outcome = (
            "wrong" if not right else "unanswered" if task.open_gaps else "too-loose" if loose else "right"
        )
        search = not right if identify is None else identify
        with one_thread_if_small(self.score_count):
            found = Search(self).run(self.progress) if task.claims and search else SearchResult((), (), (), 0)
        return Verdict(
            verdict=verdict,
            problem_name=task.plan.problem.source or "the problem",
            figures_name=task.figures.name,
            variant=self.result.variant,
            summary=task.plan.summary,
            steps=tuple(findings),
            sensitivity_checks=told,
            identified=found.identified,
            nearest_candidates=found.nearest_candidates,
            equivalent_choices=found.equivalent_choices,
            trial_count=found.trial_count,
            gap_marks=tuple(sorted(self.mark_gaps(), key=lambda a: a.gap_number)),
            step_order=tuple(task.plan.steps),
            observations=tuple(
                f"all of your {task.claims[n].step} are {how}" for n, how in self.constant_claims.items()
            ),
            notes=task.figures.notes,
            warnings=(*task.warnings, *(w for w in self.result.warnings if w not in task.warnings)),
        )

    def mark_gaps(self) -> list[GapMark]:
        """Every gap of a worksheet, marked."""
        out = []
        for n, claim in enumerate(self.task.claims):
            if not claim.step_figures.gap_numbers:
                continue
            ok = self.compare(n, self.reference[claim.step]).is_right
            for i, gap in enumerate(claim.step_figures.gap_numbers):
                at = describe_cell(self.task.plan, claim.cell_at((i,)))
                ref = self.reference[claim.step][claim.index][i].item()
                out.append(GapMark(gap, claim.step, at, bool(ok[i]), claim.step_figures.gap_texts[i], ref))
        for claim in self.task.open_gaps:
            for i, gap in enumerate(claim.step_figures.gap_numbers):
                ref = self.reference[claim.step][claim.index][i].item()
                out.append(GapMark(gap, claim.step, describe_cell(self.task.plan, claim.cell_at((i,))), None, "", ref))
        return out

    # ── what follows from what ───────────────────────────────────────────────────────────────────
    def trace_causes(self, comparisons: list[StepComparison]) -> list[StepComparison]:
        """The first wrong step, and of each later wrong one whether it follows from MINE's own earlier figures."""
        wrong = [n for n, f in enumerate(comparisons) if not f.is_right]
        out = list(comparisons)
        if not wrong:
            return out
        out[wrong[0]] = dataclasses.replace(comparisons[wrong[0]], cause="first")
        for n in wrong[1:]:
            before = [m for m in range(n) if self._comes_before(comparisons[m].step, comparisons[n].step)]
            cause = ""
            for m in reversed(before):
                verdict = self._explains(m, n)
                if verdict is not None:
                    cause = (
                        f"follows from your {comparisons[m].step}"
                        if verdict
                        else f"wrong by itself, even from your {comparisons[m].step}"
                    )
                    break
            out[n] = dataclasses.replace(comparisons[n], cause=cause)
        return out

    def _comes_before(self, earlier: str, later: str) -> bool:
        order = list(self.task.plan.steps)
        return order.index(earlier) < order.index(later)

    def _explains(self, earlier_index: int, later_index: int) -> bool | None:
        """Whether claim n is what claim m gives when computed onwards; None where that cannot be tried."""
        from attncli.check.resume import resume_from_step

        claim, later = self.task.claims[earlier_index], self.task.claims[later_index]
        if not claim.is_whole_step:
            return None
        full = step_shape(self.task.plan, claim.step)

        def from_(values: NumpyArray) -> NumpyArray | None:
            plan = resume_from_step(self.trials, claim.step, values)
            return self.trials.compute_steps(plan).get(later.step) if plan else None

        ref = compute_or_default(lambda: from_(to_step_array(claim, full)))
        if ref is None or ref.shape != self.reference[later.step].shape:
            return None
        found = self.compare(later_index, ref, largest_figure=rules.largest_finite(ref))
        if found.is_right.all():
            return True
        decimals = self.decimals[earlier_index]
        if decimals is None:
            return False
        blurred = rules.round_to_decimals(
            self.reference[claim.step][claim.index], decimals
        )  # what rounding alone does onwards
        whole = self.reference[claim.step].copy()
        whole[claim.index] = blurred
        moved = compute_or_default(lambda: from_(whole))
        if moved is None:
            return False
        with np.errstate(all="ignore"):
            blur = np.abs(moved - self.reference[later.step])[later.index]
        spread = float(blur[np.isfinite(blur)].max(initial=0.0))
        return bool((found.error <= found.tolerance + 3 * spread).all())


def _is_constant(x: NumpyArray) -> bool:
    """Whether all figures are one."""
    return bool((x == x.flat[0]).all() or (x.dtype.kind == "f" and np.isnan(x).all()))


@contextmanager
def one_thread_if_small(score_count: int) -> Iterator[None]:
    """Arrays as small as these cost more to share between threads than to compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1 if score_count < _MIN_SCORES_FOR_THREADS else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
