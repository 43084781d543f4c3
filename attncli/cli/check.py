"""`attn check`: figures of your own against the reference, and what they are instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attncli.cli.messages import Messages
from attncli.cli.run import (
    check_output_path,
    load_engine_with_message,
    read_problem,
    render_options_for,
    show_progress,
    write_output,
)
from attncli.errors import AttnError, ExitStatus, InputError, OptionError, join_names
from attncli.output_formats import Format, RenderOptions, choose_output_format
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.check import CheckTask
    from attncli.verdict import FolderVerdict, Verdict

EXAMPLES = """
    attn check worksheet.json
    attn check tokens.csv --causal --figures mine.json
    attn check qkv.npz --figures kernel.npy --step context --rule flash
    attn check tokens.csv --figures mine.csv --step weights --identify
    attn check answers/
"""
_VERDICT_FORMATS = ("table", "plain", "markdown", "json")


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
    choosing: VariantRequest,
    reading: ReadOptions,
    telling: OutputOptions,
) -> ExitStatus:
    """Check figures against the reference, step by step: where they differ, and what they are instead."""
    talk = Messages(error_format=telling.error_format, color=telling.color, quiet=telling.quiet)
    format = _verdict_format(telling)
    check_output_path(telling)
    options = {
        "step": step,
        "layout": layout,
        "rule": rule,
        "rtol": _parse_tolerance("rtol", rtol),
        "atol": _parse_tolerance("atol", atol),
    }
    if figures == "-":
        raise OptionError("bad-option", "standard input is for INPUT alone", help="--figures FILE")
    if (rtol or atol) and rule not in (None, "close"):
        raise OptionError("bad-option", f"--rule {rule} has no rtol and atol", help="they go with --rule close")
    if input != "-" and not Path(input).exists():
        from attncli.readers import read_bytes

        read_bytes(input)  # says that there is none
    if input != "-" and Path(input).is_dir():
        if figures is not None:
            way = "a folder's problems say themselves what they expect"
            raise OptionError("bad-option", "--figures goes with one problem, not with a folder", help=way)
        matrix = _check_problem_folder(input, choosing, reading, options, identify, telling, talk)
        _write_verdict(matrix, telling, format)
        return ExitStatus.OK if matrix.right_count == len(matrix.rows) else ExitStatus.NO
    task = _prepare_task(input, figures, choosing, reading, options, talk)
    verdict = _settle_task(task, identify, telling, talk)
    for warning in verdict.warnings:
        talk.warning(warning)
    _write_verdict(verdict, telling, format)
    return ExitStatus.OK if verdict.verdict == "right" else ExitStatus.NO


def _parse_tolerance(option_name: str, text: str | None) -> float | None:
    from attncli.registry import parse_number

    if text is None:
        return None
    try:
        x = parse_number(text)
    except ValueError:
        x = -1.0
    if x < 0:
        raise OptionError("bad-option", f"--{option_name} is a number ≥ 0, not {text}")
    return x


def _verdict_format(output_options: OutputOptions) -> Format:
    format = choose_output_format(output_options.output, output_options.format)
    if format.name not in _VERDICT_FORMATS:
        raise OptionError(
            "unknown-format",
            f"a verdict is not written as {format.name}",
            help=f"it can be {join_names(_VERDICT_FORMATS, 'or')}",
        )
    return format


def _prepare_task(
    path: str,
    figures: str | None,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    options: Json,
    messages: Messages,
) -> CheckTask:
    """Everything that can be refused, before torch."""
    from attncli.check import prepare
    from attncli.check.figures import figures_from_expected, read_figures

    problem = read_problem(path, read_options, messages)
    if figures is None and not problem.expected:
        way = 'give your own: --figures MINE; or say in the file what is expected: "expected": {"weights": [[…]]}'
        raise InputError("no-figures", f"there is nothing to check {problem.source} against", help=way)
    mine = figures_from_expected(problem.expected, problem.source) if figures is None else read_figures(figures)
    try:
        return prepare(problem, variant_request.resolve_variant(problem.variant), mine, **options)
    except InputError as error:
        named = error.code in ("wrong-shape", "absent-step", "out-of-range", "ambiguous-layout", "no-figures")
        raise error.add_location(file=mine.name if named and error.location.path == "" else problem.source) from None


def _settle_task(task: CheckTask, identify: bool | None, output_options: OutputOptions, messages: Messages) -> Verdict:
    from attncli.check import settle

    load_engine_with_message(messages)  # loads torch, or says why not
    with show_progress(output_options, messages) as tell:
        return settle(task, identify=identify, progress=tell)


def _check_problem_folder(
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    options: Json,
    identify: bool | None,
    output_options: OutputOptions,
    messages: Messages,
) -> FolderVerdict:
    """Every problem below a folder that says what it expects; one that cannot be read costs only itself."""
    from attncli.readers import load_readers
    from attncli.verdict import FolderVerdict

    suffixes = {suffix for one in load_readers().values() if not one.is_stream for suffix in one.suffixes}
    files = sorted(p for p in Path(path).rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
    rows: list[tuple[str, Verdict | None, str]] = []
    for file in files:
        name = file.relative_to(path).as_posix()
        try:
            task = _prepare_task(str(file), None, variant_request, read_options, options, Messages(quiet=True))
            rows.append((name, _settle_task(task, bool(identify), output_options, messages), ""))
        except AttnError as error:
            if error.status == ExitStatus.CANNOT and error.code == "torch-missing":
                raise
            if error.code != "no-figures":
                rows.append((name, None, f"{error.code}: {error.message}"))
    if not rows:
        way = 'a problem says what it expects by "expected": {"weights": [[…]]}'
        raise InputError("no-figures", f"no problem in {path} says what it expects", help=way)
    return FolderVerdict(path, tuple(rows))


def _write_verdict(verdict: Verdict | FolderVerdict, output_options: OutputOptions, format: Format) -> None:
    from attncli.verdict import Verdict

    seen: RenderOptions = render_options_for(output_options)
    if format.name == "json":
        text = _to_json(verdict.to_record(), indented=seen.is_terminal)
    else:
        from attncli.views import verdict as views

        kind = "verdict" if isinstance(verdict, Verdict) else "folder"
        text = getattr(views, f"{kind}_{format.name}")(verdict, seen)
    write_output(text, output_options, format)


def _to_json(record: Json, *, indented: bool) -> str:
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
