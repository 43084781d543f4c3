"""A task → its verdict: the reference is computed, claims are judged, and what is wrong is traced to its cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from attncli.check import rules
from attncli.check.claims import Claim, block, full_shape, where
from attncli.check.rules import Judged
from attncli.check.search import Found, Search
from attncli.check.sensitivity import power
from attncli.check.trials import Bench, quiet
from attncli.core.attention import follow
from attncli.types import Attention, NumpyArray
from attncli.verdict import Answer, Finding, Outcome, Rule, Verdict

if TYPE_CHECKING:
    from attncli.check import Progress, Task

_SHARED = 1 << 16  # cells
_FEW = 3  # figures that may well be alike
_LAST_WEIGHTS = ("mixed_weights", "dropout_weights", "weights")


class Court:
    """One task being judged."""

    def __init__(self, task: Task, progress: Progress | None = None) -> None:
        self.task = task
        self.progress = progress
        self.bench = Bench(task.plan, task.top, task.claims)
        with np.errstate(all="ignore"):
            whole = dataclasses.replace(task.plan, keep=task.plan.keep | self._beside())
            self.result: Attention = follow(whole)
            self.reference = self.bench.figures(whole)
        self.largest = {step: rules.largest_of(x) for step, x in self.reference.items()}
        self.rules = tuple(self._bounded(c, r) for c, r in zip(task.claims, task.rules, strict=True))
        self.found: list[Judged] = []
        self.flat = {n: how for n, c in enumerate(task.claims) if (how := self._flat(c))}
        self.decimals = tuple(rules.decimals_of(c, r) for c, r in zip(task.claims, self.rules, strict=True))

    def _flat(self, claim: Claim) -> str:
        """How a claim's figures are all alike, where the reference's are not: all 0, all NaN, all 0.25."""
        mine, ref = claim.values, self.reference[claim.step][claim.index]
        if mine.size < _FEW or mine.dtype.kind != "f" or _alike(ref) or not _alike(mine):
            return ""
        value = mine.flat[0]
        return "NaN" if np.isnan(value) else f"{value + 0.0:.6g}".replace("inf", "∞").replace("-", "−")

    @property
    def cells(self) -> int:
        """How many scores there are: what one computation costs."""
        size = self.task.plan.size
        return (size.batch or 1) * self.task.plan.shapes.heads * size.queries * size.keys

    def _beside(self) -> frozenset[str]:
        """Steps that judging needs beside those that are claimed."""
        if not any(c.step == "top_keys" for c in self.task.claims):
            return frozenset()
        return frozenset([next(step for step in _LAST_WEIGHTS if step in self.task.plan.steps)])

    def _bounded(self, claim: Claim, rule: Rule) -> Rule:
        """Under flash, the error that is allowed: twice that of plain attention in the dtype (FlashAttention's own test)."""
        if rule.name != "flash":
            return rule
        ref = self.reference[claim.step]
        plain = self.plain(rule.dtype).get(claim.step)
        error = 0.0
        if plain is not None:
            both = np.isfinite(plain) & np.isfinite(ref)
            error = float(np.abs(plain - ref)[both].max(initial=0.0))
        least = 2 * rules.unit(rule.dtype, self.largest[claim.step])
        return dataclasses.replace(rule, bound=max(2 * error, least), plain=error)

    def plain(self, dtype: str) -> dict[str, NumpyArray]:
        """The same problem computed in a dtype."""
        plan = quiet(lambda: self.bench.chosen(dtype=dtype))
        found: dict[str, NumpyArray] = quiet(lambda: self.bench.figures(plan), {}) if plan else {}
        return found

    def judged(
        self, n: int, ref: NumpyArray, values: NumpyArray | None = None, *, largest: float | None = None
    ) -> Judged:
        """The n-th claim, or other values in its place, against figures of its whole step."""
        claim = self.task.claims[n]
        mine = claim.values if values is None else values
        found = rules.judge(
            self.rules[n], mine, ref[claim.index], self.decimals[n], self.largest[claim.step] if largest is None else largest
        )  # fmt: skip
        return self._ties(claim, found) if claim.step == "top_keys" and values is None else found

    def _ties(self, claim: Claim, found: Judged) -> Judged:
        """Another key with the same weight is as right."""
        weights = self.reference[next(step for step in _LAST_WEIGHTS if step in self.reference)]
        at = np.broadcast_arrays(*claim.index)[:-1]
        inside = (claim.values >= 0) & (claim.values < weights.shape[-1])
        mine = weights[(*at, np.where(inside, claim.values, 0))]
        equal = inside & (mine == weights[(*at, self.reference["top_keys"][claim.index])])
        if claim.whole and claim.values.ndim and claim.values.shape == self.reference["top_keys"].shape:
            rows = np.sort(claim.values, -1)
            equal &= ~(rows[..., 1:] == rows[..., :-1]).any(-1, keepdims=True)  # no key stands twice
        return dataclasses.replace(found, ok=found.ok | equal)

    def finding(self, n: int) -> Finding:
        """What is to be said of the n-th claim."""
        claim, rule, decimals = self.task.claims[n], self.rules[n], self.decimals[n]
        found = self.found[n]
        mine, ref = claim.values, self.reference[claim.step][claim.index]
        wrong = ~found.ok
        score = np.where(wrong, np.inf, 0.0) if np.isinf(found.error[wrong]).any() else found.error
        place = np.unravel_index(int(np.argmax(score)), score.shape)
        if wrong.any() and not wrong[place]:
            place = np.unravel_index(int(np.argmax(np.where(wrong, found.error, -1))), wrong.shape)
        finite = np.isfinite(found.error) & np.isfinite(ref.astype(np.float64))
        error = np.where(finite, found.error, 0.0)
        with np.errstate(all="ignore"):
            relative = np.where(finite & (ref != 0), error / np.abs(ref.astype(np.float64)), 0.0)
        at = claim.cell(tuple(map(int, place)))
        written = None if decimals is None else int(decimals[place])
        most = float(found.error.max(initial=0.0))
        if decimals is not None:
            ulp = float((error * 10.0 ** decimals.astype(np.float64)).max(initial=0.0))
        elif rule.name == "exact":
            ulp = float(most)
        else:
            ulp = float(error.max(initial=0.0)) / rules.unit(rule.dtype, self.largest[claim.step] or 1.0)
        return Finding(
            step=claim.step,
            axes=claim.axes,
            shape=tuple(claim.values.shape),
            rule=rule,
            right=bool(found.ok.all()),
            of=int(claim.values.size),
            wrong=int(wrong.sum()),
            max_abs=most,
            max_rel=float(relative.max(initial=0.0)),
            ulp=ulp,
            tolerance=float(found.tolerance[place]),
            at=at,
            where=where(self.task.plan, at),
            mine=mine[place].item(),
            reference=ref[place].item(),
            digits=written,
        )

    def verdict(self, identify: bool | None = None) -> Verdict:
        """Everything that can be said."""
        task = self.task
        self.found = [self.judged(n, self.reference[c.step]) for n, c in enumerate(task.claims)]
        findings = [self.finding(n) for n in range(len(task.claims))]
        right = all(f.right for f in findings)
        findings = self.caused(findings)
        told = power(self) if task.claims else ()
        loose = any(p.caught is False for p in told)
        verdict: Outcome = "wrong" if not right else "unanswered" if task.missing else "too-loose" if loose else "right"
        search = not right if identify is None else identify
        with few_threads(self.cells):
            found = Search(self).run(self.progress) if task.claims and search else Found((), (), (), 0)
        return Verdict(
            verdict=verdict,
            input=task.plan.problem.source or "the problem",
            figures=task.figures.name,
            variant=self.result.variant,
            summary=task.plan.summary,
            steps=tuple(findings),
            power=told,
            identified=found.identified,
            nearest=found.nearest,
            alike=found.alike,
            searched=found.searched,
            answers=tuple(sorted(self.answers(), key=lambda a: a.gap)),
            order=tuple(task.plan.steps),
            plain=tuple(f"all of your {task.claims[n].step} are {how}" for n, how in self.flat.items()),
            notes=task.figures.notes,
            warnings=(*task.warnings, *(w for w in self.result.warnings if w not in task.warnings)),
        )

    def answers(self) -> list[Answer]:
        """Every gap of a worksheet, marked."""
        out = []
        for n, claim in enumerate(self.task.claims):
            if not claim.given.gaps:
                continue
            ok = self.judged(n, self.reference[claim.step]).ok
            for i, gap in enumerate(claim.given.gaps):
                at = where(self.task.plan, claim.cell((i,)))
                ref = self.reference[claim.step][claim.index][i].item()
                out.append(Answer(gap, claim.step, at, bool(ok[i]), claim.given.written[i], ref))
        for claim in self.task.missing:
            for i, gap in enumerate(claim.given.gaps):
                ref = self.reference[claim.step][claim.index][i].item()
                out.append(Answer(gap, claim.step, where(self.task.plan, claim.cell((i,))), None, "", ref))
        return out

    # ── what follows from what ───────────────────────────────────────────────────────────────────
    def caused(self, findings: list[Finding]) -> list[Finding]:
        """The first wrong step, and of each later wrong one whether it follows from MINE's own earlier figures."""
        wrong = [n for n, f in enumerate(findings) if not f.right]
        out = list(findings)
        if not wrong:
            return out
        out[wrong[0]] = dataclasses.replace(findings[wrong[0]], cause="first")
        for n in wrong[1:]:
            before = [m for m in range(n) if self._feeds(findings[m].step, findings[n].step)]
            cause = ""
            for m in reversed(before):
                verdict = self._follows(m, n)
                if verdict is not None:
                    cause = (
                        f"follows from your {findings[m].step}"
                        if verdict
                        else f"wrong by itself, even from your {findings[m].step}"
                    )
                    break
            out[n] = dataclasses.replace(findings[n], cause=cause)
        return out

    def _feeds(self, earlier: str, later: str) -> bool:
        order = list(self.task.plan.steps)
        return order.index(earlier) < order.index(later)

    def _follows(self, m: int, n: int) -> bool | None:
        """Whether claim n is what claim m gives when computed onwards; None where that cannot be tried."""
        from attncli.check.resume import onwards

        claim, later = self.task.claims[m], self.task.claims[n]
        if not claim.whole:
            return None
        full = full_shape(self.task.plan, claim.step)

        def from_(values: NumpyArray) -> NumpyArray | None:
            plan = onwards(self.bench, claim.step, values)
            return self.bench.figures(plan).get(later.step) if plan else None

        ref = quiet(lambda: from_(block(claim, full)))
        if ref is None or ref.shape != self.reference[later.step].shape:
            return None
        found = self.judged(n, ref, largest=rules.largest_of(ref))
        if found.ok.all():
            return True
        decimals = self.decimals[m]
        if decimals is None:
            return False
        blurred = rules.rounded(self.reference[claim.step][claim.index], decimals)  # what rounding alone does onwards
        whole = self.reference[claim.step].copy()
        whole[claim.index] = blurred
        moved = quiet(lambda: from_(whole))
        if moved is None:
            return False
        with np.errstate(all="ignore"):
            blur = np.abs(moved - self.reference[later.step])[later.index]
        spread = float(blur[np.isfinite(blur)].max(initial=0.0))
        return bool((found.error <= found.tolerance + 3 * spread).all())


def _alike(x: NumpyArray) -> bool:
    """Whether all figures are one."""
    return bool((x == x.flat[0]).all() or (x.dtype.kind == "f" and np.isnan(x).all()))


@contextmanager
def few_threads(cells: int) -> Iterator[None]:
    """Arrays as small as these cost more to share between threads than to compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1 if cells < _SHARED else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
