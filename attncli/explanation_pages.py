"""The pages of `attn explain`: planned before torch is loaded, then computed and rendered one by one. Entries: `plan_pages`, `PlannedPages`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attncli.errors import InputError, OptionError
from attncli.request import OutputOptions, VariantRequest
from attncli.text import join_names

if TYPE_CHECKING:
    from attncli.output_formats import RenderOptions
    from attncli.pipeline import RunPlan
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Problem
    from attncli.views.explain import ExplanationScope, RenderedPage


@dataclass(frozen=True)
class PageRequest:
    """What is asked of a page, or of a folder of pages."""

    blank_steps: tuple[
        str, ...
    ] = ()  # steps whose numbers are gaps of a worksheet; `all` and `shown` stand for several
    show_answers: bool = False
    gradient_source: object = None  # of the context: `ones`, a file or an array; None: there is no way back
    seeds: tuple[int, ...] = ()  # a page for each; none: the seed of the variant
    has_reasons: bool = False  # every step says why it is taken
    title: str = ""  # of each page; empty: it names the query
    check_words: tuple[str, ...] = ("INPUT", "--figures", "SHEET")  # of `attn check`, before what is computed


@dataclass(frozen=True)
class PlannedPages:
    """The pages of one seed: they share a plan, which is computed once."""

    plan: Plan
    scopes: tuple[ExplanationScope, ...]  # one for each page
    seed: int | None  # that was asked for by --seeds
    upstream_gradient: object = None
    check_command: str = ""  # that marks a worksheet, with all that the sheet is made with

    @property
    def names(self) -> tuple[str, ...]:
        """`seed-7`, `query-2` or `seed-7-query-2`: what tells a page from the others."""
        seed = [] if self.seed is None else [f"seed-{self.seed}"]
        has_several = len(self.scopes) > 1 or self.seed is None
        return tuple("-".join([*seed, *([f"query-{s.query}"] if has_several else [])]) for s in self.scopes)

    def render(
        self,
        engine: RunPlan,
        warn: Callable[[str], None],
        render_options: RenderOptions,
        *,
        answers: tuple[bool, ...],
        told_warnings: set[str],
    ) -> Iterator[tuple[RenderedPage, ...]]:
        """Compute the plan, and render every page: blank, filled in, or both, as `answers` says.

        `warn` is called with each warning that is not among those told already, to which it is added.

        Raises:
            OptionError: a worksheet would have no gap.
        """
        from attncli.derivation import recording_intermediates
        from attncli.views.explain import Worksheet, explain_query, render_page

        with recording_intermediates():
            if self.upstream_gradient is None:
                attention, gradients = engine(self.plan), None
            else:
                from attncli.core.gradients import run_plan_with_gradients

                attention, gradients = run_plan_with_gradients(self.plan, self.upstream_gradient)
        for warning in attention.warnings:
            if warning not in told_warnings:
                warn(warning)
                told_warnings.add(warning)
        for scope in self.scopes:
            page = explain_query(self.plan, attention, scope, gradients)
            full = scope.shows_whole_vectors
            rendered = tuple(
                dataclasses.replace(
                    render_page(page, render_options, Worksheet(scope.blank_steps, show), attention.dtype, full=full),
                    check_command=self.check_command,
                )
                for show in answers
            )
            if scope.blank_steps and not rendered[0].formatter.gap_numbers:
                steps = join_names(scope.blank_steps)
                raise OptionError(
                    "bad-option", f"this page shows no number of {steps}, so there is nothing to leave blank"
                )
            yield rendered


def plan_pages(
    problem: Problem,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    request: PageRequest,
    seed: int | None,
) -> PlannedPages:
    """Plan the pages of one seed, and refuse whatever can be refused, before torch.

    Raises:
        OptionError, InputError: it cannot be computed, or not be left blank.
    """
    from attncli.plan import finish_plan, outline_plan
    from attncli.select import Selectable, resolve_selection
    from attncli.views.explain import ExplanationScope

    variant = variant_request.resolve_variant(problem.variant).replace(schedule="dense")
    if seed is not None:
        variant = variant.replace(seed=seed)
    plan = outline_plan(problem, variant)
    if seed is not None and not plan.draws_from_seed:
        message = "nothing is drawn from the seed here, so the pages of all seeds would be the same"
        raise OptionError(
            "bad-option", message, help="--projection randn, without a seed= of its own, draws W_q, W_k and W_v"
        )
    requests = output_options.at
    if plan.size.batch is not None and not any(request.startswith("batch=") for request in requests):
        requests = ("batch=0", *requests)
    selection = resolve_selection(Selectable.of_plan(dataclasses.replace(plan, keep=frozenset({"weights"}))), requests)
    if len(selection.get("batch", (0,))) != 1:
        batch = selection["batch"][0]
        raise OptionError("bad-option", "one batch is explained at a time", help=f"--at batch={batch}")
    gaps = _find_gaps(request.blank_steps, plan)
    upstream_gradient = read_upstream_gradient(request.gradient_source, plan)
    queries = selection.get("query", (plan.size.queries - 1,))
    scopes = tuple(
        ExplanationScope(
            query=query,
            batch=selection.get("batch", (0,))[0],
            heads=_choose_heads(plan, selection, gaps),
            keys=selection.get("key"),
            blank_steps=gaps,
            full=output_options.full,
            has_reasons=request.has_reasons,
            title=request.title,
        )
        for query in queries
    )
    if gaps and "key" in selection and scopes[0].shows_every_key:
        message = f"a worksheet that leaves {join_names(gaps)} blank needs every key, whose numbers are added up"
        raise OptionError("bad-option", message, help="leave --at key out")
    needs_all_queries = upstream_gradient is not None or len(queries) > 1 or "positioned_embeddings" in gaps
    plan = finish_plan(plan, None if needs_all_queries else {"query": queries})
    if variant_request.settings:
        plan = dataclasses.replace(
            plan, settings=variant_request.used_settings(problem.variant, overruled=("schedule",))
        )
    options = variant.replace(seed=plan.variant.seed).spell_options()
    check_command = f"attn check {shlex.join(request.check_words)} {options}".rstrip()
    return PlannedPages(plan, scopes, seed, upstream_gradient, check_command)


def _find_gaps(blank_steps: tuple[str, ...], plan: Plan) -> frozenset[str]:
    """Find the steps whose numbers are left blank; those that hold the same numbers are left blank together.

    Raises:
        OptionError, InputError: a step does not exist here, or came in as it is.
    """
    from attncli.plan.steps import resolve_keep
    from attncli.views.explain import CONTEXT_STEPS, EXPONENTIALS, steps_to_blank

    names = [name for name in blank_steps if name != EXPONENTIALS]
    named = frozenset(name for name in names if name not in ("all", "shown"))
    gaps = frozenset(resolve_keep(names, plan.steps, None))
    can_be_blank = steps_to_blank(plan)
    if given := named & {"q", "k", "v"} - can_be_blank:
        message = f"{join_names(sorted(given))} came in as given: there is nothing to work out"
        raise OptionError("bad-option", message, help="leave a later step blank, such as scores")
    gaps &= can_be_blank | named
    if EXPONENTIALS in blank_steps:
        if not plan.variant.normalizer.traits.is_exponential:
            raise InputError("absent-step", f"{plan.variant.normalizer.name} has no exponentials")
        if not gaps:
            message = "a gap has a number by which it is marked, but the exponentials have none"
            raise OptionError("bad-option", message, help="--blank exponentials,weights")
        gaps |= {EXPONENTIALS}
    if gaps & CONTEXT_STEPS:
        gaps |= CONTEXT_STEPS & set(plan.steps)
    return gaps


def _choose_heads(plan: Plan, selection: Selection, gaps: frozenset[str]) -> tuple[int, ...]:
    """Choose the heads of a page: those asked for, or the first; all where a gap is worked out from all of them.

    Raises:
        OptionError: some were asked for, and all are needed.
    """
    from attncli.views.explain import CONTEXT_STEPS

    norm = plan.variant.qk_norm
    is_across_heads = norm.traits.is_across_heads is not None and norm.traits.is_across_heads(norm)
    needs_all = bool(gaps) and (is_across_heads or not plan.variant.head_mixing.is_none)
    heads = tuple(range(plan.shapes.heads))
    if "head" not in selection:
        return heads if needs_all or gaps & CONTEXT_STEPS else (0,)
    if needs_all and set(selection["head"]) != set(heads):
        raise OptionError(
            "bad-option",
            "here a head is worked out from all heads",
            help="a worksheet shows them all: leave --at head out",
        )
    return tuple(selection["head"])


def read_upstream_gradient(gradient_source: object, plan: Plan) -> object:
    """Read the gradient that arrives at the context: 1.0 for `ones`, or the array of a file, or an array as it is.

    Raises:
        OptionError: it is neither `ones` nor a file.
        InputError: there is no context, or the array has another shape.
    """
    from attncli.readers.with_field import read_single_array
    from attncli.types import Field
    from attncli.validation.fields import validate_array

    if gradient_source is None:
        return None
    if "context" not in plan.steps:
        raise InputError("absent-step", "without values there is no context, and nothing to go back from")
    path = gradient_source if isinstance(gradient_source, str) else ""
    if path == "ones":
        return 1.0
    if path and not Path(path).suffix and not _is_there(path):
        raise OptionError("bad-option", f"--grad takes ones or a file, not {path!r}")
    shape = tuple(plan.axis_length("context", axis) for axis in plan.steps["context"])
    gradient = read_single_array(path) if path else validate_array(gradient_source, Field("gradient", "floats", ("*",)))
    if tuple(gradient.shape) != shape:
        message = f"the gradient has shape {tuple(gradient.shape)}, but the context {shape}"
        hint = "--grad ones, or a gradient of the context's shape"
        raise InputError("shape-mismatch", message, help=hint).add_location(file=path)
    return gradient


def _is_there(path: str) -> bool:
    """Whether there is a file of that name, or anything else."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
