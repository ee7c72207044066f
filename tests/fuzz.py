"""Damage inputs of every kind, and see that each run ends well: python tests/fuzz.py --count 5000 --seed 7

A run ends well if it comes to its end in time, with exit code 0, 1 or 2, with one line for an error that names the
damaged file, without words of Python's or of libraries, with a whole and finite output or none, and with nothing else
left. Inputs are small and made here; each is damaged in one file, by a seeded choice. The commands run in this process,
as starting one takes far longer than such a run; a signal that kills it names its case by `--seed` and `--only`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from vmrnn_cli import outputs
from vmrnn_cli.__main__ import run
from vmrnn_cli.networks import NETWORKS, adapted, build
from vmrnn_cli.pretrained import save_model, save_tensors

LIMIT_S = 60
CONTAINERS = {
    "mp4": ["-c:v", "libx264", "-pix_fmt", "yuv420p"], "mkv": ["-c:v", "mpeg4"], "ts": ["-c:v", "mpeg2video"],
    "avi": ["-c:v", "mpeg4"], "webm": ["-c:v", "libvpx", "-deadline", "realtime"], "gif": [], "flv": ["-c:v", "flv"],
    "mpg": ["-c:v", "mpeg1video"], "asf": ["-c:v", "msmpeg4"], "apng": ["-f", "apng"], "nut": ["-c:v", "ffv1"],
    "y4m": [], "mjpeg": [], "h264": ["-c:v", "libx264"], "mov": ["-c:v", "png"],
}  # fmt: skip
WORDS = re.compile(r"unexpected failure|Traceback|Warning|<[\w.]+ object|\bNoneType\b|Exception ignored")


class CaseError(Exception):
    """What a run did wrong."""


def make_inputs(folder: Path) -> dict[str, list[tuple[str, list[str]]]]:
    """Small inputs in a folder; by kind, the file or folder of each and the command that takes it."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    pixels = rng.integers(0, 255, (14, 24, 32)).astype(np.uint8)
    weights = folder / "weights"
    weights.mkdir()
    model = build(adapted(NETWORKS["tiny"], embed_dim=16, depths=(1,), context=3, horizon=2, image_size=(16, 16)))
    save_model(model, weights)
    save_tensors(model, folder / "alone.safetensors")
    torch.save({"epoch": 3, "ema": {f"module.{n}": t for n, t in model.state_dict().items()}}, folder / "wrapped.ckpt")
    predict = ["predict", "{}", "--context", "3", "--frames", "2", "--threads", "1", "-o", "out.npz"]
    by = [*predict, "--weights", str(weights)]
    kinds: dict[str, list[tuple[str, list[str]]]] = {"video": []}
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", "32x24", "-r", "25", "-i", "-"]
    for suffix, codec in CONTAINERS.items():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, *codec, str(folder / f"clip.{suffix}")]
        subprocess.run(command, input=pixels.tobytes(), check=True)
        kinds["video"] += [(f"clip.{suffix}", by), (f"clip.{suffix}", [*by, "--from-end"])]
    np.save(folder / "clip.npy", pixels)
    np.save(folder / "floats.npy", (pixels / 255).astype(np.float32))
    np.savez(folder / "clip.npz", frames=pixels, fps=25.0)
    np.savez_compressed(folder / "packed.npz", frames=pixels)
    kinds["array"] = [(name, by) for name in ("clip.npy", "floats.npy", "clip.npz", "packed.npz")]
    kinds["image"] = []
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        (folder / suffix).mkdir()
        for number, frame in enumerate(pixels[:6]):
            Image.fromarray(frame).save(folder / suffix / f"{number}.{suffix}")
        kinds["image"].append((suffix, by))
    forecast = [str(folder / "clip.npy") if word == "{}" else word for word in predict] + ["--weights", "{}"]
    kinds["weights"] = [(name, forecast) for name in ("weights", "alone.safetensors", "wrapped.ckpt")]
    np.save(folder / "clips.npy", rng.integers(0, 255, (8, 6, 1, 16, 16)).astype(np.uint8))
    (folder / "videos").mkdir()
    for name in ("clip.mp4", "clip.avi"):
        shutil.copy(folder / name, folder / "videos")
    (folder / "videos" / "split.csv").write_text("file,split\nclip.mp4,test\nclip.avi,train\n")
    score = ["eval", "--data", "{}", "--weights", str(weights), "--split", "all", "--json", "--threads", "1"]
    kinds["data set"] = [("clips.npy", score), ("videos", [*score, "--size", "16"])]
    train = ["train", "--preset", "tiny", "--data", str(folder / "clips.npy"), "--batch-size", "2", "--threads", "1"]
    train += [
        "--context",
        "2",
        "--frames",
        "2",
        "--eval-every",
        "1000",
        "--checkpoint-every",
        "1",
        "-q",
        "--init",
        "none",
    ]
    code, _, said = in_process([*train, "--steps", "2", "--out", str(folder / "run")])
    assert code == 0, said
    kinds["run"] = [("run", [*train, "--steps", "3", "--resume", "--out", "{}"])]
    return kinds


def in_process(arguments: list[str]) -> tuple[int, str, str]:
    """Run a command: exit code, stdout, stderr."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(arguments)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return code, *texts


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A mutation of a file: bits, bytes, cuts, repeats, insertions, numbers; near its start more often than not."""
    size = len(content)
    new = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        at = chance.randrange(max(1, min(size, chance.choice([64, 512, 4096, size or 1]))))
        length = chance.choice([1, 2, 8, 64, 1000])
        match chance.randrange(8):
            case 0:
                new[at : at + 1] = bytes([new[at] ^ 1 << chance.randrange(8)]) if at < len(new) else b"\0"
            case 1:
                new[at : at + length] = chance.randbytes(length)
            case 2:
                del new[chance.randrange(size + 1) :]
            case 3:
                new[at:at] = new[at : at + length]
            case 4:
                new[at:at] = chance.choice([b"\0", b"\xff", b"9", b"-", b"nan", b'"', b"[", b"\n"]) * length
            case 5:
                del new[at : at + length]
            case 6:
                new[at : at + 4] = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**31]).to_bytes(4, "little")
            case _:
                numbers = list(re.finditer(rb"\d+(?:\.\d+)?", bytes(new[:100_000])))
                if numbers:
                    found = chance.choice(numbers)
                    odd = [b"0", b"-1", b"1e999", b"NaN", b"65536", b"99999999999999999999", b"2.5", b"null", b"1e-9"]
                    new[found.start() : found.end()] = chance.choice(odd)
    return bytes(new)


def one_case(number: int, seed: int, inputs: Path, kinds: dict[str, list[tuple[str, list[str]]]], work: Path) -> str:
    """Damage an input, run its command in an empty folder, and say what was done. Raises CaseError."""
    chance = random.Random(f"{seed}-{number}")
    kind = list(kinds)[number % len(kinds)] if number % 4 else "video"
    name, command = chance.choice(kinds[kind])
    source = work / name
    (shutil.copytree if (inputs / name).is_dir() else shutil.copy)(inputs / name, source)
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    file = chance.choice(files)
    file.write_bytes(damaged(file.read_bytes(), chance))
    target = work / "out"
    target.mkdir()
    arguments = [str(source) if word == "{}" else str(target / word) if word == "out.npz" else word for word in command]
    what = f"case {number}: {kind}, {file.relative_to(work)}: vmrnn {' '.join(arguments)}"

    def late(*_: object) -> None:
        raise CaseError(f"no end within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    outputs._cleared.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code, said, err = in_process(arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    check(code, said, err, source, target)
    return what


def check(code: int, said: str, err: str, source: Path, target: Path) -> None:
    """Raise CaseError unless a run ended well."""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    left = [str(path) for folder in (target, source) for path in folder.rglob(".vmrnn-*")]
    made = target / "out.npz"
    if code not in (0, 1, 2):
        raise CaseError(f"exit code {code}: {err}")
    if WORDS.search(err) or "NaN" in said:
        raise CaseError(f"it said {err or said}")
    if len(errors) != (code != 0) or (errors and source.name not in errors[0]):
        raise CaseError(f"exit code {code}, and it said {err!r}")
    if left:
        raise CaseError(f"it left {left}")
    if code and made.exists():
        raise CaseError("an error, and an output")
    if made.exists():
        with np.load(made) as arrays:
            if not all(np.isfinite(arrays[name]).all() for name in arrays.files):
                raise CaseError("an output that is not finite")
    elif code == 0 and said.lstrip().startswith("{"):
        json.loads(said, parse_constant=lambda constant: (_ for _ in ()).throw(CaseError(f"{constant} in JSON")))


def fuzz(count: int, seed: int, only: int | None = None, tell: Callable[[str], None] = print) -> list[str]:
    """Run cases, and return what went wrong, a line each."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        os.environ["VMRNN_CACHE"] = str(Path(folder) / "cache")
        kinds = make_inputs(inputs)
        begin = time.monotonic()
        for number in range(count) if only is None else [only]:
            work = Path(folder) / "work"
            work.mkdir()
            started = time.monotonic()
            try:
                what = one_case(number, seed, inputs, kinds, work)
                if only is not None:
                    tell(f"well: {what}")
            except Exception as error:  # whatever comes out of a run is what is looked for
                wrong.append(f"case {number} of seed {seed}: {type(error).__name__}: {' '.join(str(error).split())}")
                tell(wrong[-1])
            if time.monotonic() - started > 10:
                tell(f"case {number} took {time.monotonic() - started:.0f} s")
            shutil.rmtree(work)
            if (number + 1) % 500 == 0:
                tell(f"{number + 1} cases in {time.monotonic() - begin:.0f} s, {len(wrong)} went wrong")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of a single case")
    options = parser.parse_args()
    found = fuzz(options.count, options.seed, options.only)
    print(f"{options.count if options.only is None else 1} cases, {len(found)} went wrong")
    sys.exit(bool(found))
