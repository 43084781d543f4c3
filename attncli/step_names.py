"""The names of every step that some variant has. Entry: `require_step_name`."""

from __future__ import annotations

from collections.abc import Collection

from attncli.errors import OptionError
from attncli.parts.links import link
from attncli.text import closest, join_names
from attncli.types import BASE_STEPS

STEP_NAMES = (*BASE_STEPS, *(member.traits.step for member in link))


def require_step_name(name: str, *, is_all_allowed: bool = True) -> None:
    """Check that a name is that of a step which some variant has.

    Args:
        name: a name that is not `all`.
        is_all_allowed: whether `all` may stand in its place, and is offered.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    base, _, repetition = name.rpartition("_")
    names = [*STEP_NAMES, "all"] if is_all_allowed else STEP_NAMES
    if name not in STEP_NAMES and not (base in STEP_NAMES and repetition.isascii() and repetition.isdecimal()):
        raise OptionError("unknown-step", f"there is no step called {name!r}", help=_suggest_step(name, names))


def _suggest_step(name: str, names: Collection[str]) -> str:
    """Offer the step that a misspelt name is like; else the steps of a first look, and where all are listed."""
    match = closest(name, names)
    if match is not None:
        return f"did you mean {match!r}?"
    return f"such as {join_names(('q', 'scores', 'weights', 'context'), 'or')}; attn list steps lists them all"
