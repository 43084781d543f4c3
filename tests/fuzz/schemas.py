"""The schemas that `attn schema` prints, against what attn takes and gives: nothing that is taken or given is refused by them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attncli
from attncli.errors import AttnError
from attncli.output_formats import RenderOptions
from attncli.pipeline import compute
from attncli.request import OutputOptions, VariantRequest
from attncli.schema import problem_schema, result_schema
from attncli.writers.json import write_json
from tests.fuzz.harness import Outcome, describe_exception
from tests.fuzz.mutate_inputs import json_problem
from tests.helpers import one_of_each_kind
from tests.laws.problems import ONE_CHOICE, problem_for

MAX_SCORES = 10**5  # of a problem that is computed
STEPS = ((), ("all",), ("weights",), ("shown",))


@cache
def validators() -> tuple[Any, Any]:
    import jsonschema

    return tuple(jsonschema.Draft202012Validator(schema()) for schema in (problem_schema, result_schema))


def draw_problem(draw: random.Random) -> bytes:
    """Draw a problem in JSON: one with a part that attn has, or one in which fields are anything."""
    if draw.random() < 0.6:
        return json_problem(draw)
    choices = draw.choice(ONE_CHOICE)
    variant = attncli.Variant(**{"heads": 3} | choices)
    fields = vars(problem_for(str(choices.get("mask")), variant=variant))
    lists = {
        name: fields[name] if isinstance(fields[name], list) else fields[name].tolist()
        for name in ("embeddings", "segments", "mask")
        if fields.get(name) is not None
    }
    parameters = {name: array.round(2).tolist() for name, array in fields["parameters"].items()}
    return json.dumps(lists | {"parameters": parameters, "variant": {"heads": 3} | choices}).encode()


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield what becomes of the problems of some indices."""
    problem_validator, result_validator = validators()
    path = folder / "x.json"
    for i in indices:
        draw = random.Random(f"{seed} {i}")
        data = draw_problem(draw)
        path.write_bytes(data)
        outcome = Outcome("problem", content=data, suffix="json")
        try:
            problem = attncli.read(path)
            if error := next(problem_validator.iter_errors(json.loads(data)), None):
                yield outcome._replace(
                    fault_kind="wrong", fault=f"attn takes what the schema refuses: {error.message[:300]}"
                )
                continue
            tokens = problem.embeddings if problem.embeddings is not None else problem.q
            if tokens.size**2 > MAX_SCORES:
                yield outcome
                continue
            result = compute(problem, VariantRequest(), OutputOptions(only=draw.choice(STEPS)), seed=1)
            outcome = outcome._replace(kind="problem and result")
            record = one_of_each_kind(json.loads(write_json(result, RenderOptions())))
            if error := next(result_validator.iter_errors(record), None):
                yield outcome._replace(fault_kind="wrong", fault=f"the schema refuses a result: {error.message[:300]}")
                continue
        except AttnError as error:
            yield outcome._replace(code=error.code)
        except Exception as error:
            yield outcome._replace(fault_kind="bug", fault=describe_exception(error))
        else:
            yield outcome
