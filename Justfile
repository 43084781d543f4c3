# What a contributor types. `just` alone: lint and the fast tests.
default: check

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

# the fast tests, in about a minute: every package is in them, the large grids and what starts many processes are not
test *words:
    python -m pytest -m "not slow and not cluster and not full" {{words}}

# lint, and the fast tests
check: lint test

# every test, as CI runs them
test-all *words:
    python -m pytest {{words}}

# every test and every point of every grid, before a release
test-full *words:
    python -m pytest -m "full or not full" {{words}}

# broken, hostile and random inputs for so many seconds, on all cores; --seed, --only: python -m tests.fuzz --help
fuzz seconds *words:
    python -m tests.fuzz {{seconds}} {{words}}

# which lines and branches the tests run, and whether that is enough
cov *words:
    rm -f .coverage .coverage.*
    COVERAGE_PROCESS_START="$PWD/pyproject.toml" COVERAGE_FILE="$PWD/.coverage" python -m pytest {{words}}
    COVERAGE_FILE="$PWD/.coverage" .ci/coverage

# put small faults into the package, and see whether the tests notice (needs the extra `mutation`)
mutants *words:
    OMP_NUM_THREADS=1 python -m tests.mutants {{words}}

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
    python benchmarks/capture.py
