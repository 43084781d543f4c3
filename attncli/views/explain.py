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

from attncli.derivation import (
    DERIVED,
    Derivation,
    Equation,
    KeyCell,
    Number,
    RowDerivation,
    Vector,
    derived_number,
    scale_vector,
)
from attncli.errors import join_names, printable
from attncli.parts.projections import derive_linear
from attncli.parts.traits import PartTraits
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.plan.head_shapes import kv_head_of
from attncli.registry import AnyPart, Part
from attncli.types import Array, Attention, Grid
from attncli.validation.fields import as_numpy

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients

MAX_KEYS_WORKED_OUT = 16  # keys worked one by one before the smallest are left out
_MAX_LINES_PER_VECTOR = 12  # lines of one vector before its middle is left out


@dataclass(frozen=True)
class Section:
    """One step on the page."""

    title: str
    formula: str = ""
    lines: tuple[Equation, ...] = ()
    remark: str = ""
    is_idle: bool = False  # a grey line: what does nothing in this variant
    used_steps: frozenset[str] = frozenset()  # the steps that its lines work with
    is_heading: bool = False  # what follows is of another head


@dataclass(frozen=True)
class ExplanationPage:
    """The page: what is asked, the steps, and where the query looks."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    closing: str
    step_axes: dict[str, tuple[str, ...]]  # the axes of each step, for the addresses of gaps


@dataclass(frozen=True)
class Focus:
    """What is explained: one query of one batch item, in some heads, before some keys."""

    query: int
    batch: int = 0
    heads: tuple[int, ...] = (0,)
    keys: tuple[int, ...] | None = None  # those asked for; None: as many as a page holds
    blank_steps: frozenset[str] = frozenset()  # steps of which a worksheet gives nothing away
    full: bool = False


def explain_query(
    plan: Plan, attention: Attention, focus: Focus, gradients: Gradients | None = None
) -> ExplanationPage:
    """A result that kept every step, with its finer ones → the page of one query; with gradients, the way back too."""
    from attncli.views.backward import HeadGradients

    page = StepValues(plan, attention, focus)
    heads = [HeadDerivation(page, head) for head in focus.heads]
    sections: list[Section] = []
    for head in heads:
        sections += [Section(f"head {head.head}", is_heading=True)] * (len(heads) > 1)
        sections += head.sections()
    sections += page.merged_sections()
    if gradients is not None:
        backs = [HeadGradients(page, head, gradients) for head in focus.heads]
        for back in backs:
            sections += [Section(f"back through head {back.head}", is_heading=True)] * (len(heads) > 1)
            sections += back.sections()
        sections += backs[0].input_sections()
    what = f"Attention of query {page.token_label('query', focus.query)}"
    many = plan.shapes.heads > len(focus.heads)
    where = [f"batch {focus.batch}"] * (plan.size.batch is not None)
    where += [f"head {join_names(focus.heads)} of {plan.shapes.heads}"] * (plan.shapes.has_head_axis and many)
    return ExplanationPage(
        title=" · ".join((what, *where)),
        summary=" · ".join(map(printable, attention.summary)),
        sections=tuple(map(_as_idle_if_empty, sections)),
        closing=" ".join(head.closing_sentence() for head in heads),
        step_axes={step.name: step.axes for step in attention.steps},
    )


def _as_idle_if_empty(section: Section) -> Section:
    """A section without a line is a grey one."""
    if section.lines or section.is_idle or section.is_heading:
        return section
    return Section(
        f"{section.title}: {section.remark}" if section.remark else f"{section.title}: nothing", is_idle=True
    )


class StepValues:
    """The steps of a result, by cell."""

    def __init__(self, plan: Plan, attention: Attention, focus: Focus) -> None:
        self.plan, self.attention, self.focus = plan, attention, focus
        self.steps = {step.name: step for step in attention.steps}
        self.values = {name: as_numpy(step.values) for name, step in self.steps.items()}
        self.max_terms = 10**9 if focus.full else 8
        self.query_row = (
            focus.query if plan.computed_queries is None else 0
        )  # of a long run that query alone is computed

    @cached_property
    def score_steps(self) -> list[str]:
        """The steps from the raw score to what the normaliser sees."""
        return ["scores", *(link.step for link in self.plan.chain)]

    def number_at(self, step_name: str, **indices: int) -> Number:
        """One cell of a step."""
        where = tuple(indices[axis] for axis in self.steps[step_name].axes)
        return Number(float(self.values[step_name][where]), step_name, self._index_in_whole_step(step_name, where))

    def vector_at(self, step_name: str, **indices: int) -> Vector:
        """The cells of a step along its last axis."""
        where = tuple(indices[axis] for axis in self.steps[step_name].axes[:-1])
        row, start = self.values[step_name][where], self._index_in_whole_step(step_name, where)
        return Vector(Number(float(x), step_name, (*start, i)) for i, x in enumerate(row))

    def _index_in_whole_step(self, step_name: str, index: tuple[int, ...]) -> tuple[int, ...]:
        """Where a cell stands in the whole step, though one query alone be computed."""
        axes = zip(self.steps[step_name].axes, index, strict=False)
        return tuple(self.focus.query if axis == "query" else i for axis, i in axes)

    def intermediate_at(self, step_name: str, intermediate_name: str, **indices: int) -> Any:
        """A finer step: a number, a vector or rows of them, whatever axes are left."""
        values, axes, given = self.steps[step_name].intermediates[intermediate_name]
        where = tuple(
            slice(None)
            if axis not in "bhnm1"
            else 0
            if values.shape[i] == 1
            else indices[axis]
            if axis in indices
            else slice(None)
            for i, axis in enumerate(axes)
        )

        def to_numbers(x: Array) -> Array:
            return Number(float(x), "" if given else DERIVED) if np.ndim(x) == 0 else Vector(to_numbers(y) for y in x)

        return to_numbers(values[where])

    @cached_property
    def token_counts(self) -> Counter[str]:
        """How often each token stands among the keys."""
        return Counter(self.token("key", j) for j in range(self.plan.size.keys))

    def token_label(self, axis: str, index: int) -> str:
        """`1 “cat”`, or the index alone where it is the label."""
        token = self.token(axis, index)
        return str(index) if token == str(index) else f"{index} “{token}”"

    def token(self, axis: str, index: int) -> str:
        """The label of a query or key, safe to print."""
        labels = self.attention.tokens if axis == "query" else self.attention.k_tokens
        labels = labels[self.focus.batch] if self.plan.size.batch is not None else labels
        return printable(str(labels[index]))

    def merged_sections(self) -> Iterator[Section]:
        """Heads side by side, and W_o."""
        at = {"batch": self.focus.batch, "query": self.query_row}
        if self.focus.blank_steps & _MERGED_STEPS and len(self.focus.heads) < self.plan.shapes.heads:
            return  # the other heads' part would be left blank, and their working is not on the page
        heads = next((name for name in ("normed_context", "head_context") if name in self.steps), "")
        if heads and "context" in self.steps:
            lines = [
                Equation(f"head {h}", ([self.vector_at(heads, head=h, **at)],))
                for h in range(self.plan.shapes.mixed_heads)
            ]
            whole = Equation("context", ([self.vector_at("context", **at)],))
            lines = [*_leave_out_middle(lines, self.max_terms), whole]
            yield Section("context", "heads side by side", tuple(lines), used_steps=frozenset(_MERGED_STEPS))
        if "output" in self.steps:
            out = self.vector_at("output", **at)
            work = RowDerivation(
                (),
                (),
                lambda word: self.intermediate_at("output", word),
                q=self.vector_at("context", **at),
                output_vector=out,
            )
            work = dataclasses.replace(work, label="output", max_terms=self.max_terms)
            lines = [*_fit_on_page(derive_linear(work), self), Equation("output", ([out],))]
            yield Section("output", self.steps["output"].formula, tuple(lines), used_steps=frozenset(_MERGED_STEPS))
        elif "context" in self.steps:
            yield Section("no output projection", is_idle=True)


class HeadDerivation:
    """The page of one query in one head."""

    def __init__(self, step_values: StepValues, head: int) -> None:
        self.step_values, self.plan, self.head = step_values, step_values.plan, head
        place, shapes = step_values.focus, self.plan.shapes
        how = self.plan.variant.kv_map
        mixing = self.plan.variant.head_mixing
        into = mixing.traits.mixed_head
        self.mixed_head = into(mixing, head, shapes.heads) if into else head
        self.indices = {
            "batch": place.batch,
            "b": place.batch,
            "query": step_values.query_row,
            "n": step_values.query_row,
            "head": head,
            "h": head,
            "kv_head": kv_head_of(head, shapes.heads, shapes.kv_heads, how),
        }
        self.v_head = kv_head_of(self.mixed_head, shapes.mixed_heads, shapes.v_heads, how)
        self.idle_names: list[str] = []

    # ── the order of the page ────────────────────────────────────────────────────────────────────
    def sections(self) -> Iterator[Section]:
        """Every step in order; what does nothing is gathered into one grey line until something does."""
        for name, section in self._named_sections():
            if section is None:
                self.idle_names.append(name)
                continue
            yield from self._flush_idle_names()
            yield section
        yield from self._flush_idle_names()

    def _flush_idle_names(self) -> Iterator[Section]:
        if self.idle_names:
            yield Section("no " + join_names(self.idle_names, "or"), is_idle=True)
            self.idle_names = []

    def _named_sections(self) -> Iterator[tuple[str, Section | None]]:
        """(what it is called, its section or None where it does nothing)"""
        variant, steps = self.plan.variant, self.step_values.steps
        if "positioned_embeddings" in steps:
            yield "", self._positioned_embeddings_section()
        yield from self._projection_sections()
        order = [("normed", "qk_norm"), ("positioned", "position")]
        if "positioned_q" in steps and "normed_q" in steps:
            order.sort(key=lambda pair: list(steps).index(f"{pair[0]}_q"))
        for prefix, choice in order:
            if f"{prefix}_q" in steps:
                for letter in "qk":
                    yield "", self._norm_or_position_section(f"{prefix}_{letter}", variant[choice])
            elif prefix == "normed" or not variant.position.traits.acts_on:
                yield choice.replace("_", "-"), None
        for letter in "kv":
            if f"present_{letter}" in steps:
                yield "", self._past_section(letter)
        yield "", self._scores_section()
        links = iter(self.plan.chain)
        link = next(links, None)
        for name in variant.chain:
            if link is not None and name == link.name:
                yield "", self._mask_section(link) if link.is_mask else self._link_section(link)
                link = next(links, None)
            elif name != "position" or not variant.position.traits.acts_on:
                yield name, None
        if "sink_weights" not in steps:
            yield "sink", None
        yield "", self._weights_section()
        if not self.step_values.focus.blank_steps & set(
            self.step_values.score_steps
        ):  # the largest would give one of them away
            yield "", self._statistics_section()
        for step, choice in (("dropout_weights", "dropout"), ("mixed_weights", "head_mixing")):
            if step in steps:
                yield (
                    "",
                    self._per_key_section(
                        step, self._previous_step(step), variant[choice], variant[choice].traits.derivation
                    ),
                )
            else:
                yield choice.replace("_", " "), None
        if "context" in steps:
            yield "", self._context_section()
        if "normed_context" in steps:
            yield "", self._normed_context_section()

    # ── vectors ──────────────────────────────────────────────────────────────────────────────────
    def _row_indices(self, step_name: str, index: int) -> dict[str, int]:
        """Where the row of a step stands: `index` counts queries or keys, whichever the step has."""
        at = {**self.indices, "query": index, "n": index, "key": index, "new_key": index}
        if step_name.rpartition("_")[2] == "v":
            at |= {"kv_head": self.v_head}
        if step_name.rpartition("_")[2] in ("k", "v"):
            at["h"] = at["kv_head"]
        return at

    def _vector_derivation(
        self,
        step_name: str,
        index: int,
        before: Vector,
        out: Vector,
        part: Part[PartTraits] | None = None,
        **fields: Any,
    ) -> RowDerivation:
        at = self._row_indices(step_name, index)
        return RowDerivation(
            (),
            (),
            lambda word: self.step_values.intermediate_at(step_name, word, **at),
            q=before,
            output_vector=out,
            part=part,
            max_terms=self.step_values.max_terms,
            label=step_name.rpartition("_")[2],
            **fields,
        )

    def _input_vector(self, letter: str, index: int) -> Vector:
        """The numbers that came in, as given."""
        p = self.plan.problem
        held = as_numpy(p.embeddings if letter == "q" or not p.memory else p.memory["embeddings"])
        row = held[self.step_values.focus.batch, index] if held.ndim == 3 else held[index]
        return Vector(Number(float(x)) for x in row)

    def _positioned_embeddings_section(self) -> Section:
        name, i, part = "positioned_embeddings", self.step_values.query_row, self.plan.variant.position
        out = self.step_values.vector_at(name, **self.indices)
        work = dataclasses.replace(
            self._vector_derivation(name, i, self._input_vector("q", self.step_values.focus.query), out, part),
            label="x",
        )
        return Section(name, part.member.formula, _fit_on_page(_equations_of_part(part, work), self.step_values))

    def _projection_sections(self) -> Iterator[tuple[str, Section | None]]:
        """q of this query, k and v of each key: projected, or as they came in."""
        sections: list[Section] = []
        for letter in "qkv":
            if letter not in self.step_values.steps:
                continue
            step = self.step_values.steps[letter]
            worked = {"W", "b"} & set(step.intermediates)
            rows = [self.step_values.query_row] if letter == "q" else self._new_key_rows()
            lines: list[Equation] = []
            width = len(self.step_values.vector_at(letter, **self._row_indices(letter, 0)))
            for n, row in enumerate(rows):
                at = self._row_indices(letter, row)
                out = self.step_values.vector_at(letter, **at)
                label = letter if letter == "q" else self._key_label(row + self.plan.size.past)
                if not worked:
                    lines.append(Equation(label, ([out],)))
                    continue
                x = Vector(y._replace(step="") for y in self.step_values.intermediate_at(letter, "x", b=at["b"], n=row))
                head = at["head"] if letter == "q" else at["kv_head"]
                work = self._vector_derivation(letter, row, x, out, first_column=head * width)
                if n == 0 or self.step_values.focus.full:
                    lines += [Equation(f"x of {label}" if letter != "q" else "x", ([x],))]
                    lines += _fit_on_page(derive_linear(work), self.step_values)
                lines.append(Equation(label, ([out],)))
            alone = not worked or len(rows) == 1 or self.step_values.focus.full
            remark = "" if alone else "the first is worked out; the others are made alike"
            sections.append(Section(letter, step.formula, tuple(lines), remark))
        if (
            len(sections) == 3
            and _has_same_numbers(*sections[1:])
            and not self.step_values.focus.blank_steps & {"k", "v"}
        ):
            sections[1:] = [dataclasses.replace(sections[1], title="k and v")]
        yield from (("", section) for section in sections)

    def _past_section(self, letter: str) -> Section:
        """The vectors that were in the cache."""
        step = f"present_{letter}"
        rows = [j for j in self.worked_keys if j < self.plan.size.past]
        lines = [
            Equation(self._key_label(j), ([self.step_values.vector_at(step, **self._row_indices(step, j))],))
            for j in rows
        ]
        remark = f"the {self.plan.size.past} keys of the past stand before the new ones"
        return Section(step, self.step_values.steps[step].formula, tuple(lines), remark)

    def final_vector(self, letter: str, key_index: int) -> Vector:
        """What a key is compared by, or brings: of the new ones the last step of their own, of the past ones the cache's."""
        steps = [
            s for s in self.step_values.steps if s.rpartition("_")[2] == letter and not s.startswith(("present", "top"))
        ]
        past = self.plan.size.past
        name, row = (steps[-1], key_index - past) if key_index >= past else (f"present_{letter}", key_index)
        return self.step_values.vector_at(name, **self._row_indices(name, row))

    def _new_key_rows(self) -> list[int]:
        past = self.plan.size.past
        return [j - past for j in self.worked_keys if j >= past]

    def _norm_or_position_section(self, step_name: str, part: Part[PartTraits]) -> Section:
        """A norm or a position, on the query or on the keys: the first key is worked out, the others are as they come."""
        letter = step_name[-1]
        steps = list(self.step_values.steps)
        source = next(s for s in reversed(steps[: steps.index(step_name)]) if s.rpartition("_")[2] == letter)
        rows = [self.step_values.query_row] if letter == "q" else self._new_key_rows()
        lines: list[Equation] = []
        for n, row in enumerate(rows):
            at = self._row_indices(step_name, row)
            out, before = self.step_values.vector_at(step_name, **at), self.step_values.vector_at(source, **at)
            head = at["head"] if letter == "q" else at["kv_head"]
            finer = self.step_values.steps[step_name].intermediates
            plain = self.step_values.intermediate_at(step_name, "normed", **at) if "normed" in finer else out
            work = self._vector_derivation(step_name, row, before, plain, part, first_column=head * len(before))
            if n == 0 or self.step_values.focus.full:
                lines += _fit_on_page(_equations_of_part(part, work), self.step_values)
                if "gain" in finer:
                    lines.append(
                        Equation(
                            "× gain", ([plain, " × ", self.step_values.intermediate_at(step_name, "gain", **at)], [out])
                        )
                    )
            lines.append(Equation(letter if letter == "q" else self._key_label(row + self.plan.size.past), ([out],)))
        uses = frozenset(s for s in steps[: steps.index(step_name)] if s.rpartition("_")[2] == letter)
        return Section(step_name, self.step_values.steps[step_name].formula, tuple(lines), used_steps=uses)

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def worked_keys(self) -> list[int]:
        """The keys worked one by one: those asked for, or all while they are few, or those of the largest weights."""
        place, keys = self.step_values.focus, self.plan.size.keys
        if place.keys is not None:
            return list(place.keys)
        if keys <= MAX_KEYS_WORKED_OUT or place.full:
            return list(range(keys))
        name = self._final_weights_step()
        w = np.abs([self._cell_number(name, j).value for j in range(keys)])
        return sorted(np.argsort(-w, kind="stable")[: MAX_KEYS_WORKED_OUT // 2].tolist())

    def _final_weights_step(self) -> str:
        return next(s for s in ("mixed_weights", "dropout_weights", "weights") if s in self.step_values.steps)

    def _key_label(self, key_index: int) -> str:
        """The key's token; one that stands more than once has its index before it."""
        token = self.step_values.token("key", key_index)
        return f"{key_index} {token}" if self.step_values.token_counts[token] > 1 else token

    def _cell_indices(self, step_name: str) -> dict[str, int]:
        return self.indices | (
            {"head": self.mixed_head, "h": self.mixed_head} if step_name in _MIXED_HEAD_STEPS else {}
        )

    def _cell_number(self, step_name: str, key_index: int) -> Number:
        """One cell; where an earlier step of the chain, left blank, says the same, it is that step's."""
        number = own = self.step_values.number_at(step_name, **self._cell_indices(step_name), key=key_index)
        for earlier in reversed(
            self.step_values.score_steps[: self.step_values.score_steps.index(step_name)]
            if step_name in self.step_values.score_steps
            else []
        ):
            before = self.step_values.number_at(earlier, **self.indices, key=key_index)
            if before.value != own.value:
                break
            number = before if earlier in self.step_values.focus.blank_steps else number
        return number

    def _previous_step(self, step_name: str) -> str:
        """The step whose cells this step works on."""
        order = [
            *self.step_values.score_steps,
            *(s for s in ("weights", "dropout_weights", "mixed_weights") if s in self.step_values.steps),
        ]
        return order[max(order.index(step_name) - 1, 0)]

    def _final_query_vector(self) -> Vector:
        steps = [s for s in self.step_values.steps if s.rpartition("_")[2] == "q"]
        return self.step_values.vector_at(steps[-1], **self._row_indices(steps[-1], self.step_values.query_row))

    def _is_hidden(self, key_index: int) -> bool:
        if "mask" not in self.step_values.steps:
            return False
        step = self.step_values.steps["mask"]
        values = self.step_values.values["mask"]
        at = self.indices | {"key": key_index}
        return not values[tuple(at[axis] if n > 1 else 0 for axis, n in zip(step.axes, values.shape, strict=True))]

    def _key_cells(self, step_name: str, previous_step: str, *, masked: bool) -> tuple[KeyCell, ...]:
        q_pos, k_pos = self.plan.q_pos, self.plan.k_pos
        i = (
            None
            if q_pos is None
            else int(
                np.atleast_2d(q_pos)[-1 if q_pos.ndim == 1 else self.indices["b"] % len(q_pos)][
                    self.step_values.focus.query
                ]
            )
        )
        positions = np.atleast_2d(k_pos)[self.indices["b"] % len(np.atleast_2d(k_pos))]
        vectors = [self.final_vector("k", j) for j in range(self.plan.size.keys)] if step_name == "scores" else []
        return tuple(
            KeyCell(
                label=self._key_label(j),
                index=j,
                before=self._cell_number(previous_step, j),
                after=self._cell_number(step_name, j)
                if step_name != "weights"
                else self.step_values.number_at(step_name, **self.indices, key=j),
                get_intermediate=lambda word, j=j: self.step_values.intermediate_at(
                    step_name, word, **self._cell_indices(step_name), m=j
                ),  # type: ignore[misc]
                k=vectors[j] if vectors else Vector(),
                query_position=i,
                key_position=int(positions[j]),
                is_hidden=masked and self._is_hidden(j),
            )
            for j in range(self.plan.size.keys)
        )

    def _row_derivation(
        self,
        step_name: str,
        previous_step: str,
        part: Part[PartTraits] | None,
        value: float | None,
        extra_cells: tuple[KeyCell, ...] = (),
    ) -> RowDerivation:
        order = self.step_values.score_steps
        hidden = [link.step for link in self.plan.chain if link.is_mask]
        masked = step_name not in order or any(order.index(step) < order.index(step_name) for step in hidden)
        cells = self._key_cells(step_name, previous_step, masked=masked)
        at = self._cell_indices(step_name)
        return RowDerivation(
            shown_cells=(*(cells[j] for j in self.worked_keys), *extra_cells),
            all_cells=(*cells, *extra_cells),
            get_intermediate=lambda word: self.step_values.intermediate_at(step_name, word, **at),
            q=self._final_query_vector(),
            part=part,
            link_value=float("nan") if value is None else value,
            max_terms=self.step_values.max_terms,
        )

    def _per_key_section(
        self,
        step_name: str,
        previous_step: str,
        part: Part[PartTraits] | None,
        derivation: Derivation | None,
        value: float | None = None,
    ) -> Section:
        work = self._row_derivation(step_name, previous_step, part, value)
        lines = tuple(derivation(work) if derivation else work.equation_per_key(lambda c: ()))
        return Section(
            step_name,
            self.step_values.steps[step_name].formula,
            lines,
            self._left_out_remark(work),
            used_steps=self._earlier_steps(step_name),
        )

    def _earlier_steps(self, step_name: str) -> frozenset[str]:
        """The steps that a step of scores or weights works with."""
        if step_name == "scores":
            return frozenset(s for s in self.step_values.steps if s.rpartition("_")[2] in ("q", "k"))
        order = [*self.step_values.score_steps, "weights", "dropout_weights", "mixed_weights"]
        return frozenset(order[: order.index(step_name)])

    def _left_out_remark(self, row_derivation: RowDerivation) -> str:
        rest = [
            c
            for c in row_derivation.all_cells
            if not c.is_hidden and c.index not in {x.index for x in row_derivation.shown_cells}
        ]
        return f"{len(rest)} more keys are made alike" if rest else ""

    def _scores_section(self) -> Section:
        score = self.plan.variant.score
        return self._per_key_section("scores", "scores", score, score.traits.derivation)

    def _link_section(self, link: Link) -> Section:
        return self._per_key_section(link.step, self._previous_step(link.step), link.part, link.derivation, link.value)

    def _mask_section(self, link: Link) -> Section:
        """Which keys are hidden, and by what."""
        name, before = link.step, self._previous_step(link.step)
        cells = self._key_cells(name, before, masked=True)
        shown = [
            c for c in cells if c.is_hidden and (c.index in self.worked_keys or self.step_values.focus.keys is None)
        ]
        if not shown:
            what = "the keys asked for" if self.step_values.focus.keys is not None else f"all {len(cells)} keys"
            return Section(f"{name}: {what} may be seen", is_idle=True)
        lines = [
            Equation(c.label, ([c.before], [c.after]) if False else ([c.after],), self._why_hidden(c)) for c in shown
        ]
        seen = sum(not c.is_hidden for c in cells)
        remark = f"{seen} of {len(cells)} keys may be seen; their scores stay"
        return Section(
            name,
            link.formula,
            _leave_out_middle(lines, _MAX_LINES_PER_VECTOR if not self.step_values.focus.full else len(lines)),
            remark,
        )

    def _why_hidden(self, cell: KeyCell) -> str:
        """The predicate that hides a key, with its numbers: “causal: 2 > 1”."""
        plan, reasons = self.plan, []
        grid = plan.make_grid()

        def at_cell(array: Array) -> Array:
            if array is None:
                return None
            array = as_numpy(array)
            at = (self.indices["b"], self.indices["h"], self.indices["n"], cell.index)
            found = array[tuple(i if n > 1 else 0 for i, n in zip(at, array.shape, strict=True))]
            return found.item()

        names = ("q_pos", "k_pos", "q_idx", "k_idx", "q_seg", "k_seg")
        one = Grid(
            **{name: at_cell(getattr(grid, name)) for name in names},
            key_count=grid.key_count,
            head_count=grid.head_count,
        )
        if plan.mask is not None:
            finer = self.step_values.steps["mask"].intermediates

            def part_holds(part: AnyPart) -> bool:
                return bool(at_cell(finer[str(part)].values))

            if not plan.mask.holds(part_holds):
                for part, held in plan.mask.blame(part_holds):
                    why = part.traits.why_hidden
                    said = why(one, part) if why and not held else _formula_in_numbers(part, one)
                    reasons.append(f"{'not ' * held}{part.name}: {said}")
        if grid.lengths is not None and cell.index >= at_cell(
            np.broadcast_to(grid.lengths, (len(grid.lengths), 1, 1, 1))
        ):
            reasons.append(
                f"padding: {cell.index} ≥ {int(np.ravel(grid.lengths)[self.indices['b'] % len(grid.lengths)])}"
            )
        if plan.problem.bias is not None and at_cell(grid.bias) == -np.inf:
            reasons.append("bias: −∞")
        return ", ".join(dict.fromkeys(reasons))

    # ── weights ──────────────────────────────────────────────────────────────────────────────────
    def _weights_section(self) -> Section:
        part = self.plan.variant.normalizer
        extra: tuple[KeyCell, ...] = ()
        if "sink_weights" in self.step_values.steps:
            m = self.plan.size.keys
            after = self.step_values.number_at("sink_weights", **self.indices)

            def pick_intermediate(intermediate_name: str) -> Any:
                return self.step_values.intermediate_at("weights", intermediate_name, **self.indices, m=m)

            logit = self.step_values.intermediate_at("weights", "sink", **self.indices)
            extra = (KeyCell("sink", m, logit, after, pick_intermediate),)
        work = self._row_derivation("weights", self.step_values.score_steps[-1], part, None, extra)
        step = self.step_values.steps["weights"]
        hidden = [c for c in work.all_cells if c.is_hidden]
        remark = f"{len(hidden)} hidden: weight 0" if hidden else ""
        if not any(not c.is_hidden for c in work.all_cells) or self._sees_no_key(work):
            rule = str(self.plan.variant.empty_rows)
            lines = tuple(Equation(c.label, ([c.after],)) for c in work.shown_cells)
            return Section("weights", step.formula, lines, f"the query sees no key: empty rows are {rule}")
        uses = self._earlier_steps("weights")
        lines = tuple(_equations_of_part(part, work))
        if part.traits.is_distribution:
            total = work.write_sum_over_keys(lambda c: [c.after], lambda c: c.after.value)
            lines = (*lines, Equation("check", (total, [derived_number(sum(c.after.value for c in work.all_cells))])))
        return Section(
            "weights",
            step.formula,
            lines,
            "; ".join(filter(None, (remark, self._left_out_remark(work)))),
            used_steps=uses,
        )

    def _sees_no_key(self, row_derivation: RowDerivation) -> bool:
        return all(c.is_hidden for c in row_derivation.all_cells if c.index < self.plan.size.keys)

    def _statistics_section(self) -> Section:
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
        line = [
            x
            for n in names
            for x in (" · " * (n != names[0]) + said[n] + " ", self.step_values.number_at(n, **self.indices))
        ]
        return Section("", lines=(Equation("", (line,)),), is_idle=True)

    def _context_section(self) -> Section:
        """weight × value, and the sum."""
        name = self._final_weights_step()
        out_name = "head_context" if "head_context" in self.step_values.steps else "context"
        out = self.step_values.vector_at(out_name, **self._cell_indices("head_context"))
        at = self._cell_indices(name)
        lines, rest = [], []
        every = [self.step_values.number_at(name, **at, key=j) for j in range(self.plan.size.keys)]
        values = [self.final_vector("v", j) for j in range(self.plan.size.keys)]
        for j, (w, v) in enumerate(zip(every, values, strict=True)):
            if j in self.worked_keys and (w.value != 0 or not self._is_hidden(j)):
                lines.append(Equation(self._key_label(j), ([w, " × ", v], [scale_vector(w, v)])))
            elif w.value:
                rest.append((w, v))
        if rest:
            total = np.sum([[w.value * x.value for x in v] for w, v in rest], axis=0)
            lines.append(Equation(f"{len(rest)} more", (["…"], [Vector(derived_number(float(x)) for x in total)])))
        if not lines:
            return Section(out_name, "Σ weight × value", (Equation("sum", ([out],)),), "no key has any weight")
        lines.append(Equation("sum", ([], [out])))
        uses = frozenset({*self._earlier_steps("mixed_weights"), "mixed_weights", "v", "present_v"})
        return Section(out_name, "Σ weight × value", tuple(lines), used_steps=uses)

    def _normed_context_section(self) -> Section:
        mixing = self.plan.variant.head_mixing
        at = self._cell_indices("normed_context")
        before, out = (self.step_values.vector_at(name, **at) for name in ("head_context", "normed_context"))
        work = RowDerivation(
            (),
            (),
            lambda word: self.step_values.intermediate_at("normed_context", word, **at),
            q=before,
            output_vector=out,
            part=mixing,
        )
        derivation = mixing.traits.context_derivation
        lines = _fit_on_page(derivation(work) if derivation else (), self.step_values)
        formula = self.step_values.steps["normed_context"].formula
        return Section("normed_context", formula, lines, used_steps=frozenset({"head_context"}))

    def closing_sentence(self) -> str:
        """Where the query looks."""
        name = self._final_weights_step()
        at = self._cell_indices(name)
        w = np.array([self.step_values.number_at(name, **at, key=j).value for j in range(self.plan.size.keys)])
        sink = (
            self.step_values.number_at("sink_weights", **self.indices).value
            if "sink_weights" in self.step_values.steps
            else 0.0
        )
        who = f"“{self.step_values.token('query', self.step_values.focus.query)}”"
        who = f"In head {self.head} {who}" if self.plan.shapes.heads > 1 else who
        if not np.isfinite(w).all():
            return f"{who} has weights that are no numbers."
        if not w.any():
            return f"{who} looks nowhere."
        shares = bool((w >= 0).all()) and abs(w.sum() + sink - 1) < 1e-3
        told = []
        for j in (int(j) for j in np.argsort(-np.abs(w), kind="stable")[:3] if w[j]):
            key = "itself" if self._is_own_token(j) else f"“{self._key_label(j)}”"
            if not shares:
                told.append(f"{key} by {w[j]:.4g}")
            elif w[j] >= 0.005 or not told:
                told.append(f"{100 * w[j]:.0f} % {'to' if sink else 'from'} {key}")
        if not shares:
            return f"{who} weighs {', '.join(told)}."
        if sink:
            return f"{who} gives {', '.join([*told, f'{100 * sink:.0f} % to the sink'])}."
        if "context" in self.step_values.steps:
            told[0] = told[0].replace(" % ", " % of its context ", 1)
        return f"{who} takes {', '.join(told)}."

    def _is_own_token(self, key_index: int) -> bool:
        """Whether a key is the query's own token: only where both come from the same embeddings."""
        p = self.plan.problem
        return (
            p.embeddings is not None
            and p.memory is None
            and key_index == self.step_values.focus.query + self.plan.size.past
        )


def _has_same_numbers(first_section: Section, second_section: Section) -> bool:
    """Whether two sections hold the same numbers."""

    def numbers_of(section: Section) -> list[list[float]]:
        return [
            [n.value for item in expr if isinstance(item, Vector) for n in item]
            for line in section.lines
            for expr in line.sides
        ]

    return (first_section.formula, numbers_of(first_section)) == (second_section.formula, numbers_of(second_section))


def _formula_in_numbers(part: AnyPart, cell_grid: Grid) -> str:
    """A mask's formula with the numbers of one cell."""
    known = {"i": cell_grid.q_pos, "j": cell_grid.k_pos, "I": cell_grid.q_idx, "J": cell_grid.k_idx}
    known |= {o.name: part.option_value(o.name) for o in part.member.options}
    return re.sub(r"\b[A-Za-z-]+\b", lambda m: str(known.get(m[0], m[0])), part.member.formula)


def _equations_of_part(part: Part[PartTraits], row_derivation: RowDerivation) -> Iterable[Equation]:
    """The lines that a part writes of itself; a part that writes none shows its result alone."""
    return part.traits.derivation(row_derivation) if part.traits.derivation else ()


_MERGED_STEPS = {"head_context", "normed_context", "context"}
_MIXED_HEAD_STEPS = ("mixed_weights", "head_context", "normed_context")


def _fit_on_page(lines: Iterable[Equation], step_values: StepValues) -> tuple[Equation, ...]:
    return _leave_out_middle(list(lines), 10**9 if step_values.focus.full else _MAX_LINES_PER_VECTOR)


def _leave_out_middle(lines: Sequence[Equation], max_lines: int) -> tuple[Equation, ...]:
    """The first and last of many lines."""
    if len(lines) <= max_lines:
        return tuple(lines)
    head = max_lines - 4
    return (
        *lines[:head],
        Equation("…", ([f"{len(lines) - head - 2} more lines, made alike; --full shows them"],)),
        *lines[-2:],
    )
