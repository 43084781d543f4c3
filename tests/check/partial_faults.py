"""Kernels that are wrong in a part of the items, heads, rows or dims: each must be called wrong, and said to be wrong just there.

Attention and its gradients are computed here by plain formulas of NumPy, which share nothing with attncli.
`python -m tests.check.partial_faults` tries all of them; `--shown` prints the reports of those whose place is not told.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import attncli

B, H, G, T, D = 3, 4, 2, 48, 8  # G kv heads; the sizes differ pairwise, but for what attention makes equal
AXES = {
    "head_context": ("batch", "head", "query", "dim"),
    "weights": ("batch", "head", "query", "key"),
    "scores": ("batch", "head", "query", "key"),
    "log_sum_exp": ("batch", "head", "query"),
    "dq": ("batch", "head", "query", "dim"),
    "dk": ("batch", "kv_head", "key", "dim"),
    "dv": ("batch", "kv_head", "key", "dim"),
}
NOUNS = {"batch": "batch item", "kv_head": "kv head", "query": "quer", "key": "key", "head": "head", "dim": "dim"}


# ── attention, retyped ───────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Kernel:
    """Right arrays of one problem, causal, with grouped heads."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    dout: np.ndarray
    steps: dict[str, np.ndarray]


def make_kernel(seed: int) -> Kernel:
    r = np.random.default_rng([41, seed])
    q, k, v, dout = (r.standard_normal(s) for s in ((B, H, T, D), (B, G, T, D), (B, G, T, D), (B, H, T, D)))
    keys, values = (np.repeat(x, H // G, 1) for x in (k, v))
    scores = q @ keys.swapaxes(-1, -2)
    s = np.where(np.tri(T, dtype=bool), scores / math.sqrt(D), -np.inf)
    sums = np.log(np.exp(s).sum(-1))
    weights = np.exp(s - sums[..., None])
    context = weights @ values
    ds = weights * (dout @ values.swapaxes(-1, -2) - (dout * context).sum(-1, keepdims=True)) / math.sqrt(D)
    steps = {"scores": scores, "log_sum_exp": sums, "weights": weights, "head_context": context, "dq": ds @ keys}
    for name, x in (("dk", ds.swapaxes(-1, -2) @ q), ("dv", weights.swapaxes(-1, -2) @ dout)):
        steps[name] = x.reshape(B, G, H // G, T, D).sum(2)
    return Kernel(q, k, v, dout, steps)


# ── where, and what ──────────────────────────────────────────────────────────────────────────────
PLACES: dict[
    str, dict[str, object]
] = {  # by axis: what is touched there; head stands for kv_head, row for query or key
    "one item": {"batch": [1]},
    "the last head": {"head": [-1]},
    "every other head": {"head": slice(0, None, 2)},
    "the last rows": {"row": slice(40, None)},
    "the last row": {"row": [-1]},
    "the first block": {"row": slice(0, 16)},
    "a block of 16": {"row": slice(16, 32)},
    "two blocks": {"row": [*range(8, 16), *range(32, 40)]},
    "every third row": {"row": slice(2, None, 3)},
    "all rows but the first": {"row": slice(1, None)},
    "one dim": {"last": [5]},
    "the last dims": {"last": slice(-2, None)},
    "odd dims": {"last": slice(1, None, 2)},
    "a tail of one head": {"head": [1], "row": slice(32, None)},
    "a block of one item": {"batch": [2], "row": slice(8, 24)},
    "an item and a head": {"batch": [0], "head": [-1]},
    "dims of some rows": {"row": slice(16, 48), "last": slice(4, 8)},
    "a corner": {"batch": [1], "head": [0], "row": slice(24, 40), "last": slice(0, 4)},
}
Damage = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]  # all that is right, what is touched → it
KINDS: dict[str, tuple[Damage, str]] = {  # and what is said of it, where something is
    "zero": (lambda x, own, r: own * 0, "all 0|^$"),
    "not a number": (lambda x, own, r: own * np.nan, "NaN"),
    "half of it": (lambda x, own, r: own * 0.5, r"the reference × 0\.5|^$"),
    "negative": (lambda x, own, r: -own, "the reference × -1|the reference × −1|outside|negative|^$"),
    "noise": (lambda x, own, r: r.standard_normal(own.shape) * 3, ".*"),
    "off by a constant": (lambda x, own, r: own + 0.7, ".*"),
    "infinite": (lambda x, own, r: own + np.inf, "∞"),
}


@dataclass(frozen=True)
class PartialFault:
    """Figures of one step, of which a part is touched."""

    name: str
    step: str
    mine: np.ndarray
    right: np.ndarray
    says: str  # a pattern that one of the observations follows

    @property
    def touched(self) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ~(np.abs(self.mine - self.right) <= 1e-9)


def index_of(place: dict[str, object], axes: tuple[str, ...]) -> tuple | None:
    """An open mesh of a place on the axes of a step; None where the step has no such axis."""
    found = []
    names = {"batch": "batch", "head": "head", "kv_head": "head", "query": "row", "key": "row", "dim": "last"}
    own = [names[axis] if i < 3 else "last" for i, axis in enumerate(axes)]
    if not set(place) <= set(own):
        return None
    lengths = {"batch": B, "head": H, "kv_head": G, "query": T, "key": T, "dim": D}
    for name, axis in zip(own, axes, strict=True):
        found.append(np.arange(lengths[axis])[place.get(name, slice(None))])
    return np.ix_(*found)


def partial_faults() -> Iterator[PartialFault]:
    """Yield every kind of damage in every place of every step, in turn, and kernels that are wrong in a part of the way."""
    kernel = make_kernel(0)
    kinds = list(KINDS)
    for place_number, (place, parts) in enumerate(PLACES.items()):
        for step_number, (step, axes) in enumerate(AXES.items()):
            index = index_of(parts, axes)
            if index is None:
                continue
            for turn in (0, 3):  # two kinds of each
                kind = kinds[(place_number + step_number + turn) % len(kinds)]
                if step == "scores" and kind == "off by a constant" and "last" not in parts:
                    kind = "noise"  # softmax does not see a constant in a row: it is not wrong
                damage, says = KINDS[kind]
                right = kernel.steps[step]
                mine = right.copy()
                mine[index] = damage(right, right[index], np.random.default_rng(place_number))
                says = says if "last" not in parts or kind in ("not a number", "infinite") else ".*"
                yield PartialFault(f"{step}: {kind} in {place}", step, mine, right, says)
    yield from wrong_on_the_way(kernel)


def wrong_on_the_way(kernel: Kernel) -> Iterator[PartialFault]:
    """Yield contexts of kernels that go wrong in some heads, items or blocks, on the way there."""
    values = np.repeat(kernel.v, H // G, 1)
    s = np.where(np.tri(T, dtype=bool), kernel.steps["scores"] / math.sqrt(D), -np.inf)
    right = kernel.steps["head_context"]

    def attend(scores: np.ndarray, v: np.ndarray = values) -> np.ndarray:
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True) @ v

    def changed(edit: Callable[[np.ndarray], None]) -> np.ndarray:
        x = s.copy()
        edit(x)
        return attend(x)

    def fill(index: tuple, value: float) -> np.ndarray:
        return changed(lambda x: x.__setitem__(index, value))

    def without_keys(first: int, last: int, *lead: object) -> np.ndarray:
        """Row 0 keeps its key, so that no row is empty."""
        return fill((*lead, slice(last, None), slice(first, last)), -np.inf)

    for first in (8, 16, 32):
        for heads in ([0], [3], [1, 2]):
            for item in (slice(None), 1):
                lead = (item, heads) if isinstance(item, int) else (slice(None), heads)
                where = f"heads {heads}" + ("" if isinstance(item, slice) else f" of item {item}")
                yield PartialFault(f"keys {first} to {first + 7} lost in {where}", "head_context", without_keys(first, first + 8, *lead), right, ".*")  # fmt: skip
    scaled = s.copy()
    scaled[:, 2] *= math.sqrt(D)
    yield PartialFault("no scale in head 2", "head_context", attend(scaled), right, ".*")
    unmasked = s.copy()
    unmasked[0] = kernel.steps["scores"][0] / math.sqrt(D)
    yield PartialFault("no mask in item 0", "head_context", attend(unmasked), right, ".*")
    for block in (8, 16):
        tiles = s.copy()
        raw = kernel.steps["scores"] / math.sqrt(D)
        diagonal = (np.arange(T)[:, None] // block) == (np.arange(T) // block)
        tiles[:, 1:3] = np.where(diagonal, raw, s)[:, 1:3]
        yield PartialFault(
            f"diagonal tiles of {block} unmasked in heads 1 and 2", "head_context", attend(tiles), right, ".*"
        )
    for start in (16, 40):
        v = values.copy()
        v[:, 3, start:] = values[:, 0, start:]
        yield PartialFault(f"head 3 reads the values of head 0 from key {start} on", "head_context", attend(s, v), right, ".*")  # fmt: skip
        v = values.copy()
        v[1, :, start:] = values[1, :, start - 8 : T - 8]
        yield PartialFault(f"item 1 reads values 8 too early from key {start} on", "head_context", attend(s, v), right, ".*")  # fmt: skip
    moved = right.copy()
    moved[:, [0, 1]] = right[:, [1, 0]]
    yield PartialFault("heads 0 and 1 exchanged", "head_context", moved, right, "those of|other heads")
    rows = right.copy()
    rows[:, :, 16:32] = right[:, :, 15:31]
    yield PartialFault("a block of rows shifted by one", "head_context", rows, right, "those of the query before them")
    items = right.copy()
    items[2] = right[0]
    yield PartialFault("item 2 is item 0", "head_context", items, right, "those of batch item 0")


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────
def report_of(fault: PartialFault, kernel: Kernel):
    problem = attncli.Problem(q=kernel.q, k=kernel.k, v=kernel.v)
    figures = {fault.step: fault.mine}
    if fault.step in ("dq", "dk", "dv"):
        figures["dout"] = kernel.dout
    return attncli.check(problem, figures, mask="causal", layout="bhtd", identify=False)


def complaints(fault: PartialFault, report) -> Iterator[str]:
    """Yield what is not told of the place of a fault: in the table, in JSON, on the map."""
    if report.verdict != "wrong":
        yield f"called {report.verdict}"
        return
    record = json.loads(json.dumps(report.to_record()))["steps"][0]
    region, touched, axes = record["region"], fault.touched, AXES[fault.step]
    if record["wrong"] != touched.sum():
        yield f"{record['wrong']} figures are wrong, and not {touched.sum()}"
    inside = np.ones(touched.shape, bool)
    table = str(report)
    words = next((line for line in table.splitlines() if line.startswith(f"{fault.step}: wrong ")), "")
    for i, axis in enumerate(axes):
        expected = np.flatnonzero(touched.any(axis=tuple(j for j in range(touched.ndim) if j != i)))
        inside &= np.isin(np.arange(touched.shape[i]), expected).reshape(
            [-1 if j == i else 1 for j in range(touched.ndim)]
        )
        told = [n for a, b in region["axes"][axis]["wrong"] for n in range(a, b)]
        if told != expected.tolist():
            yield f"JSON says {axis} {told}, not {expected.tolist()}"
        if len(expected) < touched.shape[i] and not says_indices(words, axis, expected, touched.shape[i]):
            yield f"the table does not say {axis} {expected.tolist()}: {words!r}"
    is_product = bool(touched[inside].all())
    if abs(region["share"] - touched[inside].mean()) > 1e-9:
        yield f"the share is {region['share']}, not {touched[inside].mean()}"
    yield from map_complaints(fault, region["map"], table, is_product)
    if not any(re.search(fault.says, said) for said in (region["says"] or [""])):
        yield f"of what they look like, {region['says']} is said"


def says_indices(words: str, axis: str, expected: np.ndarray, length: int) -> bool:
    """Whether the words of the table, read back by hand, give these indices of an axis."""
    part = next((p for p in re.split(r", in |; |wrong in ", words.partition(": ")[2]) if re.search(rf"\b{NOUNS[axis]}", p) and not (axis == "head" and "kv head" in p)), "")  # fmt: skip
    part = re.sub(r" \(.*?\)", "", part)
    every = re.search(r"every (\d+)\w\w .*from (\d+) on", part)
    if every:
        return list(range(int(every[2]), length, int(every[1]))) == expected.tolist()
    periodic = re.search(r"(\d+) to (\d+) of every (\d+)", part)
    if periodic:
        first, last, period = map(int, periodic.groups())
        return [i for i in range(length) if first <= i % period <= last] == expected.tolist()
    but = "all " in part and " but " in part
    runs = [
        (int(a), int(b or a)) for a, b in re.findall(r"(\d+)(?: to (\d+))?", part.split(" but ")[-1] if but else part)
    ]
    told = {n for a, b in runs for n in range(a, b + 1)}
    told = set(range(length)) - told if but else told
    return sorted(told) == expected.tolist()


def map_complaints(fault: PartialFault, drawn: dict | None, table: str, is_product: bool) -> Iterator[str]:
    """Compare the map with the shares of what was touched; only a block that the words give needs none."""
    if (drawn is None) != (f"map of {fault.step}" not in table):
        yield "the map is in one of table and JSON alone"
    if drawn is None:
        if not is_product:
            yield "there is no map, and the words do not give every cell"
        return
    touched = fault.touched
    other = tuple(range(3, touched.ndim))
    shares = touched.mean(axis=other) if other else touched.astype(float)  # (item, head, row)
    shares = shares.reshape(-1, touched.shape[2])
    ends = drawn["column_ends"]
    columns = [shares[:, a:b].mean(1) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    if not np.allclose(np.array(drawn["shares"]), np.array(columns).T):
        yield "the map shows other shares"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shown", type=int, default=3, help="reports that are printed of faults whose place is not told"
    )
    parser.add_argument("--every", type=int, default=1, help="try each n-th alone")
    arguments = parser.parse_args()
    kernel, tried, told = make_kernel(0), 0, 0
    for number, fault in enumerate(partial_faults()):
        if number % arguments.every:
            continue
        report = report_of(fault, kernel)
        said = list(complaints(fault, report))
        tried, told = tried + 1, told + (not said)
        if said:
            print(f"{fault.name}: {'; '.join(said)}")
            if tried - told <= arguments.shown:
                print(report)
    print(f"{told} of {tried} faults are told where they are")
    return int(told < tried)


if __name__ == "__main__":
    sys.exit(main())
