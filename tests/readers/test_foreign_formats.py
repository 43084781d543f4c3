"""Files of other programs are recognised and refused, and the command that the help proposes makes a file that is read."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import shlex
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError, InputError
from attncli.readers import find_reader
from attncli.readers.foreign_formats import FOREIGN_FORMATS

FILES = Path(__file__).parent / "files"
TOKENS = ("the", "to", "U.S.", "<unk>")
VECTORS = [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156], [-2.02, -0.2319, -0.8652], [3.323, 0.2258, -0.3526]]
X = np.array(VECTORS)


def command_of(error: InputError, old: str = "") -> str:
    return re.search("python -c .*", error.help)[0].replace("FILE", shlex.quote(old))


def follow(error: InputError, folder: Path, old: str = "") -> Path:
    """Do what the command of a help does, in a folder, and return the file that it has written."""
    _, _, code, *files = shlex.split(command_of(error, old))
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["-c", *files])
        exec(code, {})
    return folder / files[-1]


def torch_file(value, **options) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def tensor():
    import torch

    return torch.tensor(VECTORS, dtype=torch.float64)


def hdf5_file(**data) -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, value in data.items():
            file[name] = value
    return out.getvalue()


# name of the file → what is in it, and whether it keeps the labels
MADE = {
    "tensor.pt": (lambda: torch_file(tensor()), False),
    "embedding.pth": (lambda: torch_file(__import__("torch").nn.Parameter(tensor())), False),
    "old.pt": (lambda: torch_file(tensor(), _use_new_zipfile_serialization=False), False),
    "dict.pt": (lambda: torch_file({"embeddings": tensor(), "tokens": list(TOKENS)}), True),
    "array.pkl": (lambda: pickle.dumps(X), False),
    "dict.pkl": (lambda: pickle.dumps(dict(zip(TOKENS, X, strict=True))), True),
    "named.pickle": (lambda: pickle.dumps({"embeddings": X, "tokens": list(TOKENS)}, protocol=2), True),
    "emb.h5": (lambda: hdf5_file(embeddings=X), False),
    "words.hdf5": (lambda: hdf5_file(embeddings=X, tokens=list(TOKENS)), True),
    "new.mat": (lambda: hdf5_file(embeddings=X.T), False),  # MATLAB keeps columns together
    "a file with 'quotes'.pt": (lambda: torch_file(tensor()), False),
}


@pytest.mark.parametrize("name", MADE)
def test_the_way_out_makes_a_file_that_is_read(tmp_path, name):
    make, has_labels = MADE[name]
    (tmp_path / name).write_bytes(make())

    with pytest.raises(InputError, match="is not read") as caught:
        attncli.read(tmp_path / name)
    problem = attncli.read(follow(caught.value, tmp_path))

    assert (caught.value.code, caught.value.location.file) == ("foreign-format", str(tmp_path / name))
    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == (TOKENS if has_labels else None)


@pytest.mark.parametrize("name", ["words", "column", "series"])
def test_a_pickled_frame_keeps_its_words(tmp_path, name):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["d0", "d1", "d2"])
    made = {
        "words": lambda: frame.set_index(pandas.Index(TOKENS)),
        "column": lambda: frame.assign(token=TOKENS),
        "series": lambda: pandas.Series(list(X), TOKENS),
    }
    made[name]().to_pickle(tmp_path / "x.pkl")
    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / "x.pkl")

    problem = attncli.read(follow(caught.value, tmp_path))

    assert (problem.tokens, problem.embeddings.tolist()) == (TOKENS, VECTORS)


def test_a_whole_module_is_converted_as_the_help_says(tmp_path):
    """In two steps: its arrays are saved by name, and one of them is named as the vectors."""
    import torch

    (tmp_path / "m.pt").write_bytes(torch_file(torch.nn.Embedding.from_pretrained(tensor())))
    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / "m.pt")
    with pytest.raises(pickle.UnpicklingError):
        follow(caught.value, tmp_path)
    assert "a whole module: write weights_only=False in it" in caught.value.help
    caught.value.help = caught.value.help.replace("weights_only=True", "weights_only=False")
    with pytest.raises(InputError) as unnamed:
        attncli.read(follow(caught.value, tmp_path))

    assert attncli.read(follow(unnamed.value, tmp_path)).embeddings.tolist() == VECTORS


def test_yaml_is_converted(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "x.yaml").write_text("embeddings: [[1, 2], [3, 4]]\n")
    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / "x.yaml")

    assert attncli.read(follow(caught.value, tmp_path)).embeddings.tolist() == [[1, 2], [3, 4]]


def test_arrays_of_texts_and_of_complex_numbers_have_a_way_out(tmp_path, attn):
    np.save(tmp_path / "words.npy", np.array(TOKENS))
    np.save(tmp_path / "x.npy", X + 1j)
    np.save(tmp_path / "real.npy", X)
    errors = {}
    for name in ("words.npy", "x.npy"):
        with pytest.raises(InputError) as caught:
            attncli.read(tmp_path / name)
        errors[name] = caught.value

    assert errors["words.npy"].help.endswith(f"--with tokens={tmp_path}/words.npy")
    run = attn("compute", tmp_path / "real.npy", "--with", f"tokens={tmp_path}/words.npy", "--json")
    assert run.json["tokens"] == list(TOKENS)
    assert attncli.read(follow(errors["x.npy"], tmp_path)).embeddings.tolist() == [[*row, 1, 1, 1] for row in VECTORS]


def test_a_shell_does_the_same(tmp_path):
    """The same command as a user pastes it, of a file whose name a shell would read otherwise."""
    name = "it's $HOME.pkl"
    (tmp_path / name).write_bytes(pickle.dumps(X))
    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / name)

    command = command_of(caught.value).replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, cwd=tmp_path, timeout=120, check=True)

    np.testing.assert_array_equal(attncli.read(tmp_path / "it's $HOME.json").embeddings, VECTORS)


def test_onnx_is_named_in_two_steps(tmp_path):
    import onnx

    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(X, "wte")])
    (tmp_path / "m.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())

    with pytest.raises(InputError, match="an ONNX model is not read") as caught:
        attncli.read(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="the archive holds wte") as named:
        attncli.read(follow(caught.value, tmp_path))

    np.testing.assert_array_equal(attncli.read(follow(named.value, tmp_path)).embeddings, VECTORS)


def test_a_spreadsheet_is_converted_where_pandas_is_installed(tmp_path):
    with pytest.raises(InputError, match="a spreadsheet is not read") as caught:
        attncli.read(FILES / "pandas.xlsx")
    assert "save the sheet as CSV" in caught.value.help
    pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    (tmp_path / "x.xlsx").write_bytes((FILES / "pandas.xlsx").read_bytes())
    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / "x.xlsx")

    problem = attncli.read(follow(caught.value, tmp_path))

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == TOKENS


def test_the_first_feather_is_converted_where_pyarrow_is_installed(tmp_path):
    with pytest.raises(InputError, match="Feather version 1 is not read") as caught:
        attncli.read(FILES / "pyarrow_version_1.feather")
    code = caught.value.help.partition(": ")[2].replace("OLD.feather", str(FILES / "pyarrow_version_1.feather"))
    pytest.importorskip("pyarrow.feather")

    warnings.simplefilter("ignore")  # that this version is old
    exec(f"import pyarrow.feather\n{code.replace('NEW.feather', str(tmp_path / 'new.feather'))}")

    assert attncli.read(tmp_path / "new.feather").tokens == TOKENS


# ── what they are recognised by ──────────────────────────────────────────────────────────────────
HEADS = {
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "a MATLAB file": b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90),
    "a GGUF model": b"GGUF\x03\0\0\0" + bytes(40),
    "an SQLite database": b"SQLite format 3\0" + bytes(40),
    "a fastText model": b"\xba\x16\x4f\x2f\x0c\0\0\0" + bytes(40),
    "a binary word2vec file": b"4 3\nthe " + np.array(VECTORS[0], "f4").tobytes() + b"\n",
    "a Python pickle": pickle.dumps([1, 2]),
    "an Avro table": b"Obj\x01\x04\x16avro.schema\0",
    "an ORC table": b"ORC\0\x11\0",
}


@pytest.mark.parametrize("title", HEADS)
@pytest.mark.parametrize(
    "name", ["x.bin", "x.csv", "x.json", "x.npy", "x.npz", "x.safetensors", "x.parquet", "x.arrow", "x.jsonl"]
)
def test_the_first_bytes_tell_whatever_the_suffix_is(tmp_path, title, name):
    (tmp_path / name).write_bytes(HEADS[title])

    with pytest.raises(AttnError) as caught:
        attncli.read(tmp_path / name, None if name != "x.jsonl" else "json")

    assert caught.value.message == f"{title} is not read"


@pytest.mark.parametrize("first", ["archive/data.pkl", "emb/data.pkl"])
def test_an_archive_of_pytorch_is_no_npz(tmp_path, first):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr(first, b"\x80\x02.")

    with pytest.raises(InputError, match="a PyTorch file, which is a pickle, is not read"):
        attncli.read(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x.csv", "x.npz", "x.safetensors", "x.json"])
def test_a_format_that_is_read_is_named(tmp_path, name):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / name).write_bytes((tmp_path / "x.npy").read_bytes())

    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / name)

    assert caught.value.help == "--input-format npy reads it"
    np.testing.assert_array_equal(attncli.read(tmp_path / name, "npy").embeddings, VECTORS)


def test_every_suffix_is_refused_without_a_file_and_before_torch(tmp_path, attn):
    suffixes = [suffix for foreign in FOREIGN_FORMATS for suffix in foreign.suffixes]

    assert {".pt", ".pth", ".bin", ".pkl", ".h5", ".hdf5", ".mat", ".xlsx", ".onnx", ".gguf"} <= set(suffixes)
    assert len(set(suffixes)) == len(suffixes)
    for suffix in suffixes:
        with pytest.raises(InputError, match="is not read") as caught:
            find_reader(f"x{suffix}")
        assert re.search("python -c .* x\\.|python -c .* WIDTH", caught.value.help), suffix
        assert len(caught.value.help) < 1000  # it is shown whole


def test_a_name_is_quoted_as_a_shell_wants_it(tmp_path):
    for name in ("$(touch hacked).pt", "`touch hacked`.pt", "-x.pt", "; touch hacked.pt", "a b.pt", 'a"b.pt'):
        with pytest.raises(InputError) as caught:
            find_reader(name)
        words = shlex.split(re.search("python -c .*", caught.value.help)[0])
        assert words[-2].removeprefix("./") == name
        assert len(words) == 5


# ── NPZ and NPY ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("words", [(), (np.array(TOKENS),)])
def test_arrays_that_savez_has_named_are_read(tmp_path, words):
    np.savez(tmp_path / "x.npz", X, *words)

    problem = attncli.read(tmp_path / "x.npz")

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == (TOKENS if words else None)


@pytest.mark.parametrize(
    ("arrays", "has_labels"),
    [
        ({"vectors": X, "words": np.array(TOKENS)}, True),
        ({"emb": X}, False),
        ({"emb": X, "counts": np.arange(4)}, False),
        ({"arr_0": X, "arr_1": X[:2]}, False),
    ],
)
def test_arrays_of_other_names_are_named_by_the_way_out(tmp_path, arrays, has_labels):
    np.savez(tmp_path / "x.npz", **arrays)

    with pytest.raises(InputError, match="no field of a problem has that name") as caught:
        attncli.read(tmp_path / "x.npz")
    problem = attncli.read(follow(caught.value, tmp_path))

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == (TOKENS if has_labels else None)


@pytest.mark.parametrize("names", [["embedding"], ["wte.weight"], ["head.weight", "wte.weight"]])
def test_a_tensor_of_another_name_is_named_by_the_way_out(tmp_path, names):
    from safetensors.numpy import save_file

    save_file({"ln.bias": X[0], **{name: X + (name == "head.weight") for name in names}}, tmp_path / "x.safetensors")

    with pytest.raises(InputError, match=f"the file holds '{names[0]}'") as caught:
        attncli.read(tmp_path / "x.safetensors")

    np.testing.assert_array_equal(attncli.read(follow(caught.value, tmp_path)).embeddings, VECTORS)


def test_pickled_arrays_are_saved_as_texts_and_numbers_by_the_way_out(tmp_path):
    np.savez(tmp_path / "x.npz", embeddings=X, tokens=np.array(TOKENS, object))
    np.save(tmp_path / "x.npy", X.astype(object))
    for name, labels in (("x.npz", TOKENS), ("x.npy", None)):
        with pytest.raises(InputError, match="pickled objects, which are never loaded") as caught:
            attncli.read(tmp_path / name)
        problem = attncli.read(follow(caught.value, tmp_path, name))
        np.testing.assert_array_equal(problem.embeddings, VECTORS)
        assert problem.tokens == labels


def test_records_of_numpy_and_a_single_vector_have_a_way_out(tmp_path, monkeypatch):
    x = np.array([tuple(row) for row in VECTORS], [("a", "f8"), ("b", "f8"), ("c", "f8")])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", X[0])

    with pytest.raises(InputError, match="records with the fields a, b and c") as caught:
        attncli.read(tmp_path / "x.npy")
    with pytest.raises(InputError, match="shape") as single:
        attncli.read(tmp_path / "y.npy")

    words = shlex.split(caught.value.help.partition(": ")[2])
    assert words[:2] == ["python", "-c"]
    monkeypatch.setattr("sys.argv", ["-c", str(tmp_path / "x.npy"), str(tmp_path / "new.npz")])
    exec(words[2], {})
    np.testing.assert_array_equal(attncli.read(tmp_path / "new.npz").embeddings, VECTORS)
    assert single.value.help == "one more pair of brackets makes it (1, 3)"
