"""ONNX's own node tests for Attention, said in attncli's words: each is one problem and one variant, and nothing is lost.

An independent specification with figures: opsets 23 (masks, heads, past, softcap, named stages), 24 (external cache) and
25 (windows). The cases are those of `onnx.backend.test.case.node.attention`, whose figures come from ONNX's reference.
Translation table (ONNX → attncli):

    Q, K, V rank 3, *_num_heads    q, k, v rank 3, heads, kv_heads; Y is `context`. Rank 4: as they are; Y is `head_context`
    scale, softcap                 scale, softcap (0 is none)
    attn_mask boolean / float      mask / bias; one shorter than the keys is filled up with false / −∞, never repeated
    is_causal, *_window_size       mask: causal, window:left=,right=, in positions
    neither cache                  align: top-left
    past_key, past_value           past; present_key, present_value are `present_k`, `present_v`; queries count on from it
    nonpad_kv_seqlen               lengths, and, where a mask reads them, positions: the queries are the last of so many keys
    softmax_precision              half precision is normalised in float32 always; above that the whole run is as wide
    qk_matmul_output_mode          a step, by name (STAGES)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attncli
from attncli.types import Step

pytestmark = pytest.mark.uncounted

# Older releases give other figures for the same opset: softcap after the mask, modes 1 and 2 swapped, NaN for empty rows
# (onnx #7867, #7913, #8068), and have no opset 25.
onnx = pytest.importorskip("onnx", minversion="1.23.2")

CASES_OF = {"1.23.2": 93}  # how many cases a release has; a later one has no fewer
INEXPRESSIBLE: dict[str, str] = {}  # case → what of it cannot be said

# (rtol, atol) by the type of the outputs. float32 is held a hundred times closer than ONNX holds its backends (1e-3);
# the other two are ONNX's own (onnx.backend.test.runner.Runner.assert_similar_outputs): 1e-3 is one unit in the last
# place of float16, and hardly ever two; 2⁻⁶ is two of bfloat16.
TOLERANCE = {"float32": (1e-5, 1e-7), "float16": (1e-3, 1e-7), "bfloat16": (2**-6, 1e-7)}

# qk_matmul_output_mode → the step it is: the last of these that the variant has. Mode 0 has the scale in it already.
STAGES = {
    0: ("scores", "scaled_scores"),
    1: ("scores", "scaled_scores", "softcapped_scores"),
    2: ("scores", "scaled_scores", "softcapped_scores", "biased_scores", "masked_scores"),
    3: ("weights",),
}
ATTRIBUTES = {"scale", "softcap", "is_causal", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode"}
ATTRIBUTES |= {"softmax_precision", "left_window_size", "right_window_size"}
INPUTS = {"Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"}
OUTPUTS = {"Y", "present_key", "present_value", "qk_matmul_output"}


@dataclass(frozen=True)
class Case:
    """One node, with what goes in and what must come out, by the schema's names."""

    name: str
    opset: int
    attributes: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    @property
    def dtype(self) -> str:
        return self.inputs["Q"].dtype.name


def collected() -> Iterator[Case]:
    """The cases of the installed release; their `_expanded` twins hold the same figures for ONNX's function body."""
    state = np.random.get_state()  # importing the module seeds and draws from the global stream
    try:
        import onnx.backend.test.case.node.attention
        from onnx.backend.test.case.node import _NodeTestCases as cases
    finally:
        np.random.set_state(state)
    for case in cases:
        if [node.op_type for node in case.model.graph.node] != ["Attention"]:
            continue
        (node,), ((given, wanted),) = case.model.graph.node, case.data_sets
        opset = next(o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx"))
        schema = onnx.defs.get_schema("Attention", opset)
        names = [slot.name for slot, name in zip(schema.inputs, node.input, strict=False) if name]
        out = [slot.name for slot, name in zip(schema.outputs, node.output, strict=False) if name]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        yield Case(
            case.name, opset, attributes, dict(zip(names, given, strict=True)), dict(zip(out, wanted, strict=True))
        )


CASES = {case.name: case for case in collected()}


# ── ONNX → attncli ───────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Translated:
    """A problem's fields, a variant's choices, and under which step each output is found (the last one that is there)."""

    fields: dict[str, Any]
    choices: dict[str, Any]
    steps: dict[str, tuple[str, ...]]


def translate(case: Case) -> Translated:
    """A node in attncli's words; what has none is an error, so that a later release's news cannot be passed over."""
    told, x = case.attributes, case.inputs
    unknown = (told.keys() - ATTRIBUTES) | (x.keys() - INPUTS) | (case.outputs.keys() - OUTPUTS)
    assert not unknown, f"no words for {unknown}"
    flat, queries, new_keys = x["Q"].ndim == 3, x["Q"].shape[-2], x["K"].shape[-2]
    past = x["past_key"].shape[2] if "past_key" in x else 0
    fields: dict[str, Any] = {"q": x["Q"], "k": x["K"], "v": x["V"]}
    choices: dict[str, Any] = {"dtype": precision(case)}
    if flat:
        choices |= {"heads": told["q_num_heads"], "kv_heads": told["kv_num_heads"]}
    if "scale" in told:
        choices["scale"] = told["scale"]
    if told.get("softcap"):
        choices["softcap"] = told["softcap"]

    masks = ["causal"] if told.get("is_causal") else []
    bounds = {side: told.get(f"{side}_window_size", -1) for side in ("left", "right")}
    if bounds != {"left": -1, "right": -1}:
        masks.append("window:left={left},right={right}".format(**bounds))
    if masks:
        choices["mask"] = masks
    if "past_key" in x:
        fields["past"] = {"k": x["past_key"], "v": x["past_value"]}
    elif "nonpad_kv_seqlen" in x:
        fields["lengths"] = counts = x["nonpad_kv_seqlen"]
        if masks:
            fields["positions"] = counts[:, None] - queries + np.arange(queries)
            fields["k_positions"] = np.arange(new_keys)
    elif masks:
        choices["align"] = "top-left"
    if "attn_mask" in x:
        boolean = x["attn_mask"].dtype == bool
        fields["mask" if boolean else "bias"] = filled(x["attn_mask"], past + new_keys)

    steps = {
        "Y": ("context" if flat else "head_context",),
        "qk_matmul_output": STAGES[told.get("qk_matmul_output_mode", 0)],
    }
    steps |= {"present_key": ("k", "present_k"), "present_value": ("v", "present_v")}  # without a past, k and v
    return Translated(fields, choices, {name: steps[name] for name in case.outputs})


def filled(mask: np.ndarray, keys: int) -> np.ndarray:
    """A mask that is shorter than the keys hides the rest of them."""
    short = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
    return np.pad(mask, short, constant_values=mask.dtype.type(False if mask.dtype == bool else -np.inf))


def precision(case: Case) -> str:
    """The dtype of the run, in which softmax is at least as precise as the node asks for."""
    wide = onnx.TensorProto.DataType.Name(case.attributes.get("softmax_precision", onnx.TensorProto.FLOAT))
    return "float64" if wide == "DOUBLE" else case.dtype


# ── two doors: arrays in this process, and a file ────────────────────────────────────────────────
def as_arrays(said: Translated, folder: Path) -> attncli.Attention:
    """numpy arrays; tensors in bfloat16, which numpy lacks."""
    return attncli.attend(attncli.Problem(**each(said.fields, plain)), attncli.Variant(**said.choices))


def as_file(said: Translated, folder: Path) -> attncli.Attention:
    """JSON, choices and all."""
    file = folder / "problem.json"
    file.write_text(json.dumps(each(said.fields, listed) | {"variant": said.choices}))
    return attncli.attend(attncli.read(file))


DOORS: dict[str, Callable[[Translated, Path], attncli.Attention]] = {"arrays": as_arrays, "file": as_file}


def each(fields: dict[str, Any], act: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    return {n: {m: act(y) for m, y in x.items()} if isinstance(x, dict) else act(x) for n, x in fields.items()}


def plain(x: np.ndarray) -> Any:
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype.name == "bfloat16" else x


def listed(x: np.ndarray) -> Any:
    """Lists, in which −∞ is a text."""
    if x.dtype.kind in "bi":
        return x.tolist()
    return np.where(np.isneginf(x.astype(float)), "-Infinity", x.astype(float).astype(object)).tolist()


def found(result: attncli.Attention, steps: tuple[str, ...]) -> Step:
    """The last of some steps that a result has."""
    return [result[step] for step in steps if step in result][-1]


def numbers(values: Any) -> np.ndarray:
    """An array or tensor of any precision → float64, exactly."""
    return values.double().numpy() if isinstance(values, torch.Tensor) else values.astype(np.float64)


def differences(result: attncli.Attention, case: Case, steps: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Output → how it differs, of those that do."""
    return differing({name: found(result, steps[name]).values for name in case.outputs}, case)


def differing(have: dict[str, Any], case: Case) -> dict[str, str]:
    out = {}
    for name, want in case.outputs.items():
        rtol, atol = TOLERANCE[want.dtype.name]
        try:
            np.testing.assert_allclose(numbers(have[name]), numbers(want), rtol=rtol, atol=atol, strict=True)
        except AssertionError as error:
            out[name] = str(error)
    return out


# ── the cases ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", [name for name in CASES if name not in INEXPRESSIBLE])
def test_an_onnx_case_comes_out(name: str, door: str, tmp_path: Path) -> None:
    case = CASES[name]
    said = translate(case)
    result = DOORS[door](said, tmp_path)
    wrong = differences(result, case, said.steps)
    assert not wrong, "\n".join(f"{output}: {how}" for output, how in wrong.items())
    assert result.dtype == said.choices["dtype"]
    assert {w.partition(":")[0] for w in result.warnings} <= {
        "empty-rows",
        "read-as-batch",
        "read-as-heads-first",
    }  # nothing that was said went unused
    if door == "arrays" and said.choices["dtype"] == case.dtype:
        for output, want in case.outputs.items():
            assert str(found(result, said.steps[output]).values.dtype).removeprefix("torch.") == want.dtype.name


def test_every_case_of_this_release_is_run() -> None:
    assert INEXPRESSIBLE.keys() <= CASES.keys()
    least = max(CASES_OF.values())
    assert len(CASES) == CASES_OF.get(onnx.__version__, len(CASES)) >= least
    assert len(CASES) - len(INEXPRESSIBLE) >= least


def test_the_cases_hold_what_they_are_here_for(tmp_path: Path) -> None:
    """Every rank and kind of mask, both caches, both half precisions, windows, and every mode at the step of its name."""
    said = {name: translate(case) for name, case in CASES.items()}
    fields = [(s.fields, s.choices) for s in said.values()]
    assert {case.opset for case in CASES.values()} >= {23, 24, 25}
    assert {case.dtype for case in CASES.values()} >= {"float32", "float16", "bfloat16"}
    assert {case.inputs["Q"].ndim for case in CASES.values()} == {3, 4}
    assert {f["bias"].ndim for f, _ in fields if "bias" in f} >= {2, 3, 4}
    assert {f["mask"].ndim for f, _ in fields if "mask" in f} >= {1, 2, 4}
    assert all(any(name in f for f, _ in fields) for name in ("past", "lengths", "positions"))
    assert all(any(name in c for _, c in fields) for name in ("scale", "softcap", "heads"))
    assert any(c.get("mask") == ["causal", "window:left=2,right=-1"] for _, c in fields)
    assert any(case.inputs["attn_mask"].shape[-1] < case.inputs["K"].shape[-2] for case in masked() if not past(case))
    modes = {
        (
            CASES[n].attributes.get("qk_matmul_output_mode", 0),
            found(as_arrays(s, tmp_path), s.steps["qk_matmul_output"]).name,
        )
        for n, s in said.items()
        if "qk_matmul_output" in s.steps
    }
    assert modes >= {(0, "scaled_scores"), (1, "softcapped_scores"), (2, "biased_scores"), (2, "masked_scores")}
    assert {step for mode, step in modes if mode == 3} == {"weights"}


def masked() -> list[Case]:
    return [case for case in CASES.values() if "attn_mask" in case.inputs]


def past(case: Case) -> bool:
    return "past_key" in case.inputs


# ── half precision, run as it is by default ──────────────────────────────────────────────────────
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.dtype in ("float16", "bfloat16")])
def test_half_precision_by_default_is_float32_rounded_once(name: str, tmp_path: Path) -> None:
    """Without a dtype half-precision arrays are computed in float32; brought back to their type, ONNX's figures."""
    case = CASES[name]
    said = translate(case)
    del said.choices["dtype"]
    result = as_arrays(said, tmp_path)
    assert result.dtype == "float32"
    rounded = {n: found(result, s).values for n, s in said.steps.items()}
    rounded = {n: torch.as_tensor(x).to(getattr(torch, case.dtype)) for n, x in rounded.items()}
    assert not differing(rounded, case)


# ── whether these cases could fail ───────────────────────────────────────────────────────────────
# A fault: what it does to fields and choices, in place; False where there is nothing to spoil.
def without(name: str) -> Callable[[dict, dict], Any]:
    return lambda fields, choices: fields.pop(name, choices.pop(name, False))


def aligned_at_the_end(fields: dict, choices: dict) -> Any:
    if "align" not in choices or fields["q"].shape[-2] == fields["k"].shape[-2]:
        return False
    return choices.update(align="bottom-right")


def unmasked(fields: dict, choices: dict) -> Any:
    for name in ("positions", "k_positions", "align"):
        fields.pop(name, choices.pop(name, None))
    return choices.pop("mask", False)


def one_earlier(fields: dict, choices: dict) -> Any:
    return "positions" in fields and fields.update(positions=fields["positions"] - 1)


def cache_of_no_length(fields: dict, choices: dict) -> Any:
    if "lengths" not in fields:
        return False
    del fields["lengths"]
    if "positions" in fields:
        del fields["positions"], fields["k_positions"]
        choices["align"] = "top-left"
    return None


def mask_turned_round(fields: dict, choices: dict) -> Any:
    return "mask" in fields and fields.update(mask=~fields["mask"])


def past_turned_round(fields: dict, choices: dict) -> Any:
    return "past" in fields and fields.update(past={n: x[:, :, ::-1].copy() for n, x in fields["past"].items()})


def kv_heads_tiled(fields: dict, choices: dict) -> Any:
    heads, kv_heads = (choices.get(n, fields[x].shape[1]) for n, x in (("heads", "q"), ("kv_heads", "k")))
    return 1 < kv_heads < heads and choices.update(kv_map="tile")


FAULTS: dict[str, Callable[[dict, dict], Any]] = {
    "no scale": without("scale"),
    "no softcap": without("softcap"),
    "no bias": without("bias"),
    "neither causal nor window": unmasked,
    "aligned at the end": aligned_at_the_end,
    "positions one earlier": one_earlier,
    "a cache of no length": cache_of_no_length,
    "the mask turned round": mask_turned_round,
    "the past turned round": past_turned_round,
    "kv heads tiled": kv_heads_tiled,
}
# Cases whose figures a fault leaves alone.
DEAF = {
    "test_attention_local_window_ext_cache_float16_mask": set(FAULTS),  # q and k are 0 and v is 1: any weights will do
    "test_attention_4d_gqa_causal_nonpad_decode": {"neither causal nor window"},  # the one query is the last token
    "test_attention_4d_gqa_causal_nonpad_decode_fp16": {"neither causal nor window"},
    "test_attention_causal_boolmask_nan_robustness": {"neither causal nor window"},  # its mask hides those keys too
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_translation_is_noticed(fault: str, tmp_path: Path) -> None:
    """By every case that has what is spoiled."""
    met, unnoticed = 0, set()
    for name in (name for name in CASES if fault not in DEAF.get(name, ())):
        said = translate(CASES[name])
        if FAULTS[fault](said.fields, said.choices) is False:
            continue
        met += 1
        if not differences(as_arrays(said, tmp_path), CASES[name], said.steps):
            unnoticed.add(name)
    assert met > 0
    assert not unnoticed
