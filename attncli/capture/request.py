"""What `attn capture` is asked for, as plain data: which layers, how deep, of which text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from attncli.errors import OptionError
from attncli.text import shorten

Depth = Literal["hidden", "qkv"]
RANDOM_IMAGE = "random"  # in the place of an image file
_LAYERS = re.compile(r"(?:(?P<tower>[A-Za-z_][\w.]*?)(?:\.(?=\d|$)|$))?(?P<low>\d+)?(?P<colon>:)?(?P<high>\d+)?")
_MAX_LAYER_DIGITS = 6


@dataclass(frozen=True)
class LayerSelection:
    """Which layers: all of them, a range of numbers, or those of one tower: `5`, `3:6`, `decoder`, `cross.5`."""

    text: str = "all"
    tower: str | None = None  # encoder, decoder, cross or the name of a module; None: not said
    low: int = 0
    high: int | None = None  # None: to the last one

    def selects(self, tower: str, number: int) -> bool:
        return (
            (self.tower is None or self.tower == tower)
            and self.low <= number
            and (self.high is None or number < self.high)
        )

    @property
    def is_one(self) -> bool:
        return self.high is not None and self.high - self.low == 1

    @property
    def names_numbers(self) -> bool:
        return self.low > 0 or self.high is not None


def parse_layers(text: str) -> LayerSelection:
    """Parse `--layer`.

    Raises:
        OptionError: it is no layer and no range.
    """
    if text == "all":
        return LayerSelection()
    match = _LAYERS.fullmatch(text)
    low, high = (match[name] for name in ("low", "high")) if match else (None, None)
    if not match or not text or max(len(low or ""), len(high or "")) > _MAX_LAYER_DIGITS:
        raise OptionError("bad-option", f"--layer {shorten(text)} names no layers", help=_LAYER_HELP)
    first = int(low or 0)
    last = (
        None
        if low is None and high is None
        else first + 1
        if not match["colon"]
        else None
        if high is None
        else int(high)
    )
    if last is not None and last <= first:
        raise OptionError(
            "bad-option", f"--layer {text} selects nothing: the end of a range is not part of it", help=_LAYER_HELP
        )
    return LayerSelection(text, match["tower"], first, last)


_LAYER_HELP = "--layer all, --layer 5, --layer 3:6 for 3, 4 and 5, or with the tower before it: --layer decoder.5"


def parse_ids(text: str) -> tuple[int, ...]:
    """Parse `--ids 1,5,7`.

    Raises:
        OptionError: one is no whole number ≥ 0.
    """
    ids = []
    for word in map(str.strip, text.split(",")):
        if not (word.isascii() and word.isdecimal() and len(word) <= 9):
            raise OptionError(
                "bad-option",
                f"--ids takes the numbers of tokens, not {shorten(word) or 'nothing'}",
                help="--ids 101,7592,102",
            )
        ids.append(int(word))
    return tuple(ids)


@dataclass(frozen=True)
class CaptureRequest:
    """What is to be captured of a model."""

    texts: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()  # instead of texts
    layers: LayerSelection = LayerSelection()
    depth: Depth = "hidden"
    dtype: Literal["float32", "float64"] = "float32"
    image: str = ""  # a file, or `random`
    generated_count: int = 0  # tokens that the model generates before the step that is captured; 0: the text is
    trusts_remote_code: bool = False  # whether code in the folder may run
    steps: tuple[str, ...] = ()  # of results; none: layers are written as problems
