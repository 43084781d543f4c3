"""Mutation tests: small faults are put into the package, one at a time, and the tests must notice each.

`python -m tests.mutants` draws a seeded sample of them and writes what became of each to `build/mutants/result.json`.
It needs the extra `mutation`: pip install -c constraints.txt -e '.[dev,mutation]'.
"""
