"""Keras as an oracle of the classical scores: its additive layer, and its "concat" mode, which is additive without matrices."""

from __future__ import annotations

import os

import numpy as np
import pytest

import attncli

os.environ.setdefault("KERAS_BACKEND", "torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras.*", "ignore::FutureWarning:keras.*"),  # its own upkeep
]
RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3, 5), (2, 7, 5), (2, 7, 4)))


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def numpy_of(tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def test_additive(keras):
    layer = keras.layers.AdditiveAttention(use_scale=True)
    layer([Q, V, K])
    v = RNG.normal(size=5).astype(np.float32)
    layer.scale.assign(v)
    context, weights = layer([Q, V, K], return_attention_scores=True)

    ours = attncli.attend(attncli.Problem(q=Q, k=K, v=V, parameters={"score_v": v}), attncli.Variant(score="additive"))

    np.testing.assert_allclose(ours["weights"].values, numpy_of(weights), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(ours["context"].values, numpy_of(context), rtol=2e-5, atol=1e-6)


def test_keras_concat_is_additive_without_matrices_and_a_factor(keras):
    layer = keras.layers.Attention(score_mode="concat", use_scale=False)
    layer([Q, V, K])
    layer.concat_score_weight.assign(0.75)
    context, weights = layer([Q, V, K], return_attention_scores=True)

    ours = attncli.attend(attncli.Problem(q=Q, k=K, v=V), attncli.Variant(score="additive", scale=0.75))

    np.testing.assert_allclose(ours["weights"].values, numpy_of(weights), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(ours["context"].values, numpy_of(context), rtol=2e-5, atol=1e-6)


def test_dot_without_a_scale(keras):
    _, weights = keras.layers.Attention()([Q, V, K], return_attention_scores=True)

    ours = attncli.attend(attncli.Problem(q=Q, k=K, v=V), attncli.Variant(name="luong-dot"))

    np.testing.assert_allclose(ours["weights"].values, numpy_of(weights), rtol=2e-5, atol=1e-6)
