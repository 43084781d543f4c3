"""The manifest of a batch, `manifest.ndjson`: a line for each input that is finished, read back when the command is given again.

`Manifest` is the file, a `Receipt` one line of it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from attncli.atomic_file import atomic_write, refuse_link, temporary_prefix, write_error
from attncli.batch.name_lists import quote_name
from attncli.batch.result_paths import has_link, is_result_path
from attncli.errors import CannotError
from attncli.text import printable
from attncli.types import Json

MANIFEST_SCHEMA = "attn.batch/1"
LAYERS_SCHEMA = "attn.capture/1"  # of a folder of layers, which attn capture has written
_PROGRAMS = {MANIFEST_SCHEMA: "attn batch", LAYERS_SCHEMA: "attn capture"}
FAILED_LIST_FILE = "failed.txt"
RUN_ID_FILE = ".attn-batch"  # it exists while a run has workers on other machines
RESUME_HINT = "finished results are kept; run the same command to resume"


# O_NOFOLLOW: no link that has been put there since it was looked at.
_APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
_MAX_COUNT = 2**53  # of bytes, problems, attempts


@dataclass(frozen=True)
class Receipt:
    """What became of one input: a line of the manifest. It is small, and so a worker sends it rather than the result."""

    input: str
    result: str
    # skipped: it was done before; stopped: no input can be computed, because nothing can be written, or the command is wrong
    status: Literal["done", "failed", "skipped", "stopped"]
    sha256: str | None = None  # of the content of the input
    variant: str = ""  # the hash of all choices
    bytes: int | None = None  # the size of the result
    result_sha256: str | None = None  # of the content of the result
    problems: int | None = None  # the number of problems in JSON lines
    seconds: float = 0.0
    attempts: int = 1
    warnings: tuple[str, ...] = ()
    error: Json | None = None


class ResultRecord(NamedTuple):
    """What the manifest says of a result. If that still holds, the result need not be computed again."""

    sha256: str  # of the content of its input
    bytes: int
    result_sha256: str


class Manifest:
    """The manifest of one folder of results; from `open` to `close` one process has locked the folder.

    A line is written at once and whole; a last line that a killed process left incomplete is passed over. `finalize` writes
    the file anew at the end, each input once.
    """

    def __init__(self, folder: Path, schema: str = MANIFEST_SCHEMA) -> None:
        self.folder, self.path, self.schema = folder, folder / "manifest.ndjson", schema
        self.header: Json = {}
        self.header_error = ""  # what is wrong with a header that is none
        self.receipts: dict[str, Receipt] = {}  # by result
        self.lock_descriptor = self.file_descriptor = -1
        self.has_torn_line = False
        self.run_id = ""  # of this run, where workers on other machines must know it
        self.content = self._read_file()

    def _read_file(self) -> bytes:
        """Read header and receipts from the file, and return its bytes.

        Raises:
            CannotError: it cannot be read, or a link stands where one of our files belongs.
        """
        self.header, self.header_error, self.receipts = {}, "", {}
        for name in (self.path.name, FAILED_LIST_FILE, RUN_ID_FILE):
            refuse_link(self.folder, name)
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CannotError("cannot-read", f"{self.path} cannot be read: {error.strerror}") from None
        self.has_torn_line = bool(data) and not data.endswith(b"\n")
        for line in data.split(b"\n"):
            fields = _parse_line(line)
            if "schema" not in fields:
                if receipt := _make_receipt(fields):
                    self.receipts[receipt.result] = receipt
            elif fields["schema"] == self.schema:
                if _is_seed(fields.get("seed")):
                    self.header = fields
                else:
                    self.header_error = "its seed is not an integer from 0 to 2⁶⁴ − 1"
        return data

    @property
    def exists(self) -> bool:
        """Whether the folder is one of a batch: its manifest has a header."""
        return bool(self.header)

    @property
    def foreign_file(self) -> Path | None:
        """A file that has the name of one of ours, though no batch made it; None: there is none."""
        if self.exists:
            return None
        paths = [path for path in (self.path, self.folder / FAILED_LIST_FILE) if path.exists()]
        return next((path for path in paths if path.is_dir() or path.stat().st_size), None)

    def open(self, header: Json) -> None:
        """Make the folder, lock it, and write the header.

        Raises:
            CannotError: another process writes there, or the system lets nobody write there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_folder()
            if self._read_file() != self.content:
                hint = "run the command again"
                raise CannotError(
                    "folder-in-use", f"another {_PROGRAMS[self.schema]} has just written to {self.folder}", help=hint
                )
            self.file_descriptor = os.open(self.path, _APPEND_FLAGS, 0o666)
        except OSError as error:
            raise write_error(error, str(self.path)) from error
        if self.has_torn_line:
            self._append_line(b"\n")
        header = {"schema": self.schema, **header}
        if header != self.header:
            self._append_line(_json_line(header))
            self.header = header

    def _lock_folder(self) -> None:
        try:
            import fcntl
        except ImportError:  # a system without locks of files
            return
        self.lock_descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock_descriptor)
            self.lock_descriptor = -1
            hint = "wait for it, or name another folder"
            raise CannotError(
                "folder-in-use", f"another {_PROGRAMS[self.schema]} is writing to {self.folder}", help=hint
            ) from None
        except OSError:  # a file system without locks
            return

    def publish_run_id(self) -> str:
        """Write the id of this run into the folder: a task that an earlier run left on a worker finds another, and gives up."""
        self.run_id = secrets.token_hex(8)
        with atomic_write(self.folder / RUN_ID_FILE, durable=False) as file:
            file.write(self.run_id.encode())
        return self.run_id

    def remove_leftovers(self, results: Iterable[str]) -> None:
        """Remove the temporary files of results that a killed process was writing."""
        prefixes_by_folder: dict[str, set[str]] = {}
        for result in (*results, self.path.name, FAILED_LIST_FILE):
            folder, _, name = result.rpartition("/")
            prefixes_by_folder.setdefault(folder, set()).add(temporary_prefix(name))
        for folder, prefixes in prefixes_by_folder.items():
            if folder and has_link(self.folder, folder):
                continue  # what is behind it is not ours
            with suppress(OSError), os.scandir(self.folder / folder) as entries:
                for entry in entries:
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    if re.fullmatch("[0-9a-f]{8}", entry.name[-8:]) and entry.name[:-8] in prefixes:
                        with suppress(OSError):
                            os.unlink(entry.path)

    def add_receipt(self, receipt: Receipt) -> None:
        """Append the receipt of an input that is done or has failed."""
        self.receipts[receipt.result] = receipt
        self._append_line(_json_line(_receipt_fields(receipt)))

    def _append_line(self, line: bytes) -> None:
        size = os.fstat(self.file_descriptor).st_size
        try:
            written = os.write(self.file_descriptor, line)
            while written < len(line):
                written += os.write(self.file_descriptor, line[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.file_descriptor, size)  # no half line
            cannot_write = write_error(error, str(self.path))
            cannot_write.help = RESUME_HINT
            raise cannot_write from error

    def finalize(self, result_order: Iterable[str]) -> None:
        """Write the manifest anew, each input once and in order, and the list of those that failed."""
        results = dict.fromkeys((*result_order, *self.receipts))
        receipts = [self.receipts[result] for result in results if result in self.receipts]
        with atomic_write(self.path) as file:
            file.write(_json_line(self.header))
            file.writelines(_json_line(_receipt_fields(receipt)) for receipt in receipts)
        failed = [receipt for receipt in receipts if receipt.status == "failed"]
        if not failed:
            (self.folder / FAILED_LIST_FILE).unlink(missing_ok=True)
            return
        with atomic_write(self.folder / FAILED_LIST_FILE) as file:
            for receipt in failed:
                error = receipt.error or {}
                reason = printable(f"{error.get('code', '')}: {error.get('message', '')}")
                line = f"{quote_name(receipt.input)}\t{reason}\n"
                file.write(line.encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Close the manifest, and unlock the folder."""
        if self.run_id:
            (self.folder / RUN_ID_FILE).unlink(missing_ok=True)
        for descriptor in (self.file_descriptor, self.lock_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self.file_descriptor = self.lock_descriptor = -1


def _parse_line(line: bytes) -> Json:
    """Parse a line of a manifest, which anybody may have written; an empty object where it is none of ours."""
    try:
        fields = json.loads(line)  # which, unlike msgspec, reads names that are no UTF-8
    except (ValueError, RecursionError):  # incomplete, or no JSON, or nested without end
        return {}
    return fields if isinstance(fields, dict) else {}


def _make_receipt(fields: Json) -> Receipt | None:
    """The receipt that a line holds; None where it is none, or names a result that is not below the folder."""
    import msgspec

    try:
        receipt = msgspec.convert(fields, Receipt)
    except (msgspec.ValidationError, OverflowError, RecursionError):
        return None
    counts = (receipt.bytes or 0, receipt.problems or 0, receipt.attempts)
    is_plausible = (
        is_result_path(receipt.result)
        and all(0 <= count <= _MAX_COUNT for count in counts)
        and 0 <= receipt.seconds <= _MAX_COUNT  # false of NaN, too
        and _is_error_record(receipt.error)
    )
    return receipt if is_plausible else None


def _is_error_record(error: Json | None) -> bool:
    """Whether this is an error as `AttnError.to_record` makes it: texts and numbers, and a location of numbers."""
    values = [*(error or {}).values()]
    flat = [inner for value in values for inner in (value.values() if isinstance(value, dict) else (value,))]
    return all(isinstance(one, str) or (isinstance(one, int) and abs(one) <= _MAX_COUNT) for one in flat)


def _is_seed(value: object) -> bool:
    """Whether a header's seed is one, or none."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64)


def _receipt_fields(receipt: Receipt) -> Json:
    """The fields of a receipt that have a value."""
    return {k: v for k, v in vars(receipt).items() if v is not None and v != ()}


def _json_line(fields: Json) -> bytes:
    return json.dumps(fields).encode() + b"\n"
