"""Output formats, by name and suffix. Writers and views register here; a command only asks for one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import PurePath
from pkgutil import iter_modules
from typing import Literal

from attncli.errors import OptionError, join_names, suggestion
from attncli.types import Attention


@dataclass(frozen=True)
class RenderOptions:
    """How a result is to be shown; numbers in data formats do not depend on it."""

    precision: int = 4  # digits after the point, where people read
    width: int | None = None  # of the terminal; None: no terminal, nothing is elided or squeezed
    is_terminal: bool = False  # it goes to a terminal
    color: bool = False
    heat: bool = False  # shade the cells of weights
    has_unicode: bool = True  # the console can show more than ASCII


Codec = Literal["attn", "attn.json", "utf-8"]  # the error handler for a console that is not UTF-8, or utf-8 itself
Content = str | bytes | Sequence[bytes | memoryview]  # the last piece by piece, each as it lies in memory
Writer = Callable[[Attention, RenderOptions], Content]


@dataclass(frozen=True)
class Format:
    """One output format: (result, look) → text, or bytes for a file, whole or in pieces."""

    name: str
    suffixes: tuple[str, ...]
    write: Writer
    is_binary: bool = False
    console_errors: Codec = "attn"
    unsupported_dtypes: tuple[str, ...] = ()  # dtypes it cannot hold, and widens
    stream_writer: Callable[..., Attention] | None = (
        None  # (file, plan, compute): steps too large for memory go to the file
    )

    def widen_dtype(self, attention: Attention) -> Attention:
        """The result as this format can hold it: a dtype it lacks is widened, and a warning says so."""
        if attention.dtype not in self.unsupported_dtypes:
            return attention
        says = f"widened: {self.name} has no {attention.dtype}: its steps are float32 of the same values"
        return replace(attention, warnings=(*attention.warnings, says))


OUTPUT_FORMATS: dict[str, Format] = {}


def output_format(
    name: str,
    *suffixes: str,
    is_binary: bool = False,
    console_errors: Codec = "attn",
    unsupported_dtypes: tuple[str, ...] = (),
    stream_writer: Callable[..., Attention] | None = None,
) -> Callable[[Writer], Writer]:
    """Register an output format."""

    def register(function: Writer) -> Writer:
        OUTPUT_FORMATS[name] = Format(
            name, suffixes, function, is_binary, console_errors, unsupported_dtypes, stream_writer
        )
        return function

    return register


_WRITER_PACKAGES = ("attncli.writers", "attncli.views")  # those for programs first: they need no Rich


@cache
def _import_writers(package: str) -> None:
    """Each module of writers registers its own format; of views those that the package names, for others show other things."""
    room = import_module(package)
    for name in getattr(room, "FORMAT_MODULES", None) or [module.name for module in iter_modules(room.__path__)]:
        import_module(f"{package}.{name}")


def load_output_formats() -> Mapping[str, Format]:
    """Every output format."""
    for package in _WRITER_PACKAGES:
        _import_writers(package)
    return OUTPUT_FORMATS


def _find_output_format(is_wanted: Callable[[Format], bool]) -> Format | None:
    """The first format that fits; no more is imported than it takes to find it."""
    for package in _WRITER_PACKAGES:
        _import_writers(package)
        if found := next(filter(is_wanted, OUTPUT_FORMATS.values()), None):
            return found
    return None


def choose_output_format(path: str | None, format_name: str | None, default: str = "table") -> Format:
    """The format that was said, or that a file's suffix says.

    Raises:
        OptionError: no such format, no format for the suffix, or a binary one without a file.
    """
    if format_name is None and path is not None:
        suffix = PurePath(path).suffix.lower()
        chosen = _find_output_format(lambda format: suffix in format.suffixes)
        if chosen is None:
            raise OptionError(
                "unknown-format",
                f"the suffix {suffix!r} says no format" if suffix else f"{path} has no suffix",
                help=f"add --format {join_names(load_output_formats(), 'or')}",
            )
    else:
        name = format_name or default
        chosen = _find_output_format(lambda format: format.name == name)
        if chosen is None:
            raise OptionError(
                "unknown-format", f"no format is called {name!r}", help=suggestion(name, load_output_formats())
            )
    if chosen.is_binary and path is None:
        raise OptionError(
            "binary-output",
            f"{chosen.name} is binary, and goes to a file only",
            help=f"--output result{chosen.suffixes[0]}",
        )
    return chosen
