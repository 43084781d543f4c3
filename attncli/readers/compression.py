"""Unpack gzip and Zstandard, no further than a file of its size may cost. Entries: `unpack`, `unpack_lines`, `read_first_line`.

How a file is packed is told by its first bytes, whatever its name says. Other packings are known, and refused with the command
that unpacks them.
"""

from __future__ import annotations

import functools
import io
from collections import deque
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, Protocol

from attncli.errors import CannotError, InputError
from attncli.readers.parser_errors import translate_parser_errors
from attncli.text import shorten

if TYPE_CHECKING:
    import zstandard

PACKED_SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
_MAGIC_NUMBERS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_UNPACK_COMMANDS = {"gzip": "gunzip -k", "zstd": "zstd -d"}
# First bytes, or a suffix → the packing's name, and what unpacks it.
_OTHER_MAGIC_NUMBERS = {b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"PK\x03\x04": ".zip", b"7z\xbc\xaf": ".7z"}
_ALL_MAGIC_NUMBERS = (*_MAGIC_NUMBERS, *_OTHER_MAGIC_NUMBERS)
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
_ARRIVING_BYTES = 2**18  # of lines that are not packed, read at a time at most
_PACKED_PIECE_BYTES = 2**16  # that are read at a time
_MAX_BLOCK_BYTES = 2**17  # of Zstandard
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"  # of frames that hold no data, after a byte from 50 to 5F
_MAX_WINDOW_BYTES = 2**27  # of Zstandard, which its own program allows
_MIN_WINDOW_BYTES = 2**23  # which every decoder should allow (RFC 8878)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _ReadableNow(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...


def packed_suffix(path: str) -> str:
    """Return the suffix of a path that says how it is packed: .gz or .zst; empty where none does."""
    if not path.lower().endswith((*PACKED_SUFFIXES,)):
        return ""
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
    max_cost = _UNPACKED_COST + _COST_PER_BYTE * len(data)
    with translate_parser_errors("bad-file", f"this is not a complete {kind} file", "was the copy cut short?"):
        file = _open_unpacked(io.BytesIO(data), kind, len(data))
        whole = file.read_whole(max_cost // _BYTE_COST)
        views = memoryview(whole)
        pieces = [views[i : i + _PIECE_BYTES] for i in range(0, len(whole), _PIECE_BYTES)]
        is_cheap = sum(map(_bound_cost, pieces)) <= max_cost  # which is counted quickly, and nearly always so
        if not is_cheap and sum(_parsing_cost(bytes(piece)) for piece in pieces) > max_cost:
            raise _too_compressed_error(len(data), kind, name)
        return whole, kind


class ArrivingLines(Iterator[bytes]):
    """The lines of a file, one after the other; `has_arrived` tells whether the next can be had without waiting for it."""

    def __init__(self, groups: Iterator[list[bytes]]) -> None:
        """Begin with lines as `unpack_lines` yields them."""
        self._groups = groups
        self._lines: deque[bytes] = deque()

    def __next__(self) -> bytes:
        """Return the next line, with its line feed, where it has one; wait for it if it has not come in."""
        while not self._lines:
            self._lines.extend(next(self._groups))
        return self._lines.popleft()

    def has_arrived(self) -> bool:
        """Whether another line that is not blank has come in."""
        return any(line.strip() for line in self._lines)


def unpack_lines(file: Any, name: str) -> Iterator[list[bytes]]:
    """Yield the lines of an open file, those together that come in together, unpacked if they are packed.

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
        yield from _split_lines(file)
        return
    counted = file if isinstance(file, CountedReader) else CountedReader(file)
    rest: list[bytes] = []  # the pieces of a line that has not ended
    rest_cost = total = 0
    with translate_parser_errors("bad-file", f"this is not a complete {kind} file", "was the copy cut short?"):
        unpacked = _open_unpacked(counted, kind, _MAX_WINDOW_BYTES if packed_suffix(name) else 0)
    while True:
        with translate_parser_errors("bad-file", f"this is not a complete {kind} file", "was the copy cut short?"):
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
        yield [line + b"\n" for line in lines]
        if not piece:
            if any(rest):
                yield [b"".join(rest)]
            return


def _split_lines(file: _ReadableNow) -> Iterator[list[bytes]]:
    """Yield the lines of a file that is not packed: those that are there, and no byte is waited for that completes none."""
    rest: list[bytes] = []  # the pieces of a line that has not ended
    while piece := file.read1(_ARRIVING_BYTES):
        first, *lines = io.BytesIO(piece).readlines()
        rest.append(first)
        if not first.endswith(b"\n"):
            continue
        lines.insert(0, b"".join(rest))
        rest = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        yield lines
    if rest:
        yield [b"".join(rest)]


def read_first_line(file: Any, name: str, max_bytes: int) -> bytes:
    """Return the first line of an open file that is not blank, unpacked if it is packed, and cut off after so many bytes.

    Raises:
        InputError, CannotError: as `unpack`.
    """
    kind = _find_packing(file.peek(8)[:8], name)
    head = b""
    with translate_parser_errors("bad-file", f"this is not a complete {kind or 'text'} file"):
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

    def __init__(self, file: Any, digest: _Hash | None = None) -> None:
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

    def read1(self, size: int) -> bytes:
        """Read what is there, so many bytes at most; wait only where there is nothing."""
        return self._count_bytes(self.file.read1(size))

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
    if not head.startswith(_ALL_MAGIC_NUMBERS) and not packed_suffix(name):
        return ""
    for magic, suffix in _OTHER_MAGIC_NUMBERS.items():
        if head.startswith(magic):
            packing, command = _OTHER_PACKINGS[suffix]
            hint = f"unpack it first: {command}"
            if suffix == ".zip":
                hint += "; a workbook of Excel is a ZIP file, too: save it as CSV"
            raise InputError("packed", f"this is packed by {packing}, which attn cannot unpack", help=hint)
    kind = next((kind for magic, kind in _MAGIC_NUMBERS.items() if head.startswith(magic)), "")
    expected = PACKED_SUFFIXES.get(packed_suffix(name), "")
    if expected and not kind and head:
        raise InputError(
            "bad-file", f"this is not a {expected} file, although its name says so", help="remove the suffix"
        )
    return kind


def _open_unpacked(file: Any, kind: str, size: int) -> _GzipReader | _ZstandardReader:
    """Open what reads the unpacked bytes of a packed file.

    Raises:
        CannotError: the library is missing.
    """
    if kind == "gzip":
        return _GzipReader(file)
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


class _GzipReader:
    """Unpacks the members of a file one after another, in larger pieces than `gzip`; zlib compares their checksums."""

    def __init__(self, file: _Readable) -> None:
        import zlib

        self.file = file
        self.make_member = functools.partial(zlib.decompressobj, 16 + zlib.MAX_WBITS)
        self.member = self.make_member()
        self.is_in_member = True
        self.rest = b""  # bytes that were read, and are not unpacked yet

    def read_whole(self, max_bytes: int) -> bytes:
        """Unpack all, up to the piece with which it is more than so many bytes.

        Raises:
            EOFError: the last member is cut short.
        """
        return _join_pieces(self, max_bytes)

    def read(self, size: int) -> bytes:
        """Unpack so many bytes at most; none at the end.

        Raises:
            EOFError: the last member is cut short.
        """
        while packed := self.rest or self.file.read(_PACKED_PIECE_BYTES):
            self.rest = b""
            if not self.is_in_member and not (packed := packed.lstrip(b"\0")):  # padding
                continue
            piece: bytes = self.member.decompress(packed, size)
            self.is_in_member = not self.member.eof
            self.rest = self.member.unconsumed_tail
            if self.member.eof:
                self.rest = self.member.unused_data
                self.member = self.make_member()
            if piece:
                return piece
        if self.is_in_member:
            raise EOFError("it ends in the middle")
        return b""


class _ZstandardReader:
    """Unpacks a file block by block, each of which gives 2**17 bytes at most; the library's own reader takes a frame that is cut short for whole.

    Source: RFC 8878, sections 3.1.1 and 3.1.2.
    """

    def __init__(self, file: IO[bytes], decompressor: zstandard.ZstdDecompressor) -> None:
        self.file, self.decompressor = file, decompressor
        self.frame: zstandard.ZstdDecompressionObj | None = None  # in which the file is

    def read_whole(self, max_bytes: int) -> bytes:
        """Unpack all, up to the block with which it is more than so many bytes.

        What cannot be more, by the number of its blocks, is unpacked at once: in pieces, all of it would be copied twice.

        Raises:
            EOFError: a frame is cut short.
        """
        size = _MAX_BLOCK_BYTES * self._count_blocks()
        self.file.seek(0)
        if size > max_bytes:
            return _join_pieces(self, max_bytes)
        packed = self.file.getvalue() if isinstance(self.file, io.BytesIO) else self.file.read()  # no copy if possible
        data: bytes = self.decompressor.stream_reader(packed, read_across_frames=True).read(size)
        return data

    def _count_blocks(self) -> int:
        count = 0
        while self._read_frame_header():
            is_last = False
            while not is_last:
                is_last = bool(self._read_block()[0] & 1)
                count += 1
        return count

    def read(self, size: int) -> bytes:
        """Unpack one block or some; none at the end.

        Raises:
            EOFError: a frame is cut short.
        """
        pieces: list[bytes] = []
        count = 0
        while count < size:
            packed = self._read_block() if self.frame else self._read_frame_header()
            if not packed:
                break
            self.frame = self.frame or self.decompressor.decompressobj()
            piece = self.frame.decompress(packed)
            if self.frame.eof:
                self.frame = None
            pieces.append(piece)
            count += len(piece)
        return b"".join(pieces)

    def _read_frame_header(self) -> bytes:
        """Begin the next frame, and return its header; nothing at the end of the file."""
        while magic := self.file.read(4):
            if magic[1:] == _SKIPPABLE_MAGIC and magic[0] >> 4 == 5:
                left = int.from_bytes(self._read_exactly(4), "little")
                while left:
                    left -= len(self._read_exactly(min(left, _PACKED_PIECE_BYTES)))
                continue
            if len(magic) < 4:
                raise EOFError("it ends in the middle")
            descriptor = self._read_exactly(1)
            self.has_checksum = bool(descriptor[0] & 4)
            is_single = bool(descriptor[0] & 32)
            window_bytes = 0 if is_single else 1
            size_bytes = (int(is_single), 2, 4, 8)[descriptor[0] >> 6]
            return bytes(
                magic + descriptor + self._read_exactly(window_bytes + (0, 1, 2, 4)[descriptor[0] & 3] + size_bytes)
            )
        return b""

    def _read_block(self) -> bytes:
        """Return the next block of the frame; the last with the checksum behind it."""
        head = self._read_exactly(3)
        number = int.from_bytes(head, "little")
        is_last, kind, size = number & 1, number >> 1 & 3, number >> 3
        if size > _MAX_BLOCK_BYTES:
            raise ValueError("a block is larger than any")
        return head + self._read_exactly((1 if kind == 1 else size) + (4 if is_last and self.has_checksum else 0))

    def _read_exactly(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        if len(data) < size:
            raise EOFError("it ends in the middle")
        return data


def _join_pieces(file: _Readable, max_bytes: int) -> bytes:
    """Return what a reader unpacks, up to the piece with which it is more than so many bytes."""
    pieces: list[bytes] = []
    count = 0
    while count <= max_bytes and (piece := file.read(_PIECE_BYTES)):
        pieces.append(piece)
        count += len(piece)
    return b"".join(pieces)


def _parsing_cost(data: bytes) -> int:
    """Estimate how many bytes of memory a text takes while it is parsed, from above."""
    count = data.count
    row_count = count(b"\n") + count(b"\r") + count(b"[") + count(b"{")
    cell_count = count(b",") + count(b" ") + count(b"\t") + count(b";")
    return _BYTE_COST * len(data) + _ROW_COST * row_count + _CELL_COST * cell_count + _KEY_COST * count(b":")


def _bound_cost(data: memoryview) -> int:
    """Bound what `_parsing_cost` returns, in a tenth of its time: whatever is neither a digit nor one of `-./` counts as a row."""
    import numpy as np

    others = np.frombuffer(data, np.uint8) - np.uint8(ord("-")) > ord("9") - ord("-")
    return _BYTE_COST * len(data) + _ROW_COST * int(np.count_nonzero(others))


def _too_compressed_error(size: int, kind: str, name: str) -> InputError:
    return InputError(
        "too-compressed",
        f"{size:,} bytes would take more than {_UNPACKED_COST + _COST_PER_BYTE * size:,} in memory once they are unpacked: 16 MiB and 60 times as many",
        help=f"unpack it first, if you trust it: {_UNPACK_COMMANDS[kind]} {name}",
    )
