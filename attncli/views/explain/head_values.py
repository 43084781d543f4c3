"""One query in one head: its vectors and cells, the labels of its keys, and what parts write their equations with.

`HeadValues` is what every section of the page, forwards and back, takes its numbers from.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from attncli.derivation import DERIVED, GetIntermediate, IntermediateNumbers, KeyCell, Number, RowDerivation, Vector
from attncli.parts.traits import PartTraits
from attncli.plan.head_shapes import kv_head_of
from attncli.registry import Part
from attncli.validation.fields import as_numpy
from attncli.views.explain.step_values import StepValues

MAX_KEYS_WORKED_OUT = 16  # keys worked one by one before those of the smallest weights are left out
_LABELS_OF_LINES = frozenset(("largest", "sum", "check", "Σ e^s", "τ", "λ"))  # that stand among those of keys
_WEIGHTS_STEPS = ("weights", "dropout_weights", "mixed_weights")  # in the order in which they follow each other
_MIXED_HEAD_STEPS = ("mixed_weights", "head_context", "normed_context")  # their head axis counts mixed heads


def letter_of(step_name: str) -> str:
    """The letter that a step of vectors ends in: `positioned_q` → `q`."""
    return step_name.rpartition("_")[2]


class HeadValues:
    """The numbers of one query in one head."""

    def __init__(self, step_values: StepValues, head: int) -> None:
        self.step_values, self.plan, self.head = step_values, step_values.plan, head
        self.focus, self.steps = step_values.focus, step_values.steps
        shapes, kv_map = self.plan.shapes, self.plan.variant.kv_map
        mixing = self.plan.variant.head_mixing
        mixed_head = mixing.traits.mixed_head
        self.mixed_head = mixed_head(mixing, head, shapes.heads) if mixed_head else head
        self.v_head = kv_head_of(self.mixed_head, shapes.mixed_heads, shapes.v_heads, kv_map)
        self.indices = {  # by the axes of steps, and by the letters of the axes of intermediates
            "batch": self.focus.batch,
            "b": self.focus.batch,
            "query": step_values.query_row,
            "n": step_values.query_row,
            "head": head,
            "h": head,
            "kv_head": kv_head_of(head, shapes.heads, shapes.kv_heads, kv_map),
        }

    @cached_property
    def mask_steps(self) -> frozenset[str]:
        """The steps of the chain that hide keys."""
        return frozenset(link.step for link in self.plan.chain if link.is_mask)

    # ── which steps there are ────────────────────────────────────────────────────────────────────
    def steps_of(self, letter: str) -> list[str]:
        """The steps of queries, keys or values in order: `q` → q, normed_q, positioned_q."""
        return [name for name in self.steps if letter_of(name) == letter]

    @cached_property
    def final_weights_step(self) -> str:
        """The weights that values are summed with."""
        return next(name for name in reversed(_WEIGHTS_STEPS) if name in self.steps)

    def previous_step(self, step_name: str) -> str:
        """The step whose cells a step of scores or weights is made from."""
        order = [*self.step_values.score_steps, *(name for name in _WEIGHTS_STEPS if name in self.steps)]
        return order[max(order.index(step_name) - 1, 0)]

    def earlier_steps(self, step_name: str) -> frozenset[str]:
        """The steps whose numbers stand in the lines of a step of scores or weights."""
        if step_name == "scores":
            return frozenset(self.steps_of("q") + self.steps_of("k"))
        order = [*self.step_values.score_steps, *_WEIGHTS_STEPS]
        return frozenset(order[: order.index(step_name)])

    # ── vectors ──────────────────────────────────────────────────────────────────────────────────
    def row_indices(self, step_name: str, row: int) -> dict[str, int]:
        """The indices of one row of a step; it counts queries or keys, whichever the step has."""
        indices = {**self.indices, "query": row, "n": row, "key": row, "new_key": row}
        if letter_of(step_name) == "v":
            indices["kv_head"] = self.v_head
        if letter_of(step_name) in ("k", "v"):
            indices["h"] = indices["kv_head"]
        return indices

    def row_vector(self, step_name: str, row: int) -> Vector:
        """One row of a step of vectors."""
        return self.step_values.vector_at(step_name, **self.row_indices(step_name, row))

    def final_query_vector(self) -> Vector:
        """The query that keys are compared with: from its last step."""
        return self.row_vector(self.steps_of("q")[-1], self.step_values.query_row)

    def final_vector(self, letter: str, key_index: int) -> Vector:
        """The final k or v vector of a key: from its last step, or from the cache if it is of the past."""
        past = self.plan.size.past
        if key_index < past:
            return self.past_vector(letter, key_index)
        steps = [name for name in self.steps_of(letter) if not name.startswith("present")]
        return self.row_vector(steps[-1], key_index - past)

    def past_vector(self, letter: str, key_index: int) -> Vector:
        """The k or v vector of a key of the past, which came in."""
        return Vector(Number(number.value) for number in self.row_vector(f"present_{letter}", key_index))

    def input_vector(self, token: int) -> Vector:
        """The embedding of one of the tokens that attend, as it came in."""
        embeddings = as_numpy(self.plan.problem.embeddings)
        row = embeddings[self.focus.batch, token] if embeddings.ndim == 3 else embeddings[token]
        return Vector(Number(float(x)) for x in row)

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────
    @cached_property
    def worked_keys(self) -> list[int]:
        """The keys worked one by one: those asked for, or all while they are few, or those of the largest weights."""
        key_count = self.plan.size.keys
        if self.focus.keys is not None:
            return list(self.focus.keys)
        if key_count <= MAX_KEYS_WORKED_OUT or self.focus.shows_every_key:
            return list(range(key_count))
        weights = np.abs([self.cell_number(self.final_weights_step, j).value for j in range(key_count)])
        return sorted(np.argsort(-weights, kind="stable")[: MAX_KEYS_WORKED_OUT // 2].tolist())

    def worked_rows(self, letter: str) -> list[int]:
        """The rows of q, k or v that are shown: this query's, or those of the worked keys that are not of the past."""
        if letter == "q":
            return [self.step_values.query_row]
        past = self.plan.size.past
        return [j - past for j in self.worked_keys if j >= past]

    def row_label(self, letter: str, row: int) -> str:
        """`q` for the query, and its key's label for a row of k or v."""
        return letter if letter == "q" else self.key_label(row + self.plan.size.past)

    def key_label(self, key_index: int) -> str:
        """The key's token; one that stands more than once, or is called like a line, has its index before it."""
        token = self.step_values.token("key", key_index)
        is_ambiguous = self.step_values.token_counts[token] > 1 or token in _LABELS_OF_LINES
        return f"{key_index} {token}" if is_ambiguous else token

    def is_hidden(self, key_index: int) -> bool:
        """Whether the mask hides a key from the query."""
        if "mask" not in self.steps:
            return False
        axes, values = self.steps["mask"].axes, self.step_values.values["mask"]
        indices = self.indices | {"key": key_index}
        lengths = zip(axes, values.shape, strict=True)
        return not values[tuple(indices[axis] if length > 1 else 0 for axis, length in lengths)]

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    def cell_indices(self, step_name: str) -> dict[str, int]:
        """The indices of this query in a step of scores, weights or contexts."""
        if step_name not in _MIXED_HEAD_STEPS:
            return self.indices
        return self.indices | {"head": self.mixed_head, "h": self.mixed_head}

    def weight_number(self, step_name: str, key_index: int) -> Number:
        """One cell of a step of weights."""
        return self.step_values.number_at(step_name, **self.cell_indices(step_name), key=key_index)

    def cell_number(self, step_name: str, key_index: int) -> Number:
        """One cell of scores or weights; where an earlier step of the chain, left blank, says the same, it is that step's.

        A step that is left blank itself keeps its own gaps, but for the mask, which leaves scores as they are.
        """
        cell = self.weight_number(step_name, key_index)
        score_steps = self.step_values.score_steps
        if step_name not in score_steps:
            return cell
        if step_name in self.focus.blank_steps and step_name not in self.mask_steps:
            return cell
        blank = cell
        for earlier in reversed(score_steps[: score_steps.index(step_name)]):
            earlier_cell = self.step_values.number_at(earlier, **self.indices, key=key_index)
            if earlier_cell.value != cell.value:
                break
            if earlier in self.focus.blank_steps:
                blank = earlier_cell
        return blank

    def key_cells(self, step_name: str, previous_step: str, *, masked: bool) -> tuple[KeyCell, ...]:
        """Every key before the query, with its cells of a step and of the one before."""
        query_position, key_positions = self._positions()
        indices = self.cell_indices(step_name)
        mixes_heads = step_name in ("mixed_scores", "mixed_weights")

        def get_intermediates(key: int) -> GetIntermediate:
            get = self.step_values.intermediates_at(step_name, **indices, m=key)
            return self._cells_of_other_heads(get, previous_step, key) if mixes_heads else get

        return tuple(
            KeyCell(
                label=self.key_label(j),
                index=j,
                value_before=self.cell_number(previous_step, j),
                value_after=self.cell_number(step_name, j),
                get_intermediate=get_intermediates(j),
                k=self.final_vector("k", j) if step_name == "scores" else Vector(),
                query_position=query_position,
                key_position=key_positions[j],
                is_hidden=masked and self.is_hidden(j),
            )
            for j in range(self.plan.size.keys)
        )

    def _cells_of_other_heads(
        self, get_intermediate: GetIntermediate, previous_step: str, key_index: int
    ) -> GetIntermediate:
        """The intermediates of a step that mixes heads, as cells of the step before wherever they are that step's numbers."""
        by_value: dict[float, Number] = {}
        for head in range(self.plan.shapes.heads):
            cell = self.step_values.number_at(previous_step, **(self.indices | {"head": head}), key=key_index)
            by_value.setdefault(cell.value, cell)

        def to_cell(value: IntermediateNumbers) -> IntermediateNumbers:
            if isinstance(value, Number):
                return by_value.get(value.value, value) if value.step == DERIVED else value
            return Vector(map(to_cell, value))

        return lambda name: to_cell(get_intermediate(name))

    def _positions(self) -> tuple[int | None, list[int]]:
        """The position of the query, if it has one, and those of all keys."""
        q_pos, k_pos = self.plan.q_pos, np.atleast_2d(self.plan.k_pos)  # (n) or (b, n); (b or 1, m)
        batch = self.focus.batch
        key_positions = [int(position) for position in k_pos[batch % len(k_pos)]]
        if q_pos is None:
            return None, key_positions
        row = q_pos if q_pos.ndim == 1 else q_pos[batch % len(q_pos)]
        return int(row[self.focus.query]), key_positions

    # ── what parts write with ────────────────────────────────────────────────────────────────────
    def row_derivation(
        self,
        step_name: str,
        previous_step: str,
        part: Part[PartTraits] | None,
        link_value: float | None = None,
        extra_cells: tuple[KeyCell, ...] = (),
    ) -> RowDerivation:
        """The query's row of a step of scores or weights, key by key."""
        order = self.step_values.score_steps
        follows_mask = step_name not in order or any(
            order.index(mask_step) < order.index(step_name) for mask_step in self.mask_steps
        )
        cells = self.key_cells(step_name, previous_step, masked=follows_mask)
        return RowDerivation(
            shown_cells=(*(cells[j] for j in self.worked_keys), *extra_cells),
            all_cells=(*cells, *extra_cells),
            get_intermediate=self.step_values.intermediates_at(step_name, **self.cell_indices(step_name)),
            q=self.final_query_vector(),
            part=part,
            link_value=float("nan") if link_value is None else link_value,
            max_terms=self.focus.max_entry_terms if step_name == "scores" else self.focus.max_key_terms,
        )

    def vector_derivation(
        self,
        step_name: str,
        row: int,
        before: Vector,
        after: Vector,
        part: Part[PartTraits] | None = None,
        *,
        label: str = "",
        first_column: int = 0,
    ) -> RowDerivation:
        """One row of a step of vectors, entry by entry."""
        indices = self.row_indices(step_name, row)
        return RowDerivation(
            get_intermediate=self.step_values.intermediates_at(step_name, **indices),
            q=before,
            output_vector=after,
            part=part,
            max_terms=self.step_values.max_terms,
            label=label or letter_of(step_name),
            first_column=first_column,
        )
