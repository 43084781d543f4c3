"""Preparing a check: problem × variant × figures → `CheckTask`. Everything that can be refused is refused here, without torch."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from attncli.check.claims import Claim, assign_steps, largest_claimed_rank, make_claims
from attncli.check.figures import Figures
from attncli.check.gradients import resolve_out, take_upstream, with_claimed_gradients, with_known_names
from attncli.check.rules import choose_rule
from attncli.check.trials import finish_edited_plan
from attncli.errors import InputError, OptionError
from attncli.plan import Plan, outline_plan
from attncli.types import Json, Problem
from attncli.validation.fields import as_numpy, is_tensor
from attncli.variant import CHOICES, Variant
from attncli.verdict import Rule

# What the reference is computed with, whatever is chosen.
OVERRULED_CHOICES: Mapping[str, str | None] = {"dtype": "float64", "device": "cpu", "schedule": None}


class CheckOptions(TypedDict, total=False):
    """What can be told of figures besides what their file tells."""

    step: str | None  # the step they are of, or the one of theirs that is checked
    layout: str | None  # how arrays with heads lie
    rule: str | None  # when a figure is right
    rtol: float | None
    atol: float | None


@dataclass(frozen=True)
class CheckTask:
    """Claims that match a plan, each with its rule: nothing is left to refuse."""

    plan: Plan
    figures: Figures
    claims: tuple[Claim, ...]
    rules: tuple[Rule, ...]
    top: int | None  # how many ranks are claimed
    open_gaps: tuple[Claim, ...] = ()  # gaps of a worksheet that were left open
    warnings: tuple[str, ...] = ()


def prepare(
    problem: Problem,
    variant: Variant,
    figures: Figures,
    *,
    step: str | None = None,
    layout: str | None = None,
    rule: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> CheckTask:
    """Find which cells are claimed, and by which rule each claim is judged; this loads no torch.

    Raises:
        OptionError: a figure's step is not known, or is none.
        InputError: the figures do not go with the problem.
    """
    with _errors_in(figures.name):
        figures, upstream = take_upstream(with_known_names(figures))
        figures, step_figures = assign_steps(figures, step)
    top = largest_claimed_rank((*step_figures, *figures.open_gaps))
    variant_in_float64 = variant.replace(**OVERRULED_CHOICES)
    plan = finish_edited_plan(outline_plan(with_numpy_arrays(problem), variant_in_float64, (), top=top))
    open_gaps: tuple[Claim, ...] = ()
    with _errors_in(figures.name), np.errstate(all="ignore"):
        step_figures = resolve_out(step_figures, plan)
        plan = with_claimed_gradients(plan, step_figures, upstream, figures, layout)
        claims = make_claims(figures, step_figures, plan, layout)
        if figures.open_gaps:
            open_gaps = make_claims(dataclasses.replace(figures, open_gaps=()), figures.open_gaps, plan, None)
    warnings = list(plan.warnings)
    if variant.seed is None and plan.variant.seed is not None:
        warnings.append("drawn-seed: parameters are drawn and no seed is given, so no figures can be right: --seed N")
    seeded = variant.replace(seed=plan.variant.seed)
    if figures.options is not None and not _chooses(figures.options, seeded):
        made, marked = (
            f"with {text}" if text else "without options" for text in (figures.options, seeded.spell_options())
        )
        message = (
            f"the worksheet was made {made}, but is marked here {marked}; its last line is the command that marks it"
        )
        warnings.append(f"other-options: {message}")
    return CheckTask(
        plan=dataclasses.replace(
            plan, keep=frozenset(claim.step for claim in (*claims, *open_gaps)), settings=settings or {}
        ),
        figures=figures,
        claims=claims,
        rules=tuple(choose_rule(claim, rule, rtol, atol) for claim in claims),
        top=top,
        open_gaps=open_gaps,
        warnings=tuple(warnings),
    )


def _chooses(options: str, variant: Variant) -> bool:
    """Tell whether options, as a worksheet spells them, choose a variant; what cannot be read is no other."""
    words = shlex.split(options)
    names = {choice.flag: choice.name for choice in CHOICES.values()} | {"--variant": "name"}
    if len(words) % 2 or not names.keys() >= {*words[::2]}:
        return True
    try:
        other = Variant(**{names[flag]: value for flag, value in zip(words[::2], words[1::2], strict=True)})
    except OptionError:
        return True
    ignored = ("name", "device", "dtype", "schedule")
    described = ({k: v for k, v in one.describe().items() if k not in ignored} for one in (other, variant))
    return next(described) == next(described)


@contextmanager
def _errors_in(name: str) -> Iterator[None]:
    """Say of an input error raised in the block that it is in the file of figures."""
    try:
        yield
    except InputError as error:
        raise error.add_location(file=name) from None


def with_numpy_arrays(problem: Problem) -> Problem:
    """Return the same problem with its tensors in numpy."""
    fields: Json = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
    arrays: Json = {name: _to_numpy(x) for name, x in fields.items() if name not in ("variant", "about")}
    return dataclasses.replace(problem, **arrays)


def _to_numpy(value: object) -> object:
    """Convert a tensor, or the tensors of a mapping, to numpy; float16 to float32."""
    if isinstance(value, Mapping):
        return {key: _to_numpy(inner) for key, inner in value.items()}
    if not is_tensor(value):
        return value
    array = as_numpy(value)
    return array.astype("float32") if array.dtype == "float16" else array
