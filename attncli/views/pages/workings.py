"""How the numbers of a small problem come about: the lines of `attn explain` for every query, and what a page needs to follow
a number that is changed. Entries: `PlannedWorkings`, and `PlannedReasons` for problems of any size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attncli.output_formats import RenderOptions
from attncli.plan import Plan
from attncli.plan.head_shapes import kv_head_of
from attncli.types import Attention, Json, NumpyArray
from attncli.validation.fields import as_numpy
from attncli.views.explain import ExplanationScope, Worksheet, explain_query, render_page
from attncli.views.explain.head_values import MAX_KEYS_WORKED_OUT, HeadValues
from attncli.views.explain.reasons import reasons_of_steps
from attncli.views.explain.rendered_page import RenderedSection
from attncli.views.explain.step_values import StepValues

MAX_EXPLAINED_QUERIES = 128  # of all heads and batch items together
MAX_EDITABLE_TOKENS = 12
_PLAIN_STEPS = ("q", "k", "v", "scores", "weights", "head_context", "context", "output")


def are_workings_small(plan: Plan) -> bool:
    """Return whether a page can hold how every number of a problem comes about."""
    query_count = (plan.size.batch or 1) * plan.shapes.heads * plan.size.queries
    return query_count <= MAX_EXPLAINED_QUERIES and plan.size.keys <= MAX_KEYS_WORKED_OUT


@dataclass(frozen=True)
class PlannedReasons:
    """Why each step of a problem is taken."""

    plan: Plan

    def to_record(self, precision: int) -> Json:
        """Return the sentences of each step, by its name; none of them has a number of that precision."""
        return {"reasons": {name: reasons_of_steps([name], self.plan) for name in self.plan.steps}}


@dataclass(frozen=True)
class PlannedWorkings:
    """The workings of one problem, made when a view asks for them."""

    plan: Plan  # dense, of every query, and it keeps every step
    attention: Attention  # its result, computed while intermediates were recorded

    def to_record(self, precision: int) -> Json:
        """Return the explanations by batch item, head and query, and what may be changed, or why nothing may.

        Args:
            precision: digits after the point.
        """
        obstacle = self._find_obstacle()
        return PlannedReasons(self.plan).to_record(precision) | {
            "explanations": [
                [
                    [self._explain(batch, head, query, precision) for query in range(self.plan.size.queries)]
                    for head in range(self.plan.shapes.heads)
                ]
                for batch in range(self.plan.size.batch or 1)
            ],
            "inputs": None if obstacle else self._describe_inputs(),
            "why_no_inputs": obstacle,
        }

    def _explain(self, batch: int, head: int, query: int, precision: int) -> Json:
        """Return the sections of one query in one head, as `attn explain --why` prints them, and where the query looks."""
        scope = ExplanationScope(query=query, batch=batch, heads=(head,), has_reasons=True)
        explanation = explain_query(self.plan, self.attention, scope)
        page = render_page(
            explanation, RenderOptions(precision=precision), Worksheet(), self.attention.dtype, full=False
        )
        values = HeadValues(StepValues(self.plan, self.attention, scope), head)
        keys = {values.key_label(j): j for j in range(self.plan.size.keys)}
        sections = [_describe_section(rendered, keys) for rendered in page.sections if not rendered.section.is_idle]
        return {"sections": sections, "closing": page.closing}

    # ── what may be changed ──────────────────────────────────────────────────────────────────────
    def _find_obstacle(self) -> str:
        """Return why the page cannot follow a number that is changed; empty: it can."""
        plan, variant = self.plan, self.plan.variant
        problem = plan.problem
        unusual = [
            name
            for name, is_plain in {
                "more than one source of keys": problem.memory is None and problem.past is None,
                f"the score {variant.score}": str(variant.score) == "dot",
                f"the normaliser {variant.normalizer}": str(variant.normalizer) == "softmax",
                f"the position {variant.position}": variant.position.is_none,
                f"the norm {variant.qk_norm}": variant.qk_norm.is_none,
                f"the sink {variant.sink}": variant.sink.is_none,
                f"the dropout {variant.dropout}": variant.dropout.is_none,
                f"the head mixing {variant.head_mixing}": variant.head_mixing.is_none,
                f"the dtype {variant.dtype}": variant.dtype == "float64",
                "numbers that are not finite": all(np.isfinite(x).all() for x in self._input_arrays.values()),
                **{f"the link {link.name}": link.is_mask or link.value is not None for link in plan.chain},
            }.items()
            if not is_plain
        ]
        if unusual:
            return f"a page does not compute {unusual[0]}"
        if max(plan.size.queries, plan.size.keys) > MAX_EDITABLE_TOKENS:
            return f"a page computes problems of at most {MAX_EDITABLE_TOKENS} tokens"
        return ""

    @cached_property
    def _steps(self) -> dict[str, NumpyArray]:
        return {step.name: as_numpy(step.values) for step in self.attention}

    @cached_property
    def _input_arrays(self) -> dict[str, NumpyArray]:
        """What came in, which may be changed: x, or q, k and v; each (b, h or 1, n, d)."""
        embeddings = self.plan.problem.embeddings
        if embeddings is None:
            return {name: self._with_batch_and_heads(name) for name in "qkv" if name in self._steps}
        return {"x": _with_axes(as_numpy(embeddings).astype(np.float64), 3)[:, None]}

    def _describe_inputs(self) -> Json:
        """Return every number that the problem's chain is computed from, and its links."""
        plan, variant = self.plan, self.plan.variant
        heads, kv_heads = plan.shapes.heads, plan.shapes.kv_heads
        matrices = {
            letter: {"w": self._steps[f"w_{letter}"].tolist(), "b": self._step_as_list(f"b_{letter}")}
            for letter in "qkvo"
            if f"w_{letter}" in self._steps
        }
        return {
            "arrays": {name: values.tolist() for name, values in self._input_arrays.items()},  # (b, h or 1, n, d)
            "matrices": matrices,
            "heads": heads,
            "kv_heads": kv_heads,
            "kv_of_head": [kv_head_of(head, heads, kv_heads, str(variant.kv_map)) for head in range(heads)],
            "links": [{"step": link.step, "scale": None if link.is_mask else link.value} for link in plan.chain],
            "visible": self._find_visible().tolist(),  # (b, h, n, m)
            "empty_rows": variant.empty_rows,
            "steps": [*_PLAIN_STEPS, *(link.step for link in plan.chain)],
        }

    def _step_as_list(self, name: str) -> object:
        return self._steps[name].tolist() if name in self._steps else None

    def _with_batch_and_heads(self, name: str) -> NumpyArray:
        """The values of q, k or v on the axes batch, head, token and dim, whichever of them the step has."""
        axes = next(step.axes for step in self.attention if step.name == name)
        values = self._steps[name]
        if axes[0] != "batch":
            values = values[None]
        return values if values.ndim == 4 else values[:, None]

    def _find_visible(self) -> NumpyArray:
        plan = self.plan
        lengths = (plan.size.batch or 1, plan.shapes.heads, plan.size.queries, plan.size.keys)
        visible = np.ones(lengths, dtype=bool)
        hidden_keys = self.attention.hidden_keys
        if hidden_keys is not None:
            for batch, head in np.ndindex(lengths[:2]):
                visible[batch, head] = ~hidden_keys.find("masked_scores", batch, head, range(lengths[2]))
        return visible


def _with_axes(values: NumpyArray, count: int) -> NumpyArray:
    """The same values with axes of length 1 before them, so that there are so many."""
    return values.reshape((1,) * (count - values.ndim) + values.shape)


def _describe_section(rendered: RenderedSection, keys: dict[str, int]) -> Json:
    """Return one section: its lines, and which key each of them is about."""
    section = rendered.section
    return {
        "title": section.title,
        "formula": section.formula,
        "remark": section.remark,
        "why": section.why,
        "lines": [
            {
                "label": line.label,
                "equation": line.equation,
                "remark": line.remark,
                "rounded": line.is_rounded,
                "key": keys.get(line.label, keys.get(line.label.rpartition(": ")[0])),  # `cat`, or `cat: k W_k`
            }
            for line in rendered.lines
        ],
    }
