"""One layer of a checkpoint: which files and names are meant, how little is read, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError, InputError
from attncli.readers.state_dict import read_layer, split_file_and_prefix
from tests.helpers import draw_normal
from tests.validation.bad_files import npz, safetensors

D, T = 6, 4
QUERY, KEY, VALUE, OUTPUT = (draw_normal(seed, D, D).astype("<f4") for seed in (180, 181, 182, 183))
LAYER = {"q_proj.weight": QUERY, "k_proj.weight": KEY, "v_proj.weight": VALUE, "o_proj.weight": OUTPUT}
CHECKPOINT = {
    "model.embed.weight": np.ones((3, D), "<f4"),
    **{f"model.layers.{n}.self_attn.{name}": x + n for n in (0, 1) for name, x in LAYER.items()},
    "model.layers.1.mlp.up.weight": np.ones((2, D), "<f4"),
}
PREFIX = "model.layers.1.self_attn"


def checkpoint(arrays, **dtypes: str) -> bytes:
    """A safetensors file; `dtypes` says of an array by its last name another dtype than its own."""
    header, data = {}, b""
    for name, x in arrays.items():
        dtype = dtypes.get(name.rpartition("self_attn.")[2].partition(".")[0], {"f": "F32", "i": "I8"}[x.dtype.kind])
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    return safetensors(header, data)


def layer_with(**others: np.ndarray) -> dict[str, np.ndarray]:
    return CHECKPOINT | {f"{PREFIX}.{name.replace('__', '.')}": x for name, x in others.items()}


def read(path: object, prefix: str = PREFIX):
    return read_layer(str(path), prefix)


# ── which file, which layer ──────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("m.safetensors:model.layers.0.self_attn", ("m.safetensors", "model.layers.0.self_attn")),
        ("m.safetensors:h.0.attn.", ("m.safetensors", "h.0.attn")),
        ("a:b/m.safetensors:h.0.attn", ("a:b/m.safetensors", "h.0.attn")),
        ("a:b/m.safetensors", ("a:b/m.safetensors", "")),
        ("C:\\m.safetensors", ("C:\\m.safetensors", "")),
        ("C:\\m.safetensors:h.0.attn", ("C:\\m.safetensors", "h.0.attn")),
        ("folder:h.0.attn", ("folder", "h.0.attn")),
        ("mha.safetensors", ("mha.safetensors", "")),
    ],
)
def test_the_last_colon_parts_file_and_layer(text, parts):
    assert split_file_and_prefix(text) == parts


@pytest.mark.parametrize(
    ("text", "code", "help"),
    [
        (":h.0.attn", "bad-option", "--from-state-dict model.safetensors:model.layers.0.self_attn"),
        ("-:h.0.attn", "bad-option", "--from-state-dict model.safetensors:model.layers.0.self_attn"),
        (
            "https://host/m.safetensors:h.0",
            "bad-option",
            "--from-state-dict model.safetensors:model.layers.0.self_attn",
        ),
        ("pytorch_model.bin:h.0.attn", "unknown-format", "torch.load('pytorch_model.bin', weights_only=True)"),
        ("model.pt", "unknown-format", "save_file("),
        ("model.layers.0.self_attn", "bad-option", "--from-state-dict model.safetensors:model.layers.0.self_attn"),
        ("model.gguf:blk.0", "unknown-format", "a .safetensors file"),
    ],
)
def test_what_names_no_checkpoint_is_refused(text, code, help):
    with pytest.raises(AttnError) as refused:
        split_file_and_prefix(text)
    assert (refused.value.code, refused.value.status) == (code, 2)
    assert help in refused.value.help


def test_the_conversion_that_the_error_names_can_be_followed(tmp_path, monkeypatch):
    """The line of Python that it spells makes a file that is read."""
    import shlex

    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({name: torch.from_numpy(x) for name, x in CHECKPOINT.items()}, "pytorch_model.bin")
    with pytest.raises(AttnError) as refused:
        split_file_and_prefix("pytorch_model.bin:x")
    program, flag, code = shlex.split(refused.value.help.partition("convert it: ")[2])
    assert (program, flag) == ("python", "-c")
    exec(code, {})
    assert (read("model.safetensors").arrays["q_proj.weight"] == QUERY + 1).all()


def test_a_file_of_one_layer_needs_no_prefix(tmp_path):
    file = tmp_path / "layer.safetensors"
    file.write_bytes(checkpoint(LAYER))
    layer = read(file, "")
    assert {name: x.tolist() for name, x in layer.arrays.items()} == {name: x.tolist() for name, x in LAYER.items()}


def test_only_the_header_and_the_layer_are_read(tmp_path):
    """Another tensor may be larger than memory: this one is 64 GiB of a file that has no such blocks on the disk."""
    size = 2**36
    content = checkpoint(CHECKPOINT)
    start = 8 + int.from_bytes(content[:8], "little")
    header, end = json.loads(content[8:start]), len(content) - start
    header["lm_head.weight"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors(header, content[start:]))
    os.truncate(file, file.stat().st_size + size)
    assert (read(file).arrays["o_proj.weight"] == OUTPUT + 1).all()


def test_what_is_left_out_is_said(tmp_path):
    file = tmp_path / "model.safetensors"
    buffers = {"rotary_emb__inv_freq": np.ones(3, "<f4"), "gate_proj__weight": np.ones((2, 2), "<f4")}
    file.write_bytes(checkpoint(layer_with(**buffers)))
    assert read(file).notes[1:] == ("not read, as attn knows no such array: gate_proj.weight",)


def test_a_layer_of_transformer_lens(tmp_path):
    """Its buffers have no effect of their own, and are left out without a word."""
    shapes = {"W_Q": (2, D, 3), "_W_K": (1, D, 3), "_W_V": (1, D, 3), "W_O": (2, 3, D), "b_Q": (2, 3), "mask": (5, 5)}
    arrays = {f"blocks.1.attn.{name}": np.ones(shape, "<f4") for name, shape in (shapes | {"IGNORE": ()}).items()}
    file = tmp_path / "lens.safetensors"
    file.write_bytes(checkpoint(arrays))
    assert read(file, "blocks.1.attn").notes == (
        f"blocks.1.attn of {file}: w_q is W_Q (2, 6, 3), one for each head; w_k is _W_K (1, 6, 3), one for each head;"
        " w_v is _W_V (1, 6, 3), one for each head; b_q is b_Q (2, 3), one for each head; w_o is W_O (2, 3, 6), one for each head",
    )


# ── refused ──────────────────────────────────────────────────────────────────────────────────────
SMALL = np.ones(2, "<f4")
BAD_LAYERS = {
    "another number": (
        CHECKPOINT,
        "model.layers.7.self_attn",
        "unknown-layer",
        "did you mean 'model.layers.1.self_attn'?",
    ),
    "the block": (CHECKPOINT, "model.layers.1", "unknown-layer", "did you mean 'model.layers.1.self_attn'?"),
    "nothing alike": (
        CHECKPOINT,
        "decoder",
        "unknown-layer",
        "it can be 'model.layers.0.self_attn' or 'model.layers.1.self_attn'",
    ),
    "none": (
        CHECKPOINT,
        "",
        "unknown-layer",
        "add it after a colon: 'model.layers.0.self_attn' or 'model.layers.1.self_attn'",
    ),
    "no attention": ({"fc.weight": SMALL}, "fc", "unknown-layer", "docs/file-format.md"),
    "GPTQ": (
        {f"{PREFIX}.q_proj.qweight": SMALL, f"{PREFIX}.q_proj.qzeros": SMALL},
        PREFIX,
        "wrong-type",
        "model.dequantize()",
    ),
    "bitsandbytes": (layer_with(q_proj__weight__absmax=SMALL), PREFIX, "wrong-type", "model.dequantize()"),
    "FP8 with a scale": (layer_with(q_proj__weight_scale_inv=SMALL), PREFIX, "wrong-type", "model.dequantize()"),
    "integers": (layer_with(q_proj__weight=np.ones((D, D), "|i1")), PREFIX, "wrong-type", "model.dequantize()"),
    "adapters": (layer_with(q_proj__lora_A__weight=SMALL), PREFIX, "wrong-type", "merge_and_unload()"),
    "a matrix is missing": (
        {name: x for name, x in CHECKPOINT.items() if not name.endswith("1.self_attn.k_proj.weight")},
        PREFIX,
        "missing-parameters",
        "is the file whole?",
    ),
    "NaN": (layer_with(v_proj__weight=np.full((D, D), np.nan, "<f4")), PREFIX, "not-finite", ""),
    "three axes": (layer_with(v_proj__weight=np.ones((1, D, D), "<f4")), PREFIX, "wrong-shape", ""),
}


@pytest.mark.parametrize("what", BAD_LAYERS)
def test_a_layer_that_cannot_be_computed_with_is_refused(tmp_path, what):
    arrays, prefix, code, help = BAD_LAYERS[what]
    file = tmp_path / "model.safetensors"
    file.write_bytes(checkpoint(arrays))
    with pytest.raises(InputError) as refused:
        read(file, prefix)
    assert (refused.value.code, refused.value.location.file) == (code, str(file))
    assert help in refused.value.help


def test_eight_bit_floats_are_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(checkpoint(CHECKPOINT, q_proj="F8_E4M3"))
    with pytest.raises(InputError, match=r"self_attn\.q_proj\.weight is F8_E4M3"):
        read(file)


HEADER = json.loads(checkpoint(CHECKPOINT)[8 : 8 + int.from_bytes(checkpoint(CHECKPOINT)[:8], "little")])
BAD_FILES = {
    "empty": (b"", "bad-file"),
    "a header longer than the file": ((10**6).to_bytes(8, "little") + b"{}", "bad-file"),
    "cut short": (checkpoint(CHECKPOINT)[:-1], "bad-file"),
    "a tensor beyond the file": (safetensors(HEADER, b""), "bad-file"),
    "a name twice": (b'\x0f\0\0\0\0\0\0\0{"a":{},"a":{}}', "two-sources"),
    "no JSON": (b"\x02\0\0\0\0\0\0\0[[", "bad-file"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_is_not_whole_is_refused(tmp_path, what):
    content, code = BAD_FILES[what]
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(file)
    assert refused.value.code == code


def test_a_header_of_more_than_100_megabytes_is_not_read(tmp_path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:
        opened.write((100_000_001).to_bytes(8, "little"))
        opened.truncate(100_000_100)  # of no blocks on the disk
    with pytest.raises(InputError, match="100,000,001 bytes is declared, but it may have at most 100,000,000"):
        read(file)


# ── a checkpoint in several files ────────────────────────────────────────────────────────────────
def write_shards(folder, **index: object) -> Path:
    """Two files, the second of which holds the layer, and their index."""
    folder.mkdir()
    names = {name: "b.safetensors" if PREFIX in name else "a.safetensors" for name in CHECKPOINT}
    for file in ("a.safetensors", "b.safetensors"):
        (folder / file).write_bytes(checkpoint({name: x for name, x in CHECKPOINT.items() if names[name] == file}))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": names} | index))
    return path


def test_an_index_and_its_folder_lead_to_the_files_that_hold_the_layer(tmp_path):
    index = write_shards(tmp_path / "m")
    (tmp_path / "m/a.safetensors").write_bytes(b"it is not looked at")
    for path in (index, tmp_path / "m"):
        assert (read(path).arrays["v_proj.weight"] == VALUE + 1).all()


BAD_INDEXES = {
    "a file elsewhere": (
        {"weight_map": {f"{PREFIX}.q_proj.weight": "../a.safetensors"}},
        "but there is no such file beside it",
    ),
    "an absolute file": (
        {"weight_map": {f"{PREFIX}.q_proj.weight": "/etc/passwd"}},
        "but there is no such file beside it",
    ),
    "the folder": ({"weight_map": {f"{PREFIX}.q_proj.weight": ".."}}, "but there is no such file beside it"),
    "no names": ({"weight_map": [1]}, "this is not an index of safetensors files"),
    "a file that is not there": (
        {"weight_map": {f"{PREFIX}.{name}": "c.safetensors" for name in LAYER}},
        "there is no file",
    ),
    "another file": ({"weight_map": {f"{PREFIX}.{name}": "a.safetensors" for name in LAYER}}, "but it is not"),
}


@pytest.mark.parametrize("what", BAD_INDEXES)
def test_an_index_that_leads_nowhere_is_refused(tmp_path, what):
    index, message = BAD_INDEXES[what]
    with pytest.raises(InputError, match=message):
        read(write_shards(tmp_path / "m", **index))


def test_a_name_that_stands_twice_in_an_index_is_refused(tmp_path):
    index = write_shards(tmp_path / "m")
    index.write_text('{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}')
    with pytest.raises(InputError, match="'a' occurs twice in one object"):
        read(index)


def test_one_file_of_several_says_where_the_others_are_named(tmp_path):
    file = tmp_path / "model-00001-of-00002.safetensors"
    file.write_bytes(checkpoint({f"{PREFIX}.q_proj.weight": QUERY}))
    with pytest.raises(InputError) as refused:
        read(file)
    assert "name the folder, or model.safetensors.index.json" in refused.value.help


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"without model\.safetensors\.index\.json or model\.safetensors"):
        read(tmp_path)
    (tmp_path / "unet.safetensors").write_bytes(checkpoint(CHECKPOINT))
    with pytest.raises(InputError) as refused:
        read(tmp_path)
    assert refused.value.help == f"name one: {tmp_path / 'unet.safetensors'}"


# ── on the command line ──────────────────────────────────────────────────────────────────────────
@pytest.fixture
def files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(checkpoint(CHECKPOINT))
    np.save(tmp_path / "x.npy", draw_normal(184, T, D))


def test_arrays_of_the_input_and_of_the_layer_stand_side_by_side(attn, tmp_path, files):
    """An array of another file may replace one of the layer; the same name twice is refused."""
    options = ("--from-state-dict", f"model.safetensors:{PREFIX}", "--heads", "2", "--json", "--only", "q,k")
    np.savez(tmp_path / "b.npz", **{"embeddings": np.load(tmp_path / "x.npy"), "parameters.q_proj.bias": np.arange(D)})
    plain, biased = (attn("compute", name, *options).json for name in ("x.npy", "b.npz"))
    by_head = np.arange(D).reshape(2, 1, D // 2)
    np.testing.assert_allclose(np.array(biased["q"]) - np.array(plain["q"]), np.broadcast_to(by_head, (2, T, 3)))

    np.save(tmp_path / "w.npy", np.zeros((D, D)))
    replaced = attn("compute", "x.npy", *options, "--with", "parameters.k_proj.weight=w.npy").json
    assert not np.any(replaced["k"])
    assert replaced["q"] == plain["q"]

    arrays = {"embeddings": np.load(tmp_path / "x.npy"), "parameters.q_proj.weight": np.eye(D)}
    (tmp_path / "twice.npz").write_bytes(npz(**arrays))
    done = attn("compute", "twice.npz", *options)
    assert done.status == 3
    assert "error[two-sources]: parameters.q_proj.weight is given" in done.err


def test_a_batch_is_computed_anew_where_the_layer_has_changed_and_only_there(attn, tmp_path, files):
    layer = f"model.safetensors:{PREFIX}"
    command = ("batch", "x.npy", "-o", "out", "--from-state-dict", layer, "--heads", "2", "-j", "1")
    assert "1 done, 0 failed" in attn(*command).err
    first = (tmp_path / "out/x.json").read_text()
    assert json.loads(first)["output"] == attn("compute", "x.npy", *command[4:8], "--json").json["output"]

    another_embedding = CHECKPOINT | {"model.embed.weight": np.zeros((3, D), "<f4")}
    (tmp_path / "model.safetensors").write_bytes(checkpoint(another_embedding))
    assert "0 done, 0 failed, 1 skipped" in attn(*command).err
    (tmp_path / "model.safetensors").write_bytes(checkpoint(layer_with(q_proj__weight=QUERY)))
    assert "1 done, 0 failed" in attn(*command).err
    assert (tmp_path / "out/x.json").read_text() != first


def test_a_whole_model_as_input_is_told_which_option_takes_a_layer(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    names = ("key", "query", "value")
    rng = np.random.default_rng(5)
    save_file({f"bert.layer.0.attention.self.{n}.weight": rng.normal(size=(4, 4)) for n in names}, "model.safetensors")
    np.save("x.npy", rng.normal(size=(3, 4)))

    with pytest.raises(InputError, match="learned arrays of a model, not vectors of tokens") as caught:
        attncli.read("model.safetensors")

    way_out = caught.value.help.rpartition(" ")[2]
    assert caught.value.code == "not-a-problem"
    assert way_out == "model.safetensors:bert.layer.0.attention"
    assert attncli.read("x.npy", state_dict=way_out).parameters["self.query.weight"].shape == (4, 4)
