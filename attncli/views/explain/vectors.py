"""The sections of q, k and v: embeddings with positions, projections, norms, rotations, and the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from attncli.derivation import Equation, RowDerivation, Vector
from attncli.parts.projections import derive_linear
from attncli.parts.traits import PartTraits
from attncli.registry import Part
from attncli.text import pluralize
from attncli.views.explain.head_values import HeadValues, letter_of
from attncli.views.explain.page import Section, leave_out_middle


def positioned_embeddings_section(head: HeadValues) -> Section:
    """The query's embedding, and its position added."""
    step_name, part = "positioned_embeddings", head.plan.variant.position
    after = head.step_values.vector_at(step_name, **head.indices)
    derivation = head.vector_derivation(
        step_name, head.step_values.query_row, head.input_vector(), after, part, label="x"
    )
    lines = equations_of_part(part, derivation)
    return Section(step_name, part.formula, leave_out_middle(list(lines), head.focus.max_lines_per_vector))


def projection_sections(head: HeadValues) -> Iterator[Section]:
    """q of this query, k and v of each key: projected, or as they came in."""
    sections = [_projection_section(head, letter) for letter in "qkv" if letter in head.steps]
    if len(sections) == 3 and _has_same_numbers(*sections[1:]) and not head.focus.blank_steps & {"k", "v"}:
        sections[1:] = [dataclasses.replace(sections[1], title="k and v")]
    yield from sections


def _projection_section(head: HeadValues, letter: str) -> Section:
    """q, k or v: the first row is worked out, the others are shown."""
    step = head.steps[letter]
    is_projected = bool({"W", "b"} & set(step.intermediates))
    rows = head.worked_rows(letter)
    width = len(head.row_vector(letter, 0))
    lines: list[Equation] = []
    for n, row in enumerate(rows):
        after, label = head.row_vector(letter, row), head.row_label(letter, row)
        if is_projected and (n == 0 or head.focus.full):
            x = projected_vector(head, letter, row)
            lines.append(Equation("x" if letter == "q" else f"x of {label}", ([x],)))
            derivation = head.vector_derivation(
                letter, row, x, after, first_column=_head_index(head, letter, row) * width
            )
            lines += leave_out_middle(list(derive_linear(derivation)), head.focus.max_lines_per_vector)
        lines.append(Equation(label, ([after],)))
    all_worked = not is_projected or len(rows) == 1 or head.focus.full
    remark = "" if all_worked else "the first is worked out; the others are made alike"
    return Section(letter, step.formula, tuple(lines), remark)


def projected_vector(head: HeadValues, letter: str, row: int) -> Vector:
    """The vector that q, k or v of one token is projected from, as an input."""
    x = head.step_values.intermediate_at(letter, "x", b=head.indices["b"], n=row)
    return Vector(number._replace(step="") for number in x)


def _head_index(head: HeadValues, step_name: str, row: int) -> int:
    """Which of the heads side by side a row of q, k or v belongs to."""
    return head.row_indices(step_name, row)["head" if letter_of(step_name) == "q" else "kv_head"]


def norm_or_position_section(head: HeadValues, step_name: str, part: Part[PartTraits]) -> Section:
    """A norm or a position on the query or on the keys: the first row is worked out, the others are shown."""
    letter = letter_of(step_name)
    earlier = head.steps_of(letter)
    earlier = earlier[: earlier.index(step_name)]
    intermediates = head.steps[step_name].intermediates
    lines: list[Equation] = []
    for n, row in enumerate(head.worked_rows(letter)):
        indices = head.row_indices(step_name, row)
        before, after = head.step_values.vector_at(earlier[-1], **indices), head.row_vector(step_name, row)
        if n == 0 or head.focus.full:
            has_normed = "normed" in intermediates
            normed = head.step_values.intermediate_at(step_name, "normed", **indices) if has_normed else after
            first_column = _head_index(head, step_name, row) * len(before)
            derivation = head.vector_derivation(step_name, row, before, normed, part, first_column=first_column)
            written = list(equations_of_part(part, derivation))
            lines += leave_out_middle(written, head.focus.max_lines_per_vector)
            if "gain" in intermediates:
                gain = head.step_values.intermediate_at(step_name, "gain", **indices)
                lines.append(Equation("× gain", ([normed, " × ", gain], [after])))
        lines.append(Equation(head.row_label(letter, row), ([after],)))
    return Section(step_name, head.steps[step_name].formula, tuple(lines), used_steps=frozenset(earlier))


def past_section(head: HeadValues, letter: str) -> Section:
    """The k or v vectors that were in the cache."""
    step_name, past = f"present_{letter}", head.plan.size.past
    keys = [j for j in head.worked_keys if j < past]
    lines = [Equation(head.key_label(j), ([head.row_vector(step_name, j)],)) for j in keys]
    remark = f"the {pluralize(past, 'key of the past stands', 'keys of the past stand')} before the new ones"
    return Section(step_name, head.steps[step_name].formula, tuple(lines), remark)


def equations_of_part(part: Part[PartTraits], row_derivation: RowDerivation) -> Iterable[Equation]:
    """The equations that a part writes of its step; none if it declares no derivation."""
    return part.traits.derivation(row_derivation) if part.traits.derivation else ()


def _has_same_numbers(first_section: Section, second_section: Section) -> bool:
    """Whether the vectors of two sections hold the same numbers, made by the same formula."""

    def numbers_of(section: Section) -> list[list[float]]:
        return [
            [number.value for item in side if isinstance(item, Vector) for number in item]
            for line in section.lines
            for side in line.sides
        ]

    return (first_section.formula, numbers_of(first_section)) == (second_section.formula, numbers_of(second_section))
