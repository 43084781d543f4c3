"""Say how much memory a Parquet or Arrow file would take, from its headers alone, before anything is unpacked.

Entries: `count_parquet_bytes`, `count_arrow_bytes`. A few hundred bytes can stand for gigabytes: a page of Parquet may say
one value a million times, and a buffer of Arrow may be compressed zeros. What is declared where the library looks is counted.
Sources: Apache Parquet, parquet.thrift and the compact protocol of Thrift; Apache Arrow, Message.fbs and File.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

_MAX_PARTS = 400_000  # headers and fields that are looked at, of one file
_MAX_DEPTH = 32  # of structures within each other
_BYTES_PER_NUMBER = 16  # once as the library decodes it, and once in an array
_BYTES_PER_TEXT = 96  # a label, beside its characters
_BYTES_PER_ROW = 48  # a token has a label and a position
_BYTE_ARRAY = 6  # the type of texts in Parquet
_DICTIONARY_PAGE = 7  # the field of a page's header
# The field that each kind of page has in its header → its fields that are numbers of values, nulls, rows and bytes.
_PAGE_SIZES = {5: (1,), _DICTIONARY_PAGE: (1,), 8: (1, 2, 3, 5, 6)}

_Struct: TypeAlias = dict[int, Any]  # number of a field → its value


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────
def count_parquet_bytes(data: bytes, names: set[str]) -> dict[str, int]:
    """Count the bytes of memory that some columns of a Parquet file would take, by their names; under "" what the rows take.

    Raises:
        ValueError, IndexError, struct.error: the headers are damaged.
    """
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - footer_bytes
    if start < 4:
        raise ValueError(f"a footer of {footer_bytes:,} bytes is declared, but the file has {len(data):,}")
    decoder = _ThriftDecoder(data)
    footer, _ = decoder.decode_struct(start)
    sizes = dict.fromkeys(names, 0)
    groups = _list_of(footer, 4)
    row_counts = [int(footer.get(3, 0)), *(int(group.get(3, 0)) for group in groups)]
    if min(row_counts) < 0:
        raise ValueError("a number of rows is below 0")
    row_count = max(row_counts[0], sum(row_counts[1:]))
    for group in groups:
        for chunk in _list_of(group, 1):
            column = chunk.get(3) or {}
            path = _list_of(column, 3)
            name = bytes(path[0]).decode("utf-8", "replace") if path else ""
            if name in sizes:
                sizes[name] += _count_chunk_bytes(decoder, column)
    return sizes | {"": sizes.get("", 0) + _BYTES_PER_ROW * row_count}


def _list_of(structure: _Struct, field: int) -> list[Any]:
    value = structure.get(field, [])
    if not isinstance(value, list):
        raise ValueError("a header has a field of another type")
    return value


def _count_chunk_bytes(decoder: _ThriftDecoder, column: _Struct) -> int:
    """Count the bytes that the pages of one chunk of a column declare.

    Raises:
        ValueError: they declare a number below 0, which the library takes for one of 2**64, or other values than the chunk.
    """
    per_value = _BYTES_PER_TEXT if column.get(1) == _BYTE_ARRAY else _BYTES_PER_NUMBER
    position = int(column[11] if 11 in column else column[9])
    end = position + int(column[7])
    if position < 0 or end > len(decoder.data):
        raise ValueError("a column does not lie in the file as declared")
    count = value_count = 0
    while position < end:
        header, position = decoder.decode_struct(position)
        pages = {kind: header[kind] for kind in _PAGE_SIZES if kind in header}
        sizes = [
            int(header[2]),
            int(header[3]),
            *(int(page.get(i, 0)) for kind, page in pages.items() for i in _PAGE_SIZES[kind]),
        ]
        if min(sizes) < 0:
            raise ValueError("a page has a size below 0")
        count += int(header[2]) + per_value * sum(int(page.get(1, 0)) for page in pages.values())
        value_count += sum(int(page.get(1, 0)) for kind, page in pages.items() if kind != _DICTIONARY_PAGE)
        position += int(header[3])
    if value_count != int(column[5]):
        raise ValueError(f"the pages of a column hold {value_count:,} values, but {int(column[5]):,} are declared")
    return max(count, int(column.get(6, 0)))


class _ThriftDecoder:
    """Decodes structures of Thrift's compact protocol, with a bound on how many parts it looks at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.part_count = 0

    def decode_struct(self, position: int, depth: int = 0) -> tuple[_Struct, int]:
        """Decode a structure; return it and the position after it."""
        if depth > _MAX_DEPTH:
            raise ValueError("its headers are nested too deep")
        fields: _Struct = {}
        number, data = 0, self.data
        while head := data[position]:
            position += 1
            if head >> 4:
                number += head >> 4
            else:
                number, position = self._decode_integer(position)
            kind, first = head & 15, data[position]
            if kind in (5, 6):  # an integer, as most are: no function is called for it
                value, shift = first & 127, 7
                while first > 127:
                    position += 1
                    first = data[position]
                    value |= (first & 127) << shift
                    shift += 7
                    if shift > 63 and first > 127:
                        raise ValueError("a number in a header is too long")
                fields[number] = (value >> 1) ^ -(value & 1)
                position += 1
            elif kind == 8 and first < 128 and position + first < len(data):
                fields[number] = data[position + 1 : position + 1 + first]
                position += 1 + first
            elif kind == 12:
                fields[number], position = self.decode_struct(position, depth + 1)
            else:
                fields[number], position = self._decode_value(kind, position, depth)
        self._count_part()
        return fields, position + 1

    def _count_part(self) -> None:
        self.part_count += 1
        if self.part_count > _MAX_PARTS:
            raise ValueError("it has more headers than are looked at")

    def _decode_value(self, kind: int, position: int, depth: int) -> tuple[Any, int]:
        self._count_part()
        if kind in (1, 2):  # true, false
            return kind == 1, position
        if kind == 3:
            return self.data[position], position + 1
        if kind in (4, 5, 6):
            return self._decode_integer(position)
        if kind == 7:
            return None, position + 8
        if kind == 8:
            size, position = self._decode_varint(position)
            if size > len(self.data) - position:
                raise ValueError("a text is longer than the file")
            return self.data[position : position + size], position + size
        if kind in (9, 10):
            return self._decode_list(position, depth)
        if kind == 12:
            return self.decode_struct(position, depth + 1)
        raise ValueError(f"a header has a field of type {kind}")

    def _decode_list(self, position: int, depth: int) -> tuple[list[Any], int]:
        head = self.data[position]
        position += 1
        size, kind = head >> 4, head & 15
        if size == 15:
            size, position = self._decode_varint(position)
        items: list[Any] = []
        for _ in range(size):
            if kind == 12:
                item, position = self.decode_struct(position, depth + 1)
            elif kind in (1, 2):  # within lists a byte each
                position += 1
                item = None
            else:
                item, position = self._decode_value(kind, position, depth)
            items.append(item)
        return items, position

    def _decode_varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        data = self.data
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value, position
            if shift > 63:
                raise ValueError("a number in a header is too long")

    def _decode_integer(self, position: int) -> tuple[int, int]:
        value, position = self._decode_varint(position)
        return (value >> 1) ^ -(value & 1), position


# ── Arrow ────────────────────────────────────────────────────────────────────────────────────────
def count_arrow_bytes(data: bytes) -> int:
    """Count the bytes of memory that all columns of an Arrow file or stream would take.

    Raises:
        ValueError, IndexError, struct.error: the headers are damaged.
    """
    reader = _FlatReader(data)
    count = parts = 0
    for position in _message_positions(reader) if data.startswith(b"ARROW1") else _stream_positions(reader):
        size, start = reader.message_at(position)
        message = reader.root(start)
        header, kind = reader.table(message, 2), reader.scalar(message, 1, "<B")
        batch = reader.table(header, 1) if kind == 2 and header is not None else header  # 2: a dictionary's batch
        if kind not in (2, 3) or batch is None:
            continue
        lengths = [reader.scalar(batch, 0, "<q"), *(n for node in reader.pairs(batch, 1) for n in node)]
        if min(lengths) < 0:
            raise ValueError("a column has a length below 0")
        count += _BYTES_PER_ROW * lengths[0]
        is_compressed = reader.table(batch, 3) is not None
        for offset, length in reader.pairs(batch, 2):
            parts += 1
            if min(offset, length) < 0:
                raise ValueError("a buffer has a place or a size below 0")
            if parts > _MAX_PARTS:
                raise ValueError("it has more headers than are looked at")
            unpacked = length
            if is_compressed and length >= 8:
                declared = reader.unpack("<q", start + size + offset)
                unpacked = max(declared, length)
            count += 2 * max(unpacked, 0)
    return count


def _message_positions(reader: _FlatReader) -> Iterator[int]:
    """Yield where the messages of an Arrow file lie, as its footer says."""
    end = len(reader.data) - 10
    footer = reader.root(end - reader.unpack("<i", end))
    for field in (2, 3):
        start, count = reader.vector(footer, field, 24)
        for i in range(count):
            yield reader.unpack("<q", start + 24 * i)


def _stream_positions(reader: _FlatReader) -> Iterator[int]:
    """Yield where the messages of an Arrow stream lie, one after the other."""
    position = 0
    while position + 8 <= len(reader.data):
        size, start = reader.message_at(position)
        if not size:
            return
        yield position
        body = reader.scalar(reader.root(start), 3, "<q")
        if body < 0:
            raise ValueError("a message has a size below 0")
        position = start + size + body


class _FlatReader:
    """Reads tables of FlatBuffers, each by its position."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def unpack(self, form: str, position: int) -> int:
        """Read one number.

        Raises:
            struct.error: it does not lie in the file.
        """
        if position < 0:
            raise struct.error("a position is below 0")
        return int(struct.unpack_from(form, self.data, position)[0])

    def message_at(self, position: int) -> tuple[int, int]:
        """Return the size of a message's header and where it begins; older files have no mark before the size."""
        size = self.unpack("<i", position)
        start = position + 4
        if size == -1:
            size, start = self.unpack("<i", position + 4), position + 8
        if size < 0:
            raise ValueError("a message has a size below 0")
        return size, start

    def root(self, position: int) -> int:
        """Return the position of the outermost table."""
        return position + self.unpack("<I", position)

    def field(self, table: int, number: int) -> int | None:
        """Return the position of a field; None where the table lacks it."""
        virtual_table = table - self.unpack("<i", table)
        if 4 + 2 * number >= self.unpack("<H", virtual_table):
            return None
        offset = self.unpack("<H", virtual_table + 4 + 2 * number)
        return table + offset if offset else None

    def scalar(self, table: int, number: int, form: str) -> int:
        """Return a number in a field; 0 where the table lacks it."""
        position = self.field(table, number)
        return 0 if position is None else self.unpack(form, position)

    def table(self, table: int, number: int) -> int | None:
        """Return the position of a table within a table; None where it is lacking."""
        position = self.field(table, number)
        return None if position is None else position + self.unpack("<I", position)

    def vector(self, table: int, number: int, item_bytes: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and how many there are."""
        position = self.table(table, number)
        if position is None:
            return 0, 0
        count = self.unpack("<I", position)
        if count * item_bytes > len(self.data):
            raise ValueError("a list is longer than the file")
        return position + 4, count

    def pairs(self, table: int, number: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of 64-bit integers that a vector holds."""
        start, count = self.vector(table, number, 16)
        for i in range(count):
            yield self.unpack("<q", start + 16 * i), self.unpack("<q", start + 16 * i + 8)
