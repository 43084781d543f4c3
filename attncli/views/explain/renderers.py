"""The formats that a page can be written in: `RENDERERS`."""

from __future__ import annotations

from collections.abc import Callable

from attncli.output_formats import RenderOptions
from attncli.views.explain.render_html import render_html
from attncli.views.explain.render_json import render_json
from attncli.views.explain.render_latex import render_latex
from attncli.views.explain.render_markdown import render_markdown
from attncli.views.explain.render_text import render_text
from attncli.views.explain.rendered_page import RenderedPage

RENDERERS: dict[str, Callable[[RenderedPage, RenderOptions], str]] = {
    "table": render_text,
    "plain": render_text,
    "markdown": render_markdown,
    "latex": render_latex,
    "json": render_json,
    "html": render_html,
}
