"""Write a result to a file: `write`."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from attncli.api.keywords import optional_text, require_flag, spelled_for_python
from attncli.atomic_file import to_bytes
from attncli.errors import InputError, OptionError
from attncli.output_files import check_output_path, open_output_file
from attncli.output_formats import RenderOptions, StepShape, choose_output_format
from attncli.request import OutputOptions
from attncli.text import quote_value
from attncli.types import Attention

if TYPE_CHECKING:
    from attncli.api.types import Path

_MAX_PRECISION = 17


@spelled_for_python
def write(
    result: Attention,
    path: Path,
    *,
    format: str | None = None,
    force: bool = False,
    precision: int = 4,
    bare: bool = False,
    tidy: bool = False,
    standalone: bool = False,
) -> None:
    """Write a result to a file, which appears whole or not at all: what `attn compute -o` writes, byte by byte.

    Args:
        result: of `attend`.
        path: the file; its suffix chooses the format.
        format: the name of the format, where the suffix does not say it.
        force: replace the file if it exists.
        precision: digits after the point, where people read.
        bare: JSON without the fields that are the same in every record.
        tidy: CSV or Parquet with one row for each number, even of a single step.
        standalone: LaTeX as a whole document.

    Raises:
        OptionError: the file exists, its suffix names no format, or the format does not heed an option.
        InputError: what is given is no result.
        CannotError: the file cannot be written.
    """
    if not isinstance(result, Attention):
        hint = "attncli.write(attncli.attend(x), 'x.json')"
        raise InputError("wrong-type", f"a result is written, not {quote_value(result)}", help=hint)
    if not isinstance(path, str | PathLike):
        raise OptionError(
            "bad-option", f"{quote_value(path)} is not the name of a file", help="write(result, 'x.json')"
        )
    optional_text("format", format)
    require_flag("force", force)
    name = str(path.__fspath__() if isinstance(path, PathLike) else path)
    render_options = make_render_options(precision=precision, bare=bare, tidy=tidy, standalone=standalone)
    options = OutputOptions(format=format, output=name, force=force, bare=bare, tidy=tidy, standalone=standalone)
    check_output_path(options)
    chosen = choose_output_format(name, format)
    if chosen.require is not None:
        chosen.require()
    if chosen.check_shapes is not None:
        chosen.check_shapes([StepShape.of_step(step) for step in result], render_options)
    result = chosen.prepare_result(result, render_options)
    if chosen.shows_workings:
        result = _with_workings(result)
    content = chosen.write(result, render_options)
    with open_output_file(options) as file:
        for piece in [content] if isinstance(content, str | bytes) else content:
            file.write(piece if isinstance(piece, memoryview) else to_bytes(piece))


def _with_workings(result: Attention) -> Attention:
    """Return a result with how its numbers come about, where it is known what it was computed from."""
    from attncli.pipeline import add_workings, load_engine
    from attncli.plan import outline_plan

    problem, variant = (getattr(result, name, None) for name in ("problem", "settled_variant"))
    if problem is None or variant is None:
        return result
    return add_workings(result, outline_plan(problem, variant), load_engine())


def make_render_options(
    *, precision: int = 4, bare: bool = False, tidy: bool = False, standalone: bool = False
) -> RenderOptions:
    """Return how a result is shown.

    Raises:
        OptionError: the precision is no number of digits, or a flag is neither True nor False.
    """
    if isinstance(precision, bool) or not isinstance(precision, int) or not 0 <= precision <= _MAX_PRECISION:
        message = f"precision takes an integer from 0 to {_MAX_PRECISION}, not {quote_value(precision)}"
        raise OptionError("bad-option", message)
    for name, flag in (("bare", bare), ("tidy", tidy), ("standalone", standalone)):
        require_flag(name, flag)
    return RenderOptions(precision=precision, bare=bare, tidy=tidy, standalone=standalone)
