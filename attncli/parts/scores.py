"""How alike a query and a key are: (q: b h n d, k: b h m e, parameters) → b h n m. The scale is a link of the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attncli.registry import Family, Parameter
from attncli.types import Tensor

score = Family("score", "how alike a query and a key are")

Learned = Mapping[str, Tensor]
_LAWS = ("prefix", "decode", "permutation")
_HIDDEN = (
    Parameter("score_w_q", ("d", "a"), "the queries' half of W; the identity where absent"),
    Parameter("score_w_k", ("d_k", "a"), "the keys' half of W; the identity where absent"),
    Parameter("score_v", ("a",), "weighs the hidden units; ones where absent"),
)
_HALVES = ("score_w_q", "score_w_k")  # the identity where absent


def one_over_root(d: int) -> float:
    """1/√d: keeps the scores' variance at 1 when q and k have unit variance (Vaswani et al. 2017, §3.2.1)."""
    return float(1 / d**0.5)


@score(
    "dot",
    "q·k",
    source="Luong et al. 2015, §3.1; Vaswani et al. 2017, §3.2.1",
    laws=_LAWS,
    scale=one_over_root,  # what `--scale auto` means for this score; 1 where nothing stands
    same_width=True,  # a query and a key must be equally wide
    kernel=True,  # what fused kernels do
)
def dot(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """How far two vectors point the same way, times their lengths."""
    return q @ k.mT  # (b, h, n, m)


@score(
    "general",
    "q W kᵀ",
    source="Luong et al. 2015, §3.1",
    laws=_LAWS,
    parameters=(Parameter("score_w_q", ("d", "d_k"), "the bilinear form W", required=True),),
)
def general(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """A bilinear form between query and key, which may differ in width."""
    return q @ parameters["score_w_q"] @ k.mT  # (b, h, n, m)


@score(
    "additive",
    "v · tanh(q W_q + k W_k)",
    source="Bahdanau et al. 2015, App. A.1.2",
    laws=_LAWS,
    parameters=_HIDDEN,
    identity=_HALVES,
    spreads=True,  # each cell works on a vector
)
def additive(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """A layer of hidden units over query and key."""
    q = q @ parameters["score_w_q"] if "score_w_q" in parameters else q  # (b, h, n, a)
    k = k @ parameters["score_w_k"] if "score_w_k" in parameters else k  # (b, h, m, a)
    hidden = (q.unsqueeze(-2) + k.unsqueeze(-3)).tanh()  # (b, h, n, m, a)
    return hidden @ parameters["score_v"] if "score_v" in parameters else hidden.sum(-1)  # (b, h, n, m)


@score(
    "concat",
    "v · tanh(W [q; k])",
    source="Luong et al. 2015, §3.1",
    laws=_LAWS,
    parameters=_HIDDEN,
    identity=_HALVES,
    spreads=True,
)
def concat(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """The same as additive: the two matrices are the halves of W."""
    return additive(q, k, parameters)  # (b, h, n, m)


@score(
    "cosine", "q·k / (|q| |k|), 0 for a zero vector", source="Graves et al. 2014, §3.3.1", laws=_LAWS, same_width=True
)
def cosine(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """How far two vectors point the same way, whatever their lengths."""
    q, k = (x / x.norm(dim=-1, keepdim=True).masked_fill((x == 0).all(-1, keepdim=True), 1) for x in (q, k))
    return q @ k.mT  # (b, h, n, m)


@score(
    "euclidean", "−|q − k|²", source="Kim et al. 2021, §3.2 (L2 attention)", laws=_LAWS, same_width=True, spreads=True
)
def euclidean(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """How near two vectors are: minus the squared distance."""
    return -(q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1)  # (b, h, n, m)


@score(
    "kernel",
    "φ(q)·φ(k), φ(x) = elu(x) + 1, max(x, 0) or e^x",
    source="Katharopoulos et al. 2020, §3.2; with --normalizer sum it is linear attention",
    laws=_LAWS,
    same_width=True,
)
def kernel(q: Tensor, k: Tensor, parameters: Learned, *, phi: Literal["elu", "relu", "exp"] = "elu") -> Tensor:
    """A dot product of features that are never negative."""

    def features(x: Tensor) -> Tensor:
        if phi == "elu":
            return (x + 1).where(x > 0, x.clamp(max=0).exp())  # elu(x) + 1, to the last digit of a small e^x
        return x.clamp(min=0) if phi == "relu" else x.exp()

    return features(q) @ features(k).mT  # (b, h, n, m)
