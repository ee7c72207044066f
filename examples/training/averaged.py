"""Make a weights folder of a run as it is now: its averaged weights, whether or not they are its best.

    python examples/training/averaged.py runs/NAME [runs/NAME ...] FOLDER

Of several runs that began with the same weights, it is their mean.

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
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    *runs, folder = map(Path, sys.argv[1:])
    states = [run_state.read_state(run) for run in runs]
    model = networks.build(networks.config_from_dict(states[0]["network"]))
    averages = [state["ema"] for state in states]
    model.load_state_dict({name: sum(each[name] for each in averages) / len(runs) for name in averages[0]})
    with atomic_folder(folder, overwrite=False) as made:
        save_model(model, made, half=False)


if __name__ == "__main__":
    run_script(main)
