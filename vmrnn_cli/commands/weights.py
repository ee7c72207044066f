"""`vmrnn weights`: the weights at hand."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def weights() -> None:
    """List the weights at hand."""


@app.command("list")
def list_weights(as_json: bool = typer.Option(False, "--json", help="Print the registry as JSON.")) -> None:
    """List the bundled weights: what each was trained on and for how long."""
    import json

    from ..weights import registry

    entries = registry()
    if as_json:
        print(json.dumps(entries))
        return
    for name, entry in entries.items():
        print(f"{name}{'  (default)' if entry.get('default') else ''}")
        for key in ("data", "budget", "metrics", "licence"):
            if key in entry:
                print(f"  {key:<8} {entry[key]}")
