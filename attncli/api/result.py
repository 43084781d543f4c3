"""The result that Python gets: `Result`, an `Attention` that shows, writes and explains itself."""

from __future__ import annotations

import json
from collections.abc import KeysView
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from attncli.api.attributes import find_other_attribute
from attncli.api.keywords import optional_word, spelled_for_python
from attncli.errors import InputError, UnknownAttributeError
from attncli.text import closest, printable, quote_value
from attncli.types import Attention, Problem, Step
from attncli.variant import Variant

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,unused-ignore]
    import polars
    import xarray  # type: ignore[import-not-found,unused-ignore]

    from attncli.api.explain import Explanation
    from attncli.api.plot import Figure
    from attncli.api.types import ArrayLike, PageFormat, Path, Selections, Steps, TextFormat
    from attncli.output_formats import FigureKind, FigureStyle
    from attncli.plan import Plan

_WIDTH = 100  # columns of what `print` shows
_MAX_SHOWN_TOKENS = 8  # of an axis, in what `repr` returns


@dataclass(frozen=True, repr=False, eq=False)
class Result(Attention):
    """A result: the steps that were kept, in order of computation, and what they were computed from.

        result["weights"].values        # the array; also .axes, .formula, and numpy.asarray(result["weights"])
        print(result)                   # the tables of `attn compute`
        result.save("weights.json")     # any format of `attn compute -o`
        result.explain("shiny")         # the page of `attn explain`
        result.plot()                   # the figure of `attn plot`

    Steps are items, so that no step hides a method: `result["weights"]`, `"weights" in result`, `for step in result`. Indices count
    from 0; rows are queries, columns are keys.
    """

    problem: Problem | None = field(default=None, compare=False)  # what it was computed from
    settled_variant: Variant | None = field(default=None, compare=False)  # with everything that the problem decides

    def keys(self) -> KeysView[str]:
        """Return the names of the steps, in order of computation."""
        return {step.name: step for step in self.steps}.keys()

    def __len__(self) -> int:
        """Return how many steps there are."""
        return len(self.steps)

    def __getattr__(self, name: str) -> object:
        """Say how a step is spelled, or which attribute is meant.

        Raises:
            UnknownAttributeError: always; Python knows it as AttributeError.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        message = f"a result has no attribute {quote_value(name)}"
        other = find_other_attribute(name)
        if other:
            raise UnknownAttributeError("unknown-attribute", message, help=other)
        steps = {step.name: step for step in self.__dict__.get("steps", ())}
        match = name if name in steps else closest(name, [*steps, *dir(type(self))])
        if match in steps:
            help = f"a step is an item: result[{match!r}].values"
        elif match:
            help = f"did you mean {match!r}?"
        else:
            help = "steps are items: result['weights']; dir(result) lists the rest"
        raise UnknownAttributeError("unknown-attribute", message, help=help)

    def __getstate__(self) -> dict[str, object]:
        """Return what travels to another process: which keys are hidden is found anew there."""
        return {**self.__dict__, "hidden_keys": self.hidden_keys is not None}

    def __setstate__(self, state: dict[str, object]) -> None:
        hidden_keys = None
        if state["hidden_keys"]:
            from attncli.plan import outline_plan
            from attncli.plan.hidden_keys import PlannedHiddenKeys

            problem, variant = state["problem"], state["settled_variant"]
            assert isinstance(problem, Problem)
            assert isinstance(variant, Variant)
            hidden_keys = PlannedHiddenKeys(outline_plan(problem, variant))
        self.__dict__.update(state | {"hidden_keys": hidden_keys})

    # ── to look at ───────────────────────────────────────────────────────────────────────────────
    def __str__(self) -> str:
        """Return the tables, as on a terminal of 100 columns: what is longer is abbreviated; `to_text` leaves nothing out."""
        from attncli.output_formats import RenderOptions

        text = "".join(_pieces(self, "table", RenderOptions(width=_WIDTH)))
        return text + "".join(f"\n{_spell_warning(warning)}" for warning in self.warnings)

    def __repr__(self) -> str:
        """Return a few lines: what was computed, the tokens, and each step with its axes and first numbers."""
        head = f"<Result: {' · '.join(map(printable, self.summary))}>"
        labels = [
            f"  {axis}: {_shorten_labels(tokens, self.at.get(axis))}"
            for axis, tokens in (("query", self.tokens), ("key", self.k_tokens))
        ]
        return "\n".join(
            [
                head,
                *labels,
                *_align(list(map(_describe_step, self.steps))),
                *(f"  {_spell_warning(w)}" for w in self.warnings),
            ]
        )

    def _repr_html_(self) -> str:
        """Return the tables for a notebook: without scripts; tokens are text, never markup; long ones are abbreviated."""
        from attncli.views.html import write_html_tables

        return write_html_tables(self, notes=self.problem.notes if self.problem else ())

    @spelled_for_python
    def to_text(self, format: TextFormat = "table", *, precision: int = 4) -> str:
        """Return the whole result as text, nothing left out.

        Args:
            format: table, plain, markdown, latex, csv, tsv, json or ndjson.
            precision: digits after the point, where people read.

        Raises:
            OptionError: there is no such format, or it is binary.
        """
        return _to_text(self, format, precision)

    # ── for programs ─────────────────────────────────────────────────────────────────────────────
    def to_json(self) -> str:
        """Return one line of JSON, the schema attn.result/1: each step is a key; numbers read back to the same value."""
        return _to_text(self, "ndjson").rstrip("\n")

    def to_dict(self) -> dict[str, object]:
        """Return what `to_json` holds as plain values, which `json.dumps` takes: arrays are lists, what is not finite is a text."""
        record: dict[str, object] = json.loads(self.to_json())
        return record

    @spelled_for_python
    def to_pandas(self, step: str | None = None) -> pandas.DataFrame:
        """Return a step as a data frame of pandas, its rows and columns labelled by tokens; or all steps, a row for each number.

        Args:
            step: its name: the last axis makes the columns, those before it the index. None: one row for each number of every
                step, with the columns of `attn compute --tidy`.

        Raises:
            AbsentStepError: the result does not hold the step.
            CannotError: pandas is not installed.
        """
        from attncli.api.tables import make_pandas_frame

        return make_pandas_frame(self, step)

    @spelled_for_python
    def to_polars(self, step: str | None = None) -> polars.DataFrame:
        """Return a row for each number, of one step or of all, as a data frame of Polars.

        Raises:
            AbsentStepError: the result does not hold the step.
        """
        from attncli.api.tables import make_polars_frame

        return make_polars_frame(self, step)

    @spelled_for_python
    def to_xarray(self, step: str | None = None) -> xarray.DataArray:
        """Return a step as a `DataArray` of xarray: its axes by name, with indices and tokens as coordinates.

        Args:
            step: its name; a result of one step has no other.

        Raises:
            OptionError: no step is named, and the result holds several.
            AbsentStepError: the result does not hold the step.
            CannotError: xarray is not installed.
        """
        from attncli.api.tables import make_data_array

        return make_data_array(self, step)

    @spelled_for_python
    def save(
        self,
        path: Path,
        *,
        format: str | None = None,
        force: bool = False,
        precision: int = 4,
        bare: bool = False,
        tidy: bool = False,
        standalone: bool = False,
    ) -> None:
        """Write the result to a file, which appears whole or not at all: `attn compute -o`.

        Args:
            path: the file; its suffix chooses the format: .json, .ndjson, .csv, .tsv, .npz, .safetensors, .parquet, .feather,
                .md, .tex, .txt.
            format: the name of the format, where the suffix does not say it.
            force: replace the file if it exists.
            precision: digits after the point, where people read.
            bare: JSON without the fields that are the same in every record.
            tidy: CSV or Parquet with one row for each number, even of a single step.
            standalone: LaTeX as a whole document.

        Raises:
            OptionError: the file exists, or its suffix names no format.
            CannotError: it cannot be written.
        """
        from attncli.api.write import write

        write(self, path, format=format, force=force, precision=precision, bare=bare, tidy=tidy, standalone=standalone)

    @spelled_for_python
    def plot(
        self,
        steps: Steps | None = None,
        *,
        kind: FigureKind | None = None,
        width: str | None = None,
        dpi: int = 200,
        style: FigureStyle = "light",
        cmap: str | None = None,
        title: str = "",
    ) -> Figure:
        """Draw a figure, which a notebook shows and its `save` writes: `attn plot`.

        Args:
            steps: which are drawn; None: the weights; "all": every step that the result holds.
            kind: heat maps ("heat"), bars of where one query looks ("flow"), or two heads against each other ("heads"); None: flow
                for a single query, else heat.
            width: with its unit: "8.5cm", "85mm", "3.4in", "240pt"; None: as the cells need it.
            dpi: pixels per inch.
            style: the ground: light or dark.
            cmap: a colour map of matplotlib: "viridis"; None: the style's own.
            title: above the figure.

        Raises:
            OptionError: an option cannot be.
            InputError: the result lacks a step, or no figure can show it.
            CannotError: matplotlib is not installed.
        """
        from attncli.api.plot import plot_result

        return plot_result(self, steps, kind, width, dpi, style, cmap, title)

    @spelled_for_python
    def explain(
        self,
        query: str | int | None = None,
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
    ) -> Explanation:
        """Work out one query, every multiplication from its vector to its context: `attn explain`.

        The numbers are computed anew from the arrays of the problem, as they are now.

        Args:
            query: its token or index; None: the last.
            at: which batch item, heads and keys: {"head": 1}.
            why: say why each step is taken.
            blank: steps whose numbers are left blank, for a worksheet.
            answers: the same sheet with its gaps filled in.
            grad: the gradient that arrives at the context, "ones" or an array of its shape: then the way back, too.
            full: show every number.
            title: of the page; empty: it names the query.
            precision: digits after the point.
            format: table, plain, markdown, latex or json.

        Raises:
            OptionError, InputError: there is no such query or step.
        """
        from attncli.api.explain import explain_problem

        if self.problem is None or self.settled_variant is None:
            raise InputError(
                "missing-field", "this result does not know its problem", help="attncli.explain(problem, query)"
            )
        return explain_problem(
            self.problem,
            self.settled_variant,
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


def make_result(attention: Attention, plan: Plan) -> Result:
    """Return a result that knows what it was computed from."""
    own = {item.name: getattr(attention, item.name) for item in _ATTENTION_FIELDS}
    return Result(**own, problem=plan.problem, settled_variant=plan.variant)


_ATTENTION_FIELDS = fields(Attention)


def _pieces(attention: Attention, format_name: str, render_options: object) -> list[str]:
    from attncli.output_formats import RenderOptions, load_output_format

    assert isinstance(render_options, RenderOptions)
    content = load_output_format(format_name).write(attention, render_options)
    return [content] if isinstance(content, str) else [str(piece) for piece in content]


def _to_text(attention: Attention, format_name: str, precision: int = 4) -> str:
    from attncli.api.write import make_render_options
    from attncli.output_formats import FORMAT_MODULES, choose_output_format

    optional_word("format", format_name, FORMAT_MODULES, "unknown-format")
    format = choose_output_format(None, format_name)
    return "".join(_pieces(attention, format.name, make_render_options(precision=precision)))


def _spell_warning(warning: str) -> str:
    code, _, message = warning.partition(": ")
    return f"warning[{code}]: {printable(message)}"


def _shorten_labels(tokens: tuple[object, ...], selected: tuple[int, ...] | None) -> str:
    """`0 the, 1 cat … 9 mat`; of a batch the first item's, and how many there are."""
    from attncli.views.cell_formats import index_and_token

    if tokens and isinstance(tokens[0], tuple):
        return f"{_shorten_labels(tokens[0], selected)} ({len(tokens)} batch items)"
    texts = list(map(index_and_token, range(len(tokens)) if selected is None else selected, tokens))
    if len(texts) > _MAX_SHOWN_TOKENS:
        return f"{', '.join(texts[: _MAX_SHOWN_TOKENS // 2])} … {', '.join(texts[-2:])}"
    return ", ".join(texts)


def _describe_step(step: Step) -> tuple[str, str, str]:
    """`weights`, `query 3 × key 3`, `1.0000, 0.0000 … 0.7361`"""
    from attncli.arrays import as_numpy
    from attncli.views.cell_formats import choose_number_format

    values = as_numpy(step.values)
    sizes = " × ".join(f"{axis} {n}" for axis, n in zip(step.axes, values.shape, strict=True))
    numbers = values.reshape(-1)
    shown = numbers if numbers.size <= 3 else numbers[[0, 1, -1]]
    texts = choose_number_format(shown, 4).format(shown)
    return step.name, sizes, ", ".join(texts) if numbers.size <= 3 else f"{texts[0]}, {texts[1]} … {texts[2]}"


def _align(rows: list[tuple[str, str, str]]) -> list[str]:
    """Lines of columns, two spaces apart."""
    name_width, size_width = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
    return [f"  {name:<{name_width}}  {sizes:<{size_width}}  {numbers}" for name, sizes, numbers in rows]
