"""`attncli.judge_tolerance(problem, rtol=…, atol=…)`: which wrong answers a test with this tolerance would pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self, Unpack

from attncli.api.keywords import optional_text, parse_keywords, spelled_for_python
from attncli.api.sources import to_problem
from attncli.check.call import require_tolerance
from attncli.check.text_report import TextReport
from attncli.errors import InputError, OptionError
from attncli.pipeline import load_engine
from attncli.text import quote_value
from attncli.tolerance import Tolerance, ToleranceJudgement

if TYPE_CHECKING:
    from attncli.api.types import SharedOptions, Source, VariantLike
    from attncli.output_formats import RenderOptions


@dataclass(frozen=True, repr=False)
class ToleranceReport(TextReport, ToleranceJudgement):
    """The answer to: would this tolerance notice wrong work on this problem? It shows itself.

    report = attncli.judge_tolerance(problem, rtol=1e-2, atol=1e-2, mask="causal")
    report.is_tight        # True or False
    report.passed          # the names of the wrong answers that it would pass
    report.loosest         # the loosest that would notice them: .rtol, .atol
    report.assert_tight()  # raises AssertionError; its message is the report
    """

    def __bool__(self) -> bool:
        """Whether every wrong answer would be noticed, so that `assert judge_tolerance(…)` fails where one would not."""
        return self.is_tight

    def assert_tight(self) -> None:
        """Do nothing if every wrong answer would be noticed.

        Raises:
            AssertionError: one would pass; the message is the report.
        """
        if not self.is_tight:
            raise AssertionError(f"\n{self}")

    def _views(self) -> Mapping[str, Callable[[Self, RenderOptions], str]]:
        from attncli.views.verdicts.tolerances import TOLERANCE_VIEWS

        return TOLERANCE_VIEWS


@spelled_for_python
def judge_tolerance(
    problem: Source | None = None,
    variant: VariantLike | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    matched: float = 1.0,
    step: str | None = None,
    **options: Unpack[SharedOptions],
) -> ToleranceReport:
    """Say which wrong answers to a problem a tolerance would pass, and what would tell them from right ones.

        attncli.judge_tolerance(attncli.Problem(q=q, k=k, v=v), rtol=1e-2, atol=1e-2, mask="causal").assert_tight()

    Args:
        problem: as in `attend`: inputs like those of the test.
        variant: as in `attend`.
        rtol: the relative part of the tolerance: |Δ| ≤ atol + rtol·|reference|.
        atol: the absolute part.
        matched: the share of the figures that must be within it.
        step: the step that the test compares; the last one, unless it is given.
        options: as in `attend`.

    Returns:
        The report: `is_tight`, `passed`, `loosest`, `assert_tight()`, and all that `attn check --json` holds.

    Raises:
        OptionError, InputError: as `attend`; or there is no tolerance, or no such step.
    """
    from attncli.check.tolerances import judge_tolerance_task, prepare_judgement
    from attncli.validation import validate

    parts = require_tolerance("rtol", rtol), require_tolerance("atol", atol)
    if parts == (None, None):
        raise OptionError("missing-option", "no tolerance is given that could be judged", help="rtol=1e-2, atol=1e-2")
    share = require_tolerance("matched", matched)
    if not share or share > 1:
        message = f"matched takes a share of the figures, above 0 and up to 1, not {quote_value(matched)}"
        raise OptionError("bad-option", message, help="matched=0.95")
    tolerance = Tolerance(parts[0] or 0.0, parts[1] or 0.0, share)
    keywords = parse_keywords(options, variant)
    source = validate(
        to_problem(problem, keywords.fields, keywords.read_options, has_read_options=keywords.has_read_options)
    )
    chosen = keywords.request.resolve_variant(source.variant)
    try:
        task = prepare_judgement(source, chosen, tolerance, step=optional_text("step", step))
    except InputError as error:
        raise error.add_location(file=source.source) from None
    load_engine(owns_process=False)
    judgement = judge_tolerance_task(task)
    return ToleranceReport(**{item.name: getattr(judgement, item.name) for item in fields(judgement)})
