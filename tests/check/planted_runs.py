"""Trying the wrong kernels of `planted` and `planted_inputs`: `python -m tests.check.planted_runs --only tile`."""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.check import planted_inputs  # noqa: F401  registers the second part
from tests.check.planted import PLANTED, Planted


def diagnose(planted: Planted, seed: int, decimals: int | None = None):
    """Check what one wrong kernel gives."""
    fields, choices, claims = planted.make(np.random.default_rng(seed))
    if decimals is not None:
        claims = {step: np.round(x, decimals) for step, x in claims.items()}
    return check(attncli.Problem(**fields), attncli.Variant(**choices), figures_from_arrays(claims))


def outcome(planted: Planted, seed: int, decimals: int | None = None) -> tuple[str, str]:
    """Return whether the cause is first, named, missed, or another one is named; and what is said."""
    verdict = diagnose(planted, seed, decimals)
    if verdict.verdict != "wrong":
        return "called " + verdict.verdict, ""
    said = [f"{' / '.join(d.names)}: {d.sentence}" for d in verdict.identified]
    ranks = [i for i, text in enumerate(said) if any(words in text for words in planted.says)]
    if ranks:
        return ("first" if ranks[0] == 0 else "named"), said[0]
    return ("FALSE", said[0]) if said else ("missed", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts: dict[str, int] = {}
    for name, planted in PLANTED.items():
        if options.only not in f"{name} {' '.join(planted.tags)}":
            continue
        for decimals in (None, 4):
            start = time.process_time()
            result, said = outcome(planted, options.seed, decimals)
            counts[result] = counts.get(result, 0) + 1
            if result != "first":
                text = f"{result}: {name}, {'float64' if decimals is None else f'{decimals} decimals'}"
                print(f"{text} ({time.process_time() - start:.1f} s) {said}", flush=True)
    print(len(PLANTED), "kernels:", counts)
    return int("FALSE" in counts)


if __name__ == "__main__":
    sys.exit(main())
