"""Read problems from files: bytes in, a validated `Problem` out. One file a format. Entry: `read`."""

from attncli.readers.base import Reader, decode_text, find_reader, is_input_name, load_reader, load_readers
from attncli.readers.files import open_input, read_bytes
from attncli.readers.json_line_readers import detect_reader
from attncli.readers.read import InputFile, find_input, parse_problem, read
from attncli.readers.source import Source

__all__ = [
    "InputFile",
    "Reader",
    "Source",
    "decode_text",
    "detect_reader",
    "find_input",
    "find_reader",
    "is_input_name",
    "load_reader",
    "load_readers",
    "open_input",
    "parse_problem",
    "read",
    "read_bytes",
]
