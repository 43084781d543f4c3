"""Heads and widths: whether what the problem holds and what the variant says can be multiplied at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attncli.errors import InputError, input_error, join_names, pluralize
from attncli.parts.projections import PROJECTION_PARAMETERS, ProjectionSizes, default_projection, projection_shapes
from attncli.parts.traits import NormTraits, ParameterTraits, ProjectionTraits
from attncli.registry import Part
from attncli.types import Problem
from attncli.validation import ProblemSize
from attncli.validation.fields import shape_of
from attncli.variant import Variant


@dataclass(frozen=True)
class HeadShapes:
    """Heads, and the width of what one head works on."""

    heads: int
    kv_heads: int
    has_head_axis: bool  # heads are named, or q, k, v came in heads: the head axis stands in results
    d: int  # of a query of one head
    d_k: int  # of a key of one head
    c: int | None  # of a value of one head; None without values
    output_width: int | None  # of the output; None without W_o
    has_paired_heads: bool = False  # two heads become one after the normaliser, and share a value

    @property
    def v_heads(self) -> int:
        """How many heads values come in."""
        return self.kv_heads // 2 if self.has_paired_heads else self.kv_heads

    @property
    def mixed_heads(self) -> int:
        """How many heads there are once they are mixed."""
        return self.heads // 2 if self.has_paired_heads else self.heads

    def axis_length(self, step: str, axis: str) -> int:
        """How long the head, kv_head or dim axis of a step is."""
        if axis == "head":
            late = ("mixed_weights", "top_keys", "top_weights", "head_context", "normed_context")
            return self.mixed_heads if step in late else self.heads
        if axis == "kv_head":
            return self.v_heads if step in ("v", "present_v") else self.kv_heads
        c = self.c or 0
        if step in ("k", "normed_k", "positioned_k", "present_k"):
            return self.d_k
        widths = {"output": self.output_width or 0, "context": c * self.mixed_heads, **dict.fromkeys(_VALUE_STEPS, c)}
        return widths.get(step, self.d)


_VALUE_STEPS = ("v", "present_v", "head_context", "normed_context")


def kv_head_of(head: int, heads: int, kv_heads: int, kv_map: str) -> int:
    """Which kv head a query head reads: ⌊h / (H/G)⌋, or h mod G under `tile`."""
    return head % kv_heads if kv_map == "tile" else head * kv_heads // heads


def resolve_head_shapes(problem: Problem, variant: Variant, size: ProblemSize) -> HeadShapes:
    """Every shape held against every other.

    Raises:
        InputError: two of them cannot be multiplied, heads do not divide a width, or a part's array is missing.
    """
    heads, kv_heads, headed = _resolve_head_counts(problem, variant, size)
    pairs = variant.head_mixing.traits.is_pairing
    if pairs and (heads % 2 or kv_heads % 2):
        way = "differential attention needs an even number of heads, and of kv heads"
        message = f"{pluralize(heads, 'head')} and {pluralize(kv_heads, 'kv head')} cannot be paired"
        raise input_error("heads-mismatch", message, help=way)
    made = _resolve_head_widths(problem, variant, size, HeadShapes(heads, kv_heads, headed, 0, 0, None, None, pairs))
    _check_past_shapes(problem, made)
    _check_head_axes(problem, made)
    _check_position_width(problem, variant, projection_sizes(problem, heads, kv_heads).d, made)
    for name in ("qk_norm", "position", "score", "sink", "head_mixing"):
        _check_part_parameters(problem, variant[name], made)
    return made


def _resolve_head_counts(problem: Problem, variant: Variant, size: ProblemSize) -> tuple[int, int, bool]:
    """(query heads, kv heads, whether heads are named)."""
    for name, held, asked in (("heads", size.heads, variant.heads), ("kv_heads", size.kv_heads, variant.kv_heads)):
        if held is not None and asked not in (None, held):
            raise input_error(
                "heads-mismatch",
                f"{name} is {asked}, but {'q' if name == 'heads' else 'k'} comes in {held} heads",
                "q" if name == "heads" else "k",
            )
    named = size.heads is not None or variant.heads is not None
    heads = size.heads or variant.heads or 1
    kv_heads = size.kv_heads or variant.kv_heads or heads
    if not named and variant.kv_heads not in (None, 1):
        raise input_error(
            "missing-heads",
            f"kv_heads is {kv_heads}, but how many query heads share them is not said",
            help=f"add --heads {2 * kv_heads} (a multiple of {kv_heads})",
        )
    if heads % kv_heads:
        divisors = join_names([n for n in range(1, heads + 1) if heads % n == 0], "or")
        raise input_error(
            "heads-mismatch",
            f"{heads} query heads cannot share {kv_heads} kv heads equally",
            help=f"{heads} heads, {kv_heads} kv heads: {divisors}",
        )
    return heads, kv_heads, named


def choose_projection(problem: Problem, variant: Variant) -> Part[ProjectionTraits]:
    """Where q, k, v come from when nobody said: from the file where it has them."""
    learned = {parameter.name for parameter in PROJECTION_PARAMETERS} & set(problem.parameters)
    chosen: Part[ProjectionTraits] | None = variant.projection
    if chosen is None:
        return default_projection(bool(learned))
    if chosen.traits.is_from_file and not learned:
        raise input_error(
            "missing-parameters",
            "projection is given, but the file has none of w_q, w_k, w_v, w_o",
            "parameters",
            help="add them, or draw them: --projection linear:dim=…",
        )
    if problem.q is not None and chosen.traits.is_drawn:
        raise input_error(
            "already-projected",
            f"projection is {chosen.name}, but q, k and v are already projected",
            "q",
            help="give embeddings, or leave the projection out",
        )
    return chosen


def projection_sizes(problem: Problem, heads: int, kv_heads: int) -> ProjectionSizes:
    """What a projection must know of the problem."""
    x = problem.q if problem.embeddings is None else problem.embeddings
    y = problem.k if problem.embeddings is None else problem.memory["embeddings"] if problem.memory else x
    return ProjectionSizes(shape_of(x)[-1], shape_of(y)[-1], heads, kv_heads, problem.w_layout == "out-in")


def _projection_matrix_shapes(problem: Problem, variant: Variant, sizes: ProjectionSizes) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of the matrices this variant applies: those of the file, or those that will be drawn."""
    part = variant.projection
    if part.traits.is_drawn:
        drawn = projection_shapes(sizes, part.option_value("dim"), part.option_value("v-dim"))
        for letter, n in (("q", sizes.heads), ("v", sizes.heads)):
            d_out = (
                (part.option_value("v-dim") or part.option_value("dim") or sizes.d) if letter == "v" else drawn["q"][1]
            )
            if d_out % n:
                raise _indivisible_width_error(letter, d_out, n)
        return {f"w_{x}": drawn[x] for x in ("qkvo" if part.option_value("out") == "yes" else "qkv")}
    if not part.traits.is_from_file:
        return {}
    found = {}
    for name in ("w_q", "w_k", "w_v", "w_o"):
        if name in problem.parameters and (problem.q is None or name == "w_o"):
            rows, columns = shape_of(problem.parameters[name])
            found[name] = (columns, rows) if sizes.out_in else (rows, columns)
    return found


def _indivisible_width_error(name: str, columns: int, heads: int) -> InputError:
    divisors = join_names([n for n in range(1, columns + 1) if columns % n == 0], "or")
    return input_error(
        "heads-mismatch",
        f"{name} has {pluralize(columns, 'column')}, which {heads} heads do not divide",
        help=f"{pluralize(columns, 'column')}, {heads} heads: {divisors}",
    )


def _resolve_head_widths(problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes) -> HeadShapes:
    """Widths of what heads work on, from what goes in and the matrices it meets."""
    sizes = projection_sizes(problem, shapes.heads, shapes.kv_heads)
    matrices = _projection_matrix_shapes(problem, variant, sizes)
    biases = variant.projection.traits.is_from_file and problem.q is None
    whose = "the memory" if problem.memory else "the embeddings"
    for name, d_in, of in (("w_q", sizes.d, "the embeddings"), ("w_k", sizes.e, whose), ("w_v", sizes.e, whose)):
        _check_projection_matrix(name, matrices.get(name), d_in, of, sizes.out_in)
    columns: dict[str, int | None] = {}
    for name, n in (("q", shapes.heads), ("k", shapes.kv_heads), ("v", shapes.v_heads)):
        if problem.q is None:
            total: int | None = matrices.get(f"w_{name}", (0, sizes.d if name == "q" else sizes.e))[1]
        else:
            total = _count_qkv_columns(problem, name, n, size)
        if biases:
            _check_projection_bias(problem, f"b_{name}", total, name)
        if total is not None and total % n:
            raise _indivisible_width_error(name, total, n)
        columns[name] = None if total is None else total // n
    made = replace(shapes, d=columns["q"] or 0, d_k=columns["k"] or 0, c=columns["v"])
    if variant.score.traits.has_equal_widths and made.d != made.d_k:
        fewer = made.kv_heads < made.heads and "w_k" not in matrices and problem.q is None
        way = f"fewer kv heads need w_k and w_v of {pluralize(made.d * made.kv_heads, 'column')}" if fewer else ""
        message = f"a query of one head has {pluralize(made.d, 'column')}, a key {made.d_k}, and {variant.score.name} needs them equal"
        raise input_error("shape-mismatch", message, help=way)
    if "w_o" not in matrices or made.c is None:
        return made
    if matrices["w_o"][0] != made.mixed_heads * made.c:
        message = (
            f"w_o takes {pluralize(matrices['w_o'][0], 'column')}, but the context has {made.mixed_heads * made.c}"
        )
        raise input_error("shape-mismatch", message, "parameters.w_o")
    if variant.projection.traits.is_from_file:
        _check_projection_bias(problem, "b_o", matrices["w_o"][1], "the output")
    return replace(made, output_width=matrices["w_o"][1])


def _count_qkv_columns(problem: Problem, name: str, heads: int, size: ProblemSize) -> int | None:
    """How many columns q, k or v that came ready has, over all heads."""
    value = getattr(problem, name)
    if value is None:
        return None
    if size.heads is None:
        return shape_of(value)[-1]
    has = shape_of(value)[{"htd": 0, "bthd": 2}.get(problem.layout or "", 1)]
    if has != heads:
        raise input_error("heads-mismatch", f"{name} comes in {pluralize(has, 'head')}, but there are {heads}", name)
    return shape_of(value)[-1] * heads


def _check_projection_matrix(
    name: str, shape: tuple[int, int] | None, d_in: int, input_name: str, is_out_in: bool
) -> None:
    if shape is not None and shape[0] != d_in:
        turn = ' (with "w_layout": "out-in" it would be)' if shape[1] == d_in and not is_out_in else ""
        way = f"w is ({'d_out, d_in' if is_out_in else 'd_in, d_out'}): here ({d_in}, …){turn}"
        message = f"{name} takes {pluralize(shape[0], 'column')}, but {input_name} have {d_in}"
        raise input_error("shape-mismatch", message, f"parameters.{name}", help=way)


def _check_projection_bias(problem: Problem, name: str, columns: int | None, output_name: str) -> None:
    if name in problem.parameters and shape_of(problem.parameters[name]) != (columns,):
        message = f"{name} has shape {shape_of(problem.parameters[name])}, but {output_name} has {pluralize(columns or 0, 'column')}"
        raise input_error("shape-mismatch", message, f"parameters.{name}")


def _check_past_shapes(problem: Problem, shapes: HeadShapes) -> None:
    for name, heads, width in (("k", shapes.kv_heads, shapes.d_k), ("v", shapes.v_heads, shapes.c)):
        if not problem.past or name not in problem.past:
            continue
        _, has_heads, _, has_width = shape_of(problem.past[name])
        if has_heads != heads:
            message = f"past.{name} has {pluralize(has_heads, 'head')}, but there are {heads} kv heads"
            raise input_error("heads-mismatch", message, f"past.{name}")
        if has_width != width:
            message = f"past.{name} is {has_width} wide, but {name} of one head {width}"
            raise input_error("shape-mismatch", message, f"past.{name}")


def _check_head_axes(problem: Problem, shapes: HeadShapes) -> None:
    for name in ("mask", "bias", "dropout_mask"):
        value = getattr(problem, name)
        if value is not None and value.ndim >= 3 and shape_of(value)[-3] not in (1, shapes.heads):
            there = "is 1 head" if shapes.heads == 1 else f"are {shapes.heads} heads"
            way = "its axes are (B, H, Tq, Tk); say --heads, or drop the axis"
            raise input_error(
                "shape-mismatch", f"{name} has shape {shape_of(value)}, but there {there}", name, help=way
            )


def _check_position_width(problem: Problem, variant: Variant, embedding_width: int, shapes: HeadShapes) -> None:
    """Pairs of columns are there to be turned, or to take a sine and a cosine."""
    part = variant.position
    pairing = part.traits.paired_columns
    if part.traits.acts_on == "embeddings" and problem.embeddings is None:
        way = "give embeddings, or a position that acts on q and k: rope, alibi, t5"
        raise input_error(
            "already-projected", f"position {part} acts on embeddings, but q and k are given", "q", help=way
        )
    if pairing is None:
        return
    if part.traits.acts_on == "qk" and shapes.d != shapes.d_k:
        message = (
            f"position {part} turns queries and keys alike, but one has {shapes.d} columns and the other {shapes.d_k}"
        )
        raise input_error("shape-mismatch", message)
    memory = shape_of(problem.memory["embeddings"])[-1] if problem.memory else embedding_width
    for d in (embedding_width, memory) if part.traits.acts_on == "embeddings" else (shapes.d,):
        turned = pairing(part, d)
        if turned % 2 == 0 and 2 <= turned <= d:
            continue
        message = f"position {part} works on pairs of columns, and cannot on {turned} of {d}"
        raise input_error(
            "odd-width", message, help="give it an even width, or for rope an even dims= of at most the head's"
        )


def _check_part_parameters(problem: Problem, part: Part[ParameterTraits], shapes: HeadShapes) -> None:
    """The arrays that a part takes are there, and as large as it says, each size alike wherever it stands."""
    traits = part.traits
    known = {"H": shapes.heads, "G": shapes.kv_heads, "d": shapes.d, "d_k": shapes.d_k, "2d": shapes.c or 0}
    known |= traits.axis_lengths(part, shapes.d) if traits.axis_lengths else {}
    needed = traits.required_parameters(part) if traits.required_parameters else ()
    across = traits.is_across_heads if isinstance(traits, NormTraits) else None
    is_across_heads = across is not None and across(part)
    for parameter in part.member.parameters:
        name = parameter.name
        if name not in problem.parameters:
            if parameter.required or name in needed:
                way = f'"parameters": {{"{name}": …}}, ({", ".join(parameter.axes)})'
                raise input_error(
                    "missing-parameters",
                    f"{part.member.family} {part.name} needs the parameter {name}",
                    "parameters",
                    help=way,
                )
            if name in traits.identity_parameters:  # where it is absent, its two axes are one
                given, hidden = parameter.axes
                if known.setdefault(hidden, known[given]) != known[given]:
                    message = f"without {name} a width of {known[given]} meets one of {known[hidden]}"
                    raise input_error(
                        "shape-mismatch", message, "parameters", help=f"add {name}, ({known[given]}, {known[hidden]})"
                    )
            continue
        own = {**known, "H": shapes.kv_heads, "d": shapes.d_k} if name in traits.key_parameters else dict(known)
        if len(shape_of(problem.parameters[name])) == 1 and is_across_heads:
            own["d"] *= own["H"]  # a gain for every column of every head
        shape = shape_of(problem.parameters[name])
        forms = [axes for axes in (parameter.axes, *parameter.alternative_axes) if len(axes) == len(shape)]
        if not any(all(own.get(a, n) == n for a, n in zip(axes, shape, strict=True)) for axes in forms):
            want = " or ".join(
                f"({', '.join(str(own.get(a, a)) for a in axes)})"
                for axes in (parameter.axes, *parameter.alternative_axes)
            )
            raise input_error("shape-mismatch", f"{name} has shape {shape}, but should be {want}", f"parameters.{name}")
        known |= {a: n for a, n in zip(forms[0], shape, strict=True) if a not in known}
    all_of = set(traits.all_or_none_parameters)
    if all_of & set(problem.parameters) and not all_of <= set(problem.parameters):
        missing = join_names(sorted(all_of - set(problem.parameters)))
        raise input_error(
            "missing-parameters", f"{part.member.family} {part.name} needs {missing} too, or none of them", "parameters"
        )
    if (any_of := traits.any_of_parameters) and not set(any_of) & set(problem.parameters):
        message = f"{part.member.family} {part.name} needs the parameter {join_names(any_of, 'or')}"
        raise input_error("missing-parameters", message, "parameters")
