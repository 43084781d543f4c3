"""Make the JSON Schemas (2020-12) of problem, result and verdict, from the declarations that readers and writers follow."""

from __future__ import annotations

from attncli.framework_arrays import FRAMEWORK_ARRAYS
from attncli.step_names import GRADIENT_NAMES, STEP_NAMES, UPSTREAM_NAMES
from attncli.tolerance import MEASURES, TOLERANCE_SCHEMA_ID
from attncli.types import AXES, FIELDS, NONFINITE_SPELLINGS, Field, Json
from attncli.validation.fields import find_field, known_parameters
from attncli.validation.identification import MAX_ID_CHARACTERS
from attncli.variant import CHOICES

_JSON_SCHEMA_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER_SCHEMA = {"type": "number"}
_ANY_NUMBER_SCHEMA = {"anyOf": [_NUMBER_SCHEMA, {"enum": list(NONFINITE_SPELLINGS)}]}
_STEP_NAME_PATTERN = f"^({'|'.join(STEP_NAMES)})(_[0-9]+)?$"
_ID_SCHEMA = {"anyOf": [{"type": "string", "maxLength": MAX_ID_CHARACTERS}, _NUMBER_SCHEMA]}
_LEAF_SCHEMAS: Json = {"booleans": {"type": "boolean"}, "integers": {"type": "integer"}, "texts": {"type": "string"}}


def _array_schema(leaf: Json, ranks: tuple[int, ...]) -> Json:
    """Return the schema of nested lists of one kind of leaf, of any of some ranks."""
    forms = []
    for rank in ranks:
        form = leaf
        for _ in range(rank):
            form = {"type": "array", "items": form, "minItems": 1}
        forms.append(form)
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _field_schema(field: Field) -> Json:
    """Return the schema of one field, with its help and shapes as description."""
    shapes = " or ".join(f"({', '.join(shape.split())})" for shape in field.shapes if shape != "*")
    description = f"{field.help}; {shapes}" if shapes else field.help
    return {**_kind_schema(field), "description": description}


def _kind_schema(field: Field) -> Json:
    if field.kind == "object":
        return _variant_schema()
    if field.kind == "expected":
        return {
            "type": "object",
            "propertyNames": {
                "pattern": f"{_STEP_NAME_PATTERN}|^({'|'.join((*GRADIENT_NAMES, *UPSTREAM_NAMES, 'out'))})$"
            },
            "additionalProperties": {"anyOf": [_figures_schema(), _array_schema(_leaf_schema(), (0, 1, 2, 3, 4))]},
        }
    if field.kind == "any":
        return {}
    if field.kind == "id":
        return _ID_SCHEMA
    if field.kind == "meta":
        return {"type": "object"}
    if field.kind == "text":
        return {"enum": list(field.allowed_values)}
    leaf = _LEAF_SCHEMAS.get(field.kind) or (_NUMBER_SCHEMA if field.finite else _ANY_NUMBER_SCHEMA)
    return _array_schema(leaf, field.ranks)


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


def _settings_schema(*other_names: str) -> Json:
    return {
        "type": "object",
        "propertyNames": {"enum": ["variant", *CHOICES, *other_names]},
        "additionalProperties": {"type": "string"},
        "description": "the choices that came from settings, each with the file or variable that made it",
    }


def _variant_schema() -> Json:
    text, items = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    properties: Json = {"name": {**text, "description": "a named variant; the other choices override its own"}}
    for choice in CHOICES.values():
        kinds: list[Json] = [{"enum": list(choice.allowed_values)} if choice.allowed_values else text]
        if choice.integer_bounds:
            kinds = [
                {"type": "integer", "minimum": choice.integer_bounds[0], "maximum": choice.integer_bounds[1]},
                {**text, "pattern": "^[0-9]+$"},
            ]
        elif choice.accepts_number:
            kinds.append(_NUMBER_SCHEMA)
        if choice.name in ("mask", "chain"):
            kinds.append(items)
        properties[choice.name] = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), "description": choice.help}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def problem_schema() -> Json:
    """Return the schema of what `attn compute` reads as JSON."""
    properties: Json = {}
    for field in FIELDS.values():
        group, dot, inner = field.name.partition(".")
        if dot:
            empty_group = {"type": "object", "additionalProperties": False, "properties": {}}
            properties.setdefault(group, empty_group)["properties"][inner] = _field_schema(field)
        else:
            properties[field.name] = _field_schema(field)
    properties["parameters"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: _field_schema(find_field(f"parameters.{name}")) for name in (*known_parameters(), *FRAMEWORK_ARRAYS)
        },
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
                "properties": properties,
                "anyOf": [{"required": ["embeddings"]}, {"required": ["q", "k"]}],
            },
            {**_array_schema(_NUMBER_SCHEMA, (2, 3)), "description": "embeddings alone"},
            {"type": "array", "items": token, "minItems": 1, "description": "tokens with their embeddings"},
        ],
    }


def result_schema() -> Json:
    """Return the schema of what `attn compute --json` writes."""
    text, counts = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}

    def per_step(value: Json) -> Json:
        return {"type": "object", "propertyNames": {"pattern": _STEP_NAME_PATTERN}, "additionalProperties": value}

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
            "source": {**text, "description": "the name of the input, as it was given"},
            "line": {"type": "integer", "minimum": 1, "description": "the line of the problem in JSON lines"},
            "id": _ID_SCHEMA,
            "meta": {"type": "object"},
            "variant": _variant_schema(),
            "settings": _settings_schema(),
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
        "patternProperties": {_STEP_NAME_PATTERN: _array_schema(_leaf_schema(), (1, 2, 3, 4))},
        "additionalProperties": False,
    }


def _items_schema(item: Json) -> Json:
    """Return the schema of a list of such items."""
    return {"type": "array", "items": item}


def _fields_schema(required: Json, **optional: Json) -> Json:
    """Return the schema of an object with these fields, some of which it may lack, and no others."""
    schema = {"type": "object", "required": list(required), "additionalProperties": False}
    return {**schema, "properties": {**required, **optional}}


def check_schema() -> Json:
    """Return the schema of what `attn check --json` writes: for one problem, for a folder, or for a judged tolerance."""
    text, count, number = {"type": "string"}, {"type": "integer", "minimum": 0}, _ANY_NUMBER_SCHEMA
    text_or_null = {"anyOf": [text, {"type": "null"}]}
    boolean = {"type": "boolean"}

    fields, items = _fields_schema, _items_schema
    rule = fields(
        {"name": {"enum": ["digits", "close", "flash", "exact"]}, "why": text, "dtype": text},
        **dict.fromkeys(("rtol", "atol", "bound", "plain", "factor"), number),
        atol_of=text,
    )
    cell = {"type": "object", "propertyNames": {"enum": list(AXES)}, "additionalProperties": count}
    ranges = items({"type": "array", "items": count, "minItems": 2, "maxItems": 2})  # the end is excluded
    axis_region = fields(
        {"wrong": ranges, "count": count, "of": count, "first": count, "multiple_of": {"type": ["integer", "null"]}}
    )
    error_map = fields(
        {
            "rows": text_or_null,
            "row_labels": items(text),
            "columns": text,
            "column_ends": items(count),
            "shares": items(items(number)),
        }
    )
    region = fields(
        {
            "axes": {"type": "object", "propertyNames": {"enum": list(AXES)}, "additionalProperties": axis_region},
            "share": number,
            "where": text,
            "says": items(text),
            "map": {"anyOf": [error_map, {"type": "null"}]},
        }
    )
    step = fields(
        {
            "step": text,
            "axes": items({"enum": list(AXES)}),
            "shape": items(count),
            "rule": rule,
            **dict.fromkeys(("tolerance", "max_abs", "max_rel", "ulp"), number),
            "at": cell,
            "where": text,
            "mine": _leaf_schema(),
            "reference": _leaf_schema(),
            "of": count,
            "wrong": count,
            "right": boolean,
            "cause": text_or_null,
        },
        region=region,
    )
    diagnosis = fields({"names": items(text), "says": text, "steps": items(text), "max_abs": number})
    sensitivity = fields(
        {
            "wrong": text,
            "caught": {"anyOf": [boolean, {"type": "null"}]},
            "max_abs": {"anyOf": [number, {"type": "null"}]},
            "step": text_or_null,
            "why": text_or_null,
        }
    )
    gap = fields(
        {
            "gap": count,
            "step": text,
            "where": text,
            "right": {"anyOf": [boolean, {"type": "null"}]},
            "written": text,
            "reference": _leaf_schema(),
        }
    )
    verdict = fields(
        {
            "schema": {"const": "attn.check/1"},
            "verdict": {"enum": ["right", "otherwise", "wrong", "too-loose", "unanswered"]},
            "input": text,
            "figures": text,
            "variant": _variant_schema(),
            "steps": items(step),
            "first_wrong": text_or_null,
            "power": items(sensitivity),
            "identified": items(diagnosis),
            "nearest": items(diagnosis),
            "alike": items(text),
            "plain": items(text),
            "searched": count,
            "left_out": count,
            "sampled": {"anyOf": [count, {"type": "null"}]},
            "warnings": items(text),
        },
        answers=items(gap),
        settings=_settings_schema("rule", "rtol", "atol"),
    )
    marked_step = {name: step["properties"][name] for name in ("step", "axes", "shape", "of", "wrong", "right")}
    marked_gap = {name: rule for name, rule in gap["properties"].items() if name != "reference"}
    told = ("schema", "verdict", "input", "figures", "variant", "first_wrong", "warnings")
    marks = fields(
        {name: verdict["properties"][name] for name in told}
        | {"revealed": {"const": False}, "steps": items(fields(marked_step))},
        answers=items(fields(marked_gap)),
        settings=verdict["properties"]["settings"],
    )
    refused = fields({"input": text, "verdict": {"const": "error"}, "error": text})
    folder = fields(
        {
            "schema": {"const": "attn.check/1"},
            "verdict": {"enum": ["right", "wrong", "too-loose"]},
            "input": text,
            "of": count,
            "right": count,
            "problems": items({"anyOf": [verdict, marks, refused]}),
        }
    )
    judged = _judged_tolerance_schema()
    return {"$schema": _JSON_SCHEMA_DRAFT, "title": "attn verdict", "anyOf": [verdict, marks, folder, judged]}


def _judged_tolerance_schema() -> Json:
    """Return the schema of a tolerance that is judged without figures."""
    fields, items = _fields_schema, _items_schema
    text, count, number = {"type": "string"}, {"type": "integer", "minimum": 0}, _ANY_NUMBER_SCHEMA
    tolerance = fields(dict.fromkeys(("rtol", "atol", "matched"), number))
    names = [measure.name for measure in MEASURES]
    deviation = dict.fromkeys(("within", *names, "factor"), number)
    passes = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
    return fields(
        {
            "schema": {"const": TOLERANCE_SCHEMA_ID},
            "verdict": {"enum": ["tight-enough", "too-loose"]},
            "input": text,
            "tolerance": tolerance,
            "step": text,
            "of": count,
            "sampled": {"anyOf": [count, {"type": "null"}]},
            "variant": _variant_schema(),
            "passed": items(text),
            "wrong_answers": items(fields({"name": text, "passes": passes}, **deviation)),
            "right_answers": items(fields({"dtype": text, **deviation})),
            "loosest": {"anyOf": [tolerance, {"type": "null"}]},
            "unnoticeable": items(text),
            "bounds": items(
                fields({"dtype": text, "measure": {"enum": names}, "bound": number, "noticed": items(text)})
            ),
            "warnings": items(text),
        },
        settings=_settings_schema("rtol", "atol"),
    )
