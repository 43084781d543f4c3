"""Output formats, by name and suffix. Writers and views register here; a command only asks for one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import PurePath
from pkgutil import iter_modules
from typing import Literal

from attncli.errors import OptionError, listed, nearest
from attncli.types import Attention


@dataclass(frozen=True)
class Look:
    """How a result is to be shown; numbers in data formats do not depend on it."""

    precision: int = 4  # digits after the point, where people read
    width: int | None = None  # of the terminal; None: no terminal, nothing is elided or squeezed
    screen: bool = False  # it goes to a terminal
    color: bool = False
    heat: bool = False  # shade the cells of weights
    unicode: bool = True  # the console can show more than ASCII


Codec = Literal["attn", "attn.json", "utf-8"]  # the error handler for a console that is not UTF-8, or utf-8 itself
Content = str | bytes | Sequence[bytes | memoryview]  # the last piece by piece, each as it lies in memory
Writer = Callable[[Attention, Look], Content]


@dataclass(frozen=True)
class Format:
    """One output format: (result, look) → text, or bytes for a file, whole or in pieces."""

    name: str
    suffixes: tuple[str, ...]
    function: Writer
    binary: bool = False
    codec: Codec = "attn"
    lacks: tuple[str, ...] = ()  # dtypes it cannot hold, and widens
    streams: Callable[..., Attention] | None = None  # (file, plan, compute): steps too large for memory go to the file

    def fitted(self, attention: Attention) -> Attention:
        """The result as this format can hold it: a dtype it lacks is widened, and a warning says so."""
        if attention.dtype not in self.lacks:
            return attention
        says = f"widened: {self.name} has no {attention.dtype}: its steps are float32 of the same values"
        return replace(attention, warnings=(*attention.warnings, says))


FORMATS: dict[str, Format] = {}


def output_format(
    name: str,
    *suffixes: str,
    binary: bool = False,
    codec: Codec = "attn",
    lacks: tuple[str, ...] = (),
    streams: Callable[..., Attention] | None = None,
) -> Callable[[Writer], Writer]:
    """Register an output format."""

    def register(function: Writer) -> Writer:
        FORMATS[name] = Format(name, suffixes, function, binary, codec, lacks, streams)
        return function

    return register


_PACKAGES = ("attncli.writers", "attncli.views")  # those for programs first: they need no Rich


@cache
def _register(package: str) -> None:
    """Each module of writers registers its own format; of views those that the package names, for others show other things."""
    room = import_module(package)
    for name in getattr(room, "FORMATS", None) or [module.name for module in iter_modules(room.__path__)]:
        import_module(f"{package}.{name}")


def formats() -> Mapping[str, Format]:
    """Every output format."""
    for package in _PACKAGES:
        _register(package)
    return FORMATS


def _first(fits: Callable[[Format], bool]) -> Format | None:
    """The first format that fits; no more is imported than it takes to find it."""
    for package in _PACKAGES:
        _register(package)
        if found := next(filter(fits, FORMATS.values()), None):
            return found
    return None


def format_for(path: str | None, said: str | None, otherwise: str = "table") -> Format:
    """The format that was said, or that a file's suffix says.

    Raises:
        OptionError: no such format, no format for the suffix, or a binary one without a file.
    """
    if said is None and path is not None:
        suffix = PurePath(path).suffix.lower()
        chosen = _first(lambda format: suffix in format.suffixes)
        if chosen is None:
            raise OptionError(
                "unknown-format",
                f"the suffix {suffix!r} says no format" if suffix else f"{path} has no suffix",
                help=f"add --format {listed(formats(), 'or')}",
            )
    else:
        name = said or otherwise
        chosen = _first(lambda format: format.name == name)
        if chosen is None:
            raise OptionError("unknown-format", f"no format is called {name!r}", help=nearest(name, formats()))
    if chosen.binary and path is None:
        raise OptionError(
            "binary-output",
            f"{chosen.name} is binary, and goes to a file only",
            help=f"--output result{chosen.suffixes[0]}",
        )
    return chosen
