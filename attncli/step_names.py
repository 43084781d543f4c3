"""The names of every step that some variant has, and of gradients. Entries: `require_step_name`, `find_figure_name`."""

from __future__ import annotations

from collections.abc import Collection

from attncli.errors import OptionError
from attncli.parts.links import link
from attncli.parts.mixing import mixing
from attncli.parts.norms import norm
from attncli.parts.positions import position
from attncli.parts.scores import score
from attncli.parts.sinks import sink
from attncli.synonyms import find_synonym
from attncli.text import closest, join_names
from attncli.types import BASE_STEPS

STEP_NAMES = (*BASE_STEPS, *(member.traits.step for member in link))
_STEPS_WITHOUT_GRADIENT = (
    "positioned_embeddings", "mask", "max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights", "top_keys", "top_weights", "output"
)  # fmt: skip
_LEARNED_ARRAYS = dict.fromkeys(
    p.name for family in (norm, position, score, sink, mixing) for member in family for p in member.parameters
)
_WITH_GRADIENT = dict.fromkeys(("q", "k", "v", "bias", *_LEARNED_ARRAYS, "embeddings", "memory", *STEP_NAMES))
GRADIENT_NAMES = tuple(f"d{name}" for name in _WITH_GRADIENT if name not in _STEPS_WITHOUT_GRADIENT)
UPSTREAM_NAMES = (
    "dout",
    "doutput",
    "dcontext",
)  # the gradients by which a loss is known; dcontext may be one of its own
_NAMES_OF_LAST_STEP = ("out", "o", "attn_output", "attention_output")
_OTHER_NAMES = {  # of steps, where others agree on what they mean by them
    **dict.fromkeys(("attention_weights", "attn_weights"), "weights"),
    **dict.fromkeys(("lse", "logsumexp", "softmax_lse"), "log_sum_exp"),
}
_NAMES_OF_UPSTREAM = ("dout", "d_out", "do", "grad_out", "grad_output", "d_output", "out_grad", "output_grad")
_GRADIENT_MARKS = (("grad_", ""), ("d_", ""), ("d", ""), ("", "_grad"), ("", ".grad"))


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


def names_like(name: str) -> tuple[str, ...]:
    """Return the names that an unknown one may be meant as: of steps, and of gradients where it begins like one."""
    return (*STEP_NAMES, *GRADIENT_NAMES, *UPSTREAM_NAMES) if name.startswith(("d", "grad")) else STEP_NAMES


def find_figure_name(name: str) -> str | None:
    """Return the name under which figures are known: of a step, of a gradient, of that by which a loss is known, or `out`.

    Gradients go by several names: dq, d_q, grad_q, q_grad; dout, do, grad_output. None: it is none of these.
    """
    base, _, repetition = name.rpartition("_")
    if name in STEP_NAMES or (base in STEP_NAMES and repetition.isascii() and repetition.isdecimal()):
        return name
    if name in (*GRADIENT_NAMES, *UPSTREAM_NAMES):
        return name
    spelled = name.lower()
    if spelled in _NAMES_OF_LAST_STEP:
        return "out"
    if spelled in _OTHER_NAMES:
        return _OTHER_NAMES[spelled]
    if spelled in _NAMES_OF_UPSTREAM:
        return "dout"
    for prefix, suffix in _GRADIENT_MARKS:
        if spelled.startswith(prefix) and spelled.endswith(suffix):
            of = spelled[len(prefix) : len(spelled) - len(suffix)]
            known = f"d{of}" if f"d{of}" in GRADIENT_NAMES else f"d{find_synonym(of, _WITH_GRADIENT) or ''}"
            if known in GRADIENT_NAMES:
                return known
    return None
