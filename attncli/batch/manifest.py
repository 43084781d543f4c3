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

from attncli.atomic_file import unfinished, unwritable, whole
from attncli.batch.name_lists import spelled
from attncli.errors import CannotError, printable
from attncli.types import Json

SCHEMA = "attn.batch/1"
RUN = ".attn-batch"  # while a run has workers elsewhere
GOES_ON = "what is finished is kept, and the same command goes on from there"


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


class Done(NamedTuple):
    """A result that is there, by the manifest, and need not be made again if it is still what it was."""

    sha256: str  # of the content it was made of
    bytes: int
    result_sha256: str


class Manifest:
    """The manifest of one folder of results; from `begin` to `close` it is held by one process.

    A line is written at once and whole; a last line that is torn is passed over. When all is done the file is
    written anew, each input once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "manifest.ndjson"
        self.head: Json = {}
        self.receipts: dict[str, Receipt] = {}  # by result
        self.lock = self.file = -1
        self.torn = False
        self.run = ""  # which run this is, where workers must know
        self.data = self._read()

    def _read(self) -> bytes:
        """What the file says now."""
        import msgspec

        self.head, self.receipts = {}, {}
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CannotError("cannot-read", f"{self.path} cannot be read: {error.strerror}") from None
        self.torn = bool(data) and not data.endswith(b"\n")
        for line in data.split(b"\n"):
            with suppress(ValueError, msgspec.ValidationError):  # torn, or somebody else's
                found = json.loads(line)  # which, unlike msgspec, reads names that are no UTF-8
                if isinstance(found, dict) and "schema" in found:
                    self.head = found if found["schema"] == SCHEMA else self.head
                    continue
                receipt = msgspec.convert(found, Receipt)
                self.receipts[receipt.result] = receipt
        return data

    @property
    def there(self) -> bool:
        """Whether the folder is a batch's: its manifest was begun."""
        return bool(self.head)

    @property
    def strange(self) -> Path | None:
        """A file of the name of one of ours, where no batch has been."""
        if self.there:
            return None
        ours = [path for path in (self.path, self.folder / "failed.txt") if path.exists()]
        return next((path for path in ours if path.is_dir() or path.stat().st_size), None)

    def begin(self, head: Json) -> None:
        """Make the folder, take it, and say what will be done there.

        Raises:
            CannotError: another process writes there, or nobody may.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take()
            if self._read() != self.data:
                way = "give the command again"
                raise CannotError("folder-in-use", f"another attn batch has just written to {self.folder}", help=way)
            self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise unwritable(error, str(self.path)) from error
        if self.torn:
            self._append(b"\n")
        head = {"schema": SCHEMA, **head}
        if head != self.head:
            self._append(_line(head))
            self.head = head

    def _take(self) -> None:
        try:
            import fcntl
        except ImportError:  # a system without
            return
        self.lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.lock)
            self.lock = -1
            way = "wait for it, or name another folder"
            raise CannotError("folder-in-use", f"another attn batch writes to {self.folder}", help=way) from None
        except OSError:  # a file system without locks
            return

    def publish(self) -> str:
        """Let workers elsewhere know which run this is: what a task of an earlier one still makes is not wanted."""
        self.run = secrets.token_hex(8)
        with whole(self.folder / RUN, durable=False) as file:
            file.write(self.run.encode())
        return self.run

    def sweep(self, results: Iterable[str]) -> None:
        """Take away what a killed process left of the results that it was writing."""
        names: dict[str, set[str]] = {}
        for result in (*results, self.path.name, "failed.txt"):
            above, _, name = result.rpartition("/")
            names.setdefault(above, set()).add(unfinished(name))
        for above, known in names.items():
            with suppress(OSError), os.scandir(self.folder / above) as entries:
                for entry in entries:
                    if re.fullmatch("[0-9a-f]{8}", entry.name[-8:]) and entry.name[:-8] in known:
                        with suppress(OSError):
                            os.unlink(entry.path)

    def add(self, receipt: Receipt) -> None:
        """One input is done, or has failed."""
        self.receipts[receipt.result] = receipt
        self._append(_line(_record(receipt)))

    def _append(self, line: bytes) -> None:
        size = os.fstat(self.file).st_size
        try:
            written = os.write(self.file, line)
            while written < len(line):
                written += os.write(self.file, line[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.file, size)  # no half line
            wrong = unwritable(error, str(self.path))
            wrong.help = GOES_ON
            raise wrong from error

    def finish(self, order: Iterable[str]) -> None:
        """Write the manifest anew, inputs in order and each once, and the list of those that failed."""
        wanted = dict.fromkeys((*order, *self.receipts))
        receipts = [self.receipts[result] for result in wanted if result in self.receipts]
        with whole(self.path) as file:
            file.write(_line(self.head))
            file.writelines(_line(_record(receipt)) for receipt in receipts)
        failed = [receipt for receipt in receipts if receipt.status == "failed"]
        if not failed:
            (self.folder / "failed.txt").unlink(missing_ok=True)
            return
        with whole(self.folder / "failed.txt") as file:
            for receipt in failed:
                error = receipt.error or {}
                said = (
                    f"{spelled(receipt.input)}\t{error.get('code', '')}: {printable(str(error.get('message', '')))}\n"
                )
                file.write(said.encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Let go of the folder."""
        if self.run:
            (self.folder / RUN).unlink(missing_ok=True)
        for handle in (self.file, self.lock):
            if handle >= 0:
                os.close(handle)
        self.file = self.lock = -1


def _record(receipt: Receipt) -> Json:
    """A receipt without what it does not have."""
    return {k: v for k, v in vars(receipt).items() if v is not None and v != ()}


def _line(fields: Json) -> bytes:
    return json.dumps(fields).encode() + b"\n"
