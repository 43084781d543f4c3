"""Make w_q, w_k, w_v, w_o and their biases of arrays as frameworks keep them: packed, transposed, with a head axis.

Entries: `resolve_framework_arrays`, `cut_packed`. What each name holds is declared in `framework_arrays`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attncli.errors import InputError, input_error
from attncli.framework_arrays import FRAMEWORK_ARRAYS, QKV_LAYOUTS, FrameworkArray, find_missing_arrays
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.parts.projections import projection as projection_family
from attncli.text import join_names, pluralize
from attncli.types import Array, Problem
from attncli.validation.fields import shape_of
from attncli.variant import Variant

_PROJECTION_TARGETS = {*(parameter.name for parameter in PROJECTION_PARAMETERS), "w_qkv", "b_qkv"}


def resolve_framework_arrays(problem: Problem, variant: Variant) -> tuple[Problem, Variant]:
    """Return the problem with arrays under our names alone, and the variant with what their sizes say: heads, packing.

    Args:
        problem: validated; as it is where no array has a framework's name.
        variant: whose `heads`, `kv_heads` and projection say how packed arrays are cut.

    Raises:
        InputError: an array stands for one that is there already, another is missing, or how one is cut is not known.
    """
    named = {name: FRAMEWORK_ARRAYS[name] for name in problem.parameters if name in FRAMEWORK_ARRAYS}
    if not named:
        return problem, variant
    _check_targets(problem.parameters, named)
    used_targets = _used_targets(problem, variant)
    projections = {name: array for name, array in named.items() if array.target in used_targets}
    arrays = {
        array.target if array.target not in _PROJECTION_TARGETS else name: problem.parameters[name]
        for name, array in named.items()
        if name not in projections
    }
    if projections:
        resolver = _Resolver(problem, variant, projections)
        arrays |= resolver.resolve()
        variant = resolver.resolved_variant
    own = {name: x for name, x in problem.parameters.items() if name not in named}
    return replace(problem, parameters={**own, **arrays}), variant


def _used_targets(problem: Problem, variant: Variant) -> set[str]:
    """Return which arrays of the projection are applied: of q, k and v that are given, those of the output alone."""
    if variant.projection is not None and not variant.projection.traits.is_from_file:
        return set()
    return _PROJECTION_TARGETS if problem.q is None else {"w_o", "b_o"}


def _check_targets(parameters: Mapping[str, Array], named: Mapping[str, FrameworkArray]) -> None:
    """Check that no two arrays are the same parameter, and that none of three is missing.

    Raises:
        InputError: it is not so.
    """
    owners = {name: name for name in parameters if name not in named}
    for name, array in named.items():
        letter, suffix = array.target[0], array.target[1:]
        targets = [f"{letter}_{x}" for x in "qkv"] if suffix == "_qkv" else [array.target]
        for target in targets:
            if target in owners:
                raise input_error(
                    "two-sources",
                    f"{owners[target]} and {name} both hold {target}",
                    f"parameters.{name}",
                    help=f"leave {owners[target]} or {name} out",
                )
            owners[target] = name
    found = find_missing_arrays(parameters)
    if found:
        name, missing = found
        raise input_error(
            "missing-parameters",
            f"there is {name}, but no {join_names(missing, 'or')}",
            "parameters",
            help=_ADD_MISSING,
        )


def cut_packed(x: Array, layout: str, heads: int, kv_heads: int) -> tuple[Array, Array, Array]:
    """Cut what lies packed along its first axis, ((h + 2 g)·d, …), into queries (h·d, …), keys and values (g·d, …).

    Args:
        x: an array or tensor.
        layout: `3hd` or `h3d`, as in `framework_arrays.QKV_LAYOUTS`.
        heads: h.
        kv_heads: g, which divides h.
    """
    d, rest = x.shape[0] // (heads + 2 * kv_heads), x.shape[1:]
    if layout == "3hd":
        return x[: heads * d], x[heads * d : (heads + kv_heads) * d], x[(heads + kv_heads) * d :]
    by_kv_head = x.reshape(kv_heads, heads // kv_heads + 2, d, *rest)  # of each its queries, its key, its value
    parts = by_kv_head[:, :-2], by_kv_head[:, -2], by_kv_head[:, -1]
    return parts[0].reshape(-1, *rest), parts[1].reshape(-1, *rest), parts[2].reshape(-1, *rest)


_ADD_MISSING = "a layer that has one of them has all three: add what is missing, or use the names w_q, w_k and w_v"


_MAX_SUGGESTED_HEADS = 256


@dataclass
class _Resolver:
    """The arrays of one attention module, and how many heads it has."""

    problem: Problem
    variant: Variant
    named: Mapping[str, FrameworkArray]

    def __post_init__(self) -> None:
        self.by_target = {array.target: name for name, array in self.named.items()}
        self.heads = self._find_heads("w_q", self.variant.heads, "heads") or self._required_heads()
        self.kv_heads = self._find_kv_heads()
        self.resolved_variant = self.variant
        if self.problem.q is None:
            self.resolved_variant = self.variant.replace(heads=self.heads, kv_heads=self.kv_heads)

    def resolve(self) -> dict[str, Array]:
        """Return w_q … b_o, matrices as the problem's `w_layout` says."""
        arrays: dict[str, Array] = {}
        for name in self.named:
            arrays |= self._unpack(name) if self.named[name].is_packed else self._convert(name)
        is_out_in = self.problem.w_layout == "out-in"
        self._check_input_widths(arrays)
        return {name: x.T if is_out_in and x.ndim == 2 else x for name, x in arrays.items()}

    # ── heads ────────────────────────────────────────────────────────────────────────────────────
    def _find_heads(self, target: str, requested: int | None, choice: str) -> int | None:
        """Return the length of an array's head axis where it has one, else what was asked for.

        Raises:
            InputError: the two differ.
        """
        name = self.by_target.get(target, "")
        if not name or self.named[name].orientation != "heads":
            return requested
        has = shape_of(self.problem.parameters[name])[0]
        if requested not in (None, has):
            message = f"{choice} is {requested}, but {name} comes in {pluralize(has, 'head')}"
            raise input_error("heads-mismatch", message, f"parameters.{name}")
        return has

    def _required_heads(self) -> int:
        """Return how many heads q has where it is given.

        Raises:
            InputError: it is not known, as the sizes of the arrays do not say it.
        """
        if self.problem.q is not None:
            return 1  # q, k and v are given: what is applied is w_o, which is not cut
        name = next(iter(self.named))
        raise input_error(
            "missing-heads",
            f"{name} holds all heads in one array, and how many heads there are is not said",
            f"parameters.{name}",
            help="add --heads H, as the model's configuration says (num_attention_heads, n_head); --heads 1 for a single one",
        )

    def _find_kv_heads(self) -> int:
        """Return how many kv heads there are: as was asked for, or as the widths of q and k, or of q and all, say."""
        requested = self._find_heads("w_k", self.variant.kv_heads, "kv_heads")
        if requested or self.problem.q is not None:
            return requested or self.heads
        widths = {target: self._output_width(name) for target, name in self.by_target.items()}
        if "w_q" in widths and "w_k" in widths and self.variant.score.traits.has_equal_widths:
            per_head, rest = divmod(widths["w_q"], self.heads)
            if per_head and not rest and widths["w_k"] % per_head == 0:
                return max(1, widths["w_k"] // per_head)
        if "w_qkv" in widths and "w_o" in self.by_target:
            per_head, rest = divmod(self._input_width(self.by_target["w_o"]), self.heads)
            if per_head and not rest and widths["w_qkv"] % per_head == 0:
                return max(1, (widths["w_qkv"] // per_head - self.heads) // 2)
        return self.heads

    # ── sizes ────────────────────────────────────────────────────────────────────────────────────
    def _matrix(self, name: str) -> Array:
        """Return a matrix as x @ W takes it, (d_in, d_out)."""
        x, orientation = self.problem.parameters[name], self.named[name].orientation
        if orientation == "heads":  # (h, d, c) or, of W_O, (h, c, d)
            return x.reshape(-1, x.shape[-1]) if name == "W_O" else x.swapaxes(0, 1).reshape(x.shape[1], -1)
        if orientation == "either":
            return x if self._is_in_out() else x.T
        return x.T

    def _is_in_out(self) -> bool:
        """Whether the layers of this module are GPT-2's Conv1D, (in, out), and not nn.Linear: c_attn tells by its sizes.

        Raises:
            InputError: it does not.
        """
        name = "c_attn.weight"
        rows, columns = shape_of(self.problem.parameters[name]) if name in self.named else (0, 0)
        if rows == columns:
            message = (
                "c_proj.weight is (in, out) in GPT-2 and (out, in) in nanoGPT, and there is no c_attn.weight to tell"
            )
            if rows:
                message = f"c_attn.weight is {rows} × {columns}, and one of its axes holds queries, keys and values"
            raise input_error("wrong-shape", message, "parameters", help="cut it into w_q, w_k, w_v and w_o")
        return columns > rows

    def _output_width(self, name: str) -> int:
        array = self.problem.parameters[name]
        return shape_of(array)[0] if array.ndim == 1 else shape_of(self._matrix(name))[1]

    def _input_width(self, name: str) -> int:
        return shape_of(self._matrix(name))[0]

    def _check_input_widths(self, arrays: Mapping[str, Array]) -> None:
        """Check that matrices take vectors as wide as the problem's, while their names are still the user's.

        Raises:
            InputError: one does not.
        """
        if self.problem.embeddings is None:
            return
        width = shape_of(self.problem.embeddings)[-1]
        memory_width = shape_of(self.problem.memory["embeddings"])[-1] if self.problem.memory else width
        for target, d_in in (("w_q", width), ("w_k", memory_width), ("w_v", memory_width)):
            takes = shape_of(arrays[target])[0] if target in arrays else d_in
            if takes != d_in:
                name = self.by_target.get(target) or self.by_target["w_qkv"]
                owner = "the memory" if self.problem.memory and target != "w_q" else "the embeddings"
                message = f"{name} takes {pluralize(takes, 'column')}, but {owner} have {d_in}"
                raise input_error(
                    "shape-mismatch", message, f"parameters.{name}", help="embeddings are what goes into this layer"
                )

    # ── arrays ───────────────────────────────────────────────────────────────────────────────────
    def _convert(self, name: str) -> dict[str, Array]:
        """Return one array that is not packed, under our name."""
        x, array = self.problem.parameters[name], self.named[name]
        if array.target.startswith("w_"):
            return {array.target: self._matrix(name)}
        return {array.target: x.reshape(-1)}  # a bias, (d,) or with a head axis (h, d)

    def _unpack(self, name: str) -> dict[str, Array]:
        """Return the three arrays of a packed one: of rows for its heads, queries, keys and values."""
        letter = self.named[name].target[0]
        x = self.problem.parameters[name] if letter == "b" else self._matrix(name).T  # (d_qkv,) or (d_qkv, d_in)
        heads, kv_heads = self.heads, self.kv_heads
        d, rest = divmod(x.shape[0], heads + 2 * kv_heads)
        if rest or not d or heads % kv_heads:
            raise self._indivisible_error(name, x.shape[0])
        layout = self._find_qkv_layout(name, shape_of(self.problem.parameters[name]))
        parts = cut_packed(x, layout, heads, kv_heads)
        self.resolved_variant = self.resolved_variant.replace(
            projection=projection_family.parse(f"given:qkv={layout}")
        )  # the result says it
        return {f"{letter}_{x}": part.T if letter == "w" else part for x, part in zip("qkv", parts, strict=True)}

    def _find_qkv_layout(self, name: str, shape: tuple[int, ...]) -> str:
        """Return how an array is packed: as was asked for, as its name says, or as both ways are one.

        Raises:
            InputError: models that use this name differ, and it is not said.
        """
        projection = self.variant.projection
        if projection is not None and projection.traits.is_from_file and projection.option_value("qkv"):
            return str(projection.option_value("qkv"))
        layout = self.named[name].qkv_layout
        if layout or self.kv_heads == 1:  # [1, h + 2, d] is both
            return layout or "3hd"
        raise input_error(
            "two-readings",
            f"{name} {shape} can be read in two ways: 3hd, {QKV_LAYOUTS['3hd']}; or h3d, {QKV_LAYOUTS['h3d']}. Models differ: {self.named[name].used_by}",
            f"parameters.{name}",
            help="say which: --projection given:qkv=3hd, or --projection given:qkv=h3d",
        )

    def _indivisible_error(self, name: str, length: int) -> InputError:
        heads, kv_heads = self.heads, self.kv_heads
        message = f"{name} has {length} columns for queries, keys and values, which {pluralize(heads, 'head')} and {pluralize(kv_heads, 'kv head')} do not divide equally"
        shared = [n for n in range(1, heads + 1) if heads % n == 0 and length % (heads + 2 * n) == 0]
        equal = [n for n in range(1, min(length // 3, _MAX_SUGGESTED_HEADS) + 1) if length % (3 * n) == 0]
        hint = "say with --heads and --kv-heads how many the model has"
        if shared:
            hint = f"{hint}: with {pluralize(heads, 'head')}, --kv-heads {join_names(shared, 'or')}"
        elif equal:
            hint = f"{hint}: with as many kv heads as heads, --heads {join_names(equal, 'or')}"
        return input_error("heads-mismatch", message, f"parameters.{name}", help=hint)
