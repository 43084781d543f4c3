"""What the members of each family may declare beside formula, options, parameters and laws, with its type and default.

The plan, the core, the views and the check read these; none of them knows a part by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from attncli.registry import Traits

if TYPE_CHECKING:
    from attncli.derivation import Derivation, EquationSide, KeyCell, RowDerivation
    from attncli.registry import AnyPart
    from attncli.types import Array, Grid, Tensor

KeyBounds: TypeAlias = "tuple[str, Array | None, Array | None]"  # a field of the keys, its lowest and highest value
RowTotals: TypeAlias = "tuple[Tensor, ...]"  # what is kept of each row, such as its largest score: (b, h, n, 1) each


class PartTraits(Traits):
    """What a member of any family may declare."""

    derivation: Derivation | None = None  # its lines with numbers, from one query's row; None: the result stands alone
    input_options: tuple[str, ...] = ()  # options that say how the file's arrays lie: another value is another input
    gradient_factor: Callable[[RowDerivation, KeyCell], EquationSide] | None = (
        None  # d(after)/d(before) of one key, where it has one
    )


class ParameterTraits(PartTraits):
    """What a member may declare of the learned arrays that it takes."""

    axis_lengths: Callable[[AnyPart, int], Mapping[str, int]] | None = None  # (part, width of a head) → of own axes
    required_parameters: Callable[[AnyPart], tuple[str, ...]] | None = None  # where its options decide; others unread
    identity_parameters: tuple[str, ...] = ()  # the identity where absent, so that their two axes are equal
    key_parameters: tuple[str, ...] = ()  # their axes are those of the keys
    any_of_parameters: tuple[str, ...] = ()  # at least one of them must be there
    all_or_none_parameters: tuple[str, ...] = ()


class MaskTraits(PartTraits):
    """What a mask may declare."""

    # Bounds on the keys that a query can see, each (b, 1, n, 1) or None; a key outside all of them is hidden for certain.
    # None: it may see every key.
    reachable_keys: Callable[[Grid, AnyPart], Sequence[KeyBounds]] | None = None
    why_hidden: Callable[[Grid, AnyPart], str] | None = None  # the predicate that hides one cell, with its numbers
    # The tokens that the options name, where they do: those beyond the last key are warned of.
    named_tokens: Callable[[AnyPart], Sequence[int]] | None = None
    is_causal: bool = False  # what scaled_dot_product_attention calls is_causal
    is_window: bool = False  # what --window stands for


class ScoreTraits(ParameterTraits):
    """What a score may declare."""

    auto_scale: Callable[[int], float] | None = None  # what `--scale auto` is for this width of a head; None: 1
    has_equal_widths: bool = False  # a query and a key must be equally wide
    has_vector_per_score: bool = False  # every score is made of a vector of its own, which takes memory
    is_fused: bool = False  # scaled_dot_product_attention computes it
    gradient_derivation: Derivation | None = None  # the lines of dq


class PositionTraits(ParameterTraits):
    """What a position may declare."""

    acts_on: Literal["", "embeddings", "qk", "scores"] = ""
    paired_columns: Callable[[AnyPart, int], int] | None = None  # (part, width) → columns in pairs; odd or 0 is refused
    has_head_slopes: bool = False  # it subtracts a slope of each head times the distance


class RowMerging(NamedTuple):
    """How a normaliser makes the weights of a row from parts of its keys, whatever their order.

    Each key of a part has a numerator, and each row of it some totals. Where two parts are joined, the numerators of each
    are multiplied by a factor of their row. Once the totals are those of the whole row, its weights are the numerators
    finished by them, and so are sums of numerators times values.
    """

    # (the part, scores with −∞ where hidden: b h n m, visible; None: every key) → numerators, 0 where hidden, and totals;
    # the scores may be overwritten
    weigh: Callable[[AnyPart, Tensor, Tensor | None], tuple[Tensor, RowTotals]]
    # totals of two parts → of both, and the factors (b, h, n, 1) of the numerators of each; None: 1
    join: Callable[[RowTotals, RowTotals], tuple[RowTotals, Tensor | None, Tensor | None]]
    finish: Callable[[Tensor, RowTotals], Tensor]  # (numerators or sums of them: b h n ·, totals) → b h n ·


class NormalizerTraits(PartTraits):
    """What a normaliser may declare; either `merging` or `whole_row_reason`."""

    merging: RowMerging | None = None  # of a softmax the totals begin with the largest score and Σ e^(s − it)
    whole_row_reason: str = ""  # why rows cannot be merged from parts

    is_distribution: bool = False  # the weights of a row are not negative and sum to 1
    is_exponential: bool = False  # weights are e^s / Σ e^s over every visible key, so that a row has a log-sum-exp
    has_denominator: bool = False  # a sink may join the denominator
    is_ratio_of_sum: bool = False  # weights are scores over their sum, which may be 0 or of negative terms
    is_key_count_dependent: Callable[[AnyPart], bool] | None = None  # weights depend on how many keys there are
    is_fused: bool = False  # scaled_dot_product_attention computes it
    jacobian: str = ""  # the formula of ds
    gradient_derivation: Derivation | None = None  # the lines of ds


class LinkTraits(PartTraits):
    """What a link of the chain may declare."""

    step: str = ""  # the step that it leaves
    grid_field: Literal["", "bias", "visible"] = ""  # what it takes from the grid
    part_choice: Literal["", "head_mixing", "position"] = ""  # the choice whose part it runs
    default_value: str = "none"
    value_words: tuple[str, ...] = ()  # what its value may be beside none and a number
    neutral_value: float | None = None  # the value with which it does nothing
    reads_whole_row: bool = False  # it cannot act on some keys of a row without the others
    is_scale: bool = False  # its value is what scaled_dot_product_attention calls scale
    is_mask: bool = False  # it makes −∞ of what is hidden, which stays −∞ from there on
    is_fused: bool = False  # scaled_dot_product_attention computes it


class NormTraits(ParameterTraits):
    """What a norm of queries and keys may declare."""

    is_after_position: Callable[[AnyPart], bool] | None = None  # it follows the position, which it precedes otherwise
    is_across_heads: Callable[[AnyPart], bool] | None = None  # over all heads' columns together


class ProjectionTraits(PartTraits):
    """What a projection may declare."""

    is_from_file: bool = False  # its arrays are the file's parameters
    is_identity: bool = False  # it has no arrays
    is_drawn: bool = False  # its arrays are drawn from a seed


class SinkTraits(ParameterTraits):
    """What a sink may declare."""


class DropoutTraits(PartTraits):
    """What dropout may declare."""

    drop: Callable[[Tensor, Tensor, AnyPart], Tensor] | None = None  # (w, kept: b h n m each) → b h n m


class MixingTraits(ParameterTraits):
    """What head mixing may declare."""

    mix_scores: Callable[[Tensor, Mapping[str, Tensor]], Tensor] | None = None  # what the link `mix` does
    scores_parameter: str = ""  # the array without which scores are not mixed
    scores_derivation: Derivation | None = None
    is_pairing: bool = False  # two heads become one after the normaliser, and share a value
    mixed_head: Callable[[AnyPart, int, int], int] | None = None  # (part, head, heads) → which head it becomes part of
    mix_visible: Callable[[Tensor, AnyPart], Tensor] | None = None  # what a mixed head may see
    transform_context: Callable[[Tensor, Mapping[str, Tensor], AnyPart], Tensor] | None = None  # of each head
    context_formula: str = ""
    context_derivation: Derivation | None = None
