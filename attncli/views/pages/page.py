"""Write a page of one result or of several. Entries: `write_html`, `write_html_of_layers`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention
from attncli.views.pages.document import SCRIPT_POLICY, SHARED_SCRIPT_POLICY, fill_template, json_for_html, read_script
from attncli.views.pages.record import page_title, to_page_record

MAX_NUMBERS = 2**24  # in one page: 64 MiB before they are packed


def write_html_of_layers(layers: Sequence[tuple[str, Attention]], render_options: RenderOptions) -> str:
    """Write a page of several results, such as the layers of a model, each with its name."""
    record = to_page_record(layers, render_options.precision)
    body = (
        f'<div id="page"><noscript><p>This page is drawn by its script, which the browser does not run.</p></noscript></div>\n'
        f'<script type="application/json" id="data">{json_for_html(record)}</script>\n'
        f"{_script_element(render_options)}"
    )
    policy = SHARED_SCRIPT_POLICY if render_options.shared_js else SCRIPT_POLICY
    return fill_template(page_title(layers[0][1]), body, policy)


def _script_element(render_options: RenderOptions) -> str:
    if render_options.shared_js:
        return f'<script src="{shared_script()[0]}"></script>'
    return f"<script>\n{read_script()}</script>"


def shared_script() -> tuple[str, str]:
    """Return the name of the script that pages share, which changes with it, and the script."""
    script = read_script()
    return f"attn-{hashlib.sha256(script.encode()).hexdigest()[:8]}.js", script


@output_format(
    "html",
    ".html",
    ".htm",
    console_errors="utf-8",
    shows_workings=True,
    max_numbers=MAX_NUMBERS,
    write_layers=write_html_of_layers,
    shape_options=("shared_js",),
    shared_file=shared_script,
)
def write_html(attention: Attention, render_options: RenderOptions) -> str:
    """Write a page that holds its style, its script and every number."""
    return write_html_of_layers([("", attention)], render_options)
