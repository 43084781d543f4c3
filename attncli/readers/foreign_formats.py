"""Recognise files of other programs that are not read, and say how to convert them. Entries: `foreign_suffix_error`, `check_not_foreign`.

What runs code when it is read (pickle, and what is built on it) is never loaded here; the others need a library each, that
attn does without. Each has the command that writes a file which is read.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from attncli.errors import InputError
from attncli.readers.source import Source

_NAMED_ARRAYS = "(x if isinstance(x, dict) else {'embeddings': x}).items()"
_SAVE_JSON = "Path(sys.argv[2]).write_text(json.dumps(x, default=lambda v: (v.to_dict('split') if v.ndim > 1 else v.to_dict()) if hasattr(v, 'iloc') else v.tolist()))"
_SAVE_DATASETS = (
    "numpy.savez(sys.argv[2], **{k: v.asstr()[()].astype(str) if h5py.check_string_dtype(v.dtype) else v[()]"
)


@dataclass(frozen=True)
class ForeignFormat:
    """A format of other programs, and the command that makes of it one that is read."""

    title: str
    suffixes: tuple[str, ...]
    code: str  # Python, from the file sys.argv[1] to the file sys.argv[2]
    new_suffix: str
    packages: str = ""  # what it needs
    caution: str = ""

    def help(self, path: str) -> str:
        """Return the way out of a file."""
        command = f'python -c "{self.code}" {spell_path(path)} {spell_path(path, self.new_suffix)}'
        needs = f" (it needs {self.packages})" if self.packages else ""
        caution = f"; {self.caution}" if self.caution else ""
        return f"convert it{needs}{caution}: {command}"


_RUNS_CODE = "loading it runs whatever code is in it, so only a file that you trust"
_PYTORCH = ForeignFormat(
    "a PyTorch file, which is a pickle,",
    (".pt", ".pth", ".ckpt"),
    "import sys, numpy, torch; x = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "x = x.state_dict() if hasattr(x, 'state_dict') else x; "
    "numpy.savez(sys.argv[2], **{k: (v.detach().double() if v.is_floating_point() else v).numpy() if torch.is_tensor(v) else v "
    f"for k, v in {_NAMED_ARRAYS}}})",
    ".npz",
    caution="if it ends in a WeightsUnpickler error, the file holds a whole module: write weights_only=False in it, which runs "
    "whatever code is in the file, so only for one that you trust",
)
_PICKLE = ForeignFormat(
    "a Python pickle",
    (".pkl", ".pickle"),
    "import sys, json, pickle; from pathlib import Path; x = pickle.loads(Path(sys.argv[1]).read_bytes()); "
    f"{_SAVE_JSON}",
    ".json",
    caution=_RUNS_CODE,
)
_JOBLIB = ForeignFormat(
    "a joblib pickle",
    (".joblib",),
    f"import sys, json, joblib; from pathlib import Path; x = joblib.load(sys.argv[1]); {_SAVE_JSON}",
    ".json",
    "joblib",
    _RUNS_CODE,
)
_HDF5 = ForeignFormat(
    "HDF5",
    (".h5", ".hdf5", ".hdf"),
    f"import sys, h5py, numpy; {_SAVE_DATASETS} for k, v in h5py.File(sys.argv[1]).items() if isinstance(v, h5py.Dataset)}})",
    ".npz",
    "h5py",
)
_MATLAB_7 = ForeignFormat(
    "a MATLAB file of version 7.3, which is HDF5,",
    (),
    "import sys, h5py, numpy; numpy.savez(sys.argv[2], **{k: v[()].T for k, v in h5py.File(sys.argv[1]).items() "
    "if isinstance(v, h5py.Dataset)})",
    ".npz",
    "h5py",
)
_MATLAB = ForeignFormat(
    "a MATLAB file",
    (".mat",),
    "import sys, numpy, scipy.io; numpy.savez(sys.argv[2], **{k: v for k, v in scipy.io.loadmat(sys.argv[1]).items() "
    "if k[0] != '_' and v.dtype.kind in 'fiub'})",
    ".npz",
    "scipy",
)
_EXCEL = ForeignFormat(
    "a spreadsheet",
    (".xlsx", ".xlsm", ".xls", ".ods"),
    "import sys, pandas; pandas.read_excel(sys.argv[1], header=None).to_csv(sys.argv[2], header=False, index=False)",
    ".csv",
    "pandas, and openpyxl for .xlsx",
    "or save the sheet as CSV in the program that made it",
)
_ONNX = ForeignFormat(
    "an ONNX model",
    (".onnx",),
    "import sys, numpy, onnx; numpy.savez(sys.argv[2], **{t.name: onnx.numpy_helper.to_array(t) "
    "for t in onnx.load(sys.argv[1]).graph.initializer})",
    ".npz",
    "onnx",
)
_GGUF = ForeignFormat(
    "a GGUF model",
    (".gguf",),
    "import sys, numpy, gguf; numpy.savez(sys.argv[2], **{t.name: gguf.quants.dequantize(t.data, t.tensor_type) "
    "for t in gguf.GGUFReader(sys.argv[1]).tensors})",
    ".npz",
    "gguf",
)
_WORD2VEC = ForeignFormat(
    "a binary word2vec file",
    (),
    "import sys; from gensim.models import KeyedVectors as K; "
    "K.load_word2vec_format(sys.argv[1], binary=True).save_word2vec_format(sys.argv[2])",
    ".vec",
    "gensim",
)
_FASTTEXT = ForeignFormat(
    "a fastText model",
    (),
    "import sys; from gensim.models.fasttext import load_facebook_vectors as load; "
    "load(sys.argv[1]).save_word2vec_format(sys.argv[2])",
    ".vec",
    "gensim",
)
_RAW = ForeignFormat(
    "a file of numbers without a header",
    (".bin", ".fbin"),
    "import sys, numpy; numpy.save(sys.argv[2], numpy.fromfile(sys.argv[1], 'float32').reshape(-1, WIDTH))",
    ".npy",
    caution="with the dtype and the WIDTH that you know",
)
_ORC = ForeignFormat(
    "an ORC table",
    (".orc",),
    "import sys, pyarrow.orc, pyarrow.parquet; pyarrow.parquet.write_table(pyarrow.orc.read_table(sys.argv[1]), sys.argv[2])",
    ".parquet",
    "pyarrow",
)
_AVRO = ForeignFormat(
    "an Avro table",
    (".avro",),
    "import sys, polars; polars.read_avro(sys.argv[1]).write_parquet(sys.argv[2])",
    ".parquet",
)
_STATA = ForeignFormat(
    "a Stata table",
    (".dta",),
    "import sys, pandas; pandas.read_stata(sys.argv[1]).to_csv(sys.argv[2], index=False)",
    ".csv",
    "pandas",
)
_SQLITE = ForeignFormat(
    "an SQLite database",
    (".sqlite", ".sqlite3", ".db"),
    "import sys, sqlite3, csv; r = sqlite3.connect(sys.argv[1]).execute('select * from TABLE'); "
    "csv.writer(open(sys.argv[2], 'w', newline='')).writerows([[c[0] for c in r.description], *r])",
    ".csv",
    caution="with the name of its TABLE",
)
_HTML = ForeignFormat(
    "an HTML page",
    (".html", ".htm"),
    "import sys, pandas; pandas.read_html(sys.argv[1])[0].to_csv(sys.argv[2], index=False)",
    ".csv",
    "pandas and lxml",
)
_YAML = ForeignFormat(
    "YAML",
    (".yaml", ".yml"),
    "import sys, json, yaml; from pathlib import Path; "
    "Path(sys.argv[2]).write_text(json.dumps(yaml.safe_load(Path(sys.argv[1]).read_text('utf-8'))))",
    ".json",
    "pyyaml",
)
FOREIGN_FORMATS = (
    _PYTORCH, _PICKLE, _JOBLIB, _HDF5, _MATLAB_7, _MATLAB, _EXCEL, _ONNX, _GGUF, _WORD2VEC, _FASTTEXT, _RAW, _ORC, _AVRO, _STATA, _SQLITE, _HTML, _YAML,
)  # fmt: skip
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    (b"MATLAB 5.0 MAT-file", _MATLAB),
    (b"GGUF", _GGUF),
    (b"SQLite format 3\0", _SQLITE),
    (b"ORC", _ORC),
    (b"Obj\x01", _AVRO),
    (b"\xd0\xcf\x11\xe0", _EXCEL),
    (b"\xba\x16\x4f\x2f", _FASTTEXT),
)
_ARCHIVE_MAGIC = b"PK\x03\x04"
_OWN_MAGIC = ((b"\x93NUMPY", "npy"), (b"PAR1", "parquet"), (b"ARROW1", "arrow"))
_PICKLE_PATTERN = re.compile(rb"\x80[\x02-\x05]")
_WORD2VEC_PATTERN = re.compile(rb"\d+ \d+\n[^\n ]+ ")
_HEAD_BYTES = 2**10  # that are enough to recognise a format


def foreign_suffix_error(path: str) -> InputError | None:
    """Return the error for a file whose suffix is that of another program; None where it is not."""
    suffix = PurePath(path).suffix.lower()
    foreign = next((one for one in FOREIGN_FORMATS if suffix in one.suffixes), None)
    if foreign is None:
        return None
    head = b""
    with suppress(OSError, ValueError):  # what cannot be opened is judged by its suffix
        if Path(path).is_file():
            with Path(path).open("rb") as file:
                head = file.read(_HEAD_BYTES)
    found = _recognise(head)
    if found is _HDF5 and suffix == ".mat":
        found = _MATLAB_7
    return _foreign_error(path, found or foreign)


def check_not_foreign(source: Source) -> None:
    """Check that a file is none of another program's, whatever its suffix or `--input-format` says.

    Raises:
        InputError: it is one, or one of another format that is read.
    """
    head = bytes(source.data[:_HEAD_BYTES])
    foreign = _recognise(head)
    if foreign is not None:
        raise _foreign_error(source.name, foreign)
    own = next((name for magic, name in _OWN_MAGIC if head.startswith(magic)), "")
    if head.startswith(_ARCHIVE_MAGIC) and _first_member(head).endswith(b".npy"):
        own = "npz"
    if own not in ("", source.format):
        message = f"this is {own}, not {source.format}"
        raise InputError("foreign-format", message, help=f"{source.spell_format(own)} reads it")


def _recognise(head: bytes) -> ForeignFormat | None:
    """Recognise a format by the first bytes of a file."""
    for magic, foreign in _MAGIC:
        if head.startswith(magic):
            return foreign
    if head.startswith(_ARCHIVE_MAGIC):
        return _recognise_archive(head)
    if _PICKLE_PATTERN.match(head):
        return (
            _PYTORCH if b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." in head[:20] else _PICKLE
        )  # the mark of old files of PyTorch
    return _WORD2VEC if _WORD2VEC_PATTERN.match(head) and not _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text in UTF-8, of which the last character may be cut."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return not re.search("[\0-\x08\x0e-\x1f]", text)


def _recognise_archive(head: bytes) -> ForeignFormat | None:
    """Recognise a ZIP archive by its first member."""
    name = _first_member(head)
    if name.endswith((b"/data.pkl", b"/.format_version", b"/.data/serialization_id")):
        return _PYTORCH
    is_office = name in (b"[Content_Types].xml", b"mimetype") or name.startswith((b"xl/", b"docProps/", b"_rels/"))
    return _EXCEL if is_office else None


def _first_member(head: bytes) -> bytes:
    """Return the name of the first member of a ZIP archive."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")]


def _foreign_error(path: str, foreign: ForeignFormat) -> InputError:
    return InputError("foreign-format", f"{foreign.title} is not read", help=foreign.help(path))


def spell_path(path: str, suffix: str | None = None) -> str:
    """Return a path as a shell takes it; with another suffix where one is given."""
    if path == "<stdin>":
        return f"NEW{suffix}" if suffix else "FILE"
    if suffix:
        with suppress(ValueError):  # a name that can have no suffix
            is_same = PurePath(path).suffix.lower() == suffix
            path = str(PurePath(path).with_suffix(f".new{suffix}" if is_same else suffix))
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
