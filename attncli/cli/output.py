"""Where results go: standard output or a file, and how they are shown there."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attncli.atomic_file import atomic_write, to_bytes
from attncli.cli.environment import Environment
from attncli.errors import CannotError, OptionError
from attncli.output_formats import Codec, Content, Format, RenderOptions, choose_output_format, refuse_unused_shape
from attncli.request import OutputOptions
from attncli.text import shorten

PieceWriter = Callable[[str | bytes | memoryview], None]


def render_options_for(environment: Environment, output_options: OutputOptions) -> RenderOptions:
    """Choose how a result is shown: by the options, and by what standard output can show, or as a file."""
    is_file = output_options.output is not None
    is_terminal = not is_file and environment.stdout_is_terminal
    color = (
        not is_file
        and environment.stdout is not None
        and environment.should_use_color(environment.stdout, output_options.color)
    )
    return RenderOptions(
        is_terminal=is_terminal,
        precision=output_options.precision,
        width=environment.stdout_columns if is_terminal and not output_options.full else None,
        color=color,
        heat=output_options.heat == "on" or (output_options.heat == "auto" and color),
        has_unicode=is_file or environment.stdout_has_unicode,
        bare=output_options.bare,
        tidy=output_options.tidy,
        standalone=output_options.standalone,
    )


def check_output_path(output_options: OutputOptions, default_format: str = "table") -> None:
    """Refuse an output file that cannot be made, whatever is computed.

    Raises:
        OptionError: the file exists, and `--force` was not given; or its suffix names no format, or another one than
            `--format`; or the format does not heed `--bare`, `--tidy` or `--standalone`.
        CannotError: its folder does not exist.
    """
    format = choose_output_format(output_options.output, output_options.format, default_format)
    refuse_unused_shape(
        format, bare=output_options.bare, tidy=output_options.tidy, standalone=output_options.standalone
    )
    if output_options.output is None:
        return
    path = Path(output_options.output)
    try:
        mode = _file_mode(path)
        folder = path.resolve().parent if path.is_symlink() else path.parent
        has_folder = folder.is_dir()
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # ValueError: a NUL in the name; RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotError("cannot-write", f"{shorten(str(path))} cannot be written: {reason}") from None
    if stat.S_ISDIR(mode):
        raise OptionError("output-exists", f"{path} is a folder", help="name a file")
    if stat.S_ISREG(mode) and not output_options.force:
        raise OptionError("output-exists", f"{path} exists", help="--force replaces it")
    if not mode and not has_folder:
        raise CannotError("cannot-write", f"there is no folder {folder}", help=f"mkdir -p {folder}")


def _file_mode(path: Path) -> int:
    """Return the kind and permissions of the file at a path; 0: there is none."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def write_output(environment: Environment, content: Content, output_options: OutputOptions, format: Format) -> None:
    """Write a whole result to standard output or to its file.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    if isinstance(content, str) and output_options.output is None and format.name == "json":
        render_options = render_options_for(environment, output_options)
        if render_options.color and render_options.width:
            from attncli.views.json_color import colorize_json

            content = colorize_json(content)
    with open_output(environment, output_options, format) as write:
        for piece in [content] if isinstance(content, str | bytes) else content:
            write(piece)


@contextmanager
def open_output(environment: Environment, output_options: OutputOptions, format: Format) -> Iterator[PieceWriter]:
    """Open standard output, which is flushed at each call, or a file, which appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    if output_options.output is None:
        yield standard_output_writer(environment, format.console_errors)
        return
    with open_output_file(output_options) as file:

        def write(piece: str | bytes | memoryview) -> None:
            file.write(piece if isinstance(piece, memoryview) else to_bytes(piece))

        yield write


@contextmanager
def open_output_file(output_options: OutputOptions) -> Iterator[IO[bytes]]:
    """Open the output file: it appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    path = Path(str(output_options.output))
    is_device = path.exists() and not path.is_file()
    target = path if is_device else path.resolve()  # what a link points to is replaced, and the link stays
    with atomic_write(target, str(output_options.output)) as file:
        yield file


def standard_output_writer(environment: Environment, console_errors: Codec = "attn") -> PieceWriter:
    """A function that writes to standard output and flushes it at each call.

    Data is UTF-8, or JSON in escapes, whatever the encoding of the console; text for people is spelled in its encoding.

    Raises:
        CannotError: standard output is closed.
    """
    stdout, encoding = environment.stdout, environment.stdout_encoding
    if stdout is None:
        raise CannotError("cannot-write", "standard output is closed")
    is_text = environment.stdout_has_unicode or console_errors == "attn"
    buffer: IO[bytes] | None = None if is_text else getattr(stdout, "buffer", None)

    def write(piece: str | bytes | memoryview) -> None:
        if buffer is None:
            stdout.write(str(piece))
        elif console_errors == "utf-8":
            buffer.write(str(piece).encode("utf-8", "surrogatepass"))
        else:
            buffer.write(str(piece).encode(encoding, console_errors))
        stdout.flush()

    return write
