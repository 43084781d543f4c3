"""Resolve how many heads there are and how wide they are, and check that all arrays can be multiplied. Entry: `resolve_head_shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attncli.errors import InputError, input_error
from attncli.framework_arrays import makes_inputs
from attncli.parts.projections import PROJECTION_PARAMETERS, ProjectionSizes, default_projection, projection_shapes
from attncli.parts.traits import NormTraits, ParameterTraits, ProjectionTraits
from attncli.registry import AnyPart, Parameter, Part
from attncli.text import join_names, pluralize, there_are
from attncli.types import Problem
from attncli.validation import ProblemSize, suggest_layout
from attncli.validation.fields import shape_of
from attncli.variant import Variant


@dataclass(frozen=True)
class HeadShapes:
    """How many heads there are, and how wide the arrays of one head are."""

    heads: int
    kv_heads: int
    has_head_axis: bool  # heads are named, or q, k, v came in heads, so that results have the head axis
    d: int  # width of a query of one head
    d_k: int  # width of a key of one head
    c: int | None  # width of a value of one head; None without values
    output_width: int | None  # None without W_o
    has_paired_heads: bool = False  # two heads become one after the normaliser, and share a value
    # The projection's arrays that are applied, by name: (d_in, d_out) of a matrix, as x @ W takes it, (d_out,) of a bias.
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    @property
    def v_heads(self) -> int:
        """How many heads v has."""
        return self.kv_heads // 2 if self.has_paired_heads else self.kv_heads

    @property
    def mixed_heads(self) -> int:
        """How many heads there are once they are mixed: h'."""
        return self.heads // 2 if self.has_paired_heads else self.heads

    def axis_length(self, step: str, axis: str) -> int:
        """Return how long the head, kv_head or dim axis of a step is."""
        if axis == "head":
            return self.mixed_heads if step in _MIXED_STEPS else self.heads
        if axis == "kv_head":
            return self.v_heads if step in ("v", "present_v") else self.kv_heads
        c = self.c or 0
        if step in ("k", "normed_k", "positioned_k", "present_k"):
            return self.d_k
        widths = {"output": self.output_width or 0, "context": c * self.mixed_heads, **dict.fromkeys(_VALUE_STEPS, c)}
        return widths.get(step, self.d)


_VALUE_STEPS = ("v", "present_v", "head_context", "normed_context")  # as wide as a value
_MIXED_STEPS = ("mixed_weights", "top_keys", "top_weights", "head_context", "normed_context")  # of mixed heads


def kv_head_of(head: int, heads: int, kv_heads: int, kv_map: str) -> int:
    """Return which kv head a query head reads: ⌊h / (H/G)⌋, or h mod G under `tile`."""
    return head % kv_heads if kv_map == "tile" else head * kv_heads // heads


def resolve_head_shapes(problem: Problem, variant: Variant, size: ProblemSize) -> HeadShapes:
    """Resolve heads and widths, with every shape checked against every other.

    Raises:
        InputError: two of them cannot be multiplied, heads do not divide a width, or a part's array is missing.
    """
    heads, kv_heads, has_head_axis = _resolve_head_counts(problem, variant, size)
    is_pairing = variant.head_mixing.traits.is_pairing
    if is_pairing and (heads % 2 or kv_heads % 2):
        hint = "differential attention needs an even number of heads and of kv heads"
        message = f"{pluralize(heads, 'head')} and {pluralize(kv_heads, 'kv head')} cannot be paired"
        raise input_error("heads-mismatch", message, help=hint)
    counted = HeadShapes(heads, kv_heads, has_head_axis, 0, 0, None, None, is_pairing)
    shapes = _resolve_head_widths(problem, variant, size, counted)
    _check_past_shapes(problem, shapes)
    _check_position_width(problem, variant, projection_sizes(problem, heads, kv_heads).d, shapes)
    for name in ("qk_norm", "position", "score", "sink", "head_mixing"):
        _check_part_parameters(problem, variant[name], shapes)
    return shapes


def _resolve_head_counts(problem: Problem, variant: Variant, size: ProblemSize) -> tuple[int, int, bool]:
    """Return how many query heads and kv heads there are, and whether results have a head axis."""
    for name, array, has, requested in (
        ("heads", "q", size.heads, variant.heads),
        ("kv_heads", "k", size.kv_heads, variant.kv_heads),
    ):
        if has is not None and requested not in (None, has):
            message = f"{name} is {requested}, but {array} comes in {pluralize(has, 'head')}"
            layout = suggest_layout(problem, requested if name == "heads" else None)
            hint = f"leave {name} out: q, k and v have an axis for heads{f'; or {layout}' if layout else ''}"
            raise input_error("heads-mismatch", message, array, help=hint)
    has_head_axis = size.heads is not None or variant.heads is not None
    heads = size.heads or variant.heads or 1
    kv_heads = size.kv_heads or variant.kv_heads or heads
    if not has_head_axis and variant.kv_heads not in (None, 1):
        raise input_error(
            "missing-heads",
            f"kv_heads is {kv_heads}, but the number of query heads is missing",
            help=f"add --heads {2 * kv_heads} (a multiple of {kv_heads})",
        )
    if heads % kv_heads:
        divisors = join_names([n for n in range(1, heads + 1) if heads % n == 0], "or")
        layout = suggest_layout(problem) if size.heads else ""
        raise input_error(
            "heads-mismatch",
            f"{heads} query heads cannot share {kv_heads} kv heads equally",
            help=f"with {pluralize(heads, 'head')}, use {divisors} kv heads{f'; {layout}' if layout else ''}",
        )
    return heads, kv_heads, has_head_axis


def choose_projection(problem: Problem, variant: Variant) -> Part[ProjectionTraits]:
    """Return the variant's projection; by default the file's, where it has one.

    Raises:
        InputError: the projection does not go with what the problem holds.
    """
    has_parameters = any(parameter.name in problem.parameters for parameter in PROJECTION_PARAMETERS)
    projection: Part[ProjectionTraits] | None = variant.projection
    if projection is None:
        return default_projection(has_parameters)
    matrices = [name for name in problem.parameters if makes_inputs(name)]
    if problem.q is not None and projection.traits.is_from_file and matrices:
        raise input_error(
            "already-projected",
            f"projection is given, but the file holds q and k, which count as already projected, together with {join_names(matrices)}",
            f"parameters.{matrices[0]}",
            help="give embeddings (and memory) instead of q, k and v, or leave the projection out",
        )
    if projection.traits.is_from_file and not has_parameters:
        raise input_error(
            "missing-parameters",
            "projection is given, but the file has none of w_q, w_k, w_v, w_o",
            "parameters",
            help="add them, or draw them: --projection linear:dim=…",
        )
    if problem.q is not None and projection.traits.is_drawn:
        raise input_error(
            "already-projected",
            f"projection is {projection.name}, but q, k and v are already projected",
            "q",
            help="give embeddings, or leave the projection out",
        )
    return projection


def projection_sizes(problem: Problem, heads: int, kv_heads: int) -> ProjectionSizes:
    """Return what a projection must know of the problem."""
    if problem.embeddings is None:
        x, y = problem.q, problem.k
    else:
        x = problem.embeddings
        y = problem.memory["embeddings"] if problem.memory else x
    return ProjectionSizes(shape_of(x)[-1], shape_of(y)[-1], heads, kv_heads, problem.w_layout == "out-in")


def _projection_matrix_shapes(problem: Problem, variant: Variant, sizes: ProjectionSizes) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of the matrices that this variant applies: those of the file, or those that will be drawn."""
    part = variant.projection
    if part.traits.is_drawn:
        dim, v_dim = part.option_value("dim"), part.option_value("v-dim")
        shapes = projection_shapes(sizes, dim, v_dim)
        for letter, columns in (("q", shapes["q"][1]), ("v", v_dim or dim or sizes.d)):
            if columns % sizes.heads:
                raise _indivisible_width_error(letter, columns, sizes.heads)
        return {f"w_{letter}": shapes[letter] for letter in ("qkvo" if part.option_value("out") == "yes" else "qkv")}
    if not part.traits.is_from_file:
        return {}
    from_file = {}
    for name in ("w_q", "w_k", "w_v", "w_o"):
        if name in problem.parameters and (problem.q is None or name == "w_o"):
            rows, columns = shape_of(problem.parameters[name])
            from_file[name] = (columns, rows) if sizes.out_in else (rows, columns)
    return from_file


_MAX_SUGGESTED_HEADS = 2**16  # a width may be so large that all its divisors take minutes to find


def _indivisible_width_error(name: str, columns: int, heads: int) -> InputError:
    largest = min(columns, _MAX_SUGGESTED_HEADS)
    divisors = join_names([n for n in range(1, largest + 1) if columns % n == 0], "or")
    return input_error(
        "heads-mismatch",
        f"the {pluralize(columns, 'column')} of {name} cannot be split into {heads} heads",
        help=f"use {divisors} heads",
    )


def _resolve_head_widths(problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes) -> HeadShapes:
    """Add to the head counts the widths of one head, from the inputs and the matrices that they are multiplied by."""
    sizes = projection_sizes(problem, shapes.heads, shapes.kv_heads)
    matrices = _projection_matrix_shapes(problem, variant, sizes)
    has_biases = variant.projection.traits.is_from_file and problem.q is None
    kv_input = "the memory" if problem.memory else "the embeddings"
    _check_projection_matrix("w_q", matrices.get("w_q"), sizes.d, "the embeddings", sizes.out_in)
    for name in ("w_k", "w_v"):
        _check_projection_matrix(name, matrices.get(name), sizes.e, kv_input, sizes.out_in)
    widths: dict[str, int | None] = {}
    for name, head_count in (("q", shapes.heads), ("k", shapes.kv_heads), ("v", shapes.v_heads)):
        if problem.q is None:
            columns: int | None = matrices.get(f"w_{name}", (0, sizes.d if name == "q" else sizes.e))[1]
        else:
            columns = _count_qkv_columns(problem, name, head_count, size)
        if has_biases:
            _check_projection_bias(problem, f"b_{name}", columns, name)
        if columns is not None and columns % head_count:
            raise _indivisible_width_error(name, columns, head_count)
        widths[name] = None if columns is None else columns // head_count
    shapes = replace(shapes, d=widths["q"] or 0, d_k=widths["k"] or 0, c=widths["v"])
    if variant.score.traits.has_equal_widths and shapes.d != shapes.d_k:
        needs_matrices = shapes.kv_heads < shapes.heads and "w_k" not in matrices and problem.q is None
        columns = shapes.d * shapes.kv_heads
        hint = f"fewer kv heads need w_k and w_v of {pluralize(columns, 'column')}" if needs_matrices else ""
        message = f"per head, queries have {pluralize(shapes.d, 'column')} and keys {shapes.d_k}; {variant.score.name} needs equal numbers"
        raise input_error("shape-mismatch", message, help=hint)
    shapes = replace(
        shapes, parameters=_applied_parameters(problem, variant, matrices, has_output=shapes.c is not None)
    )
    if "w_o" not in shapes.parameters or shapes.c is None:
        return shapes
    context_width, output_width = matrices["w_o"]
    if context_width != shapes.mixed_heads * shapes.c:
        message = f"w_o takes {pluralize(context_width, 'column')}, but the context has {shapes.mixed_heads * shapes.c}"
        raise input_error("shape-mismatch", message, "parameters.w_o")
    if variant.projection.traits.is_from_file:
        _check_projection_bias(problem, "b_o", output_width, "the output")
    return replace(shapes, output_width=output_width)


def _applied_parameters(
    problem: Problem, variant: Variant, matrices: Mapping[str, tuple[int, int]], *, has_output: bool
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of the projection that is applied: of these matrices, and of the biases with them."""
    projection = variant.projection
    shapes: dict[str, tuple[int, ...]] = {}
    for letter in "qkvo":
        matrix = matrices.get(f"w_{letter}")
        if letter == "o" and not (matrix and has_output):
            continue
        if matrix:
            shapes[f"w_{letter}"] = matrix
        if projection.traits.is_drawn:
            has_bias = projection.option_value("bias") in ("all", "o" if letter == "o" else "qkv")
        else:
            has_bias = f"b_{letter}" in problem.parameters and (problem.q is None or letter == "o")
        if has_bias:
            shapes[f"b_{letter}"] = (matrix[1],) if matrix else shape_of(problem.parameters[f"b_{letter}"])
    return shapes


def _count_qkv_columns(problem: Problem, name: str, heads: int, size: ProblemSize) -> int | None:
    """Return how many columns q, k or v of the file has, over all heads."""
    value = getattr(problem, name)
    if value is None:
        return None
    if size.heads is None:
        return shape_of(value)[-1]
    has = shape_of(value)[{"htd": 0, "bthd": 2, "thd": 1}.get(problem.layout or "", 1)]
    if has != heads:
        raise input_error("heads-mismatch", f"{name} comes in {pluralize(has, 'head')}, but there are {heads}", name)
    return shape_of(value)[-1] * heads


def _check_projection_matrix(
    name: str, shape: tuple[int, int] | None, d_in: int, input_name: str, is_out_in: bool
) -> None:
    if shape is not None and shape[0] != d_in:
        fits_transposed = shape[1] == d_in and not is_out_in
        remark = ' (with "w_layout": "out-in" it would be)' if fits_transposed else ""
        hint = f"w is ({'d_out, d_in' if is_out_in else 'd_in, d_out'}): here ({d_in}, …){remark}"
        message = f"{name} takes {pluralize(shape[0], 'column')}, but {input_name} have {d_in}"
        raise input_error("shape-mismatch", message, f"parameters.{name}", help=hint)


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
            message = f"past.{name} has {pluralize(has_heads, 'head')}, but {there_are(heads, 'kv head')}"
            raise input_error(
                "heads-mismatch", message, f"past.{name}", help="past is (B, H, P, d), whatever the layout"
            )
        if has_width != width:
            message = f"past.{name} is {has_width} wide, but {name} of one head {width}"
            raise input_error("shape-mismatch", message, f"past.{name}")


def _check_position_width(problem: Problem, variant: Variant, embedding_width: int, shapes: HeadShapes) -> None:
    """Check that there are pairs of columns to rotate, or to add a sine and a cosine to."""
    part = variant.position
    paired_columns = part.traits.paired_columns
    if part.traits.acts_on == "embeddings" and problem.embeddings is None:
        raise input_error(
            "already-projected",
            f"position {part} acts on embeddings, but q and k are given",
            "q",
            help="give embeddings, or a position that acts on q and k: rope, alibi, t5",
        )
    if paired_columns is None:
        return
    if part.traits.acts_on == "qk" and shapes.d != shapes.d_k:
        message = f"position {part} turns queries and keys in the same way, but queries have {shapes.d} columns and keys {shapes.d_k}"
        raise input_error("shape-mismatch", message)
    memory_width = shape_of(problem.memory["embeddings"])[-1] if problem.memory else embedding_width
    for width in (embedding_width, memory_width) if part.traits.acts_on == "embeddings" else (shapes.d,):
        paired = paired_columns(part, width)
        if paired % 2 or not 2 <= paired <= width:
            raise _paired_columns_error(part, paired, width)


def _paired_columns_error(part: AnyPart, paired: int, width: int) -> InputError:
    """Make the error of columns that form no pairs: they are too few, none or oddly many."""
    has_dims = any(option.name == "dims" for option in part.member.options)
    most = width - width % 2
    dims = f"an even dims= of at most {most}, such as dims={most}" if has_dims and most else ""
    if paired > width:
        return input_error(
            "odd-width", f"position {part} turns {paired} columns, but there are only {width}", help=dims
        )
    if paired == 0:
        message = f"position {part} turns 0 of {width} columns"
        return input_error("odd-width", message, help="use a larger fraction, so that at least two columns are turned")
    hint = " or ".join(filter(None, ("an even width", dims)))
    message = f"position {part} works on pairs of columns, so it cannot turn {paired} of {width}"
    return input_error("odd-width", message, help=f"give it {hint}")


def _check_part_parameters(problem: Problem, part: Part[ParameterTraits], shapes: HeadShapes) -> None:
    """Check that the arrays a part takes are there, and that each axis is equally long wherever it occurs.

    Raises:
        InputError: an array is missing, or has another shape.
    """
    traits = part.traits
    lengths = {"H": shapes.heads, "G": shapes.kv_heads, "d": shapes.d, "d_k": shapes.d_k, "2d": shapes.c or 0}
    lengths |= traits.axis_lengths(part, shapes.d) if traits.axis_lengths else {}  # by name of the axis
    required = traits.required_parameters(part) if traits.required_parameters else ()
    for parameter in part.member.parameters:
        name = parameter.name
        if name in problem.parameters:
            lengths |= _check_parameter_shape(problem, part, parameter, shapes, lengths)
        elif parameter.required or name in required:
            raise input_error(
                "missing-parameters",
                f"{part.member.family} {part.name} needs the parameter {name}",
                "parameters",
                help=f'"parameters": {{"{name}": …}}, ({", ".join(parameter.axes)})',
            )
        elif name in traits.identity_parameters:  # where it is absent, its two axes are one
            rows, columns = parameter.axes
            lengths.setdefault(columns, lengths[rows])
            if lengths[columns] != lengths[rows]:
                raise input_error(
                    "shape-mismatch",
                    f"without {name}, a width of {lengths[rows]} meets a width of {lengths[columns]}",
                    "parameters",
                    help=f"add {name}, ({lengths[rows]}, {lengths[columns]})",
                )
    _check_parameter_groups(problem, part)


def _check_parameter_shape(
    problem: Problem, part: Part[ParameterTraits], parameter: Parameter, shapes: HeadShapes, lengths: dict[str, int]
) -> dict[str, int]:
    """Check the shape of one array, and return the lengths of the axes that were not known before."""
    name, traits, shape = parameter.name, part.traits, shape_of(problem.parameters[parameter.name])
    own_lengths = dict(lengths)
    if name in traits.key_parameters:
        own_lengths |= {"H": shapes.kv_heads, "d": shapes.d_k}
    is_across_heads = traits.is_across_heads if isinstance(traits, NormTraits) else None
    if len(shape) == 1 and is_across_heads is not None and is_across_heads(part):
        own_lengths["d"] *= own_lengths["H"]  # a gain for every column of every head
    alternatives = (parameter.axes, *parameter.alternative_axes)
    of_rank = [axes for axes in alternatives if len(axes) == len(shape)]
    if not any(all(own_lengths.get(a, n) == n for a, n in zip(axes, shape, strict=True)) for axes in of_rank):
        expected = " or ".join(f"({', '.join(str(own_lengths.get(a, a)) for a in axes)})" for axes in alternatives)
        raise input_error("shape-mismatch", f"{name} has shape {shape}, but should be {expected}", f"parameters.{name}")
    return {a: n for a, n in zip(of_rank[0], shape, strict=True) if a not in lengths}


def _check_parameter_groups(problem: Problem, part: Part[ParameterTraits]) -> None:
    """Check the arrays of which all or none, or at least one, must be there."""
    traits, owner = part.traits, f"{part.member.family} {part.name}"
    together = traits.all_or_none_parameters
    missing = sorted(name for name in together if name not in problem.parameters)
    if missing and len(missing) < len(together):
        raise input_error(
            "missing-parameters", f"{owner} also needs {join_names(missing)}, or none of these", "parameters"
        )
    alternatives = traits.any_of_parameters
    if alternatives and not any(name in problem.parameters for name in alternatives):
        message = f"{owner} needs the parameter {join_names(alternatives, 'or')}"
        raise input_error("missing-parameters", message, "parameters")
