# What a contributor types. `just` alone: lint and test.
default: lint test

# everything for development, into the current environment
install:
    python -m pip install -c constraints.txt -e '.[dev]'

lint:
    ruff format --check .
    ruff check .
    mypy

format:
    ruff format .
    ruff check --fix .

test *words:
    python -m pytest {{words}}

# write what the README's commands print into the README
docs:
    python -m tests.test_readme

bench:
    python benchmarks
    python benchmarks/batch.py
    python benchmarks/batch_kill.py
