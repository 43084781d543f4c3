"""Names that this package, or a result, does not have: what to write instead. Entries: `unknown_name_error`, `find_other_attribute`."""

from __future__ import annotations

from attncli.errors import UnknownAttributeError
from attncli.text import closest, quote_value

_COMPUTE = "attncli.attend(x, mask='causal'), or attncli.attend(q=q, k=k, v=v)"
_IN_TERMINAL = "in a terminal, attn {} does that"
# What people call things → what they are here.
_OTHER_NAMES = {
    **dict.fromkeys(("attention", "compute", "run", "forward", "softmax", "self_attention", "selfattention"), _COMPUTE),
    **dict.fromkeys(("sdpa", "scaled_dot_product_attention", "multihead_attention", "multiheadattention"), _COMPUTE),
    **dict.fromkeys(("load", "open", "read_csv", "read_json", "read_file", "from_csv", "from_file"), "attncli.read('tokens.csv')"),
    **dict.fromkeys(("save", "dump", "to_json", "to_csv"), "result.save('x.json'), or attncli.write(result, 'x.json')"),
    **dict.fromkeys(("plot", "heatmap", "show", "visualize", "draw"), "attncli.attend(x).plot()"),
    **dict.fromkeys(("version", "version_info"), "attncli.__version__"),
    **dict.fromkeys(("masks", "variants", "list", "parts"), _IN_TERMINAL.format("list")),
    **{name: _IN_TERMINAL.format(name) for name in ("batch", "capture", "config", "demo", "schema")},
}  # fmt: skip
_OTHER_ATTRIBUTES = {
    **dict.fromkeys(("items", "values"), "for step in result: step.name, step.values"),
    "get": "'weights' in result says whether it holds a step, and result['weights'] is the step",
    **dict.fromkeys(("numpy", "to_numpy", "array", "cpu", "detach"), "a step is an item, and has the array: result['weights'].values"),
    **dict.fromkeys(("to_csv", "to_parquet", "to_file", "write"), "result.save('x.csv')"),
    **dict.fromkeys(("to_dataframe", "to_frame", "dataframe", "df"), "result.to_pandas('weights'), or result.to_polars('weights')"),
    **dict.fromkeys(("heatmap", "draw", "figure", "imshow"), "result.plot()"),
    **dict.fromkeys(("show", "print", "display", "summarize"), "print(result), or result.plot()"),
}  # fmt: skip


def unknown_name_error(name: str) -> UnknownAttributeError:
    """Return the error that the package has no such name, with what people may mean by it."""
    from attncli import __all__

    match = closest(name, __all__)
    help = _OTHER_NAMES.get(name.lower()) or (
        f"did you mean {match!r}?" if match else "help(attncli) lists what there is"
    )
    return UnknownAttributeError("unknown-attribute", f"attncli has no {quote_value(name)}", help=help)


def find_other_attribute(name: str) -> str | None:
    """Return what stands for an attribute that a result does not have, though objects of other libraries do; None: nothing."""
    return _OTHER_ATTRIBUTES.get(name)
