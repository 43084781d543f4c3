"""The language of parts, mask expressions and variants: text is refused with a code, or prints and parses back to the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from attncli.errors import AttnError
from attncli.variant import CHOICES, FAMILIES, Variant, parse_mask
from tests.fuzz.harness import Outcome, describe_exception
from tests.laws.problems import spellings

ODD = (
    *("", " ", ":", ",", "=", "::", "a", "0", "-1", "1e400", "nan", "inf", "1" * 5000, "²", "٣", "1_0", "0x1", "1.5", "-0.0", "True"),
    *("(", ")", "not", "and", "or", "(" * 60, "not " * 60, "\0", "\udcff", "\u202e", "\x1b[1m", "full", "causal", "none", "auto", "+", "0+1+"),
)  # fmt: skip


def draw_part(draw: random.Random) -> tuple[str, str]:
    """Draw a family and the text of one of its parts, most of them changed somewhere."""
    family = draw.choice([*FAMILIES.values()])
    text = draw.choice(spellings(draw.choice([*family])))
    for _ in range(draw.choice((0, 0, 1, 1, 2, 4))):
        pieces = text.replace(":", "\n:\n").replace(",", "\n,\n").replace("=", "\n=\n").split("\n")
        i = draw.randrange(len(pieces))
        if draw.random() < 0.5:
            pieces[i] = draw.choice(ODD)
        elif draw.random() < 0.5:
            del pieces[i]
        else:
            pieces.insert(i, draw.choice((*pieces, str(draw.uniform(-9, 9)), str(draw.randrange(-3, 2**40)))))
        text = "".join(pieces)
    return family.name, text


def draw_expression(draw: random.Random, depth: int = 0) -> str:
    """Draw a mask expression, some of them broken."""
    kind = draw.random()
    if depth > 3 or kind < 0.3:
        mask = FAMILIES["mask"]
        return draw.choice(spellings(draw.choice([*mask]))) if draw.random() < 0.95 else draw.choice(ODD)
    if kind < 0.5:
        return f"not {draw_expression(draw, depth + 1)}"
    if kind < 0.7:
        return f"({draw_expression(draw, depth + 1)})" if draw.random() < 0.95 else draw_expression(draw, depth + 1)
    between = draw.choice(("and", "or", "and", "or", "xor" if draw.random() < 0.1 else "and"))
    return f"{draw_expression(draw, depth + 1)} {between} {draw_expression(draw, depth + 1)}"


def draw_choices(draw: random.Random) -> dict[str, object]:
    """Draw the choices of a variant."""
    choices: dict[str, object] = {}
    for _ in range(draw.randrange(1, 4)):
        family, text = draw_part(draw)
        name = draw.choice((family, draw.choice([*CHOICES])))
        numbers = (draw.randrange(5), draw.uniform(-2, 2), 10**400, float("nan"), True, None, [], {}, ["causal", text])
        choices[name] = draw.choice((text, text, draw.choice(ODD), draw.choice(numbers)))
    return choices


def fuzz(seed: int, indices: Iterator[int], folder: Path) -> Iterator[Outcome]:
    """Yield what becomes of the texts of some indices."""
    for i in indices:
        draw = random.Random(f"{seed} {i}")
        kind = draw.choice(("part", "mask expression", "variant"))
        family, text = draw_part(draw)
        given: object = text
        try:
            if kind == "part":
                part = FAMILIES[family].parse(given)
                assert FAMILIES[family].parse(str(part)) == part, f"{part} parses back as another"
            elif kind == "mask expression":
                given = draw_expression(draw)
                mask = parse_mask(given)
                assert parse_mask(str(mask)) == mask, f"{mask} parses back as another"
            else:
                given = draw_choices(draw)
                variant = Variant(**given)
                described = variant.describe()
                assert Variant(**described).describe() == described, f"{described} parses back as another"
        except AttnError as error:
            is_long = len(error.message) + len(error.help or "") > 5000
            yield Outcome(kind, error.code, "wrong" if is_long else None, "a long message", repr(given).encode())
        except AssertionError as error:
            yield Outcome(kind, "", "wrong", str(error), repr(given).encode())
        except Exception as error:
            yield Outcome(kind, "", "bug", describe_exception(error), repr(given).encode())
        else:
            yield Outcome(kind, content=repr(given).encode())
