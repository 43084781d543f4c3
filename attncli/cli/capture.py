"""`attn capture`: the attention of a real model, layer by layer, as problems that prove themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attncli.atomic_file import atomic_write, refuse_link
from attncli.cli.environment import Environment
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path, standard_output_writer
from attncli.cli.progress import has_progress
from attncli.errors import CannotError, ExitStatus, InputError, OptionError
from attncli.request import OutputOptions
from attncli.text import pluralize, printable, shorten
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.capture.model import Tokens
    from attncli.capture.model_folder import ModelSource
    from attncli.capture.problems import CapturedLayer
    from attncli.capture.request import CaptureRequest

EXAMPLES = """
    attn capture MiniLM --text 'Hello shiny sun!' --layer 5 -o layer.safetensors
    attn capture MiniLM --texts lines.txt -o layers
    attn capture MiniLM --ids 101,7592,102 --layer 3:6 --from qkv -o layers
    attn capture MiniLM --list
"""
_IDS_OF_LIST = 12  # tokens that --list runs the model on, where no text is given


def capture(
    model: Annotated[
        str,
        typer.Argument(
            help="a folder with config.json and model.safetensors, a .gguf file, or a model of the hub as OWNER/NAME",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    *,
    text: Annotated[str | None, typer.Option("--text", help="the text that the model reads", metavar="TEXT")] = None,
    texts: Annotated[
        str | None, typer.Option("--texts", help="a file with a text on each line, read as one batch", metavar="FILE")
    ] = None,
    ids: Annotated[
        str | None, typer.Option("--ids", help="the numbers of the tokens, instead of a text", metavar="N,…")
    ] = None,
    layer: Annotated[
        str, typer.Option("--layer", help="which layers: all, 5, 3:6 for 3 to 5, decoder.5", metavar="LAYERS")
    ] = "all",
    depth: Annotated[
        Literal["hidden", "qkv"],
        typer.Option("--from", help="begin with what enters the projections, or with q, k and v"),
    ] = "hidden",
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option("--dtype", help="the numbers that the model computes with")
    ] = "float32",
    list_layers: Annotated[
        bool, typer.Option("--list", help="list the layers and how deep each can be read; write no problems")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="a file for one layer, a folder for several, or - for JSON lines",
            metavar="FILE|DIR|-",
            rich_help_panel="Output",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="safetensors, npz or json; of --list table or json",
            metavar="FORMAT",
            rich_help_panel="Output",
        ),
    ] = None,
    environment: Environment,
    verdict_options: OutputOptions,
) -> ExitStatus:
    """Run a model, and write its attention layers as problems whose expected figures are the model's own."""
    from attncli.capture.model_folder import check_request, find_model
    from attncli.capture.request import CaptureRequest, parse_layers

    messages = Messages.from_options(environment, verdict_options)
    layers = parse_layers(layer)
    request = CaptureRequest(
        *_parse_texts(text, texts, ids, is_optional=list_layers), layers=layers, depth=depth, dtype=dtype
    )
    target = None if list_layers else _parse_target(output, format, request, verdict_options)
    if list_layers and output is not None:
        raise OptionError(
            "bad-option", "--list writes no problems, so -o does not apply", help="leave -o or --list out"
        )
    if list_layers and format not in (None, "table", "json"):
        raise OptionError(
            "unknown-format", f"--list is shown as a table or as JSON, not as {format}", help="--format json"
        )
    source = find_model(model)
    check_request(source, request)
    _note_loading(messages, environment, verdict_options, source)
    tokens = _read_tokens(source, request)
    run = _Run(messages, source, request, tokens)
    if target is None:
        return _list(run, environment, is_json=verdict_options.format == "json" or format == "json")
    with target(environment, verdict_options) as write:
        run.capture(write)
    return run.summarize()


# ── options ──────────────────────────────────────────────────────────────────────────────────────
def _parse_texts(
    text: str | None, texts: str | None, ids: str | None, *, is_optional: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the texts and the ids that are asked for.

    Raises:
        OptionError: none or several of the three are given.
        InputError: the file holds no text, or an empty line.
    """
    from attncli.capture.request import parse_ids

    given = [name for name, value in (("--text", text), ("--texts", texts), ("--ids", ids)) if value is not None]
    if len(given) > 1:
        raise OptionError(
            "bad-option", f"{given[0]} and {given[1]} contradict each other", help="give only one of them"
        )
    if ids is not None:
        return (), parse_ids(ids)
    if texts is not None:
        return _read_texts(texts), ()
    if text is not None:
        if not text.strip():
            raise OptionError("bad-option", "--text is empty", help="--text 'Hello shiny sun!'")
        return (text,), ()
    if is_optional:
        return (), tuple(range(3, 3 + _IDS_OF_LIST))
    raise OptionError(
        "missing-option",
        "there is no text for the model to read",
        help="--text 'Hello shiny sun!', --texts FILE or --ids 101,7592,102",
    )


def _read_texts(path: str) -> tuple[str, ...]:
    from attncli.readers.base import decode_text
    from attncli.readers.files import read_bytes

    lines = decode_text(read_bytes(path), format_name="a file of texts").splitlines()
    if not lines:
        raise InputError("empty", f"{shorten(path)} holds no text", help="write a text on each line")
    blank = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if blank is not None:
        raise InputError("blank-line", f"line {blank} of {shorten(path)} is empty", help="remove it").add_location(
            file=path, line=blank
        )
    return tuple(lines)


Write = Callable[["CapturedLayer"], str]  # writes a layer, and returns where it is
OpenTarget = Callable[[Environment, OutputOptions], AbstractContextManager[Write]]


def _parse_target(
    output: str | None, format: str | None, request: CaptureRequest, options: OutputOptions
) -> OpenTarget:
    """Return where layers go: a file, a folder or standard output; whatever is wrong with it is refused now.

    Raises:
        OptionError: there is no target, or it cannot take what is asked for.
        CannotError: it cannot be written to.
    """
    from attncli.writers.problem import choose_problem_format

    if output is None or not output:
        raise OptionError(
            "missing-option",
            "no output was given for the layers",
            help="-o FILE for one layer, -o DIR for several, or -o - for JSON lines",
        )
    if output == "-":
        if format not in (None, "json", "ndjson"):
            raise OptionError(
                "bad-option", f"only JSON lines are written to standard output, not {format}", help="-o DIR"
            )
        return _open_lines
    path = Path(output)
    is_folder = path.is_dir() or output.endswith("/") or not path.suffix
    if is_folder:
        name = choose_problem_format("x.safetensors", format)
        if path.exists() and not path.is_dir():
            raise OptionError("output-exists", f"{output} is a file", help="-o DIR, or a file with a suffix")
        return lambda environment, options: _open_folder(path, name, options)
    name = choose_problem_format(output, format)
    if not request.layers.is_one:
        raise OptionError(
            "bad-option",
            f"a file holds one layer, but --layer {request.layers.text} may be several",
            help=f"--layer 5 -o {output}, or -o {path.with_suffix('')} for a folder",
        )
    check_output_path(replace(options, output=output, format=None if path.suffix != ".json" else "json"))
    return lambda environment, options: _open_file(path, name)


@contextmanager
def _open_lines(environment: Environment, options: OutputOptions) -> Iterator[Write]:
    from attncli.writers.problem import write_problem

    write = standard_output_writer(environment, "attn.json")

    def write_layer(layer: CapturedLayer) -> str:
        write(write_problem(layer.problem, "json").decode())
        return ""

    yield write_layer


@contextmanager
def _open_file(path: Path, format: str) -> Iterator[Write]:
    from attncli.writers.problem import write_problem

    def write_layer(layer: CapturedLayer) -> str:
        with atomic_write(path) as file:
            file.write(write_problem(layer.problem, format))
        return str(path)

    yield write_layer


@contextmanager
def _open_folder(folder: Path, format: str, options: OutputOptions) -> Iterator[Write]:
    from attncli.writers.problem import write_problem

    def write_layer(layer: CapturedLayer) -> str:
        path = folder / f"{file_stem(layer.name)}.{format}"
        refuse_link(folder, path.name)
        if path.exists() and not options.force:
            raise OptionError("output-exists", f"{path} exists", help="--force replaces it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotError("cannot-write", f"{folder} cannot be made: {error.strerror}") from None
        with atomic_write(path, durable=False) as file:
            file.write(write_problem(layer.problem, format))
        return str(path)

    if folder.is_dir() and not options.force and (found := next(folder.glob("*layer*"), None)):
        raise OptionError(
            "output-exists", f"{folder} already holds layers, such as {found.name}", help="--force replaces them"
        )
    yield write_layer


def file_stem(name: str) -> str:
    """Return what the file of a layer is called: 5 → layer05, decoder.5 → decoder.layer05."""
    tower, _, number = name.rpartition(".")
    return f"{tower}.layer{int(number):02}" if tower else f"layer{int(number):02}"


# ── the run ──────────────────────────────────────────────────────────────────────────────────────
def _note_loading(messages: Messages, environment: Environment, options: OutputOptions, source: ModelSource) -> None:
    if environment.stderr_is_terminal and has_progress(messages, options):
        messages.note(f"loading {source.model_name} …")


def _read_tokens(source: ModelSource, request: CaptureRequest) -> Tokens:
    from attncli.capture.model import load_tokens

    return load_tokens(source, request)


class _Run:
    """One run of a model, and what is said about it."""

    def __init__(self, messages: Messages, source: ModelSource, request: CaptureRequest, tokens: Tokens) -> None:
        self.messages, self.source, self.request, self.tokens = messages, source, request, tokens
        self.layers: list[Json] = []
        self.unread: list[str] = []

    def capture(self, write: Write | None) -> None:
        from attncli.capture.run import capture_layers

        if self.source.is_encoder_decoder:
            self.messages.note("the decoder reads the same tokens, behind its start token")
        capture_layers(
            self.source, self.request, self.tokens, lambda layer: self._take(layer, write), self._take_unread
        )

    def _take(self, layer: CapturedLayer, write: Write | None) -> None:
        record = layer.to_record()
        self.layers.append(record)
        if write is None:
            return
        where = write(layer)
        bound = "1e-10" if self.request.dtype == "float64" else "1e-5"
        proven = f"{' and '.join(layer.proven)} within {bound} of the model's"
        line = f"layer {layer.name}: {pluralize(layer.heads, 'head')}, from {layer.depth}; {proven}"
        self.messages.note(f"{where}: {line}" if where else line)
        if layer.unread:
            self.messages.note(f"layer {layer.name}: {layer.unread}")

    def _take_unread(self, name: str, why: str) -> None:
        self.unread.append(name)
        self.messages.warning(f"not-captured: layer {name} is not captured: {why}")

    def summarize(self) -> ExitStatus:
        count = len(self.layers)
        total = sum(record["depth"] == "hidden" for record in self.layers)
        if count > 1:
            self.messages.note(
                f"{pluralize(count, 'layer')}: {total} from hidden, {count - total} from qkv; attn check proves them again"
            )
        return ExitStatus.NO if self.unread else ExitStatus.OK


def _list(run: _Run, environment: Environment, *, is_json: bool) -> ExitStatus:
    """Write a line for each layer: heads, kind, depth and the choices that it was read as."""
    import msgspec

    run.capture(None)
    write = standard_output_writer(environment)
    if is_json:
        write(msgspec.json.encode(run.layers).decode() + "\n")
        return run.summarize()
    rows = [("layer", "kind", "heads", "kv", "depth", "read as")]
    for record in run.layers:
        reading = record["line"] + (f"   ({record['unread']})" if record["unread"] else "")
        rows.append(
            (record["layer"], record["kind"], str(record["heads"]), str(record["kv_heads"]), record["depth"], reading)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        write(printable("  ".join([*cells, row[5]]).rstrip()) + "\n")
    return ExitStatus.NO if run.unread else ExitStatus.OK
