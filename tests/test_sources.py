"""Where streams come from over a network, on this machine: http, what breaks off, and what must not be opened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import imageio_ffmpeg
import numpy as np
import pytest
from commands import one_error_line
from moving import texture

from vmrnn_cli.errors import InputError
from vmrnn_cli.sources import open_stream

SIDE = 64


@pytest.fixture(scope="module")
def clip():
    """A second of H.264 in MPEG-TS, which can be read from anywhere on."""
    world = (255 * texture(2 * SIDE, 0)[0, 0].numpy()).astype(np.uint8)
    frames = b"".join(np.ascontiguousarray(world[20 : 20 + SIDE, t : t + SIDE]).tobytes() for t in range(25))
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{SIDE}x{SIDE}", "-framerate", "25", "-i", "-"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-tune", "zerolatency", "-g", "5", "-f", "mpegts", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, *coded]
    return subprocess.run(command, input=frames, capture_output=True, check=True).stdout


@contextmanager
def serving(answer):
    """A server whose answer to each request is `answer(handler, number)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            answer(self, len(server.asked))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.daemon_threads = [], True
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


def send(handler, content, kind="video/mp2t", **headers):
    handler.send_response(200)
    for name, value in {"Content-Type": kind, **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def watch(tiny, *arguments, **options):
    command = [sys.executable, "-m", "vmrnn_cli", "watch", *map(str, arguments), "--weights", str(tiny)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, **options)


def test_a_stream_over_http_is_watched_to_its_end(tiny, clip):
    with serving(lambda handler, _: send(handler, clip)) as server:
        done = watch(tiny, f"{server.url}/a.ts", "--size", "32")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert (lines[0]["fps"], lines[-1]["why"]) == (25, "the stream ended")
    assert lines[-1]["frames"] + lines[-1]["dropped"] == 25


def test_what_is_a_file_over_http_is_watched_whole(tiny, clip):
    with serving(lambda handler, _: send(handler, clip, **{"Content-Length": str(len(clip))})) as server:
        done = watch(tiny, f"{server.url}/a.ts", "--size", "32")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["frames"], last["dropped"]) == (0, 25, 0)


def test_a_stream_is_seen_while_it_comes(tiny, clip):
    """Not once it has ended: it has neither a length nor chunks."""
    seen = threading.Event()

    def answer(handler, _):
        send(handler, clip)
        handler.wfile.flush()
        assert seen.wait(60)

    with serving(answer) as server:
        command = [sys.executable, "-m", "vmrnn_cli", "watch", server.url, "--size", "32", "--weights", str(tiny)]
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
            lines = [json.loads(process.stdout.readline()) for _ in range(6)]
            seen.set()
            process.communicate(timeout=60)
    assert [line["type"] for line in lines] == ["start", *["frame"] * 5]


def test_motion_jpeg_of_cameras_is_watched(tiny, tmp_path):
    from PIL import Image

    pictures = []
    for number in range(8):
        Image.fromarray(np.full((SIDE, SIDE), 20 * number, np.uint8)).save(tmp_path / "one.jpg")
        pictures.append((tmp_path / "one.jpg").read_bytes())
    parts = [b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(p), p) for p in pictures]
    kind = "multipart/x-mixed-replace; boundary=next"
    with serving(lambda handler, _: send(handler, b"".join(parts), kind)) as server:
        done = watch(tiny, server.url, "--size", "32", "--fps", "25")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["frames"] >= 6


def test_what_breaks_off_is_taken_up_again_and_said_once(tiny, clip):
    def answer(handler, number):
        if number in (2, 3):  # not back yet
            handler.send_error(503)
        else:
            send(handler, clip)

    with serving(answer) as server:
        command = [sys.executable, "-m", "vmrnn_cli", "watch", server.url, "--size", "32", "--weights", str(tiny)]
        with subprocess.Popen([*command, "--reconnect"], stdout=-1, stderr=-1, text=True) as process:
            begin, frames = time.monotonic(), 0
            while frames < 40 and time.monotonic() - begin < 90:  # more than one connection gives
                line = json.loads(process.stdout.readline())
                frames += line["type"] == "frame"
            asked = len(server.asked)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, asked >= 4, frames) == (130, True, 40)
    told = [line for line in errors.splitlines() if "broke off" in line]
    assert 1 <= len(told) <= asked - 2, errors  # once for each time that it broke off, not for each try
    assert len(told) == len(errors.splitlines())


def test_without_reconnect_it_ends(tiny, clip):
    def answer(handler, _):
        send(handler, clip[:-2000], **{"Content-Length": str(len(clip))})
        handler.close_connection = True

    with serving(answer) as server:
        done = watch(tiny, server.url, "--size", "32")
    assert done.returncode == 0, done.stderr
    assert "breaks off" in done.stderr


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%s\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("place", ["file", "http", "relative"])
@pytest.mark.parametrize("by", ["http", "file", "input"])
def test_no_playlist_makes_it_open_anything_else(tiny, clip, tmp_path, place, by):
    (tmp_path / "secret.ts").write_bytes(clip)
    with serving(lambda handler, _: send(handler, clip)) as other:
        named = {
            "file": f"file://{tmp_path}/secret.ts", "http": f"{other.url}/secret.ts", "relative": "secret.ts"
        }[place]  # fmt: skip
        playlist = PLAYLIST % named.encode()
        (tmp_path / "list.m3u8").write_bytes(playlist)
        (tmp_path / "list.ts").write_bytes(playlist)
        with serving(lambda handler, number: send(handler, playlist if number == 1 else clip)) as server:
            source = {"http": f"{server.url}/a.ts", "file": str(tmp_path / "list.ts"), "input": "-"}[by]
            command = [sys.executable, "-m", "vmrnn_cli", "watch", source, "--weights", str(tiny)]
            given = playlist if by == "input" else b""
            done = subprocess.run(command, input=given, capture_output=True, timeout=120, cwd=tmp_path)
            assert (done.returncode, done.stdout) == (2, b"")
            one_error_line(done.stderr.decode())
            assert len(server.asked) == (by == "http")
        assert other.asked == []


def test_an_address_may_not_send_on_to_another_host():
    def answer(handler, _):
        handler.send_response(302)
        handler.send_header("Location", "http://localhost:1/a.ts")
        handler.end_headers()

    with (
        serving(answer) as server,
        pytest.raises(InputError, match="sends on to http://localhost"),
        open_stream(server.url),
    ):
        pass


@pytest.mark.skipif(os.name == "nt", reason="a script takes the place of ffmpeg")
@pytest.mark.parametrize(
    ("source", "protocols", "given"),
    [("rtsp://me:word@127.0.0.1:1/a", "rtsp,rtp,tcp", "-rtsp_transport tcp"), ("-", "pipe", "-i pipe:0")],
)
def test_ffmpeg_is_given_one_protocol(tiny, tmp_path, source, protocols, given):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "[error] nobody is there" >&2\nexit 1\n')
    fake.chmod(0o755)
    command = [sys.executable, "-m", "vmrnn_cli", "watch", source, "--weights", str(tiny)]
    environment = {**os.environ, "IMAGEIO_FFMPEG_EXE": str(fake)}
    done = subprocess.run(command, input="x", capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 2
    assert "word" not in one_error_line(done.stderr)  # the password
    arguments = (tmp_path / "arguments").read_text()
    assert f"-protocol_whitelist {protocols} " in arguments
    assert given in arguments
