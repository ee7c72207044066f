"""`vmrnn predict` on real clips, as a user would type it."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import CLIP, DIGITS, one_error_line, vmrnn
from PIL import Image

from vmrnn_cli.batch import find_files
from vmrnn_cli.errors import InputError


def test_json_has_the_promised_keys_and_nothing_else_is_printed(run, tiny):
    code, out, err = run("predict", DIGITS, "--weights", tiny, "-o", "o.gif", "--json", "--threads", 1)
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert set(result) == {
        "source", "output", "device", "dtype", "scan_backend", "weights", "context", "frames", "frame_size", "fps",
        "picture_size", "divided_by", "notes", "known_frames", "timing", "metrics", "baseline_last_frame",
        "baseline_motion", "whole",
    }  # fmt: skip
    assert set(result["timing"]) == {"load_s", "decode_s", "predict_s", "write_s", "steps"}
    assert result["timing"]["steps"] == 3 - 1 + 2
    assert set(result["metrics"]) == set(result["baseline_last_frame"]) == {"mse", "ssim", "psnr"}
    frames = np.load(DIGITS)["frames"].astype(np.float64) / 255
    assert result["baseline_last_frame"]["mse"] == pytest.approx(
        np.mean([np.square(frames[i] - frames[2]).sum() for i in (3, 4)])
    )


def test_json_without_truth_has_null_metrics(run, tiny):
    result = json.loads(run("predict", DIGITS, "--weights", tiny, "-o", "o.npz", "--json", "--from-end")[1])
    assert result["metrics"] is None
    assert result["baseline_last_frame"] is None


def test_several_sources_go_to_a_folder(run, tiny, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    code, _, err = run("predict", DIGITS, tmp_path / "bad.mp4", "--weights", tiny, "-o", "out")
    assert code == 1
    assert "bad.mp4" in one_error_line(err)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["digits_predicted.gif"]


@pytest.mark.parametrize("wrong", [["--panels", "lies"], ["--weights", "nonsense"], ["--device", "toaster"]])
def test_folder_for_outputs_is_made_with_the_first(run, tiny, tmp_path, wrong):
    np.save(tmp_path / "bad.npy", np.zeros(3))
    weights = ["--weights", tiny] if "--weights" not in wrong else []
    assert run("predict", DIGITS, "bad.npy", *weights, "-o", "out", *wrong)[0] == 2
    assert run("predict", "bad.npy", "nowhere.npy", "--weights", tiny, "-o", "out")[0] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["bad.npy"]


def test_missing_source_is_told_before_anything_is_loaded(tmp_path):
    code = (
        "import sys; from vmrnn_cli.__main__ import run; code = run(['predict', 'nope.mp4', '-o', 'o.gif']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nope.mp4" in one_error_line(done.stderr)


def test_default_output_is_named_after_the_source(run, tiny, tmp_path):
    assert run("predict", CLIP, "--weights", tiny, "--size", 32, "-q")[:2] == (0, "")
    assert (tmp_path / "digits_predicted.gif").exists()


def test_existing_output_is_kept_unless_told(run, tiny, tmp_path):
    (tmp_path / "o.gif").write_bytes(b"mine")
    code, _, err = run("predict", DIGITS, "--weights", tiny, "-o", "o.gif")
    assert (code, (tmp_path / "o.gif").read_bytes()) == (2, b"mine")
    assert "--overwrite" in one_error_line(err)
    assert run("predict", DIGITS, "--weights", tiny, "-o", "o.gif", "--overwrite")[0] == 0
    assert (tmp_path / "o.gif").read_bytes()[:3] == b"GIF"


def test_source_is_never_overwritten(run, tiny, tmp_path):
    shutil.copy(DIGITS, tmp_path / "clip.npz")
    before = (tmp_path / "clip.npz").read_bytes()
    code, _, err = run("predict", "clip.npz", "--weights", tiny, "-o", "clip.npz", "--overwrite")
    assert (code, (tmp_path / "clip.npz").read_bytes()) == (2, before)
    one_error_line(err)


def test_no_source_of_a_batch_is_overwritten(run, tiny, tmp_path):
    shutil.copy(DIGITS, tmp_path / "clip.npz")
    assert run("predict", "clip.npz", "--weights", tiny, "--frames", 2)[0] == 0
    before = (tmp_path / "clip_predicted.gif").read_bytes()
    code, _, err = run("predict", "clip.npz", "clip_predicted.gif", "--weights", tiny, "--overwrite")
    assert (code, (tmp_path / "clip_predicted.gif").read_bytes()) == (2, before)
    assert "clip_predicted.gif" in one_error_line(err)


def test_a_folder_that_cannot_be_made_is_refused_first(run, tmp_path):
    (tmp_path / "file").touch()
    np.save(tmp_path / "clip.npy", np.zeros((20, 16, 16), np.uint8))
    code, _, err = run("predict", DIGITS, "clip.npy", "-o", "file/out")
    assert code == 2
    assert "file is a file" in one_error_line(err)


def test_no_picture_among_the_frames_of_a_source(run, tiny, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(4):
        Image.new("L", (16, 16)).save(tmp_path / "frames" / f"{number}.png")
    for name in ("0.png", "strip.png"):
        code, _, err = run("predict", "frames", "--weights", tiny, "-o", f"frames/{name}", "--overwrite")
        assert code == 2
        assert "another folder" in one_error_line(err)
    assert len(list((tmp_path / "frames").iterdir())) == 4


def test_each_source_gets_the_weights_that_fit(run, tmp_path):
    np.save(tmp_path / "grid.npy", np.zeros((8, 2, 16, 8), np.float32))
    code, out, err = run("predict", "nowhere.npy", "grid.npy", DIGITS, "--frames", 1, "-o", "out", "--json")
    result = json.loads(out)
    assert code == 1
    assert [forecast["weights"] for forecast in result["forecasts"]] == ["vmrnn-b-bikenyc", "vmrnn-d-mmnist-small"]
    assert len(result["failed"]) == 1
    assert "nowhere.npy" in one_error_line(err)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".avi", ".webm", ".npy", ".npz", ".png", ".dat"])
@pytest.mark.parametrize(
    "content", [b"", b"just some text\n" * 9, bytes(range(256)) * 8], ids=["empty", "text", "random"]
)
def test_unusable_files(run, tiny, tmp_path, suffix, content):
    (tmp_path / f"bad{suffix}").write_bytes(content)
    code, out, err = run("predict", f"bad{suffix}", "--weights", tiny, "-o", "o.gif")
    assert (code, out) == (2, "")
    assert f"bad{suffix}" in one_error_line(err)
    assert not (tmp_path / "o.gif").exists()


def arrays():
    ok = np.zeros((9, 16, 16), np.float32)
    yield "nan", np.full_like(ok, np.nan)
    yield "range", ok + 3
    yield "negative", ok - 0.5
    yield "rank2", ok[0]
    yield "rank6", ok[None, None, None]
    yield "short", ok[:2]
    yield "channels", np.zeros((9, 2, 16, 16), np.float32)
    yield "ints", np.zeros((9, 16, 16), np.int64)
    yield "small", np.zeros((9, 1, 1), np.float32)
    yield "none", ok[:0]
    yield "text", np.array(["a", "b"])
    yield "infinite", np.full_like(ok, np.inf)
    yield "barely", ok + np.float32(1.001)


@pytest.mark.parametrize(("name", "array"), list(arrays()), ids=[name for name, _ in arrays()])
def test_unusable_arrays(run, tiny, tmp_path, name, array):
    np.save(tmp_path / "x.npy", array)
    code, out, err = run("predict", "x.npy", "--weights", tiny, "-o", "o.gif")
    assert (code, out) == (2, "")
    assert "x.npy" in one_error_line(err)
    assert not (tmp_path / "o.gif").exists()


def test_object_arrays_and_several_arrays(run, tiny, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "o.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros((9, 8, 8)), b=np.zeros((9, 8, 8)))
    for name in ("o.npy", "two.npz"):
        code, _, err = run("predict", name, "--weights", tiny, "-o", "o.gif")
        assert code == 2
        assert name in one_error_line(err)
    assert not (tmp_path / "exploded").exists()


def test_zip_files_that_numpy_did_not_write(run, tiny, tmp_path):
    for name in ("frames.npy", "readme.txt"):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr(name, "no array")
        code, _, err = run("predict", "x.npz", "--weights", tiny, "-o", "o.gif")
        assert code == 2
        assert "x.npz" in one_error_line(err)


@pytest.mark.parametrize(
    "header", ["{'descr': '<f4', 'fortran_order': False, 'shape': (9, ", "{'descr': 9, 'shape': (9,)}", "{[]: 1}", "9"]
)
def test_array_with_a_damaged_header(run, tiny, tmp_path, header):
    text = header.ljust(117) + "\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64))
    code, _, err = run("predict", "x.npy", "--weights", tiny, "-o", "o.gif")
    assert code == 2
    assert "x.npy is no array" in one_error_line(err)


@pytest.mark.parametrize("change", ["encrypted", "bz2"])
def test_damaged_zip_files(run, tiny, tmp_path, change):
    method = zipfile.ZIP_BZIP2 if change == "bz2" else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        np.save(tmp_path / "frames.npy", np.random.default_rng(0).random((9, 16, 16)).astype(np.float32))
        archive.write(tmp_path / "frames.npy", "frames.npy")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    if change == "bz2":
        content[200:300] = bytes(100)
    else:
        content[6] |= 1  # the flag of an encrypted member, in its header and in the directory
        content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    code, _, err = run("predict", "x.npz", "--weights", tiny, "-o", "o.gif")
    assert code == 2
    assert "x.npz is no array" in one_error_line(err)


@pytest.mark.parametrize("name", ["n" * 300 + ".mp4", "loop.mp4"])
def test_paths_that_lead_nowhere(run, tiny, tmp_path, name):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    code, _, err = run("predict", name, "--weights", tiny, "-o", "o.gif")
    assert code == 2
    assert "free some space" not in one_error_line(err)


def test_one_line_for_each_source_of_a_batch(run, tiny, tmp_path):
    code, _, err = run("predict", "no\nwhere.mp4", DIGITS, "--weights", tiny, "-o", "out", "--frames", 1)
    assert code == 1
    assert "no where.mp4" in one_error_line(err)
    assert len(err.splitlines()) == 2  # and what runs


def test_a_batch_goes_on_when_memory_runs_out(run, tiny, tmp_path, monkeypatch):
    from vmrnn_cli.predictor import Predictor

    stream = Predictor.stream

    def greedy(self, context, *rest, **options):
        if context[0].shape[-1] == 16:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return stream(self, context, *rest, **options)

    monkeypatch.setattr(Predictor, "stream", greedy)
    np.save(tmp_path / "huge.npy", np.zeros((9, 16, 16), np.uint8))
    code, out, err = run("predict", "huge.npy", DIGITS, "--weights", tiny, "-o", "out", "--json")
    result = json.loads(out)
    assert (code, len(result["forecasts"])) == (1, 1)
    assert result["failed"] == [
        "huge.npy: out of memory — use a smaller --size or --batch-size, or close other programs"
    ]
    assert "huge.npy: out of memory" in one_error_line(err)


@pytest.mark.parametrize("name", ["-", ".gif", ".MP4"])
def test_outputs_without_a_name(run, name, tmp_path):
    code, _, err = run("predict", DIGITS, "-o", name)
    assert code == 2
    assert f"{name} names no output" in one_error_line(err)
    assert not list(tmp_path.iterdir())


def test_a_file_in_a_folder_that_is_not_there(run, tiny, tmp_path):
    code, _, err = run("predict", DIGITS, "--weights", tiny, "-o", "missing/x.gif")
    assert code == 2
    assert "missing" in one_error_line(err)
    assert not list(tmp_path.iterdir())


def test_a_folder_may_have_a_dot_in_its_name(run, tiny, tmp_path):
    assert run("predict", DIGITS, "--weights", tiny, "-o", "results.v2/", "--frames", 1)[0] == 0
    assert (tmp_path / "results.v2" / "digits_predicted.gif").exists()


@pytest.mark.parametrize("source", ["-", "https://example.org/clip.mp4", ""])
def test_sources_that_are_no_files(run, source):
    code, _, err = run("predict", source)
    assert code == 2
    assert ("save the clip as a file first" if source else "name of a source is empty") in one_error_line(err)
    assert source in err


def test_a_batch_in_another_format_goes_on_where_it_was_stopped(run, tiny, tmp_path):
    common = ["predict", DIGITS, CLIP, "--weights", tiny, "-o", "out", "--format"]
    code, _, err = run(*common, "npz")
    assert code == 2
    assert f"{DIGITS} and {CLIP} would both be written to" in one_error_line(err)
    shutil.copy(CLIP, "other.mp4")
    common[2] = "other.mp4"
    assert run(*common[:2], *common[3:], "npz")[0] == 0
    made = tmp_path / "out" / "digits_predicted.npz"
    before = made.stat().st_mtime_ns
    code, _, err = run(*common, "npz", "--skip-existing")
    assert code == 0
    assert "skipping 1 of 2" in err
    assert made.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "other_predicted.npz").exists()
    code, out, _ = run(*common, "npz", "--skip-existing", "--json")
    assert (code, json.loads(out)) == (0, {"forecasts": [], "failed": []})
    for wrong, error in (
        ((*common, "tiff"), "no format 'tiff'"),
        ((*common[:2], "-o", "x.gif", "--format", "mp4"), "contradict"),
        ((*common, "npz", "--overwrite", "--skip-existing"), "contradict"),
    ):
        code, _, err = run(*wrong)
        assert code == 2
        assert error in one_error_line(err)


def test_one_that_is_left_of_a_batch_fails_like_any_of_it(run, tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "done_predicted.gif").touch()
    np.save(tmp_path / "done.npy", np.zeros((9, 16, 16), np.uint8))
    np.save(tmp_path / "bad.npy", np.zeros(3))
    arguments = ["predict", "done.npy", "bad.npy", "--weights", tiny, "-o", "out", "--skip-existing", "--json"]
    code, out, err = run(*arguments)
    result = json.loads(out)
    assert (code, result["forecasts"], len(result["failed"])) == (2, [], 1)
    assert "bad.npy" in one_error_line(err)


def test_a_folder_of_clips_is_no_clip(run, tmp_path):
    (tmp_path / "clips").mkdir()
    shutil.copy(CLIP, tmp_path / "clips")
    Image.new("L", (16, 16)).save(tmp_path / "clips" / "cover.png")
    code, _, err = run("predict", "clips")
    assert code == 2
    assert "holds clips such as digits.mp4 — name those: clips/*.mp4" in one_error_line(err)


def test_channels_last_are_known(run, tmp_path):
    np.save(tmp_path / "rgb.npy", np.zeros((15, 32, 32, 3), np.uint8))
    code, out, err = run("predict", "rgb.npy", "--json")
    assert code == 0, err
    assert json.loads(out)["picture_size"] == [32, 32]


def test_counts_get_the_weights_with_as_many_channels(run, tmp_path):
    np.save(tmp_path / "counts.npy", np.random.default_rng(0).integers(0, 250, (12, 2, 16, 8)).astype(np.float32))
    code, out, err = run("predict", "counts.npy", "-o", "counts.npz", "--json")
    assert code == 0, err
    assert (json.loads(out)["weights"], json.loads(out)["divided_by"]) == ("vmrnn-b-bikenyc", 267)


def test_what_is_assumed_of_weights_without_a_configuration(run, tmp_path):
    assert run("weights", "convert", "vmrnn-b-mmnist", "mm.pth", "--to-published")[0] == 0
    code, _, err = run("predict", DIGITS, "--weights", "mm.pth", "-o", "x.npz", "--frames", 1)
    assert code == 0
    assert "mm.pth does not say what it was trained for: taken for 64x64 frames, 10 in, 10 out" in err


def test_json_tells_what_was_measured(run, tiny):
    code, out, _ = run("predict", DIGITS, "--weights", tiny, "-o", "o.gif", "--frames", 40, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["source"], result["frames"], result["known_frames"]) == (str(DIGITS), 40, 17)


def test_an_output_folder_that_is_a_file(run, tmp_path):
    (tmp_path / "taken").write_text("")
    code, _, err = run("predict", DIGITS, "-o", "taken")
    assert code == 2
    assert "taken is a file" in one_error_line(err)


def test_one_source_into_a_new_folder(run, tiny, tmp_path):
    assert run("predict", DIGITS, "--weights", tiny, "-o", "new/", "--frames", 1)[0] == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["digits_predicted.gif"]


def test_outputs_of_folders_keep_their_whole_name(run, tiny, tmp_path):
    for folder in ("vid.1", "vid.2"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.new("L", (16, 16)).save(tmp_path / folder / f"{number}.png")
    assert run("predict", "vid.1", "vid.2", "--weights", tiny, "-o", "out", "--frames", 1)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["vid.1_predicted.gif", "vid.2_predicted.gif"]


def test_weights_in_the_current_folder_have_its_name(run, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny)
    code, out, _ = run("predict", DIGITS, "--weights", ".", "-o", tmp_path / "o.npz", "--json")
    assert (code, json.loads(out)["weights"]) == (0, "tiny")


def test_frames_beside_other_arrays(run, tiny, tmp_path):
    np.savez(tmp_path / "x.npz", frames=np.zeros((9, 16, 16), np.uint8), notes=np.array([{}], dtype=object))
    assert run("predict", "x.npz", "--weights", tiny, "-o", "o.gif")[0] == 0


def test_array_whose_header_lies(run, tiny, tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (-9, 8, 8)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(4 * 9 * 8 * 8))
    code, _, err = run("predict", "x.npy", "--weights", tiny, "-o", "o.gif")
    assert code == 2
    assert "x.npy" in one_error_line(err)


def test_weights_that_run_code_are_refused(run, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Bomb()))
    code, _, err = run("predict", DIGITS, "--weights", "evil.pth", "-o", "o.gif")
    assert code == 2
    assert "evil.pth" in one_error_line(err)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--weights", "nonsense"],
        ["--weights", "nowhere.pth"],
        ["-o", "out.xyz"],
        ["-o", "missing/out.gif"],
        ["--device", "cuda"],
        ["--device", "toaster"],
        ["--dtype", "float8"],
        ["--scan", "abacus"],
        ["--frames", "0"],
        ["--context", "-3"],
        ["--size", "huge"],
        ["--size", "1x1"],
        ["--fps", "0"],
        ["--fps", "1e-300"],
        ["--frames", "9" * 20],
        ["--context", "9" * 20],
        ["--context", "9" * 20, "--from-end"],
        ["--start", "-1"],
        ["--start", "1e9"],
        ["--start", "1e308"],
        ["--threads", "0"],
        ["--panels", "truth,lies"],
        ["--panels", "error,truth", "--from-end"],
        ["--weights", ""],
        ["--frames", "many"],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage(run, tiny, tmp_path, arguments):
    import torch

    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    extra = ["-o", "out.gif"] if "-o" not in arguments else []
    weights = ["--weights", tiny] if "--weights" not in arguments else []
    code, out, err = run("predict", DIGITS, *weights, *extra, *arguments)
    assert (code, out) == (2, "")
    one_error_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("delay", [0.0, 0.3, 1.5])
def test_interrupted_while_writing_leaves_nothing(tiny, tmp_path, number, delay):
    """A long forecast, interrupted once its first frames are being encoded."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vmrnn_cli", "predict", str(DIGITS), "--weights", str(tiny), "--frames", "100000",
         "-o", "long.mp4"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not any(p.stat().st_size for p in tmp_path.iterdir()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(delay)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def real_clips():
    data = os.environ.get("VMRNN_TEST_DATA")
    if not data:
        return [pytest.param(None, marks=pytest.mark.skip(reason="VMRNN_TEST_DATA is not set: no real clips"))]
    folder = Path(data) / "data"
    clips = sorted(folder.glob("wild/*.*")) + sorted(folder.glob("kth/*/*.avi"))
    return [pytest.param(clip, id=clip.name) for clip in clips]


@pytest.mark.parametrize("clip", real_clips())
def test_real_clips(run, tiny, tmp_path, clip):
    code, out, err = run("predict", clip, "--weights", tiny, "--size", 48, "-o", "o.npz", "--json")
    assert code == 0, err
    with np.load(tmp_path / "o.npz") as z:
        assert min(z["prediction"].shape[2:]) == 48
        assert 0.0 < z["context"].mean() < 1.0
        has_truth = "truth" in z
    assert (json.loads(out)["metrics"] is not None) == has_truth


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_kills_at_random_moments_leave_nothing_for_long(tmp_path, tiny):
    """Four kills; twenty with VMRNN_SLOW_TESTS=1."""
    chance = random.Random(0)
    command = [sys.executable, "-m", "vmrnn_cli", "predict", str(CLIP), "--weights", str(tiny), "-o", "out.mp4"]
    for _ in range(20 if os.environ.get("VMRNN_SLOW_TESTS") == "1" else 4):
        with subprocess.Popen([*command, "--frames", "4000"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 100
            while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.random())
            process.kill()
        assert not (tmp_path / "out.mp4").exists()
    done = vmrnn("predict", CLIP, "--weights", tiny, "-o", "other.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other.npz"]


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "https://x.org/clip.mp4"])
def test_standard_input_is_refused_by_all_its_names(name):
    with pytest.raises(InputError, match="neither addresses nor standard input"):
        find_files([name])


def test_outputs_are_called_after_the_names_that_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "3f9a1c").write_bytes(b"a clip")
    (tmp_path / "frames").mkdir()
    for link, target in (("holiday.mp4", "3f9a1c"), ("copy.mp4", "3f9a1c"), ("walk", "frames")):
        (tmp_path / link).symlink_to(target)
    targets = [target.name for _, target in find_files(["holiday.mp4", "copy.mp4", "walk", "."])]
    assert targets == [f"{name}_predicted.gif" for name in ("holiday", "copy", "walk", tmp_path.name)]
