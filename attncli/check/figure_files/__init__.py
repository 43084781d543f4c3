"""Files of figures: JSON, CSV, NPZ, NPY, safetensors, results, problems with `expected`, and worksheets."""

from attncli.check.figure_files.read import read_figures

__all__ = ["read_figures"]
