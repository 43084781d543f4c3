"""The nouns: Field and Problem (what an input holds), Grid (where scores sit), Step and Attention (a result).

Axes are named everywhere: b batch, h head, g kv head, n query, m key, s new key, d dim. Nothing here
computes, and nothing here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Generator as Generator
    from torch import Tensor as Tensor
else:
    Generator = Tensor = Any  # parts are annotated without paying for torch

Array: TypeAlias = Any  # a numpy array, or a tensor where tensors came in; shape comments say which
NONFINITE = ("Infinity", "-Infinity", "NaN")  # how JSON spells them here, as Protocol Buffers does


# ── what a problem may hold ──────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Field:
    """One field of a problem: readers, schema, `--with` and the gate all follow this declaration."""

    name: str  # dotted, as NPZ and safetensors spell it
    kind: str  # floats, booleans, integers, texts, text, object, expected, any
    shapes: tuple[str, ...] = ()  # every shape it may have, axes by name; "*" broadcasts to B H Tq Tk
    help: str = ""
    finite: bool = True
    choices: tuple[str, ...] = ()

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        return (0, 1, 2, 3, 4) if self.shapes == ("*",) else tuple(dict.fromkeys(len(s.split()) for s in self.shapes))


_FIELDS = (
    Field("tokens", "texts", ("T", "B T"), "labels of the tokens; may repeat; 0 … T−1 where there are none"),
    Field("k_tokens", "texts", ("Tk", "B Tk"), "labels of the keys, where q, k and v are given"),
    Field("embeddings", "floats", ("T d", "B T d"), "one sequence of vectors, or a batch of them"),
    Field("memory.tokens", "texts", ("Tk", "B Tk"), "labels of the tokens attended to"),
    Field("memory.embeddings", "floats", ("Tk e", "B Tk e"), "cross-attention: keys and values come from here"),
    Field("q", "floats", ("Tq d", "B Tq Hd", "B H Tq d"), "queries, already projected", finite=False),
    Field("k", "floats", ("Tk d", "B Tk Hd", "B H Tk d"), "keys, already projected", finite=False),
    Field("v", "floats", ("Tk d", "B Tk Hd", "B H Tk d"), "values; without them there is no context", finite=False),
    Field(
        "layout",
        "text",
        (),
        "how q, k, v of rank 4 lie; htd for rank 3 without a batch",
        choices=("bhtd", "bthd", "htd"),
    ),
    Field("past.k", "floats", ("B H P d",), "cached keys, as they were stored", finite=False),
    Field("past.v", "floats", ("B H P d",), "cached values", finite=False),
    Field("past.tokens", "texts", ("P", "B P"), "labels of the cached tokens"),
    Field("w_layout", "text", (), "in-out: x @ W; out-in: as nn.Linear stores it", choices=("in-out", "out-in")),
    Field("mask", "booleans", ("*",), "true = may attend; broadcasts to (B, H, Tq, Tk)"),
    Field("bias", "floats", ("*",), "added to the scores; −∞ allowed; broadcasts to (B, H, Tq, Tk)", finite=False),
    Field("lengths", "integers", ("B",), "keys at and past the length are padding"),
    Field("positions", "integers", ("T", "B T"), "positions of the queries"),
    Field("k_positions", "integers", ("Tk", "B Tk"), "positions of the keys, past and new"),
    Field("segments", "integers", ("T", "B T"), "the document of each token"),
    Field("k_segments", "integers", ("Tk", "B Tk"), "the document of each key"),
    Field("dropout_mask", "booleans", ("*",), "true = kept; wins over drawing"),
    Field("variant", "object", (), "the choices, by name; `name` is a preset"),
    Field("about", "any", (), "source, licence, notes; carried along, never used"),
    Field("expected", "expected", (), "figures to be checked, step by step"),
)
FIELDS: Mapping[str, Field] = {f.name: f for f in _FIELDS}


@dataclass(frozen=True)
class Problem:
    """What an input holds (DESIGN §3.1): lists, numpy arrays or tensors, by the names of the file's fields.

    `attend` and the readers pass it through the gate, which checks it and turns lists into arrays;
    after that it is rectangular and everything in it goes together.
    """

    tokens: Any = None
    k_tokens: Any = None
    embeddings: Any = None
    memory: Mapping[str, Any] | None = None
    q: Any = None
    k: Any = None
    v: Any = None
    layout: str | None = None
    past: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    w_layout: str | None = None
    mask: Any = None
    bias: Any = None
    lengths: Any = None
    positions: Any = None
    k_positions: Any = None
    segments: Any = None
    k_segments: Any = None
    dropout_mask: Any = None
    variant: Mapping[str, Any] = field(default_factory=dict)
    about: Any = None
    expected: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # where it came from, for messages
    notes: tuple[str, ...] = ()  # what a reader had to find out, said on standard error
    admitted: bool = field(default=False, repr=False)  # it has passed the gate


# ── where scores sit ─────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Grid:
    """Where each score sits: what masks, positions and links may know of a cell beside its score.

    Every array broadcasts to (b, h, n, m); they are numpy arrays or tensors, whichever is at hand.
    """

    q_pos: Any  # (b, 1, n, 1)  positions i of the queries
    k_pos: Any  # (b, 1, 1, m)  positions j of the keys
    q_idx: Any  # (1, 1, n, 1)  indices I, counting on from the past
    k_idx: Any  # (1, 1, 1, m)  indices J
    q_seg: Any = None  # (b, 1, n, 1)  documents
    k_seg: Any = None  # (b, 1, 1, m)
    lengths: Any = None  # (b, 1, 1, 1)  how many keys are no padding
    given: Any = None  # the problem's mask
    bias: Any = None  # the problem's bias
    keys: int = 0  # how many keys there are, whether they stand here or not
    longest: int = 0  # one more than the largest index there is, of a query or a key
    heads: int = 1  # how many query heads there are
    head: Any = None  # (1, h, 1, 1)  which of them stand here
    parameters: Mapping[str, Any] = field(default_factory=dict)  # learned arrays of the parts that act on scores
    visible: Any = None  # what mask, lengths and bias together let through


# ── what comes out ───────────────────────────────────────────────────────────────────────────────
AXES = ("batch", "head", "kv_head", "query", "key", "new_key", "dim", "rank")

_ROWS = ("query", "key")
# Every step there can be, in order, with the axes that follow batch and head (DESIGN §2).
# A `…` stands for batch, then head, where the problem has them; links add their steps between.
BASE_STEPS: Mapping[str, tuple[str, ...]] = {
    "positioned_embeddings": ("batch", "query", "dim"),
    "q": ("batch", "head", "query", "dim"),
    "k": ("batch", "kv_head", "new_key", "dim"),
    "v": ("batch", "kv_head", "new_key", "dim"),
    "normed_q": ("batch", "head", "query", "dim"),
    "normed_k": ("batch", "kv_head", "new_key", "dim"),
    "positioned_q": ("batch", "head", "query", "dim"),
    "positioned_k": ("batch", "kv_head", "new_key", "dim"),
    "present_k": ("batch", "kv_head", "key", "dim"),
    "present_v": ("batch", "kv_head", "key", "dim"),
    "scores": ("batch", "head", *_ROWS),
    "mask": ("batch", "head", *_ROWS),
    "max_score": ("batch", "head", "query"),
    "log_sum_exp": ("batch", "head", "query"),
    "entropy": ("batch", "head", "query"),
    "visible_keys": ("batch", "head", "query"),
    "sink_weights": ("batch", "head", "query"),
    "weights": ("batch", "head", *_ROWS),
    "dropout_weights": ("batch", "head", *_ROWS),
    "mixed_weights": ("batch", "head", *_ROWS),
    "top_keys": ("batch", "head", "query", "rank"),
    "top_weights": ("batch", "head", "query", "rank"),
    "head_context": ("batch", "head", "query", "dim"),
    "normed_context": ("batch", "head", "query", "dim"),
    "context": ("batch", "query", "dim"),
    "output": ("batch", "query", "dim"),
}
SHOWN = (
    "scores",
    "scaled_scores",
    "masked_scores",
    "weights",
    "context",
    "output",
)  # unless something else is asked for


@dataclass(frozen=True)
class Step:
    """One line of the derivation: its name, its formula, the name of each axis, and the values."""

    name: str
    formula: str
    axes: tuple[str, ...]
    values: Any
    finer: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what parts noted on the way, if asked


@dataclass(frozen=True)
class Attention:
    """A result: the steps that were kept, in order of computation, and what they were computed from."""

    variant: Mapping[str, Any]  # every choice, spelled so that it parses back
    tokens: tuple[Any, ...]  # labels of the queries; for a batch, a tuple of labels per item
    k_tokens: tuple[Any, ...]  # labels of the keys
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()  # "code: sentence"
    parameters: Mapping[str, Any] = field(default_factory=dict)  # those that were drawn
    about: Any = None
    layout: str = "bhtd"
    dtype: str = "float64"
    at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # axis → indices, where some were selected
    summary: tuple[str, ...] = ()  # what was computed, in words, for the head of a page

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"no step {name!r} was kept; there are {', '.join(s.name for s in self.steps)}")

    def __contains__(self, name: str) -> bool:
        return any(step.name == name for step in self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)
