"""The gradients of W, of its offset and of the embeddings, all heads together. `input_gradient_sections` is the entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attncli.derivation import Equation, Vector, derived_number, scale_vector
from attncli.types import NumpyArray
from attncli.views.explain.backward import derived_vector
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.page import Section
from attncli.views.explain.vectors import projected_vector

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients


def input_gradient_sections(head: HeadValues, gradients: Gradients) -> Iterator[Section]:
    """What reaches W and the embeddings; `head` says which keys are shown."""
    problem, query = head.plan.problem, head.focus.query
    if problem.embeddings is None:
        return
    for letter in "qkv":
        if f"w_{letter}" in gradients.parameters and letter in gradients.steps:
            yield from _projection_sections(head, gradients, letter)
    made_of_embedding = "qkv" if problem.memory is None else "q"
    letters = [letter for letter in made_of_embedding if letter in gradients.embeddings]
    yield _token_section(head, gradients, "the embedding", "x", letters, query, head.step_values.token("query", query))
    if problem.memory is not None:
        letters = [letter for letter in "kv" if letter in gradients.embeddings]
        for j in head.worked_keys:
            yield _token_section(head, gradients, "the memory", "m", letters, j, head.key_label(j))


def _projection_sections(head: HeadValues, gradients: Gradients, letter: str) -> Iterator[Section]:
    """The gradients of W_q, W_k or W_v and of its offset: the share of one token, then the sum over all."""
    is_of_query = letter == "q" or head.plan.problem.memory is None
    row = head.focus.query if is_of_query else 0
    token = head.step_values.token("query", row) if is_of_query else head.key_label(row)
    x = projected_vector(head, letter, row)
    dy = derived_vector(_concatenated_gradient(head, gradients, letter, row))
    shown_rows = range(min(len(x), head.step_values.max_terms))
    lines = [Equation(f"d{letter} of {token}", ([dy],))]
    lines += [Equation(f"x[{r}] × d{letter}", ([x[r], " × ", dy], [scale_vector(x[r], dy)])) for r in shown_rows]
    lines += [Equation(f"dW[{r}]", ([derived_vector(gradients.parameters[f"w_{letter}"][r])],)) for r in shown_rows]
    formula = f"dW_{letter} = Σᵢ xᵢᵀ d{letter}ᵢ"
    yield Section(f"gradient of w_{letter}", formula, tuple(lines), "the share of one token, then dW of all")
    offset_gradient = gradients.parameters.get(f"b_{letter}")
    if offset_gradient is not None:
        line = Equation(f"db_{letter}", ([derived_vector(offset_gradient)],))
        yield Section(f"gradient of b_{letter}", f"Σᵢ d{letter}ᵢ", (line,))


def _token_section(
    head: HeadValues, gradients: Gradients, subject: str, symbol: str, letters: Sequence[str], row: int, token: str
) -> Section:
    """What reaches one token's vector through each of q, k and v that is made of it."""
    shares = {letter: derived_vector(gradients.embeddings[letter][head.indices["b"], row]) for letter in letters}
    lines = [Equation(f"through {letter}", ([share],)) for letter, share in shares.items()]
    if len(shares) > 1:
        columns = zip(*([number.value for number in share] for share in shares.values()), strict=True)
        total = Vector(derived_number(sum(column)) for column in columns)
        side: list[str | Vector] = []
        for share in shares.values():
            side += [" + ", share] if side else [share]
        lines.append(Equation(f"d{symbol}", (side, [total])))
    terms = [f"d{letter} W_{letter}ᵀ" if f"w_{letter}" in gradients.parameters else f"d{letter}" for letter in letters]
    formula = f"d{symbol} = {' + '.join(terms)}"
    return Section(f"gradient of {subject}", formula, tuple(lines), f"of {token}, all heads")


def _concatenated_gradient(head: HeadValues, gradients: Gradients, letter: str, row: int) -> NumpyArray:
    """The gradient of a token's q, k or v, heads side by side."""
    axes = head.steps[letter].axes
    indices = {"batch": head.indices["b"], "query": row, "key": row, "new_key": row}
    return np.ravel(gradients.steps[letter][tuple(indices.get(axis, slice(None)) for axis in axes)])
