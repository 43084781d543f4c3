"""Where results go: below the folder that is named for them, whatever a list, a manifest or a link there says."""

from __future__ import annotations

import hashlib
import os
import re

from attncli.atomic_file import refuse_link
from attncli.errors import CannotError

_MAX_PATH_BYTES = 3000  # of a result below its folder: systems allow 4096 bytes with the folder
_MAX_NAME_BYTES = 255  # of one part of it, as file systems allow
_HASH_PREFIX_CHARACTERS = 40  # of a name that no file can have, before its hash


def safe_name(path: str) -> str:
    """Return a path without anything that leads out of a folder: `..`, the root, the colon of a drive."""
    if os.sep == "\\":
        path = path.replace("\\", "/")
    parts = [re.sub(r"^[A-Za-z]:$", lambda m: m.group()[0], part) for part in path.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "index"


def valid_file_name(name: str, suffix: str = "") -> str:
    """Return a name and its suffix; where no file can be called so, a short name with its hash, and the suffix."""
    encoded = name.encode("utf-8", "surrogatepass")
    full_name = encoded + suffix.encode()
    has_valid_length = len(full_name) < _MAX_PATH_BYTES and all(
        len(part) <= _MAX_NAME_BYTES for part in full_name.split(b"/")
    )
    if has_valid_length and "\0" not in name and _is_encodable(name):
        return name + suffix
    start = name[:_HASH_PREFIX_CHARACTERS].replace("/", "_").replace("\0", "_").encode("utf-8", "ignore").decode()
    return f"{start}~{hashlib.sha256(encoded).hexdigest()[:8]}{suffix}"


def _is_encodable(name: str) -> bool:
    """Whether the system has bytes for a name."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def figure_path(result_path: str, format_name: str) -> str:
    """Return the path of the figure beside a result: its name with the suffix of the figure."""
    return f"{result_path.rpartition('.')[0]}.{format_name}"


def is_result_path(path: str) -> bool:
    """Whether this could be the path of a result below its folder, as `safe_name` and `valid_file_name` make them."""
    return safe_name(path) == path and valid_file_name(path) == path


def has_link(folder: str | os.PathLike[str], path: str) -> bool:
    """Return whether `refuse_link` would refuse a path."""
    try:
        refuse_link(folder, path)
    except CannotError:
        return True
    return False
