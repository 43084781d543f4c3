"""From a path to a result on a stream or in a file: parse, check, compute, show; torch last. Every command that computes comes here."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attncli.atomic_file import in_bytes, whole
from attncli.cli.messages import Talk, wants_color
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError, listed
from attncli.output_formats import Content, Format, Look, format_for
from attncli.pipeline import answers, picked, planned
from attncli.request import Choosing, Reading, Showing

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import At
    from attncli.types import Attention, Problem


def run(path: str, choosing: Choosing, reading: Reading, showing: Showing, scheduler: str | None = None) -> ExitStatus:
    """One input, or a stream of them, through to its output; the tiles of a long one on a cluster, if one is named."""
    from attncli.plan.schedule import matrices
    from attncli.plan.steps import check_step
    from attncli.readers import format_of

    talk = Talk(form=showing.error_format, color=showing.color, quiet=showing.quiet)
    for name in showing.only:
        if name != "all":
            check_step(name)
    check_output(showing)
    source = format_of(path, reading.input_format)
    if source.stream and scheduler:
        way = "attn batch computes many problems on a cluster"
        raise OptionError("bad-option", "--scheduler is for one long problem, not for a stream of them", help=way)
    if source.stream:
        return _stream(path, choosing, reading, showing, talk)
    format = format_for(showing.output, showing.format)
    problem = reads(path, reading, talk)
    made, at = planned(problem, choosing, showing, streamed=format.streams is not None)
    if format.streams and made.tile and matrices(made) and not {*at} - {"query"}:
        if scheduler is None:
            core(talk)  # what may be refused is, before a file is begun
        with appearing(showing) as file:
            attention = format.streams(file, made, lambda place: computed(made, at, showing, talk, place, scheduler))
    else:
        attention = format.fitted(computed(made, at, showing, talk, scheduler=scheduler))
        emit(format.function(attention, look(showing)), showing, format)
    for warning in attention.warnings:
        talk.warning(warning)
    return ExitStatus.OK


def reads(path: str, reading: Reading, talk: Talk) -> Problem:
    """One input, as it was asked to be read; what a reader had to find out is said."""
    from attncli.readers import read

    problem = read(
        path,
        reading.input_format,
        replacing=reading.replacing,
        token_column=reading.token_column,
        header=reading.header,
    )
    for note in problem.notes:
        talk.note(note)
    return problem


def computed(
    made: Plan, at: At, showing: Showing, talk: Talk, place: object = None, scheduler: str | None = None
) -> Attention:
    """A plan followed, with a bar where it is long, and the part that was chosen of what it makes."""
    with _hands(scheduler, made, talk) as hands:
        follow = core(talk)
        with progress(showing, talk, made.length("scores", "query")) as tell:
            result = follow(made, tell, place, hands)
    return picked(result, made, at)


@contextmanager
def _hands(scheduler: str | None, made: Plan, talk: Talk) -> Iterator[object]:
    """Who takes the tiles: the workers of a cluster, if one is named; None: this process."""
    if scheduler is None:
        yield None
        return
    from attncli.batch.dask_cluster import Tasks, reached
    from attncli.batch.remote_tiles import Crew

    with reached(scheduler) as client:
        if not made.tile:
            talk.note("this is one tile: it is computed here, and not on the cluster")
            yield None
            return
        core(talk)
        from attncli.core.remote import away

        tasks = Tasks(client, made.variant.device, lambda: talk.note("the cluster has no workers; waiting for some"))
        yield functools.partial(away, Crew(tasks))


def explained(
    path: str,
    choosing: Choosing,
    reading: Reading,
    showing: Showing,
    *,
    blank: tuple[str, ...],
    answers: bool,
    grad: str | None,
) -> ExitStatus:
    """One query of one input, worked on a page."""
    from attncli.derivation import noting
    from attncli.plan import outline, settled
    from attncli.plan.steps import check_step, kept
    from attncli.select import choose
    from attncli.views.board import WRITERS, Sheet, page_of
    from attncli.views.explain import Place, explain

    talk = Talk(form=showing.error_format, color=showing.color, quiet=showing.quiet)
    for name in blank:
        if name not in ("all", "shown"):
            check_step(name)
    if showing.only or showing.top:
        said = "--only" if showing.only else "--top"
        raise OptionError(
            "bad-option", f"explain goes through every step, and has no {said}", help="attn compute has it"
        )
    check_output(showing)
    format = format_for(showing.output, showing.format)
    if format.name not in WRITERS:
        raise OptionError("bad-option", f"explain writes {listed(WRITERS)}, not {format.name}")
    problem = reads(path, reading, talk)
    try:
        made = outline(problem, choosing.variant(problem.variant).but(schedule="dense"))
        batch = (
            ["batch=0"] if made.size.batch is not None and not any(w.startswith("batch=") for w in showing.at) else []
        )
        at = choose(dataclasses.replace(made, keep=frozenset({"weights"})), (*batch, *showing.at))
        gaps = frozenset(kept(blank, made.steps, None))
        upstream = _upstream(grad, made)
        last = (made.size.queries - 1,)
        made = settled(made, {"query": at.get("query", last)} if upstream is None else None)
    except AttnError as error:
        raise error.at(file=problem.source) if error.status == ExitStatus.INPUT else error from None
    for axis in ("query", "batch"):
        if len(at.get(axis, (0,))) != 1:
            raise OptionError("bad-option", f"one {axis} is explained at a time", help=f"--at {axis}={at[axis][0]}")
    merged = {"head_context", "normed_context", "context"}
    gaps |= merged & set(made.steps) if gaps & merged else set()  # they say the same
    heads = (
        tuple(range(made.shapes.heads)) if gaps & merged else (0,)
    )  # so that the working of every gap is on the sheet
    place = Place(
        query=at.get("query", last)[0],
        batch=at.get("batch", (0,))[0],
        heads=at.get("head", heads),
        keys=at.get("key"),
        blank=gaps,
        full=showing.full,
    )
    run = core(talk)
    with noting():
        attention, gradients = (run(made), None) if upstream is None else _back(made, upstream)
    for warning in attention.warnings:
        talk.warning(warning)
    board = explain(made, attention, place, gradients)
    page = page_of(board, look(showing), Sheet(gaps, answers), attention.dtype, full=showing.full)
    if gaps and not page.pen.gaps:
        raise OptionError(
            "bad-option", f"this page shows no number of {listed(gaps)}, so there is nothing to leave blank"
        )
    emit(WRITERS[format.name](page, look(showing)), showing, format)
    return ExitStatus.OK


def _upstream(said: str | None, made: Plan) -> object:
    """The gradient that arrives at the context: ones, or what a file holds.

    Raises:
        InputError: there is no context, or the file holds another shape.
    """
    from attncli.errors import InputError
    from attncli.readers.with_field import one_array

    if said is None:
        return None
    if "context" not in made.steps:
        raise InputError("absent-step", "without values there is no context, and nothing to go back from")
    if said == "ones":
        return 1.0
    if not Path(said).suffix and not Path(said).exists():
        raise OptionError("bad-option", f"--grad takes ones or a file, not {said!r}")
    shape = tuple(made.length("context", axis) for axis in made.steps["context"])
    found = one_array(said)
    if tuple(found.shape) != shape:
        message = f"the gradient is {tuple(found.shape)}, and the context {shape}"
        raise InputError("shape-mismatch", message, help="--grad ones, or a gradient of the context's shape").at(
            file=said
        )
    return found


def _back(made: Plan, upstream: object) -> Any:
    from attncli.core.gradients import follow_back

    return follow_back(made, upstream)


def core(talk: Talk) -> Callable[..., Attention]:
    """The algebra, and on a terminal a word while it loads."""
    import attncli.pipeline

    waiting = attncli.pipeline._follow is None and sys.stderr.isatty() and not talk.quiet
    if waiting:
        print("loading torch…", end="\r", file=sys.stderr, flush=True)
    try:
        return attncli.pipeline.core()
    finally:
        if waiting:
            print("\x1b[2K", end="\r", file=sys.stderr, flush=True)


@contextmanager
def progress(showing: Showing, talk: Talk, rows: int = 0) -> Iterator[Callable[..., None] | None]:
    """Something to tell how much is done, on a terminal; what takes less than a second shows nothing."""
    if talk.quiet or not showing.progress or talk.form != "full" or not sys.stderr.isatty():
        yield None
        return
    started, bar = time.monotonic(), None

    def tell(done: float, what: str = "attending") -> None:
        nonlocal bar
        if bar is None and time.monotonic() - started > 1 and done < 1:
            from attncli.views.progress import Bar

            bar = Bar(talk.color, started, rows)
        if bar is not None:
            bar.show(done, what)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


# ── streams ──────────────────────────────────────────────────────────────────────────────────────
def _stream(path: str, choosing: Choosing, reading: Reading, showing: Showing, talk: Talk) -> ExitStatus:
    """A problem a line in, a result or an error a line out, each at once; a bad line does not stop the others."""
    from attncli.readers import rows_of
    from attncli.readers.json import lines

    format = format_for(showing.output, showing.format, otherwise="ndjson")
    if format.name not in ("ndjson", "json"):
        raise OptionError(
            "bad-option", f"a stream of problems is answered with JSON lines, not {format.name}", help="--format ndjson"
        )
    if reading.replacing or reading.token_column or reading.header:
        raise OptionError("bad-option", "--with, --token-column and --header do not go with a stream of problems")
    status = ExitStatus.OK
    incoming = lines(rows_of(path), "<stdin>" if path == "-" else path)
    with destination(showing, format) as out:
        for line, wrong in answers(incoming, choosing, showing):
            status = ExitStatus.NO if wrong else status
            out(line)
    return status


# ── output ───────────────────────────────────────────────────────────────────────────────────────
def look(showing: Showing) -> Look:
    """How standard output, or a file, is to be written to."""
    here = showing.output is None and sys.stdout is not None
    screen = here and sys.stdout.isatty()
    color = here and wants_color(sys.stdout, showing.color)
    width = None
    if screen and not showing.full:
        import shutil

        width = shutil.get_terminal_size().columns
    unicode = showing.output is not None or (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    return Look(
        screen=screen,
        precision=showing.precision,
        width=width,
        color=color,
        heat=showing.heat == "on" or (showing.heat == "auto" and color),
        unicode=unicode,
    )


def check_output(showing: Showing) -> None:
    """What is wrong with the output whatever is computed: it exists, or cannot be made.

    Raises:
        OptionError: the file exists, and --force was not said; or its suffix says no format.
        CannotError: its folder does not exist.
    """
    format_for(showing.output, showing.format)
    if showing.output is None:
        return
    path = Path(showing.output)
    try:
        exists, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise CannotError(
            "cannot-write", f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None
    if folder:
        raise OptionError("output-exists", f"{path} is a folder", help="name a file")
    if exists and path.is_file() and not showing.force:
        raise OptionError("output-exists", f"{path} exists", help="--force replaces it")
    if not path.parent.is_dir():
        raise CannotError("cannot-write", f"there is no folder {path.parent}", help=f"mkdir -p {path.parent}")


def emit(content: Content, showing: Showing, format: Format) -> None:
    """A whole result, to standard output or to its file."""
    if (
        isinstance(content, str)
        and showing.output is None
        and format.name == "json"
        and look(showing).color
        and look(showing).width
    ):
        from attncli.views.json_color import coloured_json

        content = coloured_json(content)
    with destination(showing, format) as out:
        for piece in [content] if isinstance(content, str | bytes) else content:
            out(piece)


@contextmanager
def destination(showing: Showing, format: Format) -> Iterator[Callable[[str | bytes | memoryview], None]]:
    """Where output goes: standard output, flushed at each call; or a file that appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    if showing.output is None:
        yield standard_output(format)
        return
    with appearing(showing) as file:
        yield _into(file)


@contextmanager
def appearing(showing: Showing) -> Iterator[IO[bytes]]:
    """The output file while it is being made: it appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    path = Path(str(showing.output))
    there = path if path.exists() and not path.is_file() else path.resolve()  # a link stays a link
    with whole(there, str(showing.output)) as file:
        yield file


def standard_output(format: Format) -> Callable[[str | bytes | memoryview], None]:
    """Flushed at each call. Data is UTF-8, or JSON in escapes, whatever the console; what people read is spelled for it."""
    if sys.stdout is None:
        raise CannotError("cannot-write", "standard output is closed")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    raw = None if encoding.lower().startswith("utf") or format.codec == "attn" else getattr(sys.stdout, "buffer", None)

    def say(content: str | bytes | memoryview) -> None:
        if raw is None:
            sys.stdout.write(str(content))
        else:
            utf8 = format.codec == "utf-8"
            raw.write(str(content).encode("utf-8" if utf8 else encoding, "surrogatepass" if utf8 else format.codec))
        sys.stdout.flush()

    return say


def _into(file: IO[bytes]) -> Callable[[str | bytes | memoryview], None]:
    def write(content: str | bytes | memoryview) -> None:
        file.write(content if isinstance(content, memoryview) else in_bytes(content))

    return write
