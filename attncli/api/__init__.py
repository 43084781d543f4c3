"""The functions that Python calls: `attend`, `explain`, `read`, `write`; `check` is in `attncli.check`.

They take what people hold (arrays, tensors, data frames, names of files, dicts) and the command line's options as keywords.
"""
