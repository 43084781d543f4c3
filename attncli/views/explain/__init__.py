"""`attn explain`: one query as a page of equations. `explain_query` makes the page, `render_page` and `RENDERERS` write it."""

from attncli.views.explain.build import explain_query
from attncli.views.explain.page import ExplanationPage, ExplanationScope
from attncli.views.explain.rendered_page import RenderedPage, render_page
from attncli.views.explain.renderers import RENDERERS
from attncli.views.explain.worksheet import CONTEXT_STEPS, EXPONENTIALS, Worksheet, steps_to_blank

__all__ = [
    "CONTEXT_STEPS",
    "EXPONENTIALS",
    "RENDERERS",
    "ExplanationPage",
    "ExplanationScope",
    "RenderedPage",
    "Worksheet",
    "explain_query",
    "render_page",
    "steps_to_blank",
]
