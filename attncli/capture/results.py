"""Some steps of a layer as a result, such as its weights: as `compute` gives them, with the model's own figures where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attncli.capture.problems import CapturedLayer
from attncli.pipeline import compute
from attncli.request import OutputOptions, VariantRequest
from attncli.types import Attention


def make_result(layer: CapturedLayer, steps: Sequence[str]) -> Attention:
    """Compute steps of a layer; the weights, the context and the output are those that the model gave, where it gave them.

    Raises:
        InputError: the layer has no such step.
    """
    result = compute(layer.problem, VariantRequest(), OutputOptions(only=tuple(steps)))
    own = {name: entry["values"] for name, entry in layer.problem.expected.items()}
    return replace(
        result, steps=tuple(replace(step, values=own[step.name]) if step.name in own else step for step in result.steps)
    )
