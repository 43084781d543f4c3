"""`attn capture`: the attention of a real model, layer by layer, as problems that prove themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attncli.cli.environment import Environment
from attncli.cli.layer_files import LayerTarget, parse_target
from attncli.cli.messages import Messages
from attncli.cli.options import parse_whole_number
from attncli.cli.output import standard_output_writer
from attncli.cli.progress import SECONDS_WITHOUT_BAR, has_progress
from attncli.errors import ExitStatus, InputError, OptionError
from attncli.request import OutputOptions
from attncli.text import pluralize, printable, shorten
from attncli.types import Json

if TYPE_CHECKING:
    from PIL.Image import Image

    from attncli.capture.model_folder import ModelSource
    from attncli.capture.problems import CapturedLayer
    from attncli.capture.request import CaptureRequest
    from attncli.views.progress import ProgressBar

EXAMPLES = """
    attn capture MiniLM --text 'Hello shiny sun!' --layer 5 -o layer.safetensors
    attn capture MiniLM --texts lines.txt -o layers
    attn capture MiniLM --ids 101,7592,102 --layer 3:6 --from qkv -o layers
    attn capture MiniLM --list
    attn capture MiniLM --text 'Hello shiny sun!' --only weights -f npz -o weights
    attn capture SmolLM2 --text 'The sun is' --decode 3 -o layers
    attn capture ViT --image cat.png -o layers
"""


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
    image: Annotated[
        str | None,
        typer.Option("--image", help="the image that a vision model sees; random: random numbers", metavar="FILE"),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode", help="let the model generate N tokens, and capture the step that reads the last", metavar="N"
        ),
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
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            "--steps",
            help="write only these steps of each layer, as attn compute would: weights,context",
            metavar="STEP,…",
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run the code that the folder brings along, if it does")
    ] = False,
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
            help="safetensors, npz or json; of --only also csv, tsv, parquet, feather; of --list table or json",
            metavar="FORMAT",
            rich_help_panel="Output",
        ),
    ] = None,
    environment: Environment,
    verdict_options: OutputOptions,
) -> ExitStatus:
    """Run a model, and write its attention layers as problems whose expected figures are the model's own."""
    from attncli.capture.model_folder import check_request, describe_source, find_model
    from attncli.capture.request import CaptureRequest, parse_layers

    messages = Messages.from_options(environment, verdict_options)
    request = CaptureRequest(
        *_parse_texts(text, texts, ids, is_optional=list_layers or image is not None),
        layers=parse_layers(layer),
        depth=depth,
        dtype=dtype,
        image=_parse_image(image),
        generated_count=0 if decode is None else parse_whole_number("decode", decode, 1, 10**6),
        trusts_remote_code=trust_remote_code,
        steps=_parse_steps(only),
    )
    _check_decode(request)
    if list_layers:
        _check_list(output, format, request)
        open_target = None
    else:
        open_target = parse_target(output, format, request, verdict_options)
    source = find_model(model)
    check_request(source, request)
    picture = _read_picture(request)
    run = _Run(messages, verdict_options, source, request, picture)
    if open_target is None:
        return _list(run, environment, is_json=verdict_options.format == "json" or format == "json")
    with open_target(environment, describe_source(source, request)) as target:
        run.capture(target)
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
        return (), ()
    raise OptionError(
        "missing-option",
        "there is no text for the model to read",
        help="--text 'Hello shiny sun!', --texts FILE or --ids 101,7592,102; an image: --image FILE",
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


def _parse_image(image: str | None) -> str:
    if image is not None and not image:
        raise OptionError("bad-option", "--image is empty", help="--image FILE, or --image random")
    return image or ""


def _parse_steps(only: list[str] | None) -> tuple[str, ...]:
    """Return the names of the steps that are asked for.

    Raises:
        OptionError: there is none, or no step of a name.
    """
    steps = tuple(step.strip() for text in only or () for step in text.split(",") if step.strip())
    if only and not steps:
        raise OptionError("bad-option", "--only is empty", help="--only weights")
    if steps:
        from attncli.step_names import require_step_name

        for step in steps:
            if step != "all":
                require_step_name(step)
    return steps


def _check_decode(request: CaptureRequest) -> None:
    if not request.generated_count:
        return
    if len(request.texts) > 1:
        raise OptionError("bad-option", "--decode continues a single text, and there are several", help="--text TEXT")
    if request.image:
        raise OptionError("bad-option", "--decode continues a text, not an image", help="leave --decode or --image out")
    if not request.texts and not request.ids:
        raise OptionError("missing-option", "there is no text for --decode to continue", help="--text 'The sun is'")


def _check_list(output: str | None, format: str | None, request: CaptureRequest) -> None:
    if output is not None:
        raise OptionError(
            "bad-option", "--list writes no problems, so -o does not apply", help="leave -o or --list out"
        )
    if request.steps:
        raise OptionError("bad-option", "--list writes no steps, so --only does not apply", help="leave --only out")
    if format not in (None, "table", "json"):
        raise OptionError(
            "unknown-format", f"--list is shown as a table or as JSON, not as {format}", help="--format json"
        )


def _read_picture(request: CaptureRequest) -> Image | None:
    """Read the image file that is named."""
    from attncli.capture.request import RANDOM_IMAGE

    if request.image in ("", RANDOM_IMAGE):
        return None
    from attncli.capture.images import read_image

    return read_image(request.image)


# ── the run ──────────────────────────────────────────────────────────────────────────────────────
class _Run:
    """One run of a model, and what is said about it."""

    def __init__(
        self,
        messages: Messages,
        options: OutputOptions,
        source: ModelSource,
        request: CaptureRequest,
        picture: Image | None,
    ) -> None:
        self.messages, self.options, self.source, self.request = messages, options, source, request
        self.picture = picture
        self.layers: list[Json] = []
        self.unread: list[str] = []
        self.done_count = 0  # of layers that an earlier run wrote
        self._held: list[Callable[[], None]] = []  # messages that wait while a bar is shown
        self._bar: ProgressBar | None = None

    def capture(self, target: LayerTarget | None) -> None:
        """Run the model; layers go to a target where there is one."""
        environment = self.messages.environment
        if environment.stderr_is_terminal and has_progress(self.messages, self.options):
            self.messages.note(f"loading {self.source.model_name} …")
        from attncli.capture.images import prepare_image
        from attncli.capture.model import load_tokens
        from attncli.capture.run import CaptureCallbacks, capture_layers

        tokens = load_tokens(self.source, self.request) if self.request.texts or self.request.ids else None
        pixels = None if self.picture is None else prepare_image(self.source, self.request, self.picture)
        if kernel := self.source.named_kernel:
            self.messages.note(
                f"the model computes eagerly: {shorten(kernel)}, which config.json names, hides its weights"
            )
        if self.source.is_encoder_decoder and not self.request.generated_count:
            self.messages.note("the decoder reads the same tokens, behind its start token")
        is_done: Callable[[str], bool] = (lambda name: False) if target is None else self._count_done(target.is_done)
        with self._showing_bar() as report_progress:
            capture_layers(
                self.source,
                self.request,
                tokens,
                pixels,
                CaptureCallbacks(
                    lambda layer: self._take(layer, target),
                    lambda name, why: self._take_unread(name, "not-captured", why, target),
                    is_done,
                    report_progress,
                    self._note_generated,
                ),
            )

    def _count_done(self, is_done: Callable[[str], bool]) -> Callable[[str], bool]:
        def count_done(name: str) -> bool:
            answer = is_done(name)
            self.done_count += answer
            return answer

        return count_done

    def _take(self, layer: CapturedLayer, target: LayerTarget | None) -> None:
        record = layer.to_record()
        if target is None:
            self.layers.append(record)
            return
        try:
            where = target.write(layer)
        except InputError as error:  # it lacks a step that is asked for
            if self.request.layers.is_one:
                raise
            self._take_unread(layer.name, error.code, error.message, target)
            return
        self.layers.append(record)
        bound = "1e-10" if self.request.dtype == "float64" else "1e-5"
        proven = f"{' and '.join(layer.proven)} within {bound} of the model's"
        line = f"layer {layer.name}: {pluralize(layer.heads, 'head')}, from {layer.depth}; {proven}"
        self._note(f"{where}: {line}" if where else line)
        if layer.unread:
            self._note(f"layer {layer.name}: {layer.unread}")

    def _take_unread(self, name: str, code: str, why: str, target: LayerTarget | None) -> None:
        self.unread.append(name)
        if target is not None:
            target.note_failure(name, code, why)
        self._tell(lambda: self.messages.warning(f"{code}: layer {name} is not captured: {why}"))

    def _note_generated(self, tokens: list[str]) -> None:
        generated = pluralize(len(tokens), "generated token")
        self._note(f"{generated}: {shorten(' '.join(tokens), 200)}; the step reads the last")

    # ── what is said meanwhile ───────────────────────────────────────────────────────────────────
    def _note(self, text: str) -> None:
        self._tell(lambda: self.messages.note(text))

    def _tell(self, tell: Callable[[], None]) -> None:
        """Write a message, or keep it until the bar is gone."""
        if self._bar is None:
            tell()
        else:
            self._held.append(tell)

    @contextmanager
    def _showing_bar(self) -> Iterator[Callable[[int, int, str], None]]:
        """Show on a terminal how many layers have run while the block does; it yields the function that moves the bar."""
        environment = self.messages.environment
        if not has_progress(self.messages, self.options) or not environment.stderr_is_terminal:
            yield lambda done, total, name: None
            return
        began_at = time.monotonic()

        def report_progress(done: int, total: int, name: str) -> None:
            if self._bar is None and time.monotonic() - began_at > SECONDS_WITHOUT_BAR and done < total:
                from attncli.views.progress import open_batch_progress

                columns, color = environment.stderr_columns, self.messages.color
                self._bar = open_batch_progress(environment.stderr, columns, total, color=color)
            if self._bar is not None:
                self._bar.update(done, f"layer {name}")

        try:
            yield report_progress
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None
            while self._held:
                self._held.pop(0)()

    def summarize(self) -> ExitStatus:
        """Say how many layers there are, and return the status of the command."""
        count = len(self.layers)
        if self.done_count:
            count_done = pluralize(self.done_count, "layer")
            self.messages.note(f"left as an earlier run wrote them: {count_done}; --force captures them again")
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
