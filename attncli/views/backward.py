"""The way back on the page: from the gradient that arrives at the context to those of V, the weights, the scores, Q, K and what
they were made of. The numbers are autograd's; each line works one of them from the numbers above it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from attncli.derivation import WORKING, Cell, Line, Num, Vec, Work, scaled, working
from attncli.parts.traits import PartTraits
from attncli.plan.chain import Link
from attncli.registry import Part
from attncli.types import NumpyArray
from attncli.views.explain import Cells, Head, Section

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients


class Back(Head):
    """The way back of one query in one head."""

    def __init__(self, page: Cells, head: int, gradients: Gradients) -> None:
        super().__init__(page, head)
        self.grad = gradients

    def vector(self, name: str, **at: int) -> Vec:
        """The gradient of a row of a step."""
        axes = self.page.steps[name].axes[:-1]
        row = self.grad.steps[name][tuple(at[axis] for axis in axes)]
        return Vec(working(float(x)) for x in row)

    def number(self, name: str, j: int) -> Num:
        """The gradient of one cell."""
        at = {**self._where(name), "key": j}
        return Num(float(self.grad.steps[name][tuple(at[axis] for axis in self.page.steps[name].axes)]), WORKING)

    def sections(self) -> Iterator[Section]:
        """From the context back to q and k of this head."""
        if not np.any(self.grad.upstream):
            yield Section("the gradient that arrives is zero", idle=True)
        last = self._last_weights()
        dz = self._arriving()
        yield Section(
            "gradient of the context", "dz, as it arrives", (Line("dz", ([dz],)),), f"query {self.at['query']}"
        )
        if "normed_context" in self.page.steps:
            dz = self.vector("head_context", **self._where("head_context"))
            yield Section(
                "gradient before the norm", "dz through the norm", (Line("dz", ([dz],)),), "taken from autograd"
            )
        yield self._values(last, dz)
        yield self._weights_back(last, dz)
        yield from self._to_weights()
        yield self._scores_back()
        for link in reversed(self.plan.chain):
            yield self._link_back(link)
        yield self._query_back()
        yield self._keys_back()
        yield from self._chain_of_vectors()

    def _arriving(self) -> Vec:
        if "normed_context" in self.page.steps:
            return self.vector("normed_context", **self._where("normed_context"))
        if "head_context" in self.page.steps:
            return self.vector("head_context", **self._where("head_context"))
        return self.vector("context", **self.at)

    def _values(self, last: str, dz: Vec) -> Section:
        """dV: every query that looks at a key adds its weight times its dz."""
        name = "present_v" if "present_v" in self.page.steps else "v"
        new = 0 if name == "present_v" else self.plan.size.past
        lines = []
        for j in self.shown:
            w = self.page.number(last, **self._where(last), key=j)
            if w.value:
                lines.append(Line(self._key_label(j), ([w, " × ", dz], [scaled(w, dz)])))
        lines += [
            Line(f"dv {self._key_label(j)}", ([self.vector(name, **self._row(name, j - new))],)) for j in self.shown
        ]
        return Section(
            "gradient of v",
            "dvⱼ = Σ wᵢⱼ dzᵢ",
            tuple(lines),
            f"these lines are this query's share, dv is {self._of_all()}",
        )

    def _of_all(self) -> str:
        """What is added up in the gradient of a key or a value."""
        shared = self.plan.shapes.kv_heads < self.plan.shapes.heads
        return "of all queries" + " and of the heads that share it" * shared

    def _weights_back(self, last: str, dz: Vec) -> Section:
        lines = []
        for j in self.shown:
            if not self._hidden(j):
                v = self.stored("v", j)
                products = Work((), (), lambda word: word, most=self.page.most).products(dz, v)
                lines.append(Line(self._key_label(j), (products, [self.number(last, j)])))
        return Section(f"gradient of {last}", "dwⱼ = dz·vⱼ", tuple(lines))

    def _to_weights(self) -> Iterator[Section]:
        """Back through head mixing and dropout."""
        v = self.plan.variant
        parts: tuple[tuple[str, str, Part[PartTraits]], ...] = (
            ("mixed_weights", "head mixing", v.head_mixing),
            ("dropout_weights", "dropout", v.dropout),
        )
        for name, choice, part in parts:
            if name not in self.page.steps:
                continue
            before = self._before(name)
            slope = part.traits.gradient_factor
            lines = []
            work = self._row_work(name, before, part, None) if slope else None
            cells = {c.index: c for c in work.every} if work else {}
            for j in self.shown:
                if self._hidden(j):
                    continue
                out = self.number(before, j)
                exprs = ([self.number(name, j), " × ", *slope(work, cells[j])], [out]) if slope and work else ([out],)
                lines.append(Line(self._key_label(j), exprs))
            yield Section(
                f"gradient of {before}", f"back through {choice}", tuple(lines), "" if slope else "taken from autograd"
            )

    def _scores_back(self) -> Section:
        """Through the normaliser's Jacobian, to the scores it saw."""
        part, source = self.plan.variant.normalizer, self.page.scores[-1]
        derivation = part.traits.gradient_derivation
        work = self._row_work("weights", source, part, None)

        def with_gradients(c: Cell) -> Cell:
            found = {"dw": self.number("weights", c.index), "ds": self.number(source, c.index)}
            return dataclasses.replace(c, pick=lambda word: found[word] if word in found else c.pick(word))

        cells = {c.index: with_gradients(c) for c in work.every}
        work = dataclasses.replace(
            work, cells=tuple(cells[c.index] for c in work.cells), every=tuple(cells[c.index] for c in work.every)
        )
        title, formula = f"gradient of {source}", part.traits.jacobian
        seen = [c for c in work.cells if not c.hidden]
        if derivation and seen:
            return Section(title, formula, tuple(derivation(work)))
        lines = tuple(Line(c.label, ([c("ds")],)) for c in seen)
        return Section(title, formula, lines, "" if formula else "taken from autograd")

    def _link_back(self, link: Link) -> Section:
        """Back through one link of the chain."""
        before = self._before(link.step)
        slope = link.gradient_factor
        title = f"gradient of {before}"
        shown = [j for j in self.shown if not self._hidden(j)]
        if link.is_mask:
            return Section(f"{title}: that of {link.step}; hidden keys get none", idle=True)
        if slope is None and all(self.number(before, j).value == self.number(link.step, j).value for j in shown):
            return Section(f"{title}: that of {link.step}; what {link.name} adds does not change it", idle=True)
        work = self._row_work(link.step, before, link.part, link.value)
        cells = {c.index: c for c in work.every}
        lines = []
        for j in shown:
            out = self.number(before, j)
            exprs = ([self.number(link.step, j), " × ", *slope(work, cells[j])], [out]) if slope else ([out],)
            lines.append(Line(self._key_label(j), exprs))
        return Section(title, f"back through {link.name}", tuple(lines), "" if slope else "taken from autograd")

    def _query_back(self) -> Section:
        """dq: every key pulls at the query, as strongly as the gradient of its score."""
        score = self.plan.variant.score
        name = next(s for s in reversed(list(self.page.steps)) if s.rpartition("_")[2] == "q")
        out = Line("dq", ([], [self.vector(name, **self._row(name, self.page.place.query))]))
        backward = score.traits.gradient_derivation
        if backward is None:
            return Section(f"gradient of {name}", "", (out,), "taken from autograd")
        work = self._row_work("scores", "scores", score, None)

        def with_gradient(c: Cell) -> Cell:
            ds = self.number("scores", c.index)
            return dataclasses.replace(c, pick=lambda word: ds, hidden=self._hidden(c.index))

        work = dataclasses.replace(work, cells=tuple(map(with_gradient, work.cells)))
        rest = [c for c in work.every if c.index not in self.shown and not self._hidden(c.index)]
        lines = list(backward(work))
        if rest:
            left = np.sum([[self.number("scores", c.index).value * x.value for x in c.k] for c in rest], axis=0)
            lines.append(Line(f"{len(rest)} more", (["…"], [Vec(working(float(x)) for x in left)])))
        return Section(f"gradient of {name}", "dq = Σⱼ dsⱼ kⱼ", (*lines, out))

    def _keys_back(self) -> Section:
        """dk: this query's share, and that of all."""
        name = next(s for s in reversed(list(self.page.steps)) if s.rpartition("_")[2] == "k")
        new = 0 if name.startswith("present") else self.plan.size.past
        dots = self.plan.variant.score.traits.gradient_derivation is not None
        q = self._query_vector()
        lines = []
        for j in self.shown if dots else ():
            ds = self.number("scores", j)
            if not self._hidden(j):
                lines.append(Line(self._key_label(j), ([ds, " × ", q], [scaled(ds, q)])))
        lines += [
            Line(f"dk {self._key_label(j)}", ([self.vector(name, **self._row(name, j - new))],))
            for j in self.shown
            if j >= new
        ]
        remark = f"these lines are this query's share, dk is {self._of_all()}" if dots else "taken from autograd"
        return Section(f"gradient of {name}", "dkⱼ = Σ dsᵢⱼ qᵢ" if dots else "", tuple(lines), remark)

    def _chain_of_vectors(self) -> Iterator[Section]:
        """Back through positions and norms, to q and k as they were projected."""
        order = [s for s in self.page.steps if s.rpartition("_")[2] in ("q", "k") and s in self.grad.steps]
        last = {next(s for s in reversed(order) if s.rpartition("_")[2] == letter) for letter in "qk"}  # shown already
        for name in reversed([s for s in order if s not in last]):
            letter = name[-1]
            rows = [self.page.place.query] if letter == "q" else self._new_keys()
            label = "d" + letter
            lines = [
                Line(
                    label if letter == "q" else f"{label} {self._key_label(row + self.plan.size.past)}",
                    ([self.vector(name, **self._row(name, row))],),
                )
                for row in rows
            ]
            if lines:
                yield Section(f"gradient of {name}", "", tuple(lines), "taken from autograd")

    def inputs(self) -> Iterator[Section]:
        """What reaches W and the embeddings, all heads together."""
        p, query = self.plan.problem, self.page.place.query
        if p.embeddings is None:
            return
        for letter in "qkv":
            w = self.grad.parameters.get(f"w_{letter}")
            if w is None or letter not in self.grad.steps:
                continue
            row = query if letter == "q" or p.memory is None else 0
            x = Vec(n._replace(step="") for n in self.page.noted(letter, "x", b=self.at["b"], n=row))
            dy = Vec(working(float(g)) for g in self._side_by_side(letter, row))
            who = self.page.token("query", row) if letter == "q" or p.memory is None else self._key_label(row)
            lines = [Line(f"d{letter} of {who}", ([dy],))]
            some = range(min(len(x), self.page.most))
            lines += [Line(f"x[{r}] × d{letter}", ([x[r], " × ", dy], [scaled(x[r], dy)])) for r in some]
            lines += [Line(f"dW[{r}]", ([Vec(working(float(g)) for g in w[r])],)) for r in some]
            formula = f"dW_{letter} = Σᵢ xᵢᵀ d{letter}ᵢ"
            yield Section(f"gradient of w_{letter}", formula, tuple(lines), "the share of one token, then dW of all")
            offset = self.grad.parameters.get(f"b_{letter}")
            if offset is not None:
                line = Line(f"db_{letter}", ([Vec(working(float(g)) for g in offset)],))
                yield Section(f"gradient of b_{letter}", f"Σᵢ d{letter}ᵢ", (line,))
        own = [x for x in "qkv" if x in self.grad.embeddings and (p.memory is None or x == "q")]
        yield self._made_of("the embedding", "x", own, query, self.page.token("query", query))
        if p.memory is not None:
            others = [x for x in "kv" if x in self.grad.embeddings]
            for j in self.shown:
                yield self._made_of("the memory", "m", others, j, self._key_label(j))

    def _made_of(self, what: str, name: str, letters: list[str], row: int, who: str) -> Section:
        """What reaches one token's vector through each of q, k and v that is made of it."""
        parts = {x: Vec(working(float(g)) for g in self.grad.embeddings[x][self.at["b"], row]) for x in letters}
        formula = " + ".join(f"d{x}" + f" W_{x}ᵀ" * (f"w_{x}" in self.grad.parameters) for x in letters)
        lines = [Line(f"through {x}", ([v],)) for x, v in parts.items()]
        total = Vec(
            working(sum(column)) for column in zip(*([n.value for n in v] for v in parts.values()), strict=True)
        )
        sides = [item for v in parts.values() for item in (" + ", v)][1:]
        lines += [Line(f"d{name}", (sides, [total]))] * (len(parts) > 1)
        return Section(f"gradient of {what}", f"d{name} = {formula}", tuple(lines), f"of {who}, all heads")

    def _side_by_side(self, letter: str, row: int) -> NumpyArray:
        """The gradient of a token's q, k or v, heads side by side."""
        grad, axes = self.grad.steps[letter], self.page.steps[letter].axes
        at = {"batch": self.at["b"], "query": row, "key": row, "new_key": row}
        return np.ravel(grad[tuple(at.get(axis, slice(None)) for axis in axes)])
