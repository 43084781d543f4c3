"""Define what is passed around: `Problem` and its fields, `Grid` (where scores sit), `Step` and `Attention` (a result).

Axes are named everywhere: b batch, h head, g kv head, n query, m key, s new key, d dim. Nothing in this module computes,
and nothing imports torch or numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from attncli.arrays import as_numpy
from attncli.errors import AbsentStepError, InputError, OptionError, UnknownAttributeError
from attncli.text import closest, join_names, quote_value, shorten, suggestion

if TYPE_CHECKING:
    from torch import Generator as Generator
    from torch import Tensor as Tensor

    from attncli.arrays import ArrayLike, ArrayOrTensor, SupportsArray
    from attncli.arrays import NumpyArray as NumpyArray
    from attncli.derivation import Intermediate
else:
    Generator = NumpyArray = Tensor = Any  # annotations that neither load numpy nor torch

Array: TypeAlias = Any  # a numpy array, or a tensor where tensors came in; shape comments say which
FieldKind = Literal["floats", "booleans", "integers", "texts", "text", "object", "expected", "any", "id", "meta"]
Json: TypeAlias = dict[str, Any]  # an object, as it was read or as it will be written
Labels: TypeAlias = tuple[Any, ...]  # of tokens; for a batch, a tuple of them per item
NONFINITE_SPELLINGS = ("Infinity", "-Infinity", "NaN")  # how JSON spells them here, as Protocol Buffers does
SAFETENSORS_DTYPES = {  # their names → numpy's; of BF16, which numpy lacks, that of its bits
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "BF16": "<u2",
}  # fmt: skip


def to_json_number(value: float) -> float | str:
    """A number as JSON holds it: one that is not finite as a string."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# ── what a problem may hold ──────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Field:
    """One field of a problem: readers, schema, `--with` and validation all follow this declaration."""

    name: str  # dotted, as NPZ and safetensors spell it
    kind: FieldKind
    shapes: tuple[str, ...] = ()  # every shape it may have, axes by name; "*" broadcasts to B H Tq Tk
    help: str = ""
    finite: bool = True
    allowed_values: tuple[str, ...] = ()

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        return (0, 1, 2, 3, 4) if self.shapes == ("*",) else tuple(dict.fromkeys(len(s.split()) for s in self.shapes))


def _declared(
    *declarations: Field,
    on_workers: Literal["values", "shape", "nothing"] = "values",
    is_shape_only: bool = False,
    is_group: bool = False,
) -> Any:
    """Declare a field of `Problem`, None by default, with what files may hold of it: itself, or fields within it.

    Args:
        declarations: without the problem field's own name.
        on_workers: what of it the tiles of a long run need on a cluster.
        is_shape_only: whether a plan's outline depends on no more of it than its shape and dtype.
        is_group: whether it is a mapping whose items are fields.
    """
    metadata = {
        "declarations": declarations,
        "on_workers": on_workers,
        "is_shape_only": is_shape_only,
        "is_group": is_group,
    }
    return field(default=None, metadata=metadata)


def _declared_mapping(*declarations: Field, is_group: bool = False) -> Any:
    """Declare a mapping that is empty by default, and that tiles do not need."""
    metadata = {"declarations": declarations, "on_workers": "nothing", "is_shape_only": True, "is_group": is_group}
    return field(default_factory=dict, metadata=metadata)


@dataclass(frozen=True)
class Problem:
    """What an input holds: lists, numpy arrays or tensors, by the names of the file's fields.

        Problem(embeddings=[[1.0, 0.0], [0.0, 1.0]], tokens=["a", "b"])

    `attend` and the readers validate it: lists become arrays, which are then rectangular and go together.
    """

    tokens: Labels | None = _declared(
        Field("", "texts", ("T", "B T"), "labels of the tokens; may repeat; 0 … T−1 where there are none"),
        on_workers="nothing",
        is_shape_only=True,
    )
    k_tokens: Labels | None = _declared(
        Field("", "texts", ("Tk", "B Tk"), "labels of the keys, where q, k and v are given"), on_workers="nothing"
    )
    embeddings: Array = _declared(
        Field("", "floats", ("T d", "B T d"), "one sequence of vectors, or a batch of them"),
        on_workers="shape",
        is_shape_only=True,
    )
    memory: Mapping[str, Array] | None = _declared(
        Field("tokens", "texts", ("Tk", "B Tk"), "labels of the tokens attended to"),
        Field("embeddings", "floats", ("Tk e", "B Tk e"), "cross-attention: keys and values come from here"),
        on_workers="nothing",
        is_group=True,
    )
    q: Array = _declared(
        Field("", "floats", ("Tq d", "B Tq Hd", "B H Tq d"), "queries, already projected", finite=False),
        on_workers="shape",
    )
    k: Array = _declared(
        Field("", "floats", ("Tk d", "B Tk Hd", "B H Tk d"), "keys, already projected", finite=False),
        on_workers="shape",
    )
    v: Array = _declared(
        Field("", "floats", ("Tk d", "B Tk Hd", "B H Tk d"), "values; without them there is no context", finite=False),
        on_workers="nothing",
    )
    layout: str | None = _declared(
        Field(
            "",
            "text",
            (),
            "the layout of q, k, v of rank 4; htd and thd for rank 3 without a batch",
            allowed_values=("bhtd", "bthd", "htd", "thd"),
        )
    )
    past: Mapping[str, Array] | None = _declared(
        Field("k", "floats", ("B H P d",), "cached keys, as they were stored", finite=False),
        Field("v", "floats", ("B H P d",), "cached values", finite=False),
        Field("tokens", "texts", ("P", "B P"), "labels of the cached tokens"),
        on_workers="nothing",
        is_group=True,
    )
    parameters: Mapping[str, Array] = _declared_mapping(is_group=True)
    w_layout: str | None = _declared(
        Field("", "text", (), "in-out: x @ W; out-in: as nn.Linear stores it", allowed_values=("in-out", "out-in"))
    )
    mask: Array = _declared(Field("", "booleans", ("*",), "true = may attend; broadcasts to (B, H, Tq, Tk)"))
    bias: Array = _declared(
        Field("", "floats", ("*",), "added to the scores; −∞ allowed; broadcasts to (B, H, Tq, Tk)", finite=False)
    )
    lengths: Array = _declared(Field("", "integers", ("B",), "keys at and past the length are padding"))
    positions: Array = _declared(Field("", "integers", ("T", "B T"), "positions of the queries"))
    k_positions: Array = _declared(Field("", "integers", ("Tk", "B Tk"), "positions of the keys, past and new"))
    segments: Array = _declared(Field("", "integers", ("T", "B T"), "the document of each token"))
    k_segments: Array = _declared(Field("", "integers", ("Tk", "B Tk"), "the document of each key"))
    dropout_mask: Array = _declared(Field("", "booleans", ("*",), "true = kept; wins over drawing"))
    variant: Json = _declared_mapping(Field("", "object", (), "the choices, by name; `name` is a preset"))
    about: object = _declared(
        Field("", "any", (), "source, licence, notes; carried along, never used"),
        on_workers="nothing",
        is_shape_only=True,
    )
    id: str | float | None = _declared(
        Field("", "id", (), "a text or a number that names the problem; it is copied to the result unchanged"),
        on_workers="nothing",
        is_shape_only=True,
    )
    meta: Json | None = _declared(
        Field("", "meta", (), "an object of anything about the problem; it is copied to the result unchanged"),
        on_workers="nothing",
        is_shape_only=True,
    )
    expected: Json = _declared_mapping(Field("", "expected", (), "figures to be checked, step by step"))
    source: str = ""  # the file it came from, for messages and results
    line: int | None = None  # its line there, counted from 1, where the file holds a problem a line
    notes: tuple[str, ...] = ()  # what a reader has detected, which is reported on standard error
    validated: bool = field(default=False, repr=False)

    def with_fields(self, **fields: object) -> Problem:
        """Return the problem with other fields; as `replace`, without the time that takes."""
        problem = object.__new__(Problem)
        problem.__dict__.update(self.__dict__, **fields)
        return problem

    if TYPE_CHECKING:  # what may come in; validation makes arrays of it

        def __init__(
            self,
            tokens: Sequence[str] | Sequence[Sequence[str]] | SupportsArray | None = None,
            k_tokens: Sequence[str] | Sequence[Sequence[str]] | SupportsArray | None = None,
            embeddings: ArrayLike | None = None,
            memory: Mapping[str, object] | None = None,
            q: ArrayLike | None = None,
            k: ArrayLike | None = None,
            v: ArrayLike | None = None,
            layout: Literal["bhtd", "bthd", "htd", "thd"] | None = None,
            past: Mapping[str, object] | None = None,
            parameters: Mapping[str, object] = ...,
            w_layout: Literal["in-out", "out-in"] | None = None,
            mask: ArrayLike | None = None,
            bias: ArrayLike | None = None,
            lengths: ArrayLike | None = None,
            positions: ArrayLike | None = None,
            k_positions: ArrayLike | None = None,
            segments: ArrayLike | None = None,
            k_segments: ArrayLike | None = None,
            dropout_mask: ArrayLike | None = None,
            variant: Mapping[str, object] = ...,
            about: object = None,
            id: str | float | None = None,
            meta: Mapping[str, object] | None = None,
            expected: Mapping[str, object] = ...,
            source: str = "",
            line: int | None = None,
            notes: tuple[str, ...] = (),
            validated: bool = False,
        ) -> None: ...


def _refuse_unknown_fields(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate the constructor of `Problem` so that a field which there is not raises InputError, and the nearest is offered."""

    @wraps(init)
    def check_and_init(self: Problem, *args: object, **values: object) -> None:
        if args:
            message = "a problem takes its fields by name"
            raise InputError("wrong-type", message, help="Problem(embeddings=x), or Problem(q=q, k=k, v=v)")
        if not values.keys() <= self.__dataclass_fields__.keys():
            name = next(name for name in values if name not in self.__dataclass_fields__)
            help = suggestion(name, INPUT_NAMES)
            raise InputError("unknown-field", f"a problem has no field {shorten(name)!r}", help=help)
        self.__dict__.update(_PROBLEM_DEFAULTS, **values)  # as `init` would, in a third of the time
        for name in _MAPPINGS_OF_PROBLEM - values.keys():
            self.__dict__[name] = {}

    return check_and_init


_PROBLEM_DEFAULTS: Json = {item.name: None if item.default is MISSING else item.default for item in fields(Problem)}
_MAPPINGS_OF_PROBLEM = frozenset(item.name for item in fields(Problem) if item.default_factory is dict)


Problem.__init__ = _refuse_unknown_fields(Problem.__init__)  # type: ignore[method-assign]  # of which type checkers know nothing


def _with_full_name(group: str, declaration: Field) -> Field:
    return replace(declaration, name=f"{group}.{declaration.name}" if declaration.name else group)


_INPUTS = [item for item in fields(Problem) if item.metadata]
INPUT_NAMES = frozenset(item.name for item in _INPUTS)  # what a file may hold
NESTED_FIELDS = tuple(item.name for item in _INPUTS if item.metadata["is_group"])  # those that hold fields
SHAPE_ONLY_FIELDS = frozenset(
    item.name for item in fields(Problem) if not item.metadata or item.metadata["is_shape_only"]
)
_DECLARATIONS = [_with_full_name(item.name, one) for item in _INPUTS for one in item.metadata["declarations"]]
FIELDS: Mapping[str, Field] = {declaration.name: declaration for declaration in _DECLARATIONS}  # by dotted name


# ── where scores sit ─────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Grid:
    """Where each score sits: what masks, positions and links may know of it beside its value.

    Every array broadcasts to (b, h, n, m). They are numpy arrays in the plan, and tensors in the core.
    """

    q_pos: Array  # (b, 1, n, 1)  positions i of the queries
    k_pos: Array  # (b, 1, 1, m)  positions j of the keys
    q_idx: Array  # (1, 1, n, 1)  indices I, counting on from the past
    k_idx: Array  # (1, 1, 1, m)  indices J
    q_seg: Array = None  # (b, 1, n, 1)  documents
    k_seg: Array = None  # (b, 1, 1, m)
    lengths: Array = None  # (b, 1, 1, 1)  how many keys are no padding
    problem_mask: Array = None  # the problem's mask
    bias: Array = None  # the problem's bias
    key_count: int = 0  # of all keys, whether they are in this grid or not
    max_length: int = 0  # one more than the largest index of a query or a key
    head_count: int = 1  # of all query heads
    head_idx: Array = None  # (1, h, 1, 1)  which heads are in this grid
    parameters: Mapping[str, Array] = field(default_factory=dict)  # learned arrays of the parts that act on scores
    visible: Array = None  # what mask, lengths and bias together let through
    q_order: Array = None  # (1, 1, n, 1)  where queries stand in the sequence, if masks go by that and not by positions
    k_order: Array = None  # (1, 1, 1, m)

    @property
    def for_masks(self) -> Grid:
        """The grid as masks see it: their positions are places in the sequence under `mask_by=index`."""
        if self.q_order is None:
            return self
        return replace(self, q_pos=self.q_order, k_pos=self.k_order, q_order=None, k_order=None)


# ── what comes out ───────────────────────────────────────────────────────────────────────────────
AXES = ("batch", "head", "kv_head", "query", "key", "new_key", "dim", "rank", "in_dim", "out_dim")
# Columns of tidy rows that hold tokens → the axes that they are tokens of.
TOKEN_AXES: Mapping[str, tuple[str, ...]] = {"query_token": ("query",), "key_token": ("key", "new_key")}

_QUERY_KEY_AXES = ("query", "key")
_MATRIX_AXES = ("in_dim", "out_dim")
# The learned arrays of a projection, which are shown as steps where they are asked for, each before the step that it makes.
PARAMETER_STEPS: Mapping[str, tuple[str, ...]] = {
    f"{kind}_{letter}": _MATRIX_AXES if kind == "w" else _MATRIX_AXES[1:] for letter in "qkvo" for kind in "wb"
}
_PARAMETERS_OF_INPUT = {name: axes for name, axes in PARAMETER_STEPS.items() if not name.endswith("o")}
_PARAMETERS_OF_OUTPUT = {name: axes for name, axes in PARAMETER_STEPS.items() if name.endswith("o")}
# Every step that there can be, in order, with its axes where the problem has them all; the links of the chain add theirs.
BASE_STEPS: Mapping[str, tuple[str, ...]] = {
    "positioned_embeddings": ("batch", "query", "dim"),
    **_PARAMETERS_OF_INPUT,
    "q": ("batch", "head", "query", "dim"),
    "k": ("batch", "kv_head", "new_key", "dim"),
    "v": ("batch", "kv_head", "new_key", "dim"),
    "normed_q": ("batch", "head", "query", "dim"),
    "normed_k": ("batch", "kv_head", "new_key", "dim"),
    "positioned_q": ("batch", "head", "query", "dim"),
    "positioned_k": ("batch", "kv_head", "new_key", "dim"),
    "present_k": ("batch", "kv_head", "key", "dim"),
    "present_v": ("batch", "kv_head", "key", "dim"),
    "scores": ("batch", "head", *_QUERY_KEY_AXES),
    "mask": ("batch", "head", *_QUERY_KEY_AXES),
    "max_score": ("batch", "head", "query"),
    "log_sum_exp": ("batch", "head", "query"),
    "entropy": ("batch", "head", "query"),
    "visible_keys": ("batch", "head", "query"),
    "sink_weights": ("batch", "head", "query"),
    "weights": ("batch", "head", *_QUERY_KEY_AXES),
    "dropout_weights": ("batch", "head", *_QUERY_KEY_AXES),
    "mixed_weights": ("batch", "head", *_QUERY_KEY_AXES),
    "top_keys": ("batch", "head", "query", "rank"),
    "top_weights": ("batch", "head", "query", "rank"),
    "head_context": ("batch", "head", "query", "dim"),
    "normed_context": ("batch", "head", "query", "dim"),
    "context": ("batch", "query", "dim"),
    **_PARAMETERS_OF_OUTPUT,
    "output": ("batch", "query", "dim"),
}
DEFAULT_STEPS = ("scores", "scaled_scores", "masked_scores", "weights", "context", "output")  # where none is named
PROJECTED_STEPS = ("q", "k", "v")  # and these, where a projection makes them


_MAX_SHOWN_NUMBERS = 100  # of one step, where it is printed


@dataclass(frozen=True, repr=False, eq=False)  # arrays have no equality that is one answer
class Step:
    """One line of the derivation: its name, its formula, the name of each axis, and the values."""

    name: str
    formula: str
    axes: tuple[str, ...]
    values: ArrayOrTensor  # a NumPy array, or a tensor where tensors came in
    intermediates: Mapping[str, Intermediate] = field(default_factory=dict, repr=False)  # recorded for `attn explain`

    def with_values(self, axes: tuple[str, ...], values: ArrayOrTensor) -> Step:
        """Return the step with other axes and values; as `replace`, without the time that takes."""
        step = object.__new__(Step)
        step.__dict__.update(self.__dict__, axes=axes, values=values)
        return step

    def __getattr__(self, name: str) -> object:
        """Say where the array is, whose attributes and methods are often looked for here.

        Raises:
            UnknownAttributeError: always; Python knows it as AttributeError.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        step = f"result[{self.__dict__.get('name')!r}]"
        help = f"numpy.asarray({step})" if name == "numpy" else f"its array is {step}.values"
        raise UnknownAttributeError("unknown-attribute", f"a step has no attribute {quote_value(name)}", help=help)

    def __getitem__(self, index: object) -> object:
        """Say where the array is, which can be indexed.

        Raises:
            OptionError: always.
        """
        hint = f"its array can be: result[{self.name!r}].values[{index!r}]"
        raise OptionError("bad-option", "a step cannot be indexed", help=hint)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NumpyArray:
        """Return the values for NumPy, as in `numpy.asarray(step)`: those of a tensor outside its graph."""
        import numpy as np

        values = as_numpy(self.values)
        return np.array(values, dtype, copy=copy)  # type: ignore[call-overload]  # NumPy passes both on

    def __dlpack__(self, **options: object) -> object:
        """Hand the values to another library, as in `torch.as_tensor(step)`."""
        values: Array = self.values
        return values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where the values are."""
        kind, number = self.values.__dlpack_device__()
        return int(kind), int(number)

    def __repr__(self) -> str:
        """Name, axes with their lengths, formula, and the values, of which long ones are abbreviated."""
        import numpy as np

        values = as_numpy(self.values)
        sizes = " × ".join(f"{axis} {n}" for axis, n in zip(self.axes, values.shape, strict=True))
        numbers = np.array2string(values, precision=4, suppress_small=True, threshold=_MAX_SHOWN_NUMBERS, edgeitems=3)
        dtype = str(self.values.dtype).removeprefix("torch.")
        return f"{self.name} · {sizes} · {dtype} · {self.formula}\n{numbers}"


class HiddenKeys(Protocol):
    """Which keys are hidden from each query: found when a view asks, a few rows at a time."""

    def is_marked(self, step: str) -> bool:
        """Return whether a hidden key has no number of its own in a step: from the mask on."""
        ...

    def find(self, step: str, batch: int, head: int, queries: Sequence[int]) -> NumpyArray:
        """Return which keys are hidden in a step from queries of one batch item and head: booleans (query, key)."""
        ...


class Workings(Protocol):
    """How the numbers of a problem come about: described when a view asks."""

    def to_record(self, precision: int) -> Json:
        """Return why each step is taken; of a small problem also the lines that explain every query, and what a view needs to
        follow a number that is changed."""
        ...


@dataclass(frozen=True, eq=False)
class Attention:
    """A result: the steps that were kept, in order of computation, and what they were computed from.

    result["weights"].values
    """

    variant: Json  # every choice, as text or number that `Variant` parses
    tokens: Labels  # labels of the queries; for a batch, a tuple of labels per item
    k_tokens: Labels  # labels of the keys
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()  # "code: sentence"
    parameters: Mapping[str, Array] = field(default_factory=dict)  # only those that were drawn
    about: object = None
    source: str = ""  # the name of the problem's input; empty: it came from no file
    line: int | None = None  # the problem's line in it, counted from 1, where it holds a problem a line
    id: str | float | None = None  # the problem's own
    meta: Json | None = None  # the problem's own
    settings: Mapping[str, str] = field(default_factory=dict)  # the choices that settings made → where they were set
    layout: str = "bhtd"
    dtype: str = "float64"
    at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # axis → indices, where some were selected
    summary: tuple[str, ...] = ()  # what was computed, in words, for the head of a page
    past_length: int = 0  # how many keys come from the cache, before the new ones
    hidden_keys: HiddenKeys | None = field(
        default=None, repr=False, compare=False
    )  # None: no key is known to be hidden
    workings: Workings | None = field(default=None, repr=False, compare=False)  # None: they were not asked for

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if isinstance(name, str) and step.name == name:
                return step
        names = [step.name for step in self.steps]
        match = closest(str(name), names)
        help = f"did you mean {match!r}?" if match else f"it holds {join_names(names) or 'none'}"
        raise AbsentStepError("absent-step", f"this result holds no step {quote_value(name)}", help=help)

    def with_fields(self, **fields: object) -> Attention:
        """Return the result with other fields; as `replace`, without the time that takes."""
        attention = object.__new__(Attention)
        attention.__dict__.update(self.__dict__, **fields)
        return attention

    def __contains__(self, name: str) -> bool:
        return isinstance(name, str) and any(step.name == name for step in self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)
