"""Recognise the format of standard input by what it holds. Entry: `detect_format`."""

from __future__ import annotations

import re

from attncli.errors import InputError
from attncli.readers.base import load_reader

FORMAT_TITLES = {
    "json": "JSON",
    "ndjson": "JSON lines",
    "ndjson-tokens": "JSON lines of tokens",
    "csv": "CSV",
    "npy": "NPY",
    "npz": "NPZ",
    "parquet": "Parquet",
    "arrow": "Arrow",
}  # others by their name
_MAGIC_NUMBERS = {
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # a stream
}
_MAX_FIRST_LINE = 2**24  # bytes of it that are parsed to tell JSON lines from JSON
_UTF8_MARK = b"\xef\xbb\xbf"
# What may follow the first bracket of JSON; a token of a table may be a bracket, too.
_JSON_START = re.compile(
    rb'\{\s*+(?:"|\}|\Z)|\[\s*+(?:[\[{"\]]|(?:true|false|null)\b|\Z|-?\d[\d.eE+-]*+\s*+(?:[,\]]|\Z)|-?(?:Infinity|NaN))'
)


def detect_format(data: bytes) -> str:
    """Return the name of the format of bytes that are not packed: a magic number, JSON, JSON lines, or else CSV.

    Files of other programs are CSV here: that they are none is said when they are read.

    Raises:
        InputError: there are none.
    """
    text = data.removeprefix(_UTF8_MARK).lstrip(b" \t\r\n")
    if not text:
        raise InputError("empty", "standard input is empty", help="attn compute tokens.csv reads a file")
    for magic, name in _MAGIC_NUMBERS.items():
        if data.startswith(magic):
            return name
    if data[8:9] == b"{" and 0 < int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "safetensors"
    if not _JSON_START.match(text):
        return "csv"
    if not _is_json_lines(text):
        return "json"
    find_format = load_reader("ndjson").find_format
    return find_format(text.partition(b"\n")[0]) if find_format else "ndjson"


def _is_json_lines(text: bytes) -> bool:
    """Whether the first line is a JSON value by itself, and another follows."""
    import msgspec

    first, _, rest = text.partition(b"\n")
    if not rest.strip() or rest.lstrip()[:1] not in b"[{" or len(first) > _MAX_FIRST_LINE:
        return False
    if first.rstrip()[-1:] not in (b"}", b"]"):
        return False
    try:
        msgspec.json.decode(first)
    except Exception:  # whatever it is, it goes on in the next line
        return False
    return True
