"""What is offered for a name that is not known: the likeliest, what others call it, or nothing unlike it."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.cli.app import app
from attncli.errors import InputError
from attncli.parts.masks import mask
from attncli.step_names import STEP_NAMES
from attncli.synonyms import _SYNONYMS, _WAYS_OUT
from attncli.text import closest, suggestion
from attncli.types import INPUT_NAMES
from attncli.validation.fields import find_field, known_parameters
from attncli.variant import CHOICES, FAMILIES
from tests.helpers import draw_normal


@pytest.mark.parametrize(
    ("name", "known", "wanted"),
    [
        ("inputs", INPUT_NAMES, "embeddings"),
        ("X", INPUT_NAMES, "embeddings"),
        ("attention_mask", INPUT_NAMES, "mask"),
        ("W_query", known_parameters(), "w_q"),
        ("out_proj.weight", known_parameters(), "w_o"),
        ("attention_weights", STEP_NAMES, "weights"),
        ("attn_weights", STEP_NAMES, "weights"),
        ("triu", mask.members, "causal"),
        ("num_heads", CHOICES, "heads"),
        ("--num-heads", ["--heads", "--kv-heads"], "--heads"),
        ("casual", mask.members, "causal"),
        ("--msk", ["--mask", "--chain"], "--mask"),
    ],
)
def test_names_of_others_and_slips_are_understood(name, known, wanted):
    assert closest(name, known) == wanted
    assert suggestion(name, known) == f"did you mean {wanted!r}?"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("--verbose", ["--rope", "--chain", "--top"]),
        ("--explain", ["--chain", "--align"]),
        ("--steps", ["--top", "--step-by"]),
        ("svg", ["tsv", "csv", "json"]),
        ("banana", mask.members),
    ],
)
def test_nothing_is_offered_where_there_is_no_likeness(name, known):
    assert closest(name, known) is None
    assert suggestion(name, known).startswith("it can be ")


def test_every_synonym_leads_to_a_name_that_exists():
    members = {member for family in FAMILIES.values() for member in family.members}
    options = {option.name for family in FAMILIES.values() for member in family for option in member.options}
    from attncli.presets import PRESETS

    layouts = {word for name in ("layout", "w_layout") for word in find_field(name).allowed_values}
    words = {word for choice in CHOICES.values() for word in choice.allowed_values}
    ours = {
        *layouts,
        *words,
        *INPUT_NAMES,
        "embedding",
        *known_parameters(),
        *STEP_NAMES,
        *CHOICES,
        *members,
        *options,
        *PRESETS,
        "force",
        *(command.name for command in app.registered_commands),
    }
    for other, names in _SYNONYMS.items():
        assert set(names) <= ours, other
        assert other == other.lower().replace("-", "_"), other
    assert not set(_WAYS_OUT) & (set(INPUT_NAMES) | set(known_parameters()))


def test_parameters_beside_the_embeddings_are_sent_into_their_group():
    x, w = draw_normal(1, 3, 4), np.eye(4)
    from attncli.readers.base import make_problem

    with pytest.raises(InputError) as raised:
        make_problem({"embeddings": x, "W_query": w})
    followed = attncli.attend(make_problem({"embeddings": x, "parameters": {"w_q": w}}))

    assert raised.value.help == 'learned arrays go under parameters: "parameters": {"w_q": …}'
    np.testing.assert_allclose(followed["scores"].values, x @ x.T)


@pytest.mark.parametrize("text", ["linear:d_out=6,seed=1", "linear:out_features=6,seed=1"])
def test_the_width_of_a_linear_layer_has_the_names_of_books(text):
    part = FAMILIES["projection"].parse(text)

    assert str(part) == "linear:dim=6,seed=1"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n_heads", '"variant": {"heads": …}'),
        ("sm_scale", '"variant": {"scale": …}'),
        ("attn_weights", '"expected": {"weights": …}'),
        ("scores", '"expected": {"scores": …}'),
        ("W_out", '"parameters": {"w_o": …}'),
        ("q_bias", '"parameters": {"b_q": …}'),
        ("embed_dim", "the width is that of the vectors"),
        ("dout", "--projection linear:dim=N"),
        ("qkv_bias", "--projection linear:bias=qkv"),
        ("attn_mask", "those of nn.MultiheadAttention and nn.Transformer are the opposite"),
        ("bias_k", "append them to k and v"),
        ("rope_theta", "--position rope:theta=10000"),
        ("sliding_window", "--window W−1,0"),
        ("memory_mask", "true for what may be seen"),
    ],
)
def test_what_others_call_a_field_is_sent_where_it_belongs(name, words):
    with pytest.raises(InputError) as raised:
        find_field(name)
    assert words in raised.value.help


@pytest.mark.parametrize(
    ("name", "words"),
    [("BSND", "did you mean 'bthd'?"), ("NHD", "did you mean 'thd'?"), ("sbhd", "exchange the first two axes")],
)
def test_layouts_of_other_libraries_are_ours_or_not(name, words):
    with pytest.raises(InputError) as raised:
        attncli.attend(attncli.Problem(q=np.ones((1, 2, 3, 4)), k=np.ones((1, 2, 3, 4)), layout=name))
    assert words in raised.value.help


def test_what_means_something_else_is_not_offered_for_its_likeness():
    """Each of these is like one of our names, and would be read as something else under it."""
    for name, unlike in (
        ("bias_k", "bias"),
        ("memory_mask", "memory"),
        ("sin", "sinks"),
        ("embed_dim", "embeddings"),
        ("d_k", "dim"),
    ):
        assert closest(name, [unlike]) is None


def test_a_file_is_like_another_by_what_stands_before_its_suffix(tmp_path):
    for name in ("num.csv", "tokens.csv", "weights.json"):
        (tmp_path / name).write_text("")

    def offered(name):
        with pytest.raises(InputError) as raised:
            attncli.read(tmp_path / name)
        return raised.value.help

    assert "did you mean" not in offered("nosuch.csv")
    assert "did you mean" not in offered("heights.csv")
    assert offered("tokns.csv") == "did you mean 'tokens.csv'?"
    assert offered("weights.csv") == "did you mean 'weights.json'?"
