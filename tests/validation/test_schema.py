"""What is read and written validates against the schemas, and what is refused mostly does not."""

from __future__ import annotations

import json

import jsonschema
import pytest

import attncli
from attncli.output_formats import RenderOptions
from attncli.schema import problem_schema, result_schema
from attncli.writers.json import write_json
from tests.helpers import GOLDEN, SAMPLES, one_of_each_kind

pytestmark = pytest.mark.uncounted

PROBLEM = jsonschema.Draft202012Validator(problem_schema())
RESULT = jsonschema.Draft202012Validator(result_schema())
FILES = sorted([*SAMPLES.glob("*.json"), *GOLDEN.glob("*/*.json")])


def test_the_schemas_are_schemas():
    for made in (PROBLEM, RESULT):
        made.check_schema(made.schema)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_problems_and_their_results_validate(attn, path):
    PROBLEM.validate(json.loads(path.read_text()))

    for words in (["--only", "all", "--top", "2"], ["--at", "query=0", "--dtype", "float32"]):
        RESULT.validate(one_of_each_kind(attn("compute", path, "--json", *words).json))


def test_one_of_each_kind_leaves_what_a_schema_tells_apart():
    record = {"weights": [[0.5, 0.25, "NaN"], [0.1, 0.2, "NaN"], [0.5, True, 1, 1], [], [None]]}

    assert one_of_each_kind(record) == {"weights": [[0.5, "NaN"], [0.5, True, 1], [], [None]]}
    result = attncli.attend(attncli.Problem(embeddings=[[1, 2], [3, 4]]))
    for odd in ("nan", None, [1.0], {}):
        damaged = json.loads(write_json(result, RenderOptions()))
        assert RESULT.is_valid(one_of_each_kind(damaged))
        damaged["weights"][1][1] = odd
        assert not RESULT.is_valid(one_of_each_kind(damaged))


@pytest.mark.parametrize(
    "document",
    [
        [[1, 2], [3, 4]],
        [{"token": "a", "embedding": [1]}],
        {"q": [[["NaN"]]], "k": [[["-Infinity"]]], "mask": True, "bias": [["-Infinity"]], "layout": "htd"},
        {
            "embeddings": [[1]],
            "expected": {"scaled_scores_2": [[1]], "mask": [[True]]},
            "variant": {"mask": ["causal"], "dropout": 0.5},
        },
    ],
)
def test_other_forms_of_a_problem_validate(document):
    PROBLEM.validate(document)


@pytest.mark.parametrize(
    "document",
    [{}, 5, [], {"embedings": [[1]]}, {"embeddings": [1]}, {"embeddings": [["1"]]}, {"embeddings": [["NaN"]]}, {"embeddings": [[1]], "mask": [[1]]}, {"q": [[1]]},
     {"embeddings": [[1]], "parameters": {"wq": [[1]]}}, {"embeddings": [[1]], "variant": {"head": 1}}, {"embeddings": [[1]], "expected": {"weigths": [[1]]}}, [{"token": "a"}]],
)  # fmt: skip
def test_what_is_no_problem_does_not_validate(document):
    assert not PROBLEM.is_valid(document)


def test_the_schemas_name_every_field_choice_and_parameter(attn):
    from attncli.types import FIELDS
    from attncli.validation.fields import known_parameters
    from attncli.variant import CHOICES

    text = attn("schema", "problem").out

    for name in [*(f.split(".")[-1] for f in FIELDS), *CHOICES, *known_parameters()]:
        assert f'"{name}"' in text
    assert json.loads(attn("schema", "result").out) == result_schema()
