"""attn: the command-line attention calculator, and its Python interface.

    import attncli
    result = attncli.attend(x)                               # an array (T, d), a tensor, lists, a data frame
    result = attncli.attend("tokens.csv", mask="causal")     # a file, and the command line's options as keywords
    result = attncli.attend(q=q, k=k, v=v, variant="llama3", heads=8, kv_heads=2, only=["weights", "context"])

    result["weights"].values                                 # an array, or a tensor where tensors came in
    print(result)                                            # the tables of `attn compute`
    result.to_pandas("weights"); result.save("x.json")       # a data frame with labels; any format of `attn compute -o`
    result.explain("cat")                                    # every multiplication of one query: `attn explain`
    attncli.check(x, {"context": mine}).assert_right()       # figures of your own: `attn check`
    attncli.judge_tolerance(x, rtol=1e-2, atol=1e-2)         # which wrong answers a tolerance would pass

Rows are queries, columns are keys; indices count from 0. Every step has a name, a formula, axes and values; the steps in order are
q, k, v, scores, scaled_scores, …, masked_scores, weights, …, context, output (`attn list steps`). Every mistake raises an
`AttnError` that says what is wrong, where, and the way out.

Nothing is imported until it is used: torch only by `attend`, `check`, `judge_tolerance` and `explain`. No other module either, not even
`__future__`: of `python -m attncli` this file runs while Python still finds modules in the current folder, whoever put them there.
"""

__version__ = "0.1.0"
__all__ = [
    "Attention",
    "AttnError",
    "CannotError",
    "Explanation",
    "Figure",
    "InputError",
    "OptionError",
    "Problem",
    "Report",
    "Result",
    "Step",
    "ToleranceReport",
    "Variant",
    "attend",
    "check",
    "explain",
    "judge_tolerance",
    "read",
    "write",
]

TYPE_CHECKING = False  # that of `typing`, as type checkers know it
if TYPE_CHECKING:
    from attncli.api.attend import attend, read
    from attncli.api.explain import Explanation, explain
    from attncli.api.plot import Figure
    from attncli.api.result import Result
    from attncli.api.write import write
    from attncli.check.call import Report
    from attncli.check.call import check_figures as check
    from attncli.check.tolerance_call import ToleranceReport, judge_tolerance
    from attncli.errors import AttnError, CannotError, InputError, OptionError
    from attncli.types import Attention, Problem, Step
    from attncli.variant import Variant

_MODULE_OF_NAME = {
    "AttnError": "attncli.errors",
    "Attention": "attncli.types",
    "CannotError": "attncli.errors",
    "Explanation": "attncli.api.explain",
    "Figure": "attncli.api.plot",
    "InputError": "attncli.errors",
    "OptionError": "attncli.errors",
    "Problem": "attncli.types",
    "Report": "attncli.check.call",
    "Result": "attncli.api.result",
    "Step": "attncli.types",
    "ToleranceReport": "attncli.check.tolerance_call",
    "Variant": "attncli.variant",
    "attend": "attncli.api.attend",
    "check": "attncli.check",  # the package, which can be called
    "explain": "attncli.api.explain",
    "judge_tolerance": "attncli.check.tolerance_call",
    "read": "attncli.api.attend",
    "write": "attncli.api.write",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF_NAME:
        if name.startswith("_"):
            raise AttributeError(f"module 'attncli' has no attribute {name!r}")
        from attncli.api.attributes import unknown_name_error

        raise unknown_name_error(name)
    from importlib import import_module

    module = import_module(_MODULE_OF_NAME[name])
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
