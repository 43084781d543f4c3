"""attn: the command-line attention calculator, and its Python interface.

    import attncli
    problem = attncli.Problem(q=q, k=k, v=v)             # or attncli.read("tokens.csv")
    variant = attncli.Variant(mask="causal", heads=2)
    result = attncli.attend(problem, variant, keep={"weights", "context"})
    result["weights"].values

Nothing is imported until it is used: torch only by `attend`. No other module either, not even `__future__`: of
`python -m attncli` this file runs while Python still finds modules in the current folder, whoever put them there.
"""

__version__ = "0.1.0"
__all__ = ["Attention", "AttnError", "Problem", "Variant", "attend", "read"]

TYPE_CHECKING = False  # that of `typing`, as type checkers know it
if TYPE_CHECKING:
    from attncli.core.attention import attend
    from attncli.errors import AttnError
    from attncli.readers.read import read
    from attncli.types import Attention, Problem
    from attncli.variant import Variant

_MODULE_OF_NAME = {
    "AttnError": "attncli.errors",
    "Attention": "attncli.types",
    "Problem": "attncli.types",
    "Variant": "attncli.variant",
    "attend": "attncli.core.attention",
    "read": "attncli.readers.read",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'attncli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULE_OF_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
