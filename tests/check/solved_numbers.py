"""Random scales, caps, thetas, temperatures and slopes in the place of the right ones: is each solved for, to 4 digits?

`python -m tests.check.solved_numbers --count 20` tries so many of each kind, from weights and from the context alone.
"""

from __future__ import annotations

import argparse
import math
import re
import sys

import numpy as np

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.check.planted import side_by_side, softmax_rows

KINDS = ("scale", "softcap", "theta", "temperature", "slope")
HEADS, TOKENS, WIDTH = 2, 14, 8
SCALE = 1 / math.sqrt(WIDTH)


def rotate(x, theta):
    """RoPE of halves: (h, n, d)"""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[-2])[:, None] * theta ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)


def weigh(q, k, *, scale=SCALE, softcap=None, theta=None, temperature=1.0, slope=0.0):
    """Causal weights, retyped."""
    if theta is not None:
        q, k = rotate(q, theta), rotate(k, theta)
    s = scale * q @ k.swapaxes(-1, -2)
    if softcap is not None:
        s = softcap * np.tanh(s / softcap)
    s = s / temperature
    i, j = np.arange(TOKENS)[:, None], np.arange(TOKENS)
    s = s - slope * 2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)[:, None, None] * np.abs(i - j)
    return softmax_rows(np.where(j <= i, s, -np.inf))


RIGHT = {  # the choices of the variant, and what they are in `weigh`
    "scale": ({}, {}),
    "softcap": ({"softcap": 5}, {"softcap": 5.0}),
    "theta": ({"position": "rope"}, {"theta": 10000.0}),
    "temperature": ({"temperature": 1.5}, {"temperature": 1.5}),
    "slope": ({"position": "alibi"}, {"slope": 1.0}),
}


def draw_number(kind: str, r: np.random.Generator) -> float:
    """Draw a wrong number, no nearer than 5 % to the right one."""
    while True:
        factor = float(np.exp(r.uniform(-1.5, 1.5)))
        if abs(factor - 1) > 0.05:
            right = {"scale": SCALE, **RIGHT[kind][1]}[kind]
            return right * (factor**3 if kind == "theta" else factor)


def said_numbers(kind: str, seed: int, step: str, decimals: int | None = None) -> tuple[float, list[str]]:
    """Return the wrong number, and the sentences of the causes."""
    r = np.random.default_rng([KINDS.index(kind), seed])
    q, k, v = r.standard_normal((3, HEADS, TOKENS, WIDTH))
    number = draw_number(kind, r)
    choices, right = RIGHT[kind]
    w = weigh(2 * q, k, **{**right, kind: number})
    claims = {"weights": w[None]} if step == "weights" else {"context": side_by_side((w @ v)[None])}
    if decimals is not None:
        claims = {name: np.round(x, decimals) for name, x in claims.items()}
    problem = attncli.Problem(q=2 * q[None], k=k[None], v=v[None])
    verdict = check(problem, attncli.Variant(mask="causal", **choices), figures_from_arrays(claims))
    return number, [diagnosis.sentence for diagnosis in verdict.identified]


def is_solved(kind: str, number: float, sentences: list[str], rel_tol: float = 1e-4) -> bool:
    """Whether the first cause names the number: the scale may stand for a temperature, and a factor for a slope."""
    names = [number]
    if kind == "temperature":
        names += [SCALE * 1.5 / number, 1.5 / number]
    found = [float(x) for x in re.findall(r"\d+\.?\d*(?:e[-+]?\d+)?", sentences[0])] if sentences else []
    return any(math.isclose(x, wanted, rel_tol=rel_tol) for x in found for wanted in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--decimals", type=int, help="of the figures; the number is then solved for to 2 digits")
    options = parser.parse_args()
    for step in ("weights", "context"):
        solved = 0
        for kind in (kind for kind in KINDS if options.only in kind):
            for seed in range(options.count):
                number, sentences = said_numbers(kind, seed, step, options.decimals)
                if is_solved(kind, number, sentences, 1e-4 if options.decimals is None else 1e-2):
                    solved += 1
                else:
                    print(f"{kind} {seed} from {step}, {number:.6g}: {sentences[:3]}", flush=True)
        print(f"{step}: {solved} of {options.count * len([k for k in KINDS if options.only in k])} solved", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
