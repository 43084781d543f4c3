"""`attn capture` from the command line: where layers go, and what is refused before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers import run_without_torch

CONFIG = {"model_type": "bert", "vocab_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT and its tokenizer, as transformers saves them."""
    from tests.capture.tiny_models import make_model

    path = tmp_path_factory.mktemp("models") / "tiny"
    make_model("bert").save_pretrained(path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "shiny", "sun", "!"]
    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return path


@pytest.mark.slow
def test_a_text_becomes_a_layer_that_proves_itself(attn, folder):
    done = attn("capture", folder, "--text", "Hello shiny sun!", "--layer", "1", "-o", "layer.safetensors")

    assert (done.status, done.out) == (0, "")
    assert done.err.startswith(
        "layer.safetensors: layer 1: 4 heads, from hidden; weights and output within 1e-5 of the model's\n"
    )
    verdict = attn("check", "layer.safetensors")
    assert (verdict.status, verdict.out.splitlines()[-1]) == (0, "right: all of 528 figures")
    page = attn("explain", "layer.safetensors", "shiny", "--at", "head=3")
    assert page.out.startswith("Attention of query 2 “shiny” · head 3 of 4\n")


@pytest.mark.slow
def test_layers_go_to_a_folder_or_to_lines(attn, folder):
    into_folder = attn("capture", folder, "--ids", "2,5,6,7,3", "-o", "layers", "--format", "npz")
    into_lines = attn("capture", folder, "--ids", "2,5,6,7,3", "--from", "qkv", "-o", "-")

    assert sorted(path.name for path in Path("layers").iterdir()) == ["layer00.npz", "layer01.npz", "manifest.ndjson"]
    assert into_folder.err.splitlines()[-1] == "2 layers: 2 from hidden, 0 from qkv; attn check proves them again"
    assert [sorted(json.loads(line)) for line in into_lines.out.splitlines()] == [
        ["about", "expected", "id", "k", "k_tokens", "layout", "parameters", "q", "tokens", "v"]
    ] * 2
    assert [json.loads(line)["id"] for line in into_lines.out.splitlines()] == ["layer 0", "layer 1"]


@pytest.mark.slow
def test_a_folder_of_layers_has_a_manifest_by_which_it_is_resumed(attn, folder):
    command = ("capture", folder, "--ids", "2,5,6,7,3", "-o", "layers")
    attn(*command)
    header, *receipts = map(json.loads, Path("layers/manifest.ndjson").read_text().splitlines())
    content = Path("layers/layer00.safetensors").read_bytes()
    Path("layers/layer01.safetensors").write_bytes(b"edited")

    again = attn(*command)
    other = attn("capture", folder, "--ids", "2,5,6", "-o", "layers")
    forced = attn("capture", folder, "--ids", "2,5,6", "-o", "layers", "--force")

    assert (header["schema"], header["model"], header["request"]["ids"]) == ("attn.capture/1", "tiny", [2, 5, 6, 7, 3])
    assert [(one["input"], one["result"], one["status"]) for one in receipts] == [
        ("layer 0", "layer00.safetensors", "done"),
        ("layer 1", "layer01.safetensors", "done"),
    ]
    assert receipts[0]["result_sha256"] == hashlib.sha256(content).hexdigest()
    assert [line.partition(":")[0] for line in again.err.splitlines()] == [
        "layers/layer01.safetensors",
        "left as an earlier run wrote them",
    ]
    assert (other.status, other.err.partition(" was ")[0]) == (2, "error[output-exists]: layers/layer00.safetensors")
    assert forced.status == 0
    assert Path("layers/layer00.safetensors").read_bytes() != content
    assert attn("check", "layers").out.splitlines()[-1] == "right: 2 of 2 problems right"
    assert attn("batch", "layers", "-o", "results").status == 0
    assert sorted(path.name for path in Path("results").glob("l*")) == ["layer00.json", "layer01.json"]


@pytest.mark.slow
def test_only_the_steps_that_are_asked_for_are_written_as_compute_would(attn, folder):
    asked = ("capture", folder, "--ids", "2,5,6,7,3", "--layer", "1")
    attn(*asked, "-o", "layer.safetensors")
    attn("compute", "layer.safetensors", "--only", "weights,context", "-o", "computed.npz")

    done = attn(*asked, "--only", "weights,context", "-o", "steps.npz")
    table = attn(*asked, "--steps", "weights", "-o", "weights.parquet")
    lines = attn("capture", folder, "--ids", "2,5,6", "--only", "weights", "-o", "-")
    absent = attn(*asked, "--only", "positioned_q", "-o", "steps.json")

    assert (done.status, table.status) == (0, 0)
    ours, theirs = np.load("steps.npz"), np.load("computed.npz")
    assert sorted(ours) == sorted(theirs) == ["attn", "context", "weights"]
    assert json.loads(str(ours["attn"]))["axes"] == {"weights": ["head", "query", "key"], "context": ["query", "dim"]}
    np.testing.assert_allclose(ours["context"], theirs["context"], atol=1e-5)
    np.testing.assert_array_equal(ours["weights"], own_weights(folder, [2, 5, 6, 7, 3])[1])
    assert pl.read_parquet("weights.parquet")["value"].to_numpy().reshape(4, 5, 5).tolist() == ours["weights"].tolist()
    assert [np.shape(json.loads(line)["weights"]) for line in lines.out.splitlines()] == [(4, 3, 3)] * 2
    assert (absent.status, absent.err.partition(":")[0]) == (3, "error[absent-step]")
    assert not Path("steps.json").exists()


def own_weights(folder, ids):
    """The weights of each layer, as the model returns them."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return [w[0].numpy() for w in model(torch.tensor([ids]), output_attentions=True).attentions]


@pytest.mark.slow
def test_a_bar_counts_the_layers_on_a_terminal_alone(attn, folder, monkeypatch):
    monkeypatch.setattr("attncli.cli.capture.SECONDS_WITHOUT_BAR", -1.0)
    command = ("capture", folder, "--ids", "5,6,7", "-o", "layers", "--force")

    shown, silent, piped = attn(*command, columns=80), attn(*command, "--no-progress", columns=80), attn(*command)

    assert "layers/layer01.safetensors: layer 1: 4 heads" in shown.err.partition("2/2")[2]  # when the bar is gone
    assert "/2" not in silent.err + piped.err
    assert "loading" not in silent.err + piped.err


@pytest.mark.slow
def test_code_in_a_folder_runs_only_where_it_is_trusted(attn, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    from tests.capture.tiny_models import make_model

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    path = tmp_path / "own"
    make_model("llama").save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "own_llama",
        "auto_map": {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "configuration_own.py").write_text(
        f"from transformers import LlamaConfig\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own_llama'\n"
    )
    (path / "modeling_own.py").write_text(
        "from transformers import LlamaModel\nfrom .configuration_own import OwnConfig\n"
        "class OwnModel(LlamaModel):\n    config_class = OwnConfig\n"
    )
    command = ("capture", path, "--ids", "5,6,7", "-o", "layers")

    refused = attn(*command)
    was_run = (tmp_path / "ran").exists()
    trusted = attn(*command, "--trust-remote-code")

    assert (refused.status, was_run) == (3, False)
    assert refused.err.startswith("error[unknown-architecture]: transformers does not know the architecture own_llama")
    assert "= help: --trust-remote-code runs the code in the folder" in refused.err
    assert trusted.status == 0, trusted.err
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_no_layer_is_written_through_a_link(attn, folder, tmp_path):
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "layer01.npz").symlink_to(tmp_path / "elsewhere")

    done = attn("capture", folder, "--ids", "5,6,7", "-f", "npz", "-o", "layers", "--force")

    assert (done.status, done.err.splitlines()[-2].partition(":")[0]) == (4, "error[link-in-results]")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_texts_are_a_batch(attn, folder):
    Path("lines.txt").write_text("hello sun\nhello shiny sun!\n")

    done = attn("capture", folder, "--texts", "lines.txt", "--layer", "0", "-o", "layer.json")

    problem = json.loads(Path("layer.json").read_text())
    assert done.status == 0
    assert problem["lengths"] == [4, 6]
    assert problem["tokens"][1] == ["[CLS]", "hello", "shiny", "sun", "!", "[SEP]"]
    assert attn("check", "layer.json").status == 0


@pytest.mark.slow
def test_layers_are_listed_as_a_table_and_as_json(attn, folder):
    table = attn("capture", folder, "--list")
    record = attn("capture", folder, "--list", "--json")

    assert table.out.splitlines() == [
        "layer  kind  heads  kv  depth   read as",
        "0      self  4      4   hidden  --heads 4",
        "1      self  4      4   hidden  --heads 4",
    ]
    assert [(one["layer"], one["depth"], one["proven"]) for one in json.loads(record.out)] == [
        ("0", "hidden", ["weights", "output"]),
        ("1", "hidden", ["weights", "output"]),
    ]


@pytest.mark.slow
def test_weights_that_are_missing_are_not_drawn_at_random(attn, folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    other = tmp_path / "other"
    other.mkdir()
    arrays = load_file(folder / "model.safetensors")
    kept = {name: x for name, x in arrays.items() if "layer.1.attention.self.query" not in name}
    save_file(kept, other / "model.safetensors", metadata={"format": "pt"})
    (other / "config.json").write_text((folder / "config.json").read_text())

    done = attn("capture", other, "--ids", "5,6", "-o", "layers")

    assert done.status == 3
    assert done.err.startswith("error[missing-parameters]: the folder lacks learned arrays of attention: ")


@pytest.mark.slow
def test_no_kernel_that_a_configuration_names_is_looked_up(attn, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"_attn_implementation": "kernels-community/flash", "attn_implementation": "kernels-community/flash"}
    (other / "config.json").write_text(json.dumps(config))

    done = attn("capture", other, "--ids", "5,6,7", "-o", "layers")

    assert done.status == 0, done.err
    assert done.err.startswith(
        "the model computes eagerly: kernels-community/flash, which config.json names, hides its weights\n"
    )


def test_a_model_that_does_not_fit_and_a_package_that_is_missing_are_refused(attn, tmp_path, monkeypatch):
    good = write_folder(tmp_path / "good", CONFIG)
    header = json.dumps({"w": {"dtype": "F16", "shape": [1000, 1000], "data_offsets": [0, 2_000_000]}}).encode()
    (good / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2_000_000))
    monkeypatch.setitem(sys.modules, "transformers", None)

    missing = attn("capture", good, "--ids", "5,6", "-o", "layers")
    monkeypatch.setattr("attncli.plan.memory.available_memory_bytes", lambda: 2**20)
    large = attn("capture", good, "--ids", "5,6", "-o", "layers")
    larger = attn("capture", good, "--ids", "5,6", "-o", "layers", "--dtype", "float64")

    assert (missing.status, missing.err.partition(":")[0]) == (4, "error[missing-extra]")
    assert missing.err.endswith("= help: pip install 'attncli[models]'\n")
    assert (large.status, larger.status) == (4, 4)
    assert large.err.startswith(
        "error[out-of-memory]: the model needs about 0.0 GiB in float32, but only 0.0 GiB are free"
    )
    assert larger.err.endswith("= help: --dtype float32\n")
    assert not Path("layers").exists()


@pytest.mark.slow
def test_a_token_outside_the_vocabulary_is_told_where_only_the_pass_meets_it():
    from attncli.errors import InputError
    from tests.capture.tiny_models import capture, make_model

    with pytest.raises(InputError, match="the model cannot be run on this input: index out of range") as error:
        capture(make_model("bert"), [[3, 500]])

    assert error.value.help == "a token is outside of its vocabulary, or there are more tokens than it has positions"


@pytest.mark.slow
def test_an_image_file_is_made_ready_as_the_folder_says_and_random_numbers_stand_for_one(attn, tmp_path):
    from PIL import Image
    from transformers import CLIPConfig, CLIPModel, ViTImageProcessor

    from tests.capture.tiny_models import SIZES, make_model

    make_model("vit", image_size=32, patch_size=16).save_pretrained(tmp_path / "seeing")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "seeing")
    text = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 60, "eos_token_id": 2}
    CLIPModel(CLIPConfig(text_config=text, vision_config=SIZES | {"image_size": 32, "patch_size": 16})).save_pretrained(
        tmp_path / "both"
    )
    Image.effect_noise((50, 40), 60).save("noise.png")

    of_file = attn("capture", "seeing", "--image", "noise.png", "--layer", "1", "-o", "layer.json")
    of_random = attn("capture", "seeing", "--image", "random", "--layer", "1", "-o", "random.json")
    listed = attn("capture", "seeing", "--list")
    with_text = attn("capture", "seeing", "--ids", "3,4", "-o", "layers")
    of_both = attn("capture", "both", "--image", "random", "--ids", "5,6,7,2", "-o", "layers")
    of_half = attn("capture", "both", "--image", "random", "-o", "halves")
    of_other_half = attn("capture", "both", "--ids", "5,6,7,2", "-o", "others")

    problem, other = (json.loads(Path(name).read_text()) for name in ("layer.json", "random.json"))
    assert (of_file.status, of_random.status, listed.status) == (0, 0, 0)
    assert problem["tokens"] == ["[CLS]", "r0c0", "r0c1", "r1c0", "r1c1"]
    assert attn("check", "layer.json").status == 0
    assert other["embeddings"] != problem["embeddings"]
    assert [line.split()[:4] for line in listed.out.splitlines()[1:]] == [
        ["0", "self", "4", "4"],
        ["1", "self", "4", "4"],
    ]
    assert (
        with_text.err
        == "error[other-input]: seeing reads images, and no text\n  = help: --image FILE, or --image random\n"
    )
    assert of_both.err.splitlines()[-1] == "3 layers: 3 from hidden, 0 from qkv; attn check proves them again"
    for half in (of_half, of_other_half):
        assert half.status == 3
        assert "= help: a model of images and texts takes both: --image FILE --text" in half.err


@pytest.mark.slow
def test_no_pickle_is_read_whatever_names_it():
    import torch

    from attncli.capture.model import _refuse_pickles
    from attncli.capture.model_folder import ModelSource
    from attncli.errors import InputError

    own = torch.load
    with pytest.raises(InputError, match=r"x\.bin is a pickle"), _refuse_pickles(ModelSource("someone/model", True)):
        torch.load("cache/x.bin", weights_only=True)

    assert torch.load is own


# ── refused before torch ─────────────────────────────────────────────────────────────────────────
def write_folder(path: Path, config: object = CONFIG, *files: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for name in files:
        content = (2).to_bytes(8, "little") + b"{}" if name.endswith(".safetensors") else b""
        (path / name).write_bytes(content)
    return path


@pytest.mark.slow
def test_what_makes_no_sense_is_refused_before_torch(tmp_path):
    good = write_folder(tmp_path / "good", CONFIG, "model.safetensors")
    empty = tmp_path / "empty"
    empty.mkdir()
    pickled = write_folder(tmp_path / "pickled", CONFIG, "pytorch_model.bin")
    indexed = write_folder(tmp_path / "indexed", CONFIG, "other.safetensors")
    (indexed / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.bin"}}')
    named = write_folder(tmp_path / "named", CONFIG | {"transformers_weights": "x.pt"}, "model.safetensors")
    bare = write_folder(tmp_path / "bare", CONFIG)
    typeless = write_folder(tmp_path / "typeless", {"hidden_size": 4}, "model.safetensors")
    unknown = write_folder(tmp_path / "unknown", CONFIG | {"model_type": "nonesuch"}, "model.safetensors")
    own = write_folder(tmp_path / "own", CONFIG | {"model_type": "own", "auto_map": {}}, "model.safetensors")
    quantised = write_folder(tmp_path / "quantised", CONFIG | {"quantization_config": {"a": 1}}, "model.safetensors")
    pair = write_folder(tmp_path / "pair", {"model_type": "t5", "is_encoder_decoder": True}, "model.safetensors")
    broken = write_folder(tmp_path / "broken", CONFIG)
    (broken / "model.safetensors").write_bytes(b"\xff" * 20)
    vision = write_folder(tmp_path / "vision", {"model_type": "vit", "image_size": 32}, "model.safetensors")
    seeing = write_folder(tmp_path / "seeing", {"model_type": "vit", "patch_size": 16}, "model.safetensors")
    ready = write_folder(
        tmp_path / "ready", {"model_type": "vit", "image_size": 32}, "model.safetensors", "preprocessor_config.json"
    )
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "layer00.safetensors").write_bytes(b"somebody's")
    (tmp_path / "blank.txt").write_text("a\n\nb\n")
    (tmp_path / "two.txt").write_text("a\nb\n")
    out = ("-o", tmp_path / "out")
    cases = [
        ((tmp_path / "nowhere", "--ids", "1", *out), 3, "no-model"),
        ((empty, "--ids", "1", *out), 3, "no-model"),
        ((bare, "--ids", "1", *out), 3, "no-model"),
        ((good / "model.safetensors", "--ids", "1", *out), 3, "no-model"),
        ((pickled, "--ids", "1", *out), 3, "pickled"),
        ((indexed, "--ids", "1", *out), 3, "pickled"),
        ((named, "--ids", "1", *out), 3, "pickled"),
        ((typeless, "--ids", "1", *out), 3, "unknown-architecture"),
        ((quantised, "--ids", "1", *out), 3, "unknown-architecture"),
        ((unknown, "--ids", "1", *out), 3, "unknown-architecture"),
        ((own, "--ids", "1", "--trust-remote-code", *out), 3, "unknown-architecture"),
        ((broken, "--ids", "1", *out), 3, "bad-file"),
        ((good, "--text", "hello", *out), 3, "no-tokenizer"),
        ((good, *out), 2, "missing-option"),
        ((good, "--ids", "1"), 2, "missing-option"),
        ((good, "--ids", "1", "--text", "a", *out), 2, "bad-option"),
        ((good, "--ids", "one", *out), 2, "bad-option"),
        ((good, "--ids", "128", *out), 2, "bad-option"),
        ((good, "--text", " ", *out), 2, "bad-option"),
        ((good, "--texts", tmp_path / "blank.txt", *out), 3, "blank-line"),
        ((good, "--ids", ",".join(["1"] * 17), *out), 3, "too-long"),
        ((good, "--ids", "1", "--layer", "2", *out), 2, "no-such-layer"),
        ((good, "--ids", "1", "--layer", "1:1", *out), 2, "bad-option"),
        ((good, "--ids", "1", "--layer", "3-4", *out), 2, "bad-option"),
        ((pair, "--ids", "1", "--layer", "2", *out), 2, "ambiguous-layer"),
        ((good, "--ids", "1", "-o", "all.safetensors"), 2, "bad-option"),
        ((good, "--ids", "1", "--layer", "1", "-o", "layer.csv"), 2, "unknown-format"),
        ((good, "--list", "-o", "x"), 2, "bad-option"),
        ((good, "--list", "--layer", "7"), 2, "no-such-layer"),
        ((good, "--list", "--only", "weights"), 2, "bad-option"),
        ((good, "--ids", "1", "--only", ",", *out), 2, "bad-option"),
        ((good, "--ids", "1", "--only", "wieghts", *out), 2, "unknown-step"),
        ((good, "--ids", "1", "--only", "weights", "-f", "html", *out), 2, "unknown-format"),
        ((good, "--ids", "1", "--only", "weights", "-o", "all.npz"), 2, "bad-option"),
        ((good, "--ids", "1", "--decode", "0", *out), 2, "bad-option"),
        ((good, "--ids", ",".join(["1"] * 15), "--decode", "2", *out), 3, "too-long"),
        ((good, "--decode", "2", "--list"), 2, "missing-option"),
        ((good, "--texts", tmp_path / "two.txt", "--decode", "2", *out), 2, "bad-option"),
        ((good, "--ids", "1", "--image", "random", "--decode", "2", *out), 2, "bad-option"),
        ((good, "--image", "", *out), 2, "bad-option"),
        ((good, "--image", tmp_path / "two.txt", *out), 3, "other-input"),
        ((seeing, "--text", "hello", *out), 3, "other-input"),
        ((vision, "--image", tmp_path / "two.txt", *out), 3, "no-image-processor"),
        ((ready, "--image", tmp_path / "none.png", *out), 3, "no-such-file"),
        ((ready, "--image", tmp_path / "two.txt", *out), 3, "bad-file"),
        ((ready, "--image", tmp_path, *out), 3, "not-a-file"),
        ((good, "--ids", "1", "-o", tmp_path / "layers"), 2, "output-exists"),
    ]

    answers = run_without_torch([["capture", *map(str, words)] for words, _, _ in cases])

    for (words, status, code), (got, asked, printed, err) in zip(cases, answers, strict=True):
        assert (got, asked, printed) == (status, False, 0), (words, err)
        assert err.startswith(f"error[{code}]: "), (words, err)
    assert not (tmp_path / "out").exists()
