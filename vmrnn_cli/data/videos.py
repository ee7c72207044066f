"""Clips from video files: a folder of one's own, or KTH in its published layout.

Notation: T time, C channels, H x W pixels.

Every file is decoded once into a memory-mapped uint8 array in the cache (`$VMRNN_CACHE`, else ~/.cache/vmrnn), named by
the content of the file and how it was decoded.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, VMRNNError
from ..outputs import atomic_path
from ..video import open_clip
from .base import ClipArray

SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".ts", ".ogv"}
KTH_ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
KTH_SIZE = (128, 128)
_KTH_NAME = re.compile(r"person(\d\d)_(\w+?)_d\d_uncomp\.avi")


def cache_folder() -> Path:
    """Where decoded clips are kept."""
    return Path(os.environ.get("VMRNN_CACHE") or Path.home() / ".cache" / "vmrnn")


def decode(path: Path, channels: int, size: Any) -> NDArray[np.uint8]:
    """The frames of a video, (T, C, H, W), from the cache or decoded into it.

    Raises:
        InputError: the video cannot be read.
    """
    key = hashlib.sha256(path.read_bytes() + f"|{channels}|{size}".encode()).hexdigest()[:32]
    cached = cache_folder() / "clips" / f"{key}.npy"
    if not cached.exists():
        with open_clip(path, channels=channels, size=size) as clip:
            frames = np.stack([np.rint(frame * 255).astype(np.uint8) for frame in clip])
        cached.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cached, overwrite=True) as temporary, temporary.open("wb") as file:
            np.save(file, frames)
    return np.load(cached, mmap_mode="r")


@dataclass(frozen=True)
class Window:
    """Where a clip is cut from."""

    frames: NDArray[np.uint8]  # (T, C, H, W), memory-mapped
    start: int


class FolderClips:
    """Windows of T frames from the videos of a folder, cut to squares.

    For training, a window starts anywhere, and with `augment` it may be mirrored, reversed in time or played at double
    speed. For evaluation, windows are in the middle of equal parts of each file, in the centre of the frame.
    """

    def __init__(self, folder: Path, split: str, length: int, *, size: int, channels: int, augment: bool) -> None:
        files = _split_files(folder, split)
        self.name, self.split, self._augment = folder.name, split, augment
        self.clip_shape = (length, channels, size, size)
        self._random = split == "train"
        self._videos: list[NDArray[np.uint8]] = []
        self._skipped: list[str] = []
        for file in _with_progress(files, f"decoding {folder.name}"):
            try:
                frames = decode(file, channels, size)
            except InputError as error:
                self._skipped.append(str(error))
                continue
            if len(frames) < length:
                self._skipped.append(f"{file} has only {len(frames)} of {length} frames")
            else:
                self._videos.append(frames)
        if not self._videos:
            why = f", for example: {self._skipped[0]}" if self._skipped else ""
            raise InputError(f"{folder} has no usable clip in the {split} split{why}", "give longer or more clips")
        self._windows = [
            Window(frames, (2 * part + 1) * (len(frames) - length) // (2 * parts))
            for frames in self._videos
            for parts in [max(1, len(frames) // (4 * length))]
            for part in range(parts)
        ]

    def __len__(self) -> int:
        return len(self._windows)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        frames, start = self._windows[index].frames, self._windows[index].start
        T, _, S, _ = self.clip_shape
        speed, top, left = 1, (frames.shape[2] - S) // 2, (frames.shape[3] - S) // 2
        if self._random:
            if self._augment and len(frames) > 2 * T and rng.random() < 0.2:
                speed = 2
            start = int(rng.integers(len(frames) - speed * (T - 1)))
            top, left = (int(rng.integers(side - S + 1)) for side in frames.shape[2:])
        clip = np.asarray(frames[start : start + speed * (T - 1) + 1 : speed, :, top : top + S, left : left + S])
        if self._random and self._augment:
            clip = clip[..., ::-1] if rng.random() < 0.5 else clip
            clip = clip[::-1] if rng.random() < 0.1 else clip
        return clip

    def describe(self) -> list[str]:
        lines = [f"{self.name}, {self.split}: {len(self._videos)} videos, {len(self)} windows"]
        if self._skipped:
            lines.append(f"skipped {len(self._skipped)}: " + "; ".join(self._skipped[:3]))
        return lines


def _split_files(folder: Path, split: str) -> list[Path]:
    """The videos of a split: as split.csv says, else by the hash of their path, a tenth each for val and test."""
    table = folder / "split.csv"
    if table.exists():
        try:
            with table.open(newline="") as file:
                rows = list(csv.DictReader(file))
            files = [folder / row["file"] for row in rows if split in ("all", row["split"])]
        except (KeyError, csv.Error, UnicodeDecodeError):
            raise InputError(f"{table} has no columns file and split", "add them, or remove the file") from None
        missing = [file for file in files if not file.exists()]
        if missing:
            raise InputError(f"{table} names {len(missing)} files that are not there, as {missing[0]}", "correct it")
    else:
        every = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not every:
            raise InputError(f"{folder} holds no video files", "give a folder of clips, or another --dataset")
        files = [path for path in every if split in ("all", _by_hash(path.relative_to(folder)))]
        if not files:  # a handful of clips: the split is empty by chance, and evaluating on them all is better than not
            files = every
    return files


def _by_hash(path: Path) -> str:
    part = int(hashlib.sha256(path.as_posix().encode()).hexdigest(), 16) % 10
    return {0: "val", 1: "test"}.get(part, "train")


def _with_progress(files: list[Path], label: str) -> Iterable[Path]:
    if not sys.stderr.isatty():
        return files
    from rich.console import Console
    from rich.progress import track

    return track(files, description=label, console=Console(stderr=True), transient=True)


# ----------------------------------------------------------------------------------------------------------------------
# KTH


def is_kth(folder: Path) -> bool:
    """Whether a folder has at least one of the six action folders or zip files, with clips named as published."""
    return any(
        (folder / f"{action}.zip").is_file() or any((folder / action).glob("person*_uncomp.avi"))
        for action in KTH_ACTIONS
    )


class KTH:
    """KTH as published: persons 1-16 train, 17-25 test; 128x128 gray.

    In the test split a window starts every (length - 1) frames, every 3 for jogging and running; in training anywhere.
    """

    def __init__(self, folder: Path, split: str, length: int) -> None:
        self.name, self.split = "KTH", split
        self.clip_shape = (length, 1, *KTH_SIZE)
        self._windows: list[Window] = []
        persons: Counter[int] = Counter()
        for action in KTH_ACTIONS:
            for person, frames in _kth_clips(folder, action):
                persons[person] += 1
                if split != "all" and (person <= 16) != (split == "train"):
                    continue
                step = 1 if split == "train" else 3 if action in ("jogging", "running") else length - 1
                self._windows += [Window(frames, start) for start in range(0, len(frames) - length + 1, step)]
        self._persons = persons
        if not self._windows:
            raise InputError(f"{folder} has no KTH clip for the {split} split", "add persons, or give another --split")

    def __len__(self) -> int:
        return len(self._windows)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        frames, start = self._windows[index].frames, self._windows[index].start
        return np.asarray(frames[start : start + self.clip_shape[0]])

    def describe(self) -> list[str]:
        lines = [f"KTH, {self.split}: {sum(self._persons.values())} clips in all, {len(self)} windows"]
        missing = sorted(set(range(1, 26)) - set(self._persons))
        if missing:
            lines.append(f"warning: KTH persons {', '.join(map(str, missing))} are missing; going on without them")
        return lines


def _kth_clips(folder: Path, action: str) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    """Person and frames of each clip of an action, from its folder or its zip file."""
    for file in _with_progress(sorted((folder / action).glob("person*_uncomp.avi")), action):
        match = _KTH_NAME.fullmatch(file.name)
        if match:
            yield int(match[1]), decode(file, 1, KTH_SIZE)
    archive = folder / f"{action}.zip"
    if archive.is_file() and not (folder / action).is_dir():
        try:
            with zipfile.ZipFile(archive) as members, TemporaryDirectory() as temporary:
                for member in sorted(members.namelist()):
                    match = _KTH_NAME.fullmatch(PurePosixPath(member).name)
                    if match:
                        file = Path(temporary) / match[0]
                        file.write_bytes(members.read(member))
                        yield int(match[1]), decode(file, 1, KTH_SIZE)
                        file.unlink()
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise InputError(f"{archive} is damaged: {error}", "download it again") from None
        except OSError as error:
            raise VMRNNError(f"cannot unpack {archive}: {error}", "free some space") from None
