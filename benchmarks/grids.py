"""Grids: how long a forecast of an hour takes, and how memory grows with the length of the file.

    python benchmarks/grids.py [--side 512] [--scans 100 10000] [--threads 2] [--repeats 3]

Files of `--scans` scans of `--side` x `--side` places, 5 minutes apart, in dBZ; `vmrnn predict FILE --from-end
--frames 12 -o next.nc` of each in a process of its own, whose peak memory and times are printed, the medians of
`--repeats`, turn by turn; on a busy machine the processors' time tells. Only the last scans have rain in them, so that
the files are small; each scan is a chunk, as radar archives have them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5netcdf
import numpy as np
import torch

from vmrnn_cli.cards import code_version

GIVEN, AHEAD = 10, 12


def write(path, scans, side):
    """Rain that moves across the last scans of a long file."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    cells = rng.uniform((0, 0, side / 64, 20), (side, side, side / 16, 60), (40, 4))
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": scans, "y": side, "x": side}
        stamps = file.create_variable("time", ("time",), "i4", data=5 * np.arange(scans))
        stamps.attrs["units"] = "minutes since 2024-01-01"
        dbz = file.create_variable("dbz", ("time", "y", "x"), "u1", chunks=(1, side, side), compression="gzip")
        dbz.attrs.update({"units": "dBZ", "scale_factor": 0.5})
        for t in range(GIVEN + 2):
            field = np.zeros((side, side))
            for cy, cx, size, strength in cells:
                field = np.maximum(field, strength * np.exp(-((y - cy - t) ** 2 + (x - cx - 2 * t) ** 2) / size**2))
            dbz[scans - GIVEN - 2 + t] = np.rint(2 * field).astype("u1")


def measured(path, threads):
    """Of one forecast in a process of its own: peak MiB, seconds in all, those that processors worked, and parts."""
    command = [sys.executable, "-m", "vmrnn_cli", "predict", path, "--from-end", "--frames", AHEAD, "--json"]
    command += ["-o", path.with_name("next.nc"), "--threads", threads, "--overwrite"]
    begin = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        told = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    kibi = 1024 if sys.platform != "darwin" else 1024**2
    busy = usage.ru_utime + usage.ru_stime
    parts = [told["timing"][part] for part in ("decode_s", "predict_s", "write_s")]
    return [usage.ru_maxrss / kibi, time.perf_counter() - begin, busy, *parts]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--side", type=int, default=512)
    arguments.add_argument("--scans", type=int, nargs="+", default=[100, 10000])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {given.threads} threads, torch {torch.__version__}, {code_version()}")
    with tempfile.TemporaryDirectory() as folder:
        paths = {scans: Path(folder) / f"{scans}.nc" for scans in given.scans}
        for scans, path in paths.items():
            write(path, scans, given.side)
        runs = [[measured(path, given.threads) for path in paths.values()] for _ in range(given.repeats)]
    medians = np.median(runs, 0)  # (files, figures)
    for scans, (memory, seconds, busy, reading, ahead, writing) in zip(paths, medians, strict=True):
        print(
            f"{scans:6} scans of {given.side}x{given.side}: {memory:.0f} MiB ({memory / medians[0, 0] - 1:+.1%}), "
            f"{seconds:.1f} s in all, of which reading {reading:.1f}, {AHEAD} frames {ahead:.1f}, "
            f"writing {writing:.1f}; {busy:.1f} s of processors' time"
        )


if __name__ == "__main__":
    main()
