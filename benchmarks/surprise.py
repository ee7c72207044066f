"""Surprise: events found and false alarms per hour, beside what costs no network.

    python benchmarks/surprise.py [FOLDER ...] [--clips N] [--seed N] [--alarms-per-hour N] [--json FILE]

Streams of 128x128 at 25 frames a second, made of clips of at least 4 s in the folders, and of scenes that the script
makes itself. Each kind of stream has a stretch of N clips; in the middle of each of them something happens:

    cuts          nothing but the cut to the next clip
    appearance    a disc with a skin of its own is there all at once, and stays
    reversal      the clip goes backwards
    freeze        the picture stands still for a second and a half, and goes on where it was
    noise         the picture gets noise, of 4 % of the range, and keeps it
    fade          it gets dark within a second, to a tenth of its light, and bright again
    blackout      the same to black
    flicker       from there on, the light changes at random from frame to frame, by 15 %
    light         it gets brighter within five frames, by 30 %, and stays so

Of cuts, appearances, reversals and freezes those count as found during which, or less than a second later, an alarm
begins or goes on; any other event is a false alarm, even if something does happen in the clip (a car drives in). The
rivals have the same calibration and hysteresis; their number is the squared difference of the frame, from the last one,
and from the last one's motion continued over the same time.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from vmrnn_cli import motion
from vmrnn_cli.cards import code_version
from vmrnn_cli.carried import Carried
from vmrnn_cli.data.scenes import make_scene
from vmrnn_cli.errors import run_script
from vmrnn_cli.predictor import Predictor, load_weights
from vmrnn_cli.surprise import Events, Reading, Surprise, _Distribution
from vmrnn_cli.video import Source

FPS, SIDE, LENGTH, SECOND = 25, 128, 100, 25
WANTED = ("cuts", "appearance", "reversal", "freeze")
KINDS = (*WANTED, "noise", "fade", "blackout", "flicker", "light")


def clips_of(folders, number, rng):
    """Clips of a stretch's length, (LENGTH, H, W), drawn from folders, and as many scenes made for it."""
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.mp4"))
    clips = []
    for file in rng.permutation(np.array(files, dtype=object)) if files else ():
        if len(clips) == number:
            break
        with Source(file).open(size=(SIDE, SIDE)) as clip:
            frames = [frame[0] for frame, _ in zip(clip, range(LENGTH), strict=False)]
        if len(frames) == LENGTH:
            clips.append((str(file), np.stack(frames)))
    made = [(f"scene {n}", scene(rng)) for n in range(max(2, number - len(clips)) if not clips else number // 4)]
    return [*clips, *made]


def texture(rng, roughness=9):
    noise = torch.from_numpy(rng.random((1, 1, SIDE, SIDE), np.float32))
    smooth = motion.box_mean(motion.box_mean(noise, roughness), 5)
    return 0.1 + 0.8 * (smooth - smooth.min()) / (smooth.max() - smooth.min())


def scene(rng):
    made = make_scene(LENGTH, SIDE, lambda: texture(rng), lambda: texture(rng).expand(LENGTH, -1, -1, -1), rng)
    noise = 0.01 * rng.standard_normal((LENGTH, SIDE, SIDE), np.float32)
    return np.clip(made.frames[:, 0].numpy() + noise, 0, 1)


def happen(kind, clip, at, rng):
    """The clip with something in it that begins with frame `at`, and (first, last) frame of it, if it counts."""
    clip = clip.copy()
    rest = len(clip) - at
    if kind == "appearance":
        radius, (y, x) = rng.uniform(9, 16), rng.uniform(30, SIDE - 30, 2)
        shape = np.clip(radius + 0.5 - np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array([y, x])[:, None, None])), 0, 1)
        skin = texture(rng, 5)[0, 0].numpy()
        inside = float((clip[at] * shape).sum() / shape.sum())
        skin = np.clip(0.5 * skin + (0.5 if inside < 0.45 else 0.0), 0, 1)
        clip[at:] += shape * (skin - clip[at:])
        return clip, (at, at)
    if kind == "reversal":
        clip[at:] = clip[at - 2 :: -1][:rest]
        return clip, (at, at)
    if kind == "freeze":
        frozen = 3 * SECOND // 2
        clip[at + frozen :] = clip[at : len(clip) - frozen].copy()
        clip[at : at + frozen] = clip[at - 1]
        return clip, (at, at + frozen)
    time = np.arange(rest)
    if kind == "noise":
        clip[at:] += 0.04 * rng.standard_normal(clip[at:].shape, np.float32)
    elif kind in ("fade", "blackout"):
        lowest = 0.1 if kind == "fade" else 0.0
        light = 1 - (1 - lowest) * np.clip(np.minimum(time / SECOND, (2.5 * SECOND - time) / SECOND), 0, 1)
        clip[at:] *= light[:, None, None]
    elif kind == "flicker":
        clip[at:] *= (1 + 0.15 * rng.uniform(-1, 1, rest))[:, None, None]
    elif kind == "light":
        clip[at:] *= (1 + 0.3 * np.clip(time / 5, 0, 1))[:, None, None]
    return np.rint(255 * np.clip(clip, 0, 1)).astype(np.float32) / np.float32(255), None


def streams(folders, number, seed):
    """For each kind: frames (T, H, W), and the events to be found, (first, last, whether it is a cut)."""
    for n, kind in enumerate(KINDS):
        rng = np.random.default_rng((seed, n))
        frames, events, done = [], [], 0
        for _, clip in clips_of(folders, number, rng):
            if done:
                events.append((done, done, True))
            clip, event = happen(kind, clip, int(rng.integers(55, 65)), rng) if kind != "cuts" else (clip, None)
            if event:
                events.append((done + event[0], done + event[1], False))
            frames.append(clip)
            done += len(clip)
        yield kind, np.concatenate(frames).astype(np.float32), events


class Rival:
    """A number of its own with the same calibration."""

    def __init__(self, alarms_per_hour):
        self._tail, self.alarm = _Distribution(0.2, 0.5), Surprise(FPS, alarms_per_hour).alarm

    def see(self, truth, forecast):
        number = 0.5 * np.log(np.square(truth - forecast).mean() + 1e-8)
        return Reading(self._tail.add(float(number), self.alarm), self.alarm, 0.6 * self.alarm, None)


METHODS = ("this", "frame difference", "motion continued")


def record(predictor, frames, every=5):
    """What is compared at each frame: the frame, its forecast, the last frame known to it, motion continued, lead."""
    carried, rollout = Carried(predictor), None
    for number, frame in enumerate(frames):
        if rollout is not None:
            lead = number - rollout.frame
            yield number, frame, rollout.forecast[lead - 1][0], rollout.last[0], rollout.continued[lead][0], lead
        carried.give(frame[None])
        if carried.count >= 10 and (number + 1) % every == 0:
            rollout = carried.rollout(every, range(1, every + 1))


def alarms(compared, alarms_per_hour):
    """The events of each method, [(start, end)]."""
    measures = {method: Rival(alarms_per_hour) for method in METHODS[1:]}
    surprise = Surprise(FPS, alarms_per_hour)
    events, found = {method: Events(FPS // 2) for method in METHODS}, {method: [] for method in METHODS}
    before = None
    for number, frame, forecast, last, continued, _ in compared:
        readings = {"this": surprise.see(frame, forecast, last)}
        readings["frame difference"] = measures["frame difference"].see(frame, last if before is None else before)
        readings["motion continued"] = measures["motion continued"].see(frame, continued)
        before = frame
        for method, reading in readings.items():
            event = events[method].see(number, number / FPS, reading)
            if event and event.end is not None:
                found[method].append((event.start, event.end))
    for method in METHODS:
        if event := events[method].finish():
            found[method].append((event.start, event.end))
    return found


def judge(found, events):
    """Cuts found, others found, and false alarms."""
    within = [[start <= last + SECOND and end >= first for first, last, _ in events] for start, end in found]
    hits = np.any(within, 0) if found else np.zeros(len(events), bool)
    cuts = np.array([cut for *_, cut in events], bool)
    return int(hits[cuts].sum()), int(hits[~cuts].sum()), sum(not any(row) for row in within)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="*")
    arguments.add_argument("--clips", type=int, default=16, help="from the folders, for each kind of stream")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--alarms-per-hour", type=float, default=1.0)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    model, _ = load_weights("vmrnn-d-motion")
    predictor = Predictor(model)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {code_version()}")
    print(f"{'':<12}{'frames':>7}", *(f"{method:>28}" for method in METHODS))
    print(f"{'':<12}{'':>7}", *(f"{'cuts':>12}{'events':>8}{'false':>8}" for _ in METHODS))
    result, false, hours = {}, dict.fromkeys(METHODS, 0), 0.0
    for kind, frames, events in streams(given.folder, given.clips, given.seed):
        found = alarms(record(predictor, frames), given.alarms_per_hour)
        cuts = sum(cut for *_, cut in events)
        row = {method: judge(found[method], events) for method in METHODS}
        result[kind] = {"frames": len(frames), "cuts": cuts, "events": len(events) - cuts, "found": row}
        hours += len(frames) / FPS / 3600
        for method in METHODS:
            false[method] += row[method][2]
        others = len(events) - cuts
        print(
            f"{kind:<12}{len(frames):>7}",
            *(f"{f'{c}/{cuts}':>12}{f'{e}/{others}' if others else '':>8}{f:>8}" for c, e, f in row.values()),
            flush=True,
        )
    print(f"{'an hour':<19}", *(f"{false[method] / hours:>28.1f}" for method in METHODS))
    if given.json:
        given.json.write_text(json.dumps({"kinds": result, "false_an_hour": {m: false[m] / hours for m in METHODS}}))


if __name__ == "__main__":
    sys.exit(run_script(main))
