"""What there is, gathered from the declarations: for `attn list`, and for the README's catalogue."""

from __future__ import annotations

from attncli.output_formats import load_output_formats
from attncli.parts.links import link
from attncli.parts.traits import LinkTraits
from attncli.presets import PRESETS, Preset, parse_preset_name, preset_choices
from attncli.registry import Member, Traits, format_value
from attncli.types import BASE_STEPS, Json
from attncli.variant import CHOICES, FAMILIES, Variant


def build_catalogue() -> dict[str, Json]:
    """Family → member → what it says of itself."""
    return {
        **{family.plural: {member.name: _describe_member(member) for member in family} for family in FAMILIES.values()},
        "variants": {preset.name: _describe_preset(preset) for preset in PRESETS.values()},
        "steps": {name: {"summary": f"axes {', '.join(axes)}"} for name, axes in _all_steps().items()},
        "choices": {choice.flag: {"summary": choice.help, "values": choice.metavar} for choice in CHOICES.values()},
    }


def describe_output_formats() -> dict[str, dict[str, str]]:
    """Every output format, with its suffixes; apart, because asking loads every writer."""
    made = load_output_formats().values()
    return {f.name: {"summary": ", ".join(f.suffixes) + (", to a file only" if f.is_binary else "")} for f in made}


def _format_axes(axes: tuple[str, ...]) -> str:
    return f"({', '.join(axes)})"


def _all_steps() -> dict[str, tuple[str, ...]]:
    """Every step some variant has, with its axes where the problem has them all."""
    links = {member.traits.step: BASE_STEPS["scores"] for member in link}
    return {**BASE_STEPS, **links}


def _describe_member(member: Member[Traits]) -> Json:
    formula = member.formula
    for option in member.options:
        formula = formula.replace("{" + option.name + "}", option.name)
    out: Json = {"formula": formula, "summary": member.summary}
    if member.options:
        out["options"] = [option.describe() for option in member.options]
    if member.parameters:
        out["parameters"] = [
            f"{p.name} {' or '.join(_format_axes(axes) for axes in (p.axes, *p.alternative_axes))}: {p.help}"
            for p in member.parameters
        ]
    if isinstance(member.traits, LinkTraits):
        out["step"] = member.traits.step
    laws = ", ".join(sorted(member.laws))
    out["keeps"] = "; ".join(filter(None, (laws or "no law", member.law_exceptions)))
    if member.source:
        out["source"] = member.source
    return out


def _describe_preset(preset: Preset) -> Json:
    if preset.layer_choices is None:
        return {"command": format_command_line(preset), "summary": preset.summary, "source": preset.source}
    differ = f"this is layer 0, and layers differ: attn list variants {preset.name}:layer=3 prints layer 3"
    return {
        "command": format_command_line(preset, 0),
        "summary": preset.summary,
        "layer": differ,
        "source": preset.source,
    }


def describe_named_variant(text: str) -> Json:
    """What a named variant says of itself; of one layer, where one is named.

    Raises:
        OptionError: there is none of that name, or it has no layers.
    """
    found, layer = parse_preset_name(text)
    if layer is None:
        return _describe_preset(found)
    return {"command": format_command_line(found, layer), "summary": found.summary, "source": found.source}


def format_command_line(preset: Preset, layer: int | None = None) -> str:
    """A preset written out as the options it stands for; what it asks for stands in capitals."""
    choices = preset_choices(preset, layer)
    chosen = Variant(**choices).describe()
    words = [f"{CHOICES[name].flag} {_quote(format_value(chosen[name]))}" for name in choices]
    wanted = {
        "heads": "--heads H",
        "kv_heads": "--kv-heads G",
        "memory": "--with memory=FILE",
        "window": "--window LEFT,RIGHT",
    }
    return " ".join(["attn compute INPUT", *words, *(wanted[ask] for ask in preset.required_choices)])


def _quote(text: str) -> str:
    return f"'{text}'" if any(c in text for c in " ()") else text
