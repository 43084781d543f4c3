"""`attn check`: figures of your own against the reference, and what they are instead."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attncli.cli.environment import Environment
from attncli.cli.input import file_mode, read_problem
from attncli.cli.json_text import to_json_text
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path, open_output_file, render_options_for, write_output
from attncli.cli.progress import load_engine_with_message, show_progress
from attncli.errors import AttnError, ExitStatus, InputError, OptionError
from attncli.output_files import check_output_file
from attncli.output_formats import Format, choose_output_format
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import join_names, pluralize
from attncli.types import Problem

if TYPE_CHECKING:
    from attncli.check.task import CheckOptions, CheckTask
    from attncli.check.verdicts import Judgement
    from attncli.verdict import FolderVerdict, ProblemVerdict, Verdict

EXAMPLES = """
    attn check worksheet.json
    attn check tokens.csv --causal --figures mine.json
    attn check qkv.npz --figures kernel.npy --step context --rule flash
    attn check tokens.csv --figures mine.csv --step weights --identify
    attn check answers/
    attn check qkv.npz --causal --rtol 1e-2 --atol 1e-2
"""
_SECONDS_BEFORE_NOTE = 3.0  # of computing, after which a search is announced
_VERDICT_FORMATS = ("table", "plain", "markdown", "html", "json", "npz")


def check(
    input: Annotated[
        str,
        typer.Argument(
            help="a problem, or a folder of problems that each hold what they expect",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    figures: Annotated[
        str | None,
        typer.Option(
            "--figures",
            help=(
                "your figures: a result, arrays, JSON, CSV or a filled-in worksheet; without it, the problem's `expected`; "
                "none: judge the tolerance of --rtol and --atol by itself, as where nothing is expected"
            ),
            metavar="MINE",
        ),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", help="the step that the figures belong to, or the one of theirs to check", metavar="STEP"
        ),
    ] = None,
    layout: Annotated[
        Literal["bhtd", "bthd", "htd", "thd"] | None,
        typer.Option("--layout", help="the order of the axes of arrays with heads"),
    ] = None,
    rule: Annotated[
        Literal["digits", "close", "flash"] | None,
        typer.Option("--rule", help="how close a figure must be; if left out, its type decides"),
    ] = None,
    rtol: Annotated[
        str | None,
        typer.Option("--rtol", help="the relative part of the tolerance: |Δ| ≤ atol + rtol·|reference|", metavar="X"),
    ] = None,
    atol: Annotated[str | None, typer.Option("--atol", help="the absolute part of that tolerance", metavar="X")] = None,
    matched: Annotated[
        str | None,
        typer.Option(
            "--matched",
            help="without figures: the share of them that the judged tolerance asks to be right, all unless it is given",
            metavar="SHARE",
        ),
    ] = None,
    identify: Annotated[
        bool | None,
        typer.Option(
            "--identify/--no-identify",
            help="look for the variant that gives these figures even if they are right, or never",
            show_default=False,
        ),
    ] = None,
    no_reveal: Annotated[
        bool,
        typer.Option("--no-reveal", help="mark figures right, wrong or open without printing those of the reference"),
    ] = False,
    junit: Annotated[
        str | None,
        typer.Option("--junit", help="write the verdicts to this file, too, as JUnit XML, for CI", metavar="FILE"),
    ] = None,
    *,
    environment: Environment,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    verdict_options: OutputOptions,
) -> ExitStatus:
    """Compare your figures with the reference, step by step, and find out what they are where they differ."""
    messages = Messages.from_options(environment, verdict_options)
    format = _verdict_format(verdict_options)
    check_output_path(verdict_options)
    if junit is not None:
        check_output_file(junit, force=verdict_options.force)
    options: CheckOptions = {
        "step": step,
        "layout": layout,
        "rule": rule,
        "rtol": _parse_tolerance("rtol", rtol),
        "atol": _parse_tolerance("atol", atol),
    }
    if no_reveal and identify:
        hint = "leave --identify out, or --no-reveal"
        raise OptionError("bad-option", "--identify would reveal the figures that --no-reveal hides", help=hint)
    identify = False if no_reveal else identify
    if format.name == "npz" and (no_reveal or stat.S_ISDIR(file_mode(input))):
        what = "--no-reveal hides" if no_reveal else "a folder of problems has no place for"
        raise OptionError("bad-option", f"{what} the differences that npz holds", help="--format json")
    if figures == "-":
        raise OptionError("bad-option", "only INPUT can be read from standard input", help="--figures FILE")
    if (rtol or atol) and rule not in (None, "close"):
        raise OptionError(
            "bad-option", f"--rtol and --atol do not apply to --rule {rule}", help="they go with --rule close"
        )
    if input != "-" and not file_mode(input):
        from attncli.readers import read_bytes

        read_bytes(input)  # raises the error that says so
    if input != "-" and stat.S_ISDIR(file_mode(input)):
        if matched is not None:
            hint = "judge the tolerance by one problem of the folder"
            raise OptionError("bad-option", "--matched is for one problem, not for a folder", help=hint)
        if figures is not None:
            hint = "each problem in a folder holds what it expects, under `expected`"
            raise OptionError("bad-option", "--figures is for one problem, not for a folder", help=hint)
        folder_verdict = _check_problem_folder(
            input, variant_request, read_options, options, identify, verdict_options, messages
        )
        shown = folder_verdict.hide_answers() if no_reveal else folder_verdict
        _write_verdict(environment, shown, verdict_options, format)
        _write_junit(junit, input, shown.problems)
        return ExitStatus.OK if folder_verdict.is_right else ExitStatus.NO
    from attncli.verdict import ProblemVerdict

    problem = read_problem(input, read_options, messages)
    if figures == "none" or (figures is None and not problem.expected and {rtol, atol, matched} != {None}):
        from attncli.cli.tolerance import parse_judged_tolerance, refuse_options_of_figures, write_judged_tolerance

        settings = _used_settings(variant_request, problem)
        typed_rule = None if settings.pop("rule", None) else rule
        refuse_options_of_figures(layout=layout, rule=typed_rule, identify=identify, no_reveal=no_reveal, junit=junit)
        tolerance = parse_judged_tolerance(options["rtol"], options["atol"], matched)
        variant = variant_request.resolve_variant(problem.variant)
        return write_judged_tolerance(
            problem, variant, tolerance, step, environment, verdict_options, format, messages, settings=settings
        )
    if matched is not None:
        hint = "leave --matched out, or say --figures none"
        raise OptionError("bad-option", "--matched is for a tolerance that is judged without figures", help=hint)
    task = _prepare_task(problem, figures, variant_request, options)
    judgement = _judge_task(task, identify, messages, keep_differences=format.name == "npz")
    for warning in judgement.verdict.warnings:
        messages.warning(warning)
    written = _write_before_search(environment, judgement, verdict_options, format)
    verdict = _search_changes(judgement, verdict_options, messages)
    concealed = verdict.hide_answers() if no_reveal else verdict
    _write_verdict(environment, concealed, verdict_options, format, written=written)
    _write_junit(junit, concealed.problem_name, [ProblemVerdict(concealed.problem_name, concealed)])
    return ExitStatus.OK if verdict.verdict in ("right", "otherwise") else ExitStatus.NO


def _parse_tolerance(option_name: str, text: str | None) -> float | None:
    """Parse --rtol or --atol.

    Raises:
        OptionError: it is no number ≥ 0.
    """
    from attncli.registry import parse_number

    if text is None:
        return None
    try:
        tolerance = parse_number(text)
    except ValueError:
        tolerance = -1.0
    if tolerance < 0:
        raise OptionError("bad-option", f"--{option_name} takes a number ≥ 0, not {text}")
    return tolerance


def _verdict_format(output_options: OutputOptions) -> Format:
    """Choose the output format among those of a verdict."""
    format = choose_output_format(output_options.output, output_options.format, offered=_VERDICT_FORMATS)
    if format.name not in _VERDICT_FORMATS:
        raise OptionError(
            "unknown-format",
            f"check cannot write {format.name}",
            help=f"it can be {join_names(_VERDICT_FORMATS, 'or')}",
        )
    return format


def _prepare_task(
    problem: Problem, figures_path: str | None, variant_request: VariantRequest, options: CheckOptions
) -> CheckTask:
    """Read the figures of a problem, and refuse whatever can be refused, before torch."""
    from attncli.check import prepare
    from attncli.check.figures import figures_from_expected

    if figures_path is not None:
        from attncli.check.figure_files import read_figures

        figures = read_figures(figures_path)
    elif problem.expected:
        figures = figures_from_expected(problem.expected, problem.source)
    else:
        hint = (
            'give your own: --figures MINE; or add to the file what you expect: "expected": {"weights": [[…]]}; '
            "--rtol 1e-2 --atol 1e-2 judges a tolerance without figures"
        )
        raise InputError("no-figures", f"there is nothing to check {problem.source} against", help=hint)
    try:
        variant = variant_request.resolve_variant(problem.variant)
        return prepare(problem, variant, figures, **options, settings=_used_settings(variant_request, problem))
    except InputError as error:
        raise error.add_location(file=problem.source) from None


def _used_settings(variant_request: VariantRequest, problem: Problem) -> dict[str, str]:
    """Return the choices of the variant and of what is right that came from settings, and where each was made."""
    from attncli.check import OVERRULED_CHOICES
    from attncli.cli.settings import VERDICT_SETTINGS

    used = variant_request.used_settings(problem.variant, overruled=OVERRULED_CHOICES)
    origins = variant_request.origins
    return used | {name: origins[name] for name in VERDICT_SETTINGS if name in origins}


def _judge_task(
    task: CheckTask, identify: bool | None, messages: Messages, *, keep_differences: bool = False
) -> Judgement:
    """Compare what is claimed with the reference; nothing is searched for yet."""
    load_engine_with_message(messages)  # loads torch, or says why not
    from attncli.check import judge

    return judge(task, identify=identify, keep_differences=keep_differences)


def _search_changes(judgement: Judgement, output_options: OutputOptions, messages: Messages) -> Verdict:
    """Search for what the figures are instead, if that is to be done."""
    from attncli.check import search_changes

    with show_progress(output_options, messages) as progress:
        return search_changes(judgement, progress or _announce_long_search(messages))


def _write_before_search(
    environment: Environment, judgement: Judgement, output_options: OutputOptions, format: Format
) -> int:
    """Write to standard output what is known before a search, and return how many characters that were.

    A file appears whole, and JSON is one record: of these nothing is written.
    """
    if not judgement.should_search or output_options.output is not None:
        return 0
    from attncli.views.verdicts.formats import VERDICT_VIEWS

    if format.name not in VERDICT_VIEWS:
        return 0
    render_options = render_options_for(environment, output_options)
    text = VERDICT_VIEWS[format.name](judgement.verdict, render_options)
    write_output(environment, text, output_options, format)
    return len(text)


def _announce_long_search(messages: Messages) -> Callable[[float, str], None]:
    """Return a function that says once, where no bar is shown, that a search goes on; the search calls it as it proceeds."""
    started_at = time.process_time()
    is_announced = False

    def announce(share: float, activity: str) -> None:
        nonlocal is_announced
        if not is_announced and time.process_time() - started_at > _SECONDS_BEFORE_NOTE:
            is_announced = True
            messages.note(
                f"looking for what the figures are instead, {share:.0%} of {activity}; --no-identify skips this"
            )

    return announce


def _check_problem_folder(
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    options: CheckOptions,
    identify: bool | None,
    output_options: OutputOptions,
    messages: Messages,
) -> FolderVerdict:
    """Check every problem below a folder that says what it expects; one that cannot be read costs only itself."""
    from attncli.verdict import FolderVerdict, ProblemVerdict

    files, left_out_count = _find_problem_files(Path(path))
    if left_out_count:
        what = pluralize(left_out_count, "file or folder", "files and folders")
        messages.note(f"{what} left out: not a regular file, or not readable")
    problems: list[ProblemVerdict] = []
    for file in files:
        name = file.relative_to(path).as_posix()
        try:
            problem = read_problem(str(file), read_options, Messages(messages.environment, quiet=True))
            task = _prepare_task(problem, None, variant_request, options)
            judgement = _judge_task(task, bool(identify), messages)
            problems.append(ProblemVerdict(name, _search_changes(judgement, output_options, messages)))
        except AttnError as error:
            if error.status == ExitStatus.CANNOT and error.code == "torch-missing":
                raise
            if error.code != "no-figures":
                problems.append(ProblemVerdict(name, error=f"{error.code}: {error.message}"))
    if not problems:
        hint = 'a problem holds what it expects under `expected`: "expected": {"weights": [[…]]}'
        raise InputError("no-figures", f"no problem in {path} holds what it expects", help=hint)
    return FolderVerdict(path, tuple(problems))


def _find_problem_files(folder: Path) -> tuple[list[Path], int]:
    """Find the files below a folder by their suffixes, and count the pipes and the like, and the folders that cannot be read.

    A link to a file that is gone is among the files: it fails when its turn comes.
    """
    from attncli.batch.inputs import RESERVED_FILE_NAMES
    from attncli.readers import is_input_name

    files, left_out_count = [], 0
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            left_out_count += not os.access(path, os.R_OK | os.X_OK)
        elif path.exists() and not path.is_file():
            left_out_count += 1
        elif path.name in RESERVED_FILE_NAMES and (path.parent / "manifest.ndjson").is_file():
            continue
        elif is_input_name(path.name, with_streams=False):
            files.append(path)
    return files, left_out_count


def _write_verdict(
    environment: Environment,
    verdict: Verdict | FolderVerdict,
    output_options: OutputOptions,
    format: Format,
    *,
    written: int = 0,
) -> None:
    """Write a verdict in its format to standard output or to the file that was asked for.

    Args:
        environment: with standard output.
        verdict: of a problem or a folder.
        output_options: where to.
        format: one of a verdict's.
        written: how many characters of it stand there already.
    """
    from attncli.verdict import Verdict

    render_options = render_options_for(environment, output_options)
    if format.name == "json":
        content: str | bytes = to_json_text(verdict.to_record(), indented=render_options.is_terminal)
    elif isinstance(verdict, Verdict) and format.name == "npz":
        content = _pack_differences(verdict)
    elif format.name == "html":
        from attncli.views.pages.verdict import folder_html, verdict_html

        content = verdict_html(verdict) if isinstance(verdict, Verdict) else folder_html(verdict)
    else:
        from attncli.views.verdicts.formats import FOLDER_VIEWS, VERDICT_VIEWS

        if isinstance(verdict, Verdict):
            content = VERDICT_VIEWS[format.name](verdict, render_options)
        else:
            content = FOLDER_VIEWS[format.name](verdict, render_options)
    write_output(environment, content[written:], output_options, format)


def _write_junit(path: str | None, suite: str, problems: Sequence[ProblemVerdict]) -> None:
    """Write verdicts to the file of --junit, if there is one."""
    if path is None:
        return
    from attncli.views.verdicts.junit import write_junit

    with open_output_file(OutputOptions(output=path)) as file:
        file.write(write_junit(suite, problems).encode())


def _pack_differences(verdict: Verdict) -> bytes:
    """An archive of each step's differences from the reference and of which are wrong, with the verdict as JSON in `attn`."""
    import io

    import numpy as np

    arrays = {f"{each.step}.difference": each.difference for each in verdict.differences}
    arrays |= {f"{each.step}.wrong": each.is_wrong for each in verdict.differences}
    file = io.BytesIO()
    np.savez(file, attn=np.array(to_json_text(verdict.to_record(), indented=False)), **arrays)  # type: ignore[arg-type]  # names are keywords here
    return file.getvalue()
