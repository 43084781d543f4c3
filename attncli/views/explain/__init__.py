"""`attn explain`: one query as a page of equations. `explain_query` makes the page, `render_page` and `RENDERERS` write it."""

from attncli.views.explain.build import explain_query
from attncli.views.explain.page import ExplanationPage, ExplanationScope
from attncli.views.explain.rendered_page import render_page
from attncli.views.explain.renderers import RENDERERS
from attncli.views.explain.worksheet import Worksheet

__all__ = ["RENDERERS", "ExplanationPage", "ExplanationScope", "Worksheet", "explain_query", "render_page"]
