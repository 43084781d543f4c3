"""Collect everything that is declared, for `attn list` and for docs/catalogue.md.

Entries: `build_catalogue`, and `search_catalogue`, which finds members by a word.
"""

from __future__ import annotations

from attncli.output_formats import load_output_formats
from attncli.parts.links import link
from attncli.parts.traits import LinkTraits
from attncli.presets import PRESETS, Preset, parse_preset_name, preset_choices
from attncli.registry import Member, Option, Parameter, Traits, format_value
from attncli.types import BASE_STEPS, Json
from attncli.variant import CHOICES, FAMILIES, Variant


def build_catalogue() -> dict[str, Json]:
    """Return family → member → its description."""
    return {
        **{family.plural: {member.name: _describe_member(member) for member in family} for family in FAMILIES.values()},
        "variants": {preset.name: _describe_preset(preset) for preset in PRESETS.values()},
        "steps": describe_steps(),
        "choices": {choice.flag: {"summary": choice.help, "values": choice.metavar} for choice in CHOICES.values()},
    }


def describe_output_formats() -> dict[str, dict[str, str]]:
    """Return every output format with its suffixes; on its own, because it loads every writer."""
    formats = load_output_formats().values()
    return {
        format.name: {
            "summary": ", ".join((*format.suffixes, "only to a file") if format.is_binary else format.suffixes)
        }
        for format in formats
    }


def _format_shapes(parameter: Parameter) -> str:
    return " or ".join(f"({', '.join(axes)})" for axes in (parameter.axes, *parameter.alternative_axes))


# The formula of each step, and what it is. The links of the chain declare their own.
_NAMES_OF_PROJECTED = {"q": "queries", "k": "keys", "v": "values", "o": "outputs"}
_STEP_DESCRIPTIONS = {
    **{
        f"{kind}_{letter}": (f"{symbol}_{letter}", f"The {what} that makes {name} (--projection).")
        for letter, name in _NAMES_OF_PROJECTED.items()
        for kind, symbol, what in (("w", "W", "learned matrix"), ("b", "b", "learned bias"))
    },
    "positioned_embeddings": ("x + position", "Embeddings with their positions added (--position sinusoidal)."),
    "q": ("x W_q + b_q", "Queries: what each token looks for."),
    "k": ("x W_k + b_k", "Keys: what each token is found by."),
    "v": ("x W_v + b_v", "Values: what each token passes on."),
    "normed_q": ("norm(q)", "Queries brought to one length (--qk-norm)."),
    "normed_k": ("norm(k)", "Keys brought to one length (--qk-norm)."),
    "positioned_q": ("rotate(q, position)", "Queries turned by their positions (--position rope)."),
    "positioned_k": ("rotate(k, position)", "Keys turned by their positions (--position rope)."),
    "present_k": ("past k, then k", "The keys of the cache, followed by the new ones."),
    "present_v": ("past v, then v", "The values of the cache, followed by the new ones."),
    "scores": ("q · k", "How well each query matches each key (--score)."),
    "mask": ("visible or hidden", "Which keys each query may see: mask, lengths and a bias of −∞ together."),
    "max_score": ("max s", "The largest score of each query."),
    "log_sum_exp": ("ln Σ e^s", "The logarithm of the sum that softmax divides by."),
    "entropy": ("−Σ w log₂ w", "How widely a query spreads its weight, in bits: 0 if it is all on one key."),
    "visible_keys": ("number of visible keys", "How many keys each query may see."),
    "sink_weights": ("e^(sink − max s) / Σ", "The share of each query that goes to no key (--sink)."),
    "weights": ("softmax(s)", "The share of each key; with softmax every row sums to 1 (--normalizer)."),
    "dropout_weights": ("w / (1 − p), or 0", "Weights after dropout (--dropout)."),
    "mixed_weights": ("mix(w)", "Weights mixed across heads (--head-mixing)."),
    "top_keys": ("keys of the N largest w", "The keys with the largest weights of each query (--top N)."),
    "top_weights": ("the N largest w", "The weights of those keys (--top N)."),
    "head_context": ("w · v", "What each head passes on."),
    "normed_context": ("norm(w · v)", "The contexts of the heads, normalised (--head-mixing differential)."),
    "context": ("w · v", "The result for each token: the values, mixed in the shares of the weights."),
    "output": ("context W_o + b_o", "The context after the output projection."),
}


def describe_steps() -> Json:
    """Return every step that some variant has, in order of computation, with its axes where the problem has them all."""
    descriptions: Json = {
        name: {"formula": formula, "summary": summary, "axes": ", ".join(BASE_STEPS[name])}
        for name, (formula, summary) in _STEP_DESCRIPTIONS.items()
    }
    link_steps: dict[bool, list[str]] = {False: [], True: []}  # whether they mask: those come after the mask itself
    for member in link:
        step = member.traits.step
        link_steps[member.traits.is_mask].append(step)
        axes = ", ".join(BASE_STEPS["scores"])
        descriptions[step] = {"formula": _formula_of_options(member), "summary": member.summary, "axes": axes}
    names: list[str] = []
    for name in BASE_STEPS:
        names += [*link_steps[False], name, *link_steps[True]] if name == "mask" else [name]
    return {name: descriptions[name] for name in names}


def _formula_of_options(member: Member[Traits]) -> str:
    """Return a formula with the names of its options in the places of their values."""
    formula = member.formula
    for option in member.options:
        formula = formula.replace("{" + option.name + "}", option.name)
    return formula


def search_catalogue(catalogue: Json, word: str) -> dict[str, Json]:
    """Return the members whose name, formula or description holds a word, or that others call so, by family."""
    from attncli.synonyms import find_synonym

    wanted = word.strip().lower()
    found: dict[str, Json] = {}
    for family, members in catalogue.items():
        synonym = find_synonym(wanted, members)
        for name, member in members.items():
            texts = (name, *(member.get(key, "") for key in ("formula", "summary", "command", "source")))
            if name == synonym or any(wanted in text.lower() for text in texts):
                found.setdefault(family, {})[name] = member
    return found


# What a part is unchanged by, if the law of that name holds for it.
_LAW_SENTENCES = {
    "prefix": "cutting the text short",
    "decode": "decoding token by token with a cache",
    "permutation": "reordering the tokens",
}
# Values for the options of an example, by their names; another option has one only where it is required.
_EXAMPLE_VALUES: dict[str, object] = {
    "left": 2, "right": 0, "kernel": 3, "tokens": (0,), "dim": 2,
    "p": 0.1, "alpha": 1.5, "cap": 50, "base": 512, "factor": 0.5,
}  # fmt: skip
_OTHER_EXAMPLE_VALUE = 2


def _example(member: Member[Traits]) -> str:
    """Return how a part is chosen on the command line; nothing for a link that has no value of its own."""
    values = [
        (option.name, format_value(_EXAMPLE_VALUES.get(option.name, _OTHER_EXAMPLE_VALUE)))
        for option in member.options
        if option.required or (option.name in _EXAMPLE_VALUES and member.family != "position")
    ]
    if isinstance(member.traits, LinkTraits):
        return f"--{member.name} {values[0][1]}" if values else ""
    options = ",".join(f"{name}={value}" for name, value in values)
    return f"--{member.family} {member.name}{':' * bool(options)}{options}"


# What options mean whose names do not say it, by family and name.
_OPTION_MEANINGS = {
    ("projection", "dim"): "d_out, the width of q and k of all heads together; by default that of the embeddings",
    ("projection", "v-dim"): "the width of v of all heads together; by default that of q",
    ("projection", "bias"): "which projections have a bias: q, k and v, the output, or all",
    ("projection", "out"): "whether the context is projected by W_o, which gives the step output",
    ("projection", "order"): "the order in which the matrices are drawn",
    ("projection", "seed"): "a seed of its own, instead of --seed",
    ("projection", "qkv"): "the layout of packed q, k and v: one after the other, or head by head",
    ("qk-norm", "scope"): "over each head, or the columns of all heads together",
    ("qk-norm", "at"): "before or after the position acts",
    ("qk-norm", "eps"): "a small number that keeps the divisor from being 0",
    ("position", "theta"): "the base of the frequencies",
    ("position", "dims"): "how many columns of a head turn; by default all",
    ("position", "fraction"): "the same as a share of the columns",
    ("position", "columns"): "which columns of a head turn",
    ("normalizer", "alpha"): "1 is softmax, 2 is sparsemax",
    ("dropout", "p"): "the probability that a weight is dropped",
    ("dropout", "seed"): "a seed of its own, instead of --seed",
    ("head-mixing", "pairing"): "which heads make a pair: neighbours, or h and h + H/2",
    ("head-mixing", "depth"): "the number of the layer, from 0, which sets λ_init",
}


def _describe_option(family: str, option: Option) -> str:
    meaning = _OPTION_MEANINGS.get((family, option.name))
    return f"{option.describe()}: {meaning}" if meaning else option.describe()


def _describe_member(member: Member[Traits]) -> Json:
    description: Json = {"formula": _formula_of_options(member), "summary": member.summary}
    if member.options:
        description["options"] = [_describe_option(member.family, option) for option in member.options]
    if member.parameters:
        description["parameters"] = [
            f"{parameter.name} {_format_shapes(parameter)}: {parameter.help}" for parameter in member.parameters
        ]
    if isinstance(member.traits, LinkTraits):
        description["step"] = member.traits.step
    if example := _example(member):
        description["example"] = example
    if member.laws:
        description["unchanged_by"] = "; ".join(
            sentence for law, sentence in _LAW_SENTENCES.items() if law in member.laws
        )
    if member.law_exceptions:
        description["note"] = member.law_exceptions
    if member.source:
        description["source"] = member.source
    return description


def _describe_preset(preset: Preset) -> Json:
    if preset.layer_choices is None:
        return {"command": format_command_line(preset), "summary": preset.summary, "source": preset.source}
    return {
        "command": format_command_line(preset, 0),
        "summary": preset.summary,
        "layer": f"this is layer 0; the layers differ, and attn list variants {preset.name}:layer=3 prints layer 3",
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
    options = [f"{CHOICES[name].flag} {_quote_for_shell(format_value(description[name]))}" for name in choices]
    required = [_REQUIRED_OPTIONS[name] for name in preset.required_choices]
    return " ".join(["attn compute INPUT", *options, *required])


_REQUIRED_OPTIONS = {
    "heads": "--heads H",
    "kv_heads": "--kv-heads G",
    "memory": "--with memory=FILE",
    "window": "--window LEFT,RIGHT",
}


def _quote_for_shell(text: str) -> str:
    return f"'{text}'" if any(c in text for c in " ()") else text
