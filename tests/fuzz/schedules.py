"""Random variants on random problems, dense, in tiny tiles, by the fused kernel and with `--at query`: the same to rounding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import attncli
from attncli.errors import AttnError
from attncli.pipeline import compute
from attncli.request import OutputOptions, VariantRequest
from attncli.types import Attention
from attncli.variant import CHOICES, Variant
from tests.core.tiles import in_tiles
from tests.fuzz.harness import Outcome, describe_exception
from tests.fuzz.part_language import draw_expression
from tests.helpers import draw_normal
from tests.laws.problems import ONE_CHOICE, D, problem_for

UNITS = 2**-40  # of the largest number of a step: four thousand times float64's rounding
STEPS = ("v", "scores", "weights", "log_sum_exp", "visible_keys", "context")
# What jumps where two numbers are equal but for rounding, or divides by a sum that may be next to nothing.
JUMPING = ("hardmax", "topk", "sum", "none")


def draw_variant(draw: random.Random) -> Variant:
    """Draw a few choices, each from all that there are.

    Raises:
        OptionError: they cannot be together.
    """
    choices: dict[str, Any] = {"heads": draw.choice((1, 2, 3))}
    for _ in range(draw.choice((1, 2, 3))):
        choices |= draw.choice(ONE_CHOICE)
    if draw.random() < 0.7:
        choices["mask"] = draw_expression(draw, 2)
    choices["empty_rows"] = draw.choice(("zero", "zero", "uniform"))
    choices["seed"] = 1
    return Variant(**choices)


def mismatch(one: Attention, other: Attention, rows: list[int] | None = None) -> str:
    """Say which step differs beyond rounding; empty: none."""
    scale = max(np.nanmax(np.abs(np.where(np.isfinite(step.values), step.values, 0)), initial=1.0) for step in one)
    for step in other:
        values = np.asarray(one[step.name].values)
        if rows is not None:
            values = np.take(values, rows, step.axes.index("query")) if "query" in step.axes else values
        if not np.allclose(step.values, values, rtol=UNITS, atol=UNITS * scale, equal_nan=True):
            return f"{step.name} differs by {np.nanmax(np.abs(np.asarray(step.values) - values)):.3g}"
    return ""


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield whether the schedules agree on the problems of some indices."""
    for i in indices:
        draw = random.Random(f"{seed} {i}")
        kind, description = "variant", ""
        try:
            variant = draw_variant(draw)
            changed = {
                name: value for name, value in variant.describe().items() if value != Variant().describe().get(name)
            }
            description = repr(changed)
            problem = problem_for(str(variant.mask), seed=i % 97, n=7, variant=variant)
            if draw.random() < 0.2:
                fields = {name: value for name, value in vars(problem).items() if value is not None}
                batched = np.stack([fields["embeddings"], draw_normal(i % 89, 7, D)])
                problem = attncli.Problem(**(fields | {"embeddings": batched}))
            names = ["context", *draw.sample(STEPS, draw.randrange(3))]
            if {variant.normalizer.name} & {*JUMPING}:
                names = ["v", "scores"]
            dense = attncli.attend(problem, variant.replace(schedule="dense"), names)
            for kind in ("tiles", "fused", "--at query"):
                rows = None
                if kind == "tiles":
                    other = in_tiles(problem, variant, names, rows=draw.choice((1, 2, 3)), top=None)
                elif kind == "fused":
                    try:
                        other = attncli.attend(problem, variant.replace(schedule="fused"), names)
                    except AttnError as error:
                        if error.code == "not-fused":
                            continue
                        raise
                else:
                    rows = [draw.randrange(7)]
                    choices = {name: text for name, text in variant.describe().items() if name in (*CHOICES, "name")}
                    shown = OutputOptions(only=tuple(name for name in names if name != "v"), at=(f"query={rows[0]}",))
                    other = compute(problem, VariantRequest(choices), shown)
                if found := mismatch(dense, other, rows):
                    yield Outcome(kind, "", "wrong", f"{kind}: {found}: {description}", description.encode())
                    break
            else:
                yield Outcome("variant", content=description.encode())
        except AttnError as error:
            yield Outcome("variant", error.code, content=description.encode())
        except Exception as error:
            yield Outcome(kind, "", "bug", describe_exception(error) + description, description.encode())
