"""The command line: `main` runs one, `app` is the Typer application with its commands."""

from attncli.cli.app import app
from attncli.cli.main import main

__all__ = ["app", "main"]
