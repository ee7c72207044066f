"""Moving MNIST, made on the fly from MNIST's digits: two of them in a 64x64 frame, bouncing off the walls.

Notation: N digits, T time, H x W pixels.
"""

from __future__ import annotations

import functools
import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..digits import DIGIT_SIZE, STEP
from ..errors import InputError, os_failures
from ..frames import read_arrays
from ..outputs import atomic_path
from .base import ClipArray, ClipDataset

SIZE = 64
KERAS_KEYS = {"train": "x_train", "test": "x_test"}  # of its mnist.npz
FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
EPOCH_CLIPS = 10_000  # an epoch of the published protocol, and the size of its test set
VAL_DIGITS = 5_000  # of the training digits, kept aside
TEST_SEED = 20_240_325


def find_digits(folder: Path, split: str) -> Path | None:
    """The idx file of a split in a folder or in those below, whatever it is called in the layouts there are.

    MNIST's own names, those of Kaggle (train-images.idx3-ubyte), torchvision's folder MNIST/raw; gzipped or not.
    """
    name = FILES["test" if split == "test" else "train"]
    names = [spelt + suffix for spelt in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    inner = ("", "raw", "MNIST/raw", *names)  # Kaggle's archive unpacks some files into folders of their own names
    return next(filter(Path.is_file, (folder / each / name for each in inner for name in names)), None)


def has_digits(folder: Path) -> bool:
    """Whether a folder has MNIST's idx files, or one of them."""
    return any(find_digits(folder, split) for split in ("train", "test"))


@functools.lru_cache(maxsize=2)
def _read_once(path: Path, _written: int, member: str) -> NDArray[np.uint8]:
    """The digits in an idx file; in an .npz, those called `member`."""
    if not member:
        return read_digits(path)
    digits = read_arrays(path).arrays[member]
    if digits.shape[1:] != (DIGIT_SIZE, DIGIT_SIZE) or digits.dtype != np.uint8:
        raise InputError(f"{path}: {member} is {digits.dtype} {digits.shape}, no digits (N, 28, 28)", "download MNIST")
    return digits


def read_digits(path: Path) -> NDArray[np.uint8]:
    """The images of an idx file, gzipped or not: uint8 (N, 28, 28)."""
    todo = "download the file again"
    with os_failures(f"cannot read {path}"):
        raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}", todo) from None
    if len(content) < 16:
        raise InputError(f"{path} is not an idx file: it is too short", todo)
    magic, count, rows, columns = struct.unpack(">IIII", content[:16])
    if magic != 0x803 or (rows, columns) != (DIGIT_SIZE, DIGIT_SIZE):
        raise InputError(f"{path} is not an idx file of 28x28 images", todo)
    if not count:
        raise InputError(f"{path} holds no images", todo)
    if len(content) != 16 + count * rows * columns:
        raise InputError(f"{path} is truncated: {count} images announced", todo)
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, rows, columns)


def make_clip(digits: NDArray[np.uint8], rng: np.random.Generator, frames: int) -> NDArray[np.uint8]:
    """Two random digits on straight paths, (frames, 1, 64, 64); where they overlap, the brighter pixel shows."""
    clip = np.zeros((frames, 1, SIZE, SIZE), np.uint8)
    for _ in range(2):
        digit = digits[rng.integers(len(digits))]
        for frame, (y, x) in zip(clip[:, 0], _path(rng, frames), strict=True):
            patch = frame[y : y + DIGIT_SIZE, x : x + DIGIT_SIZE]
            np.maximum(patch, digit, out=patch)
    return clip


def _path(rng: np.random.Generator, frames: int) -> NDArray[np.intp]:
    """Top left corners (frames, 2), y and x: a tenth of the free range a frame, straight on between the walls."""
    position, angle = rng.random(2), rng.random() * 2 * np.pi
    velocity = STEP * np.array([np.sin(angle), np.cos(angle)])
    corners = np.empty((frames, 2))
    for frame in range(frames):
        position = position + velocity
        outside = (position <= 0) | (position >= 1)
        velocity = np.where(outside, -velocity, velocity)
        position = np.clip(position, 0, 1)
        corners[frame] = position
    return (corners * (SIZE - DIGIT_SIZE)).astype(np.intp)


class MovingMNIST(ClipDataset):
    """Clips by number: an epoch is 10,000 of them. Training clips are new in every epoch, others stay the same."""

    def __init__(self, folder: Path, split: str, length: int, **_: object) -> None:
        """`folder` has MNIST's idx files; or is Keras' mnist.npz."""
        path = folder if folder.is_file() else find_digits(folder, split)
        if path is None:
            raise InputError(f"{folder} has no {FILES['test' if split == 'test' else 'train']}", "download MNIST")
        member = KERAS_KEYS["test" if split == "test" else "train"] if folder.is_file() else ""
        digits = _read_once(path, path.stat().st_mtime_ns, member)
        if split in ("train", "val"):
            kept = min(VAL_DIGITS, len(digits) // 10)
            digits = digits[:-kept] if split == "train" else digits[-kept:]
        if not len(digits):
            raise InputError(f"{path} holds too few digits", "download MNIST")
        self.name = f"Moving MNIST from {path.name}"
        self.split, self._digits = split, digits
        self.clip_shape = (length, 1, SIZE, SIZE)

    def __len__(self) -> int:
        return EPOCH_CLIPS

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        if self.split != "train":
            rng = np.random.default_rng((TEST_SEED, index))
        return make_clip(self._digits, rng, self.clip_shape[0])

    def describe(self) -> list[str]:
        return [f"{self.name}, {self.split}: {len(self._digits)} digits, {len(self)} clips an epoch"]


def write_test_file(path: Path, digits: NDArray[np.uint8], clips: int, seed: int, *, overwrite: bool) -> None:
    """Write a test file of the published shape, uint8 (20, clips, 64, 64), clip by clip."""
    T, frame_bytes = 20, SIZE * SIZE
    header = {"descr": "|u1", "fortran_order": False, "shape": (T, clips, SIZE, SIZE)}
    # Not by a memory map: on a full disk that ends the process.
    with atomic_path(path, overwrite) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        for index in range(clips):
            for time, frame in enumerate(make_clip(digits, np.random.default_rng((seed, index)), T)):
                file.seek(begin + (time * clips + index) * frame_bytes)
                file.write(frame.tobytes())
