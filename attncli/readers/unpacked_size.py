"""Hold what a compressed file unpacks to against its size and the memory that is free. Entry: `check_unpacked_size`."""

from __future__ import annotations

from attncli.errors import CannotError, InputError, Location

_UNPACKED_BYTES = 2**24  # to which every file may unpack, however small it is
_UNPACKED_PER_BYTE = 16  # and for each byte of the file as many more
_LARGE_BYTES = 2**26  # the size from which what is unpacked is held against the memory that is free


def check_unpacked_size(unpacked: int, packed: int, help: str, path: str = "") -> None:
    """Check that what a file unpacks to is no more than a multiple of its size, and fits in the memory that is free.

    Args:
        unpacked: bytes in memory.
        packed: bytes of the file.
        help: the way out where it is more.
        path: the array or column that is the largest.

    Raises:
        InputError, CannotError: it is, or does not.
    """
    from attncli.plan.memory import available_memory_bytes

    if unpacked > _UNPACKED_BYTES + _UNPACKED_PER_BYTE * packed:
        raise InputError(
            "too-compressed",
            f"{packed:,} bytes would take {unpacked:,} in memory, more than 16 MiB and 16 times as many",
            location=Location(path=path),
            help=help,
        )
    available = available_memory_bytes() if unpacked > _LARGE_BYTES else None
    if available is not None and unpacked > available:
        raise CannotError(
            "out-of-memory",
            f"the arrays take {unpacked / 2**30:,.1f} GiB, but only {available / 2**30:,.1f} GiB are free",
            help="save fewer arrays in one file, or read it where there is more memory",
        )
