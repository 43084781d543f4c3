"""One query, every multiplication: the steps of a result as a page of worked lines.

Nothing is computed here but sums of what a line leaves out; numbers are cells of the steps, and what parts noted on their
way to them. How a line is worked its part says (`derivation`, `gradient_derivation`, `gradient_factor`); this page only lays them out in order.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from attncli.derivation import WORKING, Cell, Line, Num, Vec, Work, Worked, scaled, working
from attncli.errors import listed, printable
from attncli.parts.projections import work_linear
from attncli.parts.traits import PartTraits
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.plan.head_shapes import kv_head
from attncli.registry import AnyPart, Part
from attncli.types import Array, Attention, Grid
from attncli.validation.fields import as_numpy

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients

FEW = 16  # keys worked one by one before the smallest are left out
_LINES = 12  # lines of one vector before its middle is left out


@dataclass(frozen=True)
class Section:
    """One step on the page."""

    title: str
    formula: str = ""
    lines: tuple[Line, ...] = ()
    remark: str = ""
    idle: bool = False  # a grey line: what does nothing in this variant
    uses: frozenset[str] = frozenset()  # the steps that its lines work with
    heading: bool = False  # what follows is of another head


@dataclass(frozen=True)
class Board:
    """The page: what is asked, the steps, and where the query looks."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    closing: str
    names: dict[str, tuple[str, ...]]  # the axes of each step, for the addresses of gaps


@dataclass(frozen=True)
class Place:
    """What is explained: one query of one batch item, in some heads, before some keys."""

    query: int
    batch: int = 0
    heads: tuple[int, ...] = (0,)
    keys: tuple[int, ...] | None = None  # those asked for; None: as many as a page holds
    blank: frozenset[str] = frozenset()  # steps of which a worksheet gives nothing away
    full: bool = False


def explain(plan: Plan, attention: Attention, place: Place, gradients: Gradients | None = None) -> Board:
    """A result that kept every step, with its finer ones → the page of one query; with gradients, the way back too."""
    from attncli.views.backward import Back

    page = Cells(plan, attention, place)
    heads = [Head(page, head) for head in place.heads]
    sections: list[Section] = []
    for head in heads:
        sections += [Section(f"head {head.head}", heading=True)] * (len(heads) > 1)
        sections += head.sections()
    sections += page.merged()
    if gradients is not None:
        backs = [Back(page, head, gradients) for head in place.heads]
        for back in backs:
            sections += [Section(f"back through head {back.head}", heading=True)] * (len(heads) > 1)
            sections += back.sections()
        sections += backs[0].inputs()
    what = f"Attention of query {page.label('query', place.query)}"
    many = plan.shapes.heads > len(place.heads)
    where = [f"batch {place.batch}"] * (plan.size.batch is not None)
    where += [f"head {listed(place.heads)} of {plan.shapes.heads}"] * (plan.shapes.headed and many)
    return Board(
        title=" · ".join((what, *where)),
        summary=" · ".join(map(printable, attention.summary)),
        sections=tuple(map(_settled, sections)),
        closing=" ".join(head.closing() for head in heads),
        names={step.name: step.axes for step in attention.steps},
    )


def _settled(section: Section) -> Section:
    """A section without a line is a grey one."""
    if section.lines or section.idle or section.heading:
        return section
    return Section(f"{section.title}: {section.remark}" if section.remark else f"{section.title}: nothing", idle=True)


class Cells:
    """The steps of a result, by cell."""

    def __init__(self, plan: Plan, attention: Attention, place: Place) -> None:
        self.plan, self.attention, self.place = plan, attention, place
        self.steps = {step.name: step for step in attention.steps}
        self.values = {name: as_numpy(step.values) for name, step in self.steps.items()}
        self.most = 10**9 if place.full else 8
        self.row = place.query if plan.rows is None else 0  # of a long run that query alone is computed

    @cached_property
    def scores(self) -> list[str]:
        """The steps from the raw score to what the normaliser sees."""
        return ["scores", *(link.step for link in self.plan.chain)]

    def number(self, name: str, **at: int) -> Num:
        """One cell of a step."""
        where = tuple(at[axis] for axis in self.steps[name].axes)
        return Num(float(self.values[name][where]), name, self._address(name, where))

    def vector(self, name: str, **at: int) -> Vec:
        """The cells of a step along its last axis."""
        where = tuple(at[axis] for axis in self.steps[name].axes[:-1])
        row, start = self.values[name][where], self._address(name, where)
        return Vec(Num(float(x), name, (*start, i)) for i, x in enumerate(row))

    def _address(self, name: str, where: tuple[int, ...]) -> tuple[int, ...]:
        """Where a cell stands in the whole step, though one query alone be computed."""
        axes = zip(self.steps[name].axes, where, strict=False)
        return tuple(self.place.query if axis == "query" else i for axis, i in axes)

    def noted(self, name: str, word: str, **at: int) -> Any:
        """A finer step: a number, a vector or rows of them, whatever axes are left."""
        values, axes, given = self.steps[name].finer[word]
        where = tuple(
            slice(None)
            if axis not in "bhnm1"
            else 0
            if values.shape[i] == 1
            else at[axis]
            if axis in at
            else slice(None)
            for i, axis in enumerate(axes)
        )

        def numbers(x: Array) -> Array:
            return Num(float(x), "" if given else WORKING) if np.ndim(x) == 0 else Vec(numbers(y) for y in x)

        return numbers(values[where])

    @cached_property
    def often(self) -> Counter[str]:
        """How often each token stands among the keys."""
        return Counter(self.token("key", j) for j in range(self.plan.size.keys))

    def label(self, axis: str, index: int) -> str:
        """`1 “cat”`, or the index alone where it is the label."""
        token = self.token(axis, index)
        return str(index) if token == str(index) else f"{index} “{token}”"

    def token(self, axis: str, index: int) -> str:
        """The label of a query or key, safe to print."""
        labels = self.attention.tokens if axis == "query" else self.attention.k_tokens
        labels = labels[self.place.batch] if self.plan.size.batch is not None else labels
        return printable(str(labels[index]))

    def merged(self) -> Iterator[Section]:
        """Heads side by side, and W_o."""
        at = {"batch": self.place.batch, "query": self.row}
        if self.place.blank & _MERGED and len(self.place.heads) < self.plan.shapes.heads:
            return  # the other heads' part would be left blank, and their working is not on the page
        heads = next((name for name in ("normed_context", "head_context") if name in self.steps), "")
        if heads and "context" in self.steps:
            lines = [
                Line(f"head {h}", ([self.vector(heads, head=h, **at)],)) for h in range(self.plan.shapes.mixed_heads)
            ]
            whole = Line("context", ([self.vector("context", **at)],))
            lines = [*_middle(lines, self.most), whole]
            yield Section("context", "heads side by side", tuple(lines), uses=frozenset(_MERGED))
        if "output" in self.steps:
            out = self.vector("output", **at)
            work = Work((), (), lambda word: self.noted("output", word), q=self.vector("context", **at), out=out)
            work = dataclasses.replace(work, label="output", most=self.most)
            lines = [*_fitted(work_linear(work), self), Line("output", ([out],))]
            yield Section("output", self.steps["output"].formula, tuple(lines), uses=frozenset(_MERGED))
        elif "context" in self.steps:
            yield Section("no output projection", idle=True)


class Head:
    """The page of one query in one head."""

    def __init__(self, page: Cells, head: int) -> None:
        self.page, self.plan, self.head = page, page.plan, head
        place, shapes = page.place, self.plan.shapes
        how = self.plan.variant.kv_map
        mixing = self.plan.variant.head_mixing
        into = mixing.traits.mixed_head
        self.mixed = into(mixing, head, shapes.heads) if into else head
        self.at = {
            "batch": place.batch,
            "b": place.batch,
            "query": page.row,
            "n": page.row,
            "head": head,
            "h": head,
            "kv_head": kv_head(head, shapes.heads, shapes.kv_heads, how),
        }
        self.v_head = kv_head(self.mixed, shapes.mixed_heads, shapes.v_heads, how)
        self.idle: list[str] = []

    # ── the order of the page ────────────────────────────────────────────────────────────────────
    def sections(self) -> Iterator[Section]:
        """Every step in order; what does nothing is gathered into one grey line until something does."""
        for name, section in self._all():
            if section is None:
                self.idle.append(name)
                continue
            yield from self._idle()
            yield section
        yield from self._idle()

    def _idle(self) -> Iterator[Section]:
        if self.idle:
            yield Section("no " + listed(self.idle, "or"), idle=True)
            self.idle = []

    def _all(self) -> Iterator[tuple[str, Section | None]]:
        """(what it is called, its section or None where it does nothing)"""
        variant, steps = self.plan.variant, self.page.steps
        if "positioned_embeddings" in steps:
            yield "", self._positioned_embeddings()
        yield from self._vectors()
        order = [("normed", "qk_norm"), ("positioned", "position")]
        if "positioned_q" in steps and "normed_q" in steps:
            order.sort(key=lambda pair: list(steps).index(f"{pair[0]}_q"))
        for prefix, choice in order:
            if f"{prefix}_q" in steps:
                for letter in "qk":
                    yield "", self._moved(f"{prefix}_{letter}", variant[choice])
            elif prefix == "normed" or not variant.position.traits.acts_on:
                yield choice.replace("_", "-"), None
        for letter in "kv":
            if f"present_{letter}" in steps:
                yield "", self._past(letter)
        yield "", self._scores()
        links = iter(self.plan.chain)
        link = next(links, None)
        for name in variant.chain:
            if link is not None and name == link.name:
                yield "", self._masked(link) if link.is_mask else self._link(link)
                link = next(links, None)
            elif name != "position" or not variant.position.traits.acts_on:
                yield name, None
        if "sink_weights" not in steps:
            yield "sink", None
        yield "", self._weights()
        if not self.page.place.blank & set(self.page.scores):  # the largest would give one of them away
            yield "", self._statistics()
        for step, choice in (("dropout_weights", "dropout"), ("mixed_weights", "head_mixing")):
            if step in steps:
                yield "", self._per_cell(step, self._before(step), variant[choice], variant[choice].traits.derivation)
            else:
                yield choice.replace("_", " "), None
        if "context" in steps:
            yield "", self._context()
        if "normed_context" in steps:
            yield "", self._normed_context()

    # ── vectors ──────────────────────────────────────────────────────────────────────────────────
    def _row(self, step: str, index: int) -> dict[str, int]:
        """Where the row of a step stands: `index` counts queries or keys, whichever the step has."""
        at = {**self.at, "query": index, "n": index, "key": index, "new_key": index}
        if step.rpartition("_")[2] == "v":
            at |= {"kv_head": self.v_head}
        if step.rpartition("_")[2] in ("k", "v"):
            at["h"] = at["kv_head"]
        return at

    def _work(
        self, step: str, index: int, before: Vec, out: Vec, part: Part[PartTraits] | None = None, **more: Any
    ) -> Work:
        at = self._row(step, index)
        return Work(
            (),
            (),
            lambda word: self.page.noted(step, word, **at),
            q=before,
            out=out,
            part=part,
            most=self.page.most,
            label=step.rpartition("_")[2],
            **more,
        )

    def _embedding(self, letter: str, index: int) -> Vec:
        """The numbers that came in, as given."""
        p = self.plan.problem
        held = as_numpy(p.embeddings if letter == "q" or not p.memory else p.memory["embeddings"])
        row = held[self.page.place.batch, index] if held.ndim == 3 else held[index]
        return Vec(Num(float(x)) for x in row)

    def _positioned_embeddings(self) -> Section:
        name, i, part = "positioned_embeddings", self.page.row, self.plan.variant.position
        out = self.page.vector(name, **self.at)
        work = dataclasses.replace(
            self._work(name, i, self._embedding("q", self.page.place.query), out, part), label="x"
        )
        return Section(name, part.member.formula, _fitted(_lines(part, work), self.page))

    def _vectors(self) -> Iterator[tuple[str, Section | None]]:
        """q of this query, k and v of each key: projected, or as they came in."""
        sections: list[Section] = []
        for letter in "qkv":
            if letter not in self.page.steps:
                continue
            step = self.page.steps[letter]
            worked = {"W", "b"} & set(step.finer)
            rows = [self.page.row] if letter == "q" else self._new_keys()
            lines: list[Line] = []
            width = len(self.page.vector(letter, **self._row(letter, 0)))
            for n, row in enumerate(rows):
                at = self._row(letter, row)
                out = self.page.vector(letter, **at)
                label = letter if letter == "q" else self._key_label(row + self.plan.size.past)
                if not worked:
                    lines.append(Line(label, ([out],)))
                    continue
                x = Vec(y._replace(step="") for y in self.page.noted(letter, "x", b=at["b"], n=row))
                head = at["head"] if letter == "q" else at["kv_head"]
                work = self._work(letter, row, x, out, first=head * width)
                if n == 0 or self.page.place.full:
                    lines += [Line(f"x of {label}" if letter != "q" else "x", ([x],))]
                    lines += _fitted(work_linear(work), self.page)
                lines.append(Line(label, ([out],)))
            alone = not worked or len(rows) == 1 or self.page.place.full
            remark = "" if alone else "the first is worked out; the others are made alike"
            sections.append(Section(letter, step.formula, tuple(lines), remark))
        if len(sections) == 3 and _alike(*sections[1:]) and not self.page.place.blank & {"k", "v"}:
            sections[1:] = [dataclasses.replace(sections[1], title="k and v")]
        yield from (("", section) for section in sections)

    def _past(self, letter: str) -> Section:
        """The vectors that were in the cache."""
        step = f"present_{letter}"
        rows = [j for j in self.shown if j < self.plan.size.past]
        lines = [Line(self._key_label(j), ([self.page.vector(step, **self._row(step, j))],)) for j in rows]
        remark = f"the {self.plan.size.past} keys of the past stand before the new ones"
        return Section(step, self.page.steps[step].formula, tuple(lines), remark)

    def stored(self, letter: str, j: int) -> Vec:
        """What a key is compared by, or brings: of the new ones the last step of their own, of the past ones the cache's."""
        steps = [s for s in self.page.steps if s.rpartition("_")[2] == letter and not s.startswith(("present", "top"))]
        past = self.plan.size.past
        name, row = (steps[-1], j - past) if j >= past else (f"present_{letter}", j)
        return self.page.vector(name, **self._row(name, row))

    def _new_keys(self) -> list[int]:
        past = self.plan.size.past
        return [j - past for j in self.shown if j >= past]

    def _moved(self, name: str, part: Part[PartTraits]) -> Section:
        """A norm or a position, on the query or on the keys: the first key is worked out, the others are as they come."""
        letter = name[-1]
        steps = list(self.page.steps)
        source = next(s for s in reversed(steps[: steps.index(name)]) if s.rpartition("_")[2] == letter)
        rows = [self.page.row] if letter == "q" else self._new_keys()
        lines: list[Line] = []
        for n, row in enumerate(rows):
            at = self._row(name, row)
            out, before = self.page.vector(name, **at), self.page.vector(source, **at)
            head = at["head"] if letter == "q" else at["kv_head"]
            finer = self.page.steps[name].finer
            plain = self.page.noted(name, "normed", **at) if "normed" in finer else out
            work = self._work(name, row, before, plain, part, first=head * len(before))
            if n == 0 or self.page.place.full:
                lines += _fitted(_lines(part, work), self.page)
                if "gain" in finer:
                    lines.append(Line("× gain", ([plain, " × ", self.page.noted(name, "gain", **at)], [out])))
            lines.append(Line(letter if letter == "q" else self._key_label(row + self.plan.size.past), ([out],)))
        uses = frozenset(s for s in steps[: steps.index(name)] if s.rpartition("_")[2] == letter)
        return Section(name, self.page.steps[name].formula, tuple(lines), uses=uses)

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def shown(self) -> list[int]:
        """The keys worked one by one: those asked for, or all while they are few, or those of the largest weights."""
        place, keys = self.page.place, self.plan.size.keys
        if place.keys is not None:
            return list(place.keys)
        if keys <= FEW or place.full:
            return list(range(keys))
        name = self._last_weights()
        w = np.abs([self._cell(name, j).value for j in range(keys)])
        return sorted(np.argsort(-w, kind="stable")[: FEW // 2].tolist())

    def _last_weights(self) -> str:
        return next(s for s in ("mixed_weights", "dropout_weights", "weights") if s in self.page.steps)

    def _key_label(self, j: int) -> str:
        """The key's token; one that stands more than once has its index before it."""
        token = self.page.token("key", j)
        return f"{j} {token}" if self.page.often[token] > 1 else token

    def _where(self, name: str) -> dict[str, int]:
        return self.at | ({"head": self.mixed, "h": self.mixed} if name in _MIXED else {})

    def _cell(self, name: str, j: int) -> Num:
        """One cell; where an earlier step of the chain, left blank, says the same, it is that step's."""
        number = own = self.page.number(name, **self._where(name), key=j)
        for earlier in reversed(self.page.scores[: self.page.scores.index(name)] if name in self.page.scores else []):
            before = self.page.number(earlier, **self.at, key=j)
            if before.value != own.value:
                break
            number = before if earlier in self.page.place.blank else number
        return number

    def _before(self, name: str) -> str:
        """The step whose cells this step works on."""
        order = [
            *self.page.scores,
            *(s for s in ("weights", "dropout_weights", "mixed_weights") if s in self.page.steps),
        ]
        return order[max(order.index(name) - 1, 0)]

    def _query_vector(self) -> Vec:
        steps = [s for s in self.page.steps if s.rpartition("_")[2] == "q"]
        return self.page.vector(steps[-1], **self._row(steps[-1], self.page.row))

    def _hidden(self, j: int) -> bool:
        if "mask" not in self.page.steps:
            return False
        step = self.page.steps["mask"]
        values = self.page.values["mask"]
        at = self.at | {"key": j}
        return not values[tuple(at[axis] if n > 1 else 0 for axis, n in zip(step.axes, values.shape, strict=True))]

    def _cells(self, name: str, before: str, *, masked: bool) -> tuple[Cell, ...]:
        q_pos, k_pos = self.plan.q_pos, self.plan.k_pos
        i = (
            None
            if q_pos is None
            else int(np.atleast_2d(q_pos)[-1 if q_pos.ndim == 1 else self.at["b"] % len(q_pos)][self.page.place.query])
        )
        positions = np.atleast_2d(k_pos)[self.at["b"] % len(np.atleast_2d(k_pos))]
        vectors = [self.stored("k", j) for j in range(self.plan.size.keys)] if name == "scores" else []
        return tuple(
            Cell(
                label=self._key_label(j),
                index=j,
                before=self._cell(before, j),
                after=self._cell(name, j) if name != "weights" else self.page.number(name, **self.at, key=j),
                pick=lambda word, j=j: self.page.noted(name, word, **self._where(name), m=j),  # type: ignore[misc]
                k=vectors[j] if vectors else Vec(),
                i=i,
                j=int(positions[j]),
                hidden=masked and self._hidden(j),
            )
            for j in range(self.plan.size.keys)
        )

    def _row_work(
        self, name: str, before: str, part: Part[PartTraits] | None, value: float | None, extra: tuple[Cell, ...] = ()
    ) -> Work:
        order = self.page.scores
        hidden = [link.step for link in self.plan.chain if link.is_mask]
        masked = name not in order or any(order.index(step) < order.index(name) for step in hidden)
        cells = self._cells(name, before, masked=masked)
        at = self._where(name)
        return Work(
            cells=(*(cells[j] for j in self.shown), *extra),
            every=(*cells, *extra),
            pick=lambda word: self.page.noted(name, word, **at),
            q=self._query_vector(),
            part=part,
            value=float("nan") if value is None else value,
            most=self.page.most,
        )

    def _per_cell(
        self,
        name: str,
        before: str,
        part: Part[PartTraits] | None,
        derivation: Worked | None,
        value: float | None = None,
    ) -> Section:
        work = self._row_work(name, before, part, value)
        lines = tuple(derivation(work) if derivation else work.each(lambda c: ()))
        return Section(name, self.page.steps[name].formula, lines, self._left_out(work), uses=self._earlier(name))

    def _earlier(self, name: str) -> frozenset[str]:
        """The steps that a step of scores or weights works with."""
        if name == "scores":
            return frozenset(s for s in self.page.steps if s.rpartition("_")[2] in ("q", "k"))
        order = [*self.page.scores, "weights", "dropout_weights", "mixed_weights"]
        return frozenset(order[: order.index(name)])

    def _left_out(self, work: Work) -> str:
        rest = [c for c in work.every if not c.hidden and c.index not in {x.index for x in work.cells}]
        return f"{len(rest)} more keys are made alike" if rest else ""

    def _scores(self) -> Section:
        score = self.plan.variant.score
        return self._per_cell("scores", "scores", score, score.traits.derivation)

    def _link(self, link: Link) -> Section:
        return self._per_cell(link.step, self._before(link.step), link.part, link.derivation, link.value)

    def _masked(self, link: Link) -> Section:
        """Which keys are hidden, and by what."""
        name, before = link.step, self._before(link.step)
        cells = self._cells(name, before, masked=True)
        shown = [c for c in cells if c.hidden and (c.index in self.shown or self.page.place.keys is None)]
        if not shown:
            what = "the keys asked for" if self.page.place.keys is not None else f"all {len(cells)} keys"
            return Section(f"{name}: {what} may be seen", idle=True)
        lines = [Line(c.label, ([c.before], [c.after]) if False else ([c.after],), self._why(c)) for c in shown]
        seen = sum(not c.hidden for c in cells)
        remark = f"{seen} of {len(cells)} keys may be seen; their scores stay"
        return Section(name, link.formula, _middle(lines, _LINES if not self.page.place.full else len(lines)), remark)

    def _why(self, c: Cell) -> str:
        """The predicate that hides a key, with its numbers: “causal: 2 > 1”."""
        plan, reasons = self.plan, []
        grid = plan.grid()

        def here(x: Array) -> Array:
            if x is None:
                return None
            x = as_numpy(x)
            at = (self.at["b"], self.at["h"], self.at["n"], c.index)
            found = x[tuple(i if n > 1 else 0 for i, n in zip(at, x.shape, strict=True))]
            return found.item()

        names = ("q_pos", "k_pos", "q_idx", "k_idx", "q_seg", "k_seg")
        one = Grid(**{name: here(getattr(grid, name)) for name in names}, keys=grid.keys, heads=grid.heads)
        if plan.mask is not None:
            finer = self.page.steps["mask"].finer

            def holds(part: AnyPart) -> bool:
                return bool(here(finer[str(part)].values))

            if not plan.mask.says(holds):
                for part, held in plan.mask.blame(holds):
                    why = part.traits.why_hidden
                    said = why(one, part) if why and not held else _in_numbers(part, one)
                    reasons.append(f"{'not ' * held}{part.name}: {said}")
        if grid.lengths is not None and c.index >= here(np.broadcast_to(grid.lengths, (len(grid.lengths), 1, 1, 1))):
            reasons.append(f"padding: {c.index} ≥ {int(np.ravel(grid.lengths)[self.at['b'] % len(grid.lengths)])}")
        if plan.problem.bias is not None and here(grid.bias) == -np.inf:
            reasons.append("bias: −∞")
        return ", ".join(dict.fromkeys(reasons))

    # ── weights ──────────────────────────────────────────────────────────────────────────────────
    def _weights(self) -> Section:
        part = self.plan.variant.normalizer
        extra: tuple[Cell, ...] = ()
        if "sink_weights" in self.page.steps:
            m = self.plan.size.keys
            after = self.page.number("sink_weights", **self.at)

            def pick(word: str) -> Any:
                return self.page.noted("weights", word, **self.at, m=m)

            logit = self.page.noted("weights", "sink", **self.at)
            extra = (Cell("sink", m, logit, after, pick),)
        work = self._row_work("weights", self.page.scores[-1], part, None, extra)
        step = self.page.steps["weights"]
        hidden = [c for c in work.every if c.hidden]
        remark = f"{len(hidden)} hidden: weight 0" if hidden else ""
        if not any(not c.hidden for c in work.every) or self._blind(work):
            rule = str(self.plan.variant.empty_rows)
            lines = tuple(Line(c.label, ([c.after],)) for c in work.cells)
            return Section("weights", step.formula, lines, f"the query sees no key: empty rows are {rule}")
        uses = self._earlier("weights")
        lines = tuple(_lines(part, work))
        if part.traits.is_distribution:
            total = work.added(lambda c: [c.after], lambda c: c.after.value)
            lines = (*lines, Line("check", (total, [working(sum(c.after.value for c in work.every))])))
        return Section(
            "weights", step.formula, lines, "; ".join(filter(None, (remark, self._left_out(work)))), uses=uses
        )

    def _blind(self, work: Work) -> bool:
        return all(c.hidden for c in work.every if c.index < self.plan.size.keys)

    def _statistics(self) -> Section:
        """What the whole row comes to, on one grey line."""
        traits = self.plan.variant.normalizer.traits
        asked = {"log_sum_exp": traits.is_exponential, "entropy": traits.is_distribution}
        names = [n for n in ("max_score", "log_sum_exp", "entropy", "visible_keys") if asked.get(n, True)]
        said = {
            "max_score": "largest score",
            "log_sum_exp": "ln Σ e^s",
            "entropy": "entropy in bits",
            "visible_keys": "visible keys",
        }
        line = [x for n in names for x in (" · " * (n != names[0]) + said[n] + " ", self.page.number(n, **self.at))]
        return Section("", lines=(Line("", (line,)),), idle=True)

    def _context(self) -> Section:
        """weight × value, and the sum."""
        name = self._last_weights()
        out_name = "head_context" if "head_context" in self.page.steps else "context"
        out = self.page.vector(out_name, **self._where("head_context"))
        at = self._where(name)
        lines, rest = [], []
        every = [self.page.number(name, **at, key=j) for j in range(self.plan.size.keys)]
        values = [self.stored("v", j) for j in range(self.plan.size.keys)]
        for j, (w, v) in enumerate(zip(every, values, strict=True)):
            if j in self.shown and (w.value != 0 or not self._hidden(j)):
                lines.append(Line(self._key_label(j), ([w, " × ", v], [scaled(w, v)])))
            elif w.value:
                rest.append((w, v))
        if rest:
            total = np.sum([[w.value * x.value for x in v] for w, v in rest], axis=0)
            lines.append(Line(f"{len(rest)} more", (["…"], [Vec(working(float(x)) for x in total)])))
        if not lines:
            return Section(out_name, "Σ weight × value", (Line("sum", ([out],)),), "no key has any weight")
        lines.append(Line("sum", ([], [out])))
        uses = frozenset({*self._earlier("mixed_weights"), "mixed_weights", "v", "present_v"})
        return Section(out_name, "Σ weight × value", tuple(lines), uses=uses)

    def _normed_context(self) -> Section:
        mixing = self.plan.variant.head_mixing
        at = self._where("normed_context")
        before, out = (self.page.vector(name, **at) for name in ("head_context", "normed_context"))
        work = Work((), (), lambda word: self.page.noted("normed_context", word, **at), q=before, out=out, part=mixing)
        derivation = mixing.traits.context_derivation
        lines = _fitted(derivation(work) if derivation else (), self.page)
        formula = self.page.steps["normed_context"].formula
        return Section("normed_context", formula, lines, uses=frozenset({"head_context"}))

    def closing(self) -> str:
        """Where the query looks."""
        name = self._last_weights()
        at = self._where(name)
        w = np.array([self.page.number(name, **at, key=j).value for j in range(self.plan.size.keys)])
        sink = self.page.number("sink_weights", **self.at).value if "sink_weights" in self.page.steps else 0.0
        who = f"“{self.page.token('query', self.page.place.query)}”"
        who = f"In head {self.head} {who}" if self.plan.shapes.heads > 1 else who
        if not np.isfinite(w).all():
            return f"{who} has weights that are no numbers."
        if not w.any():
            return f"{who} looks nowhere."
        shares = bool((w >= 0).all()) and abs(w.sum() + sink - 1) < 1e-3
        told = []
        for j in (int(j) for j in np.argsort(-np.abs(w), kind="stable")[:3] if w[j]):
            key = "itself" if self._itself(j) else f"“{self._key_label(j)}”"
            if not shares:
                told.append(f"{key} by {w[j]:.4g}")
            elif w[j] >= 0.005 or not told:
                told.append(f"{100 * w[j]:.0f} % {'to' if sink else 'from'} {key}")
        if not shares:
            return f"{who} weighs {', '.join(told)}."
        if sink:
            return f"{who} gives {', '.join([*told, f'{100 * sink:.0f} % to the sink'])}."
        if "context" in self.page.steps:
            told[0] = told[0].replace(" % ", " % of its context ", 1)
        return f"{who} takes {', '.join(told)}."

    def _itself(self, j: int) -> bool:
        """Whether a key is the query's own token: only where both come from the same embeddings."""
        p = self.plan.problem
        return p.embeddings is not None and p.memory is None and j == self.page.place.query + self.plan.size.past


def _alike(one: Section, other: Section) -> bool:
    """Whether two sections hold the same numbers."""

    def values(section: Section) -> list[list[float]]:
        return [
            [n.value for item in expr if isinstance(item, Vec) for n in item]
            for line in section.lines
            for expr in line.exprs
        ]

    return (one.formula, values(one)) == (other.formula, values(other))


def _in_numbers(part: AnyPart, at: Grid) -> str:
    """A mask's formula with the numbers of one cell."""
    known = {"i": at.q_pos, "j": at.k_pos, "I": at.q_idx, "J": at.k_idx}
    known |= {o.name: part.get(o.name) for o in part.member.options}
    return re.sub(r"\b[A-Za-z-]+\b", lambda m: str(known.get(m[0], m[0])), part.member.formula)


def _lines(part: Part[PartTraits], work: Work) -> Iterable[Line]:
    """The lines that a part writes of itself; a part that writes none shows its result alone."""
    return part.traits.derivation(work) if part.traits.derivation else ()


_MERGED = {"head_context", "normed_context", "context"}
_MIXED = ("mixed_weights", "head_context", "normed_context")


def _fitted(lines: Iterable[Line], page: Cells) -> tuple[Line, ...]:
    return _middle(list(lines), 10**9 if page.place.full else _LINES)


def _middle(lines: Sequence[Line], most: int) -> tuple[Line, ...]:
    """The first and last of many lines."""
    if len(lines) <= most:
        return tuple(lines)
    head = most - 4
    return (
        *lines[:head],
        Line("…", ([f"{len(lines) - head - 2} more lines, made alike; --full shows them"],)),
        *lines[-2:],
    )
