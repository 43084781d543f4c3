"""Output formats, by name and suffix. A writer or view registers itself with `output_format`, and stands in `FORMAT_MODULES`;
a command asks `choose_output_format` for one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias, get_args

from attncli.atomic_file import atomic_write, refuse_link, to_bytes
from attncli.errors import OptionError
from attncli.text import join_names, shorten, suggestion
from attncli.types import Attention, Step

FigureKind = Literal["heat", "flow", "heads"]  # heat maps, where one query looks, one head against another
FigureFormat = Literal["png", "svg", "pdf"]
FigureStyle = Literal["light", "dark"]


@dataclass(frozen=True)
class FigureOptions:
    """How a figure is drawn."""

    steps: tuple[str, ...] = ()  # which are drawn; none: the weights
    kind: FigureKind | None = None  # None: bars for a single query, else heat maps
    width: float | None = None  # in inches; None: as the cells need it
    dpi: int = 200
    style: FigureStyle = "light"
    cmap: str | None = None  # the name of a colour map of matplotlib; None: the style's own
    title: str = ""


# What is shaded: nothing, the cells of the weights, those of every step, or maps are drawn, a pixel for each number.
Heat: TypeAlias = Literal["off", "weights", "steps", "map"]
Normalize: TypeAlias = Literal["full", "row"]  # what the shades go up to: the largest of a step, or of each row


@dataclass(frozen=True)
class RenderOptions:
    """How a result is shown to people; numbers in data formats do not depend on it."""

    precision: int = 4  # digits after the point, where people read
    width: int | None = None  # columns of the terminal; None: no terminal, nothing is left out or folded
    is_terminal: bool = False  # the output is a terminal
    color: bool = False
    heat: Heat = "off"
    normalize: Normalize | None = None  # None: each row for many weights, else the step
    has_unicode: bool = True  # the console can show more than ASCII
    bare: bool = False  # JSON: without what is the same in every record
    tidy: bool = False  # CSV, Parquet: a row for each number, of one step too
    standalone: bool = False  # LaTeX: a whole document
    shared_js: bool = False  # HTML: the script is in a file of its own
    figure: FigureOptions = field(default_factory=FigureOptions)


@dataclass(frozen=True)
class StepShape:
    """The shape of a step, which is known before it is computed."""

    name: str
    axes: tuple[str, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of_step(cls, step: Step) -> StepShape:
        """Return the shape of a step that has been computed."""
        return cls(step.name, step.axes, tuple(step.values.shape))

    @property
    def is_matrix(self) -> bool:
        """Whether it has a number for each query and key."""
        return self.axes[-2:] == ("query", "key")

    @property
    def panel_axes(self) -> tuple[str, ...]:
        """The axes that one table or panel shows; there is one for each index on the others."""
        return self.axes[-1:] if self.axes[-1] == "query" else self.axes[-2:]

    def length(self, axis: str) -> int:
        """Return how long an axis is; 1 where the step lacks it."""
        return self.lengths[self.axes.index(axis)] if axis in self.axes else 1


Codec = Literal["attn", "attn.json", "utf-8"]  # the error handler for a console that is not UTF-8, or utf-8 itself
# Piece by piece where it is large: the first pieces are written before the last are made.
Content = str | bytes | Iterable[str] | Sequence[bytes | memoryview]
Writer = Callable[[Attention, RenderOptions], Content]
LayersWriter = Callable[[Sequence[tuple[str, Attention]], RenderOptions], Content]  # results with their names


@dataclass(frozen=True)
class Format:
    """One output format: (result, render options) → text, or bytes for a file, whole or in pieces."""

    name: str
    suffixes: tuple[str, ...]
    write: Writer
    is_binary: bool = False
    encode: Callable[[Attention, RenderOptions], bytes] | None = None  # the bytes of a file, sooner than by `write`
    console_errors: Codec = "attn"
    unsupported_dtypes: tuple[str, ...] = ()  # dtypes it cannot hold, and widens
    shape_options: tuple[
        str, ...
    ] = ()  # of `bare`, `tidy`, `standalone`, `shared_js`, `heat` and `normalize` in RenderOptions, those that it heeds
    is_table: bool = False  # its rows say which result they are of, so that a batch can write all results as one file
    shows_workings: bool = False  # it shows how the numbers of a small problem come about
    max_numbers: int | None = None  # that it can hold
    write_layers: LayersWriter | None = None  # several results as one, such as the layers of a model
    shared_file: Callable[[], tuple[str, str]] | None = None  # name and text of what files share under `shared_js`
    # (file, plan, compute) → the result, whose steps too large for memory are written to the file as they are computed
    stream_writer: Callable[..., Attention] | None = None
    default_steps: tuple[str, ...] = ()  # the steps that are computed where none is named; none: those of a first look
    require: Callable[[], None] | None = None  # refuses to write where a library is missing
    # (shapes of the steps, options) refuses what cannot be shown of a result, before it is computed
    check_shapes: Callable[[Sequence[StepShape], RenderOptions], None] | None = None
    # (result, options) → what is not shown of the result, "code: sentence"
    find_warnings: Callable[[Attention, RenderOptions], tuple[str, ...]] | None = None

    def make_bytes(self, attention: Attention, options: RenderOptions) -> bytes:
        """Return a result as the bytes of a file."""
        if self.encode is not None:
            return self.encode(attention, options)
        return to_bytes(self.write(attention, options))

    def prepare_result(self, attention: Attention, options: RenderOptions) -> Attention:
        """The result as this format can hold it: a dtype it lacks is widened, and warnings say what is not as it was."""
        warnings = self.find_warnings(attention, options) if self.find_warnings else ()
        if attention.dtype in self.unsupported_dtypes:
            widened = f"widened: {self.name} cannot hold {attention.dtype}, so the steps are written as float32 with the same values"
            warnings = (*warnings, widened)
        return replace(attention, warnings=(*attention.warnings, *warnings)) if warnings else attention


OUTPUT_FORMATS: dict[str, Format] = {}


def output_format(name: str, *suffixes: str, **traits: Any) -> Callable[[Writer], Writer]:
    """Register an output format; its traits are the further fields of `Format`."""

    def register(function: Writer) -> Writer:
        OUTPUT_FORMATS[name] = Format(name, suffixes, function, **traits)
        return function

    return register


# Format name → its suffixes, and the module that registers it: what is asked for alone is imported.
FORMAT_MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "csv": ((".csv",), "attncli.writers.csv"),
    "tsv": ((".tsv",), "attncli.writers.csv"),
    "json": ((".json",), "attncli.writers.json"),
    "ndjson": ((".ndjson", ".jsonl"), "attncli.writers.json"),
    "npz": ((".npz",), "attncli.writers.npz"),
    "safetensors": ((".safetensors",), "attncli.writers.safetensors"),
    "parquet": ((".parquet",), "attncli.writers.parquet"),
    "feather": ((".feather", ".arrow"), "attncli.writers.parquet"),
    "table": ((".txt",), "attncli.views.tables"),
    "plain": ((), "attncli.views.text"),
    "markdown": ((".md",), "attncli.views.text"),
    "latex": ((".tex",), "attncli.views.latex"),
    "png": ((".png",), "attncli.views.figures.formats"),
    "svg": ((".svg",), "attncli.views.figures.formats"),
    "pdf": ((".pdf",), "attncli.views.figures.formats"),
    "html": ((".html", ".htm"), "attncli.views.pages.page"),
}


def load_output_format(name: str) -> Format:
    """One output format, by its name in `FORMAT_MODULES`."""
    if name not in OUTPUT_FORMATS:
        _, module = FORMAT_MODULES[name]
        import_module(module)
    return OUTPUT_FORMATS[name]


def load_output_formats() -> Mapping[str, Format]:
    """Every output format."""
    return {name: load_output_format(name) for name in FORMAT_MODULES}


FIGURE_FORMATS = get_args(FigureFormat)
# Formats that write the same bytes to a file, so that each may have the other's suffix.
_SAME_BYTES = ("json", "ndjson")
_SUFFIX_OF_ANY_TEXT = ".txt"


PACKED_SUFFIXES = (".gz", ".zst")


def split_packed_suffix(path: str) -> tuple[PurePath, str]:
    """Split off the suffix of a packed file: x.csv.gz → (x.csv, ".gz"); x.csv → (x.csv, "")."""
    packed = PurePath(path)
    suffix = packed.suffix.lower()
    return (packed.with_suffix(""), suffix) if suffix in PACKED_SUFFIXES else (packed, "")


def _refuse_packing(path: str, chosen: Format) -> None:
    """Refuse to pack a format that is no text.

    Raises:
        OptionError: the file is to be packed, and the format is binary.
    """
    unpacked, packing = split_packed_suffix(path)
    if packing and chosen.is_binary:
        message = f"{chosen.name} is binary, but only text can be packed"
        raise OptionError("bad-option", message, help=f"-o {shorten(str(unpacked))}")


def _refuse_other_suffix(path: str, chosen: Format) -> None:
    """Refuse a file whose suffix says another format than the one that is named.

    Raises:
        OptionError: it does.
    """
    unpacked, packing = split_packed_suffix(path)
    suffix = unpacked.suffix.lower()
    names = [name for name, (suffixes, _) in FORMAT_MODULES.items() if suffix in suffixes]
    if not names or chosen.name in names or (chosen.name in _SAME_BYTES and names[0] in _SAME_BYTES):
        return
    if suffix == _SUFFIX_OF_ANY_TEXT and not chosen.is_binary:
        return
    own_suffix = chosen.suffixes[0] if chosen.suffixes else _SUFFIX_OF_ANY_TEXT
    raise OptionError(
        "bad-option",
        f"--format {chosen.name} contradicts the suffix of {shorten(path)}, which stands for {names[0]}",
        help=f"--format {names[0]}, or a file called {shorten(unpacked.stem)}{own_suffix}{packing}",
    )


_SHADED_FORMAT = "--format table, or -o FILE.txt"


def refuse_unused_shape(
    format: Format, *, bare: bool, tidy: bool, standalone: bool, shared_js: bool, heat: str, normalize: Normalize | None
) -> None:
    """Refuse `--bare`, `--tidy`, `--standalone`, `--shared-js`, `--heat` and `--normalize` where the format does not heed them.

    Raises:
        OptionError: one is asked for, and the format does not; or `--normalize` where nothing is shaded.
    """
    if bare and "bare" not in format.shape_options:
        message = f"--bare leaves out fields of JSON, but {format.name} is not JSON"
        raise OptionError("bad-option", message, help="--json, or --format ndjson")
    if tidy and "tidy" not in format.shape_options:
        message = f"--tidy is for CSV and Parquet, but this is {format.name}"
        raise OptionError("bad-option", message, help="--format csv, or --format tsv")
    if standalone and "standalone" not in format.shape_options:
        message = f"--standalone makes a whole document in LaTeX, but this is {format.name}"
        raise OptionError("bad-option", message, help="--format latex")
    if shared_js and "shared_js" not in format.shape_options:
        message = f"--shared-js is for pages in HTML, but this is {format.name}"
        raise OptionError("bad-option", message, help="-o FILE.html")
    if heat in ("on", "map") and "heat" not in format.shape_options:
        message = f"--heat {heat} shades the numbers of tables, but this is {format.name}"
        raise OptionError("bad-option", message, help=_SHADED_FORMAT)
    if normalize is not None and "normalize" not in format.shape_options:
        message = f"--normalize chooses the scale of the shades of tables, but this is {format.name}"
        raise OptionError("bad-option", message, help=_SHADED_FORMAT)
    if normalize is not None and heat == "off":
        message = "--normalize chooses the scale of the shades, but --heat off shows none"
        raise OptionError("bad-option", message, help="--heat on")


def choose_output_format(
    path: str | None, format_name: str | None, default: str = "table", offered: Collection[str] = FORMAT_MODULES
) -> Format:
    """The format that is named, or else that the suffix of a file names; an error names those that are offered.

    Raises:
        OptionError: there is no such format, none for the suffix, or the two differ; or it is a binary one and there is
            no file.
    """
    if format_name is None and path is not None:
        unpacked, packing = split_packed_suffix(path)
        suffix = unpacked.suffix.lower()
        names = [name for name, (suffixes, _) in FORMAT_MODULES.items() if suffix in suffixes]
        if not names:
            has_none = f"{shorten(path)} has no suffix{f' before {packing}' if packing else ''}"
            raise OptionError(
                "unknown-format",
                f"there is no output format for {suffix!r}" if suffix else has_none,
                help=f"add --format {join_names(offered, 'or')}",
            )
        chosen = load_output_format(names[0])
    else:
        name = format_name or default
        if name not in FORMAT_MODULES:
            raise OptionError(
                "unknown-format", f"there is no format called {name!r}", help=suggestion(name, FORMAT_MODULES)
            )
        chosen = load_output_format(name)
        if path is not None:
            _refuse_other_suffix(path, chosen)
    if path is not None:
        _refuse_packing(path, chosen)
    if chosen.is_binary and path is None:
        raise OptionError(
            "binary-output",
            f"{chosen.name} is binary, so it can be written only to a file",
            help=f"--output result{chosen.suffixes[0]}",
        )
    return chosen


def write_shared_file(format: Format, folder: Path) -> None:
    """Write what the files of a format share into their folder, unless it is there; its name changes with its content.

    What is there by that name and differs is replaced: pages would run a script that somebody else has left.

    Raises:
        CannotError: it cannot be written, or a link is in its place.
    """
    if format.shared_file is None:
        return
    name, text = format.shared_file()
    path, content = folder / name, text.encode()
    refuse_link(folder, name)
    if not (path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content):
        with atomic_write(path) as file:
            file.write(content)
