"""What are these figures instead? Variants one and two choices away and the classic faults, each judged on every claimed step."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from attncli.check import rules
from attncli.check.alternatives import Alternative, alternatives
from attncli.check.faults import Suspicion, suspicions
from attncli.check.trials import Bench, quiet
from attncli.errors import listed
from attncli.plan import Plan
from attncli.types import NumpyArray
from attncli.verdict import Suspect

if TYPE_CHECKING:
    from attncli.check.comparison import Court

_PAIRS = 4000  # computations of two changes that are tried on a small problem, and fewer on a larger one
_FAR = 5  # two changes that are more far-fetched together are not tried
_SMALL = 2048  # cells
_LARGE = 1 << 20  # cells beyond which only what is likely is tried
_NEAREST = 5
_NEARER = 0.9  # of the reference's own distance
_PATTERN = 6.0  # digits that the very cells without a number are worth
_SURE = 1.0  # digits by which a match must exceed what so many trials hit by chance
_SHARE = 0.7  # of the digits of figures that hang together (rows sum to 1)


@dataclass(frozen=True)
class Tried:
    """A computation that was tried, and how its figures stand to the claims."""

    names: tuple[str, ...]
    says: str
    rank: int
    fault: bool
    match: bool
    digits: float  # by how many it is nearer to the figures than the reference, over all that are wrong
    error: float  # its largest error
    share: float  # the same as a share of each step's largest figure
    steps: tuple[str, ...]  # wrong ones that it gives
    key: bytes  # its figures, so that what gives the same is tried once
    changes: bool  # it differs from the reference somewhere
    breaks: bool  # it makes wrong what was right
    figures: tuple[NumpyArray, ...]  # the same, of what fits, for telling it from the others that do
    of: Suspicion
    kin: bool  # it fits by the direction of its errors alone


Single = tuple[Tried, Alternative | None]


@dataclass(frozen=True)
class Job:
    """Two changes that will be tried."""

    rank: int
    run: Callable[[], Tried | None]


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    identified: tuple[Suspect, ...]
    nearest: tuple[Suspect, ...]
    alike: tuple[str, ...]
    searched: int


class Search:
    """One search, on the claims of one court."""

    def __init__(self, court: Court) -> None:
        self.court = court
        self.wrong = {n for n, f in enumerate(court.found) if not f.ok.all()}
        self.distinct: set[bytes] = set()
        self.limit = 0.0

    def run(self, progress: Callable[[float, str], None] | None) -> Found:
        """One change, and only where none fits, two."""
        say = progress or (lambda share, what: None)
        bench = self.court.bench
        singles: list[Single] = []
        todo = [one for one in _one(bench) if self.court.cells <= _LARGE or one[0].rank <= 1]
        todo.sort(key=lambda one: one[0].rounds)  # rounding is looked for where nothing else fits
        for i, (suspicion, alternative) in enumerate(todo):
            say(i / len(todo), "one change")
            if suspicion.rounds and (not todo[i - 1][0].rounds) and self.sure([t for t, _ in singles]):
                break
            tried = self.tried(suspicion, alternative is None)
            if tried:
                singles.append((tried, alternative))
        if not self.wrong:
            alike = [t.names[0] for t, a in singles if a and not t.changes and t.rank < 3]
            return Found((), (), tuple(dict.fromkeys(alike)), bench.tried)
        matches = self.sure([t for t, _ in singles])
        everything = [t for t, _ in singles]
        if self.court.flat and self.wrong <= set(self.court.flat):  # figures all alike tell of little
            matches = [t for t, _ in singles if t.match and t.changes and t.of.flat]
            return Found(self.suspects(matches), (), (), bench.tried)
        if not matches:
            matches = self.sure(self.pairs(singles, say))
        return Found(self.suspects(matches), () if matches else self.nearest(everything), (), bench.tried)

    # ── trying ───────────────────────────────────────────────────────────────────────────────────
    def tried(self, s: Suspicion, fault: bool, bench: Bench | None = None, names: tuple[str, ...] = ()) -> Tried | None:
        """Compute a suspicion and hold its figures against every claim; None where it cannot be computed."""
        court, bench = self.court, bench or self.court.bench
        made = quiet(s.compute)
        figures: dict[str, np.ndarray] | None = quiet(lambda: bench.figures(made)) if isinstance(made, Plan) else made
        if figures is None:
            return None
        court.bench.tried += bench is not court.bench
        for step in (*s.same, "positioned_embeddings"):
            if step in court.reference:
                figures = {**figures, step: court.reference[step]}
        match, breaks, changes, digits, worst, share = True, False, False, 0.0, 0.0, 0.0
        residual, before, cells = 0.0, 0.0, 0
        steps, keys, held = [], [], []
        for n, claim in enumerate(court.task.claims):
            ref = court.reference[claim.step]
            whole = figures.get(claim.step)
            if whole is None or whole.shape != ref.shape:
                return None
            found = court.judged(n, whole, largest=rules.largest_of(whole))
            right = court.found[n]
            here = whole[claim.index]
            held.append(here)
            keys.append(np.ascontiguousarray(_brief(here)).tobytes())
            with np.errstate(all="ignore"):
                moved = ~((here == ref[claim.index]) | ((here != here) & (ref[claim.index] != ref[claim.index])))
                moved &= ~(
                    np.abs(here.astype(np.float64) - ref[claim.index]) <= 1e-12 * max(court.largest[claim.step], 1e-300)
                )
            changes = changes or bool(moved.any())
            ok = bool(found.ok.all())
            match = match and ok
            breaks = breaks or (n not in self.wrong and not ok)
            if n in self.wrong:
                if ok:
                    steps.append(claim.step)
                digits += _gained(right.error, claim.values, found.tolerance, ~right.ok & found.ok)
                if (
                    n not in court.flat
                    and _same_gaps(claim.values, here)
                    and not _same_gaps(claim.values, ref[claim.index])
                ):
                    digits += _PATTERN
                fine = ~right.ok & np.isfinite(right.error) & np.isfinite(found.error)
                residual += float((found.error[fine] ** 2).sum() / max(court.largest[claim.step], 1e-300) ** 2)
                before += float((right.error[fine] ** 2).sum() / max(court.largest[claim.step], 1e-300) ** 2)
                cells += int(fine.sum())
            most = float(found.error.max(initial=0.0))
            worst = max(worst, most)
            share = max(share, most / max(court.largest[claim.step], 1e-300))
        exact = match
        if s.kin and not match:
            ratio = math.sqrt(residual / before) if before else 1.0
            digits = cells * -math.log10(max(ratio, 1e-12)) if ratio < 0.5 else 0.0
            match = ratio < 0.5 and not breaks and self.near(s, figures)
            steps = [court.task.claims[n].step for n in sorted(self.wrong)] if match else steps
        key = b"".join(keys)
        self.distinct.add(key)
        return Tried(names or (s.name,), s.says, s.rank, fault, match, _SHARE * digits - s.cost, worst, share, tuple(dict.fromkeys(steps)), key, changes, breaks, tuple(held) if match else (), s, match and not exact)  # fmt: skip

    def near(self, s: Suspicion, figures: dict[str, NumpyArray]) -> bool:
        """Whether what is left after rounding is no more than the rounding itself moved."""
        court = self.court
        for claim in court.task.claims:
            moved = np.abs(figures[claim.step] - court.reference[claim.step])[claim.index]
            left = np.abs(figures[claim.step][claim.index] - claim.values)
            fine = np.isfinite(moved) & np.isfinite(left)
            if fine.any() and float(left[fine].max()) > 2 * float(moved[fine].max()) + 1e-9 * court.largest[claim.step]:
                return False
        return True

    def sure(self, tried: list[Tried]) -> list[Tried]:
        """Those that fit, and whose fit says more than so many trials would hit by chance."""
        need = math.log10(max(len(self.distinct), 10)) + _SURE
        return [t for t in tried if t.match and t.changes and t.digits >= need]

    # ── two changes ──────────────────────────────────────────────────────────────────────────────
    def pairs(self, singles: list[Single], say: Callable[[float, str], None]) -> list[Tried]:
        """Two choices, or a choice and a fault: the likeliest first, and no further than the first that fits."""
        jobs = sorted((job for job in self.jobs(singles) if job.rank < _FAR), key=lambda job: job.rank)
        most = int(_PAIRS * min(1.0, _SMALL / self.court.cells))
        out: list[Tried] = []
        best: int | None = None
        for i, job in enumerate(jobs[:most]):
            if best is not None and job.rank > best:
                break
            say(i / min(most, len(jobs)), "two changes")
            if tried := job.run():
                out.append(tried)
                best = job.rank if self.sure([tried]) else best
        return out

    def jobs(self, singles: list[Single]) -> Iterator[Job]:
        """What can be paired: what changes something and breaks nothing that was right.

        A likely choice that changes nothing alone may matter beside another: what a row that sees nothing gets, say.
        """
        chosen: dict[bytes, tuple[Tried, Alternative]] = {}
        for tried, alternative in sorted(singles, key=lambda pair: pair[0].rank):
            if alternative and tried.changes and not tried.breaks:
                chosen.setdefault(tried.key, (tried, alternative))
        silent = [(t, a) for t, a in singles if a and not t.changes and t.rank == 1]
        options = [*chosen.values(), *silent]
        for (t, a), (u, b) in itertools.combinations(options, 2):
            if a.choice != b.choice and (t.changes or u.changes):
                yield Job(t.rank + u.rank, partial(self.both, a, b, t.rank + u.rank))
        faults = [t for t, a in singles if a is None and t.changes and not t.breaks and t.rank < 3]
        faults = list({t.key: t for t in reversed(faults)}.values())[::-1]  # one of those that are the same here
        bases = [t for t in faults if t.of.base]
        for i, u in enumerate(bases):
            on_top, done = functools.cache(partial(self.upon, u)), {t.names for t in bases[: i + 1]}
            for t in faults:
                if t.names not in done:
                    yield Job(t.rank + u.rank, partial(self.with_fault, t, u.of, on_top))
        for u, b in options:
            if u.rank == 1:
                other = functools.cache(partial(self.faulty, b))
                for t in faults:
                    yield Job(t.rank + u.rank, partial(self.with_fault, t, _one_of(b), other))

    def both(self, a: Alternative, b: Alternative, rank: int) -> Tried | None:
        compute = partial(self.court.bench.chosen, **{a.choice: a.value, b.choice: b.value})
        return self.tried(Suspicion(f"{a.text} {b.text}", f"{a.says} and {b.says}", compute, rank), False)

    def faulty(self, a: Alternative) -> tuple[Bench, dict[str, Suspicion]] | None:
        """A problem with one choice changed, and the faults on it."""
        bench = self.changed(a)
        return (bench, {s.name: s for s in suspicions(bench) if not s.rounds}) if bench else None

    def upon(self, t: Tried) -> tuple[Bench, dict[str, Suspicion]] | None:
        """A problem with one fault in it, and the faults on top of that."""
        bench, plan = self.court.bench, quiet(t.of.compute)
        if not isinstance(plan, Plan):
            return None
        made = Bench(plan, bench.top, bench.claims)
        return made, {s.name: s for s in suspicions(made) if not s.rounds}

    def with_fault(self, t: Tried, a: Suspicion, other: Callable[[], Any]) -> Tried | None:
        found = other()
        s = found and found[1].get(t.names[0])
        if not s:
            return None
        s = dataclasses.replace(s, says=f"{s.says}; and {a.says}", rank=s.rank + a.rank)
        return self.tried(s, True, found[0], (f"{s.name} and {a.name}",))

    def changed(self, alternative: Alternative) -> Bench | None:
        """A bench whose plan has one choice changed."""
        bench = self.court.bench
        plan = quiet(partial(bench.chosen, **{alternative.choice: alternative.value}))
        if plan is None:
            return None
        return Bench(
            dataclasses.replace(plan, keep=plan.keep | frozenset(s for s in bench.claimed if s in plan.steps)),
            bench.top,
            bench.claims,
        )

    # ── naming ───────────────────────────────────────────────────────────────────────────────────
    def suspects(self, matches: list[Tried]) -> tuple[Suspect, ...]:
        """The simplest first; what these figures cannot tell apart together."""
        if not all(t.kin for t in matches):
            matches = [t for t in matches if not t.kin]
        groups: list[list[Tried]] = []
        for t in sorted(matches, key=lambda t: (t.kin and t.error, t.rank, not t.fault, t.error)):
            group = next((group for group in groups if self.alike(group[0], t)), None)
            groups.append([t]) if group is None else group.append(t)
        return tuple(self.suspect(group) for group in groups)

    def alike(self, one: Tried, other: Tried) -> bool:
        """Whether the figures that are claimed could not tell two computations apart."""
        if one.key == other.key:
            return True
        if one.kin or other.kin:
            return False
        for n, (a, b) in enumerate(zip(one.figures, other.figures, strict=True)):
            found = rules.judge(self.court.rules[n], a, b, self.court.decimals[n], rules.largest_of(b))
            if not found.ok.all():
                return False
        return True

    def suspect(self, group: list[Tried], *, match: bool = True) -> Suspect:
        first = group[0]
        names = tuple(dict.fromkeys(name for t in group for name in t.names))
        whose = listed(first.steps or [f.step for f in self.court.task.claims])
        verb = "are" if whose.endswith("s") or " and " in whose else "is"
        return Suspect(names, f"your {whose} {verb} the reference {first.says}", first.steps, first.error, match)

    def nearest(self, tried: list[Tried]) -> tuple[Suspect, ...]:
        """The few that come nearest, without a claim; among them none that is as far off as the reference itself."""
        own = max((f.error.max(initial=0.0) / max(self.court.largest[c.step], 1e-300) for c, f in zip(self.court.task.claims, self.court.found, strict=True)), default=0.0)  # fmt: skip
        groups: dict[bytes, list[Tried]] = {}
        for t in sorted(tried, key=lambda t: (t.share, t.rank)):
            if t.changes and t.share < _NEARER * own:
                groups.setdefault(t.key, []).append(t)
        few = itertools.islice(groups.values(), _NEAREST)
        return tuple(self.suspect(group, match=group[0].match) for group in few)


def _one(bench: Bench) -> Iterator[tuple[Suspicion, Alternative | None]]:
    """Everything one change away: faults, and choices."""
    for s in suspicions(bench):
        yield s, None
    for a in alternatives(bench.plan):
        yield dataclasses.replace(_one_of(a), compute=partial(bench.chosen, **{a.choice: a.value})), a


def _one_of(a: Alternative) -> Suspicion:
    return Suspicion(a.text, a.says, lambda: None, a.rank)


def _brief(x: NumpyArray) -> NumpyArray:
    """Figures with the last digits, in which two ways of computing the same differ, taken off."""
    if x.dtype.kind in "biu":
        return x
    with np.errstate(all="ignore"):
        rough: NumpyArray = np.round(x, 10) + 0.0
    return rough


def _same_gaps(mine: NumpyArray, other: NumpyArray) -> bool:
    """Whether the very same cells are NaN, ∞ and −∞, and some are."""
    if mine.dtype.kind != "f" or other.dtype.kind != "f" or np.isfinite(mine).all():
        return False
    return all(np.array_equal(f(mine), f(other)) for f in (np.isnan, np.isposinf, np.isneginf))


def _gained(before: NumpyArray, mine: NumpyArray, tolerance: NumpyArray, where: NumpyArray) -> float:
    """Digits by which figures are nearer than they were, over the cells that were wrong and are right."""
    size = np.where(np.isfinite(before), before, np.abs(mine.astype(np.float64)))  # a number where none should be
    with np.errstate(all="ignore"):
        gain = np.log10(np.maximum(size, 1e-300) / np.maximum(tolerance, 1e-15 * np.maximum(size, 1e-300)))
    gain = np.where(np.isfinite(size), np.clip(gain, 0, 15), 0.35)
    return float(gain[where].sum())
