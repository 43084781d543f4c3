"""Where captured layers go: a file, a folder with a manifest, or JSON lines; as problems, or as results that hold some steps.

Entry: `parse_target`. Whatever is wrong with a target is refused before anything is loaded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attncli.atomic_file import atomic_write, refuse_link, to_bytes
from attncli.batch.manifest import LAYERS_SCHEMA, Manifest, Receipt
from attncli.cli.environment import Environment
from attncli.cli.output import check_output_path, standard_output_writer
from attncli.errors import AttnError, OptionError
from attncli.output_formats import RenderOptions, choose_output_format, load_output_format
from attncli.request import OutputOptions
from attncli.text import join_names
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.capture.problems import CapturedLayer
    from attncli.capture.request import CaptureRequest

RESULT_FORMATS = ("safetensors", "npz", "json", "csv", "tsv", "parquet", "feather")


@dataclass(frozen=True)
class LayerFormat:
    """How a layer is written: a problem, or a result that holds some of its steps."""

    name: str
    suffix: str
    steps: tuple[str, ...] = ()  # of the result; none: it is a problem

    def encode(self, layer: CapturedLayer) -> bytes:
        """Return the bytes of a layer.

        Raises:
            InputError: it lacks a step.
        """
        if not self.steps:
            from attncli.writers.problem import write_problem

            return write_problem(layer.problem, self.name)
        from attncli.capture.results import make_result

        format, options = load_output_format(self.name), RenderOptions()
        return to_bytes(format.write(format.prepare_result(make_result(layer, self.steps), options), options))


@dataclass(frozen=True)
class LayerTarget:
    """Takes layers one by one."""

    write: Callable[[CapturedLayer], str]  # and returns where it is; empty: on standard output
    is_done: Callable[[str], bool] = lambda name: False  # whether a layer is there from an earlier run
    note_failure: Callable[[str, str, str], object] = lambda name, code, message: None


OpenTarget = Callable[[Environment, Json], AbstractContextManager[LayerTarget]]  # the record: what decides the layers


def parse_target(output: str | None, format: str | None, request: CaptureRequest, options: OutputOptions) -> OpenTarget:
    """Return what opens the target that is named.

    Raises:
        OptionError: there is none, or it cannot take what is asked for.
        CannotError: it cannot be written to.
    """
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
        lines = LayerFormat("ndjson" if request.steps else "json", "", request.steps)
        return lambda environment, record: _open_lines(environment, lines)
    path = Path(output)
    if path.is_dir() or output.endswith("/") or not path.suffix:
        if path.exists() and not path.is_dir():
            raise OptionError("output-exists", f"{output} is a file", help="-o DIR, or a file with a suffix")
        in_folder = _choose_format("x", format or "safetensors", request)
        folder = LayerFolder(path, in_folder, force=options.force)
        return lambda environment, record: folder.opened(record)
    of_file = _choose_format(output, format, request)
    if not request.layers.is_one:
        raise OptionError(
            "bad-option",
            f"a file holds one layer, but --layer {request.layers.text} may be several",
            help=f"--layer 5 -o {output}, or -o {path.with_suffix('')} for a folder",
        )
    check_output_path(replace(options, output=output, format=of_file.name))
    return lambda environment, record: _open_file(path, of_file)


def _choose_format(path: str, format: str | None, request: CaptureRequest) -> LayerFormat:
    """Return the format by its name, or by the suffix of a file.

    Raises:
        OptionError: layers are not written in it.
        CannotError: a package that it needs is missing.
    """
    if not request.steps:
        from attncli.writers.problem import choose_problem_format

        name = choose_problem_format(path, format)
        return LayerFormat(name, f".{name}")
    chosen = choose_output_format(path, format)
    if chosen.name not in RESULT_FORMATS:
        raise OptionError(
            "unknown-format",
            f"steps of a layer are written as arrays, not as {chosen.name}",
            help=f"--format {join_names(RESULT_FORMATS, 'or')}; to look at a layer, leave --only out and use attn compute",
        )
    if chosen.require is not None:
        chosen.require()
    return LayerFormat(chosen.name, chosen.suffixes[0], request.steps)


@contextmanager
def _open_lines(environment: Environment, format: LayerFormat) -> Iterator[LayerTarget]:
    write = standard_output_writer(environment, "attn.json")

    def write_layer(layer: CapturedLayer) -> str:
        write(format.encode(layer).decode())
        return ""

    yield LayerTarget(write_layer)


@contextmanager
def _open_file(path: Path, format: LayerFormat) -> Iterator[LayerTarget]:
    def write_layer(layer: CapturedLayer) -> str:
        content = format.encode(layer)
        with atomic_write(path) as file:
            file.write(content)
        return str(path)

    yield LayerTarget(write_layer)


class LayerFolder:
    """A folder of layers: a file for each, and a manifest that tells which are done.

    Nothing is made there before the first layer is.
    """

    def __init__(self, folder: Path, format: LayerFormat, *, force: bool) -> None:
        """Look at what the folder holds.

        Raises:
            OptionError: layers of which no manifest tells, or of an attn batch.
            CannotError: it cannot be read, or a link is in the way.
        """
        self.folder, self.format, self.force = folder, format, force
        self.manifest = Manifest(folder, LAYERS_SCHEMA)
        self.variant = ""  # the hash of what decides the layers
        self._header: Json = {}
        self._names: list[str] = []  # of the files, in the order in which layers run
        self._is_open = False
        self._began_at = time.monotonic()
        if force or self.manifest.exists:
            return
        found = self.manifest.foreign_file or next(folder.glob(f"*layer*{format.suffix}"), None)
        if found is not None:
            raise OptionError(
                "output-exists", f"{folder} already holds {found.name}", help="another folder, or --force to replace it"
            )

    @contextmanager
    def opened(self, record: Json) -> Iterator[LayerTarget]:
        """Take layers until the block ends; then the manifest is written anew.

        Args:
            record: what decides the layers: the model, what it reads, how deep, in which format.

        Raises:
            OptionError: the folder holds layers that something else decided.
        """
        import msgspec

        deciding = {**record, "format": self.format.name, "steps": self.format.steps}
        self.variant = hashlib.sha256(msgspec.json.encode(deciding, order="sorted")).hexdigest()[:16]
        if self.manifest.exists and self.manifest.header.get("variant") != self.variant and not self.force:
            receipt = next(
                (one for one in self.manifest.receipts.values() if (self.folder / one.result).exists()), None
            )
            if receipt is not None:
                raise OptionError(
                    "output-exists",
                    f"{self.folder / receipt.result} was made of another model or text, or with other options",
                    help="use another folder, or --force to capture every layer again",
                )
        self._header = {**record, "variant": self.variant}
        try:
            yield LayerTarget(self._write, self._is_done, self._note_failure)
        except BaseException:
            with suppress(AttnError, OSError):  # the first error is the one to be told
                self._close()
            raise
        self._close()

    def _is_done(self, name: str) -> bool:
        file = self._file_name(name)
        receipt = self.manifest.receipts.get(file)
        self._began_at = time.monotonic()
        if self.force or receipt is None or receipt.status != "done" or receipt.variant != self.variant:
            return False
        try:
            content = (self.folder / file).read_bytes()
        except OSError:
            return False
        is_same = len(content) == receipt.bytes and hashlib.sha256(content).hexdigest() == receipt.result_sha256
        if is_same:
            self._names.append(file)
        return is_same

    def _write(self, layer: CapturedLayer) -> str:
        file = self._file_name(layer.name)
        content = self.format.encode(layer)
        self._open(file)
        with atomic_write(self.folder / file, durable=False) as written:
            written.write(content)
        self._add_receipt(
            Receipt(
                f"layer {layer.name}",
                file,
                "done",
                variant=self.variant,
                bytes=len(content),
                result_sha256=hashlib.sha256(content).hexdigest(),
                seconds=round(time.monotonic() - self._began_at, 3),
            )
        )
        return str(self.folder / file)

    def _note_failure(self, name: str, code: str, message: str) -> None:
        file = self._file_name(name)
        self._open(file)
        error = {"code": code, "message": message}
        self._add_receipt(Receipt(f"layer {name}", file, "failed", variant=self.variant, error=error))

    def _open(self, file: str) -> None:
        refuse_link(self.folder, file)
        if not self._is_open:
            self.manifest.open(self._header)
            self._is_open = True
            self.manifest.remove_leftovers([file, *self.manifest.receipts])

    def _add_receipt(self, receipt: Receipt) -> None:
        self._names.append(receipt.result)
        earlier = self.manifest.receipts.get(receipt.result)
        self.manifest.add_receipt(replace(receipt, attempts=1 + (earlier.attempts if earlier else 0)))

    def _file_name(self, name: str) -> str:
        return f"{file_stem(name)}{self.format.suffix}"

    def _close(self) -> None:
        if self._is_open:
            try:
                self.manifest.finalize(self._names)
            finally:
                self.manifest.close()


def file_stem(name: str) -> str:
    """Return what the file of a layer is called: 5 → layer05, decoder.5 → decoder.layer05."""
    tower, _, number = name.rpartition(".")
    return f"{tower}.layer{int(number):02}" if tower else f"layer{int(number):02}"
