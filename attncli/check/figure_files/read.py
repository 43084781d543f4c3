"""Reading a file of figures by its suffix. Entry: `read_figures`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

import numpy as np

from attncli.check.figure_files.arrays import figures_from_npy, figures_from_npz, figures_from_safetensors
from attncli.check.figure_files.csv import figures_from_arrow, figures_from_csv, figures_from_parquet
from attncli.check.figure_files.json import figures_from_json, figures_from_ndjson
from attncli.check.figures import Figures
from attncli.check.worksheet import has_gaps, read_worksheet
from attncli.errors import InputError, OptionError
from attncli.readers import decode_text, read_bytes
from attncli.readers.compression import explain_unpacking, packed_suffix, strip_packed_suffix, unpack
from attncli.text import join_names, printable, shorten

_WORKSHEET_SUFFIXES = (".md", ".txt")
_TEXT_SUFFIXES = (".json", ".ndjson", ".csv", ".tsv", *_WORKSHEET_SUFFIXES)  # which may be packed


def read_figures(path: str) -> Figures:
    """Read a file of figures, by its suffix: .json, .ndjson of one line, .npz, .npy, .safetensors, .parquet, .arrow, .csv, .tsv; a worksheet is text.

    Texts may be packed by gzip or Zstandard.

    Raises:
        OptionError: the format is not read.
        InputError: the file cannot be read, or holds no figures.
    """
    suffix = PurePath(strip_packed_suffix(path)).suffix.lower()
    if suffix == ".tex":
        hint = "attn explain … --blank STEP --format markdown writes a worksheet that can be read"
        raise OptionError("unknown-format", f"{path} is LaTeX, which cannot be read back", help=hint)
    data = read_bytes(path)
    with np.errstate(all="ignore"):
        return _parse_figures(path, suffix, data)


def _parse_figures(path: str, suffix: str, data: bytes) -> Figures:
    """Parse the bytes of a file of figures.

    Raises:
        OptionError, InputError: as `read_figures`.
    """
    try:
        if suffix in _TEXT_SUFFIXES:
            data, _ = unpack(data, path)
        elif packed_suffix(path):
            message = f"{shorten(path)}: of packed figures only text is read, {join_names(_TEXT_SUFFIXES)}"
            raise OptionError("unknown-format", message, help=explain_unpacking(path))
        if suffix in _READERS:
            return _READERS[suffix](path, data)
        text = decode_text(data, format_name="a text of figures")
        if suffix in (".csv", ".tsv"):
            return figures_from_csv(path, text, "\t" if suffix == ".tsv" else "")
        if suffix not in _WORKSHEET_SUFFIXES and not has_gaps(text):
            hint = f"figures can be {join_names((*_READERS, '.csv', '.tsv'))}, and a worksheet {join_names(_WORKSHEET_SUFFIXES)}"
            raise OptionError("unknown-format", f"{printable(path)} is not in a format for figures", help=hint)
        return read_worksheet(path, text)
    except InputError as error:
        raise error.add_location(file=path) from None


_READERS: dict[str, Callable[[str, bytes], Figures]] = {
    ".json": figures_from_json,
    ".ndjson": figures_from_ndjson,
    ".npz": figures_from_npz,
    ".npy": figures_from_npy,
    ".safetensors": figures_from_safetensors,
    ".parquet": figures_from_parquet,
    ".pq": figures_from_parquet,
    ".arrow": figures_from_arrow,
    ".feather": figures_from_arrow,
    ".ipc": figures_from_arrow,
}
