"""`attncli.check(problem, figures)`: figures in memory, or in a file, against whatever `attend` takes. Entry: `check_figures`.

Beside what `check_prepared` finds, a `Report` shows itself: as text, in a notebook, as the message of a failed assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Self, Unpack

from attncli.api.keywords import is_path, optional_text, optional_word, parse_keywords, require_flag, spelled_for_python
from attncli.api.sources import to_array, to_problem
from attncli.check.figures import Figures
from attncli.check.text_report import TextReport
from attncli.errors import InputError, OptionError, UnknownAttributeError
from attncli.pipeline import load_engine
from attncli.step_names import UPSTREAM_NAMES, find_figure_name
from attncli.text import closest, join_names, quote_value
from attncli.types import Attention, Problem, Step
from attncli.verdict import Verdict

if TYPE_CHECKING:
    from attncli.api.types import FigureSource, SharedOptions, Source, VariantLike
    from attncli.arrays import ArrayOrTensor
    from attncli.check.task import CheckOptions
    from attncli.output_formats import RenderOptions

_RULES = ("digits", "close", "flash")
_LAYOUTS = ("bhtd", "bthd", "htd", "thd")


@dataclass(frozen=True, repr=False)
class Report(TextReport, Verdict):
    """The answer to: are these figures right? It shows itself.

    report = attncli.check(problem, {"context": mine}, mask="causal")
    report.right            # True or False
    report.causes           # what the figures are instead, in sentences
    report.assert_right()   # raises AssertionError; its message is the report
    """

    @property
    def right(self) -> bool:
        """Whether every figure is right, and wrong ones would have been noticed."""
        return self.verdict == "right"

    @property
    def causes(self) -> tuple[str, ...]:
        """What the figures are instead: each computation that gives exactly them, in a sentence, the simplest first."""
        return tuple(diagnosis.sentence for diagnosis in self.identified)

    def __bool__(self) -> bool:
        """Whether the figures are right, so that `assert check(…)` fails where they are not."""
        return self.right

    def assert_right(self) -> None:
        """Do nothing if the figures are right.

        Raises:
            AssertionError: they are not, or could not have been found wrong; the message is the report.
        """
        if not self.right:
            raise AssertionError(f"\n{self}")

    def _views(self) -> Mapping[str, Callable[[Self, RenderOptions], str]]:
        from attncli.views.verdicts.formats import VERDICT_VIEWS

        return VERDICT_VIEWS

    def __getattr__(self, name: str) -> object:
        """Say which attribute is meant.

        Raises:
            UnknownAttributeError: always; Python knows it as AttributeError.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        names = [known for known in (*dir(type(self)), *self.__dict__) if not known.startswith("_")]
        match = closest(name, names)
        help = f"did you mean {match!r}?" if match else "right, causes, assert_right(), verdict, steps"
        raise UnknownAttributeError("unknown-attribute", f"a report has no attribute {quote_value(name)}", help=help)


@spelled_for_python
def check_figures(
    problem: Source | None = None,
    figures: FigureSource | None = None,
    variant: VariantLike | None = None,
    *,
    step: str | None = None,
    layout: Literal["bhtd", "bthd", "htd", "thd"] | None = None,
    rule: Literal["digits", "close", "flash"] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    identify: bool | None = None,
    **options: Unpack[SharedOptions],
) -> Report:
    """Compare your figures with the reference, step by step, and find out what they are where they differ: `attn check`.

        check(attncli.Problem(q=q, k=k, v=v), {"context": o, "log_sum_exp": lse}, mask="causal", layout="bthd").assert_right()

    Args:
        problem: as in `attend`. The reference is computed from it in float64.
        figures: arrays by the names of steps, of NumPy, torch or any library with `__dlpack__`; one array, whose step `step`
            names; a result; the name of a file of figures. None: what the problem says under `expected`.
        variant: as in `attend`.
        step: the step that the one array is of, or the one of the figures that is checked.
        layout: the order of the axes of arrays with heads: bhtd, bthd, htd or thd.
        rule: how close a figure must be: digits, close or flash; left out, its dtype decides.
        rtol: the relative part of the tolerance: |Δ| ≤ atol + rtol·|reference|.
        atol: the absolute part.
        identify: look for the variant that gives these figures: on a difference (None), always, or never.
        options: as in `attend`.

    Returns:
        The report: `right`, `causes`, `assert_right()`, and all that `attn check --json` holds.

    Raises:
        OptionError, InputError: as `attend`; or the figures do not go with the problem.
    """
    from attncli.check.task import prepare
    from attncli.check.verdicts import check_prepared
    from attncli.validation import validate

    check_options: CheckOptions = {
        "step": optional_text("step", step),
        "layout": optional_word("layout", layout, _LAYOUTS),
        "rule": optional_word("rule", rule, _RULES),
        "rtol": require_tolerance("rtol", rtol),
        "atol": require_tolerance("atol", atol),
    }
    if (check_options["rtol"] or check_options["atol"]) and rule not in (None, "close"):
        raise OptionError("bad-option", f"rtol and atol do not apply to rule {rule}", help="they go with rule='close'")
    if identify is not None:
        require_flag("identify", identify)
    keywords = parse_keywords(options, variant)
    source = validate(
        to_problem(problem, keywords.fields, keywords.read_options, has_read_options=keywords.has_read_options)
    )
    claimed = _to_figures(figures, source, step)
    try:
        task = prepare(source, keywords.request.resolve_variant(source.variant), claimed, **check_options)
    except InputError as error:
        raise error.add_location(file=source.source) from None
    load_engine(owns_process=False)
    verdict = check_prepared(task, identify=identify)
    return Report(**{item.name: getattr(verdict, item.name) for item in fields(verdict)})


def require_tolerance(name: str, value: object) -> float | None:
    """Return a tolerance.

    Raises:
        OptionError: it is no number ≥ 0.
    """
    if value is None:
        return None
    try:
        tolerance = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -1.0
    except OverflowError:
        tolerance = -1.0
    if not tolerance >= 0:
        raise OptionError("bad-option", f"{name} takes a number ≥ 0, not {quote_value(value)}")
    return tolerance


def _to_figures(value: object, problem: Problem, step: str | None) -> Figures:
    """Return figures, from a file, a result, arrays by step, one array, or the problem's `expected`.

    Raises:
        InputError: there are none, or they are something else.
    """
    from attncli.check.figures import figures_from_arrays, figures_from_expected, figures_from_result

    if value is None:
        if problem.expected:
            return figures_from_expected(problem.expected, problem.source or "expected")
        hint = (
            'check(problem, {"weights": mine}); or the problem says what it expects: expected={"weights": [[…]]}; '
            "judge_tolerance(problem, rtol=1e-2, atol=1e-2) takes no figures"
        )
        raise InputError("no-figures", "there is nothing to check the problem against", help=hint)
    if isinstance(value, Attention):
        return figures_from_result(value, "the result")
    if isinstance(value, Step):
        return figures_from_arrays({value.name: value.values})
    if is_path(value):
        from attncli.check.figure_files import read_figures

        return read_figures(str(value))
    if not isinstance(value, Mapping):
        if step is None:
            message = f"the figures are one {type(value).__name__}, and nothing says of which step"
            raise InputError("no-figures", message, help='check(problem, {"context": mine}), or step="context"')
        value = {step: value}
    for name in value:
        if not isinstance(name, str):
            raise InputError("wrong-type", f"figures go under the names of steps, not under {quote_value(name)}")
    return figures_from_arrays({name: _to_figure_array(name, x) for name, x in value.items()})


def _to_figure_array(name: str, value: object) -> ArrayOrTensor:
    """Return figures of one step as an array.

    Raises:
        InputError: they are no array of numbers.
    """
    import numpy as np

    if isinstance(value, int | float) and not isinstance(value, bool) and find_figure_name(name) in UPSTREAM_NAMES:
        return np.array(float(value))  # the same everywhere: of a loss that is a sum
    if isinstance(value, int | float) or value is None:
        raise InputError(
            "wrong-type", f"{name} holds {quote_value(value)}, which is not an array", help=f'{{"{name}": [[…]]}}'
        )
    if hasattr(value, "to_numpy"):  # a data frame: its numbers alone
        value = value.to_numpy()
    if isinstance(value, list | tuple):
        try:
            array = np.asarray(value)
        except ValueError:
            raise InputError(
                "ragged", f"{name}: its rows are not of one length", help="rows are never padded"
            ) from None
        return array
    try:
        return to_array(name, value)
    except InputError as error:
        if error.code == "wrong-type" and not hasattr(value, "shape"):
            known = join_names(("a NumPy array", "a tensor", "lists"), "or")
            raise InputError("wrong-type", f"{name} is {quote_value(value)}, not {known}") from None
        raise
