"""Find and load matplotlib: `require_matplotlib`, which does not load it, and `load_matplotlib`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from attncli.errors import CannotError

_LEAST_VERSION = (3, 11)  # earlier ones draw right-to-left scripts backwards
_INSTALL = "pip install 'attncli[plot]'"


def require_matplotlib() -> None:
    """Refuse a figure where matplotlib is missing or too old; it is not loaded for that.

    Raises:
        CannotError: it is.
    """
    try:
        installed = version("matplotlib")
    except PackageNotFoundError:
        message = "figures need matplotlib, which is not installed"
        raise CannotError("missing-extra", message, help=_INSTALL) from None
    numbers = tuple(int(part) for part in installed.split(".")[:2] if part.isdigit())
    if numbers < _LEAST_VERSION:
        least = ".".join(map(str, _LEAST_VERSION))
        message = f"figures need matplotlib {least} or later, and {installed} is installed"
        raise CannotError("missing-extra", message, help=_INSTALL)


def load_matplotlib() -> None:
    """Load matplotlib, without what it says of the user's settings, which figures do not heed, and of its cache of fonts.

    Raises:
        CannotError: it does not load.
    """
    with quiet_matplotlib():
        try:
            import matplotlib.font_manager  # noqa: F401
        except Exception as error:  # a library that lacks a part, or a backend in MPLBACKEND that does not exist
            why = next(iter(str(error).splitlines()), type(error).__name__)
            hint = (
                "unset MPLBACKEND, if it is set; or install it anew: pip install --force-reinstall 'matplotlib>=3.11'"
            )
            raise CannotError("missing-extra", f"matplotlib does not load: {why}", help=hint) from error


@contextmanager
def quiet_matplotlib() -> Iterator[None]:
    """Silence what matplotlib logs, but for its errors."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
