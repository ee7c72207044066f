"""Clips from video files: a folder of one's own, or KTH in its published layout.

Notation: T time, C channels, H x W pixels, S side of a square.

Every file is decoded once, into the cache (`cache.py`).
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, os_failures
from ..frames import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..text import printable
from . import cache
from .base import ClipArray, ClipDataset
from .cache import Video

MAX_LISTED = 20  # of the clips that were skipped
KTH_ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
KTH_SIZE = (128, 128)
KTH_PERSONS = range(1, 26)
_KTH_LAST_TRAINING_PERSON = 16
_KTH_NAME = re.compile(r"person(\d\d)_(\w+?)_d\d_uncomp\.avi")

Item = TypeVar("Item")


# ----------------------------------------------------------------------------------------------------------------------
# Folders


class _VideoWindows(ClipDataset):
    """Windows of videos; clips of one video are alike."""

    _windows: NDArray[np.int64]  # (windows, 2): number of the video, first frame
    _names: list[str]  # of the videos

    def __len__(self) -> int:
        return len(self._windows)

    def label(self, index: int) -> str:
        number, start = self._windows[index]
        return f"{self._names[number]} from frame {start}"

    def group(self, index: int) -> int:
        return int(self._windows[index, 0])


class FolderClips(_VideoWindows):
    """Windows of T frames from the videos of a folder, scaled and cut to squares of `size` pixels.

    For training, they are cut further, to `crop` pixels anywhere; a window starts anywhere, and with `augment` it may
    be mirrored, reversed in time or played at double speed. With `weigh_sets`, a training clip comes from a set that
    `split.csv` names as often as the square root of its number of videos says. For evaluation, windows are in the
    middle of equal parts of each file, in the centre of the frame.

    Where there are so few videos that none falls into the split, all are taken for it.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        length: int,
        *,
        size: int,
        channels: int,
        augment: bool,
        crop: int | None = None,
        weigh_sets: bool = False,
    ) -> None:
        entries, self.has_own_split = _split_files(folder, split)
        self._notes = _other_files(folder)
        if not self.has_own_split:
            few = f"warning: so few videos that none falls into the {split} split"
            self._notes.append(f"{few}; all {len(entries)} are used for it")
        self.name, self.split, self._augment = folder.name, split, augment
        self._random = split == "train"
        side = min(crop or size, size) if self._random else size
        self.clip_shape = (length, channels, side, side)
        self._videos: list[Video] = []
        self._names = []
        sets: list[str] = []
        skipped: list[str] = []
        told: list[str] = []
        for entry in _with_progress(entries, f"decoding {folder.name}"):
            try:
                video = cache.decode(entry.file, channels, size)
            except InputError as error:
                skipped.append(str(error))
                continue
            if len(video) < length:
                flaw = "".join(f" ({note})" for note in video.notes[:1])
                skipped.append(f"{entry.file} has only {len(video)} of {length} frames{flaw}")
            else:
                told += [f"warning: {entry.file}: {note}" for note in video.notes]
                self._videos.append(video)
                self._names.append(entry.file.name)
                sets.append(entry.set)
        if not self._videos:
            why = f", for example: {skipped[0]}" if skipped else ""
            raise InputError(f"{folder} has no usable clip in the {split} split{why}", "give longer or more clips")
        self._notes += told[:MAX_LISTED]
        if len(told) > MAX_LISTED:
            self._notes.append(f"warning: {len(told) - MAX_LISTED} more of that kind")
        self._notes += [f"skipped: {reason}" for reason in skipped[:MAX_LISTED]]
        if len(skipped) > MAX_LISTED:
            self._notes.append(f"skipped: {len(skipped) - MAX_LISTED} more")
        windows = [
            (number, (2 * part + 1) * (len(video) - length) // (2 * parts))
            for number, video in enumerate(self._videos)
            for parts in [max(1, len(video) // (4 * length))]
            for part in range(parts)
        ]
        self._windows = np.array(windows)
        set_of_window = np.array(sets)[self._windows[:, 0]]
        self._sets = [np.flatnonzero(set_of_window == name) for name in sorted(set(sets))] if weigh_sets else []
        roots = np.sqrt([sets.count(name) for name in sorted(set(sets))])
        self._shares = roots / roots.sum()

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        if self._random and self._sets:
            index = rng.choice(self._sets[rng.choice(len(self._sets), p=self._shares)])
        number, start = self._windows[index]
        frames = self._videos[number].frames()
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
        return [f"{self.name}, {self.split}: {len(self._videos)} videos, {len(self)} windows", *self._notes]


class _Entry(NamedTuple):
    """A video of a folder, and the set it belongs to: "" where none is named."""

    file: Path
    set: str


def _other_files(folder: Path) -> list[str]:
    """A line that says which files are left out as they are no videos by their names, if there are any."""
    if (folder / "split.csv").exists():
        return []
    others = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in VIDEO_SUFFIXES
    )
    return [f"skipped: {len(others)} files that are no videos by their names, such as {others[0]}"] if others else []


def _split_files(folder: Path, split: str) -> tuple[list[_Entry], bool]:
    """The videos of a split, and whether it has any of its own: else these are all videos.

    As `split.csv` says, else by the hash of their path, a tenth each for val and test.
    """
    table = folder / "split.csv"
    if table.exists():
        return _read_split_table(table, split), True
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not files:
        raise _no_videos(folder)
    every = [_Entry(file, "") for file in files]
    chosen = [entry for entry in every if split in ("all", _by_hash(entry.file.relative_to(folder)))]
    # A handful of clips, and the split is empty by chance: to use them all is better than nothing, if it is said.
    return chosen or every, bool(chosen)


def _no_videos(folder: Path) -> InputError:
    """What a folder without videos holds instead."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    kinds = {
        "images, clips as frames (.jpg, .png, ...), which are not read": IMAGE_SUFFIXES,
        "arrays, each a data set of its own": {".npy", ".npz"},
    }
    for kind, suffixes in kinds.items():
        found = sorted(path for path in files if path.suffix.lower() in suffixes)
        if found:
            todo = f"name one of them, such as {found[0]}" if ".npz" in suffixes else "give the clips as video files"
            return InputError(f"{folder} holds no video files but {len(found)} {kind}, such as {found[0]}", todo)
    other = f"; {len(files)} other files, such as {min(files)}" if files else ""
    return InputError(f"{folder} holds no video files{other}", "give a folder of clips, or another --dataset")


def _read_split_table(table: Path, split: str) -> list[_Entry]:
    """The rows of a `split.csv` (columns file, split, and perhaps set) that belong to a split."""
    try:
        # With the mark that spreadsheets put in front.
        with os_failures(f"cannot read {table}"), table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        if not all(row["file"] and row["split"] for row in rows):
            raise InputError(f"{table} has rows without file or split", "fill them in, or remove the file")
    except (KeyError, csv.Error, UnicodeDecodeError):
        raise InputError(f"{table} has no columns file and split", "add them, or remove the file") from None
    chosen = [row for row in rows if split in ("all", row["split"])]
    entries = [_Entry(table.parent / row["file"], row.get("set") or "") for row in chosen]
    missing = [entry.file for entry in entries if not entry.file.exists()]
    if missing:
        raise InputError(f"{table} names {len(missing)} files that are not there, as {missing[0]}", "correct it")
    return entries


def _by_hash(path: Path) -> str:
    part = int(hashlib.sha256(path.as_posix().encode()).hexdigest(), 16) % 10
    return {0: "val", 1: "test"}.get(part, "train")


def _with_progress(items: list[Item], label: str) -> Iterable[Item]:
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    return track(items, description=escape(printable(label)), console=Console(stderr=True), transient=True)


# ----------------------------------------------------------------------------------------------------------------------
# KTH


def is_kth(folder: Path) -> bool:
    """Whether a folder has at least one of the six action folders or zip files, with clips named as published."""
    return any((folder / f"{action}.zip").is_file() or _kth_files(folder, action) for action in KTH_ACTIONS)


class KTH(_VideoWindows):
    """KTH: persons 1-16 train, 17-25 test (and val), as published; 128x128 gray.

    In the test split a window starts every (length - 1) frames, every 3 for jogging and running; in training anywhere.
    The published loader spaces training windows like those of the test split: at a length of 30, an epoch here has 7.5
    times as many ((4/30 + 2/3) / 6 of the frames start one there, all of them here).
    """

    def __init__(self, folder: Path, split: str, length: int, **_: object) -> None:
        self.name, self.split = "KTH", split
        self.clip_shape = (length, 1, *KTH_SIZE)
        self._videos: list[Video] = []
        self._names = []
        windows = [np.empty((0, 2), np.int64)]
        persons = set()
        for action in KTH_ACTIONS:
            step = 1 if split == "train" else 3 if action in ("jogging", "running") else length - 1
            for clip in _kth_clips(folder, action):
                persons.add(clip.person)
                if split != "all" and (clip.person <= _KTH_LAST_TRAINING_PERSON) != (split == "train"):
                    continue
                video = clip.decode()
                starts = np.arange(0, len(video) - length + 1, step)
                windows.append(np.stack([np.full_like(starts, len(self._videos)), starts], axis=1))
                self._videos.append(video)
                self._names.append(clip.name)
        self._windows = np.concatenate(windows)
        self._missing = sorted(set(KTH_PERSONS) - persons)
        if not len(self._windows):
            raise InputError(f"{folder} has no KTH clip of {length} frames in the {split} split", "add persons")

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        number, start = self._windows[index]
        return np.asarray(self._videos[number].frames()[start : start + self.clip_shape[0]])

    def describe(self) -> list[str]:
        lines = [f"KTH, {self.split}: {len(self._videos)} clips, {len(self)} windows"]
        if self._missing:
            missing = ", ".join(map(str, self._missing))
            lines.append(f"warning: KTH persons {missing} are missing; going on without them")
        return lines


class _KTHClip(NamedTuple):
    """A clip of a person: a file of a folder, or a member of a zip file that is still packed."""

    file: Path
    member: zipfile.ZipInfo | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.member.filename).name if self.member else self.file.name

    @property
    def person(self) -> int:
        return int(self.name.removeprefix("person")[:2])

    def decode(self) -> Video:
        if self.member is None:
            return cache.decode(self.file, 1, KTH_SIZE)
        # The archive's own checksum identifies the content, so that what is in the cache need not be unpacked again.
        content = f"{self.member.filename}|{self.member.CRC}|{self.member.file_size}"
        return cache.find(content, 1, KTH_SIZE) or _decode_member(self.file, self.member, content)


def _kth_files(folder: Path, action: str) -> list[Path]:
    return sorted(file for file in (folder / action).glob("person*.avi") if _KTH_NAME.fullmatch(file.name))


def _kth_clips(folder: Path, action: str) -> Iterator[_KTHClip]:
    """The clips of an action, from its folder, else from its zip file."""
    clips = [_KTHClip(file) for file in _kth_files(folder, action)]
    archive = folder / f"{action}.zip"
    if not clips and archive.is_file():
        try:
            with zipfile.ZipFile(archive) as members:
                infos = sorted(members.infolist(), key=lambda info: info.filename)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise InputError(f"{archive} is damaged: {error}", "download it again") from error
        packed = (_KTHClip(archive, info) for info in infos)
        clips = [clip for clip in packed if _KTH_NAME.fullmatch(clip.name)]
        if not clips:
            raise InputError(f"{archive} holds no KTH clip", "download it again")
    yield from _with_progress(clips, action)


def _decode_member(archive: Path, member: zipfile.ZipInfo, content: str) -> Video:
    """Unpack one member of a zip file into a temporary file, and decode that."""
    with TemporaryDirectory() as temporary:
        try:
            with os_failures(f"cannot unpack {archive}"), zipfile.ZipFile(archive) as members:
                file = Path(members.extract(member, temporary))
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{archive} is damaged: {error}", "download it again") from error
        try:
            return cache.decode(file, 1, KTH_SIZE, content)
        except InputError as error:  # it names a file that is gone with this function
            raise InputError(f"{member.filename} in {archive} cannot be read", "download it again") from error
