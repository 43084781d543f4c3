"""Inputs of up to a megabyte that are made to be expensive: each takes little time and memory to read and plan, accepted or not."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

import attncli
from attncli.check import prepare
from attncli.check.figure_files import read_figures
from attncli.errors import AttnError
from attncli.plan import make_plan
from attncli.validation import validate
from tests.fuzz.harness import Outcome, describe_exception, measured_outcome

MAX_BYTES = 10**6
PIECES = ("1,", "[1],", '"a",', "[", "{", '{"a":', "]", "}", '"', "\\", "\\u0000", "1", "0.", "e9", " ", "\n", ",", "\t", "\r", ";", "a,1\n", '"",', '""', "\0", "é", "\ufeff", "-", "<1>", "⟨1⟩", "to", "[0:9]", ":", "nan,", "null,", "1e5\n", "#")  # fmt: skip
PROBLEM = attncli.Problem(embeddings=[[1.0, 0.5], [0.25, 1.0]], tokens=["the", "cat"])


def repeated(draw: random.Random, size: int) -> bytes:
    """A few pieces over and over."""
    pieces = "".join(draw.choices(PIECES, k=draw.choice((1, 1, 2, 3))))
    beginning = draw.choice(("", "", '{"embeddings": [', '{"about": ', '{"tokens": [', '{"variant": {"mask": "', "token,a\n", '{"weights": [', "weights,"))  # fmt: skip
    return (beginning + pieces * (size // len(pieces.encode()))).encode()


def many_keys(draw: random.Random, size: int) -> bytes:
    where = draw.choice(("about", "variant", "parameters", "embeddings", "expected", "weights", "past", None))
    keys = ",".join(f'"k{i}":{draw.choice("1[")}'.replace("[", "[]") for i in range(size // 12))
    return f'{{"embeddings":[[1]],"{where}":{{{keys}}}}}'.encode() if where else f"{{{keys}}}".encode()


def long_text(draw: random.Random, size: int) -> bytes:
    text = draw.choice(("x", "\\n", "é", "1", "(", "not ", "causal and ", "global:tokens=", "0+", "softmax,", "\\u202e")) * (size // 8)  # fmt: skip
    mask = draw.choice(("global:tokens=" + "+".join(str(i) for i in range(size // 7)), text, f"window:left={text}"))
    return json.dumps(
        draw.choice((
            {"embeddings": [[1], [2]], "variant": {"mask": mask}},
            {"embeddings": [[1], [2]], "variant": {draw.choice(("chain", "score", "name", "dtype", "heads", "scale")): text}},
            {"embeddings": [[1], [2]], "tokens": [text, "a"]},
            {"embeddings": [[1], [text]]},
            {"embeddings": [[1], [2]], text: 1},
            {"embeddings": [[1], [2]], "about": text},
            {"embeddings": [[1], [2]], "layout": text},
            {"weights": [[text]]},
        ))
    ).encode()  # fmt: skip


def many_numbers(draw: random.Random, size: int) -> bytes:
    columns = draw.choice((1, 2, 10, 1000, size // 4))
    number = draw.choice(("1", "0.123456789", "1e-5", "12345678901234567890", "1" * 300, '"NaN"', "true", "null"))
    rows = max(1, size // (columns * (len(number) + 1)))
    row = ",".join([number] * columns)
    if draw.random() < 0.5:
        return "\n".join([row] * rows).encode()
    return ('{"embeddings":[' + ",".join([f"[{row}]"] * rows) + "]}").encode()


def many_tokens(draw: random.Random, size: int) -> bytes:
    count = size // 40
    items = [{"token": f"t{i}", "embedding": [i, 1]} for i in range(count)]
    return (
        json.dumps(items).encode() if draw.random() < 0.5 else "\n".join(f"t{i},1,{i}" for i in range(count)).encode()
    )


def archive(draw: random.Random, size: int) -> bytes:
    """An archive of zeros that is small, of many members, or of few."""
    out = io.BytesIO()
    method = draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED))
    with zipfile.ZipFile(out, "w", method) as file:
        if draw.random() < 0.4:
            for i in range(size // 400):
                file.writestr(draw.choice((f"about.k{i}.npy", f"k{i}.npy", f"parameters.w{i}.npy")), _npy(np.zeros(1)))
        elif method == zipfile.ZIP_STORED:
            file.writestr("embeddings.npy", _npy(np.zeros((size // 8 // 4, 4))))
        else:
            count = 5 * 10**6 if method == zipfile.ZIP_DEFLATED else 10**6
            file.writestr(
                draw.choice(("embeddings.npy", "mask.npy", "about.npy", "attn.npy")), _npy(np.zeros((1, count)))
            )
    return out.getvalue()


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array)
    return out.getvalue()


def worksheet(draw: random.Random, size: int) -> bytes:
    n = draw.choice((5, 10**9, "9" * 400, size // 30))
    ranges = f"<1> to <{n}>: weights[1][0:{n}]\n"
    gaps = "".join(f"<{i}>0.5 " for i in range(size // 12)) if draw.random() < 0.6 else ""
    legend = "".join(f"<{i}>: weights[0][{i % 2}]\n" for i in range(draw.choice((0, 1, size // 40))))
    return (gaps + "\n\n" + draw.choice((ranges, ranges * 50, "")) + legend).encode()


def header(draw: random.Random, size: int) -> bytes:
    """A safetensors file with many tensors, or a header of anything."""
    members = [
        f'"{draw.choice(("about.", "", "parameters."))}k{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        for i in range(size // 60)
    ]
    text = ("{" + ",".join(members) + "}").encode() if draw.random() < 0.5 else repeated(draw, size)
    return len(text).to_bytes(8, "little") + text


MAKERS: dict[str, tuple[Callable[[random.Random, int], bytes], tuple[str, ...]]] = {
    "repeated pieces": (repeated, ("json", "csv", "tsv", "npz", "npy", "safetensors", "md")),
    "many keys": (many_keys, ("json",)),
    "a long text": (long_text, ("json",)),
    "many numbers": (many_numbers, ("json", "csv", "tsv")),
    "many tokens": (many_tokens, ("json", "csv")),
    "an archive": (archive, ("npz",)),
    "a worksheet": (worksheet, ("md",)),
    "a long header": (header, ("safetensors",)),
}


@cache
def checked_problem() -> attncli.Problem:
    return validate(PROBLEM)


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield what becomes of the inputs of some indices; the harness measures what they take."""
    for i in indices:
        draw = random.Random(f"{seed} {i}")
        kind = draw.choice([*MAKERS])
        make, suffixes = MAKERS[kind]
        suffix = draw.choice(suffixes)
        data = make(draw, draw.choice((10**3, 10**4, 10**5, MAX_BYTES)))[:MAX_BYTES]
        path = folder / f"x.{suffix}"
        path.write_bytes(data)
        outcome = Outcome(kind, content=data, suffix=suffix)
        are_figures = suffix == "md" or draw.random() < 0.3
        yield measured_outcome(lambda made=outcome, path=path, are=are_figures: read_and_plan(made, path, are))


def read_and_plan(outcome: Outcome, path: Path, are_figures: bool) -> Outcome:
    """Do all that is done before torch is loaded."""
    try:
        if are_figures:
            figures = read_figures(str(path))
            step = "weights" if any(one.step is None for one in figures.steps) else None
            prepare(checked_problem(), attncli.Variant(), figures, step=step)
        else:
            make_plan(attncli.read(path), keep=["entropy"])
    except AttnError as error:
        return outcome._replace(code=error.code)
    except Exception as error:
        return outcome._replace(fault_kind="bug", fault=describe_exception(error))
    return outcome
