"""The box above a worksheet: what came in, from which every blank can be worked out. `inputs_section` is the entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attncli.derivation import Equation, Number, Vector
from attncli.types import Array
from attncli.validation.fields import as_numpy
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.page import Section
from attncli.views.explain.vectors import head_name, projected_head, projected_vector


def inputs_section(heads: Sequence[HeadValues]) -> Section:
    """The embeddings of the tokens on the sheet, the projection of each head, and the arrays that the score takes."""
    lines = (*_embedding_lines(heads[0]), *_projection_lines(heads), *_score_lines(heads[0]))
    return Section("Given", lines=lines, is_numbered=False)


def _embedding_lines(head: HeadValues) -> Iterator[Equation]:
    """x of the query, and of every key that is not of the past: as it came in, or of a memory with its positions."""
    problem = head.plan.problem
    if problem.embeddings is None:
        return
    query, new_keys = head.focus.query, head.worked_rows("k")
    if problem.memory is None:
        for row in sorted({query, *new_keys}):
            yield Equation(f"x of {head.row_label('x', row)}", ([head.input_vector(row)],))
        return
    yield Equation(f"x of {head.step_values.token('query', query)}", ([head.input_vector(query)],))
    for row in new_keys:
        yield Equation(f"x of {head.row_label('k', row)}", ([projected_vector(head, "k", row)],), "memory")


def _projection_lines(heads: Sequence[HeadValues]) -> Iterator[Equation]:
    """W and b of q, k and v, each the columns of one head; and those of the output."""
    for letter in "qkv":
        if letter not in heads[0].steps:
            continue
        width, written = len(heads[0].row_vector(letter, 0)), set[int]()
        for head in heads:
            index = projected_head(head, letter)
            if index not in written:
                written.add(index)
                name = head_name(head, letter)
                columns = slice(index * width, (index + 1) * width)
                yield from _linear_lines(head, letter, letter, f", {name}" if name else "", columns)
    if "output" in heads[0].steps and "output" in heads[0].focus.blank_steps:
        yield from _linear_lines(heads[0], "output", "o", "", slice(None))


def _linear_lines(
    head: HeadValues, step_name: str, letter: str, of_head: str, columns: slice[int, int, None]
) -> Iterator[Equation]:
    """The rows of W below each other, and b."""
    intermediates = head.steps[step_name].intermediates
    if "W" in intermediates:
        rows = head.step_values.intermediate_at(step_name, "W")
        yield from _matrix_lines(f"W_{letter}{of_head}", [row[columns] for row in rows])
    if "b" in intermediates:
        yield from _matrix_lines(f"b_{letter}{of_head}", [head.step_values.intermediate_at(step_name, "b")[columns]])


def _matrix_lines(label: str, rows: Sequence[Sequence[Number]]) -> Iterator[Equation]:
    for i, row in enumerate(rows):
        yield Equation("" if i else label, ([Vector(row)],))


def _score_lines(head: HeadValues) -> Iterator[Equation]:
    """The learned arrays that the score takes from the file."""
    for parameter in head.plan.variant.score.member.parameters:
        array = head.plan.problem.parameters.get(parameter.name)
        if array is not None:
            yield from _matrix_lines(parameter.name, _as_rows(array))


def _as_rows(array: Array) -> list[Vector]:
    """A matrix as its rows, and a vector as one."""
    values = as_numpy(array)
    return [Vector(Number(float(x)) for x in row) for row in values.reshape(-1, values.shape[-1])]
