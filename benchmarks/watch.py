"""Watching in real time: how many frames a second one stream may have, and what share of the time is the network's.

    OMP_NUM_THREADS=2 python benchmarks/watch.py [--frames N] [--side S] [--every N] [--ahead N]

A made-up stream of 128x128, a rollout every 5 frames, each frame measured for surprise. Prints frames
a second, the median of a frame without a rollout and of one with it, the network's share, and the memory after
the first thousand frames and at the end (with `--frames 100000`, about an hour).
"""

import argparse
import platform
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from vmrnn_cli import motion
from vmrnn_cli.cards import code_version
from vmrnn_cli.errors import run_script
from vmrnn_cli.predictor import Predictor, load_weights
from vmrnn_cli.watching import Watch


def endless(side, rng):
    """A camera to and fro over a picture, with noise: (1, side, side) each."""
    noise = torch.from_numpy(rng.random((1, 1, 2 * side, 2 * side), np.float32))
    world = motion.box_mean(motion.box_mean(noise, 9), 5)[0, 0].numpy()
    world = (world - world.min()) / (world.max() - world.min())
    number = 0
    while True:
        top, left = (round(side / 2 * (1 + np.sin(number / period))) for period in (23, 31))
        frame = world[top : top + side, left : left + side]
        yield np.clip(frame + 0.01 * rng.standard_normal((side, side), np.float32), 0, 1)[None]
        number += 1


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--frames", type=int, default=500)
    arguments.add_argument("--side", type=int, default=128)
    arguments.add_argument("--every", type=int, default=5)
    arguments.add_argument("--ahead", type=int, default=10)
    given = arguments.parse_args()
    watching = Watch(Predictor(load_weights("vmrnn-d-motion")[0]), every=given.every, frames=given.ahead)
    plain, rolled, first = [], [], resident()
    stream = endless(given.side, np.random.default_rng(0))
    for number in range(given.frames):
        frame = next(stream)
        begin = time.perf_counter()
        step = watching.see(frame)
        (rolled if step.rollout else plain).append(time.perf_counter() - begin)
        if number == min(1000, given.frames // 2):
            first = resident()
    total = sum(plain) + sum(rolled)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {code_version()}")
    print(
        f"{given.frames} frames of {given.side}x{given.side}, {given.ahead} ahead every {given.every}, "
        f"{torch.get_num_threads()} threads: {given.frames / total:.1f} frames a second"
    )
    plain_ms, rolled_ms = (1e3 * statistics.median(times) for times in (plain, rolled))
    print(f"median ms: a frame {plain_ms:.1f}, one with a rollout {rolled_ms:.1f}")
    print(f"the network's share of the time: {watching.network_s / total:.1%}, {watching.events.count} events")
    print(f"resident MB: {first:.1f} after the first part, {resident():.1f} at the end")


if __name__ == "__main__":
    run_script(main)
