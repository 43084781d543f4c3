"""The formats of a verdict and of a folder of verdicts: a function for each, which returns its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attncli.output_formats import RenderOptions
from attncli.verdict import FolderVerdict, Verdict
from attncli.views.verdicts.markdown import folder_markdown, verdict_markdown
from attncli.views.verdicts.plain import folder_plain, verdict_plain
from attncli.views.verdicts.terminal import folder_table, verdict_table

VERDICT_VIEWS: Mapping[str, Callable[[Verdict, RenderOptions], str]] = {
    "table": verdict_table,
    "plain": verdict_plain,
    "markdown": verdict_markdown,
}
FOLDER_VIEWS: Mapping[str, Callable[[FolderVerdict, RenderOptions], str]] = {
    "table": folder_table,
    "plain": folder_plain,
    "markdown": folder_markdown,
}
