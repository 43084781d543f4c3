"""Turn what other libraries raise over an input into that input's error. Entry: `translate_parser_errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attncli.errors import AttnError, CannotError, InputError, Location
from attncli.package_errors import package_error
from attncli.text import shorten


@contextmanager
def translate_parser_errors(code: str, statement: str, help: str = "", path: str = "") -> Iterator[None]:
    """Turn whatever another library raises over an input into that input's error: the one place of each parser.

    Args:
        code: of the error.
        statement: what the input is not; the library's own sentence follows it.
        help: the way out.
        path: where in the input.

    Raises:
        InputError: the library has raised something.
        CannotError: there is not enough memory, or the library does not load.
    """
    try:
        yield
    except AttnError:
        raise
    except MemoryError:
        raise CannotError("out-of-memory", "this input does not fit in memory") from None
    except RecursionError:
        raise InputError("too-deep", f"{statement}: it is nested too deep", location=Location(path=path)) from None
    except Exception as error:
        if (of_package := package_error(error)) is not None:
            raise of_package from error
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(code, f"{statement}: {shorten(reason)}", location=Location(path=path), help=help) from None
