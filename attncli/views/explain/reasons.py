"""Why each step is taken: a sentence of the step, and that of the part which computes it. Entries: `with_reason`, `reasons_of_steps`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from attncli.parts.links import link
from attncli.plan import Plan
from attncli.views.explain.head_values import letter_of
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


# By what the gradient is of; the parameters by their first letter.
GRADIENT_REASONS: Mapping[str, str] = {
    "the context": "It says how much the loss changes with each number of the context; the layers above pass it back.",
    "v": "The gradient reaches a value through its weight: a key with a large weight receives much of it.",
    "weights": "A weight multiplies its value, so its gradient is large where the value points along the gradient that arrives.",
    "scores": "The gradient reaches a score through the weights that are made from it.",
    "q": "The gradient reaches the query through every score; each key pulls at it as strongly as the gradient of its score.",
    "k": "The gradient reaches a key through the scores of every query that sees it.",
    "w_": "One matrix serves every token, so the gradients of all tokens add up.",
    "b_": "A bias is added to every token, so the gradients of all tokens add up.",
    "the embedding": "The gradient reaches the embedding through each vector that is made from it, and these shares add up.",
    "the memory": "The gradient reaches the memory through each vector that is made from it, and these shares add up.",
}
_GRADIENT_OF_SOFTMAX = (
    "The weights always sum to 1, so what counts for a score is how far the gradient of its weight lies above or below "
    "the weighted mean of them all."
)


def with_reason(section: Section, plan: Plan) -> Section:
    """A section with the reasons of its step; one that is no step stays as it is."""
    if section.is_idle or section.is_heading:
        return section
    if section.title.startswith("gradient of "):
        return dataclasses.replace(section, why=_gradient_reason(section.title.removeprefix("gradient of "), plan))
    return dataclasses.replace(section, why=reasons_of_steps(section.title.split(" and "), plan))


def reasons_of_steps(names: Sequence[str], plan: Plan) -> str:
    """Return the sentences of steps that stand together, and those of the parts that compute them; empty: there are none."""
    sentences = [STEP_REASONS.get(name, "") for name in names] + [
        sentence for name in names for sentence in _reasons_of_parts(name, plan)
    ]
    return " ".join(dict.fromkeys(filter(None, sentences)))


def _gradient_reason(subject: str, plan: Plan) -> str:
    """Why the gradient of a step, of a parameter or of a token is what it is."""
    last_step = plan.chain[-1].step if plan.chain else "scores"
    if subject == last_step and plan.variant.normalizer.name == "softmax":
        return _GRADIENT_OF_SOFTMAX
    kinds = (subject, subject[:2], *(kind for kind in ("scores", "weights") if kind in subject), letter_of(subject))
    return next(GRADIENT_REASONS[kind] for kind in kinds if kind in GRADIENT_REASONS)


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
