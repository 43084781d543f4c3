"""Whatever a library raises over an input is that input's error: damaged archives, odd shapes and texts, deep and huge JSON."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

import attncli
from attncli.errors import CannotError, InputError
from tests.validation.bad_files import npy, npz, safetensors

JSON_PROBLEM = b'{"embeddings": [[1, 0], [0, 1]], "about": {"a": [1]}}'
GOOD_FILES = {
    "a.json": JSON_PROBLEM,
    "a.csv": b"a,1,0\nb,0,1\n",
    "a.npy": npy(np.eye(2)),
    "a.npz": npz(embeddings=np.eye(2), tokens=np.array(["a", "b"]), attn=np.array('{"about": {}}')),
    "a.safetensors": safetensors(
        {"__metadata__": {"attn": "{}"}, "embeddings": {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}},
        bytes(8),
    ),
}
# file → the functions of other libraries that read it
PARSERS = [
    ("a.json", "msgspec.json.decode"),
    ("a.json", "json.loads"),
    ("a.npy", "numpy.lib.format.read_magic"),
    ("a.npy", "numpy.lib.format.read_array"),
    ("a.npz", "zipfile.ZipFile"),
    ("a.npz", "zipfile.ZipFile.infolist"),
    ("a.npz", "zipfile.ZipFile.open"),
    ("a.npz", "zipfile.ZipExtFile.read"),
    ("a.npz", "numpy.lib.format.read_array"),
    ("a.npz", "msgspec.json.decode"),
    ("a.npz", "json.loads"),
    ("a.safetensors", "msgspec.json.decode"),
    ("a.safetensors", "json.loads"),
    ("a.safetensors", "numpy.frombuffer"),
    ("a.csv", "csv.reader"),
]


class OddError(Exception):
    """What no one foresees."""


@pytest.mark.parametrize(("name", "function"), PARSERS)
@pytest.mark.parametrize(
    ("error", "kind"), [(OddError("odd"), InputError), (SystemError(), InputError), (MemoryError(), CannotError)]
)
def test_whatever_a_parser_raises_is_the_inputs_error(tmp_path, monkeypatch, name, function, error, kind):
    def fail(*args, **kwargs):
        raise error

    (tmp_path / name).write_bytes(GOOD_FILES[name])
    monkeypatch.setattr(function, fail)

    with pytest.raises(kind) as caught:
        attncli.read(tmp_path / name)

    assert caught.value.code == ("out-of-memory" if kind is CannotError else caught.value.code)
    assert caught.value.code != "bug"


def test_what_polars_raises_is_left_to_the_standard_library(tmp_path, monkeypatch):
    import polars

    (tmp_path / "a.csv").write_bytes(GOOD_FILES["a.csv"])
    monkeypatch.setattr("attncli.readers.csv._POLARS_MIN_BYTES", 0)
    for error in (
        OddError("odd"),
        polars.exceptions.PanicException("a panic"),
        polars.exceptions.ComputeError("wrong"),
    ):

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr("polars.read_csv", fail)
        assert attncli.read(tmp_path / "a.csv").tokens == ("a", "b")


@pytest.mark.parametrize("name", GOOD_FILES)
def test_every_cut_and_every_changed_byte_is_read_or_refused(tmp_path, name):
    data, path = GOOD_FILES[name], tmp_path / name
    rng = random.Random(1)
    for i in range(0, len(data), max(1, len(data) // 150)):
        for damaged in (data[:i], data[i:], data[:i] + rng.randbytes(1) + data[i + 1 :], data[:i] + data[i + 9 :]):
            path.write_bytes(damaged)
            with contextlib.suppress(InputError):  # anything else fails
                attncli.read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_whose_methods_unpack_without_bound_is_refused_before_it_is_unpacked(tmp_path, method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("embeddings.npy", npy(np.zeros((1, 10**6))))  # 1,400 bytes unpacked at once to 8 MB and more
    (tmp_path / "a.npz").write_bytes(out.getvalue())

    tracemalloc.start()
    with pytest.raises(InputError, match="compressed by a method that numpy does not use") as caught:
        attncli.read(tmp_path / "a.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert caught.value.code == "bad-file"
    assert peak < 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_within_an_archive_is_found(tmp_path, method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("embeddings.npy", npy(np.random.default_rng(1).normal(size=(20, 20))))
    data = out.getvalue()

    for i in range(200, len(data) - 200, 97):  # in the bytes of the array
        (tmp_path / "a.npz").write_bytes(data[:i] + bytes([data[i] ^ 255]) + data[i + 1 :])
        with pytest.raises(InputError) as caught:
            attncli.read(tmp_path / "a.npz")
        assert caught.value.code in ("bad-file", "truncated")


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────
def nested(levels: int, inner: str = "") -> str:
    return "[" * levels + inner + "]" * levels


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"embeddings": [[1]], "about": ' + "9" * 5000 + "}", "not-finite"),
        ('{"embeddings": [[1]], "about": {"a": [-' + "9" * 5000 + "]}}", "not-finite"),
        ('{"embeddings": [[' + "9" * 5000 + "]]}", "not-finite"),
        ("[[" + "9" * 5000 + "]]", "not-finite"),
        ("[[1" + "0" * 309 + "]]", "not-finite"),
        ('{"embeddings": [[1], [1' + "0" * 309 + "]]}", "not-finite"),
        ('[{"token": "a", "embedding": [1' + "0" * 309 + "]}]", "not-finite"),
        ('{"embeddings": [[1]], "variant": {"seed": ' + "9" * 5000 + "}}", "not-finite"),
        ('{"embeddings": [[1]], "variant": {"seed": ' + "9" * 400 + "}}", "bad-option"),
        ('{"embeddings": [[1]], "variant": {"self": 1}}', "unknown-choice"),
        ('{"embeddings": [[1]], "variant": {"parsed_choices": 1}}', "unknown-choice"),
        ('{"embeddings": [[1]], "tokens": ' + nested(500) + "}", "wrong-type"),
        ('{"embeddings": [[1]], "tokens": ' + nested(3, '"a"') + "}", "wrong-type"),
        ('{"q": [[1]], "k": [[1]], "k_tokens": ' + nested(4, '"a"') + "}", "wrong-type"),
        ('{"embeddings": [[1]], "memory": {"embeddings": [[1]], "tokens": ' + nested(900, '"a"') + "}}", "wrong-type"),
        ('{"embeddings": [[1]], "tokens": [["a"], "b"]}', "wrong-type"),
        ('{"embeddings": [[1]], "tokens": [[]]}', "wrong-type"),
        ('{"embeddings": [[1]], "layout": ' + nested(900) + "}", "wrong-type"),
        ('{"embeddings": [[1]], "layout": {"a": 1}}', "wrong-type"),
        ('{"embeddings": [[1]], "variant": {"mask": ' + nested(900) + "}}", "unknown-mask"),
        ('{"embeddings": [[1]], "about": ' + nested(5000) + "}", "too-deep"),
        ('{"embeddings": [[1]], "parameters": {"w_q": ' + nested(5000) + "}}", "too-deep"),
    ],
    ids=lambda x: x[:60] if x.startswith(("{", "[")) else x,
)
def test_huge_and_deep_json_is_refused(tmp_path, text, code):
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(InputError) as caught:
        attncli.read(tmp_path / "a.json")

    assert caught.value.code == code
    assert len(caught.value.message) + len(caught.value.help) < 1000


def test_an_integer_too_large_for_a_float_is_pointed_at(tmp_path):
    (tmp_path / "a.json").write_text('{"embeddings": [[1, 2], [3, 1' + "0" * 309 + "]]}")

    with pytest.raises(InputError, match="too large for float64") as caught:
        attncli.read(tmp_path / "a.json")

    assert caught.value.location.path == "$.embeddings[1][1]"


# ── arrays where something else belongs ──────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["layout", "w_layout", "about", "about.x", "variant", "variant.heads", "expected", "past", "parameters", "memory", "attn", "schema", "", ".", "a.b.c.d.e"])  # fmt: skip
@pytest.mark.parametrize(
    "array", [np.zeros(2), np.zeros(()), np.zeros((2, 2), bool)], ids=["vector", "number", "booleans"]
)
def test_an_array_where_none_belongs_is_refused(tmp_path, name, array):
    (tmp_path / "a.npz").write_bytes(npz(**{"embeddings": np.eye(2), name or ".npy": array}))
    size = array.nbytes
    header = {
        "embeddings": {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]},
        name: {"dtype": "BOOL" if array.dtype == bool else "F64", "shape": array.shape, "data_offsets": [8, 8 + size]},
    }
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, bytes(8 + size)))

    for path in ("a.npz", "a.safetensors"):
        with pytest.raises(InputError):
            attncli.read(tmp_path / path)


@pytest.mark.parametrize("name", ["layout", "w_layout", "about", "variant", "expected", "tokens", "past"])
def test_a_matrix_is_no_value_of_other_fields(tmp_path, name):
    (tmp_path / "a.json").write_bytes(JSON_PROBLEM)
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")

    with pytest.raises(InputError):
        attncli.read(tmp_path / "a.json", replacing=[f"{name}={tmp_path / 'x.csv'}"])


@pytest.mark.parametrize("dtype", ["<f2", "<f8", "<i8", "|b1"])
def test_with_meets_a_group_that_is_an_array(tmp_path, dtype):
    (tmp_path / "a.npz").write_bytes(npz(embeddings=np.eye(2), parameters=np.ones((2, 2), dtype)))
    np.save(tmp_path / "w.npy", np.eye(2))

    for first, second in (("a.npz", "w.npy"), ("w.npy", "a.npz")):
        with pytest.raises(InputError):
            attncli.read(
                tmp_path / first, replacing=[f"parameters.w_q={tmp_path / second}", f"past.k={tmp_path / second}"]
            )


# ── safetensors and NPY ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**63], [2**64, 0], [0, 2**31, 2**31, 2**31], [1] * 65, [0] * 65])
@pytest.mark.parametrize("dtype", ["F64", "I8", "BF16", "BOOL"])
@pytest.mark.parametrize("name", ["embeddings", "q", "mask", "positions"])
def test_shapes_that_no_array_can_have(tmp_path, shape, dtype, name):
    size = 0 if 0 in shape else {"F64": 8, "BF16": 2}.get(dtype, 1)
    header = {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, bytes(size)))
    header_text = io.BytesIO()
    np.lib.format.write_array_header_1_0(header_text, {"descr": "|i1", "fortran_order": False, "shape": tuple(shape)})
    (tmp_path / "a.npy").write_bytes(header_text.getvalue() + bytes(0 if 0 in shape else 1))

    for path in ("a.safetensors", "a.npy"):
        with pytest.raises(InputError):
            attncli.read(tmp_path / path)


@pytest.mark.parametrize("metadata", [{"attn": 5}, {"attn": {}}, {"attn": None}, {"other": []}, 5, "x", []])
def test_metadata_of_safetensors_is_text(tmp_path, metadata):
    header = {"__metadata__": metadata, "embeddings": {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}}
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, bytes(8)))

    with pytest.raises(InputError, match="this is not a complete safetensors file"):
        attncli.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"\xff", b"a"]),
        np.array([[b"a", b"b"]])[..., None, None],
        np.frombuffer(b"\xff\xff\xff\xff\0\0\0\0", "<U1"),
        np.frombuffer(b"\x00\xd8\0\0a\0\0\0", "<U1"),
        np.array("ab"),
    ],
    ids=["no UTF-8", "four axes", "no code point", "half a pair", "one text"],
)
def test_labels_that_are_no_texts_are_refused(tmp_path, array):
    (tmp_path / "a.npz").write_bytes(npz(embeddings=np.eye(2), tokens=array))

    with pytest.raises(InputError):
        attncli.read(tmp_path / "a.npz")


@pytest.mark.parametrize("order", "<>")
def test_a_text_of_what_is_no_character_is_refused_wherever_it_stands(tmp_path, order):
    """Python can compare and print such a text of numpy's, and can neither lower its case nor split it."""
    text = np.frombuffer(np.array([0x61, 0x110000], f"{order}u4").tobytes(), f"{order}U2")[0]
    (tmp_path / "a.npz").write_bytes(npz(q=np.ones((3, 2, 4)), k=np.ones((3, 2, 4)), layout=np.array(text)))

    with pytest.raises(InputError, match="layout holds something that is not text: there is no character 0x110000"):
        attncli.read(tmp_path / "a.npz")


def test_labels_are_refused_from_python_too():
    for tokens in (["a", "\ud800"], [["a", "b"], ["a", 5]], [[["a"]]], "ab", ["a", None]):
        with pytest.raises(InputError, match="tokens"):
            attncli.attend(attncli.Problem(embeddings=np.eye(2), tokens=tokens))


def test_bytes_after_an_array_are_not_passed_over(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(np.eye(2)) + npy(np.ones((2, 2))))

    with pytest.raises(InputError, match="bytes more follow"):
        attncli.read(tmp_path / "a.npy")


def test_nothing_that_numpy_warns_of_is_seen(tmp_path, recwarn):
    old = npy(np.eye(2)).replace(b"'shape': (2, 2), }", b"'shape': (2L, 2), }").replace(b" \n", b"\n", 1)  # of Python 2
    (tmp_path / "a.npy").write_bytes(old)
    (tmp_path / "b.npy").write_bytes(npy(np.array([[np.longdouble("1e4000")]])))
    (tmp_path / "c.npz").write_bytes(npz(q=np.array([[np.longdouble("1e4000")]]), k=np.eye(1)))
    snan = np.frombuffer(b"\x01\x00\xa0\x7f" * 4, "<f4").reshape(2, 2)
    (tmp_path / "d.npz").write_bytes(npz(q=snan, k=snan, expected=np.eye(2)))

    assert attncli.read(tmp_path / "a.npy").embeddings.tolist() == [[1, 0], [0, 1]]
    for name in ("b.npy", "c.npz", "d.npz"):
        with pytest.raises(InputError):
            attncli.read(tmp_path / name)
    assert not recwarn.list


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_other_encodings_are_named_in_json_and_read_in_csv(tmp_path, encoding):
    mark = {"utf-16-le": "\ufeff", "utf-32-be": "\ufeff"}.get(encoding, "")
    (tmp_path / "a.json").write_bytes((mark + json.dumps([[1, 0], [0, 1]])).encode(encoding))
    (tmp_path / "a.csv").write_bytes((mark + "é,1\nb,2\n").encode(encoding))

    with pytest.raises(InputError, match=f"but this file is {encoding[:6].upper()}") as caught:
        attncli.read(tmp_path / "a.json")
    problem = attncli.read(tmp_path / "a.csv")

    assert problem.tokens == ("é", "b")
    assert problem.embeddings.tolist() == [[1], [2]]
    assert caught.value.code == "wrong-encoding"
    assert caught.value.help.endswith(f"iconv -f {encoding[:6].upper()} -t UTF-8")
