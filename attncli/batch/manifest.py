"""What has been done: `manifest.ndjson`, a line an input, appended as they finish and read back when the command is given again."""

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

from attncli.atomic_file import atomic_write, temporary_prefix, write_error
from attncli.batch.name_lists import quote_name
from attncli.errors import CannotError, printable
from attncli.types import Json

MANIFEST_SCHEMA = "attn.batch/1"
RUN_ID_FILE = ".attn-batch"  # while a run has workers elsewhere
RESUME_HINT = "what is finished is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Receipt:
    """What became of one input. Small, so that a worker sends it rather than the result."""

    input: str
    result: str
    # skipped: it was done before; stopped: nothing can be written, or the command is wrong
    status: Literal["done", "failed", "skipped", "stopped"]
    sha256: str | None = None  # of the input's content
    variant: str = ""  # the hash of all that was asked for
    bytes: int | None = None  # how long the result is
    result_sha256: str | None = None  # of the result
    problems: int | None = None  # of JSON lines: how many there were
    seconds: float = 0.0
    attempts: int = 1
    warnings: tuple[str, ...] = ()
    error: Json | None = None


class ResultRecord(NamedTuple):
    """A result that is there, by the manifest, and need not be made again if it is still what it was."""

    sha256: str  # of the content it was made of
    bytes: int
    result_sha256: str


class Manifest:
    """The manifest of one folder of results; from `open` to `close` it is held by one process.

    A line is written at once and whole; a last line that is torn is passed over. When all is done the file is
    written anew, each input once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "manifest.ndjson"
        self.header: Json = {}
        self.receipts: dict[str, Receipt] = {}  # by result
        self.lock_descriptor = self.file_descriptor = -1
        self.has_torn_line = False
        self.run_id = ""  # which run this is, where workers must know
        self.content = self._read_file()

    def _read_file(self) -> bytes:
        """What the file says now."""
        import msgspec

        self.header, self.receipts = {}, {}
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CannotError("cannot-read", f"{self.path} cannot be read: {error.strerror}") from None
        self.has_torn_line = bool(data) and not data.endswith(b"\n")
        for line in data.split(b"\n"):
            with suppress(ValueError, msgspec.ValidationError):  # torn, or somebody else's
                found = json.loads(line)  # which, unlike msgspec, reads names that are no UTF-8
                if isinstance(found, dict) and "schema" in found:
                    self.header = found if found["schema"] == MANIFEST_SCHEMA else self.header
                    continue
                receipt = msgspec.convert(found, Receipt)
                self.receipts[receipt.result] = receipt
        return data

    @property
    def exists(self) -> bool:
        """Whether the folder is a batch's: its manifest was begun."""
        return bool(self.header)

    @property
    def foreign_file(self) -> Path | None:
        """A file of the name of one of ours, where no batch has been."""
        if self.exists:
            return None
        ours = [path for path in (self.path, self.folder / "failed.txt") if path.exists()]
        return next((path for path in ours if path.is_dir() or path.stat().st_size), None)

    def open(self, header: Json) -> None:
        """Make the folder, take it, and say what will be done there.

        Raises:
            CannotError: another process writes there, or nobody may.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_folder()
            if self._read_file() != self.content:
                way = "give the command again"
                raise CannotError("folder-in-use", f"another attn batch has just written to {self.folder}", help=way)
            self.file_descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_error(error, str(self.path)) from error
        if self.has_torn_line:
            self._append_line(b"\n")
        header = {"schema": MANIFEST_SCHEMA, **header}
        if header != self.header:
            self._append_line(_json_line(header))
            self.header = header

    def _lock_folder(self) -> None:
        try:
            import fcntl
        except ImportError:  # a system without
            return
        self.lock_descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock_descriptor)
            self.lock_descriptor = -1
            way = "wait for it, or name another folder"
            raise CannotError("folder-in-use", f"another attn batch writes to {self.folder}", help=way) from None
        except OSError:  # a file system without locks
            return

    def publish_run_id(self) -> str:
        """Let workers elsewhere know which run this is: what a task of an earlier one still makes is not wanted."""
        self.run_id = secrets.token_hex(8)
        with atomic_write(self.folder / RUN_ID_FILE, durable=False) as file:
            file.write(self.run_id.encode())
        return self.run_id

    def remove_leftovers(self, results: Iterable[str]) -> None:
        """Take away what a killed process left of the results that it was writing."""
        names: dict[str, set[str]] = {}
        for result in (*results, self.path.name, "failed.txt"):
            above, _, name = result.rpartition("/")
            names.setdefault(above, set()).add(temporary_prefix(name))
        for above, known in names.items():
            with suppress(OSError), os.scandir(self.folder / above) as entries:
                for entry in entries:
                    if re.fullmatch("[0-9a-f]{8}", entry.name[-8:]) and entry.name[:-8] in known:
                        with suppress(OSError):
                            os.unlink(entry.path)

    def add_receipt(self, receipt: Receipt) -> None:
        """One input is done, or has failed."""
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
            wrong = write_error(error, str(self.path))
            wrong.help = RESUME_HINT
            raise wrong from error

    def finalize(self, result_order: Iterable[str]) -> None:
        """Write the manifest anew, inputs in order and each once, and the list of those that failed."""
        wanted = dict.fromkeys((*result_order, *self.receipts))
        receipts = [self.receipts[result] for result in wanted if result in self.receipts]
        with atomic_write(self.path) as file:
            file.write(_json_line(self.header))
            file.writelines(_json_line(_receipt_fields(receipt)) for receipt in receipts)
        failed = [receipt for receipt in receipts if receipt.status == "failed"]
        if not failed:
            (self.folder / "failed.txt").unlink(missing_ok=True)
            return
        with atomic_write(self.folder / "failed.txt") as file:
            for receipt in failed:
                error = receipt.error or {}
                said = f"{quote_name(receipt.input)}\t{error.get('code', '')}: {printable(str(error.get('message', '')))}\n"
                file.write(said.encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Let go of the folder."""
        if self.run_id:
            (self.folder / RUN_ID_FILE).unlink(missing_ok=True)
        for handle in (self.file_descriptor, self.lock_descriptor):
            if handle >= 0:
                os.close(handle)
        self.file_descriptor = self.lock_descriptor = -1


def _receipt_fields(receipt: Receipt) -> Json:
    """A receipt without what it does not have."""
    return {k: v for k, v in vars(receipt).items() if v is not None and v != ()}


def _json_line(fields: Json) -> bytes:
    return json.dumps(fields).encode() + b"\n"
