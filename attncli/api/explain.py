"""One query worked out, as text that shows itself: `explain`, and the `Explanation` it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

from attncli.api.keywords import (
    optional_text,
    optional_word,
    parse_keywords,
    parse_query,
    parse_selections,
    parse_steps,
    require_flag,
    spelled_for_python,
)
from attncli.api.sources import to_array, to_problem
from attncli.api.write import make_render_options
from attncli.errors import AttnError, ExitStatus, OptionError
from attncli.explanation_pages import PageRequest, plan_pages
from attncli.pipeline import load_engine
from attncli.request import OutputOptions, VariantRequest
from attncli.types import Problem
from attncli.variant import Variant

if TYPE_CHECKING:
    from attncli.api.types import ArrayLike, Options, PageFormat, Selections, Source, Steps, VariantLike


class Explanation(str):
    """The page of one query, as text: what `attn explain` prints. A notebook shows it as it is laid out."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the page itself, so that a prompt shows it line by line."""
        return str(self)

    def _repr_html_(self) -> str:
        from attncli.views.html import write_html_text

        return write_html_text(self)


@spelled_for_python
def explain(
    problem: Source | None = None,
    query: str | int | None = None,
    variant: VariantLike | None = None,
    *,
    at: Selections | None = None,
    why: bool = False,
    blank: Steps | None = None,
    answers: bool = False,
    grad: ArrayLike | Literal["ones"] | None = None,
    full: bool = False,
    title: str = "",
    precision: int = 4,
    format: PageFormat = "table",
    **options: Unpack[Options],
) -> Explanation:
    """Work out one query, every multiplication from its vector to its context: `attn explain`.

        print(explain("tokens.csv", "cat", mask="causal"))

    Args:
        problem: as in `attend`.
        query: its token or index; None: the last.
        variant: as in `attend`.
        at: which batch item, heads and keys: {"head": 1, "key": "sat"}.
        why: say why each step is taken.
        blank: steps whose numbers are left blank, for a worksheet: ["weights", "context"].
        answers: the same sheet with its gaps filled in.
        grad: the gradient that arrives at the context, "ones" or an array of its shape: then the way back, too.
        full: show every number.
        title: of the page; empty: it names the query.
        precision: digits after the point.
        format: table, plain, markdown, latex or json.
        options: as in `attend`.

    Returns:
        The page, a text.

    Raises:
        OptionError, InputError: as `attend`; or there is no such query or step.
    """
    keywords = parse_keywords(options, variant)
    source = to_problem(problem, keywords.fields, keywords.read_options, has_read_options=keywords.has_read_options)
    from attncli.validation import validate

    source = validate(source)
    return explain_problem(
        source,
        keywords.request,
        query,
        at=at,
        why=why,
        blank=blank,
        answers=answers,
        grad=grad,
        full=full,
        title=title,
        precision=precision,
        format=format,
    )


def explain_problem(
    problem: Problem,
    variant: Variant | VariantRequest,
    query: str | int | None,
    *,
    at: Selections | None,
    why: bool,
    blank: Steps | None,
    answers: bool,
    grad: ArrayLike | Literal["ones"] | None,
    full: bool,
    title: str,
    precision: int,
    format: str,
) -> Explanation:
    """Return the page of one query. Arguments and errors are those of `explain`."""
    from attncli.step_names import require_step_name
    from attncli.views.explain import EXPONENTIALS, RENDERERS

    optional_word("format", format, RENDERERS, "unknown-format")
    flags = [require_flag(name, value) for name, value in (("why", why), ("answers", answers), ("full", full))]
    blank_steps = parse_steps("blank", blank)
    for name in blank_steps:
        if name not in ("all", "shown", EXPONENTIALS):
            require_step_name(name)
    if answers and not blank_steps:
        raise OptionError("bad-option", "answers fills a worksheet in", help="add blank=['weights']")
    if blank_steps and grad is not None:
        raise OptionError("bad-option", "a worksheet covers the forward pass only", help="leave grad out, or blank")
    query = parse_query(query)
    selections = (*parse_selections(at), *(() if query is None else (f"query={query}",)))
    gradient = grad if grad is None or isinstance(grad, str) else to_array("gradient", grad)
    request = PageRequest(
        blank_steps, flags[1], gradient, has_reasons=flags[0], title=optional_text("title", title) or ""
    )
    variant_request = variant if isinstance(variant, VariantRequest) else VariantRequest(variant=variant)
    try:
        planned = plan_pages(problem, variant_request, OutputOptions(at=selections, full=flags[2]), request, None)
    except AttnError as error:
        raise error.add_location(file=problem.source) if error.status == ExitStatus.INPUT else error from None
    if len(planned.scopes) != 1:
        hint = f"at={{'query': {planned.scopes[0].query}}}"
        raise OptionError("bad-option", "one query is explained at a time", help=hint)
    render_options = make_render_options(precision=precision)
    engine = load_engine(owns_process=False)
    [[page]] = planned.render(
        engine, lambda _: None, render_options, answers=(request.show_answers,), told_warnings=set()
    )
    return Explanation(RENDERERS[format](page, render_options))
