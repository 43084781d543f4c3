"""What is done to the length of queries and keys: (x: … d, gain) → … d. The gain is the parameter q_norm or k_norm."""

from __future__ import annotations

from typing import Annotated, Literal

from attncli.registry import Family, Parameter, Range
from attncli.types import Tensor

norm = Family("qk-norm", "queries and keys brought to one length", plural="qk-norms")

GAINS = (
    Parameter(
        "q_norm",
        ("d",),
        "gain of the queries: of one head, of each, or (scope=full) of all columns",
        also=(("H", "d"),),
    ),
    Parameter("k_norm", ("d",), "gain of the keys, the same way", also=(("G", "d"),)),
)
_LAWS = ("prefix", "decode", "permutation")
Eps = Annotated[float, Range(above=0)]
Scope = Literal["head", "full"]
At = Literal["before", "after"]


@norm("none", "x", laws=_LAWS)
def none(x: Tensor) -> Tensor:
    """Queries and keys as they are."""
    return x


@norm("l2", "x / max(|x|, eps)", source="Henry et al. 2020, §3", parameters=GAINS, of_keys=("k_norm",), laws=_LAWS)
def l2(x: Tensor, *, eps: Eps = 1e-12, scope: Scope = "head", at: At = "before") -> Tensor:
    """To length 1; scope=full over all heads' columns together, at=after the position acts."""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=eps)


@norm(
    "rms",
    "x / √(mean x² + eps)",
    source="Zhang and Sennrich 2019, §3; Dehghani et al. 2023, §2",
    parameters=GAINS,
    of_keys=("k_norm",),
    laws=_LAWS,
)
def rms(x: Tensor, *, eps: Eps = 1e-6, scope: Scope = "head", at: At = "before") -> Tensor:
    """To root mean square 1, as in Qwen 3, Gemma 3 and (scope=full) OLMo 2."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@norm(
    "layer",
    "(x − mean x) / √(var x + eps)",
    source="Ba et al. 2016, §3; Dehghani et al. 2023, §2",
    parameters=GAINS,
    of_keys=("k_norm",),
    laws=_LAWS,
)
def layer(x: Tensor, *, eps: Eps = 1e-5, scope: Scope = "head", at: At = "before") -> Tensor:
    """To mean 0 and variance 1, as in ViT-22B and Cohere."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
