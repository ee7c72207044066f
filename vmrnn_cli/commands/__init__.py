"""The commands: each parses, calls and prints."""

import typer

DEBUG = typer.Option(False, "--debug", help="Show tracebacks instead of one-line errors.")
