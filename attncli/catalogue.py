"""What there is, gathered from the declarations: for `attn list`, and for the README's catalogue."""

from __future__ import annotations

from attncli.output_formats import formats
from attncli.parts.links import link
from attncli.parts.traits import LinkTraits
from attncli.presets import PRESETS, Preset, choices_of, named
from attncli.registry import Member, Traits, spelled
from attncli.types import BASE_STEPS, Json
from attncli.variant import CHOICES, FAMILIES, Variant


def catalogue() -> dict[str, Json]:
    """Family → member → what it says of itself."""
    return {
        **{family.plural: {member.name: _member(member) for member in family} for family in FAMILIES.values()},
        "variants": {preset.name: _preset(preset) for preset in PRESETS.values()},
        "steps": {name: {"summary": f"axes {', '.join(axes)}"} for name, axes in _steps().items()},
        "choices": {choice.option: {"summary": choice.help, "values": choice.metavar} for choice in CHOICES.values()},
    }


def output_formats() -> dict[str, dict[str, str]]:
    """Every output format, with its suffixes; apart, because asking loads every writer."""
    made = formats().values()
    return {f.name: {"summary": ", ".join(f.suffixes) + (", to a file only" if f.binary else "")} for f in made}


def _axes(axes: tuple[str, ...]) -> str:
    return f"({', '.join(axes)})"


def _steps() -> dict[str, tuple[str, ...]]:
    """Every step some variant has, with its axes where the problem has them all."""
    links = {member.traits.step: BASE_STEPS["scores"] for member in link}
    return {**BASE_STEPS, **links}


def _member(member: Member[Traits]) -> Json:
    formula = member.formula
    for option in member.options:
        formula = formula.replace("{" + option.name + "}", option.name)
    out: Json = {"formula": formula, "summary": member.summary}
    if member.options:
        out["options"] = [option.describe() for option in member.options]
    if member.parameters:
        out["parameters"] = [
            f"{p.name} {' or '.join(_axes(axes) for axes in (p.axes, *p.also))}: {p.help}" for p in member.parameters
        ]
    if isinstance(member.traits, LinkTraits):
        out["step"] = member.traits.step
    laws = ", ".join(sorted(member.laws))
    out["keeps"] = "; ".join(filter(None, (laws or "no law", member.lawless)))
    if member.source:
        out["source"] = member.source
    return out


def _preset(preset: Preset) -> Json:
    if preset.layers is None:
        return {"command": command_line(preset), "summary": preset.summary, "source": preset.source}
    differ = f"this is layer 0, and layers differ: attn list variants {preset.name}:layer=3 prints layer 3"
    return {"command": command_line(preset, 0), "summary": preset.summary, "layer": differ, "source": preset.source}


def one_variant(text: str) -> Json:
    """What a named variant says of itself; of one layer, where one is named.

    Raises:
        OptionError: there is none of that name, or it has no layers.
    """
    found, layer = named(text)
    if layer is None:
        return _preset(found)
    return {"command": command_line(found, layer), "summary": found.summary, "source": found.source}


def command_line(preset: Preset, layer: int | None = None) -> str:
    """A preset written out as the options it stands for; what it asks for stands in capitals."""
    choices = choices_of(preset, layer)
    chosen = Variant(**choices).describe()
    words = [f"{CHOICES[name].option} {_quoted(spelled(chosen[name]))}" for name in choices]
    wanted = {
        "heads": "--heads H",
        "kv_heads": "--kv-heads G",
        "memory": "--with memory=FILE",
        "window": "--window LEFT,RIGHT",
    }
    return " ".join(["attn compute INPUT", *words, *(wanted[ask] for ask in preset.asks)])


def _quoted(text: str) -> str:
    return f"'{text}'" if any(c in text for c in " ()") else text
