"""Pictures for the documentation, each made by a module: `python -m tests.pictures.page`."""
