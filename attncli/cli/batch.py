"""`attn batch`: many inputs, resumable, here or on a cluster."""

from __future__ import annotations

import dataclasses
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.messages import Talk
from attncli.cli.run import standard_output
from attncli.errors import AttnError, ExitStatus, OptionError, brief, counted, printable
from attncli.output_formats import Format, format_for
from attncli.request import Choosing, Reading, Showing

if TYPE_CHECKING:
    from attncli.batch.executors import Engine
    from attncli.batch.inputs import Input
    from attncli.batch.job import Job, Out
    from attncli.batch.manifest import Manifest, Receipt
    from attncli.batch.runner import Tally
    from attncli.views.tally import Bar

EXAMPLES = """
    attn batch data/ -o results --causal
    attn batch 'data/**/*.csv' -o results --variant multi-head --heads 2 -j 4
    attn batch @list.txt problems.ndjson -o results --max-failures 5%
    attn batch data/*.csv -o - | jq .weights
    attn batch s3://bucket/embeddings/ -o results --scheduler tcp://10.0.0.1:8786
"""
_Tell = Callable[..., None]  # of the file at hand: lines done, of which wrong; how much of it
_EVERY = 10.0  # seconds between two lines of progress, where there is no terminal


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="files, folders, 'globs', @lists of them, addresses as s3://… or https://…; .ndjson holds a problem a line",
            metavar="INPUT...",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="the folder of the results, manifest.ndjson and failed.txt; - is standard output, as JSON lines",
            metavar="DIR",
            rich_help_panel="Batch",
        ),
    ] = None,
    jobs: Annotated[
        str, typer.Option("--jobs", "-j", help="how many processes compute", metavar="N", rich_help_panel="Batch")
    ] = "1",
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="the workers of a Dask cluster compute: its address, or its scheduler file",
            metavar="ADDRESS|FILE",
            rich_help_panel="Batch",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="only those that failed before", rich_help_panel="Batch")
    ] = False,
    keep_suffix: Annotated[
        bool, typer.Option("--keep-suffix", help="the result of x.csv is x.csv.json", rich_help_panel="Batch")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="stop at the first failure", rich_help_panel="Batch")
    ] = False,
    max_failures: Annotated[
        str | None,
        typer.Option(
            "--max-failures", help="stop when more than so many have failed", metavar="N|P%", rich_help_panel="Batch"
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="say what would be done, and what would be refused", rich_help_panel="Batch"),
    ] = False,
    choosing: Choosing,
    reading: Reading,
    showing: Showing,
) -> ExitStatus:
    """Compute many inputs, each into its own file; the same command again goes on where it stopped."""
    from attncli.batch.inputs import gather
    from attncli.batch.manifest import Manifest
    from attncli.batch.runner import most_failures

    talk = Talk(form=showing.error_format, color=showing.color, quiet=showing.quiet)
    folder = _folder(output)
    count = _jobs(jobs, scheduler)
    format = _format(showing, folder)
    _check(showing, scheduler, folder, fail_fast, max_failures, retry_failed, dry_run)
    most_failures(max_failures, 1)
    suffix = ("." + format.name) if not format.suffixes else format.suffixes[0]
    known: dict[str, str] = {}
    if folder is not None and any(
        word.startswith("@") for word in inputs
    ):  # what a list names may have its result there
        receipts = sorted(Manifest(folder).receipts.values(), key=lambda receipt: receipt.status == "failed")
        known = {receipt.input: receipt.result for receipt in receipts}
    found, left_out = gather(
        inputs, suffix=suffix, into=folder, keep_suffix=keep_suffix, format=reading.input_format, known=known
    )
    if left_out:
        what = counted(left_out, "file or folder", "files and folders")
        talk.note(f"{what} left out: in no format we read, no regular file, or not to be read")
    streams = next((one for one in found if one.stream), None)
    if streams and format.name not in ("json", "ndjson"):
        message = f"{streams.shown} is answered with JSON lines, not {format.name}"
        raise OptionError("bad-option", message, help="--format ndjson, or leave it out of this batch")
    if streams and (reading.replacing or reading.token_column or reading.header):
        message = f"--with, --token-column and --header do not go with {streams.shown}, a stream of problems"
        raise OptionError("bad-option", message)
    batch = _Batch(
        choosing=choosing,
        reading=reading,
        showing=showing,
        format=format.name,
        talk=talk,
        inputs=found,
        jobs=min(count, len(found)),
        scheduler=scheduler,
        most="0" if fail_fast else max_failures,
    )
    if folder is None:
        return batch.to_standard_output()
    return batch.dry(folder, retry_failed) if dry_run else batch.to_folder(folder, retry_failed)


# ── what the command line says ───────────────────────────────────────────────────────────────────
def _folder(output: str | None) -> Path | None:
    if output is None:
        raise OptionError("missing-option", "where shall the results go?", help="-o DIR, or -o - for JSON lines")
    if output == "-":
        return None
    if not output:
        raise OptionError("bad-option", "-o is empty", help="-o DIR, or -o - for JSON lines")
    if "://" in output:
        raise OptionError("bad-option", f"results go to a folder of this machine, not to {output}")
    if Path(output).exists() and not Path(output).is_dir():
        raise OptionError("output-exists", f"{output} is a file", help="results go to a folder: -o DIR")
    return Path(output)


def _jobs(said: str, scheduler: str | None) -> int:
    from attncli.cli.options import whole_number

    count = whole_number("jobs", said, 1, 4096)
    if scheduler is not None and count != 1:
        raise OptionError("bad-option", "--jobs and --scheduler say two things", help="the cluster has its own workers")
    return count


def _format(showing: Showing, folder: Path | None) -> Format:
    format = format_for("x", showing.format or ("ndjson" if folder is None else "json"))
    if folder is None and format.name not in ("json", "ndjson"):
        raise OptionError("bad-option", f"standard output gets JSON lines, not {format.name}", help="-o DIR")
    return format_for("x", "ndjson") if folder is None else format


def _check(
    showing: Showing,
    scheduler: str | None,
    folder: Path | None,
    fail_fast: bool,
    most: str | None,
    retry: bool,
    dry: bool,
) -> None:
    from attncli.plan.steps import check_step

    for name in showing.only:
        if name not in ("all", "shown"):
            check_step(name)
    if fail_fast and most is not None:
        raise OptionError("bad-option", "--fail-fast and --max-failures say two things", help="say one of them")
    if folder is None and scheduler:
        raise OptionError("bad-option", "the workers of a cluster write files, and no standard output", help="-o DIR")
    if folder is None and retry:
        raise OptionError("bad-option", "standard output has no manifest of what failed", help="-o DIR")
    if folder is None and dry:
        raise OptionError("bad-option", "--dry-run says what would be done to a folder", help="-o DIR")


# ── the batch ────────────────────────────────────────────────────────────────────────────────────
@dataclasses.dataclass(frozen=True)
class _Batch:
    """One run of the command, once its words are understood."""

    choosing: Choosing
    reading: Reading
    showing: Showing
    format: str
    talk: Talk
    inputs: Sequence[Input]
    jobs: int
    scheduler: str | None
    most: str | None  # how many may fail

    def job(self, folder: Path | str, drawn: int | None) -> Job:
        """What is done; `drawn` is the seed that the folder has from before."""
        from attncli.batch.job import Job

        said = self.choosing.choices.get("seed")
        if said is None and drawn is None:
            drawn = secrets.randbelow(2**31)
        seed = int(str(drawn if said is None else said))
        return Job(self.choosing, self.reading, self.showing, self.format, seed, str(folder), drawn)

    def to_folder(self, folder: Path, retry: bool) -> ExitStatus:
        """Results, a manifest, and the list of what failed."""
        from attncli.batch.manifest import Manifest
        from attncli.batch.runner import Tally, finished, most_failures, run

        manifest = Manifest(folder)
        self._check_folder(folder, manifest)
        if retry and not manifest.there:
            raise OptionError(
                "bad-option", f"{folder} holds no batch, and nothing that failed", help="leave --retry-failed out"
            )
        job = self.job(folder, manifest.head.get("seed"))
        head = job.head()
        variant, again = head["variant"], self.showing.force
        chosen = self._chosen(manifest, retry)
        before = dict(manifest.receipts)
        tally = Tally(len(chosen), streams=any(one.stream for one in chosen))
        with ExitStack() as stack:
            tell = stack.enter_context(_progress(tally, self.talk, self.showing))
            made = stack.enter_context(self._engine(tell))
            stack.callback(manifest.close)
            manifest.begin(head)
            manifest.sweep(one.result for one in self.inputs)
            job = job.elsewhere().wanted(manifest.publish()) if self.scheduler is not None else job
            engine = made(job, variant)
            interrupted = stack.enter_context(_interrupts(self.talk))

            def record(input: Input, receipt: Receipt) -> None:
                if receipt.status != "skipped":
                    earlier = before.get(receipt.result)
                    attempts = receipt.attempts + (earlier.attempts if earlier else 0)
                    manifest.add(dataclasses.replace(receipt, attempts=attempts) if earlier else receipt)
                tell()

            try:
                run(
                    chosen, engine, tally, lambda one: finished(manifest, one, variant, again), record,
                    most=most_failures(self.most, len(chosen)), interrupted=interrupted,
                )  # fmt: skip
            except BaseException:
                with suppress(AttnError, OSError):  # that it ended early is said already
                    manifest.finish(one.result for one in self.inputs)
                raise
            manifest.finish(one.result for one in self.inputs)
        failed = folder / "failed.txt"
        return self._summed(tally, f"they are listed in {failed}; the same command tries them again")

    def to_standard_output(self) -> ExitStatus:
        """A result or an error a line, in the order of the inputs; nothing is kept."""
        from attncli.batch.runner import Tally, in_order, most_failures, run

        tally = Tally(len(self.inputs), streams=any(one.stream for one in self.inputs))
        write = standard_output(format_for(None, "ndjson"))
        with ExitStack() as stack:
            interrupted = stack.enter_context(_interrupts(self.talk))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="attn-")) if self.jobs > 1 else ""
            inputs = [dataclasses.replace(one, result=f"{i}.ndjson") for i, one in enumerate(self.inputs)]
            job = self.job(folder, None)
            out = None if folder else (lambda line: write(line.decode("utf-8", "surrogatepass")))
            tell = stack.enter_context(_progress(tally, self.talk, self.showing))
            engine = stack.enter_context(self._engine(tell, out))(job, "")
            ahead, in_turn = in_order(inputs, 64 * self.jobs)

            def record(input: Input, receipt: Receipt) -> None:
                for one, its in in_turn(input, receipt):
                    spooled = Path(folder, one.result)
                    if folder and spooled.exists():
                        with spooled.open(encoding="utf-8", errors="surrogatepass", newline="") as file:
                            for line in file:
                                write(line)
                        spooled.unlink()
                    elif its.status == "failed" and its.bytes is None:
                        write(json.dumps({"error": its.error}, ensure_ascii=False, separators=(",", ":")) + "\n")
                tell()

            most = most_failures(self.most, len(inputs))
            run(inputs, engine, tally, lambda one: None, record, most=most, interrupted=interrupted, ahead=ahead)
        return self._summed(tally, "their places hold the errors")

    def dry(self, folder: Path, retry: bool) -> ExitStatus:
        """What would be done, and what would be refused before anything is computed."""
        from attncli.batch.job import foreseen
        from attncli.batch.manifest import Manifest
        from attncli.batch.runner import finished

        manifest = Manifest(folder)
        self._check_folder(folder, manifest)
        job = self.job(folder, manifest.head.get("seed"))
        variant = job.head()["variant"]
        write = standard_output(format_for(None, "plain"))
        status = ExitStatus.OK
        for one in self._chosen(manifest, retry):
            try:
                skip = foreseen(job, one, finished(manifest, one, variant, self.showing.force))
                says = "skip" if skip else "compute"
                write(printable(f"{says:<8}{one.shown} → {folder / one.result}") + "\n")
            except AttnError as error:
                if error.status == ExitStatus.USAGE:
                    raise
                status = ExitStatus.NO
                write(printable(f"fail    {one.shown}: {error.code}: {error.message}") + "\n")
        return status

    # ── its parts ────────────────────────────────────────────────────────────────────────────────
    def _check_folder(self, folder: Path, manifest: Manifest) -> None:
        """Nothing that is there and not this batch's is replaced unless that is said."""
        if self.showing.force:
            return
        if (strange := manifest.strange) is not None:
            message = f"{strange} exists, and no batch made it"
            raise OptionError("output-exists", message, help="another folder, or --force to replace it")
        for one in self.inputs:
            known = manifest.receipts.get(one.result)
            if known is not None and not _same(known.input, one.shown):
                message = f"{folder / one.result} is the result of {known.input}, not of {one.shown}"
                raise OptionError("output-exists", message, help="another folder, or --force to replace it")
            if not manifest.there and (folder / one.result).exists():
                message = f"{folder / one.result} exists, and no manifest says that a batch made it"
                raise OptionError("output-exists", message, help="another folder, or --force to replace it")

    def _chosen(self, manifest: Manifest, retry: bool) -> Sequence[Input]:
        if not retry:
            return self.inputs
        failed = {result for result, receipt in manifest.receipts.items() if receipt.status == "failed"}
        return [one for one in self.inputs if one.result in failed]

    @contextmanager
    def _engine(self, tell: _Tell, out: Out | None = None) -> Iterator[Callable[[Job, str], Engine]]:
        """Who computes, once it is told what (the job, and the hash of it)."""
        from attncli.batch import dask_cluster as clusters
        from attncli.batch import executors as engines

        if self.scheduler is None and self.jobs == 1:
            yield lambda job, variant: engines.Here(job, variant, out, tell)
            return
        reached = clusters.local(self.jobs) if self.scheduler is None else clusters.reached(self.scheduler)
        with reached as client:
            device = str(self.choosing.choices.get("device", ""))
            waits = lambda: self.talk.note("the cluster has no workers; waiting for some")  # noqa: E731
            tasks = clusters.Tasks(client, device, waits)
            tasks.gather()
            yield lambda job, variant: engines.Cluster(tasks, job, variant)

    def _summed(self, tally: Tally, where: str) -> ExitStatus:
        """What it came to, and the status that says so."""
        talk, left = self.talk, tally.total - tally.seen
        if talk.form == "json":
            counts = {"done": tally.done, "failed": tally.failed, "skipped": tally.skipped, "left": left}
            for cause in tally.causes.values():
                talk.say(json.dumps({**(cause.first.error or {}), "input": cause.first.input, "count": cause.many}))
            causes = {code: cause.many for code, cause in tally.causes.items()}
            stopped = {"stopped": tally.stopped} if tally.stopped else {}
            rate = {"per_second": round(tally.rate, 3)}
            talk.say(
                json.dumps({"type": "summary", **counts, "causes": causes, "warnings": tally.warned, **rate, **stopped})
            )
        else:
            self._say_summary(tally, left, where)
        if tally.stopped == "interrupted" and left:
            return ExitStatus.INTERRUPTED
        return ExitStatus.NO if tally.failed else ExitStatus.OK

    def _say_summary(self, tally: Tally, left: int, where: str) -> None:
        talk = self.talk
        for code, count in tally.warned.items():
            talk.warning(f"{code}: in {counted(count, 'result')}")
        for code, (first, count) in sorted(tally.causes.items(), key=lambda cause: -cause[1].many):
            also = f", and {count - 1} more" if count > 1 else ""
            head = talk.paint(f"failed[{code}]", "31;1")
            talk.say(
                f"{head}: {printable(brief(first.input))}{also}: {printable(str((first.error or {}).get('message')))}"
            )
        if tally.stopped and left:
            talk.say(f"stopped: {tally.stopped}; {counted(left, 'input')} left")
        if not talk.quiet:
            counts = [f"{tally.done} done", f"{tally.failed} failed"] + [f"{tally.skipped} skipped"] * bool(
                tally.skipped
            )
            speed = f"; {tally.speed}" if tally.done + tally.failed else ""
            talk.say(", ".join(counts) + speed)
        if tally.failed and not talk.quiet:
            talk.say(talk.paint(f"  = help: {printable(where)}", "2"))


def _same(one: str, other: str) -> bool:
    """Whether two names are of the same file."""
    return one == other or ("://" not in one + other and Path(one).resolve() == Path(other).resolve())


# ── while it runs ────────────────────────────────────────────────────────────────────────────────
@contextmanager
def _interrupts(talk: Talk) -> Iterator[Callable[[], bool]]:
    """Ctrl-C once: what runs is finished. Twice: it is not."""
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            raise KeyboardInterrupt
        heard = True
        talk.say("finishing what runs; Ctrl-C again stops at once")

    try:
        before = signal.signal(signal.SIGINT, hear)
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: heard
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress(tally: Tally, talk: Talk, showing: Showing) -> Iterator[_Tell]:
    """How far it is, on standard error: a bar on a terminal, elsewhere a line every so often."""
    if talk.quiet or not showing.progress or talk.form != "full":
        yield lambda *_: None
        return
    bar: Bar | None = None
    said = tally.started

    def tell(lines: int = 0, wrong: int = 0, within: float = 0.0) -> None:
        nonlocal bar, said
        tally.lines, tally.wrong, tally.within = lines, wrong, within
        now = time.monotonic()
        if sys.stderr.isatty():
            if bar is None and now - tally.started > 1:
                from attncli.views.tally import Bar

                bar = Bar(tally.total, talk.color)
            if bar is not None:
                bar.show(tally.seen + within, tally.says())
        elif now - said >= _EVERY and tally.seen < tally.total:
            said = now
            talk.say(f"{tally.seen} of {tally.total}; {tally.says()}")

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()
