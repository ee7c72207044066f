"""The commands of `vmrnn`. Nothing here imports PyTorch: `--help`, `--version` and completion answer at once."""

from __future__ import annotations

import typer

from . import __version__
from .commands import benchmark, compare, data, doctor, eval, info, predict, train, watch, weights
from .commands.options import renamed

app = typer.Typer(
    name="vmrnn",
    help="Predict the next frames of a video with VMRNN, a recurrent Vision Mamba.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": renamed},
    epilog="Environment: VMRNN_CACHE, the folder for decoded videos (default: ~/.cache/vmrnn). VMRNN_DATA_URL, a "
    "mirror for `vmrnn data get`, with a folder for each data set. VMRNN_NATIVE_ISA, the instruction set of the "
    "compiled scan: baseline, avx2 or avx512 (default: the best that runs).",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vmrnn {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks instead of one-line errors."),
) -> None:
    """Predict the next frames of a video with VMRNN, a recurrent Vision Mamba."""


app.command("predict")(predict.predict)
app.command("watch", epilog=watch.FIELDS)(watch.watch)
app.command("train")(train.train)
app.command("eval")(eval.evaluate)
app.command("compare")(compare.compare)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)
app.command("benchmark")(benchmark.benchmark)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
