"""Drawing a heat map of 1024 tokens beside a bare script of matplotlib: the runs of `python benchmarks pictures`."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

_TOKEN_COUNT = 1024
_WIDTH, _DPI = 6.4, 100  # inches, and pixels per inch


def draw_with_attn() -> Callable[[], object]:
    """Drawing by attn: causal weights with hidden keys, labels of tokens, colour bar, title and legend."""
    import attncli
    from attncli.output_formats import FigureOptions, RenderOptions, load_output_format

    problem = attncli.Problem(
        embeddings=np.random.default_rng(0).standard_normal((_TOKEN_COUNT, 16)),
        tokens=[f"token{i}" for i in range(_TOKEN_COUNT)],
    )
    attention = attncli.attend(problem, attncli.Variant(mask="causal"), keep={"weights"})
    format = load_output_format("png")
    options = RenderOptions(figure=FigureOptions(width=_WIDTH, dpi=_DPI, title="Weights"))
    return lambda: format.write(attention, options)


def draw_with_imshow() -> Callable[[], object]:
    """Drawing by the shortest script: `imshow` with its axes, as many pixels as attn's figure has."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot
    from PIL import Image

    drawn: object = draw_with_attn()()
    assert isinstance(drawn, bytes)
    width, height = Image.open(io.BytesIO(drawn)).size
    weights = np.random.default_rng(0).random((_TOKEN_COUNT, _TOKEN_COUNT))

    def draw() -> None:
        figure = pyplot.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        pyplot.imshow(np.tril(weights))
        pyplot.savefig(io.BytesIO(), format="png")
        pyplot.close(figure)

    return draw
