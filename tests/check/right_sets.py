"""Right figures in every way that programs print and store them: none of them may be called wrong.

Attention is computed here by plain formulas of NumPy and PyTorch, which share nothing with attncli.
`python -m tests.check.right_sets --count 1000` tries so many sets in all the ways; `--first` is the seed of the first.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

import attncli
from attncli.check import check
from attncli.check.figure_files import read_figures
from attncli.errors import AttnError

DTYPES = ("float64", "float32", "float16", "bfloat16")


# ── problems ─────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class RightSet:
    """A problem of random numbers, and what its steps are in any dtype."""

    seed: int
    fields: dict[str, object]
    choices: dict[str, object]
    arrays: dict[str, np.ndarray]  # what the formulas below take: x, q, k, v, w_q, w_k, w_v, w_o
    heads: int
    is_causal: bool
    scale: float | None

    def steps(self, dtype: str) -> dict[str, np.ndarray]:
        """Scores, weights, context and output, computed in a dtype; bfloat16 by PyTorch, and returned as float32."""
        if dtype == "bfloat16":
            return {name: x.float().numpy() for name, x in self.tensors(dtype).items()}
        a = {name: x.astype(dtype) for name, x in self.arrays.items()}
        q, k, v = (self._project(a, c, lambda x, w: x @ w) for c in "qkv")
        q, k, v = (np.swapaxes(x.reshape(len(x), self.heads, -1), 0, 1) for x in (q, k, v))
        scores = np.einsum("hnd,hmd->hnm", q, k)
        scale = np.dtype(dtype).type(self.scale or 1 / np.sqrt(q.shape[-1]))
        scaled = scores * scale
        hidden = ~np.tri(*scaled.shape[-2:], dtype=bool)
        masked = np.where(hidden, -np.inf, scaled).astype(dtype) if self.is_causal else scaled
        e = np.exp(masked - masked.max(-1, keepdims=True))
        weights = e / e.sum(-1, keepdims=True)
        context = np.swapaxes(weights @ v, 0, 1).reshape(scores.shape[1], -1)
        return self._named(scores, scaled, weights, context, context @ a["w_o"] if "w_o" in a else None)

    def tensors(self, dtype: str):
        """The same by PyTorch, where scores are rounded to the dtype between two operations, as eager code does."""
        import torch

        a = {name: torch.as_tensor(x).to(getattr(torch, dtype)) for name, x in self.arrays.items()}
        q, k, v = (self._project(a, c, torch.matmul) for c in "qkv")
        q, k, v = (x.reshape(len(x), self.heads, -1).transpose(0, 1) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2)
        scaled = scores * (self.scale or q.shape[-1] ** -0.5)
        hidden = ~torch.ones(scaled.shape[-2:], dtype=torch.bool).tril()
        masked = scaled.masked_fill(hidden, -torch.inf) if self.is_causal else scaled
        weights = masked.softmax(-1)
        context = (weights @ v).transpose(0, 1).reshape(scores.shape[1], -1)
        return self._named(scores, scaled, weights, context, context @ a["w_o"] if "w_o" in a else None)

    @staticmethod
    def _project(arrays, letter, multiply):
        x = arrays.get(letter, arrays.get("x"))
        return multiply(x, arrays[f"w_{letter}"]) if f"w_{letter}" in arrays else x

    def _named(self, scores, scaled, weights, context, output):
        matrices = {"scores": scores, "scaled_scores": scaled, "weights": weights}
        found = {name: x if self.heads > 1 else x[0] for name, x in matrices.items()} | {"context": context}
        if (self.scale or self.arrays.get("q", self.arrays.get("x")).shape[-1] // self.heads) == 1:
            del found["scaled_scores"]
        return found if output is None else found | {"output": output}


def draw_set(seed: int) -> RightSet:
    """Draw a problem: given q, k and v, or embeddings with or without matrices; heads, a mask, large scores."""
    r = np.random.default_rng([19, seed])
    kind = str(r.choice(["x", "projected", "qkv", "heads"]))
    heads = int(r.choice([2, 3])) if kind == "heads" else 1
    n, d = int(r.integers(2, 8)), int(r.integers(1, 7)) * heads
    m = n if kind != "qkv" else int(r.integers(2, 9))
    grain = str(r.choice(["tenths", "hundredths", "integers", "float32", "half"]))

    def draw(*shape: int, size: float = 1.0) -> np.ndarray:
        x = r.standard_normal(shape) * size
        if grain == "tenths":
            return x.round(1)
        if grain == "hundredths":
            return x.round(2)
        if grain == "integers":
            return (2 * x).round() + 0.0
        return x.astype(np.float32 if grain == "float32" else np.float16).astype(float)

    stretch = float(r.choice([1, 1, 1, 3, 10, 100]))
    is_causal = bool(r.random() < 0.4) and m == n
    choices: dict[str, object] = {"mask": "causal"} if is_causal else {}
    scale = [None, None, None, 1.0, 0.5, 0.3][int(r.integers(6))]
    if scale is not None:
        choices["scale"] = "none" if scale == 1 else str(scale)
    if kind == "qkv":
        arrays = {"q": draw(n, d, size=stretch), "k": draw(m, d), "v": draw(m, int(r.integers(1, 6)))}
        fields: dict[str, object] = dict(arrays)
    else:
        arrays = {"x": draw(n, d, size=stretch**0.5)}
        fields = {"embeddings": arrays["x"]}
    if kind in ("projected", "heads"):
        letters = "qkvo" if kind == "heads" or r.random() < 0.4 else "qkv"
        arrays |= {f"w_{c}": draw(d, d) for c in letters}
        fields["parameters"] = {name: x for name, x in arrays.items() if name.startswith("w_")}
    if heads > 1:
        choices["heads"] = heads
    return RightSet(seed, fields, choices, arrays, heads, is_causal, scale)


# ── ways of printing ─────────────────────────────────────────────────────────────────────────────
class Printed(NamedTuple):
    """A file of figures, and the step that it is of where it does not say."""

    suffix: str
    content: bytes
    step: str | None = None


Steps = dict[str, np.ndarray]
Writer = Callable[[RightSet, np.random.Generator], Printed | None]
WAYS: dict[str, Writer] = {}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)


def way(name: str):
    """Register a way of printing."""

    def register(write: Writer) -> Writer:
        WAYS[name] = write
        return write

    return register


def nested(texts, shape) -> str:
    """Texts in order → lists in lists, as JSON."""
    if not shape:
        return next(texts)
    return "[" + ", ".join(nested(texts, shape[1:]) for _ in range(shape[0])) + "]"


def json_number(text: str) -> str:
    """What a program prints → a number of JSON: `1.` and `.5` get their zero."""
    text = re.sub(r"\.(?=$|e)", ".0", text.strip().lstrip("+"))
    return re.sub(r"^(-?)\.", r"\g<1>0.", text)


def to_json(steps: dict[str, tuple[list[str], tuple[int, ...]]]) -> Printed:
    entries = (f'"{s}": {nested(map(json_number, texts), shape)}' for s, (texts, shape) in steps.items())
    return Printed(".json", ("{" + ", ".join(entries) + "}").encode())


def texts_by(write: Callable[[object], str], dtype: str, *, names=None) -> Writer:
    """Print each figure by a function, as JSON."""

    def printed(right: RightSet, r: np.random.Generator) -> Printed:
        steps = {s: x for s, x in right.steps(dtype).items() if names is None or s in names}
        return to_json({s: ([write(y) for y in x.ravel()], x.shape) for s, x in steps.items()})

    return printed


def array_texts(write: Callable[[np.ndarray], str], dtype: str) -> Writer:
    """Print each array as a whole by a function, and copy the numbers out of its text."""

    def printed(right: RightSet, r: np.random.Generator) -> Printed:
        return to_json({s: (copied(write(x), x.size), x.shape) for s, x in right.steps(dtype).items()})

    return printed


def copied(text: str, count: int) -> list[str]:
    """Numbers of a printed array."""
    text = re.sub(r"(array|tensor)\(|dtype=\S+|[\[\](),]", " ", text)
    found = _NUMBER.findall(text)
    assert len(found) == count, text
    return found


def numpy_text(x: np.ndarray, **options) -> str:
    with np.printoptions(threshold=1 << 20, linewidth=200, **options):
        return str(x)


def torch_text(x: np.ndarray, **options) -> str:
    import torch

    old = torch._tensor_str.PRINT_OPTS
    torch.set_printoptions(threshold=1 << 20, linewidth=200, **options)
    try:
        return _unscaled(str(torch.as_tensor(x)))
    finally:
        torch._tensor_str.PRINT_OPTS = old


def _unscaled(text: str) -> str:
    assert "*" not in text  # PyTorch has no common factor in front
    return text


def cut(x: float, decimals: int) -> str:
    """Cut a number off after so many decimals, by its digits."""
    return f"{Decimal(repr(float(x))).quantize(Decimal(1).scaleb(-decimals), ROUND_DOWN):f}"


for _name, _write in {
    "repr of float64": texts_by(lambda x: repr(float(x)), "float64"),
    "%f of float64": texts_by(lambda x: f"{x:f}", "float64"),
    "%g of float64": texts_by(lambda x: f"{x:g}", "float64"),
    "%e of float64": texts_by(lambda x: f"{x:e}", "float64"),
    "%.2f of float64": texts_by(lambda x: f"{x:.2f}", "float64"),
    "%.4f of float64": texts_by(lambda x: f"{x:.4f}", "float64"),
    "%.8f of float64": texts_by(lambda x: f"{x:.8f}", "float64"),
    "%.10f of float64": texts_by(lambda x: f"{x:.10f}", "float64"),
    "%.12g of float64": texts_by(lambda x: f"{x:.12g}", "float64"),
    "%f of float32": texts_by(lambda x: f"{x:f}", "float32"),
    "%g of float32": texts_by(lambda x: f"{x:g}", "float32"),
    "%e of float32": texts_by(lambda x: f"{x:e}", "float32"),
    "%.4f of float32": texts_by(lambda x: f"{x:.4f}", "float32"),
    "%.8f of float32": texts_by(lambda x: f"{x:.8f}", "float32"),
    "%.9g of float32": texts_by(lambda x: f"{x:.9g}", "float32"),
    "%.10f of float32": texts_by(lambda x: f"{x:.10f}", "float32"),
    "shortest text of float32": texts_by(str, "float32"),
    "tolist of float32": texts_by(lambda x: repr(float(x)), "float32"),
    "NumPy's print of float64": array_texts(numpy_text, "float64"),
    "NumPy's print of float32": array_texts(numpy_text, "float32"),
    "NumPy's print, 4 digits": array_texts(lambda x: numpy_text(x, precision=4), "float64"),
    "NumPy's print, no exponents": array_texts(lambda x: numpy_text(x, suppress=True), "float64"),
    "PyTorch's print of float32": array_texts(torch_text, "float32"),
    "PyTorch's print of float64": array_texts(torch_text, "float64"),
    "PyTorch's print, exponents": array_texts(lambda x: torch_text(x, sci_mode=True), "float32"),
    "PyTorch's print, 8 digits": array_texts(lambda x: torch_text(x, precision=8), "float32"),
    "round(4) of float32, JSON": texts_by(lambda x: repr(float(np.round(np.float32(x), 4))), "float32"),
    "round(4) of float64, JSON": texts_by(lambda x: repr(float(np.round(x, 4))), "float64"),
    "round(8) of float64, JSON": texts_by(lambda x: repr(float(np.round(x, 8))), "float64"),
    "float16, JSON": texts_by(lambda x: repr(float(x)), "float16"),
    "bfloat16, JSON": texts_by(lambda x: repr(float(x)), "bfloat16"),
    "cut off after 2": texts_by(lambda x: cut(x, 2), "float64"),
    "cut off after 4": texts_by(lambda x: cut(x, 4), "float64"),
    "cut off after 6": texts_by(lambda x: cut(x, 6), "float64"),
    "cut off after 4, float32": texts_by(lambda x: cut(float(x), 4), "float32"),
}.items():
    way(_name)(_write)


def saved(change: Callable[[np.ndarray], np.ndarray], dtype: str, suffix: str) -> Writer:
    """Save arrays, changed by a function: one step as NPY, all of them otherwise."""

    def printed(right: RightSet, r: np.random.Generator) -> Printed:
        steps = {s: change(x) for s, x in right.steps(dtype).items()}
        file = io.BytesIO()
        if suffix == ".npy":
            step = str(r.choice(list(steps)))
            np.save(file, steps[step])
            return Printed(suffix, file.getvalue(), step)
        if suffix == ".npz":
            np.savez(file, **steps)
            return Printed(suffix, file.getvalue())
        return Printed(suffix, safetensors_bytes(steps, "BF16" if dtype == "bfloat16" else ""))

    return printed


def safetensors_bytes(steps: Steps, dtype_name: str = "") -> bytes:
    names = {"float64": "F64", "float32": "F32", "float16": "F16"}
    header, data = {}, b""
    for step, x in steps.items():
        own = dtype_name or names[x.dtype.name]
        raw = (x.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes() if own == "BF16" else x.tobytes()
        header[step] = {"dtype": own, "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def rounded(decimals: int) -> Callable[[np.ndarray], np.ndarray]:
    """Round in float64, since 934.5 · 100 is too large for float16."""
    return lambda x: x.astype(float).round(decimals).astype(x.dtype)


def _trunc(decimals: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.trunc(x * x.dtype.type(10**decimals)) / x.dtype.type(10**decimals)


for _name, _write in {
    "float64, NPY": saved(lambda x: x, "float64", ".npy"),
    "float64, NPZ": saved(lambda x: x, "float64", ".npz"),
    "float32, NPY": saved(lambda x: x, "float32", ".npy"),
    "float32, safetensors": saved(lambda x: x, "float32", ".safetensors"),
    "float32 as float64, NPZ": saved(lambda x: x.astype(float), "float32", ".npz"),
    "float16, NPZ": saved(lambda x: x, "float16", ".npz"),
    "float16 as float32, NPZ": saved(lambda x: x.astype(np.float32), "float16", ".npz"),
    "bfloat16, safetensors": saved(lambda x: x, "bfloat16", ".safetensors"),
    "bfloat16 as float32, NPZ": saved(lambda x: x, "bfloat16", ".npz"),
    "round(4) of float32, NPY": saved(lambda x: x.round(4), "float32", ".npy"),
    "round(3) of float32, NPZ": saved(lambda x: x.round(3), "float32", ".npz"),
    "round(6) of float32, safetensors": saved(lambda x: x.round(6), "float32", ".safetensors"),
    "round(2) of float64, NPZ": saved(lambda x: x.round(2), "float64", ".npz"),
    "round(5) of float64, NPZ": saved(lambda x: x.round(5), "float64", ".npz"),
    "round(2) of float16, NPZ": saved(rounded(2), "float16", ".npz"),
    "cut off after 3, NPZ": saved(_trunc(3), "float64", ".npz"),
    "cut off after 4 in float32, NPZ": saved(_trunc(4), "float32", ".npz"),
}.items():
    way(_name)(_write)


def csv_of(write: Callable[[object], str], dtype: str) -> Writer:
    """Print one step as a matrix in CSV."""

    def printed(right: RightSet, r: np.random.Generator) -> Printed | None:
        steps = {s: x for s, x in right.steps(dtype).items() if x.ndim == 2}
        step = str(r.choice(list(steps)))
        rows = [",".join(map(write, row)) for row in steps[step]]
        return Printed(".csv", ("\n".join(rows) + "\n").encode(), step)

    return printed


way("%.6f of float32, CSV")(csv_of(lambda x: f"{x:.6f}", "float32"))
way("%.18e of float64, CSV")(csv_of(lambda x: f"{x:.18e}", "float64"))  # numpy.savetxt
way("%.6g of float32, CSV")(csv_of(lambda x: f"{x:.6g}", "float32"))
way("shortest text of float32, CSV")(csv_of(str, "float32"))


@way("mixed, JSON")
def mixed_texts(right: RightSet, r: np.random.Generator) -> Printed:
    """Every step is printed another way."""
    ways = {
        "float64": (repr, "{:.3f}".format, "{:.8f}".format, "{:.5e}".format, lambda x: cut(x, 3)),
        "float32": (str, "{:.6f}".format, "{:g}".format, lambda x: repr(float(x))),
    }
    steps = {}
    for step in right.steps("float64"):
        dtype = str(r.choice(list(ways)))
        write = ways[dtype][int(r.integers(len(ways[dtype])))]
        x = right.steps(dtype)[step]
        steps[step] = ([write(y if dtype == "float32" else float(y)) for y in x.ravel()], x.shape)
    return to_json(steps)


@way("mixed, NPZ")
def mixed_arrays(right: RightSet, r: np.random.Generator) -> Printed:
    """Every step is of another dtype, and some are rounded."""
    steps = {}
    for step in right.steps("float64"):
        x = right.steps(str(r.choice(["float64", "float32", "float16"])))[step]
        steps[step] = rounded(3)(x) if r.random() < 0.3 else x
    file = io.BytesIO()
    np.savez(file, **steps)
    return Printed(".npz", file.getvalue())


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────
MIN_TELLING_FIGURES = 9
NARROW_WAYS = tuple(name for name in WAYS if "float16" in name or name == "mixed, NPZ")


def is_representable(right: RightSet, way_name: str) -> bool:
    """Whether half precision can hold the inputs and every step; who computes in it has inputs in it."""
    if way_name not in NARROW_WAYS:
        return True
    for dtype in ("bfloat16",) if "bfloat16" in way_name else ("float16",):
        inputs = right.arrays.values()
        if not all(np.array_equal(narrow(x, dtype), x) for x in inputs):
            return False
        is_short = way_name.endswith("JSON") or way_name.startswith("round(")
        if is_short and min(x.size for x in right.steps(dtype).values()) < MIN_TELLING_FIGURES:
            return False  # four numbers with few digits do not tell a dtype, nor how many digits they were rounded to
        if not all(np.isfinite(x).all() for x in right.steps(dtype).values()):
            return False
    return True


def narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float16":
        return x.astype(np.float16).astype(float)
    import torch

    return torch.as_tensor(x).bfloat16().double().numpy()


def narrowed(right: RightSet, dtype: str) -> RightSet:
    """The same problem with inputs that a narrow dtype holds."""
    arrays = {name: narrow(x, dtype) for name, x in right.arrays.items()}
    names = {"embeddings": "x", "q": "q", "k": "k", "v": "v"}
    fields: dict[str, object] = {f: arrays[a] for f, a in names.items() if f in right.fields}
    if "parameters" in right.fields:
        fields["parameters"] = {name: x for name, x in arrays.items() if name.startswith("w_")}
    return RightSet(right.seed, fields, right.choices, arrays, right.heads, right.is_causal, right.scale)


def judge(right: RightSet, printed: Printed, folder: Path, **options):
    """Write the file, read it, and check it."""
    path = folder / f"mine{printed.suffix}"
    path.write_bytes(printed.content)
    problem, variant = attncli.Problem(**right.fields), attncli.Variant(**right.choices)
    return check(problem, variant, read_figures(str(path)), step=printed.step, **options)


def accusations(seed: int, way_names, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the ways in which the right figures of a set are called wrong, or refused, with what is said."""
    for name in way_names:
        right = draw_set(seed)
        if name in NARROW_WAYS:
            right = narrowed(right, "bfloat16" if "bfloat16" in name else "float16")
            if not is_representable(right, name):
                continue
        with np.errstate(all="ignore"):
            printed = WAYS[name](right, np.random.default_rng([seed, list(WAYS).index(name)]))
        if printed is None:
            continue
        try:
            verdict = judge(right, printed, folder, identify=False)
        except AttnError as error:
            yield name, f"refused: {error}"
            continue
        for step in verdict.steps:
            if not step.is_right:
                yield (
                    name,
                    f"{step.step} {step.shape} {step.rule} · {step.worst_cell_text}: mine {step.actual!r}, "
                    f"reference {step.reference!r}, off by {step.max_abs_error:.3g}, allowed {step.tolerance:.3g}, "
                    f"{step.wrong_count} of {step.figure_count}",
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--way", action="append", choices=list(WAYS))
    parser.add_argument("--shown", type=int, default=3, help="accusations of each way that are printed")
    arguments = parser.parse_args()
    ways = arguments.way or list(WAYS)
    accused: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.first, arguments.first + arguments.count):
            seen = set()
            for name, said in accusations(seed, ways, Path(folder)):
                if name not in seen:
                    accused[name] += 1
                    seen.add(name)
                    if accused[name] <= arguments.shown:
                        print(f"set {seed}, {name}: {said}", flush=True)
    for name, count in accused.most_common():
        print(f"{count:6}  {name}")
    print(f"{arguments.count} sets × {len(ways)} ways: {sum(accused.values())} accused")
    return int(bool(accused))


if __name__ == "__main__":
    sys.exit(main())
