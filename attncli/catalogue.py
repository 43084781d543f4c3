"""Collect everything that is declared, for `attn list` and for docs/catalogue.md. Entry: `build_catalogue`."""

from __future__ import annotations

from attncli.output_formats import load_output_formats
from attncli.parts.links import link
from attncli.parts.traits import LinkTraits
from attncli.presets import PRESETS, Preset, parse_preset_name, preset_choices
from attncli.registry import Member, Parameter, Traits, format_value
from attncli.types import BASE_STEPS, Json
from attncli.variant import CHOICES, FAMILIES, Variant


def build_catalogue() -> dict[str, Json]:
    """Return family → member → its description."""
    return {
        **{family.plural: {member.name: _describe_member(member) for member in family} for family in FAMILIES.values()},
        "variants": {preset.name: _describe_preset(preset) for preset in PRESETS.values()},
        "steps": {name: {"summary": f"axes {', '.join(axes)}"} for name, axes in _all_steps().items()},
        "choices": {choice.flag: {"summary": choice.help, "values": choice.metavar} for choice in CHOICES.values()},
    }


def describe_output_formats() -> dict[str, dict[str, str]]:
    """Return every output format with its suffixes; on its own, because it loads every writer."""
    formats = load_output_formats().values()
    return {
        format.name: {
            "summary": ", ".join((*format.suffixes, "to a file only") if format.is_binary else format.suffixes)
        }
        for format in formats
    }


def _format_shapes(parameter: Parameter) -> str:
    return " or ".join(f"({', '.join(axes)})" for axes in (parameter.axes, *parameter.alternative_axes))


def _all_steps() -> dict[str, tuple[str, ...]]:
    """Return every step that some variant has, with its axes where the problem has them all."""
    link_steps = {member.traits.step: BASE_STEPS["scores"] for member in link}
    return {**BASE_STEPS, **link_steps}


def _describe_member(member: Member[Traits]) -> Json:
    formula = member.formula
    for option in member.options:
        formula = formula.replace("{" + option.name + "}", option.name)
    description: Json = {"formula": formula, "summary": member.summary}
    if member.options:
        description["options"] = [option.describe() for option in member.options]
    if member.parameters:
        description["parameters"] = [
            f"{parameter.name} {_format_shapes(parameter)}: {parameter.help}" for parameter in member.parameters
        ]
    if isinstance(member.traits, LinkTraits):
        description["step"] = member.traits.step
    laws = ", ".join(sorted(member.laws))
    description["keeps"] = "; ".join(filter(None, (laws or "no law", member.law_exceptions)))
    if member.source:
        description["source"] = member.source
    return description


def _describe_preset(preset: Preset) -> Json:
    if preset.layer_choices is None:
        return {"command": format_command_line(preset), "summary": preset.summary, "source": preset.source}
    return {
        "command": format_command_line(preset, 0),
        "summary": preset.summary,
        "layer": f"this is layer 0, and layers differ: attn list variants {preset.name}:layer=3 prints layer 3",
        "source": preset.source,
    }


def describe_named_variant(text: str) -> Json:
    """Return the description of a named variant; of one layer, where one is named.

    Raises:
        OptionError: there is none of that name, or it has no layers.
    """
    preset, layer = parse_preset_name(text)
    if layer is None:
        return _describe_preset(preset)
    return {"command": format_command_line(preset, layer), "summary": preset.summary, "source": preset.source}


def format_command_line(preset: Preset, layer: int | None = None) -> str:
    """Write a preset as the options that it stands for, with the values of those that it requires in capitals."""
    choices = preset_choices(preset, layer)
    description = Variant(**choices).describe()
    options = [f"{CHOICES[name].flag} {_quote(format_value(description[name]))}" for name in choices]
    required = [_REQUIRED_OPTIONS[name] for name in preset.required_choices]
    return " ".join(["attn compute INPUT", *options, *required])


_REQUIRED_OPTIONS = {
    "heads": "--heads H",
    "kv_heads": "--kv-heads G",
    "memory": "--with memory=FILE",
    "window": "--window LEFT,RIGHT",
}


def _quote(text: str) -> str:
    return f"'{text}'" if any(c in text for c in " ()") else text
