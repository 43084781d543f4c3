"""The course of docs/learn.md: the JSON of the very command that stands on the page, against PyTorch typed here."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import torch
from torch import nn

from tests.docs.pages import blocks
from tests.helpers import ROOT, SAMPLES, assert_close

PAGE = ROOT / "docs" / "learn.md"
HELLO = torch.tensor([[0.34, 0.22, 0.54], [0.53, 0.34, 0.98], [0.29, 0.54, 0.93]])
JOURNEY = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.1],
        [0.05, 0.8, 0.55],
    ]
)
THREE = torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 2], [2, 1, 0, 1]])  # sample_inputs/tokens.csv
LATER = torch.ones(6, 6).triu(diagonal=1).bool()

pytestmark = pytest.mark.usefixtures("own_stream")


def commands_of(number: int) -> list[str]:
    """The commands of attn below the heading of a block."""
    text = PAGE.read_text(encoding="utf-8")
    start = re.search(rf"^## {number} ", text, re.MULTILINE).start()
    end = text.find("\n## ", start + 1)
    shown = [block for block in blocks(PAGE) if block.language == "console" and start < block.start < end]
    return [command for block in shown for command in block.commands if command.startswith("attn ")]


@pytest.fixture
def course(attn, tmp_path):
    """Run the n-th command of a block with --json: course(4) → its result."""
    (tmp_path / "sample_inputs").symlink_to(SAMPLES)
    for block in blocks(PAGE):
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")

    def run(number: int, nth: int = 0):
        words = shlex.split(commands_of(number)[nth])
        done = attn(*words[1:], "--json")
        assert done.status == 0, done.err
        return done.json

    return run


def assert_steps(result, **expected: torch.Tensor) -> None:
    """Each named step of a result, or drawn parameter, equals a tensor of PyTorch's: float32, or better."""
    for name, tensor in expected.items():
        values = result[name] if name in result else result["parameters"][name]
        assert_close(values, tensor.double(), rtol=2e-6, atol=2e-7)


def attend(q, k, v, *, hidden=None, dropout=None):
    """softmax(q kᵀ / √d_k) v, after the mask: (weights, weights after dropout, context)."""
    scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(-1)
    kept = dropout(weights) if dropout else weights
    return weights, kept, kept @ v


def make_linear(seed: int, *, bias: bool = False) -> list[nn.Linear]:
    torch.manual_seed(seed)
    return [nn.Linear(3, 2, bias=bias) for _ in range(3)]


@torch.no_grad()
def test_one_word(course):
    scores = HELLO[1] @ HELLO.T
    weights = scores.exp() / scores.exp().sum()

    assert_steps(course(1), scores=scores[None], weights=weights[None], context=(weights @ HELLO)[None])


@torch.no_grad()
def test_random_matrices(course):
    torch.manual_seed(1)
    matrices = [torch.randn(4, 4) for _ in range(3)]
    q, k, v = (THREE @ matrix for matrix in matrices)
    weights, _, context = attend(q, k, v)

    result = course(2)

    assert_steps(result, q=q, k=k, v=v, scores=q @ k.T, scaled_scores=q @ k.T / 2, weights=weights, context=context)
    assert_steps(result, **dict(zip(("w_q", "w_k", "w_v"), matrices, strict=True)))


@torch.no_grad()
def test_parameters(course):
    torch.manual_seed(123)
    w_q, w_k, w_v = (nn.Parameter(torch.rand(3, 2)) for _ in range(3))
    weights, _, context = attend(JOURNEY @ w_q, JOURNEY @ w_k, JOURNEY @ w_v)

    assert_steps(course(3), q=JOURNEY @ w_q, weights=weights, context=context, w_k=w_k, w_v=w_v)


@torch.no_grad()
@pytest.mark.parametrize(("block", "bias"), [(4, False), (5, True)])
def test_linear_layers(course, block, bias):
    q, k, v = (layer(JOURNEY) for layer in make_linear(789, bias=bias))
    weights, _, context = attend(q, k, v)

    assert_steps(course(block), q=q, weights=weights, context=context)


@torch.no_grad()
def test_the_causal_mask(course):
    q, k, v = (layer(JOURNEY) for layer in make_linear(789))
    weights, _, context = attend(q, k, v, hidden=LATER)

    result = course(6)

    assert_steps(result, weights=weights, context=context)
    assert all(cell == "-Infinity" for i, row in enumerate(result["masked_scores"]) for cell in row[i + 1 :])


def test_a_mask_that_is_multiplied_holds_nan(attn, course, tmp_path):
    """The file on the page holds what the line of code gives, and is refused; with 0 for NaN it is the causal mask."""
    multiplied = torch.triu(torch.ones(3, 3), diagonal=1) * -torch.inf
    text = (tmp_path / "masked.json").read_text(encoding="utf-8")
    bare = text.replace('"NaN"', "NaN").replace('"-Infinity"', "-Infinity")
    numbers = torch.tensor(json.loads(bare)["bias"])
    assert torch.equal(numbers.isnan(), multiplied.isnan())
    assert torch.equal(numbers == -torch.inf, multiplied == -torch.inf)

    command = commands_of(6)[1].partition(";")[0]
    refused = attn(*shlex.split(command)[1:])

    assert (refused.status, refused.out) == (3, "")
    assert "0 × −∞ is NaN" in refused.err
    (tmp_path / "filled.json").write_text(text.replace('"NaN"', "0"), encoding="utf-8")
    filled = attn("compute", "filled.json", "--json").json
    hidden = torch.ones(3, 3).triu(diagonal=1).bool()
    assert_steps(filled, context=attend(HELLO, HELLO, HELLO, hidden=hidden)[2])


@torch.no_grad()
def test_a_batch_of_two(course):
    q, k, v = (layer(torch.stack([JOURNEY, JOURNEY])) for layer in make_linear(123))

    assert_steps(course(7), context=attend(q, k, v, hidden=LATER)[2])


@torch.no_grad()
def test_dropout(course):
    q, k, v = (layer(JOURNEY) for layer in make_linear(123))
    weights, kept, context = attend(q, k, v, hidden=LATER, dropout=nn.Dropout(0.5))  # goes on in the same stream

    assert 0 < (kept == 0).sum() < kept.numel()
    assert_steps(course(8), weights=weights, dropout_weights=kept, context=context)


@torch.no_grad()
def test_dropout_with_a_seed_of_its_own(course):
    q, k, _ = (layer(JOURNEY) for layer in make_linear(789))
    weights = attend(q, k, q, hidden=LATER)[0]
    torch.manual_seed(123)

    assert_steps(course(8, 1), dropout_weights=nn.Dropout(0.5)(weights))


@torch.no_grad()
def test_two_heads(course):
    layers = make_linear(123)
    out_proj = nn.Linear(2, 2)
    q, k, v = (layer(JOURNEY).view(6, 2, 1).transpose(0, 1) for layer in layers)  # (head, token, width of a head)
    weights, _, per_head = attend(q, k, v, hidden=LATER)
    context = per_head.transpose(0, 1).reshape(6, 2)

    assert_steps(course(9), weights=weights, context=context, output=out_proj(context))


def test_heads_that_do_not_divide_the_width(attn, course):
    words = shlex.split(commands_of(9)[1].partition(";")[0])

    run = attn(*words[1:])

    assert run.status == 3
    assert "3 heads" in run.err


@torch.no_grad()
def test_multihead_attention(course):
    torch.manual_seed(123)
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    output, weights = layer(THREE[None], THREE[None], THREE[None], average_attn_weights=False)

    assert_steps(course(10), weights=weights[0], output=output[0])


def test_the_course_is_linked_from_the_readme():
    assert "docs/learn.md" in (ROOT / "README.md").read_text(encoding="utf-8")
