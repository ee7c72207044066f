"""`vmrnn weights`: the weights at hand, to and from the Hugging Face Hub, to and from the published code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import weights as known
from ..errors import InputError
from ..networks import CONFIG_NAME, FILE_SUFFIXES, WEIGHTS_NAME
from ..text import printable
from .options import DEBUG, JSON, REPLACE

if TYPE_CHECKING:
    from ..networks import Network

app = typer.Typer(no_args_is_help=True, help="List, download, convert and share weights.")


@app.command("list")
def list_weights(as_json: bool = JSON, debug: bool = DEBUG) -> None:
    """List our weights: what each was trained on, for how long, how good it is, and where it is."""
    import json

    entries = {name: {**entry, **_whereabouts(name)} for name, entry in known.registry().items()}
    if as_json:
        print(json.dumps(entries))
        return
    for name, entry in entries.items():
        print(f"{name}{'  (default)' if entry.get('default') else ''}")
        for key in ("data", "budget", "metrics", "licence", "size", "where"):
            if key in entry:
                print(f"  {key:<8} {f'{entry[key] / 1e6:.1f} MB' if key == 'size' else entry[key]}")


@app.command()
def pull(
    name: str = typer.Argument(..., metavar="NAME|OWNER/NAME[@REVISION]", help="Ours, or a repository on the Hub."),
    to: Path | None = typer.Option(None, "--to", metavar="FOLDER", help="Also put a copy there."),
    overwrite: bool = REPLACE,
    debug: bool = DEBUG,
) -> None:
    """Download weights from the Hugging Face Hub, and print where they are.

    What is in the cache already is not downloaded again. Then `--weights` takes them by the same name, offline too.
    """
    import shutil

    from ..outputs import atomic_folder

    if to is None:
        print(_fetch(name))
        return
    with atomic_folder(to, overwrite) as copy:
        for file in filter(Path.is_file, _fetch(name).iterdir()):
            shutil.copyfile(file, copy / file.name)
    print(to)


@app.command()
def convert(
    source: str = typer.Argument(..., metavar="IN", help="Published .pth/.pt/.safetensors, or what --weights takes."),
    out: Path = typer.Argument(..., metavar="OUT", help="A weights folder; with --to-published a file."),
    to_published: bool = typer.Option(False, "--to-published", help="Write a state dict for the published code."),
    layout: str = typer.Option("mnist", metavar="mnist|openstl", help="Which published code: its names differ for B."),
    overwrite: bool = REPLACE,
    debug: bool = DEBUG,
) -> None:
    """Make a weights folder of a published checkpoint, or a published checkpoint of weights. Both in float32."""
    from .. import pretrained, published
    from ..outputs import atomic_folder, check_target

    if layout not in ("mnist", "openstl"):
        raise InputError(f"there is no layout '{layout}'", "use mnist or openstl")
    if to_published:
        if out.suffix not in FILE_SUFFIXES:
            raise InputError(f"cannot tell the format of {out}", f"end its name in one of {', '.join(FILE_SUFFIXES)}")
        check_target(out, overwrite)
        model = known.load(source)
        pretrained.save_published(model, out, layout=layout, overwrite=overwrite)
        unused = published.published_parameters(model) - sum(p.numel() for p in model.parameters())
        print(
            f"wrote {printable(out)}: {_summary(model)}; the {unused:,} parameters that the published code never uses "
            "are zeros"
        )
        return
    if out.suffix in FILE_SUFFIXES:
        raise InputError(f"{out} would be a folder", "leave out the suffix, or pass --to-published to write a file")
    path = known.locate(source)
    model = pretrained.load_model(path)
    with atomic_folder(out, overwrite) as folder:
        pretrained.save_model(model, folder, half=False)
    print(f"wrote {printable(out)}: {_summary(model)}")
    if pretrained.stated_config(path) is None:
        height, width = model.config.image_size
        print(
            f"A checkpoint does not tell what it was trained for; {out / CONFIG_NAME} says {width}x{height}"
            f" frames, {model.config.context} in, {model.config.horizon} out, as published: change it if need be."
        )


@app.command()
def push(
    folder: Path = typer.Argument(..., metavar="FOLDER", help="A weights folder, with its README.md."),
    repository: str = typer.Argument(..., metavar="OWNER/NAME", help="Made if there is none."),
    private: bool = typer.Option(False, "--private", help="If it is made: for you and whom you let in."),
    revision: str | None = typer.Option(None, metavar="BRANCH", help="Default: main. Made if there is none."),
    debug: bool = DEBUG,
) -> None:
    """Upload a weights folder to the Hugging Face Hub, and print its address.

    Log in first with `hf auth login`, or set HF_TOKEN.
    """
    from .. import hub
    from ..pretrained import load_model

    if folder.is_file():
        raise InputError(f"{folder} is not a folder", "make one of it with `vmrnn weights convert`")
    load_model(folder)  # what cannot be loaded is not for others either
    print(hub.push(folder, repository, private=private or None, revision=revision))


def _fetch(name: str) -> Path:
    """The folder with weights of ours or from the Hub, which can be loaded."""
    from ..pretrained import load_model

    if name and not known.is_bundled(name) and Path(name).exists():
        raise InputError(f"{name} is on this machine", "use it as it is, or name a repository as owner/name")
    folder = known.locate(name)
    load_model(folder)
    return folder


def _whereabouts(name: str) -> dict[str, Any]:
    """Where weights are, and how many bytes they take if that is on this machine."""
    where, folder = known.find(name)
    return {"where": where, **({"size": (folder / WEIGHTS_NAME).stat().st_size} if folder else {})}


def _summary(model: Network) -> str:
    config = model.config
    depths = ", ".join(map(str, (*config.depths, *config.depths_up)))
    return (
        f"VMRNN-{config.variant}, {config.image_channels} channel(s), patch {config.patch_size}, "
        f"width {config.embed_dim}, depths {depths}"
    )
