"""`attn check` without figures: a tolerance is judged by the wrong answers that it would pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attncli.cli.environment import Environment
from attncli.cli.json_text import to_json_text
from attncli.cli.messages import Messages
from attncli.cli.output import render_options_for, write_output
from attncli.cli.progress import load_engine_with_message
from attncli.errors import ExitStatus, InputError, OptionError
from attncli.output_formats import Format
from attncli.request import OutputOptions
from attncli.text import join_names
from attncli.tolerance import Tolerance
from attncli.types import Problem

if TYPE_CHECKING:
    from attncli.variant import Variant

_FORMATS = ("table", "plain", "markdown", "json")


def parse_judged_tolerance(rtol: float | None, atol: float | None, matched: str | None) -> Tolerance:
    """Make the tolerance that is judged.

    Raises:
        OptionError: neither --rtol nor --atol is given, or --matched is no share.
    """
    from attncli.registry import parse_number

    if rtol is None and atol is None:
        hint = "--rtol 1e-2 --atol 1e-2"
        raise OptionError("missing-option", "no tolerance is given that could be judged", help=hint)
    share = 1.0
    if matched is not None:
        try:
            share = parse_number(matched)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            message = f"--matched takes a share of the figures, above 0 and up to 1, not {matched}"
            raise OptionError("bad-option", message, help="--matched 0.95")
    return Tolerance(rtol or 0.0, atol or 0.0, share)


def refuse_options_of_figures(**options: object) -> None:
    """Refuse the options that say something of figures.

    Raises:
        OptionError: one of them is given.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, False)]
    if options.get("identify") is False:
        given.append("--no-identify")
    if given:
        message = f"{join_names(given)} {'goes' if len(given) == 1 else 'go'} with figures, and there are none"
        raise OptionError("bad-option", message, help="give them: --figures MINE; or leave the option out")


def write_judged_tolerance(
    problem: Problem,
    variant: Variant,
    tolerance: Tolerance,
    step: str | None,
    environment: Environment,
    output_options: OutputOptions,
    format: Format,
    messages: Messages,
    *,
    settings: Mapping[str, str],
) -> ExitStatus:
    """Judge a tolerance and write the judgement; the exit status is 1 if a wrong answer would pass.

    Raises:
        OptionError: the format is none of a judged tolerance, or no variant has the step.
        InputError: this variant does not have it.
    """
    if format.name not in _FORMATS:
        help = f"it can be {join_names(_FORMATS, 'or')}"
        raise OptionError("unknown-format", f"a judged tolerance cannot be written as {format.name}", help=help)
    from attncli.check.tolerances import judge_tolerance_task, prepare_judgement

    try:
        task = prepare_judgement(problem, variant, tolerance, step=step, settings=settings)
    except InputError as error:
        raise error.add_location(file=problem.source) from None
    load_engine_with_message(messages)  # loads torch, or says why not
    judgement = judge_tolerance_task(task)
    for warning in judgement.warnings:
        messages.warning(warning)
    render_options = render_options_for(environment, output_options)
    if format.name == "json":
        content = to_json_text(judgement.to_record(), indented=render_options.is_terminal)
    else:
        from attncli.views.verdicts.tolerances import TOLERANCE_VIEWS

        content = TOLERANCE_VIEWS[format.name](judgement, render_options)
    write_output(environment, content, output_options, format)
    return ExitStatus.OK if judgement.is_tight else ExitStatus.NO
