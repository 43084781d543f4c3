"""The chain: which links do something on this problem, in which order, each bound to its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from attncli.errors import wrong
from attncli.parts.links import link
from attncli.registry import Member, Part
from attncli.types import Problem
from attncli.variant import Variant


@dataclass(frozen=True)
class Link:
    """One link of the chain that does something, bound to its value, and the step it leaves."""

    name: str
    step: str
    formula: str
    run: Callable[..., Any]  # (scores, grid) → scores
    value: float | None = None
    why: str = ""  # where its value comes from, if nobody said it
    facts: Mapping[str, Any] = field(default_factory=dict)  # how it works its line, and its slope
    part: Part | None = None  # the one that says what it does


def chain_of(p: Problem, v: Variant, width: int, masked: bool) -> tuple[Link, ...]:
    """The links that do something, in the chain's order; one that stands again leaves a step of its own.

    Raises:
        InputError: the chain leaves out what this problem needs.
    """
    used = {name: made for name in link.members if (made := _bound(link[name], p, v, width, masked))}
    for name in used:
        if name not in v["chain"]:
            way = f"add {name} to --chain where it should stand{', or say --scale none' if name == 'scale' else ''}"
            chain = ",".join(v["chain"]) or "none"
            raise wrong("left-out", f"the chain {chain} leaves out {name}, which this problem needs", help=way)
    out: list[Link] = []
    for name in v["chain"]:
        if name in used:
            again = sum(done.name == name for done in out)
            out.append(replace(used[name], step=used[name].step + (f"_{again + 1}" if again else "")))
    return tuple(out)


def _bound(member: Member, p: Problem, v: Variant, width: int, masked: bool) -> Link | None:
    """The link with its value, or with the part that says what it does; None where it does nothing."""
    step: str = member.facts["step"]
    reads = member.facts.get("reads", "")
    if reads in ("bias", "visible"):
        there = p.bias is not None if reads == "bias" else masked
        return Link(member.name, step, member.formula, member.function, facts=member.facts) if there else None
    if reads:  # a choice of its own, which may act on scores
        part: Part = v[reads]
        there = part.member.facts.get("acts") == "scores" or part.member.facts.get("scores_need") in p.parameters
        run = partial(member.function, part=part)
        facts = {"reads": reads, "worked": part.member.facts.get("scores_worked", part.member.facts.get("worked"))}
        return Link(member.name, step, part.member.formula, run, facts=facts, part=part) if there else None
    value, why = v[member.name.replace("-", "_")], ""
    if value == "auto":  # the score knows its scale
        rule = v["score"].member.facts.get("scale")
        value, why = (rule(width), f"1/√{width}") if rule else (1, "")
    if value in ("none", member.facts.get("neutral")):
        return None
    option = member.options[0]
    formula = member.formula.format(**{option.name: f"{value:.6g}"}) + (f" = s / √d_k, d_k = {width}" if why else "")
    run = partial(member.function, **{option.argument: value})
    return Link(member.name, step, formula, run, value, why, member.facts)
