"""Watching: what a frame costs in processor time, whether a stream is kept up with, and memory on a long one.

    python benchmarks/watch.py [--frames N] [--side S] [--every N] [--ahead N] [--realtime] [--raw] [-- OPTION ...]

The real command on a made-up stream without an end, encoded as H.264 (or `--raw`) and piped into it, a rollout every 5
frames; what follows `--` is passed on (`-o DIR --overwrite`, `--serve 127.0.0.1:0`). Prints processor time per frame of
all that the command does, ffmpeg's decoding and the printing of lines included, beside what real time at 25 frames a
second leaves on two cores; the network's share; with `--realtime`, which feeds 25 frames a second, how many were
dropped; and the memory after the first thousand frames, at its most after them, and at the end, its own and in all:
what it has of the libraries' files Linux drops and reads again as it likes. `--frames 100000` takes an hour, or a
quarter of one with `--side 32 --every 50 --ahead 50`.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from vmrnn_cli import motion
from vmrnn_cli.cards import code_version
from vmrnn_cli.errors import run_script
from vmrnn_cli.video import Ffmpeg

FPS, CORES = 25, 2
FIRST = 1000  # frames after which memory is to be flat, or half of a shorter stream
LOOKED_AT = 100  # frames from look to look


def endless(side, rng):
    """A camera to and fro over a picture, with noise: (side, side) uint8 each."""
    noise = torch.from_numpy(rng.random((1, 1, 2 * side, 2 * side), np.float32))
    world = motion.box_mean(motion.box_mean(noise, 9), 5)[0, 0].numpy()
    world = (world - world.min()) / (world.max() - world.min())
    number = 0
    while True:
        top, left = (round(side / 2 * (1 + np.sin(number / period))) for period in (23, 31))
        frame = world[top : top + side, left : left + side]
        grain = 0.01 * rng.standard_normal((side, side), np.float32)
        yield np.rint(255 * np.clip(frame + grain, 0, 1)).astype(np.uint8)
        number += 1


def feed(pipe, side, frames, paced):
    """Write frames into a pipe, in a thread."""
    begin, stream = time.monotonic(), endless(side, np.random.default_rng(0))
    try:
        for number in range(frames):
            if paced:
                time.sleep(max(0.0, begin + number / FPS - time.monotonic()))
            pipe.write(next(stream).tobytes())
            pipe.flush()
        pipe.close()
    except BrokenPipeError:
        pass  # whoever reads it has ended, and says why


def processor_s(process):
    """Seconds of processor time that a process and its children have taken (Linux)."""
    total = 0.0
    for task in Path(f"/proc/{process}/task").iterdir():
        total += sum(processor_s(child) for child in (task / "children").read_text().split())
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return total + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process):
    """MB that a process has of its own, and in all with the libraries' pages, which Linux drops and reads at will."""
    pages, shared = (int(field) for field in Path(f"/proc/{process}/statm").read_text().split()[1:3])
    return tuple(part * resource.getpagesize() / 2**20 for part in (pages - shared, pages))


def watched(given, options):
    """Run the command: what was looked at on the way, (frame, wall s, processor s, own MB, MB), and its last line."""
    size = f"{given.side}x{given.side}"
    command = [sys.executable, "-m", "vmrnn_cli", "watch", "-", "--size", "native", "--json", *options]
    command += ["--every", str(given.every), "--frames", str(given.ahead), "--quiet"]
    command += ["--raw", f"{size}:gray"] if given.raw else []
    command += ["--realtime"] if given.realtime else []
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", size, "-framerate", str(FPS), "-i", "-"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "superfast", "-tune", "zerolatency", "-f", "mpegts"]
    encoder = None if given.raw else Ffmpeg([*raw, *coded, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stdin = subprocess.PIPE if encoder is None else encoder.stdout
    looks, line = [], {}
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE) as process:
        pipe = process.stdin if encoder is None else encoder.stdin
        if encoder is not None:
            encoder.stdout.close()
        threading.Thread(target=feed, args=(pipe, given.side, given.frames, given.realtime), daemon=True).start()
        for text in process.stdout:
            line = json.loads(text)
            if line.get("frame", -1) % LOOKED_AT == 0 and "event" not in line:
                looks.append((line["frame"], time.monotonic(), processor_s(process.pid), *resident(process.pid)))
                if looks[-1][0] in (1000, 5000) or looks[-1][0] % 10_000 == 0:
                    number, _, _, own, in_all = looks[-1]
                    print(f"{number:>8} frames, {own:.1f} MB of its own, {in_all:.1f}", file=sys.stderr, flush=True)
    if process.returncode or len(looks) < 3:
        sys.exit("error: the command failed, or there were too few frames to measure")
    return looks, line


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--frames", type=int, default=1500)
    arguments.add_argument("--side", type=int, default=128)
    arguments.add_argument("--every", type=int, default=5)
    arguments.add_argument("--ahead", type=int, default=10)
    arguments.add_argument("--realtime", action="store_true")
    arguments.add_argument("--raw", action="store_true", help="frames without a container, to decode nothing")
    options = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    given = arguments.parse_args(sys.argv[1 : len(sys.argv) - len(options) - ("--" in sys.argv)])
    looks, last = watched(given, options)
    (begun, since, busy, *_), (end, until, busy_until, *_) = looks[1], looks[-1]
    taken, cost = (until - since) / (end - begun), (busy_until - busy) / (end - begun)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {code_version()}")
    print(
        f"{given.frames} frames of {given.side}x{given.side}, {given.ahead} ahead every {given.every}"
        f"{', at 25 a second' if given.realtime else ''}: {1 / taken:.1f} frames a second"
    )
    print(
        f"processor time of a frame: {1e3 * cost:.1f} ms, {cost * FPS / CORES:.0%} of two cores at 25 frames a second; "
        f"the network's share of the time {last['network_s'] / last['frames'] / taken:.0%}"
    )
    print(f"{last['frames']} frames, {last['dropped']} dropped, {last['events']} events")
    later = [memory for number, _, _, *memory in looks if number >= min(FIRST, end // 2)]
    for what, parts in zip(("of its own", "resident, with libraries"), zip(*later, strict=True), strict=True):
        print(
            f"MB {what}: {parts[0]:.1f} after the first part, {max(parts):.1f} at most, {parts[-1]:.1f} at the end "
            f"({max(parts) / parts[0] - 1:+.1%} at most)"
        )


if __name__ == "__main__":
    run_script(main)
