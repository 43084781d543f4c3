"""Whole numbers are bounded alike however a file holds them: as JSON, integers of any width, or floats."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.errors import InputError
from tests.validation.bad_files import npz, safetensors

FIELDS = ["positions", "k_positions", "segments", "k_segments", "lengths"]


def problem_with(name: str, values: object) -> attncli.Problem:
    x = np.eye(2)
    if name == "lengths":
        return attncli.Problem(embeddings=x[None], **{name: values})
    return attncli.Problem(embeddings=x, **{name: values})


TOO_LARGE = [
    np.array([1e300, 0]),
    np.array([0, -1e300]),
    np.array([2.0**62, 0]),
    np.array([2.0**53 + 2, 0]),
    np.array([2.0**62, 0], np.float32),
    np.array([-(2**63), 0]),
    np.array([0, 2**63 - 1]),
    np.array([2**64 - 1, 0], np.uint64),
    [2**53 + 1, 0],
    [0, -(2**63)],
    [2**64, 0],
    [10**400, 0],
    [10**5000, 0],
]
NO_INTEGERS = [
    np.array([0.5, 0]),
    np.array([np.nan, 0]),
    np.array([0, np.inf]),
    np.array([0, -np.inf], np.float16),
    np.array([0, np.inf], np.float32),
    np.array([1j, 0]),
    np.array([True, False]),
    np.array(["1", "2"]),
    [1.5, 0],
    [True, 0],
    ["1", 0],
    [None, 0],
]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("values", TOO_LARGE, ids=lambda x: str(getattr(x, "dtype", "list")))
def test_a_number_beyond_2_to_the_53rd_is_refused(name, values):
    values = values[:1] if name == "lengths" and values[0] else values[1:] if name == "lengths" else values
    with pytest.raises(InputError, match=r"beyond ±2\^53") as caught:
        attncli.attend(problem_with(name, values))

    assert caught.value.code == "out-of-range"
    assert caught.value.location.path.startswith(f"$.{name}[")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("values", NO_INTEGERS, ids=lambda x: str(getattr(x, "dtype", "list")))
def test_what_is_no_whole_number_is_refused(name, values):
    with pytest.raises(InputError) as caught:
        attncli.attend(problem_with(name, values))

    assert caught.value.code == "wrong-type"


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f8", "<i8", "|i1", "<u8", ">i4"])
def test_whole_numbers_of_any_width_are_those_numbers(dtype, tmp_path):
    (tmp_path / "a.npz").write_bytes(npz(embeddings=np.eye(3), positions=np.array([7, 0, 100], dtype)))

    positions = attncli.read(tmp_path / "a.npz").positions

    assert positions.dtype == np.int64
    assert positions.tolist() == [7, 0, 100]


@pytest.mark.parametrize("value", [2**53, -(2**53)])
def test_the_bound_itself_is_allowed(value):
    for values in ([value, 0], np.array([value, 0]), np.array([value, 0], float)):
        assert attncli.attend(problem_with("positions", values))["weights"].values.shape == (2, 2)


def test_no_number_is_changed_and_no_warning_is_raised(tmp_path, recwarn):
    (tmp_path / "far.npz").write_bytes(npz(embeddings=np.eye(2), positions=np.array([1e300, 0])))
    header = {
        "embeddings": {"dtype": "F64", "shape": [2, 1], "data_offsets": [0, 16]},
        "positions": {"dtype": "F64", "shape": [2], "data_offsets": [16, 32]},
    }
    (tmp_path / "far.safetensors").write_bytes(safetensors(header, np.array([1, 1, 1e300, 0]).tobytes()))
    (tmp_path / "far.json").write_text(json.dumps({"embeddings": [[1], [1]], "positions": [2**70, 0]}))

    for name in ("far.npz", "far.safetensors", "far.json"):
        with pytest.raises(InputError, match=r"positions holds .*, beyond ±2\^53") as caught:
            attncli.read(tmp_path / name)
        assert caught.value.location.path == "$.positions[0]"
    assert not recwarn.list


@pytest.mark.parametrize("text", ["[7, 0.0, 1e2]", "[7.0, 0, 100.0]"])
def test_a_whole_number_may_be_printed_with_a_point(tmp_path, text):
    """To JSON 7.0 is the number 7, and programs print either."""
    (tmp_path / "a.json").write_text(f'{{"embeddings": [[1], [1], [1]], "positions": {text}}}')

    positions = attncli.read(tmp_path / "a.json").positions

    assert (positions.dtype, positions.tolist()) == (np.int64, [7, 0, 100])
