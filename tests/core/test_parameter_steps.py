"""The learned arrays of a projection as steps, and q, k and v beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attncli
from attncli.errors import InputError
from tests.helpers import draw_normal

T, D, HEADS, WIDTH, V_WIDTH, OUT = 5, 7, 2, 6, 8, 9  # tokens, width, heads, of q and k, of v, of the output
SHAPES = {"w_q": (D, WIDTH), "w_k": (D, WIDTH), "w_v": (D, V_WIDTH), "w_o": (V_WIDTH, OUT)}
X = draw_normal(1, T, D)
PARAMETERS = {
    **{name: draw_normal(10 + i, *shape) for i, (name, shape) in enumerate(SHAPES.items())},
    **{f"b_{name[-1]}": draw_normal(20 + i, shape[1]) for i, (name, shape) in enumerate(SHAPES.items())},
}
NAMES = [f"{kind}_{letter}" for letter in "qkvo" for kind in "wb"]


@pytest.mark.parametrize("w_layout", ["in-out", "out-in"])
def test_arrays_of_a_file_are_shown_as_they_are_multiplied(w_layout):
    lying = {name: x.T if w_layout == "out-in" and x.ndim == 2 else x for name, x in PARAMETERS.items()}
    problem = attncli.Problem(embeddings=X, parameters=lying, w_layout=w_layout)

    result = attncli.attend(problem, attncli.Variant(heads=HEADS))

    assert [step.name for step in result if step.name in NAMES] == NAMES
    for name, x in PARAMETERS.items():
        np.testing.assert_array_equal(result[name].values, x)
        assert result[name].axes == (("in_dim", "out_dim") if x.ndim == 2 else ("out_dim",))
        assert result[name].formula == "as given"
        assert not np.shares_memory(result[name].values, lying[name])
    q = (X @ PARAMETERS["w_q"] + PARAMETERS["b_q"]).reshape(T, HEADS, -1).swapaxes(0, 1)
    np.testing.assert_allclose(result["q"].values, q, rtol=1e-12)


@pytest.mark.parametrize("schedule", ["dense", "tiled"])
def test_arrays_that_are_drawn_are_those_of_torch(schedule):
    torch.manual_seed(123)
    layers = {letter: torch.nn.Linear(D, WIDTH) for letter in "qkv"}
    variant = attncli.Variant(projection=f"linear:dim={WIDTH},bias=qkv", seed=123, schedule=schedule)

    result = attncli.attend(attncli.Problem(embeddings=X), variant, keep=["w_q", "b_q", "w_v", "context"])

    for letter in "qv":
        np.testing.assert_array_equal(result[f"w_{letter}"].values, layers[letter].weight.T.detach().double())
    np.testing.assert_array_equal(result["b_q"].values, layers["q"].bias.detach().double())


def test_projected_vectors_are_shown_with_what_is_made_of_them():
    with_projection = attncli.Problem(
        embeddings=X, parameters={"w_k": PARAMETERS["w_k"][:, :D], "w_q": PARAMETERS["w_q"]}
    )
    only_bias = attncli.Problem(embeddings=X, parameters={"b_v": draw_normal(3, D)})
    only_output = attncli.Problem(embeddings=X, parameters={"w_o": draw_normal(3, D, OUT)})

    def shown(problem: attncli.Problem, **choices) -> list[str]:
        return [step.name for step in attncli.attend(problem, attncli.Variant(**choices), keep="shown")]

    assert shown(with_projection)[:4] == ["q", "k", "v", "scores"]
    assert shown(only_bias)[:4] == ["q", "k", "v", "scores"]
    assert shown(only_output) == ["scores", "scaled_scores", "weights", "context", "output"]
    assert shown(attncli.Problem(embeddings=X)) == ["scores", "scaled_scores", "weights", "context"]
    assert shown(attncli.Problem(embeddings=X), projection="randn:dim=4", seed=1)[:3] == ["q", "k", "v"]


def test_arrays_that_nothing_is_multiplied_by_are_no_steps():
    """q, k and v are given, so that of the projection W_o and its bias apply."""
    q = draw_normal(5, T, V_WIDTH)
    problem = attncli.Problem(q=q, k=q, v=q, parameters=PARAMETERS)

    assert [step.name for step in attncli.attend(problem) if step.name in NAMES] == ["w_o", "b_o"]
    with pytest.raises(InputError, match="has no step 'w_q'"):
        attncli.attend(problem, keep=["w_q"])
    without_values = attncli.Problem(q=q, k=q, parameters={"w_o": PARAMETERS["w_o"]})
    assert "w_o" not in attncli.attend(without_values)


def test_a_gradient_reaches_a_matrix_that_is_shown():
    w_q = torch.tensor(PARAMETERS["w_q"], requires_grad=True)
    parameters = {"w_q": w_q, "w_k": torch.tensor(PARAMETERS["w_k"])}

    result = attncli.attend(attncli.Problem(embeddings=torch.tensor(X), parameters=parameters))

    assert torch.equal(result["w_q"].values, w_q)
    assert torch.autograd.grad(result["w_q"].values.sum(), w_q)[0].eq(1).all()
