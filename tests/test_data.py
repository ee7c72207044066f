"""Data sets as people have them: recognised, split, reproducible, and refused in one line when they are broken."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vmrnn_cli import data
from vmrnn_cli.commands.data import make
from vmrnn_cli.data import ClipDataset, arrays, batches, cache, moving_mnist, videos
from vmrnn_cli.digits import draw_digit
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.readings import Declared
from vmrnn_cli.video import Clip, open_clip, write_video


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "cache"))


def write_idx(path, count=40):
    images = np.stack([draw_digit(n % 10, rng(n)) for n in range(count)])
    content = struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_clip(path, frames=30, size=(48, 64), seed=0):
    picture = rng(seed).integers(0, 255, (size[0] // 8, size[1] // 8, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path if path.suffix in (".mp4", ".gif") else path.with_suffix(".mp4")
    with write_video(target, fps=25, overwrite=True) as writer:
        for frame in range(frames):
            writer.write(np.roll(picture, frame, axis=1).repeat(8, 0).repeat(8, 1))
    if target != path:
        target.rename(path)


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte.gz")
    write_idx(folder / "t10k-images-idx3-ubyte", 20)
    return folder


def opened(path, **options):
    return data.DataSource(path, options.pop("dataset", None)).clips(**{"context": 3, "horizon": 2, **options})


# ---- order and reproducibility


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_seed_and_epoch_only(mnist, workers):
    dataset = opened(mnist)
    dataset.__class__.__len__ = lambda self: 10
    try:
        whole = [b.numpy() for b in data.batches(dataset, 4, seed=1, epoch=2)]
        assert [b.shape for b in whole] == [(4, 5, 1, 64, 64)] * 2
        again = [b.numpy() for b in data.batches(dataset, 4, seed=1, epoch=2, workers=workers, start=1)]
        np.testing.assert_array_equal(again[0], whole[1])
        shares = [next(data.batches(dataset, 4, seed=1, epoch=2, rank=r, world=2)).numpy() for r in (0, 1)]
        np.testing.assert_array_equal(np.stack(shares, 1).reshape(whole[0].shape), whole[0])
        other = next(data.batches(dataset, 4, seed=1, epoch=3)).numpy()
        assert not np.array_equal(other, whole[0])
    finally:
        dataset.__class__.__len__ = lambda self: moving_mnist.EPOCH_CLIPS


# ---- Moving MNIST


def test_moving_mnist_moves_digits_in_straight_lines():
    digit = np.full((1, 28, 28), 200, np.uint8)
    clip = moving_mnist.make_clip(digit, rng(3), 40)
    assert clip.shape == (40, 1, 64, 64)
    assert clip.max() == 200
    corners = moving_mnist._path(rng(5), 200)
    assert corners.min() >= 0
    assert corners.max() <= 36
    steps = np.diff(corners, axis=0)
    assert np.abs(steps).max() <= 4
    assert 3 < np.median(np.hypot(*steps.T)) < 4.2  # a tenth of the free 36 pixels
    assert {tuple(np.sign(s)) for s in steps if s.all()} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}  # it bounces


def test_moving_mnist_splits(mnist):
    train, val, test = (opened(mnist, split=split) for split in ("train", "val", "test"))
    assert train.clip_shape == (5, 1, 64, 64)
    assert not np.array_equal(train.clip(0, rng(1)), train.clip(0, rng(2)))
    for fixed in (val, test):
        np.testing.assert_array_equal(fixed.clip(4, rng(1)), fixed.clip(4, rng(2)))
    assert "36 digits" in train.describe()[0]
    assert "4 digits" in val.describe()[0]
    assert "20 digits" in test.describe()[0]


@pytest.mark.parametrize("change", ["short", "magic", "truncated", "gzip", "empty", "none"])
def test_broken_idx_files(mnist, change):
    path = mnist / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(
        {
            "short": content[:9], "magic": b"\0" * 16 + content[16:], "truncated": content[:-5],
            "gzip": path.read_bytes()[:200], "empty": b"", "none": content[:4] + bytes(4) + content[8:16],
        }[change]
    )  # fmt: skip
    with pytest.raises(InputError, match=path.name):
        opened(mnist)


def test_published_test_file_round_trip(tmp_path):
    digits = np.stack([draw_digit(n, rng(n)) for n in range(10)])
    moving_mnist.write_test_file(tmp_path / "mnist_test_seq.npy", digits, 6, 0, overwrite=False)
    dataset = opened(tmp_path / "mnist_test_seq.npy", context=10, horizon=10, split="test")
    assert (len(dataset), dataset.clip_shape) == (6, (20, 1, 64, 64))
    np.testing.assert_array_equal(dataset.clip(4, rng())[:, 0], np.load(tmp_path / "mnist_test_seq.npy")[:, 4])
    expected = moving_mnist.make_clip(digits, np.random.default_rng((0, 4)), 20)
    np.testing.assert_array_equal(dataset.clip(4, rng()), expected)


def test_made_from_an_idx_file_or_its_folder(mnist, tmp_path, capsys):
    made = []
    for number, digits in enumerate((mnist, mnist / "t10k-images-idx3-ubyte", "drawn")):
        out = tmp_path / f"{number}.npy"
        make("moving-mnist", out, clips=3, seed=1, digits=str(digits), overwrite=False)
        made.append(np.load(out))
    np.testing.assert_array_equal(made[0], made[1])
    assert made[0].shape == (20, 3, 64, 64)
    assert not np.array_equal(made[0], made[2])


def test_make_a_test_file(run, tmp_path):
    for name in ("a.npy", "b.npy"):
        assert run("data", "make", "moving-mnist", name, "--clips", 3, "--seed", 4)[0] == 0
    a = np.load(tmp_path / "a.npy")
    assert (a.shape, a.dtype) == ((20, 3, 64, 64), np.uint8)
    np.testing.assert_array_equal(a, np.load(tmp_path / "b.npy"))
    assert run("data", "make", "moving-mnist", "a.npy")[0] == 2
    assert run("data", "make", "kth", "c.npy")[0] == 2
    assert not (tmp_path / "c.npy").exists()


# ---- arrays


def test_grids_are_split_by_time_and_scaled_by_the_training_part(tmp_path):
    frames = np.arange(100, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 4, 3), np.float32)
    np.savez(tmp_path / "flow.npz", frames=frames, scale=np.float32(3))
    splits = {split: opened(tmp_path / "flow.npz", split=split) for split in ("train", "val", "test", "all")}
    assert {name: len(s) for name, s in splits.items()} == {"train": 76, "val": 9, "test": 9, "all": 96}
    assert all(s.divided_by == 79 for s in splits.values())
    predicted = {
        name: {int(i) for k in range(len(s)) for i in np.array(range(s.starts[k] + 3, s.starts[k] + 5))}
        for name, s in splits.items()
    }
    assert predicted["val"] == set(range(80, 90))
    assert predicted["test"] == set(range(90, 100))
    assert max(predicted["train"]) < 80
    np.testing.assert_allclose(splits["train"].frames(7, rng())[:, 0, 0, 0], np.arange(7, 12) / 79, rtol=1e-6)
    assert splits["test"].frames(8, rng()).max() == np.float32(99) / np.float32(79)  # the truth is what it is
    assert opened(tmp_path / "flow.npz", divided_by=200.0).frames(0, rng()).max() == np.float32(4 / 200)


def test_the_split_of_bikenyc_is_its_own(tmp_path):
    for T, C, test in ((2400, 2, 240), (4392, 2, 240), (4392, 1, 439), (2399, 2, 239)):
        np.save(tmp_path / "x.npy", np.zeros((T, C, 16, 8), np.float32))
        lengths = [len(opened(tmp_path / "x.npy", context=4, horizon=4, split=split)) for split in ("train", "test")]
        assert lengths == [T - 2 * test - 7, test - 3]


def test_grids_that_are_scaled_already_stay_as_they_are(tmp_path):
    """As `predict` takes the same file."""
    for frames in (np.full((100, 2, 4, 4), 51, np.uint8), np.full((100, 2, 4, 4), 0.2, np.float32)):
        np.save(tmp_path / "x.npy", frames)
        grid = opened(tmp_path / "x.npy", split="test", divided_by=7.0)
        assert grid.divided_by == 1
        clip = grid.frames(0, np.random.default_rng(0))
        assert clip.dtype == np.float32
        np.testing.assert_allclose(clip, 0.2, rtol=1e-6)


def test_clips_that_share_frames_are_of_one_group(tmp_path):
    np.save(tmp_path / "grid.npy", np.random.default_rng(0).random((400, 2, 4, 4)))
    grid = opened(tmp_path / "grid.npy", split="train")
    T = grid.clip_shape[0]
    assert [grid.group(number) for number in (0, T - 1, T)] == [0, 0, 1]
    np.save(tmp_path / "clips.npy", np.zeros((7, 30, 2, 8, 8), np.uint8))
    assert [opened(tmp_path / "clips.npy").group(number) for number in range(3)] == [0, 1, 2]


def test_taxibj(tmp_path):
    parts = {
        f"{key}_{split}": np.full((n, 4, 2, 32, 32), value, np.float32)
        for split, n in (("train", 6), ("test", 3))
        for key, value in (("X", -1), ("Y", 1))
    }
    np.savez(tmp_path / "dataset.npz", **parts)
    train = opened(tmp_path / "dataset.npz", context=4, horizon=4)
    assert (len(train), train.clip_shape) == (6, (8, 2, 32, 32))
    clip = train.frames(0, rng())
    assert (clip[:4] == 0).all()
    assert (clip[4:] == 1).all()
    assert len(opened(tmp_path / "dataset.npz", split="test")) == 3
    both = opened(tmp_path / "dataset.npz", split="all")
    assert len(both) == 9
    np.testing.assert_array_equal(both.frames(8, rng())[:, 0, 0, 0], [0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    "change",
    [
        {"Y_test": None}, {"X_train": np.zeros((5, 4, 2, 8, 8))}, {"Y_train": np.zeros((6, 4, 2, 8, 9))},
        {"X_train": np.float32(0), "Y_train": np.float32(0)}, {"X_train": np.zeros((0, 4, 2, 8, 8))},
        {key: np.full((6, 4, 2, 8, 8), "text") for key in arrays.TAXIBJ_KEYS},
        {key: np.zeros((6, 4, 0, 8, 8)) for key in arrays.TAXIBJ_KEYS},
    ],
)  # fmt: skip
def test_unusable_taxibj(tmp_path, change):
    parts = {key: np.zeros((6, 4, 2, 8, 8), np.float32) for key in arrays.TAXIBJ_KEYS} | change
    np.savez(tmp_path / "dataset.npz", **{key: part for key, part in parts.items() if part is not None})
    with pytest.raises(InputError, match=r"dataset\.npz"):
        opened(tmp_path / "dataset.npz", dataset="taxibj")
    np.savez(tmp_path / "dataset.npz", **{key: np.full((6, 4, 2, 8, 8), np.nan) for key in arrays.TAXIBJ_KEYS})
    with pytest.raises(InputError, match="NaN"):
        opened(tmp_path / "dataset.npz")


def test_the_kind_of_an_array_can_be_forced(tmp_path):
    np.save(tmp_path / "x.npy", rng().random((90, 5, 8, 8)).astype(np.float32))
    with pytest.raises(
        InputError, match=r"x\.npy.*90 frames.*5 channels or .*90 clips of 5 frames.*--layout TCHW or NTHW"
    ):
        opened(tmp_path / "x.npy")
    assert opened(tmp_path / "x.npy", dataset="clips").clip_shape == (5, 1, 8, 8)
    assert opened(tmp_path / "x.npy", dataset="grid").clip_shape == (5, 5, 8, 8)
    np.save(tmp_path / "y.npy", rng().random((90, 4, 8, 8)).astype(np.float32))
    assert opened(tmp_path / "y.npy").clip_shape == (5, 4, 8, 8)
    assert opened(tmp_path / "y.npy", dataset="clips", context=2).clip_shape == (4, 1, 8, 8)
    for kind in ("moving-mnist", "taxibj"):
        with pytest.raises(InputError, match=r"y\.npy"):
            opened(tmp_path / "y.npy", dataset=kind)


@pytest.mark.parametrize(("shape", "clip"), [((7, 17, 16, 16), (5, 1, 16, 16)), ((7, 9, 2, 8, 8), (5, 2, 8, 8))])
def test_arrays_of_clips(tmp_path, shape, clip):
    np.save(tmp_path / "x.npy", rng().random(shape).astype(np.float32))
    dataset = opened(tmp_path / "x.npy", split="all")
    assert (len(dataset), dataset.clip_shape) == (7, clip)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 3)), np.zeros((4, 2, 8, 8)), np.full((90, 2, 4, 4), np.nan), np.full((90, 2, 4, 4), -1.0),
        np.zeros((9, 40, 36, 9), np.uint8), np.zeros((64, 64, 3), np.uint8), np.zeros((3, 20, 9, 9), np.uint8),
        np.zeros((90, 2, 4, 4), np.int64), np.zeros((7, 4, 2, 8, 8), np.float32), np.array(["a"]),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)  # fmt: skip
def test_unusable_arrays(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=r"x\.npy|^x:"):
        opened(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04rest", b"\x93NUMPY\x01\x00"])
def test_unreadable_arrays(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        opened(tmp_path / name)


def test_clips_out_of_range_are_found(tmp_path):
    np.save(tmp_path / "x.npy", np.full((7, 9, 2, 8, 8), 3.0, np.float32))
    with pytest.raises(InputError, match="3 to 3"):
        opened(tmp_path / "x.npy")


# ---- videos


def test_folder_of_clips(tmp_path):
    folder = tmp_path / "mine"
    for number in range(12):
        write_clip(folder / f"sub{number % 2}" / f"{number}.mp4", seed=number, size=(48, 64 + 16 * (number % 3)))
    (folder / "broken.mp4").write_text("no video")
    write_clip(folder / "short.mp4", frames=3)
    train = opened(folder, size=32, augment=True)
    everything = opened(folder, size=32, split="all")
    assert train.clip_shape == (5, 1, 32, 32)
    assert "12 videos" in everything.describe()[0]
    assert "broken.mp4" in everything.describe()[1]
    np.testing.assert_array_equal(train.clip(0, rng(4)), train.clip(0, rng(4)))
    assert any(not np.array_equal(train.clip(0, rng(4)), train.clip(0, rng(seed))) for seed in range(9))
    np.testing.assert_array_equal(everything.clip(0, rng(1)), everything.clip(0, rng(2)))


def test_decoded_once(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.mp4")
    first = cache.decode(tmp_path / "a.mp4", 1, 32)
    assert (first.shape, len(first)) == (first.frames().shape, 30)
    with open_clip(tmp_path / "a.mp4", channels=1, size=32) as clip:
        np.testing.assert_array_equal(first.frames(), np.rint(np.stack(list(clip)) * 255))
    assert cache.decode(tmp_path / "a.mp4", 1, 16) != first
    monkeypatch.setattr(cache, "Source", lambda *a, **k: pytest.fail("decoded again"))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "same content.mp4")
    assert cache.decode(tmp_path / "same content.mp4", 1, 32) == first


def test_two_may_fill_the_cache_at_once(tmp_path):
    write_clip(tmp_path / "a.mp4")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: cache.decode(tmp_path / "a.mp4", 1, 32), range(3)))
    assert len(set(found)) == 1
    assert [path.name for path in found[0].path.parent.iterdir()] == [found[0].path.name]
    assert found[0].frames().shape[0] == 30


@pytest.mark.parametrize("left", [0, 60, 500])
def test_a_cached_file_that_was_cut_short_is_made_again(tmp_path, left):
    write_clip(tmp_path / "a.mp4")
    video = cache.decode(tmp_path / "a.mp4", 1, 32)
    whole = video.path.read_bytes()
    video.path.write_bytes(whole[:left])
    cache.decode(tmp_path / "a.mp4", 1, 32)
    assert video.path.read_bytes() == whole


def test_an_interrupted_decoding_leaves_nothing(tmp_path, monkeypatch):
    class Interrupted(Clip):
        def __next__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr("vmrnn_cli.video.Clip", Interrupted)
    write_clip(tmp_path / "a.mp4")
    with pytest.raises(KeyboardInterrupt):
        cache.decode(tmp_path / "a.mp4", 1, 32)
    assert list((tmp_path / "cache" / "clips").iterdir()) == []


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "file"))
    write_clip(tmp_path / "a.mp4")
    with pytest.raises(VMRNNError, match="VMRNN_CACHE"):
        cache.decode(tmp_path / "a.mp4", 1, 32)


def test_many_videos_need_few_open_files(tmp_path):
    resource = pytest.importorskip("resource")
    folder = tmp_path / "many"
    write_clip(folder / "0.mp4")
    for number in range(1, 60):
        shutil.copy(folder / "0.mp4", folder / f"{number}.mp4")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 30, limits[1]))
    try:
        clips = opened(folder, size=16, split="all")
        assert len(clips) == 60
        kept = [clips.clip(index, rng()).copy() for index in range(60)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(np.array_equal(clip, kept[0]) for clip in kept)


def test_large_sets_count_less_than_their_share(tmp_path):
    folder = tmp_path / "clips"
    rows = ["file,split,set"]
    for number, name in enumerate(["large"] * 9 + ["small"]):
        write_clip(folder / f"{number}.mp4", seed=number % 9 if name == "large" else 99)
        rows.append(f"{number}.mp4,train,{name}")
    (folder / "split.csv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    small = opened(folder, size=16)._videos[9]
    for weigh, share in ((False, 0.1), (True, 0.25)):  # a set of nine counts as three
        clips = opened(folder, size=16, weigh_sets=weigh)
        drawn = [clips.clip(k % len(clips), rng(k)) for k in range(200)]
        found = np.mean([any(np.array_equal(c, w) for w in windows(small, 5, 16)) for c in drawn])
        assert abs(found - share) < 0.08


def windows(video, length, side):
    frames = video.frames()
    for start in range(len(frames) - length + 1):
        for left in range(frames.shape[3] - side + 1):
            yield frames[start : start + length, :, :side, left : left + side]


def test_a_split_that_is_empty_by_chance_says_so(tmp_path):
    write_clip(tmp_path / "clips" / "a.mp4")
    said = {split: opened(tmp_path / "clips", size=16, split=split).describe() for split in ("train", "val", "test")}
    assert sorted(len(lines) for lines in said.values()) == [1, 2, 2]
    assert all("all 1 are used" in lines[1] for lines in said.values() if len(lines) == 2)


def test_split_table_is_honoured(tmp_path):
    for name in "abc":
        write_clip(tmp_path / "clips" / f"{name}.mp4", seed=ord(name))
    (tmp_path / "clips" / "split.csv").write_text("file,split\na.mp4,train\nb.mp4,test\n")
    assert "1 videos" in opened(tmp_path / "clips", size=16).describe()[0]
    assert "2 videos" in opened(tmp_path / "clips", size=16, split="all").describe()[0]
    (tmp_path / "clips" / "split.csv").write_text("file,split\nlost.mp4,train\n")
    with pytest.raises(InputError, match=r"lost\.mp4"):
        opened(tmp_path / "clips")
    for text in ("name\na\n", "split,file\ntrain\n", "file,split\na.mp4,\n"):
        (tmp_path / "clips" / "split.csv").write_text(text)
        with pytest.raises(InputError, match=r"split\.csv has (no|rows without)"):
            opened(tmp_path / "clips")


def kth_tree(folder):
    for action, person in (("walking", 1), ("walking", 17), ("jogging", 17), ("boxing", 2)):
        write_clip(folder / action / f"person{person:02d}_{action}_d1_uncomp.avi", size=(120, 160))
    return folder


def test_kth_windows_are_the_published_ones(tmp_path):
    folder = kth_tree(tmp_path / "kth")
    train, test = opened(folder), opened(folder, split="test")
    assert train.clip_shape == (5, 1, 128, 128)
    assert len(train) == 2 * (30 - 5 + 1)
    assert test._windows[:, 1].tolist() == [*range(0, 26, 3), *range(0, 26, 4)]  # jogging, walking
    assert (train.describe()[0], test.describe()[0]) == (
        "KTH, train: 2 clips, 52 windows", "KTH, test: 2 clips, 16 windows",
    )  # fmt: skip
    assert len(opened(folder, split="all")._videos) == 4
    assert "warning: KTH persons 3, 4" in train.describe()[1]


def test_kth_zip_files(tmp_path):
    folder = kth_tree(tmp_path / "kth")
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    for action in ("walking", "jogging", "boxing"):
        with zipfile.ZipFile(zipped / f"{action}.zip", "w") as archive:
            for file in (folder / action).iterdir():
                archive.write(file, file.name)
    a, b = opened(folder), opened(zipped)
    assert len(a) == len(b)
    np.testing.assert_array_equal(a.clip(3, rng()), b.clip(3, rng()))
    (zipped / "boxing").mkdir()  # left over from unpacking: the zip file counts
    assert len(opened(zipped)) == len(a)


@pytest.mark.parametrize("damage", ["no zip", "cut short", "spoilt member", "spoilt stored member", "no clip"])
def test_damaged_kth_zip_files(tmp_path, damage):
    clip = kth_tree(tmp_path / "kth") / "boxing" / "person02_boxing_d1_uncomp.avi"
    path = tmp_path / "zipped" / "boxing.zip"
    path.parent.mkdir()
    method = zipfile.ZIP_STORED if "stored" in damage else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.write(clip, "readme.txt" if damage == "no clip" else clip.name)
    content = path.read_bytes()
    if damage == "no zip":
        path.write_bytes(b"PK broken")
    elif damage == "cut short":
        path.write_bytes(content[:-200])
    elif "spoilt" in damage:
        path.write_bytes(content[:100] + b"\xff" * 100 + content[200:])
    with pytest.raises(InputError, match=r"boxing\.zip"):
        opened(path.parent)


def test_a_kth_zip_file_is_unpacked_once(tmp_path, monkeypatch):
    clip = kth_tree(tmp_path / "kth") / "boxing" / "person02_boxing_d1_uncomp.avi"
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "boxing.zip", "w") as archive:
        archive.write(clip, f"boxing/{clip.name}")
    first = opened(tmp_path / "zipped")
    monkeypatch.setattr(videos, "_decode_member", lambda *a: pytest.fail("unpacked again"))
    np.testing.assert_array_equal(opened(tmp_path / "zipped").clip(2, rng()), first.clip(2, rng()))
    with zipfile.ZipFile(tmp_path / "zipped" / "boxing.zip", "w") as archive:
        archive.writestr(f"boxing/{clip.name}", clip.read_bytes() + b"changed")
    with pytest.raises(pytest.fail.Exception, match="unpacked again"):
        opened(tmp_path / "zipped")


# ---- what is none


def test_what_is_no_data_set(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("hello")
    for path, options in (
        (tmp_path / "nowhere", {}),
        (tmp_path / "empty", {}),
        (tmp_path / "a.txt", {}),
        (tmp_path / "empty", {"dataset": "moving-mnist"}),
        (tmp_path / "empty", {"dataset": "kth"}),
        (tmp_path / "empty", {"dataset": "grid"}),
        (tmp_path, {"dataset": "imagenet"}),
        (tmp_path, {"split": "holdout"}),
        (tmp_path, {"context": 0}),
        (tmp_path, {"horizon": -1}),
    ):
        with pytest.raises(InputError) as caught:
            opened(path, **options)
        assert "\n" not in str(caught.value)


# ---- the real ones


@pytest.fixture
def real():
    folder = os.environ.get("VMRNN_TEST_DATA")
    if not folder:
        pytest.skip("VMRNN_TEST_DATA is not set: no real data sets")
    return Path(folder) / "data"


def test_real_data_sets(real):
    mnist = opened(real / "mnist", context=10, horizon=10, split="test")
    clips = [mnist.clip(i, rng()).astype(np.float64) / 255 for i in range(200)]
    empty = np.mean([np.square(c[10:]).sum((1, 2, 3)).mean() for c in clips])
    repeated = np.mean([np.square(c[10:] - c[9]).sum((1, 2, 3)).mean() for c in clips])
    assert 160 < empty < 185  # the published data has 172 and 282
    assert 265 < repeated < 300
    assert len(opened(real / "kth", context=10, horizon=10)) > 100
    bikes = opened(real / "traffic" / "bikenyc.npz", context=4, horizon=4, split="test")
    assert (len(bikes), bikes.clip_shape) == (arrays.BIKENYC_TEST - 3, (8, 2, 16, 8))
    assert opened(real / "wild", size=32, split="all").clip_shape == (5, 1, 32, 32)


def test_training_clips_are_cut_within_scaled_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "cache"))
    frames = np.tile(np.arange(0, 240, 6, np.uint8), (8, 40, 1))  # (T, 40, 40), brighter to the right
    with write_video(tmp_path / "a.mp4", fps=10, overwrite=False) as writer:
        for frame in frames:
            writer.write(np.repeat(frame[:, :, None], 3, axis=2))
    train_set, test_set = (
        data.DataSource(tmp_path).clips(split, context=2, horizon=2, size=40, crop=16) for split in ("train", "test")
    )
    assert (train_set.clip_shape, test_set.clip_shape) == ((4, 1, 16, 16), (4, 1, 40, 40))
    cuts = [train_set.clip(0, np.random.default_rng(seed)) for seed in range(20)]
    starts = {int(np.rint(clip[0, 0, :, 0].mean() / 6)) for clip in cuts}
    assert len(starts) > 5 and min(starts) < 8 and max(starts) > 16
    for clip in cuts:  # cut, not scaled: the slope is that of the frame
        assert np.diff(clip[0, 0].astype(float).mean(0)).mean() == pytest.approx(6, abs=0.3)


# ---- what numbers mean; the rules themselves are tested in test_readings.py


def smooth(*shape):
    t, y, x, c = np.ogrid[tuple(slice(n) for n in shape)]
    return (0.5 + 0.4 * np.sin(y / 5 + t / 30 + c) * np.cos(x / 4 - t / 40)).astype(np.float32)


def test_grids_with_channels_last_are_read_as_they_are(tmp_path):
    flow = smooth(300, 32, 24, 2)
    np.save(tmp_path / "flow.npy", flow)
    grid = opened(tmp_path / "flow.npy", split="all")
    assert grid.clip_shape == (5, 2, 32, 24)
    np.testing.assert_array_equal(grid.frames(7, rng()), flow[7:12].transpose(0, 3, 1, 2))
    assert "taken for (T, H, W, C)" in grid.notes[0] and f"warning: {grid.notes[0]}" in grid.describe()
    np.save(tmp_path / "city.npy", smooth(48, 50, 44, 8))
    with pytest.raises(InputError, match=r"city\.npy is shaped .*--layout .*THWC"):
        opened(tmp_path / "city.npy")
    declared = data.DataSource(tmp_path / "city.npy", declared=Declared("THWC")).clips("all", context=3, horizon=2)
    assert (declared.clip_shape, declared.notes) == ((5, 8, 50, 44), [])


def test_a_range_that_is_declared_belongs_to_the_weights_where_it_starts_at_zero(tmp_path):
    np.save(tmp_path / "x.npy", np.full((100, 2, 4, 4), 1023, np.uint16))
    with pytest.raises(InputError, match=r"x\.npy holds uint16.*--range"):
        opened(tmp_path / "x.npy")
    for limits, divided_by, value in (((0, 4092), 4092, 0.25), ((-1023, 1023), 1, 1)):
        grid = data.DataSource(tmp_path / "x.npy", declared=Declared(range=limits)).clips(context=3, horizon=2)
        assert (grid.divided_by, grid.frames(0, rng()).max()) == (divided_by, value)


def test_missing_values_are_counted_and_never_become_numbers(tmp_path):
    frames = smooth(100, 8, 8, 2).transpose(0, 3, 1, 2).copy()
    frames[50, 0, 3, 4] = -9999
    np.savez(tmp_path / "radar.npz", frames=frames, fill_value=-9999.0)
    grid = opened(tmp_path / "radar.npz", split="all")
    assert grid.notes == [
        "radar.npz: 1 values (less than 0.1%) are missing: filled with the last known ones, left out of scores"
    ]
    read = grid.frames(48, rng())
    assert np.argwhere(np.isnan(read)).tolist() == [[2, 0, 3, 4]]
    for batch in data.batches(grid, 8, seed=0, epoch=0):
        assert batch.isfinite().all() and batch.min() >= 0
    np.savez(tmp_path / "masked.npz", frames=frames, mask=frames < 0)
    np.testing.assert_array_equal(opened(tmp_path / "masked.npz", split="all").frames(48, rng()), read)
    np.savez(tmp_path / "masked.npz", frames=frames, mask=(frames < 0)[0])
    with pytest.raises(InputError, match=r"masked\.npz: its mask"):
        opened(tmp_path / "masked.npz")


def test_taxibj_in_the_unit_range_is_said(tmp_path):
    flows = rng().random((6, 8, 2, 32, 32)).astype(np.float32)
    for name, scaled in (("published", 2 * flows - 1), ("unit", flows)):
        parts = {f"{key}_{part}": scaled[:, half] for part in ("train", "test")
                 for key, half in (("X", slice(4)), ("Y", slice(4, 8)))}  # fmt: skip
        np.savez(tmp_path / f"{name}.npz", **parts)
        clips = opened(tmp_path / f"{name}.npz", context=4, horizon=4)
        np.testing.assert_allclose(clips.frames(2, rng()), flows[2], atol=1e-6)
        assert ("taken for values in [0, 1]" in " ".join(clips.notes)) == (name == "unit")


def test_the_published_test_file_is_known_by_its_name_too(tmp_path):
    np.save(tmp_path / "mnist_test_seq_small.npy", np.zeros((20, 3, 64, 64), np.uint8))
    assert len(opened(tmp_path / "mnist_test_seq_small.npy")) == 3
    np.save(tmp_path / "colour.npy", np.zeros((20, 3, 64, 64), np.uint8))
    assert opened(tmp_path / "colour.npy", split="all").clip_shape == (5, 3, 64, 64)


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
        ("train-images.idx3-ubyte", "t10k-images.idx3-ubyte.gz"),
        ("train-images-idx3-ubyte/train-images-idx3-ubyte", "t10k-images-idx3-ubyte/t10k-images-idx3-ubyte"),
        ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte"),
        ("raw/train-images-idx3-ubyte.gz", "raw/t10k-images-idx3-ubyte.gz"),
    ],
)
def test_mnist_in_the_layouts_there_are(tmp_path, names):
    for name, count in zip(names, (40, 20), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_idx(tmp_path / name, count)
    assert "36 digits" in opened(tmp_path).describe()[0]
    assert "20 digits" in opened(tmp_path, split="test").describe()[0]


def test_mnist_of_keras(tmp_path):
    digits = np.stack([draw_digit(n % 10, rng(n)) for n in range(20)])
    labels = np.zeros(20, np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=digits, x_test=digits[:5], y_train=labels, y_test=labels[:5])
    assert "5 digits" in opened(tmp_path / "mnist.npz", split="test").describe()[0]
    assert opened(tmp_path / "mnist.npz").frames(0, rng()).max() > 0.8
    np.savez(tmp_path / "mnist.npz", x_train=digits[:, :9], x_test=digits)
    with pytest.raises(InputError, match=r"mnist\.npz: x_train"):
        opened(tmp_path / "mnist.npz")


def test_what_is_not_read_is_refused_for_what_it_is(tmp_path):
    frames = tmp_path / "kth" / "boxing" / "person01_boxing_d1"
    frames.mkdir(parents=True)
    (frames / "image-001.jpg").write_bytes(b"")
    np.savez(
        tmp_path / "predrnn.npz", input_raw_data=np.zeros((4, 1, 8, 8)), clips=np.zeros((2, 1, 2)), dims=[[1, 8, 8]]
    )
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", np.zeros((2, 4, 4)))
    (tmp_path / "taxi.h5").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "train-images").write_bytes(b"\0\0\x08\x03" + bytes(12))
    for name, what in (
        ("kth", "images, clips as frames"), ("predrnn.npz", "PredRNN's Moving MNIST"), ("arrays", "arrays.*a.npy"),
        ("taxi.h5", "HDF5"), ("train-images", "MNIST's idx files"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"{name}.*{what}"):
            opened(tmp_path / name)


class Ends(ClipDataset):
    """Clips of which one ends the process that makes it, as a machine without memory does."""

    name, clip_shape = "ends", (2, 1, 4, 4)

    def __len__(self):
        return 8

    def clip(self, index, rng):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full(self.clip_shape, index, np.uint8)

    def describe(self):
        return []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_worker_that_is_killed_is_not_waited_for():
    with pytest.raises(VMRNNError, match="process that prepares data"):
        list(batches(Ends(), 2, seed=0, epoch=0, workers=2))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_workers_need_no_shared_memory(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.UntypedStorage._share_filename_cpu_", refuse)
    monkeypatch.setattr("torch.UntypedStorage._share_fd_cpu_", refuse)
    np.save(tmp_path / "clips.npy", np.random.default_rng(0).integers(0, 255, (8, 5, 1, 8, 8)).astype(np.uint8))
    clips = data.DataSource(tmp_path / "clips.npy").clips("all", context=3, horizon=2)
    alone, helped = (list(batches(clips, 2, seed=0, epoch=0, workers=workers)) for workers in (0, 2))
    assert len(alone) == 4
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one, other)


def test_workers_that_cannot_be_had_are_said(monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.multiprocessing.Queue", refuse)
    with pytest.raises(VMRNNError, match=r"workers.*shared memory"):
        list(batches(Ends(), 2, seed=0, epoch=0, workers=1))
