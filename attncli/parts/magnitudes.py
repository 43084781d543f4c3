"""Lengths and means of squares that neither overflow nor underflow, for the parts that square, and sums with twice the digits.

A row that is squared is divided by a power of two near its largest magnitude first (Blue 1978, ACM TOMS 4(1)). Such a
division is exact, so ordinary numbers give the same digits as without it. Half precision is widened to float32.
"""

from __future__ import annotations

from attncli.types import Tensor


def widen_half(x: Tensor) -> Tensor:
    """Widen half precision to float32: there a value of 256 has a square that overflows."""
    return x.float() if x.element_size() < 4 else x


def scale_rows(x: Tensor, smallest: float = 0.0) -> tuple[Tensor, Tensor]:
    """Divide each row by a power of two near its largest magnitude: (… d) → (… d), and the powers, (… 1).

    Args:
        smallest: a row whose magnitudes are all below this is divided as if they were this.
    """
    x = widen_half(x)
    largest = x.detach().abs().amax(-1, keepdim=True).clamp(min=smallest)  # (… 1)
    largest = largest.where((largest > 0) & largest.isfinite(), 1)  # of zeros, NaN and ∞ there is none
    scale = largest / (2 * largest.frexp()[0])  # (… 1); the mantissa is in [½, 1), so that 2ᵉ⁻¹ is left
    return x / scale, scale


def root_mean_square(scaled: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """√(mean x² + eps) / scale of rows x = scaled · scale: (… d), (… 1) → (… 1); and the mean of x², ∞ beyond the dtype."""
    mean = scaled.square().mean(-1, keepdim=True)
    return (mean + divide_number(eps, scale) / scale).sqrt(), mean * scale * scale


def divide_number(number: float, x: Tensor) -> Tensor:
    """Compute number / x in x's dtype; torch takes `number / x` as number · (1/x), and 1/x may overflow."""
    return x.new_full((), number) / x


def divide_rows(scaled: Tensor, length: Tensor) -> Tensor:
    """Divide each row by its length, (… d), (… 1) → (… d); a row of zeros remains one where its length is 0, too."""
    return scaled / length.masked_fill(length == 0, 1)


def sum_exactly(x: Tensor) -> tuple[Tensor, Tensor]:
    """Σ x, and what it lacks for rounding: (… m) → (… 1) each, so that 1e16 + 1 − 1e16 is 1 once they are added.

    Numbers are added in pairs, and what each addition rounds off is added up as well (Ogita et al. 2005, SIAM J. Sci.
    Comput. 26(6), Alg. 3.1 and 4.1).
    """
    length = 1 << max(0, x.shape[-1] - 1).bit_length()
    totals = x.new_zeros(*x.shape[:-1], length)
    totals[..., : x.shape[-1]] = x
    rounded_off = x.new_zeros(*x.shape[:-1], 1)
    while totals.shape[-1] > 1:
        totals, lost = add_exactly(*totals.chunk(2, dim=-1))
        rounded_off = rounded_off + lost.sum(-1, keepdim=True)
    return totals, rounded_off


def add_exactly(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b, and what it lacks for rounding."""
    total = a + b
    b_as_added = total - a
    return total, (a - (total - b_as_added)) + (b - b_as_added)
