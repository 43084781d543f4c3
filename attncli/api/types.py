"""The types of public signatures: what can be an array, an input, and the keywords that functions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import IO, TYPE_CHECKING, Literal, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from attncli.arrays import ArrayLike as ArrayLike
    from attncli.arrays import SupportsArray
    from attncli.types import Attention, Problem
    from attncli.variant import Variant


class SupportsColumns(Protocol):
    """A data frame: of pandas, Polars, PyArrow."""

    @property
    def columns(self) -> object: ...


TextFormat: TypeAlias = Literal["table", "plain", "markdown", "latex", "csv", "tsv", "json", "ndjson"]
PageFormat: TypeAlias = Literal["table", "plain", "markdown", "latex", "json"]
if TYPE_CHECKING:
    Path: TypeAlias = str | PathLike[str]
    Source: TypeAlias = (
        Problem | ArrayLike | SupportsColumns | Mapping[str, object] | Path | IO[bytes] | IO[str] | Attention
    )
    VariantLike: TypeAlias = Variant | str | Mapping[str, object]
    Tokens: TypeAlias = Sequence[str] | Sequence[Sequence[str]] | SupportsArray | PathLike[str]
    Steps: TypeAlias = str | Sequence[str] | set[str] | frozenset[str]
    Selections: TypeAlias = (
        str | Sequence[str] | Mapping[str, str | int | slice[int | None, int | None, int | None] | Sequence[int]]
    )
    FigureSource: TypeAlias = Mapping[str, ArrayLike] | ArrayLike | Path | Attention
    Field: TypeAlias = ArrayLike | Path | SupportsColumns  # a path: the file that holds it


class ReadingOptions(TypedDict, total=False):
    """How a file or a data frame is read: `--input-format` and its like."""

    input_format: str
    token_column: str | int
    columns: str | Sequence[str]
    drop: str | Sequence[str]
    header: Literal["yes", "no"] | bool
    separator: Literal["comma", "semicolon", "tab", "pipe", "space"]
    from_state_dict: str


class FieldOptions(TypedDict, total=False):
    """The fields of a problem, which stand beside an array or replace those of a file (`--with`)."""

    tokens: Tokens
    k_tokens: Tokens
    embeddings: Field
    memory: Mapping[str, object] | Field
    q: Field
    k: Field
    v: Field
    past: Mapping[str, object]
    parameters: Mapping[str, object]
    w_layout: Literal["in-out", "out-in"]
    bias: Field
    lengths: Field
    positions: Field
    k_positions: Field
    segments: Field
    k_segments: Field
    dropout_mask: Field
    about: object
    id: str | float
    meta: Mapping[str, object]
    expected: Mapping[str, object]


class ChoiceOptions(TypedDict, total=False):
    """What to compute: the command line's options by their names, and its short forms."""

    projection: str
    heads: int
    kv_heads: int
    kv_map: Literal["interleave", "tile"]
    qk_norm: str
    position: str
    score: str
    scale: float | str
    softcap: float | str
    temperature: float | str
    log_n: float | str
    chain: str | Sequence[str]
    mask: str | Sequence[str] | ArrayLike | PathLike[str]  # a mask by name, or the booleans themselves
    normalizer: str
    sink: str
    dropout: float | str
    head_mixing: str
    empty_rows: Literal["zero", "nan", "uniform", "error"]
    align: Literal["top-left", "bottom-right"]
    mask_by: Literal["position", "index"]
    seed: int
    dtype: object  # "float32", numpy.float32, torch.float32
    device: object  # "cpu", "cuda:0", torch.device("cuda:0")
    schedule: Literal["dense", "tiled", "fused"]
    causal: bool
    window: str | tuple[int, int]
    rope: bool
    alibi: bool


class SharedOptions(ChoiceOptions, FieldOptions, ReadingOptions, total=False):
    """Every keyword that `attend`, `check` and `explain` share."""


class Options(SharedOptions, total=False):
    """The keywords of `attend` and `explain`; of `check`, `layout` is that of the figures."""

    layout: Literal["bhtd", "bthd", "htd", "thd"]
