"""A folder of pages: a worksheet for each seed and query, and in `keys/` the same filled in. `write_page_folder` is the entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from attncli.atomic_file import refuse_link
from attncli.cli.environment import Environment
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path, render_options_for, write_output
from attncli.cli.progress import load_engine_with_message
from attncli.errors import CannotError, ExitStatus
from attncli.explanation_pages import PlannedPages
from attncli.output_formats import Format
from attncli.request import OutputOptions
from attncli.text import pluralize, shorten

if TYPE_CHECKING:
    from attncli.views.explain import RenderedPage

KEYS_FOLDER = "keys"


def write_page_folder(
    environment: Environment,
    folder: Path,
    pages: Sequence[PlannedPages],
    format: Format,
    output_options: OutputOptions,
    *,
    has_gaps: bool,
) -> ExitStatus:
    """Write every page into a folder, which is made where it is missing; worksheets with their keys in a folder of their own.

    Raises:
        OptionError: a file exists, and `--force` was not given.
        CannotError: the folder cannot be made, a file cannot be written, or a link is in the place of one or of the folder of keys.
    """
    folders = (folder, folder / KEYS_FOLDER) if has_gaps else (folder,)
    for made in folders:
        refuse_link(folder, KEYS_FOLDER)
        try:
            made.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or str(error)
            raise CannotError("cannot-write", f"the folder {shorten(str(made))} cannot be made: {reason}") from None
    suffix = format.suffixes[0] if format.suffixes else ".txt"
    targets = [
        [replace(output_options, output=str(made / f"{name}{suffix}"), format=format.name) for made in folders]
        for planned in pages
        for name in planned.names
    ]
    for target in (target for both in targets for target in both):
        refuse_link(folder, Path(str(target.output)).relative_to(folder).as_posix())
        check_output_path(target)
    messages = Messages.from_options(environment, output_options)
    for both, rendered in zip(
        targets, _render_pages(environment, pages, messages, targets[0][0], has_gaps), strict=True
    ):
        from attncli.views.explain import RENDERERS

        for target, page in zip(both, rendered, strict=True):
            content = RENDERERS[format.name](page, render_options_for(environment, target))
            write_output(environment, content, target, format)
    count = pluralize(len(targets), "worksheet" if has_gaps else "page")
    keys = f", and the keys in {folder / KEYS_FOLDER}" if has_gaps else ""
    messages.note(f"{count} in {folder}{keys}")
    return ExitStatus.OK


def _render_pages(
    environment: Environment, pages: Sequence[PlannedPages], messages: Messages, target: OutputOptions, has_gaps: bool
) -> Iterator[tuple[RenderedPage, ...]]:
    """Compute seed after seed: each page, and its key where it has gaps."""
    run_plan = load_engine_with_message(messages)
    render_options = render_options_for(environment, target)
    answers = (False, True) if has_gaps else (False,)
    told_warnings = set[str]()
    for planned in pages:
        yield from planned.render(
            run_plan, messages.warning, render_options, answers=answers, told_warnings=told_warnings
        )
