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

# run the documentation's commands, and write what they print into its pages
docs *pages:
    python -m tests.docs {{pages}}

# build docs/ as a website into site/ (needs the extra `docs`)
docs-site:
    NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench:
    python benchmarks
    python benchmarks/batch.py
    python benchmarks/batch_kill.py
