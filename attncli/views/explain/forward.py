"""The order of the page: every step of one query in one head, from its vector to its context. `head_sections` is the entry."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.parts.traits import PartTraits
from attncli.registry import Part
from attncli.text import join_names
from attncli.views.explain.context import context_section, normed_context_section
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.masking import mask_section
from attncli.views.explain.page import Section
from attncli.views.explain.vectors import (
    norm_or_position_section,
    past_section,
    positioned_embeddings_section,
    projection_sections,
)
from attncli.views.explain.weights import per_key_section, statistics_section, weights_section

SectionOrIdleName = Section | str  # a section, or the name of something that does nothing in this variant


def head_sections(head: HeadValues) -> Iterator[Section]:
    """Every step in order; in full, what does nothing in this variant is named in grey lines between them."""
    idle_names: list[str] = []
    for item in (*_vector_sections(head), *_score_sections(head), *_weight_sections(head)):
        if isinstance(item, str):
            if head.focus.full:
                idle_names.append(item)
            continue
        if idle_names:
            yield _idle_section(idle_names)
            idle_names = []
        yield item
    if idle_names:
        yield _idle_section(idle_names)


def _idle_section(names: list[str]) -> Section:
    return Section("no " + join_names(names, "or"), is_idle=True)


def _vector_sections(head: HeadValues) -> Iterator[SectionOrIdleName]:
    """Embeddings, projections, norms and positions in the order in which they are applied, and the cache."""
    variant, steps = head.plan.variant, head.steps
    if "positioned_embeddings" in steps:
        yield positioned_embeddings_section(head)
    yield from projection_sections(head)
    parts: dict[str, Part[PartTraits]] = {"normed": variant.qk_norm, "positioned": variant.position}
    q_steps = head.steps_of("q")
    order = list(parts)
    if "normed_q" in q_steps and "positioned_q" in q_steps:
        order.sort(key=lambda prefix: q_steps.index(f"{prefix}_q"))
    for prefix in order:
        if f"{prefix}_q" in steps:
            yield norm_or_position_section(head, f"{prefix}_q", parts[prefix])
            yield norm_or_position_section(head, f"{prefix}_k", parts[prefix])
        elif prefix == "normed":
            yield "qk-norm"
        elif not variant.position.traits.acts_on:
            yield "position"
    for letter in "kv":
        if f"present_{letter}" in steps:
            yield past_section(head, letter)


def _score_sections(head: HeadValues) -> Iterator[SectionOrIdleName]:
    """Raw scores, and each link of the chain."""
    variant = head.plan.variant
    yield per_key_section(head, "scores", variant.score, variant.score.traits.derivation)
    links = list(head.plan.chain)  # those that do something, in the chain's order
    for name in variant.chain:
        if links and name == links[0].name:
            link = links.pop(0)
            if link.is_mask:
                yield mask_section(head, link)
            else:
                yield per_key_section(head, link.step, link.part, link.derivation, link.value)
        elif name != "position" or not variant.position.traits.acts_on:
            yield name


def _weight_sections(head: HeadValues) -> Iterator[SectionOrIdleName]:
    """The normaliser, what is done to weights, and the context."""
    variant, steps = head.plan.variant, head.steps
    if "sink_weights" not in steps:
        yield "sink"
    yield weights_section(head)
    if head.focus.full and not head.focus.blank_steps:  # the largest score would give a gap away
        yield statistics_section(head)
    parts: dict[str, tuple[str, Part[PartTraits]]] = {
        "dropout": ("dropout_weights", variant.dropout),
        "head mixing": ("mixed_weights", variant.head_mixing),
    }
    for name, (step_name, part) in parts.items():
        if step_name in steps:
            yield per_key_section(head, step_name, part, part.traits.derivation)
        else:
            yield name
    if "context" in steps:
        yield context_section(head)
    if "normed_context" in steps:
        yield normed_context_section(head)
