"""The way back on the page: from the gradient that arrives at the context to those of V, the weights, the scores, Q, K and what
they were made of. The numbers are autograd's; each line works one of them from the numbers above it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from attncli.derivation import DERIVED, Equation, KeyCell, Number, RowDerivation, Vector, derived_number, scale_vector
from attncli.parts.traits import PartTraits
from attncli.plan.chain import Link
from attncli.registry import Part
from attncli.types import NumpyArray
from attncli.views.explain import HeadDerivation, Section, StepValues

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients


class HeadGradients(HeadDerivation):
    """The way back of one query in one head."""

    def __init__(self, step_values: StepValues, head: int, gradients: Gradients) -> None:
        super().__init__(step_values, head)
        self.gradients = gradients

    def gradient_vector(self, step_name: str, **indices: int) -> Vector:
        """The gradient of a row of a step."""
        axes = self.step_values.steps[step_name].axes[:-1]
        row = self.gradients.steps[step_name][tuple(indices[axis] for axis in axes)]
        return Vector(derived_number(float(x)) for x in row)

    def gradient_number(self, step_name: str, key_index: int) -> Number:
        """The gradient of one cell."""
        at = {**self._cell_indices(step_name), "key": key_index}
        return Number(
            float(self.gradients.steps[step_name][tuple(at[axis] for axis in self.step_values.steps[step_name].axes)]),
            DERIVED,
        )

    def sections(self) -> Iterator[Section]:
        """From the context back to q and k of this head."""
        if not np.any(self.gradients.upstream):
            yield Section("the gradient that arrives is zero", is_idle=True)
        last = self._final_weights_step()
        dz = self._upstream_gradient()
        yield Section(
            "gradient of the context", "dz, as it arrives", (Equation("dz", ([dz],)),), f"query {self.indices['query']}"
        )
        if "normed_context" in self.step_values.steps:
            dz = self.gradient_vector("head_context", **self._cell_indices("head_context"))
            yield Section(
                "gradient before the norm", "dz through the norm", (Equation("dz", ([dz],)),), "taken from autograd"
            )
        yield self._value_gradient_section(last, dz)
        yield self._weights_gradient_section(last, dz)
        yield from self._mixing_and_dropout_sections()
        yield self._scores_gradient_section()
        for link in reversed(self.plan.chain):
            yield self._link_gradient_section(link)
        yield self._query_gradient_section()
        yield self._key_gradient_section()
        yield from self._vector_chain_sections()

    def _upstream_gradient(self) -> Vector:
        if "normed_context" in self.step_values.steps:
            return self.gradient_vector("normed_context", **self._cell_indices("normed_context"))
        if "head_context" in self.step_values.steps:
            return self.gradient_vector("head_context", **self._cell_indices("head_context"))
        return self.gradient_vector("context", **self.indices)

    def _value_gradient_section(self, weights_step: str, context_gradient: Vector) -> Section:
        """dV: every query that looks at a key adds its weight times its dz."""
        name = "present_v" if "present_v" in self.step_values.steps else "v"
        new = 0 if name == "present_v" else self.plan.size.past
        lines = []
        for j in self.worked_keys:
            w = self.step_values.number_at(weights_step, **self._cell_indices(weights_step), key=j)
            if w.value:
                lines.append(
                    Equation(self._key_label(j), ([w, " × ", context_gradient], [scale_vector(w, context_gradient)]))
                )
        lines += [
            Equation(f"dv {self._key_label(j)}", ([self.gradient_vector(name, **self._row_indices(name, j - new))],))
            for j in self.worked_keys
        ]
        return Section(
            "gradient of v",
            "dvⱼ = Σ wᵢⱼ dzᵢ",
            tuple(lines),
            f"these lines are this query's share, dv is {self._summed_over()}",
        )

    def _summed_over(self) -> str:
        """What is added up in the gradient of a key or a value."""
        shared = self.plan.shapes.kv_heads < self.plan.shapes.heads
        return "of all queries" + " and of the heads that share it" * shared

    def _weights_gradient_section(self, weights_step: str, context_gradient: Vector) -> Section:
        lines = []
        for j in self.worked_keys:
            if not self._is_hidden(j):
                v = self.final_vector("v", j)
                products = RowDerivation(
                    (), (), lambda word: word, max_terms=self.step_values.max_terms
                ).write_dot_product(context_gradient, v)
                lines.append(Equation(self._key_label(j), (products, [self.gradient_number(weights_step, j)])))
        return Section(f"gradient of {weights_step}", "dwⱼ = dz·vⱼ", tuple(lines))

    def _mixing_and_dropout_sections(self) -> Iterator[Section]:
        """Back through head mixing and dropout."""
        v = self.plan.variant
        parts: tuple[tuple[str, str, Part[PartTraits]], ...] = (
            ("mixed_weights", "head mixing", v.head_mixing),
            ("dropout_weights", "dropout", v.dropout),
        )
        for name, choice, part in parts:
            if name not in self.step_values.steps:
                continue
            before = self._previous_step(name)
            slope = part.traits.gradient_factor
            lines = []
            work = self._row_derivation(name, before, part, None) if slope else None
            cells = {c.index: c for c in work.all_cells} if work else {}
            for j in self.worked_keys:
                if self._is_hidden(j):
                    continue
                out = self.gradient_number(before, j)
                exprs = (
                    ([self.gradient_number(name, j), " × ", *slope(work, cells[j])], [out])
                    if slope and work
                    else ([out],)
                )
                lines.append(Equation(self._key_label(j), exprs))
            yield Section(
                f"gradient of {before}", f"back through {choice}", tuple(lines), "" if slope else "taken from autograd"
            )

    def _scores_gradient_section(self) -> Section:
        """Through the normaliser's Jacobian, to the scores it saw."""
        part, source = self.plan.variant.normalizer, self.step_values.score_steps[-1]
        derivation = part.traits.gradient_derivation
        work = self._row_derivation("weights", source, part, None)

        def with_gradients(cell: KeyCell) -> KeyCell:
            found = {"dw": self.gradient_number("weights", cell.index), "ds": self.gradient_number(source, cell.index)}
            return dataclasses.replace(
                cell, get_intermediate=lambda word: found[word] if word in found else cell.get_intermediate(word)
            )

        cells = {c.index: with_gradients(c) for c in work.all_cells}
        work = dataclasses.replace(
            work,
            shown_cells=tuple(cells[c.index] for c in work.shown_cells),
            all_cells=tuple(cells[c.index] for c in work.all_cells),
        )
        title, formula = f"gradient of {source}", part.traits.jacobian
        seen = [c for c in work.shown_cells if not c.is_hidden]
        if derivation and seen:
            return Section(title, formula, tuple(derivation(work)))
        lines = tuple(Equation(c.label, ([c("ds")],)) for c in seen)
        return Section(title, formula, lines, "" if formula else "taken from autograd")

    def _link_gradient_section(self, link: Link) -> Section:
        """Back through one link of the chain."""
        before = self._previous_step(link.step)
        slope = link.gradient_factor
        title = f"gradient of {before}"
        shown = [j for j in self.worked_keys if not self._is_hidden(j)]
        if link.is_mask:
            return Section(f"{title}: that of {link.step}; hidden keys get none", is_idle=True)
        if slope is None and all(
            self.gradient_number(before, j).value == self.gradient_number(link.step, j).value for j in shown
        ):
            return Section(f"{title}: that of {link.step}; what {link.name} adds does not change it", is_idle=True)
        work = self._row_derivation(link.step, before, link.part, link.value)
        cells = {c.index: c for c in work.all_cells}
        lines = []
        for j in shown:
            out = self.gradient_number(before, j)
            exprs = ([self.gradient_number(link.step, j), " × ", *slope(work, cells[j])], [out]) if slope else ([out],)
            lines.append(Equation(self._key_label(j), exprs))
        return Section(title, f"back through {link.name}", tuple(lines), "" if slope else "taken from autograd")

    def _query_gradient_section(self) -> Section:
        """dq: every key pulls at the query, as strongly as the gradient of its score."""
        score = self.plan.variant.score
        name = next(s for s in reversed(list(self.step_values.steps)) if s.rpartition("_")[2] == "q")
        out = Equation(
            "dq", ([], [self.gradient_vector(name, **self._row_indices(name, self.step_values.focus.query))])
        )
        backward = score.traits.gradient_derivation
        if backward is None:
            return Section(f"gradient of {name}", "", (out,), "taken from autograd")
        work = self._row_derivation("scores", "scores", score, None)

        def with_gradient(cell: KeyCell) -> KeyCell:
            ds = self.gradient_number("scores", cell.index)
            return dataclasses.replace(cell, get_intermediate=lambda word: ds, is_hidden=self._is_hidden(cell.index))

        work = dataclasses.replace(work, shown_cells=tuple(map(with_gradient, work.shown_cells)))
        rest = [c for c in work.all_cells if c.index not in self.worked_keys and not self._is_hidden(c.index)]
        lines = list(backward(work))
        if rest:
            left = np.sum(
                [[self.gradient_number("scores", c.index).value * x.value for x in c.k] for c in rest], axis=0
            )
            lines.append(Equation(f"{len(rest)} more", (["…"], [Vector(derived_number(float(x)) for x in left)])))
        return Section(f"gradient of {name}", "dq = Σⱼ dsⱼ kⱼ", (*lines, out))

    def _key_gradient_section(self) -> Section:
        """dk: this query's share, and that of all."""
        name = next(s for s in reversed(list(self.step_values.steps)) if s.rpartition("_")[2] == "k")
        new = 0 if name.startswith("present") else self.plan.size.past
        dots = self.plan.variant.score.traits.gradient_derivation is not None
        q = self._final_query_vector()
        lines = []
        for j in self.worked_keys if dots else ():
            ds = self.gradient_number("scores", j)
            if not self._is_hidden(j):
                lines.append(Equation(self._key_label(j), ([ds, " × ", q], [scale_vector(ds, q)])))
        lines += [
            Equation(f"dk {self._key_label(j)}", ([self.gradient_vector(name, **self._row_indices(name, j - new))],))
            for j in self.worked_keys
            if j >= new
        ]
        remark = f"these lines are this query's share, dk is {self._summed_over()}" if dots else "taken from autograd"
        return Section(f"gradient of {name}", "dkⱼ = Σ dsᵢⱼ qᵢ" if dots else "", tuple(lines), remark)

    def _vector_chain_sections(self) -> Iterator[Section]:
        """Back through positions and norms, to q and k as they were projected."""
        order = [s for s in self.step_values.steps if s.rpartition("_")[2] in ("q", "k") and s in self.gradients.steps]
        last = {next(s for s in reversed(order) if s.rpartition("_")[2] == letter) for letter in "qk"}  # shown already
        for name in reversed([s for s in order if s not in last]):
            letter = name[-1]
            rows = [self.step_values.focus.query] if letter == "q" else self._new_key_rows()
            label = "d" + letter
            lines = [
                Equation(
                    label if letter == "q" else f"{label} {self._key_label(row + self.plan.size.past)}",
                    ([self.gradient_vector(name, **self._row_indices(name, row))],),
                )
                for row in rows
            ]
            if lines:
                yield Section(f"gradient of {name}", "", tuple(lines), "taken from autograd")

    def input_sections(self) -> Iterator[Section]:
        """What reaches W and the embeddings, all heads together."""
        p, query = self.plan.problem, self.step_values.focus.query
        if p.embeddings is None:
            return
        for letter in "qkv":
            w = self.gradients.parameters.get(f"w_{letter}")
            if w is None or letter not in self.gradients.steps:
                continue
            row = query if letter == "q" or p.memory is None else 0
            x = Vector(
                n._replace(step="") for n in self.step_values.intermediate_at(letter, "x", b=self.indices["b"], n=row)
            )
            dy = Vector(derived_number(float(g)) for g in self._concatenated_gradient(letter, row))
            who = self.step_values.token("query", row) if letter == "q" or p.memory is None else self._key_label(row)
            lines = [Equation(f"d{letter} of {who}", ([dy],))]
            some = range(min(len(x), self.step_values.max_terms))
            lines += [Equation(f"x[{r}] × d{letter}", ([x[r], " × ", dy], [scale_vector(x[r], dy)])) for r in some]
            lines += [Equation(f"dW[{r}]", ([Vector(derived_number(float(g)) for g in w[r])],)) for r in some]
            formula = f"dW_{letter} = Σᵢ xᵢᵀ d{letter}ᵢ"
            yield Section(f"gradient of w_{letter}", formula, tuple(lines), "the share of one token, then dW of all")
            offset = self.gradients.parameters.get(f"b_{letter}")
            if offset is not None:
                line = Equation(f"db_{letter}", ([Vector(derived_number(float(g)) for g in offset)],))
                yield Section(f"gradient of b_{letter}", f"Σᵢ d{letter}ᵢ", (line,))
        own = [x for x in "qkv" if x in self.gradients.embeddings and (p.memory is None or x == "q")]
        yield self._token_gradient_section("the embedding", "x", own, query, self.step_values.token("query", query))
        if p.memory is not None:
            others = [x for x in "kv" if x in self.gradients.embeddings]
            for j in self.worked_keys:
                yield self._token_gradient_section("the memory", "m", others, j, self._key_label(j))

    def _token_gradient_section(self, subject: str, symbol: str, letters: list[str], row: int, token: str) -> Section:
        """What reaches one token's vector through each of q, k and v that is made of it."""
        parts = {
            x: Vector(derived_number(float(g)) for g in self.gradients.embeddings[x][self.indices["b"], row])
            for x in letters
        }
        formula = " + ".join(f"d{x}" + f" W_{x}ᵀ" * (f"w_{x}" in self.gradients.parameters) for x in letters)
        lines = [Equation(f"through {x}", ([v],)) for x, v in parts.items()]
        total = Vector(
            derived_number(sum(column)) for column in zip(*([n.value for n in v] for v in parts.values()), strict=True)
        )
        sides = [item for v in parts.values() for item in (" + ", v)][1:]
        lines += [Equation(f"d{symbol}", (sides, [total]))] * (len(parts) > 1)
        return Section(f"gradient of {subject}", f"d{symbol} = {formula}", tuple(lines), f"of {token}, all heads")

    def _concatenated_gradient(self, letter: str, row: int) -> NumpyArray:
        """The gradient of a token's q, k or v, heads side by side."""
        grad, axes = self.gradients.steps[letter], self.step_values.steps[letter].axes
        at = {"batch": self.indices["b"], "query": row, "key": row, "new_key": row}
        return np.ravel(grad[tuple(at.get(axis, slice(None)) for axis in axes)])
