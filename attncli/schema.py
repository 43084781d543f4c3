"""JSON Schema (2020-12) of problem, result and verdict, made from the declarations that reader and writer follow."""

from __future__ import annotations

from typing import Any

from attncli.types import AXES, FIELDS, NONFINITE_SPELLINGS, Field, Json
from attncli.validation.fields import STEP_NAMES, find_field, known_parameters
from attncli.variant import CHOICES

_JSON_SCHEMA_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER_SCHEMA = {"type": "number"}
_ANY_NUMBER_SCHEMA = {"anyOf": [_NUMBER_SCHEMA, {"enum": list(NONFINITE_SPELLINGS)}]}
_LEAF_SCHEMAS: Json = {"booleans": {"type": "boolean"}, "integers": {"type": "integer"}, "texts": {"type": "string"}}


def _array_schema(leaf: Any, ranks: tuple[int, ...]) -> Json:
    """Nested lists of one kind of leaf, of any of some ranks."""
    forms = []
    for rank in ranks:
        form = leaf
        for _ in range(rank):
            form = {"type": "array", "items": form, "minItems": 1}
        forms.append(form)
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _field_schema(field: Field) -> Json:
    if field.kind == "object":
        made: Json = _variant_schema()
    elif field.kind == "expected":
        made = {
            "type": "object",
            "propertyNames": {"pattern": f"^({'|'.join(STEP_NAMES)})(_[0-9]+)?$"},
            "additionalProperties": {"anyOf": [_figures_schema(), _array_schema(_leaf_schema(), (0, 1, 2, 3, 4))]},
        }
    elif field.kind == "any":
        made = {}
    elif field.kind == "text":
        made = {"enum": list(field.allowed_values)}
    else:
        leaf = _LEAF_SCHEMAS.get(field.kind) or (_NUMBER_SCHEMA if field.finite else _ANY_NUMBER_SCHEMA)
        made = _array_schema(leaf, field.ranks)
    shapes = " or ".join(f"({', '.join(s.split())})" for s in field.shapes if s != "*")
    return {**made, "description": f"{field.help}{f'; {shapes}' if shapes else ''}"}


def _leaf_schema() -> Json:
    return {"anyOf": [_NUMBER_SCHEMA, {"type": "boolean"}, {"enum": list(NONFINITE_SPELLINGS)}]}


def _figures_schema() -> Json:
    indices = {"type": "array", "items": {"type": "integer"}}
    limit = {"type": "number", "minimum": 0}
    return {
        "type": "object",
        "required": ["values"],
        "additionalProperties": False,
        "properties": {
            "values": _array_schema(_leaf_schema(), (0, 1, 2, 3, 4)),
            "rows": indices,
            "columns": indices,
            "decimals": limit,
            "rtol": limit,
            "atol": limit,
        },
    }


def _variant_schema() -> Json:
    text, items = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    made: Json = {"name": {**text, "description": "a named variant; the other choices override its own"}}
    for choice in CHOICES.values():
        kinds: list[Any] = [{"enum": list(choice.allowed_values)} if choice.allowed_values else text]
        if choice.integer_bounds:
            kinds = [
                {"type": "integer", "minimum": choice.integer_bounds[0], "maximum": choice.integer_bounds[1]},
                {**text, "pattern": "^[0-9]+$"},
            ]
        elif choice.accepts_number:
            kinds.append(_NUMBER_SCHEMA)
        kinds += [items] if choice.name in ("mask", "chain") else []
        made[choice.name] = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), "description": choice.help}
    return {"type": "object", "additionalProperties": False, "properties": made}


def problem_schema() -> Json:
    """What `attn compute` reads as JSON."""
    made: Json = {}
    for field in FIELDS.values():
        group, dot, inner = field.name.partition(".")
        if dot:
            made.setdefault(group, {"type": "object", "additionalProperties": False, "properties": {}})["properties"][
                inner
            ] = _field_schema(field)
        else:
            made[field.name] = _field_schema(field)
    made["parameters"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {p.name: _field_schema(find_field(f"parameters.{p.name}")) for p in known_parameters().values()},
    }
    token = {
        "type": "object",
        "required": ["embedding"],
        "additionalProperties": False,
        "properties": {"token": {"type": "string"}, "embedding": _array_schema(_NUMBER_SCHEMA, (1,))},
    }
    return {
        "$schema": _JSON_SCHEMA_DRAFT,
        "title": "attn problem",
        "anyOf": [
            {
                "type": "object",
                "additionalProperties": False,
                "properties": made,
                "anyOf": [{"required": ["embeddings"]}, {"required": ["q", "k"]}],
            },
            {**_array_schema(_NUMBER_SCHEMA, (2, 3)), "description": "embeddings alone"},
            {"type": "array", "items": token, "minItems": 1, "description": "tokens with their embeddings"},
        ],
    }


def result_schema() -> Json:
    """What `attn compute --json` writes."""
    text, counts = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}
    pattern = f"^({'|'.join(STEP_NAMES)})(_[0-9]+)?$"

    def per_step(value: Any) -> Json:
        return {"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": value}

    labels = _array_schema(text, (1, 2))
    return {
        "$schema": _JSON_SCHEMA_DRAFT,
        "title": "attn result",
        "type": "object",
        "required": [
            "schema",
            "attn_version",
            "variant",
            "layout",
            "dtype",
            "tokens",
            "k_tokens",
            "axes",
            "shapes",
            "formulas",
            "warnings",
        ],
        "properties": {
            "schema": {"const": "attn.result/1"},
            "attn_version": text,
            "variant": _variant_schema(),
            "about": {},
            "layout": {"enum": list(FIELDS["layout"].allowed_values)},
            "dtype": {"enum": ["float64", "float32", "float16", "bfloat16"]},
            "tokens": labels,
            "k_tokens": labels,
            "at": {"type": "object", "propertyNames": {"enum": list(AXES)}, "additionalProperties": counts},
            "axes": per_step({"type": "array", "items": {"enum": list(AXES)}}),
            "shapes": per_step(counts),
            "formulas": per_step(text),
            "parameters": {
                "type": "object",
                "propertyNames": {"enum": list(known_parameters())},
                "additionalProperties": _array_schema(_NUMBER_SCHEMA, (1, 2)),
            },
            "warnings": {"type": "array", "items": text},
        },
        "patternProperties": {pattern: _array_schema(_leaf_schema(), (1, 2, 3, 4))},
        "additionalProperties": False,
    }


def check_schema() -> Json:
    """What `attn check --json` writes, for one problem or for a folder."""
    text, count, number = {"type": "string"}, {"type": "integer", "minimum": 0}, _ANY_NUMBER_SCHEMA
    maybe = {"anyOf": [text, {"type": "null"}]}
    truth = {"type": "boolean"}

    def items(made: Json) -> Json:
        return {"type": "array", "items": made}

    def fields(required: Json, **more: Any) -> Json:
        made = {"type": "object", "required": list(required), "additionalProperties": False}
        return {**made, "properties": {**required, **more}}

    rule = fields(
        {"name": {"enum": ["digits", "close", "flash", "exact"]}, "why": text, "dtype": text},
        **dict.fromkeys(("rtol", "atol", "bound", "plain"), number),
        atol_of=text,
    )
    places = {"type": "object", "propertyNames": {"enum": list(AXES)}, "additionalProperties": count}
    step = fields(
        {
            "step": text,
            "axes": items({"enum": list(AXES)}),
            "shape": items(count),
            "rule": rule,
            **dict.fromkeys(("tolerance", "max_abs", "max_rel", "ulp"), number),
            "at": places,
            "where": text,
            "mine": _leaf_schema(),
            "reference": _leaf_schema(),
            "of": count,
            "wrong": count,
            "right": truth,
            "cause": maybe,
        }
    )
    suspect = fields({"names": items(text), "says": text, "steps": items(text), "max_abs": number})
    power = fields(
        {
            "wrong": text,
            "caught": {"anyOf": [truth, {"type": "null"}]},
            "max_abs": {"anyOf": [number, {"type": "null"}]},
            "step": maybe,
            "why": maybe,
        }
    )
    answer = fields(
        {
            "gap": count,
            "step": text,
            "where": text,
            "right": {"anyOf": [truth, {"type": "null"}]},
            "written": text,
            "reference": _leaf_schema(),
        }
    )
    one = fields(
        {
            "schema": {"const": "attn.check/1"},
            "verdict": {"enum": ["right", "wrong", "too-loose", "unanswered"]},
            "input": text,
            "figures": text,
            "variant": _variant_schema(),
            "steps": items(step),
            "first_wrong": maybe,
            "power": items(power),
            "identified": items(suspect),
            "nearest": items(suspect),
            "alike": items(text),
            "plain": items(text),
            "searched": count,
            "warnings": items(text),
        },
        answers=items(answer),
    )
    refused = fields({"input": text, "verdict": {"const": "error"}, "error": text})
    folder = fields(
        {
            "schema": {"const": "attn.check/1"},
            "verdict": {"enum": ["right", "wrong"]},
            "input": text,
            "of": count,
            "right": count,
            "problems": items({"anyOf": [one, refused]}),
        }
    )
    return {"$schema": _JSON_SCHEMA_DRAFT, "title": "attn verdict", "anyOf": [one, folder]}
