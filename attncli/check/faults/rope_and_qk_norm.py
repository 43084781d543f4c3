"""A rotation that goes wrong within (pairs, exponents, signs, the axis), options of a part that are left out, and the norm of q and k."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import unregistered_part, with_part
from attncli.check.trials import Trials
from attncli.parts.traits import NormTraits
from attncli.plan import Plan
from attncli.registry import AnyPart, Part
from attncli.types import Tensor

Rotate = Callable[[Tensor, Tensor, AnyPart], Tensor]  # (x: b h t d, positions: b 1 t 1, rope) → b h t d
_SCALING_OPTIONS = (
    "scaling", "factor", "original", "low", "high", "beta-fast", "beta-slow", "attention-factor", "mscale",
    "mscale-all-dim", "truncate",
)  # fmt: skip


@fault
def rope_wrong_within(trials: Trials) -> Iterator[Hypothesis]:
    """Pairs, exponents, signs or the axis are wrong."""
    plan, rope = trials.plan, trials.plan.variant.position
    if plan.q_pos is None or rope.name != "rope":
        return
    layout = rope.option_value("layout")
    halves, pairs = "columns i and i + d/2", "columns 2i and 2i + 1"
    turned, angles = (halves, pairs) if layout == "half" else (pairs, halves)
    ways: dict[str, tuple[str, Rotate]] = {
        "rope: angles of the other layout": (
            f"with rope that turns {turned} by angles laid out for {angles}: repeat cos and sin as the pairs lie",
            _rotate_by_other_angles,
        ),
        "rope: sign missing": (
            "with rope that adds y sin where it is subtracted: (x cos − y sin, x sin + y cos)",
            partial(_rotate, sign=-1),
        ),
        "rope: frequencies of the whole width": (
            "with rope's frequencies over the width of a head, theta^(−2i/d): only dims of them turn, so it is theta^(−2i/dims)",
            partial(_rotate, is_over_width=True),
        ),
        "rope: exponent i/d": (
            "with rope of frequencies theta^(−i/d) for pair i: it is theta^(−2i/d)",
            partial(_rotate, exponent=0.5),
        ),
        "rope: exponent positive": (
            "with rope of frequencies theta^(2i/d) for pair i: the exponent is negative",
            partial(_rotate, exponent=-1.0),
        ),
        "rope: last columns": (
            "with the last columns of each head turned, and not the first",
            partial(_rotate, is_last=True),
        ),
        "rope: along the heads": (
            "with rope by the index of the head, not of the token: check the axis of the positions",
            _rotate_along_heads,
        ),
        "rope before the heads are split": (
            "with rope over all heads' columns together, before they are split: rotate each head",
            _rotate_before_split,
        ),
        "rope: the first columns, of rest and turned": (
            "with the first columns of each head turned, where what is turned comes last and was moved to the front",
            _rotate_as_moved,
        ),
        "rope: cos and sin exchanged": ("with cos and sin exchanged in rope", partial(_rotate, is_exchanged=True)),
    }
    for name, (text, rotate) in ways.items():
        yield Hypothesis(name, text, partial(_with_rotation, plan, rotate))


def _with_rotation(plan: Plan, rotate: Rotate) -> Plan | None:
    rope = plan.variant.position
    if rope.option_value("scaling") != "none":
        return None

    def replacement(x: Tensor, positions: Tensor, length: int, parameters: Mapping[str, Tensor]) -> Tensor:
        return rotate(x, positions, rope)

    return with_part(plan, "position", unregistered_part("position", "rewritten", replacement, rope.traits))


def _count_columns(d: int, rope: AnyPart) -> int:
    return rope.option_value("dims") or int(d * (rope.option_value("fraction") or 1))


def _rotate(
    x: Tensor,
    positions: Tensor,
    rope: AnyPart,
    *,
    sign: int = 1,
    exponent: float = 1.0,
    is_over_width: bool = False,
    is_last: bool = False,
    is_exchanged: bool = False,
    has_other_angles: bool = False,
) -> Tensor:
    """Rotate pairs of columns, with one thing otherwise."""
    import torch

    d = x.shape[-1]
    r = _count_columns(d, rope)
    start = d - r if is_last != (rope.option_value("columns") == "last") else 0
    i = torch.arange(0, r, 2, dtype=torch.float64)
    omega = rope.option_value("theta") ** (-exponent * i / (d if is_over_width else r))  # (r/2,)
    angle = positions * omega  # (b, 1, t, r/2)
    before, turned, after = x[..., :start], x[..., start : start + r], x[..., start + r :]
    is_interleaved = rope.option_value("layout") == "interleaved"
    a, b = (turned[..., ::2], turned[..., 1::2]) if is_interleaved else turned.chunk(2, -1)
    if has_other_angles:
        angles = angle.repeat_interleave(2, -1) if not is_interleaved else torch.cat([angle, angle], -1)
        angle_a, angle_b = (angles[..., ::2], angles[..., 1::2]) if is_interleaved else angles.chunk(2, -1)
    else:
        angle_a = angle_b = angle
    wave_a, wave_b = (torch.sin, torch.cos) if is_exchanged else (torch.cos, torch.sin)
    pair = (a * wave_a(angle_a) - sign * b * wave_b(angle_a), a * wave_b(angle_b) + b * wave_a(angle_b))
    turned = torch.stack(pair, -1).flatten(-2) if is_interleaved else torch.cat(pair, -1)
    return torch.cat([before, turned, after], -1)


def _rotate_by_other_angles(x: Tensor, positions: Tensor, rope: AnyPart) -> Tensor:
    return _rotate(x, positions, rope, has_other_angles=True)


def _rotate_as_moved(x: Tensor, positions: Tensor, rope: AnyPart) -> Tensor:
    """Put the turned columns back behind the others, and turn as many of the first."""
    d = x.shape[-1]
    shift = d - _count_columns(d, rope)
    shift = shift if rope.option_value("columns") == "first" else -shift
    return _rotate(x.roll(shift, -1), positions, rope).roll(-shift, -1)


def _rotate_along_heads(x: Tensor, positions: Tensor, rope: AnyPart) -> Tensor:
    import torch

    return _rotate(x, torch.arange(x.shape[1], dtype=torch.float64).reshape(-1, 1, 1), rope)


def _rotate_before_split(x: Tensor, positions: Tensor, rope: AnyPart) -> Tensor:
    merged = x.transpose(1, 2).flatten(2)[:, None]  # (b, 1, t, h·d)
    return _rotate(merged, positions, rope).squeeze(1).unflatten(-1, (x.shape[1], -1)).transpose(1, 2)


# ── options left out ─────────────────────────────────────────────────────────────────────────────
@fault
def options_left_out(trials: Trials) -> Iterator[Hypothesis]:
    """An option of a part that was given is left out, a scaling together with what it needs."""
    variant = trials.plan.variant
    for choice in ("position", "qk_norm", "score", "normalizer"):
        part: AnyPart = variant[choice]
        required = {option.name for option in part.member.options if option.required}
        scaling = _SCALING_OPTIONS if choice == "position" else ()
        groups: dict[str, tuple[str, ...]] = {
            name: (name,) for name in part.option_values if name not in (*scaling, *required)
        }
        if choice == "position" and "scaling" in part.option_values:
            groups["scaling"] = _SCALING_OPTIONS
        for name, dropped in groups.items():
            left = {key: value for key, value in part.option_values.items() if key not in dropped}
            shorter = dataclasses.replace(part, option_values=left)
            given = ",".join(f"{key}={value}" for key, value in part.option_values.items() if key in dropped)
            yield Hypothesis(
                f"{part.name} without {name}",
                f"with {part.name} without {given}",
                partial(_with_shorter_part, trials, choice, shorter),
                0,
            )


def _with_shorter_part(trials: Trials, choice: str, part: Part) -> Plan:  # type: ignore[type-arg]
    return trials.with_choices(**{choice: part})


# ── the norm of q and k ──────────────────────────────────────────────────────────────────────────
@fault
def wrong_qk_norm(trials: Trials) -> Iterator[Hypothesis]:
    """The norm's gain is left out or has 1 added, or only one of q and k is normalised."""
    plan, norm = trials.plan, trials.plan.variant.qk_norm
    if norm.is_none:
        return
    parameters = plan.problem.parameters
    gains = [name for name in ("q_norm", "k_norm") if name in parameters]
    for names in (tuple(gains), *((name,) for name in gains if len(gains) > 1)):
        if not names:
            continue
        text = " and ".join(names)
        without = {name: x for name, x in parameters.items() if name not in names}
        yield Hypothesis(
            f"{text} forgotten",
            f"without the gain of the norm ({text})",
            partial(trials.with_fields, parameters=without),
            0,
        )
        yield Hypothesis(
            f"1 + {text}",
            f"with 1 added to the gain ({text}), as Gemma stores it: here the gain is given as it is",
            partial(trials.with_fields, parameters={**parameters, **{name: 1 + parameters[name] for name in names}}),
        )
    for skipped, letter in enumerate("qk"):
        yield Hypothesis(
            f"norm forgotten on {letter}",
            f"without the norm on {letter}: q and k are both normalised",
            partial(_with_one_norm, trials, skipped),
        )


def _with_one_norm(trials: Trials, skipped: int) -> Plan:
    """Make the plan that leaves q (0) or k (1) as it is, gain and all."""
    plan, norm = trials.plan, trials.plan.variant.qk_norm
    calls = itertools.cycle((0, 1))
    parameters = {x: y for x, y in plan.problem.parameters.items() if x != ("q_norm", "k_norm")[skipped]}

    def normalize(x: Tensor) -> Tensor:
        return x if next(calls) == skipped else norm(x)

    plan = trials.with_fields(parameters=parameters)
    is_across_heads, is_after = norm.traits.is_across_heads, norm.traits.is_after_position
    of_norm = {
        "is_across_heads": (lambda _: True) if is_across_heads and is_across_heads(norm) else None,
        "is_after_position": (lambda _: True) if is_after and is_after(norm) else None,
    }
    traits = NormTraits(**vars(norm.traits) | of_norm)
    return with_part(plan, "qk_norm", unregistered_part("qk-norm", "rewritten", normalize, traits))
