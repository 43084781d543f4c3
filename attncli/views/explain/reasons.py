"""Why each step is taken: a sentence of the step, and that of the part which computes it. `with_reason` is the entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from attncli.parts.links import link
from attncli.plan import Plan
from attncli.views.explain.page import Section

# Steps of the chain have the sentences of their links instead.
STEP_REASONS: Mapping[str, str] = {
    "positioned_embeddings": "Attention by itself does not know the order of the tokens, so each embedding is marked with its position.",
    "q": "The query says what this token looks for.",
    "k": "A key says what its token can be found by.",
    "v": "A value is what its token passes on to those that look at it.",
    "normed_q": "The query is brought to one size before it is compared.",
    "normed_k": "The keys are brought to one size before they are compared.",
    "positioned_q": "The query learns its position.",
    "positioned_k": "The keys learn their positions.",
    "present_k": "The keys of earlier tokens were kept, so that they need not be computed again.",
    "present_v": "The values of earlier tokens were kept, so that they need not be computed again.",
    "scores": "A score says how well a key answers the query.",
    "mask": "It says which keys each query may see.",
    "max_score": "the largest score of a visible key",
    "log_sum_exp": "the logarithm of the sum of all e^s",
    "entropy": "0 where one key has all the weight",
    "visible_keys": "the keys that the mask leaves",
    "sink_weights": "The sink takes the weight that goes to no key.",
    "weights": "A weight says how much of each value the query takes.",
    "dropout_weights": "Some of the weights are dropped.",
    "mixed_weights": "The weights of several heads are combined.",
    "top_keys": "These are the keys with the largest weights.",
    "top_weights": "These are the largest weights.",
    "head_context": "The context of a head is the mixture of values that the query takes.",
    "normed_context": "Every pair of heads is brought to one size before the heads are joined.",
    "context": "The context is what the query takes from all keys: the new vector of the token.",
    "output": "W_o combines what the heads found into the vector that the next layer receives.",
}


def with_reason(section: Section, plan: Plan) -> Section:
    """A section with the reasons of its step; one that is no step stays as it is."""
    if section.is_idle or section.is_heading:
        return section
    names = section.title.split(" and ")
    sentences = [STEP_REASONS.get(name, "") for name in names] + [
        sentence for name in names for sentence in _reasons_of_parts(name, plan)
    ]
    return dataclasses.replace(section, why=" ".join(dict.fromkeys(filter(None, sentences))))


def _reasons_of_parts(step_name: str, plan: Plan) -> Iterator[str]:
    """The sentences of the parts that compute a step."""
    variant = plan.variant
    parts_of_steps = {
        "positioned_embeddings": variant.position,
        "normed_q": variant.qk_norm,
        "positioned_q": variant.position,
        "scores": variant.score,
        "weights": variant.normalizer,
        "dropout_weights": variant.dropout,
        "mixed_weights": variant.head_mixing,
    }
    if step_name in parts_of_steps:
        yield parts_of_steps[step_name].member.why
    if step_name == "q" and plan.problem.embeddings is not None:
        yield variant.projection.member.why
    if step_name == "weights" and not variant.sink.is_none:
        yield variant.sink.member.why
    for chain_link in plan.chain:
        if chain_link.step == step_name:
            yield chain_link.part.member.why if chain_link.part else link[chain_link.name].why
            if chain_link.is_mask and plan.mask is not None and "not " not in str(plan.mask):
                yield from (part.member.why for part in plan.mask.iter_parts())
