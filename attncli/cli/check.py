"""`attn check`: figures of your own against the reference, and what they are instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attncli.cli.messages import Talk
from attncli.cli.run import check_output, core, emit, look, progress, reads
from attncli.errors import AttnError, ExitStatus, InputError, OptionError, listed
from attncli.output_formats import Format, Look, format_for
from attncli.request import Choosing, Reading, Showing
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.check import Task
    from attncli.verdict import Matrix, Verdict

EXAMPLES = """
    attn check worksheet.json
    attn check tokens.csv --causal --figures mine.json
    attn check qkv.npz --figures kernel.npy --step context --rule flash
    attn check tokens.csv --figures mine.csv --step weights --identify
    attn check answers/
"""
_FORMATS = ("table", "plain", "markdown", "json")


def check(
    input: Annotated[
        str,
        typer.Argument(
            help="a problem, or a folder of problems that say what they expect", metavar="INPUT", show_default=False
        ),
    ],
    figures: Annotated[
        str | None,
        typer.Option(
            "--figures",
            help="your figures: a result, arrays, JSON, CSV or a filled-in worksheet; without it, the problem's `expected`",
            metavar="MINE",
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", help="which step the figures are, or which of theirs", metavar="STEP")
    ] = None,
    layout: Annotated[
        Literal["bhtd", "bthd", "htd"] | None, typer.Option("--layout", help="how arrays with heads lie")
    ] = None,
    rule: Annotated[
        Literal["digits", "close", "flash"] | None,
        typer.Option("--rule", help="when a figure is right; else by what it is"),
    ] = None,
    rtol: Annotated[str | None, typer.Option("--rtol", help="|Δ| ≤ atol + rtol·|reference|", metavar="X")] = None,
    atol: Annotated[str | None, typer.Option("--atol", help="the same", metavar="X")] = None,
    identify: Annotated[
        bool | None,
        typer.Option(
            "--identify/--no-identify",
            help="search what the figures are, even where they are right; without it, where one of them is wrong",
            show_default=False,
        ),
    ] = None,
    *,
    choosing: Choosing,
    reading: Reading,
    telling: Showing,
) -> ExitStatus:
    """Check figures against the reference, step by step: where they differ, and what they are instead."""
    talk = Talk(form=telling.error_format, color=telling.color, quiet=telling.quiet)
    format = _format(telling)
    check_output(telling)
    options = {"step": step, "layout": layout, "rule": rule, "rtol": _limit("rtol", rtol), "atol": _limit("atol", atol)}
    if figures == "-":
        raise OptionError("bad-option", "standard input is for INPUT alone", help="--figures FILE")
    if (rtol or atol) and rule not in (None, "close"):
        raise OptionError("bad-option", f"--rule {rule} has no rtol and atol", help="they go with --rule close")
    if input != "-" and not Path(input).exists():
        from attncli.readers import slurp

        slurp(input)  # says that there is none
    if input != "-" and Path(input).is_dir():
        if figures is not None:
            way = "a folder's problems say themselves what they expect"
            raise OptionError("bad-option", "--figures goes with one problem, not with a folder", help=way)
        matrix = _folder(input, choosing, reading, options, identify, telling, talk)
        _write(matrix, telling, format)
        return ExitStatus.OK if matrix.right == len(matrix.rows) else ExitStatus.NO
    task = _task(input, figures, choosing, reading, options, talk)
    verdict = _settled(task, identify, telling, talk)
    for warning in verdict.warnings:
        talk.warning(warning)
    _write(verdict, telling, format)
    return ExitStatus.OK if verdict.verdict == "right" else ExitStatus.NO


def _limit(name: str, text: str | None) -> float | None:
    from attncli.registry import number

    if text is None:
        return None
    try:
        x = number(text)
    except ValueError:
        x = -1.0
    if x < 0:
        raise OptionError("bad-option", f"--{name} is a number ≥ 0, not {text}")
    return x


def _format(telling: Showing) -> Format:
    format = format_for(telling.output, telling.format)
    if format.name not in _FORMATS:
        raise OptionError(
            "unknown-format", f"a verdict is not written as {format.name}", help=f"it can be {listed(_FORMATS, 'or')}"
        )
    return format


def _task(path: str, figures: str | None, choosing: Choosing, reading: Reading, options: Json, talk: Talk) -> Task:
    """Everything that can be refused, before torch."""
    from attncli.check import prepare
    from attncli.check.figures import of_expected, read_figures

    problem = reads(path, reading, talk)
    if figures is None and not problem.expected:
        way = 'give your own: --figures MINE; or say in the file what is expected: "expected": {"weights": [[…]]}'
        raise InputError("no-figures", f"there is nothing to check {problem.source} against", help=way)
    mine = of_expected(problem.expected, problem.source) if figures is None else read_figures(figures)
    try:
        return prepare(problem, choosing.variant(problem.variant), mine, **options)
    except InputError as error:
        named = error.code in ("wrong-shape", "absent-step", "out-of-range", "ambiguous-layout", "no-figures")
        raise error.at(file=mine.name if named and error.place.path == "" else problem.source) from None


def _settled(task: Task, identify: bool | None, telling: Showing, talk: Talk) -> Verdict:
    from attncli.check import settle

    core(talk)  # loads torch, or says why not
    with progress(telling, talk) as tell:
        return settle(task, identify=identify, progress=tell)


def _folder(
    path: str, choosing: Choosing, reading: Reading, options: Json, identify: bool | None, telling: Showing, talk: Talk
) -> Matrix:
    """Every problem below a folder that says what it expects; one that cannot be read costs only itself."""
    from attncli.readers import formats
    from attncli.verdict import Matrix

    suffixes = {suffix for one in formats().values() if not one.stream for suffix in one.suffixes}
    files = sorted(p for p in Path(path).rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
    rows: list[tuple[str, Verdict | None, str]] = []
    for file in files:
        name = file.relative_to(path).as_posix()
        try:
            task = _task(str(file), None, choosing, reading, options, Talk(quiet=True))
            rows.append((name, _settled(task, bool(identify), telling, talk), ""))
        except AttnError as error:
            if error.status == ExitStatus.CANNOT and error.code == "torch-missing":
                raise
            if error.code != "no-figures":
                rows.append((name, None, f"{error.code}: {error.message}"))
    if not rows:
        way = 'a problem says what it expects by "expected": {"weights": [[…]]}'
        raise InputError("no-figures", f"no problem in {path} says what it expects", help=way)
    return Matrix(path, tuple(rows))


def _write(what: Verdict | Matrix, telling: Showing, format: Format) -> None:
    from attncli.verdict import Verdict

    seen: Look = look(telling)
    if format.name == "json":
        text = _json(what.record(), indented=seen.screen)
    else:
        from attncli.views import verdict as views

        kind = "verdict" if isinstance(what, Verdict) else "matrix"
        text = getattr(views, f"{kind}_{format.name}")(what, seen)
    emit(text, telling, format)


def _json(record: Json, *, indented: bool) -> str:
    """JSON, with what is not finite as strings."""
    import math

    import msgspec

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return value

    data = msgspec.json.encode(plain(record))
    return (msgspec.json.format(data, indent=2) if indented else data).decode() + "\n"
