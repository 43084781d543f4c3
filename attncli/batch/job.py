"""What is done to one input, here or on a worker: read, compute, write the result, hand back a receipt."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attncli import __version__
from attncli.atomic_file import in_bytes, unwritable, whole
from attncli.batch.inputs import Input, reader_of
from attncli.batch.manifest import RUN, Done, Receipt
from attncli.batch.sources import absolute, fetched
from attncli.errors import AttnError, CannotError, ExitStatus, InputError, listed
from attncli.output_formats import Format, Look, format_for
from attncli.pipeline import answers, bug, core, picked, planned
from attncli.readers.with_field import name_and_path
from attncli.request import Choosing, Reading, Showing
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import At

Out = Callable[[bytes], None]
Tell = Callable[
    [int, int, float], None
]  # of a file of many problems: lines done, of which wrong; how much of it, 0 … 1
_EVERYONES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # the next input would meet the same


@dataclass(frozen=True)
class Job:
    """What is done to every input of a batch. It travels to the workers."""

    choosing: Choosing
    reading: Reading
    showing: Showing
    format: str
    seed: int  # wherever one would be drawn
    folder: str  # of the results
    drawn: int | None = None  # the seed that is the folder's, said or not
    run: str = ""  # by which the folder knows that this is wanted, where workers are elsewhere
    base: str | None = None  # the folder that the inputs were named in, where workers may run in another
    version: str = __version__

    def head(self) -> Json:
        """What decides a result beside the content of its input, as the manifest keeps it: the seed, and a hash of the rest.

        A seed that was said is a choice; one that was drawn stays the folder's.
        """
        showing = {k: getattr(self.showing, k) for k in ("only", "at", "top", "precision")}
        said = {
            "attn_version": self.version,
            "format": self.format,
            "heat": self.showing.heat == "on",
            "choices": {k: str(v) for k, v in self.choosing.choices.items()} | {"also": self.choosing.also},
            "reading": asdict(self.reading) | {"with": [_content(pair) for pair in self.reading.replacing]},
            **showing,
        }
        text = json.dumps(said, sort_keys=True)
        return {
            "attn_version": self.version,
            "variant": hashlib.sha256(text.encode()).hexdigest()[:16],
            "seed": self.drawn,
            "choices": said["choices"],
        }

    def elsewhere(self) -> Job:
        """The same for workers that run in another folder."""
        pairs = tuple(name + "=" + absolute(path) for name, path in map(name_and_path, self.reading.replacing))
        reading = replace(self.reading, replacing=pairs)
        return replace(self, reading=reading, folder=os.path.abspath(self.folder), base=str(Path.cwd()))

    def wanted(self, run: str) -> Job:
        """The same as a task of a run."""
        return replace(self, run=run)

    def where(self, input: Input) -> str:
        """How a worker opens an input."""
        if self.base is None or "://" in input.path:
            return input.path
        return os.path.join(self.base, input.path)

    @cached_property
    def output(self) -> Format:
        """The format of the results."""
        return format_for("x", self.format)

    @cached_property
    def look(self) -> Look:
        """A file's, as `attn compute` writes it."""
        return Look(precision=self.showing.precision, heat=self.showing.heat == "on")


def _content(pair: str) -> str:
    """What a `--with` takes, by its content."""
    name, path = name_and_path(pair)
    return name + "=" + hashed(path)


def hashed(path: str, said: str = "") -> str:
    """The hash of a file's content, whatever its length in the same memory. `said`: what to call it in messages."""
    digest = hashlib.sha256()
    with fetched(path, said) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def perform(
    job: Job,
    variant: str,
    input: Input,
    done: Done | None = None,
    out: Out | None = None,
    tell: Tell = lambda lines, wrong, share: None,
) -> Receipt:
    """One input through to its result.

    Args:
        job: what is done.
        variant: the hash of it.
        input: what to.
        done: what its result was made of, if there is one.
        out: where the result goes instead of its file.
        tell: how far a file of many problems is.
    """
    started = time.perf_counter()
    receipt = Receipt(input.shown, input.result, "done", variant=variant)
    try:
        if job.version != __version__:
            raise CannotError("worker-differs", f"a worker has attn {__version__}, and this command is {job.version}")
        if input.stream:
            made = _lines(job, input, receipt, done, out, tell)
        else:
            data = content(job, input)
            receipt = replace(
                receipt, sha256=hashlib.sha256(data).hexdigest()
            )  # what fails is known by its content too
            made = _one(job, input, receipt, done, out, data)
    except AttnError as error:
        made = _failed(receipt, error)
    except MemoryError:
        made = _failed(receipt, CannotError("out-of-memory", "this does not fit in memory"))
    except Exception as error:  # costs one input, not the batch
        made = _failed(receipt, bug(error))
    return replace(made, seconds=round(time.perf_counter() - started, 6))


def _failed(receipt: Receipt, error: AttnError) -> Receipt:
    """What is wrong with one input; or with all of them, and then the batch stops."""
    cause = error.__cause__
    everyones = isinstance(cause, OSError) and cause.errno in _EVERYONES and error.code == "cannot-write"
    if everyones or error.status == ExitStatus.USAGE or error.code in ("torch-missing", "no-device", "worker-differs"):
        return replace(receipt, status="stopped", error=error.record() | {"status": int(error.status)})
    return replace(receipt, status="failed", error=error.record())


def ready(job: Job, input: Input, data: bytes) -> tuple[Plan, At]:
    """What will be computed of an input's bytes: everything that can be refused without torch."""
    from attncli.readers import parse

    said, reader = job.reading, reader_of(input.path, job.reading.input_format)
    more = {"token_column": said.token_column, "header": said.header}
    problem = parse(data, input.shown, reader, replacing=said.replacing, **more)
    return planned(problem, job.choosing, job.showing, job.seed)


def _one(job: Job, input: Input, receipt: Receipt, done: Done | None, out: Out | None, data: bytes) -> Receipt:
    if kept(job, input, done, receipt.sha256):
        return replace(receipt, status="skipped")
    made, at = ready(job, input, data)
    attention = job.output.fitted(picked(core()(made), made, at))
    result = in_bytes(job.output.function(attention, job.look))
    with _result(job, input, out) as write:
        write(result)
    its = hashlib.sha256(result).hexdigest() if out is None else None
    return replace(receipt, bytes=len(result), result_sha256=its, warnings=attention.warnings)


def kept(job: Job, input: Input, done: Done | None, sha256: str | None) -> bool:
    """Whether the result of a content is there, and is what it was when it was made."""
    if done is None or sha256 != done.sha256:
        return False
    path, digest = Path(job.folder, input.result), hashlib.sha256()
    try:
        if path.stat().st_size != done.bytes:
            return False
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == done.result_sha256


def foreseen(job: Job, input: Input, done: Done | None) -> bool:
    """Whether an input is done already, found out without torch.

    Raises:
        InputError: it would fail.
    """
    if not input.stream:
        data = content(job, input)
        if kept(job, input, done, hashlib.sha256(data).hexdigest()):
            return True
        ready(job, input, data)
        return False
    if done is not None and kept(job, input, done, hashed(job.where(input), input.shown)):
        return True
    from attncli.readers.json import lines

    causes: Counter[str] = Counter()
    count = 0
    with fetched(job.where(input), input.shown) as file:
        for _, problem in lines(iter(file.readline, b""), input.shown):
            count += 1
            try:
                if isinstance(problem, AttnError):
                    raise problem
                planned(problem, job.choosing, job.showing, job.seed)
            except AttnError as error:
                causes[error.code] += 1
    if causes:
        raise _lines_failed(causes, count)
    return False


def _lines_failed(causes: Counter[str], count: int) -> InputError:
    which = listed(f"{n} {code}" for code, n in causes.most_common())
    return InputError("lines-failed", f"{causes.total()} of {count} lines failed: {which}")


def content(job: Job, input: Input) -> bytes:
    """All bytes of an input.

    Raises:
        InputError: it cannot be read.
    """
    with fetched(job.where(input), input.shown) as file:
        return file.read()


def _lines(job: Job, input: Input, receipt: Receipt, done: Done | None, out: Out | None, tell: Tell) -> Receipt:
    """JSON lines: a result or an error a line, whatever their number in the same memory."""
    from attncli.readers.json import lines

    if done is not None and kept(job, input, done, hashed(job.where(input), input.shown)):
        return replace(receipt, status="skipped", sha256=done.sha256)
    its, digest, size, count, read = hashlib.sha256(), hashlib.sha256(), 0, 0, 0
    causes: Counter[str] = Counter()
    with fetched(job.where(input), input.shown) as file, _result(job, input, out) as write:

        def incoming() -> Iterator[bytes]:
            nonlocal read
            for line in iter(file.readline, b""):
                digest.update(line)
                read += len(line)
                yield line

        problems = lines(incoming(), input.shown)
        for text, wrong in answers(problems, job.choosing, job.showing, job.seed):
            encoded = in_bytes(text)
            write(encoded)
            its.update(encoded)
            size, count = size + len(encoded), count + 1
            if wrong:
                causes[wrong.code] += 1
            tell(count, causes.total(), read / file.length if file.length else 0.0)
    made = replace(receipt, sha256=digest.hexdigest(), bytes=size, result_sha256=its.hexdigest(), problems=count)
    if not causes:
        return made
    return replace(made, status="failed", error=_lines_failed(causes, count).at(file=input.shown).record())


@contextmanager
def _result(job: Job, input: Input, out: Out | None) -> Iterator[Out]:
    """Where the result is written: its file, which appears whole or not at all."""
    if out is not None:
        yield out
        return
    path = Path(job.folder, input.result)
    if "/" in input.result:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error, str(path)) from error
    with whole(path, durable=False) as file:
        yield _into(file)
        _check_wanted(job)


def _check_wanted(job: Job) -> None:
    """Whether the run that sent this task still goes on, or another has the folder now.

    Raises:
        CannotError: it does not; its result is not wanted.
    """
    if not job.run:
        return
    try:
        now = Path(job.folder, RUN).read_text()
    except FileNotFoundError:
        now = ""
    if now != job.run:
        raise CannotError("not-wanted", "the run that asked for this has ended")


def _into(file: IO[bytes]) -> Out:
    def write(data: bytes) -> None:
        file.write(data)

    return write
