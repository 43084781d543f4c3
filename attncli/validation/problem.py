"""Validate a whole problem: its fields one by one, and that they go together. Entry: `validate`.

After it every array is rectangular, of its kind, finite where it must be, and of a size that fits the others. What
depends on the variant (heads, parameters, positions) is checked by `plan`. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from attncli.errors import AttnError, as_input_error, input_error, json_path
from attncli.text import join_names, pluralize, quote_value, there_are
from attncli.types import FIELDS, NESTED_FIELDS, Array, Json, Problem
from attncli.validation.fields import shape_of, validate_field
from attncli.variant import Variant

_AXES_OF_LAYOUTS = {"bhtd": "BHTd", "bthd": "BTHd", "htd": "HTd", "thd": "THd"}
_LAYOUTS_WITHOUT_BATCH = ("htd", "thd")
_FIRST_FIELDS = {"memory": "embeddings", "past": "k", "parameters": "w_q"}
_MAPPINGS = {item.name for item in dataclasses.fields(Problem) if item.default_factory is dict}


def validate(problem: Problem, source: str = "", line: int | None = None) -> Problem:
    """Return the problem with every list as an array, once nothing in it is malformed.

    Args:
        problem: of lists, arrays or tensors; one that is validated already is returned as it is.
        source: the file it came from, for messages.
        line: its line there, where the file holds a problem a line.

    Raises:
        InputError: what is wrong, and its path.
    """
    if problem.validated:
        return problem
    values: Json = {"source": source, "line": line} if source else {}
    for name, value in vars(problem).items():
        if value is None or (name in _MAPPINGS and isinstance(value, Mapping) and not value):
            continue
        if name in NESTED_FIELDS:
            if not isinstance(value, Mapping):
                hint = f'name what is in it: "{name}": {{"{_FIRST_FIELDS[name]}": [[…], …]}}'
                raise input_error("wrong-type", f"{name} must be an object, not {quote_value(value)}", name, help=hint)
            values[name] = {k: validate_field(f"{name}.{k}", v) for k, v in value.items() if v is not None}
        elif name in FIELDS:
            values[name] = validate_field(name, value)
    validated = problem.with_fields(**values, validated=True)
    _check_sources(validated)
    size = problem_size(validated)
    _check_memory_batch(validated)
    _check_keys(validated, size)
    _check_labels(validated, size)
    _check_positions(validated, size)
    _check_variant(validated)
    return validated


@dataclasses.dataclass(frozen=True)
class ProblemSize:
    """How large a problem is, whatever the variant."""

    batch: int | None  # None: it has no batch axis
    queries: int
    new_keys: int
    past: int
    heads: int | None = None  # where q, k, v come in heads
    kv_heads: int | None = None

    @property
    def keys(self) -> int:
        return self.past + self.new_keys


def problem_size(problem: Problem) -> ProblemSize:
    """Read the sizes off the arrays of a validated problem."""
    past = shape_of(problem.past["k"])[2] if problem.past else 0
    if problem.embeddings is not None:
        *batch, t, _ = shape_of(problem.embeddings)
        keys = shape_of(problem.memory["embeddings"])[-2] if problem.memory else t
        return ProblemSize(batch[0] if batch else None, t, keys, past)
    q, k = shape_of(problem.q), shape_of(problem.k)
    if len(q) == 2:
        return ProblemSize(None, q[0], k[0], past)
    if problem.layout == "htd":
        return ProblemSize(None, q[1], k[1], past, q[0], k[0])
    if problem.layout == "thd":
        return ProblemSize(None, q[0], k[0], past, q[1], k[1])
    if len(q) == 3:
        return ProblemSize(q[0], q[1], k[1], past)
    t, h = (1, 2) if problem.layout == "bthd" else (2, 1)
    return ProblemSize(q[0], q[t], k[t], past, q[h], k[h])


# ── where q, k and v come from ───────────────────────────────────────────────────────────────────
def _check_sources(problem: Problem) -> None:
    """Check that queries, keys and values come from exactly one place.

    Raises:
        InputError: they come from two, or from none, or one of them is missing.
    """
    direct = [name for name in ("q", "k", "v") if getattr(problem, name) is not None]
    if problem.embeddings is None and not direct:
        raise input_error(
            "missing-field",
            "there is nothing to compute: no embeddings, and no q and k",
            help='give "embeddings": [[…], …], or q, k and v',
        )
    if problem.embeddings is not None and direct:
        raise input_error(
            "two-sources",
            f"embeddings and {join_names(direct)} are both given",
            direct[0],
            help="give either embeddings, or q, k and v that are already projected",
        )
    if direct and problem.memory is not None:
        raise input_error(
            "two-sources",
            f"memory and {join_names(direct)} are both given",
            "memory",
            help="leave memory out: k and v are already made from it",
        )
    for name in ("q", "k"):
        if direct and name not in direct:
            raise input_error(
                "missing-field",
                f"{join_names(direct)} {'is' if len(direct) == 1 else 'are'} given without {name}",
                help=f"give {name} too; only v may be left out",
            )
    if problem.memory is not None and "embeddings" not in problem.memory:
        raise input_error("missing-field", "memory has no embeddings", "memory")
    if problem.past is not None:
        _check_past(problem, problem.past)
    if direct:
        _check_ranks(problem, direct)


def _check_past(problem: Problem, past: Mapping[str, Array]) -> None:
    """Check that the cache holds k, and v if the problem has values."""
    if "v" in past and problem.embeddings is None and problem.v is None:
        raise input_error(
            "missing-field", "past has v, but there is no v", "past.v", help="give v, or leave past.v out"
        )
    needs_v = problem.v is not None or problem.embeddings is not None
    if "k" not in past or ("v" not in past and needs_v):
        raise input_error(
            "missing-field",
            f"past has no {'v' if 'k' in past else 'k'}",
            "past",
            help="past holds k and v, each (B, Hkv, P, d)",
        )


def _check_ranks(problem: Problem, direct: list[str]) -> None:
    """Check that q, k and v have as many axes as each other, and as the layout says."""
    shapes = {name: shape_of(getattr(problem, name)) for name in direct}
    if len({len(shape) for shape in shapes.values()}) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise input_error("wrong-shape", f"q, k and v have different numbers of axes: {listed}", direct[0])
    rank = 3 if problem.layout in _LAYOUTS_WITHOUT_BATCH else 4
    if problem.layout and len(shapes["q"]) != rank:
        message = f"layout {problem.layout} is for {rank} axes, but q has shape {shapes['q']}"
        hint = "bhtd and bthd are for arrays with a batch, htd and thd for arrays without; (T, d) needs no layout"
        raise input_error("wrong-shape", message, "layout", help=hint)


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────
def suggest_layout(problem: Problem, heads: int | None = None) -> str:
    """Return the other layouts in which q, k and v fit each other, and have so many heads where that is said; "" if there are none."""
    shapes = [shape_of(x) for x in (problem.q, problem.k, problem.v) if x is not None]
    fitting = []
    for layout, axes in _AXES_OF_LAYOUTS.items():
        if len(axes) != len(shapes[0]) or layout == (problem.layout or ("bhtd" if len(axes) == 4 else "")):
            continue
        sizes = [dict(zip(axes, shape, strict=True)) for shape in shapes]
        q_heads, kv_heads = sizes[0]["H"], sizes[1]["H"]
        are_alike = all(
            len({size.get(axis) for size in sizes[first:]}) == 1 for first, axis in ((0, "B"), (1, "T"), (1, "H"))
        )
        if are_alike and q_heads % kv_heads == 0 and heads in (None, q_heads):
            fitting.append(f'"layout": "{layout}" reads ({", ".join(axes)})')
    return join_names(fitting, "and")


def _suggest_layout_of(problem: Problem, tokens: int) -> str:
    """Return the layout in which q has so many tokens, where none is said; "" if there is none."""
    if problem.q is None or problem.layout:
        return ""
    shape = shape_of(problem.q)
    has_tokens_first = len(shape) > 2 and shape[-3] == tokens != shape[-2]
    return (
        f'"layout": "{"thd" if len(shape) == 3 else "bthd"}" reads ({"T" if len(shape) == 3 else "B, T"}, H, d)'
        if has_tokens_first
        else ""
    )


def _check_batch_axis(name: str, value: Array, rank_with_batch: int, size: ProblemSize, hint: str = "") -> None:
    """Check that an array, if it has a batch axis, has the problem's."""
    if value.ndim == rank_with_batch and shape_of(value)[0] != (size.batch or 1):
        expected = f"a batch of {size.batch}" if size.batch else "no batch"
        message = f"{name} has a batch of {shape_of(value)[0]}, but the problem has {expected}"
        raise input_error("batch-mismatch", message, name, help=hint)


def _check_memory_batch(problem: Problem) -> None:
    if problem.memory and shape_of(problem.memory["embeddings"])[:-2] != shape_of(problem.embeddings)[:-2]:
        shapes = f"{shape_of(problem.memory['embeddings'])} and embeddings {shape_of(problem.embeddings)}"
        raise input_error("batch-mismatch", f"memory.embeddings {shapes} have different batches", "memory.embeddings")


def _check_keys(problem: Problem, size: ProblemSize) -> None:
    """Check that k, v and the cache have the problem's batch, and v as many keys as k."""
    for name in ("k", "v"):
        value = getattr(problem, name)
        if value is None:
            continue
        if problem.layout not in _LAYOUTS_WITHOUT_BATCH:
            _check_batch_axis(name, value, max(problem.q.ndim, 3), size, suggest_layout(problem))
        tokens_first = problem.layout in ("bthd", "thd")
        key_axis = {2: 0, 3: 0 if tokens_first else 1, 4: 1 if tokens_first else 2}[problem.q.ndim]
        if shape_of(value)[key_axis] != size.new_keys:
            message = f"k has {pluralize(size.new_keys, 'key')} and v {shape_of(value)[key_axis]}"
            raise input_error("shape-mismatch", message, name)
    past = {name: x for name, x in (problem.past or {}).items() if name != "tokens"}
    for name, value in past.items():
        _check_batch_axis(f"past.{name}", value, 4, size)
        if shape_of(value)[2] != shape_of(past["k"])[2]:
            message = f"past.k {shape_of(past['k'])} and past.v {shape_of(value)} do not match"
            raise input_error("shape-mismatch", message, "past.v")


def _check_labels(problem: Problem, size: ProblemSize) -> None:
    """Check that there are as many labels as vectors, in every item of a batch."""
    counts = {
        "tokens": (size.queries, problem.tokens),
        "k_tokens": (size.keys, problem.k_tokens if problem.q is not None else None),
        "memory.tokens": (size.new_keys, (problem.memory or {}).get("tokens")),
        "past.tokens": (size.past, (problem.past or {}).get("tokens")),
    }
    for name, (count, labels) in counts.items():
        if labels is None:
            continue
        is_nested = isinstance(labels[0], tuple)
        for of_item in labels if is_nested else (labels,):
            names_new_keys = name == "k_tokens" and len(of_item) == size.new_keys
            if len(of_item) != count and not names_new_keys:
                message = f"{name} has {pluralize(len(of_item), 'label')}, but {there_are(count, 'vector')}"
                hint = f"give a label for each vector, {count} in all, or leave {name} out"
                hint += f"; {_suggest_layout_of(problem, len(of_item))}".removesuffix("; ")
                raise input_error("count-mismatch", message, name, help=hint)
        if is_nested and len(labels) != (size.batch or 1):
            message = f"{name} has {pluralize(len(labels), 'list')}, but the batch has {size.batch or 1}"
            raise input_error("batch-mismatch", message, name)


def _check_positions(problem: Problem, size: ProblemSize) -> None:
    """Check that positions, segments and lengths have the problem's batch, and as many entries as there are tokens."""
    for name in ("positions", "k_positions", "segments", "k_segments"):
        value = getattr(problem, name)
        if value is None:
            continue
        count, *nouns = (size.keys, "key") if name.startswith("k_") else (size.queries, "query", "queries")
        if value.ndim == 2 and size.batch is None and shape_of(value)[0] == count > 1:
            hint = "2-D positions and M-RoPE are not supported; put what they add to the scores into bias"
            counted = "keys" if name.startswith("k_") else "queries"
            message = f"{name} must hold one number for each of the {counted}, but here there are {shape_of(value)[1]}"
            raise input_error("wrong-shape", message, name, help=hint)
        _check_batch_axis(name, value, 2, size)
        if shape_of(value)[-1] != count:
            entries = pluralize(shape_of(value)[-1], "entry", "entries")
            message = f"{name} has {entries}, but {there_are(count, *nouns)}"
            hint = f"give one for each {nouns[0]}"
            hint += f"; {_suggest_layout_of(problem, shape_of(value)[-1])}".removesuffix("; ")
            raise input_error("count-mismatch", message, name, help=hint)
    if problem.lengths is not None:
        _check_batch_axis("lengths", problem.lengths, 1, size)
        for b, length in enumerate(problem.lengths.tolist()):
            if not 0 <= length <= size.keys:
                message = f"lengths[{b}] is {length}, but {there_are(size.keys, 'key')}"
                raise input_error("out-of-range", message, "lengths", (b,), help=_suggest_layout_of(problem, length))


def _check_variant(problem: Problem) -> None:
    """Check the file's own choices, first one by one, so that an error names the choice.

    Raises:
        InputError: one does not exist or cannot be, or they do not go together.
    """
    for key in problem.variant:
        if problem.variant[key] is None:
            raise input_error(
                "bad-option", f"variant.{key} is null", f"variant.{key}", help="leave it out for the default"
            )
        try:
            Variant(**{key: problem.variant[key]})
        except AttnError as error:
            raise as_input_error(error, path=json_path(f"variant.{key}")) from None
    try:
        if problem.variant:
            Variant(**problem.variant)
    except AttnError as error:
        raise as_input_error(error, path=json_path("variant")) from None
