"""The file that a result goes to: whether it can be made, and how it appears, whole or not at all.

Entries: `check_output_path`, before anything is computed; `open_output_file`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO

from attncli.atomic_file import atomic_write
from attncli.errors import CannotError, OptionError
from attncli.output_formats import choose_output_format, refuse_unused_shape, split_packed_suffix
from attncli.request import OutputOptions
from attncli.text import shorten


def check_output_path(output_options: OutputOptions, default_format: str = "table") -> None:
    """Refuse an output file that cannot be made, whatever is computed.

    Raises:
        OptionError: the file exists, and `--force` was not given; or its suffix names no format, or another one than
            `--format`; or the format does not heed `--bare`, `--tidy`, `--standalone`, `--shared-js`, `--heat` or `--normalize`.
        CannotError: its folder does not exist.
    """
    format = choose_output_format(output_options.output, output_options.format, default_format)
    refuse_unused_shape(
        format,
        bare=output_options.bare,
        tidy=output_options.tidy,
        standalone=output_options.standalone,
        shared_js=output_options.shared_js,
        heat=output_options.heat,
        normalize=output_options.normalize,
    )
    if output_options.output is not None:
        check_output_file(str(output_options.output), force=output_options.force)
    elif output_options.shared_js:
        message = "--shared-js writes the script beside the page, so the page must be a file"
        raise OptionError("bad-option", message, help="-o FILE.html")


def check_output_file(name: str, *, force: bool) -> None:
    """Refuse a file that cannot be made, or that exists.

    Raises:
        OptionError: the file exists, and may not be replaced.
        CannotError: its folder does not exist.
    """
    path = Path(name)
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
    if stat.S_ISREG(mode) and not force:
        raise OptionError("output-exists", f"{path} exists", help="--force replaces it")
    if split_packed_suffix(name)[1] == ".zst":
        import_zstandard()
    if not mode and not has_folder:
        raise CannotError("cannot-write", f"there is no folder {folder}", help=f"mkdir -p {folder}")


def _file_mode(path: Path) -> int:
    """Return the kind and permissions of the file at a path; 0: there is none."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


@contextmanager
def open_output_file(output_options: OutputOptions) -> Iterator[IO[bytes]]:
    """Open the output file: it appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    path = Path(str(output_options.output))
    is_device = path.exists() and not path.is_file()
    target = path if is_device else path.resolve()  # what a link points to is replaced, and the link stays
    _, packing = split_packed_suffix(str(output_options.output))
    with atomic_write(target, str(output_options.output)) as file, _open_packing(file, packing) as packed:
        yield packed


@contextmanager
def _open_packing(file: IO[bytes], packing: str) -> Iterator[IO[bytes]]:
    """Open what packs the bytes that are written, by the suffix of the file; without one, the file itself.

    The same bytes come of the same result: the time is left out.
    """
    if packing == ".gz":
        import gzip

        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield packed  # type: ignore[misc]  # it is read and written as a file of bytes
    elif packing == ".zst":
        with import_zstandard().ZstdCompressor().stream_writer(file, closefd=False) as packed:
            yield packed
    else:
        yield file


def import_zstandard() -> ModuleType:
    """Import the library that packs `.zst`.

    Raises:
        CannotError: it is not installed.
    """
    try:
        import zstandard
    except ImportError:
        message = "files packed by Zstandard need a package that is not there: zstandard"
        raise CannotError(
            "missing-extra", message, help="pip install zstandard, or name a file that ends in .gz"
        ) from None
    return zstandard
