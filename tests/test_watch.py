"""`vmrnn watch`: what it prints and writes, and what becomes of it when something fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import CLIP, one_error_line, vmrnn
from moving import texture
from PIL import Image

SIDE = 64


def pan(frames, seed=0):
    """A picture that passes by, as bytes of gray frames."""
    world = (255 * texture(2 * SIDE, seed)[0, 0].numpy()).astype(np.uint8)
    return [np.ascontiguousarray(world[20 : 20 + SIDE, t % SIDE : t % SIDE + SIDE]) for t in range(frames)]


def cut(before=60, after=40):
    return b"".join(frame.tobytes() for frame in [*pan(before), *pan(after, seed=7)])


RAW = ["-", "--raw", f"{SIDE}x{SIDE}:gray", "--size", "native", "--frames", "5"]


def watch(tiny, *arguments, given=b"", **options):
    command = [sys.executable, "-m", "vmrnn_cli", "watch", *map(str, arguments), "--weights", str(tiny)]
    return subprocess.run(command, input=given, capture_output=True, timeout=300, **options)


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_the_lines_are_as_documented(tiny, tmp_path):
    done = watch(tiny, *RAW, "-o", tmp_path / "events", given=cut())
    assert done.returncode == 0, done.stderr
    first, *between, last = lines(done.stdout)
    assert first == {
        "type": "start", "version": 1, "vmrnn": "0.1.0", "size": [SIDE, SIDE], "alarm": pytest.approx(4.954, abs=1e-3),
        "source": "-", "weights": "tiny", "fps": 25.0, "every": 5, "frames": 5, "leads": [1, 5, 10],
        "alarms_per_hour": 1.0,
    }  # fmt: skip
    frames = [line for line in between if "event" not in line]
    assert [line["frame"] for line in frames] == list(range(100))
    assert [line["time"] for line in frames[:3]] == [0, 0.04, 0.08]
    assert set(frames[0]) == {"type", "frame", "time", "surprise", "mse", "baseline_last_frame", "baseline_motion"}
    assert frames[10]["mse"].keys() == frames[10]["baseline_motion"].keys() == {"1"}
    assert frames[60]["surprise"] > first["alarm"] > frames[59]["surprise"]
    began, ended, written = (line for line in between if "event" in line)
    assert (began["event"], began["state"], began["frame"], began["time"]) == (1, "began", 60, 2.4)
    assert (ended["event"], ended["state"], ended["began"], ended["peak"]) == (1, "ended", 60, 60)
    assert written == {
        "type": "event",
        "event": 1,
        "state": "written",
        "file": str(tmp_path / "events" / "event_0001.mp4"),
    }
    assert last.pop("network_s") > 0
    assert last == {"type": "end", "why": "the stream ended", "frames": 100, "dropped": 0, "events": 1}
    assert [file.name for file in (tmp_path / "events").iterdir()] == ["event_0001.mp4"]


def test_the_film_has_the_seconds_before_and_after(tiny, tmp_path):
    from vmrnn_cli.video import open_clip

    assert watch(tiny, *RAW, "-o", tmp_path, "--margin", "0.4", given=cut()).returncode == 0
    with open_clip(tmp_path / "event_0001.mp4", channels=3) as clip:
        film = list(clip)
    assert 20 <= len(film) <= 40
    assert film[0].shape[2] > 3 * film[0].shape[1] * 0.8  # picture, forecast, and where it surprises
    again = watch(tiny, *RAW, "-o", tmp_path, given=cut())
    assert (again.returncode, again.stdout.count(b"\n")) == (2, 0)
    assert "--overwrite" in one_error_line(again.stderr.decode())


def test_standard_input_gives_the_numbers_of_the_file(tiny):
    numbers = [
        [line.get("mse") for line in lines(watch(tiny, source, "--size", "32", "--frames", "5", given=given).stdout)]
        for source, given in ((CLIP, b""), ("-", CLIP.read_bytes()))
    ]
    assert len(numbers[0]) > 12
    assert numbers[0] == numbers[1]


def test_half_a_frame_is_none(tiny):
    done = watch(tiny, *RAW, given=cut(12, 0) + b"x" * 1000)
    assert done.returncode == 0
    assert lines(done.stdout)[-1]["frames"] == 12
    done = watch(tiny, "-", given=CLIP.read_bytes()[:-3000])
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr


def test_the_size_may_change(tiny, tmp_path):
    stream = b""
    for number, frame in enumerate(pan(30)):
        side = SIDE if number < 15 else 2 * SIDE
        Image.fromarray(frame).resize((side, side)).save(tmp_path / "one.jpg")
        stream += (tmp_path / "one.jpg").read_bytes()
    done = watch(tiny, "-", "--size", "32", "--frames", "5", given=stream)
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[-1]["frames"] == 30


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["-"], b""),
        (["-"], b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"),
        (["-"], b"ffconcat version 1.0\nfile /etc/hostname\n"),
        (["no.mp4"], b""),
        (["ftp://127.0.0.1/a.mp4"], b""),
        (["/dev/video77"], b""),
        ([CLIP, "--reconnect"], b""),
        ([CLIP, "--raw", "4x4"], b""),
        (["-", "--raw", "4"], b"x"),
        ([CLIP, "--leads", "one"], b""),
        ([CLIP, "--every", "20"], b""),
        ([CLIP, "--serve", "0.0.0.0:0"], b""),
        ([CLIP, "--serve", "here"], b""),
    ],
)
def test_what_cannot_be_watched_is_refused_in_a_line(tiny, arguments, given):
    done = watch(tiny, *arguments, given=given)
    assert (done.returncode, done.stdout) == (2, b""), done.stderr
    one_error_line(done.stderr.decode())


def test_a_closed_standard_output_ends_it(tiny):
    command = f"head -c 20000000 /dev/zero | {sys.executable} -m vmrnn_cli watch {' '.join(RAW)} --weights {tiny}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -2; echo ${{PIPESTATUS[1]}}"], capture_output=True, timeout=300
    )
    assert done.stdout.splitlines()[2] == b"1"
    assert done.stderr == b""


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_ends_it_in_a_line(tiny):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "vmrnn_cli", "watch", *RAW, "--weights", str(tiny)]
        done = subprocess.run(command, input=cut(), stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1
    assert "No space left" in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of files are set by what POSIX has")
def test_a_disk_that_gets_full_while_a_film_is_written_leaves_nothing(tiny, tmp_path):
    import resource

    def fill_up():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = watch(tiny, *RAW, "-o", tmp_path / "events", given=cut(), preexec_fn=fill_up)
    assert done.returncode == 1, done.stderr
    one_error_line(done.stderr.decode())
    assert list((tmp_path / "events").iterdir()) == []
    assert lines(done.stdout)[-1]["type"] in ("event", "frame")  # whole lines


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are POSIX' here")
def test_a_terminal_gets_a_live_line_with_a_curve(tiny):
    import os
    import pty

    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "vmrnn_cli", "watch", *RAW, "--weights", str(tiny)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=end, stderr=end) as process:
        os.close(end)
        process.stdin.write(cut())
        process.stdin.close()
        shown = b""
        try:
            while part := os.read(terminal, 65536):
                shown += part
        except OSError:  # Linux says so that the other end is closed
            pass
        assert process.wait(60) == 0
    os.close(terminal)
    text = shown.decode()
    live = [line for line in text.replace("\r\n", "\r").split("\r\x1b[K") if "|" in line]
    assert len(live) > 10
    assert any(bar in live[-1] for bar in "▂▃▄▅▆▇█")
    assert all(len(line.split("\r")[0]) <= 78 for line in live)
    assert "event 1 began at 2.40 s" in text
    assert "the stream ended: 100 frames, 1 events" in text
    assert "{" not in text


def started(tiny, *arguments):
    command = [sys.executable, "-m", "vmrnn_cli", "watch", *map(str, arguments), "--weights", str(tiny)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_what_is_begun(tiny, tmp_path, number):
    with started(tiny, *RAW, "-o", tmp_path / "events") as process:
        process.stdin.write(cut(60, 3))
        process.stdin.flush()
        seen = b""
        while b'"frame": 61' not in seen:
            seen += process.stdout.readline()
        process.send_signal(number)
        rest, error = process.stdout.read(), process.stderr.read()
        assert process.wait(60) == 130
    assert error == b""
    ended, written, last = lines(rest)[-3:]
    assert (ended["state"], written["state"], last["why"]) == ("ended", "written", "interrupted")
    assert [file.name for file in (tmp_path / "events").iterdir()] == ["event_0001.mp4"]


def test_a_stream_that_stops_for_a_while_goes_on(tiny):
    noise = np.random.default_rng(0)
    still = [pan(1)[0] // 2 + noise.integers(0, 4, (SIDE, SIDE), np.uint8) for _ in range(60)]
    stream, half = b"".join(frame.tobytes() for frame in still), 30 * SIDE * SIDE
    with started(tiny, *RAW, "--realtime", "--fps", "50") as process:
        process.stdin.write(stream[:half])
        process.stdin.flush()
        time.sleep(10)
        process.stdin.write(stream[half:])
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")
    told = lines(out)
    assert [line["gap"] > 7 for line in told if "gap" in line] == [True]
    assert not [line for line in told if "event" in line]


def test_a_folder_is_watched_as_images_fall_into_it(tiny, tmp_path):
    frames = pan(8)
    for number, frame in enumerate(frames[:4]):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    with started(tiny, tmp_path, "--size", "native", "--frames", "5") as process:
        told = [json.loads(process.stdout.readline()) for _ in range(5)]
        Image.fromarray(frames[4]).save(tmp_path / "half.png")
        whole = (tmp_path / "half.png").read_bytes()
        (tmp_path / "half.png").unlink()
        (tmp_path / "4.png").write_bytes(whole[:200])
        time.sleep(0.5)
        (tmp_path / "4.png").write_bytes(whole)
        told.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert [line.get("frame") for line in told] == [None, 0, 1, 2, 3, 4]
    assert process.returncode == 130


def test_help_explains_the_lines(tmp_path):
    out = " ".join(vmrnn("watch", "--help", cwd=tmp_path).stdout.split())
    assert all(f'"{name}"' in out for name in ("surprise", "baseline_motion", "dropped", "gap", "network_s"))
