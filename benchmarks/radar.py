"""Radar: ours against the extrapolation of pysteps, the last frame, and motion continued, on the same windows.

    pip install pysteps
    python benchmarks/radar.py FOLDER [--weights NAME] [--json FILE]
    python benchmarks/radar.py FOLDER --netcdf EVENTS    # only writes them as NetCDF, for `vmrnn eval --data EVENTS`

FOLDER holds one .npz an event with `frames` (T, H, W), uint8, dBZ / 70 * 255. Of each, windows of 10 + 12 frames,
every sixth frame one. Squared error summed over a frame of values in [0, 1]; CSI of 20 dBZ. "matched" has the values
of the last frame again, as forecasts of grids in dBZ have by themselves (`vmrnn_cli.matching`). pysteps finds motion
by Lucas and Kanade in the last three frames and extrapolates along it; what comes from outside is taken for dry.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch

from vmrnn_cli.cards import code_version
from vmrnn_cli.matching import match_values
from vmrnn_cli.motion import motion_continued
from vmrnn_cli.predictor import Predictor, load_weights

GIVEN, AHEAD, EVERY, WET = 10, 12, 6, 20 / 70


def ours(predictor, given):
    return predictor.batch(given[None, :, None], AHEAD)[0, :, 0]


def matched(predictor, given):
    return np.stack([match_values(frame[None], given[-1:])[0] for frame in ours(predictor, given)])


def continued(given):
    frames = torch.from_numpy(given)[:, None, None]
    with torch.inference_mode():
        return torch.cat(list(motion_continued(frames, AHEAD)))[:, 0].numpy()


def pysteps_extrapolation(given):
    from pysteps import motion, nowcasts

    dbz = given[-3:].astype(np.float64) * 70
    velocity = motion.get_method("LK")(dbz, verbose=False)
    forecast = nowcasts.get_method("extrapolation")(dbz[-1], velocity, AHEAD)
    return np.nan_to_num(forecast, nan=0.0) / 70


def write_netcdf(event, path, minutes=5):
    """An event as a grid in dBZ; the dates are made up, and all scans taken for five minutes apart."""
    import xarray as xr

    frames = np.load(event)["frames"]
    times = np.datetime64("2000-01-01", "ns") + np.timedelta64(minutes, "m") * np.arange(len(frames))
    dbz = xr.DataArray(frames * np.float32(70 / 255), {"time": times}, ("time", "y", "x"), "dbz", {"units": "dBZ"})
    dbz.encoding = {"zlib": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    dbz.to_netcdf(path, engine="h5netcdf")


def csi(forecast, truth):
    """Hits, and what was forecast or came: (K,) each."""
    said, came = forecast >= WET, truth >= WET
    return (said & came).sum((1, 2)), (said | came).sum((1, 2))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--weights")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--netcdf", type=Path, metavar="EVENTS")
    given = arguments.parse_args()
    if given.netcdf:
        for event in sorted(given.folder.glob("*.npz")):
            write_netcdf(event, given.netcdf / f"{event.stem}.nc")
        return
    model, name = load_weights(given.weights)
    predictor = Predictor(model)
    methods = {name: lambda x: ours(predictor, x), f"{name}, matched": lambda x: matched(predictor, x)}
    methods |= {"motion continued": continued, "pysteps": pysteps_extrapolation}
    methods["last frame"] = lambda x: np.repeat(x[-1:], AHEAD, 0)
    squared = {method: [] for method in methods}  # of each event, (AHEAD,)
    scores = {method: np.zeros((2, AHEAD)) for method in methods}
    events = sorted(given.folder.glob("*.npz"))
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {code_version()}, {len(events)} events")
    for event in events:
        frames = np.load(event)["frames"].astype(np.float32) / 255
        errors = {method: [] for method in methods}
        for start in range(0, len(frames) - GIVEN - AHEAD + 1, EVERY):
            window = frames[start : start + GIVEN + AHEAD]
            for method, forecast in methods.items():
                made = forecast(window[:GIVEN])
                errors[method].append(np.square(made - window[GIVEN:]).sum((1, 2)))
                scores[method] += csi(made, window[GIVEN:])
        for method in methods:
            squared[method].append(np.mean(errors[method], 0))
        print(
            f"{event.stem:20}",
            *(f"{method} {squared[method][-1].mean():.0f}" for method in methods),
            sep="  ",
            flush=True,
        )
    result = {}
    for method in methods:
        mse, (hits, all_) = np.mean(squared[method], 0), scores[method]
        result[method] = {"mse": float(mse.mean()), "mse_per_frame": mse.tolist(), "csi_20_dbz": (hits / all_).tolist()}
        ahead = "  ".join(f"+{k} {mse[k - 1]:.0f}" for k in (1, 3, 6, 9, 12))
        print(f"{method:18} MSE {mse.mean():6.1f}   {ahead}   CSI +{AHEAD} {hits[-1] / all_[-1]:.3f}")
    if given.json:
        given.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
