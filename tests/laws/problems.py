"""Every part in every spelling, and a problem for each: what the laws are tried on."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

import attncli
from attncli.parts.dropout import dropout
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.parts.mixing import mixing
from attncli.parts.normalizers import normalizer
from attncli.parts.norms import norm
from attncli.parts.positions import position
from attncli.parts.projections import projection
from attncli.parts.scores import score
from attncli.parts.sinks import sink
from attncli.presets import Preset
from attncli.registry import Family, Member, Option
from attncli.variant import FAMILIES, Variant
from tests.helpers import draw_normal

N, M, D, H, B = 7, 5, 30, 3, 2  # queries, keys of a memory, width, heads, batch; 30 = 3 heads of 10
EXTRAS = {"segments": [0, 0, 1, 1, 1, 2, 2], "mask": (np.arange(49).reshape(7, 7) % 3 > 0).tolist()}


def some_value(option: Option) -> str:
    """A value that an option takes, so that every option of every part is tried."""
    if option.allowed_values:
        return option.allowed_values[-1]
    if option.kind is tuple:
        return "0+2"
    if option.kind is bool:
        return "no"
    if option.name in ("dim", "v-dim", "window"):
        return {"window": "5"}.get(option.name, "6")
    if option.kind is int:
        return "4"
    return {"low": "0.5", "fraction": "0.6", "theta": "50"}.get(
        option.name, "0.5" if option.range.below < math.inf else "2.5"
    )


WITH = {  # options that need others beside them
    "factor": "scaling=linear",
    "original": "scaling=linear,factor=2",
    "beta-fast": "beta-slow=0.5",
    "scaling": "fraction=0.6",
    "max-distance": "buckets=8",
}


def spellings(member: Member) -> list[str]:
    """The part with its required options, and with each of the others beside them."""
    required = [f"{o.name}={some_value(o)}" for o in member.options if o.required]
    others = [
        [f"{o.name}={some_value(o)}"] + ([WITH[o.name]] if o.name in WITH else [])
        for o in member.options
        if not o.required
    ]
    made = [member.name + (":" + ",".join(o) if o else "") for o in (required, *(required + other for other in others))]
    scalings = [
        f"rope:scaling={s},factor=4,original=8"
        for s in ("ntk", "dynamic", "yarn", "llama3", "longrope", "proportional")
    ]
    return [
        str(FAMILIES[member.family].parse(text))
        for text in dict.fromkeys(made + (scalings if member.name == "rope" else []))
    ]


def parts(family: Family) -> list[str]:
    return [text for member in family for text in spellings(member)]


def parameters_for(variant: Variant, width: int, seed: int = 11) -> dict[str, np.ndarray]:
    """Every array that the chosen parts take, in the shapes that they declare."""
    heads = variant["heads"] or 1
    d = width // heads
    out = {}
    for name in ("qk_norm", "position", "score", "sink", "head_mixing"):
        part = variant[name]
        lengths = part.traits.axis_lengths
        sizes = {"H": heads, "G": heads, "d": d, "d_k": d, "2d": 2 * d, "a": 11}
        sizes |= lengths(part, d) if lengths else {}
        if name == "qk_norm" and part.name != "none" and part.option_value("scope") == "full":
            sizes["d"] = width
        rng = np.random.default_rng(seed)
        out |= {p.name: rng.uniform(0.5, 1.5, [sizes[a] for a in p.axes]) for p in part.member.parameters}
    return out


def problem_for(text: str, seed: int = 0, n: int = N, variant: Variant | None = None, **more) -> attncli.Problem:
    fields = {"embeddings": draw_normal(seed, n, D)}
    if variant is not None:
        fields["parameters"] = parameters_for(variant, D)
    if "document" in text:
        fields["segments"] = EXTRAS["segments"][:n]
    if "given" in text and not text.startswith("given:"):
        fields["mask"] = np.array(EXTRAS["mask"])[:n, :n]
    return attncli.Problem(**(fields | more))


ONE_CHOICE = [
    *[{"score": s} for s in parts(score)],
    *[{"qk_norm": n} for n in parts(norm)],
    *[{"position": p} for p in parts(position)],
    *[{"sink": s} for s in parts(sink)],
    *[{"head_mixing": m, "heads": 2} for m in parts(mixing)],
    *[{"mask": m} for m in parts(mask)],
    *[{"normalizer": n} for n in parts(normalizer)],
    *[{"dropout": d, "seed": 1} for d in parts(dropout)],
    *[{"projection": p, "seed": 2} for p in parts(projection) if not p.startswith("given")],
    *[{m.name.replace("-", "_"): some_value(m.options[0])} for m in link if m.options],
]


# ── random products ──────────────────────────────────────────────────────────────────────────────
def mask_expressions() -> st.SearchStrategy[str]:
    leaf = st.sampled_from([text for text in parts(mask) if text not in ("document", "given")])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(lambda a: f"not ({a})"),
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        ),
        max_leaves=4,
    )


# ── named variants ───────────────────────────────────────────────────────────────────────────────
ANSWERS = {
    "heads": {"heads": 2},
    "kv_heads": {"kv_heads": 2},
    "memory": {},
    "window": {"mask": "causal and window:left=1"},
}


WIDE = 2 * 66  # two heads of 66: some models turn 64 columns of each


def preset_name(preset: Preset) -> str:
    return preset.name if preset.layer_choices is None else f"{preset.name}:layer=3"
