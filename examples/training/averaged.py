"""Make a weights folder of a run as it is now: its averaged weights, whether or not they are its best.

    python examples/training/averaged.py runs/NAME FOLDER

`best/` of a run is judged over the whole horizon, which says little while it trains over a shorter one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vmrnn_cli import networks, run_state
from vmrnn_cli.errors import run_script
from vmrnn_cli.outputs import atomic_folder
from vmrnn_cli.pretrained import save_model


def main() -> None:
    """Write the folder."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    run, folder = map(Path, sys.argv[1:])
    state = run_state.read_state(run)
    model = networks.build(networks.config_from_dict(state["network"]))
    model.load_state_dict(state["ema"])
    with atomic_folder(folder, overwrite=False) as made:
        save_model(model, made, half=False)


if __name__ == "__main__":
    run_script(main)
