"""The one gate: what a reader or a caller hands over → a Problem in which nothing is malformed.

After it, every array is rectangular, of its kind, finite where it must be, and goes together with the others;
what depends on the variant (heads, parameters, positions) is checked by `plan`. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from attncli.errors import AttnError, InputError, Place, as_input, listed, nearest
from attncli.parts.links import link
from attncli.types import BASE_STEPS, FIELDS, NONFINITE, Field, Problem
from attncli.variant import FAMILIES, Variant

GROUPS = ("memory", "past", "parameters")  # fields that hold fields
STEP_NAMES = (*BASE_STEPS, *(member.facts["step"] for member in link))
FIGURE = {"values", "rows", "columns", "decimals", "rtol", "atol"}  # what a step of `expected` may hold


def known_parameters() -> dict[str, Any]:
    """Every learned array that some part takes, by name, as the part declares it."""
    return {p.name: p for family in FAMILIES.values() for member in family for p in member.parameters}


def field_of(name: str) -> Field:
    """The declaration of a dotted field name.

    Raises:
        InputError: no such field; the nearest name is offered.
    """
    if name in FIELDS:
        return FIELDS[name]
    group, _, rest = name.partition(".")
    if group == "parameters" and rest in known_parameters():
        return Field(name, "floats", (" ".join(known_parameters()[rest].axes),), known_parameters()[rest].help)
    if group == "parameters" and rest:
        raise InputError("unknown-field", f"no part takes a parameter {rest!r}", place=Place(path=path_of(name)), help=nearest(rest, known_parameters()))
    inside = [n.partition(".")[2] for n in FIELDS if n.startswith(group + ".")]
    if inside and rest:
        raise InputError("unknown-field", f"{group} has no field {rest!r}", place=Place(path=path_of(name)), help=nearest(rest, inside))
    tops = {n.partition(".")[0] for n in FIELDS} | {"parameters"}
    raise InputError("unknown-field", f"a problem has no field {name!r}", place=Place(path=path_of(name)), help=nearest(name, tops))


def path_of(name: str, index: tuple[int, ...] = ()) -> str:
    """The JSON path of a dotted name: `$.parameters.w_q[1][2]`."""
    return f"$.{name}" + "".join(f"[{i}]" for i in index)


def _bad(code: str, message: str, name: str = "", index: tuple[int, ...] = (), help: str = "") -> InputError:
    return InputError(code, message, place=Place(path=path_of(name, index) if name else ""), help=help)


# ── one field ────────────────────────────────────────────────────────────────────────────────────
def is_tensor(value: Any) -> bool:
    return hasattr(value, "requires_grad")


def as_numpy(value: Any) -> np.ndarray:
    """A tensor's values outside its graph, in the nearest dtype numpy has."""
    if not is_tensor(value):
        return np.asarray(value)
    plain = value.detach().cpu()
    return np.asarray((plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy())


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in value.shape)


def array(value: Any, field: Field) -> Any:
    """Lists or an array → an array of the field's kind; tensors stay tensors.

    Raises:
        InputError: ragged, empty, of another kind, of a rank the field cannot have, or not finite.
    """
    name = field.name
    if is_tensor(value) and field.kind != "floats":
        value = as_numpy(value)  # only floats can carry a gradient
    if not is_tensor(value):
        value = value if isinstance(value, np.ndarray) else _from_lists(value, field)
        if field.kind == "booleans" and value.dtype != bool:
            raise _bad("numeric-mask", f"{name} holds numbers; a mask holds booleans", name, help="write true/false; to add numbers to the scores use bias")
        if field.kind == "integers" and value.dtype.kind == "f" and np.isfinite(value).all() and (value == np.floor(value)).all():
            value = value.astype(np.int64)
        wanted = {"floats": "fiu", "booleans": "b", "integers": "iu"}[field.kind]
        if value.dtype.kind not in wanted:
            raise _bad("wrong-type", f"{name} holds {value.dtype}, not {field.kind}", name)
        if field.kind == "floats":
            narrow = value.dtype == np.float16
            value = value.astype(np.float32 if narrow else np.float64) if value.dtype.kind != "f" or narrow else value
            value = value.astype(value.dtype.newbyteorder("="), copy=False)
    elif not value.dtype.is_floating_point:
        value = value.double()
    shape = shape_of(value)
    if len(shape) not in field.ranks:
        forms = listed([f"({', '.join(s.split())})" for s in field.shapes], "or") if field.shapes != ("*",) else "at most rank 4: (B, H, Tq, Tk)"
        raise _bad("wrong-shape", f"{name} has shape {shape}, but should be {forms}", name)
    if 0 in shape and not name.startswith("past."):
        raise _bad("empty", f"{name} is empty: its shape is {shape}", name)
    if field.kind == "floats":
        _check_finite(value, field)
    return value


def _from_lists(value: Any, field: Field) -> np.ndarray:
    dtype: Any = {"floats": np.float64, "booleans": bool, "integers": np.int64}[field.kind]
    if field.kind == "floats":
        value = _spelled_numbers(value)
    else:
        for index, leaf in _leaves(value):
            if field.kind == "booleans" and not isinstance(leaf, bool | np.bool_):
                raise _bad("numeric-mask", f"{field.name} holds {leaf!r}; a mask holds booleans", field.name, index, help="write true/false; to add numbers to the scores use bias")
            if field.kind == "integers" and (isinstance(leaf, bool) or not isinstance(leaf, int | np.integer)):
                raise _bad("wrong-type", f"{field.name} holds {leaf!r}, not an integer", field.name, index)
    try:
        return np.array(value, dtype=dtype)
    except OverflowError:
        raise _bad("wrong-type", f"{field.name} holds an integer of more than 64 bits", field.name) from None
    except (ValueError, TypeError):
        raise _why_not(value, field) from None


def _spelled_numbers(value: Any) -> Any:
    """Lists where "-Infinity", "Infinity" and "NaN" have become numbers; other text stays, to be refused."""
    if isinstance(value, list | tuple):
        return [_spelled_numbers(v) for v in value] if any(isinstance(v, list | tuple | str) for v in value) else value
    return float(value) if value in NONFINITE else value


def _leaves(value: Any, index: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, (*index, i))
    else:
        yield index, value


def _why_not(value: Any, field: Field) -> InputError:
    """Which part of some lists is no rectangle of numbers."""
    for index, leaf in _leaves(value):
        if isinstance(leaf, bool) or not isinstance(leaf, int | float | np.number):
            return _bad("not-a-number", f"{field.name} holds {leaf!r} where a number should be", field.name, index)

    def ragged(items: Any, index: tuple[int, ...]) -> InputError | None:
        if not isinstance(items, list | tuple):
            return None
        for i, item in enumerate(items):
            one, other = (len(x) if isinstance(x, list | tuple) else None for x in (items[0], item))
            if one != other:
                says = [f"{n} values" if n is not None else "one number" for n in (other, one)]
                return _bad("ragged", f"{field.name}: item {i} has {says[0]}, but item 0 has {says[1]}", field.name, (*index, i), help="rows must be equally long; short rows are never padded")
            if found := ragged(item, (*index, i)):
                return found
        return None

    return ragged(value, ()) or _bad("wrong-type", f"{field.name} is no array of numbers", field.name)


def _check_finite(value: Any, field: Field) -> None:
    flat = value.detach() if is_tensor(value) else value
    if bool((flat == flat).all()) and (not field.finite or bool((abs(flat) != float("inf")).all())):
        if field.name == "bias" and bool((flat == float("inf")).any()):
            raise _bad("not-finite", "bias holds +∞, which leaves no other key any weight", "bias", help="bias is finite, or -Infinity to hide a key")
        return
    if field.name == "bias":
        raise _bad("nan-bias", "bias holds NaN", "bias", _first(flat != flat), help="0 × −∞ is NaN: a mask multiplied by −∞, as in triu(ones) * -inf, has it wherever the mask is 0; fill with −∞ instead, or give a boolean mask")
    if field.finite:
        bad = _first((flat != flat) | (abs(flat) == float("inf")))
        raise _bad("not-finite", f"{field.name} holds {float(flat[bad])} at {list(bad)}; it must be finite", field.name, bad)


def _first(truth: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(as_numpy(truth))[0])


def texts(value: Any, field: Field) -> tuple[Any, ...]:
    """Labels: T strings, or B lists of T."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple) or not value:
        raise _bad("wrong-type", f"{field.name} is a list of texts", field.name)
    if all(isinstance(v, list | tuple) for v in value):
        return tuple(texts(v, field) for v in value)
    for i, item in enumerate(value):
        if not isinstance(item, str):
            raise _bad("wrong-type", f"{field.name} holds {item!r}, not a text", field.name, (i,), help="put it in quotes")
    return tuple(value)


# ── the whole problem ────────────────────────────────────────────────────────────────────────────
def admit(problem: Problem) -> Problem:
    """The gate itself: a problem of lists, arrays or tensors → one in which nothing is malformed.

    Raises:
        InputError: what is wrong, and its path.
    """
    if problem.admitted:
        return problem
    values: dict[str, Any] = {}
    for item in dataclasses.fields(problem):
        value = getattr(problem, item.name)
        if value is None or (item.name in ("parameters", "variant", "expected") and not value):
            continue
        if item.name in GROUPS:
            if not isinstance(value, Mapping):
                raise _bad("wrong-type", f"{item.name} is an object", item.name)
            values[item.name] = {k: one_field(f"{item.name}.{k}", v) for k, v in value.items() if v is not None}
        elif item.name in FIELDS:
            values[item.name] = one_field(item.name, value)
    admitted = dataclasses.replace(problem, **values, admitted=True)
    for check in (_check_sources, _check_sizes, _check_broadcasts, _check_variant):
        check(admitted)
    return admitted


def one_field(name: str, value: Any) -> Any:
    """One field through the gate, by its dotted name."""
    field = field_of(name)
    if field.kind in ("floats", "booleans", "integers"):
        return array(value, field)
    if field.kind == "texts":
        return texts(value, field)
    if field.kind == "text":
        if value not in field.choices:
            raise _bad("wrong-type", f"{name} cannot be {value!r}", name, help=nearest(str(value), field.choices))
        return value
    if field.kind in ("object", "expected") and not isinstance(value, Mapping):
        raise _bad("wrong-type", f"{name} is an object", name)
    return _expected(value) if field.kind == "expected" else value


def _expected(value: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for step, figure in value.items():
        name = f"expected.{step}"
        if step.rstrip("0123456789").removesuffix("_") not in STEP_NAMES and step not in STEP_NAMES:
            raise _bad("unknown-step", f"no step is called {step!r}", name, help=nearest(step, STEP_NAMES))
        given = dict(figure) if isinstance(figure, Mapping) else {"values": figure}
        for key in given:
            if key not in FIGURE:
                raise _bad("unknown-field", f"{name} has no {key!r}", name, help=nearest(key, FIGURE))
        if "values" not in given:
            raise _bad("missing-field", f"{name} has no values", name)
        held = given["values"]
        truths = held.dtype == bool if isinstance(held, np.ndarray) else isinstance(next(_leaves(held), ((), 0))[1], bool)
        kind = "booleans" if truths else "floats"
        given["values"] = array(held, Field(f"{name}.values", kind, ("*",), finite=False))
        for key in ("rows", "columns"):
            if key in given:
                given[key] = array(given[key], Field(f"{name}.{key}", "integers", ("n",)))
        for key in ("decimals", "rtol", "atol"):
            if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int | float) or given[key] < 0):
                raise _bad("wrong-type", f"{name}.{key} is a number ≥ 0, not {given[key]!r}", name)
        out[step] = given
    return out


def _check_sources(p: Problem) -> None:
    """Exactly one place where queries, keys and values come from."""
    direct = [n for n in ("q", "k", "v") if getattr(p, n) is not None]
    if p.embeddings is None and not direct:
        raise _bad("missing-field", "there is nothing to attend to: no embeddings, and no q and k", help='give "embeddings": [[…], …], or q, k and v')
    if p.embeddings is not None and direct:
        raise _bad("two-sources", f"embeddings and {listed(direct)} are both there", direct[0], help="give embeddings, or q, k and v that are already projected")
    if direct and p.memory is not None:
        raise _bad("two-sources", f"memory and {listed(direct)} are both there", "memory", help="memory goes with embeddings; k and v are what it would have become")
    for name in ("q", "k"):
        if direct and name not in direct:
            raise _bad("missing-field", f"{listed(direct)} without {name}", help=f"give {name} too; only v may be left out")
    if p.memory is not None and "embeddings" not in p.memory:
        raise _bad("missing-field", "memory has no embeddings", "memory")
    if p.past is not None and ("k" not in p.past or ("v" not in p.past and (p.v is not None or p.embeddings is not None))):
        raise _bad("missing-field", f"past has no {'v' if 'k' in p.past else 'k'}", "past", help="past holds k and v, each (B, Hkv, P, d)")
    ranks = {n: getattr(p, n).ndim for n in direct}
    if len(set(ranks.values())) > 1:
        raise _bad("wrong-shape", f"q, k and v differ in rank: {', '.join(f'{n} {shape_of(getattr(p, n))}' for n in direct)}", direct[0])
    if p.layout and direct and ranks["q"] != (3 if p.layout == "htd" else 4):
        raise _bad("wrong-shape", f"layout {p.layout} is for rank {3 if p.layout == 'htd' else 4}, but q has shape {shape_of(p.q)}", "layout")


@dataclasses.dataclass(frozen=True)
class Extent:
    """How large a problem is, whatever the variant: None where the problem does not say."""

    batch: int | None  # None: it has no batch
    queries: int
    new_keys: int
    past: int
    heads: int | None = None  # where q, k, v come in heads
    kv_heads: int | None = None

    @property
    def keys(self) -> int:
        return self.past + self.new_keys


def extent(p: Problem) -> Extent:
    """Read off an admitted problem's arrays."""
    past = shape_of(p.past["k"])[2] if p.past else 0
    if p.embeddings is not None:
        *batch, t, _ = shape_of(p.embeddings)
        keys = shape_of(p.memory["embeddings"])[-2] if p.memory else t
        return Extent(batch[0] if batch else None, t, keys, past)
    q, k = shape_of(p.q), shape_of(p.k)
    if len(q) == 2:
        return Extent(None, q[0], k[0], past)
    if p.layout == "htd":
        return Extent(None, q[1], k[1], past, q[0], k[0])
    if len(q) == 3:
        return Extent(q[0], q[1], k[1], past)
    t, h = (1, 2) if p.layout == "bthd" else (2, 1)
    return Extent(q[0], q[t], k[t], past, q[h], k[h])


def _check_sizes(p: Problem) -> None:
    """Batches agree, and everything that is counted by tokens has as many as there are."""
    size = extent(p)

    def same_batch(name: str, value: Any, rank_with_batch: int) -> None:
        if value.ndim == rank_with_batch and shape_of(value)[0] != (size.batch or 1):
            has = f"a batch of {size.batch}" if size.batch else "no batch"
            raise _bad("batch-mismatch", f"{name} has a batch of {shape_of(value)[0]}, but the problem has {has}", name)

    if p.memory:
        if shape_of(p.memory["embeddings"])[:-2] != shape_of(p.embeddings)[:-2]:
            raise _bad("batch-mismatch", f"memory.embeddings {shape_of(p.memory['embeddings'])} and embeddings {shape_of(p.embeddings)} differ in their batch", "memory.embeddings")
    for name in ("k", "v"):
        value = getattr(p, name)
        if value is None:
            continue
        if p.layout != "htd":
            same_batch(name, value, max(p.q.ndim, 3))
        keys_axis = {2: 0, 3: 1, 4: 1 if p.layout == "bthd" else 2}[p.q.ndim]
        if shape_of(value)[keys_axis] != size.new_keys:
            raise _bad("shape-mismatch", f"k has {size.new_keys} keys and v {shape_of(value)[keys_axis]}", name)
    if p.past:
        for name, value in p.past.items():
            if name == "tokens":
                continue
            same_batch(f"past.{name}", value, 4)
            if shape_of(value)[:3] != shape_of(p.past["k"])[:3]:
                raise _bad("shape-mismatch", f"past.k {shape_of(p.past['k'])} and past.v {shape_of(value)} differ", "past.v")
    counts = {
        "tokens": (size.queries, p.tokens),
        "k_tokens": (size.keys, p.k_tokens if p.q is not None else None),
        "memory.tokens": (size.new_keys, (p.memory or {}).get("tokens")),
        "past.tokens": (size.past, (p.past or {}).get("tokens")),
    }
    for name, (n, labels) in counts.items():
        for item in () if labels is None else labels if isinstance(labels[0], tuple) else (labels,):
            if len(item) != n and not (name == "k_tokens" and len(item) == size.new_keys):
                raise _bad("count-mismatch", f"{name} has {len(item)} labels, but there are {n} vectors", name)
        if labels is not None and isinstance(labels[0], tuple) and len(labels) != (size.batch or 1):
            raise _bad("batch-mismatch", f"{name} has {len(labels)} lists, but the batch has {size.batch or 1}", name)
    for name, n in {"positions": size.queries, "k_positions": size.keys, "segments": size.queries, "k_segments": size.keys}.items():
        value = getattr(p, name)
        if value is not None:
            same_batch(name, value, 2)
            if shape_of(value)[-1] != n:
                raise _bad("count-mismatch", f"{name} has {shape_of(value)[-1]} entries, but there are {n} {'keys' if name.startswith('k_') else 'queries'}", name)
    if p.lengths is not None:
        same_batch("lengths", p.lengths, 1)
        for b, n in enumerate(p.lengths.tolist()):
            if not 0 <= n <= size.keys:
                raise _bad("out-of-range", f"lengths[{b}] is {n}, but there are {size.keys} keys", "lengths", (b,))


def _check_broadcasts(p: Problem) -> None:
    size = extent(p)
    for name in ("mask", "bias", "dropout_mask"):
        value = getattr(p, name)
        if value is None:
            continue
        full = (size.batch or 1, size.heads, size.queries, size.keys)[4 - value.ndim :]
        for have, want, axis in zip(shape_of(value), full, ("B", "H", "Tq", "Tk")[4 - value.ndim :], strict=True):
            if have not in (1, want) and want is not None:
                hint = f"the problem has no batch; drop the first axis of {name}" if axis == "B" and size.batch is None else "an axis is as long as the problem's, or 1"
                raise _bad("shape-mismatch", f"{name} has shape {shape_of(value)}, which does not broadcast to (B, H, Tq, Tk) = ({', '.join('H' if n is None else str(n) for n in (size.batch or 1, size.heads, size.queries, size.keys))}): axis {axis} is {have}, not {want}", name, help=hint)


def _check_variant(p: Problem) -> None:
    """The file's own choices, spelled right; the file is wrong where they are not."""
    for key in p.variant:
        try:
            Variant(**{key: p.variant[key]})
        except AttnError as error:
            raise as_input(error, path=path_of(f"variant.{key}")) from None
    try:
        Variant(**p.variant)
    except AttnError as error:
        raise as_input(error, path=path_of("variant")) from None


