"""Where results go: standard output or a file, and how they are shown there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from attncli.atomic_file import to_bytes
from attncli.cli.environment import Environment, closed_output_error
from attncli.output_files import check_output_path as check_output_path
from attncli.output_files import open_output_file as open_output_file
from attncli.output_formats import Codec, Content, Format, RenderOptions, write_shared_file
from attncli.request import OutputOptions

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
        heat=output_options.shades(has_color=color),
        normalize=output_options.normalize,
        has_unicode=is_file or environment.stdout_has_unicode,
        bare=output_options.bare,
        tidy=output_options.tidy,
        standalone=output_options.standalone,
        figure=replace(output_options.figure, steps=output_options.only),
        shared_js=output_options.shared_js,
    )


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
    if output_options.shared_js and output_options.output is not None:
        write_shared_file(format, Path(output_options.output).resolve().parent)


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


def standard_output_writer(environment: Environment, console_errors: Codec = "attn") -> PieceWriter:
    """A function that writes to standard output and flushes it at each call.

    Data is UTF-8, or JSON in escapes, whatever the encoding of the console; text for people is spelled in its encoding.

    Raises:
        CannotError: standard output is closed.
    """
    stdout, encoding = environment.stdout, environment.stdout_encoding
    if stdout is None:
        raise closed_output_error()
    is_text = environment.stdout_has_unicode or console_errors == "attn"
    buffer: IO[bytes] | None = None if is_text else getattr(stdout, "buffer", None)

    def write(piece: str | bytes | memoryview) -> None:
        if isinstance(piece, bytes):
            piece = piece.decode("utf-8", "surrogatepass")
        if buffer is None:
            stdout.write(str(piece))
        elif console_errors == "utf-8":
            buffer.write(str(piece).encode("utf-8", "surrogatepass"))
        else:
            buffer.write(str(piece).encode(encoding, console_errors))
        stdout.flush()

    return write
