"""Gradients as figures: right ones of PyTorch and of a kernel typed by hand are called right, and mistakes are named."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.check.comparison import Comparison
from attncli.check.faults import fault_hypotheses
from attncli.check.figures import figures_from_arrays
from attncli.check.task import prepare
from tests.check.gradient_kernels import Case, backward


def check(case, figures, **more):
    return attncli.check(attncli.Problem(**case.problem_fields()), figures, **case.choices(), **more)


# ── right ones ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(causal=0, width=5),
        Case(causal=2, cap=2.0),
        Case(drop=0.3, width=5),
        Case(sinks=True, causal=2),
        Case(bias=True, causal=0),
        Case(batch=1, heads=2, kv_heads=1, cap=3.0, drop=0.25, sinks=True, bias=True, causal=2),
    ],
    ids=str,
)
def test_gradients_typed_by_hand_are_right(case):
    report = check(case, backward(case))

    assert report.right, report
    assert all(step.max_abs_error < 1e-13 for step in report.steps)
    assert {step.step for step in report.steps} >= {"context", "dq", "dk", "dv"}


def draw_sdpa(dtype, trial, scale_of_q=1.0):
    """SDPA in a dtype, with everything that it takes by turns, and its gradients."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    r = torch.Generator().manual_seed(trial)
    b, g, n, m, d, c = (int(torch.randint(low, high, (1,), generator=r)) for low, high in ((1, 3), (1, 4), (2, 20), (2, 20), (2, 33), (2, 33)))  # fmt: skip
    h = g * (1 + trial % 3)
    shapes = ((b, h, n, d), (b, g, m, d), (b, g, m, c))
    q, k, v = ((torch.randn(s, generator=r) * (scale_of_q if i == 0 else 1)).to(dtype) for i, s in enumerate(shapes))
    for x in (q, k, v):
        x.requires_grad_()
    how = trial % 4
    fields, choices, more = {}, {}, {}
    if how == 1:
        mask = torch.rand(b, 1, n, m, generator=r) < 0.7
        mask[..., 0] = True
        fields["mask"] = more["attn_mask"] = mask
    if how == 2:
        more["is_causal"], choices = True, {"mask": "causal", "align": "top-left"}
    if how == 3:
        more["attn_mask"] = torch.randn(1, h, n, m, generator=r).to(dtype).requires_grad_()
        fields["bias"] = more["attn_mask"].detach()
    out = scaled_dot_product_attention(q, k, v, enable_gqa=True, **more)
    dout = torch.randn(out.shape, generator=r).to(dtype)
    names = {"dq": q, "dk": k, "dv": v} | ({"dbias": more["attn_mask"]} if how == 3 else {})
    gradients = dict(zip(names, torch.autograd.grad(out, list(names.values()), dout), strict=True))
    problem = attncli.Problem(q=q.detach(), k=k.detach(), v=v.detach(), **fields)
    return problem, {"out": out.detach(), "dout": dout, **gradients}, choices


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["MATH", "FLASH_ATTENTION"])
def test_no_gradient_of_pytorchs_kernels_is_called_wrong(dtype, backend):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for trial in range(24):
        with sdpa_kernel([getattr(SDPBackend, backend), SDPBackend.MATH]):
            problem, figures, choices = draw_sdpa(getattr(torch, dtype), trial, 4.0 if trial % 5 == 4 else 1.0)

        report = attncli.check(problem, figures, identify=False, layout="bhtd", **choices)

        assert report.first_wrong_step is None, (trial, str(report))
        assert {s.rule.factor for s in report.steps if s.is_gradient and s.rule.name == "flash"} <= {3}


def eager_gradients(case, dtype):
    """The case's formula in PyTorch, every intermediate rounded to the dtype, and differentiated there."""
    import torch

    names = {"q": case.q, "k": case.k, "v": case.v, "dout": case.do}
    x = {name: torch.tensor(array).to(dtype).requires_grad_() for name, array in names.items()}
    sinks = None if case.sink is None else torch.tensor(case.sink).to(dtype).requires_grad_()
    added = torch.tensor(case.added).to(dtype).requires_grad_() if case.bias else None
    k, v = (x[name].repeat_interleave(case.heads // case.kv_heads, 1) for name in "kv")
    s = (x["q"] @ k.mT) * case.scale
    s = case.cap * torch.tanh(s / case.cap) if case.cap else s
    s = (s if added is None else s + added).masked_fill(~torch.tensor(case.visible), -torch.inf)
    if sinks is not None:
        s = torch.cat([s, sinks[None, :, None, None].expand(*s.shape[:3], 1)], -1)
    p = s.softmax(-1)[..., : case.keys]
    p = p * torch.tensor(case.kept) / (1 - case.drop) if case.drop else p
    out = p.to(dtype) @ v
    targets = {"dq": x["q"], "dk": x["k"], "dv": x["v"]} | ({} if sinks is None else {"dsinks": sinks})
    targets |= {} if added is None else {"dbias": added}
    gradients = torch.autograd.grad(out, list(targets.values()), x["dout"].detach())
    fields = {name: x[name].detach() for name in "qkv"}
    fields |= {"parameters": {"sinks": sinks.detach()}} if sinks is not None else {}
    fields |= {"bias": added.detach()[None]} if added is not None else {}
    fields |= {"dropout_mask": case.kept} if case.drop else {}
    claims = {"out": out.detach(), "dout": x["dout"].detach(), **dict(zip(targets, gradients, strict=True))}
    return attncli.Problem(**fields), claims


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_gradients_of_a_formula_in_any_dtype_are_right(dtype):
    import torch

    for seed, case in enumerate(
        (
            Case(causal=0, sinks=True, cap=2.0),
            Case(drop=0.3, width=5, causal=2),
            Case(bias=True, heads=4, kv_heads=1),
            Case(batch=1, heads=2, kv_heads=1, cap=3.0, drop=0.25, sinks=True, bias=True, causal=2),
        )
    ):
        problem, claims = eager_gradients(case, getattr(torch, dtype))

        report = attncli.check(problem, claims, identify=False, layout="bhtd", **case.choices())

        assert report.right, (seed, str(report))


def test_gradients_of_a_multihead_module_are_right():
    import torch

    torch.manual_seed(3)
    module = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(module.in_proj_bias)
    torch.nn.init.normal_(module.out_proj.bias)
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    out, _ = module(x, x, x)
    dout = torch.randn_like(out)
    out.backward(dout)
    w, b = (y.detach() for y in (module.in_proj_weight, module.in_proj_bias))
    parameters = {f"w_{c}": w[12 * i : 12 * i + 12] for i, c in enumerate("qkv")}
    parameters |= {f"b_{c}": b[12 * i : 12 * i + 12] for i, c in enumerate("qkv")}
    parameters |= {"w_o": module.out_proj.weight.detach(), "b_o": module.out_proj.bias.detach()}
    problem = attncli.Problem(embeddings=x.detach(), parameters=parameters, w_layout="out-in")
    figures = {"output": out.detach(), "doutput": dout, "dx": x.grad, "dw_o": module.out_proj.weight.grad}
    figures |= {f"dw_{c}": module.in_proj_weight.grad[12 * i : 12 * i + 12] for i, c in enumerate("qkv")}
    figures |= {f"db_{c}": module.in_proj_bias.grad[12 * i : 12 * i + 12] for i, c in enumerate("qkv")}

    report = attncli.check(problem, figures, heads=3)

    assert report.right, report
    assert {step.step for step in report.steps} >= {"dembeddings", "dw_q", "db_k", "dw_o"}
    transposed = attncli.check(problem, figures | {"dw_q": figures["dw_q"].T}, heads=3, identify=False)
    assert transposed.first_wrong_step == "dw_q"
    with pytest.raises(attncli.errors.InputError, match="may be of the context, or of the output"):
        attncli.check(problem, {"dout": dout, "dx": x.grad}, heads=3)


def test_rows_that_see_nothing_have_a_gradient_of_zero():
    case = Case(causal=-3)
    report = attncli.check(
        attncli.Problem(q=case.q, k=case.k, v=case.v, mask=case.visible),
        {"dout": case.do, "dq": np.zeros_like(case.q)},
        identify=False,
    )

    [dq] = report.steps
    assert dq.region.axes[2].wrong == tuple(range(4, 11))  # query 3 sees one key


# ── wrong ones ───────────────────────────────────────────────────────────────────────────────────
GQA = Case(causal=2)
FAULTS = {
    "no mask": (GQA, "mask not applied on the way back", "dq, dk and dv"),
    "top-left": (GQA, "top-left on the way back", "dq, dk and dv"),
    "no row term": (GQA, "no row term in softmax's derivative", "dq and dk"),
    "no P": (GQA, "dP not multiplied by P, of hidden keys either", "dq and dk"),
    "softmax skipped": (Case(), "dP in the place of dS", "dq and dk"),
    "no cap": (Case(cap=2.0), "softcap not differentiated", "dq and dk"),
    "no scale in dq": (GQA, "no scale in dq", "dq"),
    "no scale in dk": (GQA, "no scale in dk", "dk"),
    "no scale": (GQA, "no scale in dq and dk", "dq and dk"),
    "last of group": (GQA, "only the last query head of each group in dk and dv", "dk and dv"),
    "first of group in dk": (GQA, "only the first query head of each group in dk", "dk"),
    "mean of group": (GQA, "averaged over groups in dk and dv", "dk and dv"),
    "tiled groups": (GQA, "groups of tile in dk and dv", "dk and dv"),
    "dk and dv exchanged": (GQA, "dk and dv exchanged", "dk and dv"),
    "no dropout": (Case(drop=0.3), "dropout missing on the way back", "dq, dk and dv"),
    "dropout not rescaled": (Case(drop=0.3), "dropout not rescaled on the way back", "dq, dk and dv"),
    "no sink": (Case(sinks=True), "no sink on the way back", "dq, dk and dv"),
    "sink sign": (Case(sinks=True), "sign of dsinks", "dsinks"),
    "dbias scaled": (Case(bias=True), "scale in dbias", "dbias"),
    "last block of keys": (GQA, "only the last block of 4 keys in dq", "dq"),
    "first block of queries left out": (GQA, "without the first block of 4 queries in dk and dv", "dk and dv"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_of_the_way_back_is_named(fault):
    case, name, steps = FAULTS[fault]

    report = check(case, backward(case, fault))

    assert report.verdict == "wrong"
    assert report.identified[0].names[0] == name
    assert report.causes[0].startswith(f"your {steps} ")
    assert {step.step for step in report.steps if step.is_right} == {step.step for step in report.steps} - set(
        report.identified[0].explained_steps
    )


def descriptions(claimed, **choices):
    """What may be said of gradients of some names: description by name of the hypothesis."""
    case = Case(queries=5, keys=5)
    figures = figures_from_arrays(
        {name: x for name, x in backward(case).items() if name in {*claimed, "dcontext", "dout"}}
    )
    task = prepare(attncli.Problem(**case.problem_fields()), attncli.Variant(**choices), figures)
    return {h.name: h.description for h in fault_hypotheses(Comparison(task).trials)}


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        (["dq"], {"dq not rotated back": "it is that of positioned_q"}),
        (["dk", "dv"], {"dk not rotated back": "it is that of positioned_k"}),
        (["dq", "dk"], {
            "dq and dk not rotated back": "they are those of positioned_q and positioned_k",
            "dq not rotated back": "it is that of positioned_q",
            "dk not rotated back": "it is that of positioned_k",
        }),
    ],
)  # fmt: skip
def test_what_is_not_rotated_back_is_what_is_claimed_alone(claimed, said):
    found = descriptions(claimed, position="rope")

    assert {name: text.partition(": ")[2] for name, text in found.items() if "rotated back" in name} == said


def test_groups_are_of_as_many_query_heads_as_read_one_head_of_k_and_v():
    found = descriptions(["dk"])

    assert "all 2 heads that read a head of k and v" in found["only the last query head of each group in dk"]
    assert "over the 2 query heads of each group" in found["averaged over groups in dk"]


def in_half(case, fault):
    """What a kernel gives that computes in float64, and whose inputs and results are bfloat16."""
    import torch

    def round_off(x):
        return torch.tensor(x).to(torch.bfloat16)

    case.q, case.k, case.v, case.do = (round_off(x).double().numpy() for x in (case.q, case.k, case.v, case.do))
    fields = case.problem_fields() | {name: round_off(getattr(case, name)) for name in "qkv"}
    figures = {name: round_off(x) for name, x in backward(case, fault).items()}
    return attncli.check(attncli.Problem(**fields), figures, **case.choices())


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("", None),
        ("no scale in dk", "no scale in dk"),
        ("no mask", "mask not applied on the way back"),  # whose figures are larger, and so are their roundings
    ],
)
def test_half_precision_is_judged_by_three_times_its_own_error(fault, name):
    report = in_half(Case(causal=0, seed=4), fault)

    rules = {step.step: step.rule for step in report.steps}
    assert {rules[s].name for s in ("dq", "dk", "dv")} == {"flash"}
    assert (rules["context"].factor, rules["dq"].factor) == (2, 3)
    assert rules["dq"].allowed_error >= 3 * rules["dq"].plain_error > 0
    assert [d.names[0] for d in report.identified] == ([name] if name else [])


def test_where_a_gradient_is_wrong_is_said_by_head_and_key():
    figures = backward(GQA)
    figures["dk"] = figures["dk"].copy()
    figures["dk"][1, 2, 8:12] = 0

    report = check(GQA, figures, identify=False)

    assert report.first_wrong_step == "dk"
    assert report.steps[2].region.words == "in batch item 1, in kv head 2, in keys 8 to 11 (a block of 4)"
    assert report.steps[2].region.observations == ("the wrong rows are all 0",)
    assert "dk is wrong, 32 of 624 figures; context, dq and dv are right" in str(report)


def test_blocks_of_queries_add_up_to_the_whole(monkeypatch):
    import attncli.core.gradient_steps

    case = Case(sinks=True, bias=True, causal=2)
    monkeypatch.setattr(attncli.core.gradient_steps, "_MAX_BLOCK_SCORES", 2 * 6 * 13 * 4)

    assert check(case, backward(case)).right


def test_the_kernel_of_pytorch_differentiates_what_is_large(monkeypatch):
    from attncli.core.sdpa import try_sdpa

    case, calls = Case(causal=0, queries=11, keys=11), []
    monkeypatch.setattr("attncli.plan.schedule.MAX_DENSE_SCORES", 100)
    monkeypatch.setattr("attncli.check.trials.MAX_DENSE_SCORES", 100)
    monkeypatch.setattr("attncli.core.attention.try_sdpa", lambda *a: calls.append(a[0]) or try_sdpa(*a))

    report = check(case, backward(case))

    assert report.right, report
    assert any("q" in plan.keep for plan in calls)  # where dq is made
    wrong = check(case, backward(case, "no row term"))
    assert [d.names[0] for d in wrong.identified] == ["no row term in softmax's derivative"]


@pytest.mark.slow
def test_a_large_problem_is_judged_whole_and_its_way_back_searched():
    case = Case(batch=1, heads=4, kv_heads=2, queries=300, keys=300, causal=0, dim=4, width=3)

    right, wrong = (check(case, backward(case, fault)) for fault in ("", "no row term"))

    assert right.right
    assert {c.name: c.caught for c in right.sensitivity_checks} == {
        "uniform weights": True, "shuffled values": True, "no scale": True, "another head's figures": True
    }  # fmt: skip
    assert [d.names[0] for d in wrong.identified] == ["no row term in softmax's derivative"]


# ── names and refusals ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["dout", "d_out", "do", "dO", "grad_out", "grad_output", "dcontext"])
def test_the_gradient_of_the_context_goes_by_several_names(name):
    figures = backward(GQA)

    assert check(GQA, {name: figures["dout"], "grad_q": figures["dq"]}).steps[0].step == "dq"


def test_a_loss_that_is_a_sum_has_a_gradient_of_1():
    case = Case()
    case.do = np.ones_like(case.do)

    assert check(case, {"dout": 1, "dv": backward(case)["dv"]}).right


@pytest.mark.parametrize(
    ("figures", "code", "said"),
    [
        (lambda f: {"dq": f["dq"]}, "no-upstream", "nothing says of which loss dq is the gradient"),
        (lambda f: {"dq": f["dq"], "do": f["dout"], "d_out": f["dout"]}, "two-sources", "do and d_out are both dout"),
        (lambda f: {"dq": f["dq"], "dout": f["dout"], "dcontext": f["dout"]}, "two-sources", "dout and dcontext each"),
        (lambda f: {"dq": f["dq"], "dout": f["dout"][:, :, :5]}, "wrong-shape", "the figures of dout have shape (2, 6, 5, 8)"),
        (lambda f: {"dq": f["dq"], "dout": f["dout"] * np.nan}, "not-finite", "dout holds NaN"),
        (lambda f: {"dq": f["dq"], "doutput": f["dout"]}, "absent-step", "doutput is given, but this variant has no output"),
        (lambda f: {"dbias": f["dq"], "dout": f["dout"]}, "absent-step", "figures of dbias"),
        (lambda f: {"dqq": f["dq"], "dout": f["dout"]}, "unknown-step", "no step called 'dqq'"),
    ],
)  # fmt: skip
def test_what_says_no_loss_or_two_is_refused(figures, code, said):
    with pytest.raises(attncli.errors.InputError) as caught:
        check(GQA, figures(backward(GQA)))

    assert caught.value.code == code
    assert said in caught.value.message


def test_gradients_that_are_not_added_up_are_told_over_what():
    figures = backward(GQA)
    with pytest.raises(attncli.errors.InputError) as caught:
        check(GQA, {"dout": figures["dout"], "dk": figures["dk"].repeat(2, 1)})
    assert caught.value.help == "add up the gradients of the 2 query heads that read each of the 3 kv heads"
    case = Case(bias=True)
    figures = backward(case)
    with pytest.raises(attncli.errors.InputError) as caught:
        check(case, {"dout": figures["dout"], "dbias": figures["dbias"][None].repeat(2, 0)})
    assert caught.value.help == "add it up along batch, where one number stands for all"


def test_the_program_judges_gradients_of_a_file(attn, tmp_path):
    np.savez(tmp_path / "qkv.npz", q=GQA.q, k=GQA.k, v=GQA.v)
    np.savez(tmp_path / "mine.npz", **backward(GQA, "no scale in dk"))

    run = attn("check", tmp_path / "qkv.npz", "--figures", tmp_path / "mine.npz", "--causal", "--align", "bottom-right", "--json")  # fmt: skip

    record = json.loads(run.out)
    assert (run.status, record["first_wrong"]) == (1, "dk")
    assert [step["step"] for step in record["steps"]] == ["context", "dq", "dk", "dv"]
    assert record["identified"][0]["names"] == ["no scale in dk"]


def test_a_problem_may_expect_gradients():
    figures = backward(GQA)
    expected = {"dout": figures["dout"].tolist(), "dq": {"values": figures["dq"].tolist(), "rtol": 1e-9}}
    problem = attncli.Problem(**GQA.problem_fields(), expected=expected)

    assert attncli.check(problem, **GQA.choices()).right
