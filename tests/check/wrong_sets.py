"""Wrong figures in the ways of `right_sets`, and noise: each is called wrong, noise is given no cause, and no cause is false.

`python -m tests.check.wrong_sets --count 200` tries so many wrong sets, `--noise 300` so many of noise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.check.right_sets import WAYS, RightSet, Steps, draw_set, judge, narrow

Damage = Callable[[RightSet, Steps, np.random.Generator], Steps]
DAMAGES: dict[str, Damage] = {}
WRONG_WAYS = (
    "repr of float64", "%f of float64", "%.4f of float64", "%.8f of float64", "%f of float32", "%.4f of float32",
    "shortest text of float32", "tolist of float32", "NumPy's print of float64", "NumPy's print of float32",
    "PyTorch's print of float32", "round(4) of float32, JSON", "float64, NPZ", "float32, safetensors",
    "round(5) of float64, NPZ", "round(3) of float32, NPZ", "cut off after 4", "cut off after 4 in float32, NPZ",
)  # fmt: skip
HALF_WAYS = (
    "float16, NPZ",
    "float16 as float32, NPZ",
    "bfloat16, safetensors",
    "bfloat16, JSON",
    "float16, JSON",
)  # of noise
MIN_SHARE_OFF = 0.05  # of a step's largest figure, by which some figure is off at least


@dataclass(frozen=True)
class WrongSet(RightSet):
    """The figures of a set after some damage, in the dtype in which they are asked for."""

    damage: str = ""
    damage_seed: int = 0

    def steps(self, dtype: str) -> Steps:
        steps = super().steps("float64")
        damaged = DAMAGES[self.damage](self, steps, np.random.default_rng([self.damage_seed, 7]))
        damaged = {name: x for name, x in damaged.items() if name in steps}
        if dtype == "bfloat16":
            return {name: narrow(x, dtype).astype(np.float32) for name, x in damaged.items()}
        return {name: x.astype(dtype) for name, x in damaged.items()}


def damage(function: Damage) -> Damage:
    DAMAGES[function.__name__] = function
    return function


def only(steps: Steps, name: str, changed: np.ndarray) -> Steps:
    """Claim one step alone."""
    return {name: changed}


@damage
def one_entry(right, steps, r):
    w = steps["context"].copy()
    cell = tuple(int(r.integers(n)) for n in w.shape)
    w[cell] += (0.1 + r.random()) * np.abs(w).max()
    return only(steps, "context", w)


@damage
def rows_zeroed(right, steps, r):
    w = steps["weights"].copy()
    w[..., -1, :] = 0
    return only(steps, "weights", w)


@damage
def a_column_zeroed(right, steps, r):
    w = steps["weights"].copy()
    w[..., :, 0] = 0
    return only(steps, "weights", w)


@damage
def rows_rolled(right, steps, r):
    return only(steps, "context", np.roll(steps["context"], 1, 0))


@damage
def halved(right, steps, r):
    return only(steps, "weights", steps["weights"] * 0.5)


@damage
def a_factor(right, steps, r):
    return {"weights": steps["weights"] * 1.3, "context": steps["context"] * 1.3}


@damage
def noise_added(right, steps, r):
    x = steps["context"]
    return only(steps, "context", x + 0.2 * np.abs(x).max() * r.standard_normal(x.shape))


@damage
def blurred(right, steps, r):
    w = steps["weights"]
    return only(steps, "weights", 0.6 * w + 0.4 / w.shape[-1])


@damage
def dims_zeroed(right, steps, r):
    x = steps["context"].copy()
    x[:, x.shape[1] // 2 :] = 0
    return only(steps, "context", x)


@damage
def scores_cut(right, steps, r):
    return {"scores": steps["scores"] + 0.3 * np.abs(steps["scores"]).max() * r.standard_normal(steps["scores"].shape)}


@damage
def small_weights_dropped(right, steps, r):
    w = steps["weights"]
    return only(steps, "weights", np.where(w < np.median(w[w > 0]), 0, w))


@damage
def a_head_or_row_of_another(right, steps, r):
    w = steps["weights"].copy()
    if w.ndim == 3:
        w[0] = w[-1]
    else:
        w[0] = w[-1]
    return only(steps, "weights", w)


@damage
def negated(right, steps, r):
    return only(steps, "context", -steps["context"])


@damage
def tail_not_a_number(right, steps, r):
    x = steps["context"].copy()
    x[-1] = np.nan
    return only(steps, "context", x)


@damage
def last_rows_not_written(right, steps, r):
    x = steps["context"].copy()
    x[len(x) // 2 :] = 0
    return only(steps, "context", x)


NAN_WAYS = ("float64, NPZ", "float32, safetensors")


def draw_wrong_set(seed: int) -> tuple[WrongSet, str] | None:
    """Draw a damaged set and the way in which it is printed; None where the damage changes little."""
    r = np.random.default_rng([23, seed])
    right = draw_set(seed)
    name = list(DAMAGES)[seed % len(DAMAGES)]
    way = str(r.choice(NAN_WAYS if name == "tail_not_a_number" else WRONG_WAYS))
    wrong = WrongSet(**vars(right), damage=name, damage_seed=seed)
    exact, damaged = right.steps("float64"), wrong.steps("float64")
    if any(np.isnan(x).any() for x in damaged.values()):
        return wrong, way
    is_off = [np.abs(damaged[s] - exact[s]).max() > MIN_SHARE_OFF * np.abs(exact[s]).max() > 0 for s in damaged]
    return (wrong, way) if any(is_off) else None


def wrong_verdicts(seeds: Iterator[int], folder: Path, **options) -> Iterator[tuple[int, WrongSet, str, object]]:
    """Yield the verdicts on the wrong sets of some seeds."""
    for seed in seeds:
        if (drawn := draw_wrong_set(seed)) is None:
            continue
        wrong, way = drawn
        with np.errstate(all="ignore"):
            printed = WAYS[way](wrong, np.random.default_rng(seed))
        yield seed, wrong, way, judge(wrong, printed, folder, **options)


def noise_verdict(seed: int, folder: Path):
    """The verdict on noise of the size of the right figures."""
    r = np.random.default_rng([29, seed])
    right = draw_set(seed)
    exact = right.steps("float64")
    step = str(r.choice(["weights", "context"]))
    x = r.standard_normal(exact[step].shape)
    if step == "weights":
        x = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        if right.is_causal:
            x = np.tril(x)
    way = str(r.choice(HALF_WAYS if seed % 4 == 3 else WRONG_WAYS))

    @dataclass(frozen=True)
    class Noise(RightSet):
        def steps(self, dtype):
            return {step: narrow(x, dtype).astype(np.float32) if dtype == "bfloat16" else x.astype(dtype)}

    noise = Noise(**vars(right))
    return judge(noise, WAYS[way](noise, r), folder), exact[step].size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--noise", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--no-identify", action="store_true", help="do not look for causes, which takes most of the time"
    )
    arguments = parser.parse_args()
    passed = named = tried = 0
    identify = False if arguments.no_identify else None
    seeds = iter(range(arguments.first, arguments.first + arguments.count))
    with tempfile.TemporaryDirectory() as folder:
        for seed, wrong, way, verdict in wrong_verdicts(seeds, Path(folder), identify=identify):
            tried += 1
            if verdict.verdict != "wrong":
                passed += 1
                print(f"set {seed}, {wrong.damage}, {way}: {verdict.verdict}", flush=True)
            if verdict.identified:
                named += 1
                print(f"set {seed}, {wrong.damage}: {[d.sentence for d in verdict.identified][:2]}", flush=True)
        print(f"{tried} wrong sets: {passed} not called wrong, {named} given a cause")
        given = 0
        for seed in range(arguments.first, arguments.first + arguments.noise):
            verdict, size = noise_verdict(seed, Path(folder))
            if verdict.verdict == "right" or verdict.identified:
                given += 1
                print(
                    f"noise {seed} ({size} figures): {verdict.verdict} {[d.sentence for d in verdict.identified][:2]}"
                )
        print(f"{arguments.noise} sets of noise: {given} called right or given a cause")
    return int(bool(passed or given))


if __name__ == "__main__":
    sys.exit(main())
