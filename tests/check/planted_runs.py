"""Trying the wrong kernels of `planted` and `planted_inputs`: `python -m tests.check.planted_runs --only tile --way 'stored as float16'`."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.check import planted_inputs, planted_layouts  # noqa: F401  register the other parts
from tests.check.planted import PLANTED, Planted


@dataclass(frozen=True)
class Way:
    """In which dtype the inputs and the figures are stored, and whether the kernel computes in it."""

    dtype: str = "float64"
    is_computed: bool = False
    decimals: int | None = None

    @property
    def tolerance(self) -> float:
        """By what share a number that is solved for may be off."""
        return 0.01 if "16" in self.dtype else 0.001

    def inputs(self, seed: int) -> Inputs:
        return Inputs(seed, self.dtype, "float64" if not self.is_computed else self.dtype)

    def figures(self, x: np.ndarray) -> np.ndarray | torch.Tensor:
        return narrow(x, self.dtype) if self.decimals is None else np.round(x, self.decimals)


class Inputs(np.random.Generator):
    """Draws normal numbers that a dtype holds, in the dtype in which a kernel is to compute."""

    def __init__(self, seed: int, dtype: str, computed_in: str) -> None:
        super().__init__(np.random.PCG64(seed))
        self.dtype, self.computed_in = dtype, computed_in

    def standard_normal(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return widen(narrow(super().standard_normal(*args, **kwargs), self.dtype)).astype(self.computed_in)


def narrow(x: np.ndarray, dtype: str) -> np.ndarray | torch.Tensor:
    """Round to a dtype; bfloat16 is PyTorch's."""
    return torch.as_tensor(np.ascontiguousarray(x)).bfloat16() if dtype == "bfloat16" else x.astype(dtype)


def widen(x: np.ndarray | torch.Tensor) -> np.ndarray:
    return np.asarray(x.double() if isinstance(x, torch.Tensor) else x, np.float64)


WAYS = {
    "float64": Way(),
    "4 decimals": Way(decimals=4),
    "stored as float32": Way("float32"),
    "stored as float16": Way("float16"),
    "stored as bfloat16": Way("bfloat16"),
    "computed in float32": Way("float32", is_computed=True),
    "computed in float16": Way("float16", is_computed=True),
}


def diagnose(planted: Planted, seed: int, way: Way):
    """Check what one wrong kernel gives."""
    fields, choices, claims = planted.make(way.inputs(seed))
    claims = {step: way.figures(x) for step, x in claims.items()}
    return check(attncli.Problem(**fields), attncli.Variant(**choices), figures_from_arrays(claims))


def outcome(planted: Planted, seed: int, way: Way = WAYS["float64"]) -> tuple[str, str]:
    """Return whether the cause is first, named, missed, or another one is named; and what is said."""
    verdict = diagnose(planted, seed, way)
    if verdict.verdict != "wrong":
        return "called " + verdict.verdict, ""
    said = [f"{' / '.join(d.names)}: {d.sentence}" for d in verdict.identified]
    ranks = [i for i, text in enumerate(said) if any(is_said(words, text, way.tolerance) for words in planted.says)]
    if ranks:
        return ("first" if ranks[0] == 0 else "named"), said[0]
    return ("FALSE", said[0]) if said else ("missed", "")


_NUMBER = re.compile(r"[-−]?\d+\.?\d*(?:e[-+]?\d+)?")


def is_said(words: str, text: str, tolerance: float) -> bool:
    """Whether a text holds words, in which a number with a point may be another that is as near as the figures can tell."""
    if words in text:
        return True
    numbers = [x for x in _NUMBER.findall(words) if "." in x]
    pattern = re.escape(words)
    for x in numbers:
        pattern = pattern.replace(re.escape(x), f"({_NUMBER.pattern})")
    return bool(numbers) and any(
        all(math.isclose(float(x), float(y), rel_tol=tolerance) for x, y in zip(numbers, found.groups(), strict=True))
        for found in re.finditer(pattern, text)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", action="append", choices=list(WAYS))
    options = parser.parse_args()
    chosen = [x for x in PLANTED.values() if options.only in f"{x.name} {' '.join(x.tags)}"]
    is_false = False
    for name in options.way or WAYS:
        counts: dict[str, int] = {}
        started = time.process_time()
        for planted in chosen:
            start = time.process_time()
            result, said = outcome(planted, options.seed, WAYS[name])
            counts[result] = counts.get(result, 0) + 1
            if result != "first":
                print(f"{result}: {planted.name}, {name} ({time.process_time() - start:.1f} s) {said}", flush=True)
        is_false |= "FALSE" in counts
        print(f"{len(chosen)} kernels, {name}: {counts}, {time.process_time() - started:.0f} s", flush=True)
    return int(is_false)


if __name__ == "__main__":
    sys.exit(main())
