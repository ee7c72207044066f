import itertools
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import deque
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.video import Source, open_clip, write_video

GRAY_LEVELS = 2 * np.arange(100) + 20  # of the frames of `numbered`


def ffmpeg(*arguments, stdin=b""):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, input=stdin, check=True, capture_output=True)


def encode(path, pixels, *options, fps=25, pixel_format="rgb24"):
    """Encode uint8 (T, H, W, 3), or (T, H, W) with pixel_format gray."""
    raw = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        pixel_format,
        "-s",
        f"{pixels.shape[2]}x{pixels.shape[1]}",
        "-r",
        fps,
        "-i",
        "-",
    ]
    ffmpeg(*raw, *options, path, stdin=pixels.tobytes())
    return path


def read(path, **options):
    with open_clip(path, **options) as clip:
        return np.stack(list(clip))  # (T, C, H, W)


def frame_numbers(frames):
    """Which frames of `numbered` these are, from their gray level."""
    return np.round((frames.mean(axis=(1, 2, 3)) * 255 - 20) / 2).astype(int).tolist()


@pytest.fixture(scope="session")
def numbered(tmp_path_factory):
    """100 frames at 25 fps whose gray level tells their number, in several containers."""
    folder = tmp_path_factory.mktemp("numbered")
    pixels = np.broadcast_to(GRAY_LEVELS.astype(np.uint8)[:, None, None], (100, 24, 32))
    for suffix in ("mp4", "mkv", "ts", "avi"):
        # Full range, lossless: the levels are kept exactly.
        codec = ["-c:v", "ffv1"] if suffix == "avi" else ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj420p"]
        encode(folder / f"clip.{suffix}", pixels, *codec, pixel_format="gray")
    return folder


@pytest.fixture
def quadrants():
    """Two frames (2, 48, 64, 3): red and green above, blue and white below."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32], frame[:24, 32:], frame[24:, :32], frame[24:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return np.stack([frame] * 2)


# ---- videos


def test_a_video_is_a_stream_of_float32_frames(numbered):
    with open_clip(numbered / "clip.mp4") as clip:
        assert (clip.fps, clip.frame_shape, clip.kind) == (25.0, (1, 24, 32), "video")
        assert clip.name == str(numbered / "clip.mp4")
        frames = list(clip)
    assert frames[0].dtype == np.float32
    assert frames[0].flags.writeable and not np.shares_memory(frames[0], frames[1])
    assert frame_numbers(np.stack(frames)) == list(range(100))


def test_the_last_frames_by_a_deque(numbered):
    with open_clip(numbered / "clip.mp4") as clip:
        assert frame_numbers(np.stack(deque(clip, maxlen=3))) == [97, 98, 99]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("start", [0.04, 2.0])
def test_start_finds_the_very_frame(numbered, suffix, start):
    frames = read(numbered / f"clip.{suffix}", start=start)
    assert frame_numbers(frames) == list(range(round(start * 25), 100))


def test_a_start_where_no_key_frame_follows(numbered, tmp_path):
    ffmpeg("-i", numbered / "clip.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p", tmp_path / "clip.ts")
    assert len(read(tmp_path / "clip.ts", start=2.0)) == 50


def test_a_start_far_into_a_long_clip(tmp_path):
    levels = (np.arange(1600) % 200 + 20).astype(np.uint8)
    pixels = np.broadcast_to(levels[:, None, None], (1600, 16, 16))
    clip = encode(tmp_path / "long.mp4", pixels, "-qp", "1", "-preset", "ultrafast", pixel_format="gray")
    np.testing.assert_allclose(read(clip, start=62.0)[:, 0, 0, 0] * 255, levels[1550:], atol=1)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_video_that_starts_after_its_sound(numbered, tmp_path, suffix):
    sources = ["-itsoffset", "0.7", "-i", numbered / f"clip.{suffix}", "-f", "lavfi", "-i", "sine=d=5"]
    ffmpeg(*sources, "-map", "0", "-map", "1", "-c:v", "copy", tmp_path / f"late.{suffix}")
    assert frame_numbers(read(tmp_path / f"late.{suffix}")) == list(range(100))


def test_a_start_in_a_bare_stream(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32:r=5:d=45", "-c:v", "libx264", tmp_path / "long.h264")
    whole = read(tmp_path / "long.h264")
    rest = read(tmp_path / "long.h264", start=31)
    np.testing.assert_array_equal(rest, whole[-len(rest) :])
    with pytest.raises(InputError, match="has nothing at 100 s"):
        open_clip(tmp_path / "long.h264", start=100)


def test_a_rate_below_one_frame(numbered, tmp_path):
    with pytest.raises(InputError, match=r"too short for 0\.001 frames"):
        read(numbered / "clip.mp4", fps=0.001)


@pytest.mark.parametrize("title", ["Video: ansi, test", "Official Video: Foo, Bar"])
def test_a_title_is_only_a_title(tmp_path, title):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32:r=5:d=1", "-metadata", f"title={title}", tmp_path / "titled.mp4")
    assert len(read(tmp_path / "titled.mp4")) == 5


@pytest.mark.parametrize("pipe", [False, True])
def test_a_start_past_the_end_tells_the_duration(numbered, tmp_path, pipe):
    clip = tmp_path / "clip.mkv"
    if pipe:  # what cannot go back to its header does not tell its duration there
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", numbered / "clip.mkv", "-c", "copy"]
        clip.write_bytes(subprocess.run([*command, "-f", "matroska", "-"], check=True, capture_output=True).stdout)
    else:
        ffmpeg("-i", numbered / "clip.mkv", "-c", "copy", clip)
    with pytest.raises(InputError, match=r"lasts (3\.96|4\.00) s: nothing at 9 s.*--start"):
        open_clip(clip, start=9)


@pytest.mark.parametrize(("fps", "expected"), [(5, range(0, 100, 5)), (50, [n // 2 for n in range(200)])])
def test_fps_resamples_in_real_time(numbered, fps, expected):
    with open_clip(numbered / "clip.mp4", fps=fps) as clip:
        assert clip.fps == fps
        numbers = frame_numbers(np.stack(list(clip)))
    assert abs(len(numbers) - len(expected)) <= 1
    assert max(abs(a - b) for a, b in zip(numbers, expected, strict=False)) <= 3


@pytest.mark.parametrize("pixel_formats", [("yuv420p", "yuv420p"), ("yuv420p", "yuv444p")])
def test_a_stream_that_changes_its_size(tmp_path, pixel_formats):
    parts = []
    for number, (side, pixel_format) in enumerate(zip((32, 64), pixel_formats, strict=True)):
        pixels = np.broadcast_to((60 + 80 * number), (20, side, side)).astype(np.uint8)
        name = tmp_path / f"{number}.ts"
        codec = ["-qp", "0", "-bf", "0", "-pix_fmt", pixel_format, "-output_ts_offset", f"{number * 0.8}"]
        encode(name, pixels, *codec, pixel_format="gray")
        parts.append(name.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    frames = read(tmp_path / "both.ts") * 255
    assert len(frames) >= 39  # one may be lost where the files meet
    np.testing.assert_allclose(frames[:19], 60, atol=1.5)
    np.testing.assert_allclose(frames[-19:], 140, atol=1.5)


def test_packets_without_times_have_their_average_rate(tmp_path):
    """Small frames of MPEG-1 share packets, of which only the first has a time."""
    pixels = np.full((100, 120, 160), 99, np.uint8)
    pixels[np.arange(100), 40, np.arange(100)] = 200
    with open_clip(encode(tmp_path / "c.mpg", pixels, "-c:v", "mpeg1video", pixel_format="gray")) as clip:
        assert clip.fps == 25
        assert len(list(clip)) == 100


UNEVEN = np.cumsum([0, *np.random.default_rng(0).integers(2, 9, 99)])  # ticks of 1/60 s; the median gap is 5


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """The frames of `numbered`, 12 a second, unevenly, in containers that say 60."""
    folder = tmp_path_factory.mktemp("uneven")
    pixels = np.broadcast_to(GRAY_LEVELS.astype(np.uint8)[:, None, None], (100, 24, 32))
    every = [pixels[np.searchsorted(UNEVEN, tick)] for tick in range(UNEVEN[-1] + 1)]
    wanted = "+".join(f"eq(n,{tick})" for tick in UNEVEN)
    for suffix in ("mkv", "mp4", "ts", "asf", "flv", "nut"):
        codec = ["-c:v", "flv"] if suffix == "flv" else ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj420p"]
        shown = ["-vf", f"select='{wanted}'", "-fps_mode", "passthrough"]
        encode(folder / f"c.{suffix}", np.stack(every), *shown, *codec, fps=60, pixel_format="gray")
    return folder


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "asf", "flv", "nut"])
def test_uneven_times_have_the_rate_of_their_median(uneven, suffix):
    with open_clip(uneven / f"c.{suffix}") as clip:
        numbers = frame_numbers(np.stack(list(clip)))
    assert clip.fps == pytest.approx(12, rel=0.02)
    assert abs(len(numbers) - UNEVEN[-1] / 5) <= 3
    assert np.mean(np.diff(numbers) == 0) < 0.3 and np.diff(numbers).min() >= 0
    assert clip.flaws() == []


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "12.5", "60", "0.5"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "asf"])
def test_even_times_have_just_their_rate(tmp_path, suffix, rate):
    codec = ["-c:v", "ffv1"] if suffix == "avi" else ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj420p"]
    pixels = np.broadcast_to(GRAY_LEVELS[:40].astype(np.uint8)[:, None, None], (40, 24, 32))
    with open_clip(encode(tmp_path / f"c.{suffix}", pixels, *codec, fps=rate, pixel_format="gray")) as clip:
        assert frame_numbers(np.stack(list(clip))) == list(range(40))
        assert clip.fps == pytest.approx(float(Fraction(rate)), rel=1e-6)
        assert (clip.notes, clip.flaws()) == ([], [])


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "nut"])
def test_a_long_gap_is_said_and_not_filled(tmp_path, suffix):
    pixels = np.broadcast_to(GRAY_LEVELS.astype(np.uint8)[:, None, None], (100, 24, 32))
    later = ["-vf", "setpts=PTS+gte(N\\,50)*3600/TB", "-fps_mode", "passthrough"]
    codec = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuvj420p", "-bf", "0"]
    with open_clip(encode(tmp_path / f"c.{suffix}", pixels, *later, *codec, pixel_format="gray")) as clip:
        assert frame_numbers(np.stack(list(clip))) == list(range(100))
        assert clip.fps == 25
        assert re.search(r"1 gap.*3600\.0 s", clip.notes[0])


def test_one_wrong_time_makes_no_frames(numbered, tmp_path):
    """A time stamp of MPEG-TS with its highest bit set, 13 hours ahead."""
    stream = bytearray((numbered / "clip.ts").read_bytes())
    stamps = [at for at in range(len(stream)) if stream[at : at + 4] == b"\0\0\1\xe0" and stream[at + 7] & 0x80]
    stream[stamps[len(stamps) // 2] + 9] ^= 0x08
    (tmp_path / "c.ts").write_bytes(stream)
    with open_clip(tmp_path / "c.ts") as clip:
        numbers = frame_numbers(np.stack(list(clip)))
    assert 95 <= len(numbers) <= 102 and len(set(numbers)) >= 95


def test_of_several_streams_the_largest_is_taken(tmp_path, numbered):
    small = encode(tmp_path / "small.mp4", np.zeros((100, 16, 16), np.uint8), pixel_format="gray")
    ffmpeg("-i", small, "-i", numbered / "clip.mp4", "-map", "0", "-map", "1", "-c", "copy", tmp_path / "two.mkv")
    with open_clip(tmp_path / "two.mkv") as clip:
        assert frame_numbers(np.stack(list(clip))) == list(range(100))
        assert clip.notes == ["of 2 video streams the largest is taken, 32x24"]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_interlaced_video_is_deinterlaced(tmp_path, suffix):
    """A bar that moves by 8 pixels from field to field: combs, unless the fields are taken apart."""
    fields = np.zeros((40, 64, 400), np.uint8)
    for number, field in enumerate(fields):
        field[:, 8 * number : 8 * number + 40] = 200
    codec = ["-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ilme+ildct"]
    woven = ["-vf", "interlace=lowpass=0", "-top", "1"][:2]
    frames = read(encode(tmp_path / f"c.{suffix}", fields, *woven, *codec, fps=50, pixel_format="gray"))
    assert abs(len(frames) - 20) <= 1
    inner = frames[4:-4, 0]
    assert np.abs(np.diff(inner, axis=1)).mean() < 0.2 * np.abs(np.diff(inner, axis=2)).mean()


def cut(path, target, share=0.4):
    whole = path.read_bytes()
    target.write_bytes(whole[: int(share * len(whole))])
    return target


@pytest.fixture(scope="session")
def noisy(tmp_path_factory):
    """6 s at 25 frames a second that do not compress, in several containers."""
    folder = tmp_path_factory.mktemp("noisy")
    pixels = np.random.default_rng(0).integers(0, 255, (150, 48, 64)).astype(np.uint8)
    for suffix in ("mp4", "mkv", "avi", "webm", "mov"):
        codec = ["-c:v", "libvpx", "-deadline", "realtime"] if suffix == "webm" else ["-c:v", "mpeg4", "-q:v", "3"]
        faststart = ["-movflags", "+faststart"] if suffix in ("mp4", "mov") else []
        encode(folder / f"c.{suffix}", pixels, *codec, *faststart, pixel_format="gray")
    return folder


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm", "mov"])
def test_a_file_that_breaks_off_is_said_to(noisy, tmp_path, suffix):
    with open_clip(noisy / f"c.{suffix}") as clip:
        assert sum(1 for _ in clip) == 150
        assert clip.flaws() == []
    with open_clip(cut(noisy / f"c.{suffix}", tmp_path / f"cut.{suffix}")) as clip:
        assert 40 <= sum(1 for _ in clip) <= 70
        said = r"damaged" if suffix == "avi" else r"ends early: it says 6\.\d s and holds 2\.\d"  # AVI's index is lost
        assert re.search(said, clip.flaws()[0])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm", "mov"])
def test_damage_in_the_middle_is_said(noisy, tmp_path, suffix):
    content = bytearray((noisy / f"c.{suffix}").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    (tmp_path / f"c.{suffix}").write_bytes(content)
    with open_clip(tmp_path / f"c.{suffix}") as clip:
        assert sum(1 for _ in clip) <= 152
        assert clip.flaws()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_the_end_of_a_long_clip_is_sought(tmp_path, suffix, monkeypatch):
    levels = (np.arange(2000) % 200 + 20).astype(np.uint8)
    pixels = np.broadcast_to(levels[:, None, None], (2000, 16, 16))
    codec = ["-c:v", "mpeg4", "-q:v", "1", "-bf", "0"]
    source = Source(encode(tmp_path / f"c.{suffix}", pixels, *codec, pixel_format="gray"))
    told = []
    with source.open(last=7, progress=lambda done, total: told.append((done, total))) as clip:
        np.testing.assert_allclose(np.stack(list(clip))[:, 0, 0, 0] * 255, levels[-7:], atol=2)
        assert clip.flaws() == []
    assert len(told) < 1000 and told[-1][0] >= told[-1][1] - 2
    with source.open(last=7, start=79.8) as clip:
        np.testing.assert_allclose(np.stack(list(clip))[:, 0, 0, 0] * 255, levels[1995:], atol=2)


def test_a_file_is_known_by_its_content(numbered, tmp_path):
    (tmp_path / "clip.npy").write_bytes((numbered / "clip.mp4").read_bytes())
    assert len(read(tmp_path / "clip.npy")) == 100
    np.savez(tmp_path / "c.npz", frames=np.zeros((3, 8, 8), np.uint8))
    np.save(tmp_path / "c.npy", np.zeros((3, 8, 8), np.uint8))
    for name in ("c.npz", "c.npy"):
        (tmp_path / name).rename(tmp_path / "c.mp4")
        with open_clip(tmp_path / "c.mp4") as clip:
            assert (clip.kind, clip.frame_shape) == ("array", (1, 8, 8))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no /dev/stdin")
def test_a_file_on_standard_input_is_read_as_the_file(numbered):
    script = "from vmrnn_cli.video import open_clip; print(sum(1 for _ in open_clip('/dev/stdin')))"
    with (numbered / "clip.mp4").open("rb") as file:
        done = subprocess.run([sys.executable, "-c", script], stdin=file, capture_output=True, text=True)
    assert done.stdout == "100\n", done.stderr


@pytest.mark.parametrize("size", [(16400, 8), (9000, 9000)])
def test_frames_that_no_machine_holds_are_refused(tmp_path, size):
    W, H = size
    header = f"YUV4MPEG2 W{W} H{H} F25:1 Cmono\nFRAME\n".encode()
    (tmp_path / "c.y4m").write_bytes(header + b"0" * 5000)
    with pytest.raises(InputError, match=r"c\.y4m: its frames are" if W * H < 1e6 else r"c\.y4m"):
        open_clip(tmp_path / "c.y4m")


def test_an_ffmpeg_that_is_killed_is_not_the_end_of_the_clip(tmp_path):
    path = encode(tmp_path / "c.mkv", np.zeros((400, 240, 320), np.uint8), "-c:v", "rawvideo", pixel_format="gray")
    with open_clip(path) as clip:
        next(clip)
        clip._decoder._process.kill()
        with pytest.raises(VMRNNError, match=r"ffmpeg was killed while it read .*c\.mkv"):
            list(clip)


@pytest.mark.parametrize(
    "format_options", [["-pix_fmt", "yuv420p"], ["-pix_fmt", "yuvj420p"], ["-pix_fmt", "yuv420p10le"]]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_black_is_0_and_white_is_1_in_every_range(tmp_path, format_options, channels):
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    pixels[:, :, 16:] = 255
    frame = read(encode(tmp_path / "c.mp4", pixels, "-qp", "1", *format_options), channels=channels)[0]
    assert frame.shape == (channels, 32, 32)
    assert frame[..., :14].max() <= 1 / 255
    assert frame[..., 18:].min() >= 1 - 2 / 255


def test_colours_come_in_the_order_r_g_b(tmp_path, quadrants):
    frame = read(encode(tmp_path / "c.mkv", quadrants, "-c:v", "ffv1", "-pix_fmt", "bgr0"), channels=3)[0]
    np.testing.assert_array_equal(frame, quadrants[0].transpose(2, 0, 1) / np.float32(255))


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_rotation_is_honoured(tmp_path, quadrants, degrees, turns):
    flat = encode(tmp_path / "flat.mp4", quadrants, "-c:v", "libx264rgb", "-qp", "0")
    ffmpeg("-display_rotation", degrees, "-i", flat, "-c", "copy", tmp_path / "turned.mp4")
    frame = read(tmp_path / "turned.mp4", channels=3)[0]
    upright = np.rot90(quadrants[0], turns)  # both count anticlockwise
    np.testing.assert_allclose(frame * 255, upright.transpose(2, 0, 1), atol=1)


def test_pixels_come_out_square(tmp_path, quadrants):
    clip = encode(tmp_path / "c.mp4", quadrants, "-vf", "setsar=2")
    assert read(clip).shape == (2, 1, 48, 128)
    assert read(clip, size=24).shape == (2, 1, 24, 64)


@pytest.mark.parametrize(
    ("size", "shape"), [(None, (21, 33)), (14, (14, 22)), (64, (64, 100)), ((10, 7), (10, 7)), ((21, 33), (21, 33))]
)
@pytest.mark.parametrize("kind", ["video", "images", "array"])
def test_sizes_of_every_kind(tmp_path, kind, size, shape):
    pixels = np.full((2, 21, 33), 77, np.uint8)
    path = tmp_path / {"video": "c.mkv", "images": "", "array": "c.npy"}[kind]
    if kind == "video":
        encode(path, pixels, "-c:v", "ffv1", pixel_format="gray")
    elif kind == "images":
        Image.fromarray(pixels[0]).save(path / "1.png")
    else:
        np.save(path, pixels)
    frame = read(path, size=size)[0]
    assert frame.shape == (1, *shape)
    np.testing.assert_allclose(frame * 255, 77, atol=0.6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 40), (40, 1)])
def test_tiny_frames(tmp_path, shape):
    clip = encode(tmp_path / "c.nut", np.full((1, *shape), 99, np.uint8), "-c:v", "rawvideo", pixel_format="gray")
    assert read(clip).shape == (1, 1, *shape)
    assert read(clip, size=8).shape[2:] == tuple(8 if side == min(shape) else max(8, 8 * side) for side in shape)


@pytest.mark.parametrize("name", ["c.gif", "c.png", "c.webm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_over_black(tmp_path, name, channels):
    pixels = np.full((3, 32, 48, 4), 255, np.uint8)
    pixels[:, :, :16, 3] = 0  # white, and quite transparent
    images = [Image.fromarray(frame) for frame in pixels]
    if name == "c.webm":
        encode(tmp_path / name, pixels, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", pixel_format="rgba")
    else:
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=100)
    frame = read(tmp_path / name, channels=channels)[0]
    assert frame[..., :14].max() <= 2 / 255
    assert frame[..., 18:].min() >= 1 - 2 / 255


@pytest.mark.parametrize(("name", "shortest"), [("c.gif", 0.65), ("c.png", 0.65)])
def test_uneven_delays_get_a_usual_rate_and_their_real_time(tmp_path, name, shortest):
    images = [Image.new("L", (16, 16), 20 * index) for index in range(10)]
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=[100, 30] * 5)
    with open_clip(tmp_path / name) as clip:
        assert 8 <= clip.fps <= 16  # and not 31, or 100,000, with nearly all frames repeats
        assert sum(1 for _ in clip) / clip.fps == pytest.approx(shortest, abs=0.12)


def test_leaving_early_ends_the_decoder(numbered):
    with open_clip(numbered / "clip.mp4") as clip:
        next(clip)
        process = clip._decoder._process
    assert process.returncode is not None
    assert list(clip) == []


def test_a_clip_whose_end_is_missing_yields_what_is_there(numbered, tmp_path):
    whole = (numbered / "clip.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[: len(whole) // 2])
    numbers = frame_numbers(read(tmp_path / "cut.ts"))
    assert 20 < len(numbers) < 90
    assert numbers[:10] == list(range(10))


@pytest.mark.parametrize(
    "name",
    [
        "a b.mp4",
        "q'u\"o.mp4",
        "f%03d.mp4",
        "-dash.mp4",
        "été日本.mp4",
        "file:x.mp4",
        "http:x.mp4",
        "pipe:0",
        "[x]*?.mp4",
    ],
)
def test_a_name_is_only_a_name(numbered, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((numbered / "clip.mp4").read_bytes())
    assert len(read(name)) == 100


def test_a_playlist_opens_no_network(tmp_path):
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/v.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "net.m3u8").write_text(playlist)
    with pytest.raises(InputError, match="whitelist 'file'"):
        open_clip(tmp_path / "net.m3u8")


# ---- unusable files


@pytest.mark.parametrize(
    "suffix", [".mp4", ".avi", ".webm", ".gif", ".txt", ".nfo", ".npy", ".npz", ".pth", ".png", ""]
)
@pytest.mark.parametrize("content", ["empty", "text", "random", "checkpoint"])
def test_what_is_no_clip_is_one_line(tmp_path, suffix, content):
    random = np.random.default_rng(0).bytes(3000)
    contents = {"empty": b"", "text": b"hello\nworld\n", "random": random, "checkpoint": b"PK\x03\x04" + random}
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(contents[content])
    with pytest.raises(InputError) as caught:
        open_clip(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message and "None" not in message and len(message) < 400 + len(str(tmp_path))


def test_sound_alone_is_no_clip(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.m4a")
    with pytest.raises(InputError, match=r"sound\.m4a: it holds no video"):
        open_clip(tmp_path / "sound.m4a")


def test_missing_files_folders_without_images_and_devices(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_clip(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="holds no images"):
        open_clip(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        open_clip(os.devnull)


@pytest.mark.parametrize(
    "options",
    [{"fps": 0}, {"fps": float("nan")}, {"start": -1}, {"start": float("inf")}, {"size": 0}, {"size": (8, -8)}],
)
def test_impossible_requests(numbered, options):
    with pytest.raises(InputError):
        open_clip(numbered / "clip.mp4", **options)


@pytest.mark.parametrize("kind", ["video", "images"])
def test_pictures_have_one_or_three_channels(numbered, tmp_path, kind):
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match="2 channels"):
        open_clip(numbered / "clip.mp4" if kind == "video" else tmp_path, channels=2)


def test_no_ffmpeg_is_a_failure_of_the_machine(numbered, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(VMRNNError, match="ffmpeg") as caught:
        open_clip(numbered / "clip.mp4")
    assert caught.value.exit_code == 1


# ---- images


def test_the_longer_side_is_rounded_as_ffmpeg_rounds(tmp_path, quadrants):
    square = quadrants[:, :48, :48]
    for number, frame in enumerate(square):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    clip = encode(tmp_path / "c.mkv", square, "-c:v", "ffv1", "-pix_fmt", "bgr0")
    for size in (33, 34, 35, 65):
        assert read(tmp_path, size=size).shape == read(clip, size=size).shape


def test_images_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        Image.new("L", (8, 6), number * 10).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame3.png").write_bytes(b"what macOS leaves on foreign disks")
    with open_clip(tmp_path) as clip:
        assert (clip.kind, clip.fps, clip.frame_shape) == ("images", 10.0, (1, 6, 8))
        assert [round(float(frame.mean()) * 255) for frame in clip] == [10, 20, 100]
    assert len(read(tmp_path, fps=2, start=0.5)) == 2
    with pytest.raises(InputError, match=r"3 frame\(s\), 10 a second"):
        open_clip(tmp_path, start=1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_formats_and_channels(tmp_path, suffix, channels):
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / f"1.{suffix}")
    frame = read(tmp_path, channels=channels)[0]
    expected = [1.0, 0.0, 0.0] if channels == 3 else [0.299]
    np.testing.assert_allclose(frame.mean(axis=(1, 2)), expected, atol=0.02)


def test_sixteen_bits_and_alpha(tmp_path):
    ramp = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(ramp).save(tmp_path / "1.png")
    np.testing.assert_allclose(read(tmp_path)[0, 0], ramp / 65535, atol=1e-6)

    Image.new("RGBA", (8, 6), (255, 255, 255, 51)).save(tmp_path / "1.png")
    np.testing.assert_allclose(read(tmp_path), 0.2, atol=0.01)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_exif_rotation(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    halves = np.repeat(np.uint8([[0] * 32 + [255] * 32]), 16, axis=0)  # (H, W) black at the left
    Image.fromarray(halves).save(tmp_path / f"1.{suffix}", exif=exif)
    frame = read(tmp_path)[0, 0]
    assert frame.shape == (64, 16)
    assert frame[:28].max() < 0.1 and frame[36:].min() > 0.9  # black at the top


def test_the_odd_image_is_named(tmp_path):
    for number, size in enumerate([(8, 6), (8, 6), (9, 6)]):
        Image.new("L", size).save(tmp_path / f"{number}.png")
    with open_clip(tmp_path) as clip, pytest.raises(InputError, match=r"2\.png is 9x6, but 0\.png 8x6"):
        list(clip)


# ---- arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_are_read_bit_for_bit(tmp_path, dtype, suffix):
    array = np.random.default_rng(0).random((4, 5, 6))
    array = (array * 255).astype(dtype) if dtype == np.uint8 else array.astype(dtype)
    path = tmp_path / f"c{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    with open_clip(path) as clip:
        assert (clip.kind, clip.fps, clip.frame_shape) == ("array", 10.0, (1, 5, 6))
        frames = np.stack(list(clip))
    expected = array.astype(np.float32) / np.float32(255 if dtype == np.uint8 else 1)
    np.testing.assert_array_equal(frames[:, 0], expected)
    np.testing.assert_array_equal(read(path, start=0.2), frames[2:])


def test_the_key_frames_wins_and_many_arrays_need_it(tmp_path):
    one, other = np.zeros((2, 4, 4), np.uint8), np.full((3, 4, 4), 255, np.uint8)
    np.savez(tmp_path / "c.npz", labels=one, frames=other)
    np.testing.assert_array_equal(read(tmp_path / "c.npz"), np.ones((3, 1, 4, 4)))
    np.savez(tmp_path / "c.npz", labels=one, clips=other)
    with pytest.raises(InputError, match=r"2 arrays.*labels, clips.*frames"):
        open_clip(tmp_path / "c.npz")


def test_channels_of_arrays(tmp_path):
    colour = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    np.save(tmp_path / "c.npy", colour)
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    np.testing.assert_allclose(read(tmp_path / "c.npy", channels=1)[:, 0], luma, atol=1e-6)
    np.save(tmp_path / "c.npy", colour[:, 0])
    np.testing.assert_array_equal(read(tmp_path / "c.npy", channels=3), np.repeat(colour[:, :1], 3, axis=1))
    np.save(tmp_path / "c.npy", colour[:, :2])
    np.testing.assert_array_equal(read(tmp_path / "c.npy", channels=2), colour[:, :2])
    with pytest.raises(InputError, match=r"has 2 channels.*1 are wanted"):
        open_clip(tmp_path / "c.npy", channels=1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.float32), r"shaped \(4, 4\)"),
        (np.zeros((0, 4, 4), np.float32), "empty"),
        (np.zeros((2, 4, 4), np.int64), "int64"),
        (np.zeros((2, 4, 4), complex), "complex128"),
        (np.full((2, 4, 4), np.inf), "infinite"),
        (np.full((2, 4, 4), 255.0), r"from 255 to 255.*\[0, 1\]"),
        (np.full((2, 4, 4), -0.5), r"from -0\.5 to -0\.5"),
    ],
)
def test_unusable_arrays(tmp_path, array, message):
    np.save(tmp_path / "c.npy", array)
    with pytest.raises(InputError, match=message):
        open_clip(tmp_path / "c.npy")


def test_a_flaw_further_on_is_found_when_its_frame_comes(tmp_path):
    array = np.zeros((3, 4, 4), np.float32)
    array[2, 1, 1] = np.inf
    np.save(tmp_path / "c.npy", array)
    with open_clip(tmp_path / "c.npy") as clip:
        assert len(list(itertools.islice(clip, 2))) == 2
        with pytest.raises(InputError, match=r"c\.npy, frame 2, holds infinite"):
            next(clip)


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "c.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(InputError, match="no array of numbers"):
        open_clip(tmp_path / "c.npy")
    assert not (tmp_path / "exploded").exists()


# ---- writing


def picture(index, height=41, width=63):
    """A dark canvas with a square that moves."""
    frame = np.full((height, width, 3), (20, 24, 32), np.uint8)
    frame[5:15, 2 + 3 * index : 12 + 3 * index] = (0, 255, 0)  # where BT.601 and BT.709 differ most
    return frame


def write(path, fps=25.0, frames=8, overwrite=False):
    with write_video(path, fps=fps, overwrite=overwrite) as writer:
        for index in range(frames):
            writer.write(picture(index))


@pytest.mark.parametrize(("suffix", "tolerance"), [(".gif", 1), (".mp4", 6), (".webm", 6), (".GIF", 1)])
def test_what_is_written_can_be_read(tmp_path, suffix, tolerance):
    path = tmp_path / f"out{suffix}"
    write(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with open_clip(path, channels=3) as clip:
        assert clip.fps == 25
        frames = list(clip)
    assert len(frames) == 8
    even = suffix.lower() != ".gif"
    assert frames[0].shape == (3, 41 + even, 63 + even)
    written = picture(7).transpose(2, 0, 1)
    difference = np.abs(frames[7][:, :41, :63] * 255 - written)
    assert difference.mean() < tolerance
    np.testing.assert_allclose(np.median(frames[7][:, 8:12, 26:30], axis=(1, 2)) * 255, (0, 255, 0), atol=5)


@pytest.mark.parametrize(("fps", "delays"), [(25, {40}), (30, {30, 40}), (120, {20}), (2, {500})])
def test_gif_delays(tmp_path, fps, delays):
    write(tmp_path / "out.gif", fps=fps, frames=6)
    with Image.open(tmp_path / "out.gif") as gif:
        assert gif.n_frames == 6
        assert gif.info["loop"] == 0  # for ever
        found = []
        for index in range(gif.n_frames):
            gif.seek(index)
            found.append(gif.info["duration"])
    assert set(found) == delays
    assert sum(found) == pytest.approx(6000 / min(fps, 50), abs=10)


def test_mp4_plays_in_browsers(tmp_path):
    write(tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playback starts before the download ends
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "out.mp4"], capture_output=True, text=True)
    assert "h264" in done.stderr and "yuv420p(tv, bt709" in done.stderr and "64x42" in done.stderr


@pytest.mark.parametrize("name", ["out.png", "out.npz", "out.avi", "out"])
def test_no_video_suffix(tmp_path, name):
    with pytest.raises(InputError, match=r"\.gif"), write_video(tmp_path / name, fps=5, overwrite=False):
        pytest.fail("the block must not run")


def test_an_old_video_needs_overwrite_and_survives_failures(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_text("old")
    with pytest.raises(InputError, match="--overwrite"):
        write(path)
    with pytest.raises(KeyboardInterrupt), write_video(path, fps=5, overwrite=True) as writer:
        writer.write(picture(0))
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    write(path, overwrite=True)
    assert len(read(path)) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_frames_of_another_size_or_type_are_a_mistake_of_the_caller(tmp_path):
    for frame in (picture(0, height=43), picture(0).astype(np.float32)):
        with (
            pytest.raises(ValueError, match="expected uint8"),
            write_video(tmp_path / "o.gif", fps=5, overwrite=False) as w,
        ):
            w.write(picture(0))
            w.write(frame)
    with pytest.raises(ValueError, match="no frame"), write_video(tmp_path / "o.gif", fps=5, overwrite=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for ffmpeg is a shell script")
@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".webm"])
def test_ffmpeg_fails_with_its_own_reason(tmp_path, monkeypatch, suffix):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nhead -c 9 >/dev/null\necho '[x] [error] No space left on device' >&2\nexit 1\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
    (tmp_path / "out").mkdir()
    with pytest.raises(VMRNNError, match=rf"clip\{suffix}: ffmpeg says No space left on device"):
        write(tmp_path / "out" / f"clip{suffix}", frames=100)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_ctrl_c_leaves_nothing_behind(tmp_path, suffix):
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import numpy as np; from vmrnn_cli.video import write_video\n"
        "with write_video(sys.argv[1], fps=5, overwrite=False) as writer:\n"
        "    while True:\n"
        "        writer.write(np.zeros((64, 64, 3), np.uint8)); print('frame', flush=True)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / f"out{suffix}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(tmp_path.iterdir())  # there is something to clear away
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert errors.strip().endswith(b"KeyboardInterrupt")
    assert list(tmp_path.iterdir()) == []


# ---- real clips


@pytest.mark.parametrize(
    ("name", "shape", "frames"),
    [
        ("kth/boxing/person01_boxing_d1_uncomp.avi", (1, 120, 160), 360),
        ("wild/decord_rotate_270.mov", (1, 568, 320), 3),
        ("wild/fire2.mp4", (1, 720, 1280), 24),
        ("wild/h264_10bits.mp4", (1, 200, 200), 30),
        ("wild/no_duration.webm", (1, 720, 1280), 74),
    ],
)
def test_clips_from_the_wild(name, shape, frames):
    if "VMRNN_TEST_DATA" not in os.environ:
        pytest.skip("VMRNN_TEST_DATA does not name the folder with the real clips")
    with open_clip(Path(os.environ["VMRNN_TEST_DATA"]) / "data" / name) as clip:
        assert clip.frame_shape == shape
        assert sum(1 for _ in clip) == frames
