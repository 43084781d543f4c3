"""Compute the attention of whatever is given: `attend`, and `read` for a file alone."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Unpack

from attncli.api.keywords import parse_keywords, parse_selections, parse_steps, parse_top, spelled_for_python
from attncli.api.result import Result, make_result
from attncli.api.sources import to_problem
from attncli.errors import OptionError
from attncli.pipeline import apply_selection, load_engine, plan_request
from attncli.request import OutputOptions
from attncli.types import Problem

if TYPE_CHECKING:
    from attncli.api.types import Options, Path, ReadingOptions, Selections, Source, Steps, VariantLike


@spelled_for_python
def attend(
    problem: Source | None = None,
    variant: VariantLike | None = None,
    keep: Steps | None = None,
    *,
    only: Steps | None = None,
    at: Selections | None = None,
    top: int | None = None,
    **options: Unpack[Options],
) -> Result:
    """Compute the attention of an array, a file, a data frame or a problem, step by step.

        attend(x, mask="causal", heads=2)
        attend("tokens.csv", variant="llama3", heads=8, kv_heads=2, only=["weights", "context"])
        attend(q=q, k=k, v=v, scale=0.5)

    Args:
        problem: embeddings (T, d) or (B, T, d) as a NumPy array, tensor, nested lists, data frame or array of another library;
            the name of a file, a `Path` or an open file; a dict of fields; or a `Problem`. Left out where q, k and v are
            given as keywords.
        variant: what to compute: a `Variant`, the name of one ("llama3") or its choices; left out, the problem's own.
        keep: names of the steps to return; left out, every step; "shown": those that the command line shows.
        only: the same, by the command line's name.
        at: part of an axis: {"query": "shiny", "head": 0, "key": slice(2, 5)}; the axis stays.
        top: also return the `top` largest weights of each query, as `top_keys` and `top_weights`.
        options: the command line's options by their names: choices (`mask="causal"`, `heads=2`, `softcap=30`, `causal=True`,
            `window=(2, 0)`, …), fields that stand beside the array (`tokens=["the", "cat"]`, `k=k`, `parameters={"w_q": w}`, …;
            a path takes the field from that file), and how a file is read (`header="no"`, `columns=["d0", "d1"]`, …).

    Returns:
        The steps, in order of computation, as arrays of the kind that came in; a tensor that requires a gradient keeps its graph.

    Raises:
        OptionError: there is no such keyword, choice or step; the nearest name is offered.
        InputError: the input cannot be read, makes no sense, or does not go with what is chosen.
        CannotError: it does not fit in memory, or the device is not available.

    Source: Vaswani et al. 2017, §3.2; every part names its own in `attn list`.
    """
    keywords = parse_keywords(options, variant)
    if keep is not None and only is not None:
        raise OptionError("bad-option", "keep and only are the same, and both are given", help="leave one of them out")
    name, wanted = ("keep", keep) if only is None else ("only", only)
    steps = ("all",) if wanted is None else parse_steps(name, wanted)
    if not steps:
        raise OptionError("bad-option", f"{name} is empty", help=f"{name}=['weights', 'context'], or {name}='all'")
    source = to_problem(problem, keywords.fields, keywords.read_options, has_read_options=keywords.has_read_options)
    output_options = OutputOptions(only=steps, at=parse_selections(at), top=parse_top(top))
    plan, selection = plan_request(source, keywords.request, output_options)
    return make_result(apply_selection(load_engine(owns_process=False)(plan), plan, selection), plan)


@spelled_for_python
def read(
    path: Path | IO[bytes] | IO[str],
    format: str | None = None,
    *,
    replacing: list[str] | tuple[str, ...] = (),
    state_dict: str | None = None,
    **options: Unpack[ReadingOptions],
) -> Problem:
    """Read a problem from a file of any input format, and validate it.

        problem = read("tokens.csv", header="no")

    Args:
        path: the file's name, a `Path`, `-` for standard input, or an open file.
        format: the name of its format, where the suffix does not say it.
        replacing: `name=path` pairs; each takes one field from another file (`--with`).
        state_dict: `file:prefix`; the learned arrays of one layer of a checkpoint (`--from-state-dict`).
        options: `token_column`, `columns`, `drop`, `header` and `separator`, for tables.

    Returns:
        The problem. Its `notes` say what was found in the file.

    Raises:
        OptionError: the format is not known, or an option is misspelt.
        InputError: the file cannot be read or makes no sense; with its place.
    """
    from attncli.api.sources import read_file

    named = {"input_format": format, "from_state_dict": state_dict}
    keywords = parse_keywords(options | {name: value for name, value in named.items() if value is not None})
    return read_file(path, keywords, tuple(replacing))
