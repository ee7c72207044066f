"""Radar: ours against the extrapolation of pysteps, the last frame, and motion continued, on the same windows.

    pip install pysteps
    python benchmarks/radar.py FOLDER [--weights NAME] [--weights-for EVENT=FILE ...] [--json FILE]
    python benchmarks/radar.py FOLDER --netcdf EVENTS    # only writes them as NetCDF, for `vmrnn eval --data EVENTS`

FOLDER holds one .npz an event with `frames` (T, H, W), uint8, dBZ / 70 * 255. Of each, windows of 10 + 12 frames,
every sixth frame one. Squared error summed over a frame of values in [0, 1], and RMSE in dBZ, both the mean of events;
CSI pooled over all. "matched" has the values of the last frame again, as forecasts of grids in dBZ have by themselves
(`vmrnn_cli.matching`). pysteps finds motion by Lucas and Kanade in the last three frames and extrapolates along it;
what comes from outside is taken for dry. `--weights-for`, for each event, names weights that have not seen it: the
honest score of a network that was trained on radar, one event left out at a time. Events called bom... have 6 minutes
between scans, others 5.
"""

import argparse
import json
import platform
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from vmrnn_cli.cards import code_version
from vmrnn_cli.matching import match_values
from vmrnn_cli.motion import motion_continued
from vmrnn_cli.predictor import Predictor, load_weights
from vmrnn_cli.weights import default_name

GIVEN, AHEAD, EVERY = 10, 12, 6
THRESHOLDS, LEADS = (20, 35), (30, 60)  # dBZ; minutes


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
    """Hits, and what was forecast or came: (2, thresholds, K)."""
    pairs = [(forecast >= limit / 70, truth >= limit / 70) for limit in THRESHOLDS]
    return np.array(
        [[(said & came).sum((1, 2)) for said, came in pairs], [(said | came).sum((1, 2)) for said, came in pairs]]
    )


def ratio(pair):
    """A score of its parts, None where nothing was forecast and nothing came."""
    return float(pair[0] / pair[1]) if pair[1] else None


def score(events, methods, own):
    """Of each method: squared errors by event (AHEAD,), parts of the CSI by lead, and by `LEADS`."""
    squared = {method: [] for method in methods}
    by_lead = {method: np.zeros((2, len(THRESHOLDS), AHEAD)) for method in methods}
    by_minutes = {method: np.zeros((2, len(THRESHOLDS), len(LEADS))) for method in methods}
    for event in events:
        frames = np.load(event)["frames"].astype(np.float32) / 255
        step = 6 if event.stem.startswith("bom") else 5
        errors = {method: [] for method in methods}
        for start in range(0, len(frames) - GIVEN - AHEAD + 1, EVERY):
            window = frames[start : start + GIVEN + AHEAD]
            for method, forecast in methods.items():
                made = forecast(window[:GIVEN], own.get(event.stem))
                errors[method].append(np.square(made - window[GIVEN:]).sum((1, 2)))
                parts = csi(made, window[GIVEN:])
                by_lead[method] += parts
                by_minutes[method] += parts[..., [minutes // step - 1 for minutes in LEADS]]
        for method in methods:
            squared[method].append((np.mean(errors[method], 0), window[0].size))
        told = (f"{method} {squared[method][-1][0].mean():.0f}" for method in methods)
        print(f"{event.stem:20}", *told, sep="  ", flush=True)
    return squared, by_lead, by_minutes


def table(squared, by_lead, by_minutes):
    """What is told of each method."""
    result = {}
    for method in squared:
        mse = np.mean([error for error, _ in squared[method]], 0)
        rmse = np.mean([70 * np.sqrt(error / size) for error, size in squared[method]], 0)
        result[method] = {"mse": float(mse.mean()), "mse_per_frame": mse.tolist(), "rmse_dbz_per_frame": rmse.tolist()}
        for place, limit in enumerate(THRESHOLDS):
            by_frame = [ratio(pair) for pair in by_lead[method][:, place].T]
            at = {f"+{m} min": ratio(pair) for m, pair in zip(LEADS, by_minutes[method][:, place].T, strict=True)}
            result[method] |= {f"csi_{limit}_dbz": by_frame, f"csi_{limit}_dbz_at": at}
        ahead = "  ".join(f"+{k} {mse[k - 1]:.0f} ({rmse[k - 1]:.2f} dBZ)" for k in (1, 3, 6, 9, 12))
        print(f"{method:28} MSE {mse.mean():6.1f}   {ahead}")
        for limit in THRESHOLDS:
            at = result[method][f"csi_{limit}_dbz_at"]
            shown = "  ".join(f"{lead} {'–' if value is None else f'{value:.3f}'}" for lead, value in at.items())
            print(f"{'':28} CSI {limit} dBZ   {shown}")
    return result


def options():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--weights", help="a name or path; default those that fit dBZ")
    arguments.add_argument("--weights-for", action="append", default=[], metavar="EVENT=FILE")
    arguments.add_argument("--events", nargs="+", help="only these")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--netcdf", type=Path, metavar="EVENTS")
    return arguments.parse_args()


def main():
    given = options()
    events = sorted(given.folder.glob("*.npz"))
    if given.netcdf:
        for event in events:
            write_netcdf(event, given.netcdf / f"{event.stem}.nc")
        return
    model, name = load_weights(given.weights or default_name(np.zeros((1, 8, 8), np.float32), "dBZ"))
    predictor = Predictor(model)
    own = dict(pair.split("=", 1) for pair in given.weights_for)
    if unknown := set(own) - {event.stem for event in events}:
        raise SystemExit(f"error: there is no event {', '.join(sorted(unknown))} in {given.folder}")
    own = {event: Predictor(load_weights(path)[0]) for event, path in own.items()}
    events = [event for event in events if event.stem in (given.events or [each.stem for each in events])]
    methods = {name: lambda x, _: ours(predictor, x), f"{name}, matched": lambda x, _: matched(predictor, x)}
    if own:
        events = [event for event in events if event.stem in own]
        methods["left out"] = lambda x, of_event: ours(of_event, x)
        methods["left out, matched"] = lambda x, of_event: matched(of_event, x)
    methods |= {"motion continued": lambda x, _: continued(x), "pysteps": lambda x, _: pysteps_extrapolation(x)}
    methods["last frame"] = lambda x, _: np.repeat(x[-1:], AHEAD, 0)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {code_version()}, {len(events)} events")
    if find_spec("pysteps") is None:
        print("pysteps is not installed, and left out")
        del methods["pysteps"]
    result = table(*score(events, methods, own))
    if given.json:
        given.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
