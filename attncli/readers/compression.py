"""Unpack gzip and Zstandard, no further than a file of its size may cost. Entries: `unpack`, `unpack_lines`, `read_first_line`.

How a file is packed is told by its first bytes, whatever its name says. Other packings are known, and refused with the command
that unpacks them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from attncli.errors import CannotError, InputError
from attncli.readers.parser_errors import translate_parser_errors
from attncli.text import shorten

PACKED_SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
_MAGIC_NUMBERS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_UNPACK_COMMANDS = {"gzip": "gunzip -k", "zstd": "zstd -d"}
# First bytes, or a suffix → the packing's name, and what unpacks it.
_OTHER_MAGIC_NUMBERS = {b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"PK\x03\x04": ".zip", b"7z\xbc\xaf": ".7z"}
_OTHER_PACKINGS = {
    ".bz2": ("bzip2", "bunzip2 -k"),
    ".xz": ("xz", "unxz -k"),
    ".lzma": ("LZMA", "unlzma -k"),
    ".lz4": ("LZ4", "lz4 -d"),
    ".zip": ("ZIP", "unzip"),
    ".7z": ("7-Zip", "7z x"),
    ".tar": ("tar", "tar -xf"),
    ".tgz": ("tar", "tar -xf"),
}
_PIECE_BYTES = 2**18  # that are unpacked at a time
_HEAD_PIECE_BYTES = 2**16  # the same, where the first line is wanted
_UNPACKED_COST = (
    2**24
)  # in bytes of memory, which every file may take once it is unpacked and parsed, however small it is
_COST_PER_BYTE = (
    60  # and for each byte of the file as many more; numbers compress by less than 3, and take 13 bytes a byte
)
# What text takes in memory while it is parsed: for each byte, and for each character that ends a row, a cell, or a key.
_BYTE_COST, _ROW_COST, _CELL_COST, _KEY_COST = 8, 200, 40, 160
_MAX_LINES_RATIO = 64  # of the bytes of all lines to those of the file
_FRAME_PIECE_BYTES = (
    2**9
)  # that are unpacked at a time from Zstandard, whose shortest block of 4 bytes unpacks to 2**17
_MAX_WINDOW_BYTES = 2**27  # of Zstandard, which its own program allows
_MIN_WINDOW_BYTES = 2**23  # which every decoder should allow (RFC 8878)


def packed_suffix(path: str) -> str:
    """Return the suffix of a path that says how it is packed: .gz or .zst; empty where none does."""
    suffix = PurePath(path).suffix.lower()
    return suffix if suffix in PACKED_SUFFIXES else ""


def strip_packed_suffix(path: str) -> str:
    """Return a path without the suffix that says how it is packed."""
    suffix = packed_suffix(path)
    return path[: -len(suffix)] if suffix else path


def explain_unpacking(path: str) -> str:
    """Return how to unpack a file whose suffix says how it is packed."""
    return f"unpack it first: {_UNPACK_COMMANDS[PACKED_SUFFIXES[packed_suffix(path)]]} {shorten(path)}"


def explain_other_packing(path: str) -> tuple[str, str] | None:
    """Return what a path is packed by, and the way out, where its suffix names a packing that is not read."""
    packing = _OTHER_PACKINGS.get(PurePath(path).suffix.lower())
    return None if packing is None else (packing[0], f"unpack it first: {packing[1]} {path}")


def unpack(data: bytes, name: str) -> tuple[bytes, str]:
    """Unpack the bytes of a file, if they are packed.

    Returns:
        The bytes, and what they were packed by; empty where they were not.

    Raises:
        InputError: it is damaged, packed in another way, or unpacks to far more than its size.
        CannotError: the library is missing, or what it unpacks to does not fit in memory.
    """
    kind = _find_packing(data[:8], name)
    if not kind:
        return data, ""
    pieces: list[bytes] = []
    cost = 0
    with translate_parser_errors("bad-file", f"this is no whole {kind} file", "was the copy cut short?"):
        file = _open_unpacked(io.BytesIO(data), kind, len(data))
        while piece := file.read(_PIECE_BYTES):
            pieces.append(piece)
            cost += _parsing_cost(piece)
            if cost > _UNPACKED_COST + _COST_PER_BYTE * len(data):
                raise _too_compressed_error(len(data), kind, name)
        return b"".join(pieces), kind


def unpack_lines(file: Any, name: str) -> Iterator[bytes]:
    """Yield the lines of an open file as they come in, unpacked if they are packed.

    Args:
        file: a buffered reader, or a `CountedReader` of one.
        name: the file's; its suffix may say how it is packed.

    Raises:
        InputError, CannotError: as `unpack`; a line, and all lines together, may be only so much longer than the file.
    """
    if not hasattr(file, "peek"):
        file = io.BufferedReader(file)
    head = file.peek(8)[:8]
    kind = _find_packing(head, name)
    if not kind:
        yield from iter(file.readline, b"")
        return
    counted = file if isinstance(file, CountedReader) else CountedReader(file)
    rest: list[bytes] = []  # the pieces of a line that has not ended
    rest_cost = total = 0
    with translate_parser_errors("bad-file", f"this is no whole {kind} file", "was the copy cut short?"):
        unpacked = _open_unpacked(counted, kind, _MAX_WINDOW_BYTES if packed_suffix(name) else 0)
    while True:
        with translate_parser_errors("bad-file", f"this is no whole {kind} file", "was the copy cut short?"):
            piece = unpacked.read(_PIECE_BYTES)
        total += len(piece)
        first, *lines = piece.split(b"\n")
        rest.append(first)
        rest_cost += _parsing_cost(first)
        if lines:
            lines, last = [b"".join(rest), *lines[:-1]], lines[-1]
            rest, rest_cost = [last], _parsing_cost(last)
        is_too_long = rest_cost > _UNPACKED_COST + _COST_PER_BYTE * counted.bytes_read
        if is_too_long or total > _UNPACKED_COST + _MAX_LINES_RATIO * counted.bytes_read:
            raise _too_compressed_error(counted.bytes_read, kind, name)
        yield from (line + b"\n" for line in lines)
        if not piece:
            if any(rest):
                yield b"".join(rest)
            return


def read_first_line(file: Any, name: str, max_bytes: int) -> bytes:
    """Return the first line of an open file that is not blank, unpacked if it is packed, and cut off after so many bytes.

    Raises:
        InputError, CannotError: as `unpack`.
    """
    kind = _find_packing(file.peek(8)[:8], name)
    head = b""
    with translate_parser_errors("bad-file", f"this is no whole {kind or 'text'} file"):
        unpacked = _open_unpacked(file, kind, _MAX_WINDOW_BYTES if packed_suffix(name) else 0) if kind else file
        while len(head) < max_bytes and (piece := unpacked.read(_HEAD_PIECE_BYTES)):
            head += piece
            line, end, _ = head.lstrip().partition(b"\n")
            if end:
                return bytes(line)
    return head.lstrip()[:max_bytes]


class CountedReader:
    """Reads an open file, counts the bytes that were read, and hashes them where a hash is given.

    Args:
        file: a buffered reader.
        digest: an object of hashlib.
    """

    def __init__(self, file: Any, digest: Any = None) -> None:
        self.file, self.digest = file, digest
        self.bytes_read = 0

    def peek(self, size: int) -> bytes:
        """Return bytes that come next, and leave them to be read; some at least, before the end."""
        head: bytes = self.file.peek(size)
        return head

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes at most."""
        return self._count_bytes(self.file.read(size))

    def readline(self) -> bytes:
        """Read a line."""
        return self._count_bytes(self.file.readline())

    def _count_bytes(self, data: bytes) -> bytes:
        self.bytes_read += len(data)
        if self.digest is not None:
            self.digest.update(data)
        return data


def _find_packing(head: bytes, name: str) -> str:
    """Return how a file that begins so is packed; empty where it is not.

    Raises:
        InputError: it is packed in a way that is not read.
    """
    for magic, suffix in _OTHER_MAGIC_NUMBERS.items():
        if head.startswith(magic):
            packing, command = _OTHER_PACKINGS[suffix]
            hint = f"unpack it first: {command}"
            if suffix == ".zip":
                hint += "; a workbook of Excel is a ZIP file, too: save it as CSV"
            raise InputError("packed", f"this is packed by {packing}, which is not read", help=hint)
    kind = next((kind for magic, kind in _MAGIC_NUMBERS.items() if head.startswith(magic)), "")
    expected = PACKED_SUFFIXES.get(packed_suffix(name), "")
    if expected and not kind and head:
        raise InputError("bad-file", f"this is no {expected} file, though its name says so", help="take the suffix off")
    return kind


def _open_unpacked(file: Any, kind: str, size: int) -> Any:
    """Open what reads the unpacked bytes of a packed file.

    Raises:
        CannotError: the library is missing.
    """
    if kind == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=file, mode="rb")
    try:
        import zstandard
    except ImportError:
        raise CannotError(
            "missing-extra",
            "files packed by Zstandard need a package that is not there: zstandard",
            help="pip install zstandard, or unpack it first: zstd -d",
        ) from None
    window = max(_MIN_WINDOW_BYTES, min(_MAX_WINDOW_BYTES, 16 * size))
    return _ZstandardReader(file, zstandard.ZstdDecompressor(max_window_size=window))


class _ZstandardReader:
    """Unpacks the frames of a file one after another; the library's own reader takes one that is cut short for whole."""

    def __init__(self, file: Any, decompressor: Any) -> None:
        self.file, self.decompressor = file, decompressor
        self.frame = decompressor.decompressobj()
        self.is_in_frame = False

    def read(self, size: int) -> bytes:
        """Unpack some bytes, at most 2**15 for each that is read; none at the end.

        Raises:
            EOFError: the last frame is cut short.
        """
        while packed := self.file.read(_FRAME_PIECE_BYTES):
            pieces: list[bytes] = []
            while packed:
                pieces.append(self.frame.decompress(packed))
                self.is_in_frame = not self.frame.eof
                packed = b""
                if self.frame.eof:
                    packed = self.frame.unused_data
                    self.frame = self.decompressor.decompressobj()
            if any(pieces):
                return b"".join(pieces)
        if self.is_in_frame:
            raise EOFError("it ends in the middle")
        return b""


def _parsing_cost(data: bytes) -> int:
    """Estimate how many bytes of memory a text takes while it is parsed, from above."""
    count = data.count
    row_count = count(b"\n") + count(b"\r") + count(b"[") + count(b"{")
    cell_count = count(b",") + count(b" ") + count(b"\t") + count(b";")
    return _BYTE_COST * len(data) + _ROW_COST * row_count + _CELL_COST * cell_count + _KEY_COST * count(b":")


def _too_compressed_error(size: int, kind: str, name: str) -> InputError:
    return InputError(
        "too-compressed",
        f"{size:,} bytes would take more than {_UNPACKED_COST + _COST_PER_BYTE * size:,} in memory once they are unpacked: 16 MiB and 60 times as many",
        help=f"unpack it first, if you trust it: {_UNPACK_COMMANDS[kind]} {name}",
    )
