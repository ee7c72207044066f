"""Decoded videos on disk, and the command that shows and clears them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vmrnn_cli.data import cache
from vmrnn_cli.video import write_video


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """A cache with two decoded videos, what a killed process left of a third, and files that are none of ours."""
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "cache"))
    for T in (3, 5):
        with write_video(tmp_path / f"{T}.mp4", fps=10, overwrite=False) as writer:
            for _ in range(T):
                writer.write(np.full((16, 24, 3), 90, np.uint8))
        assert len(cache.decode(tmp_path / f"{T}.mp4", 1, 8)) == T
    (tmp_path / "cache" / "clips" / ".vmrnn-012345.npy").write_bytes(b"half")
    (tmp_path / "cache" / "clips" / "notes.txt").write_text("mine")
    (tmp_path / "cache" / "mine.npy").write_bytes(b"mine")
    return tmp_path / "cache"


def test_the_cache_is_listed(videos, run_command):
    code, out, _ = run_command("data", "cache", "--json")
    facts = json.loads(out)
    assert (code, facts["folder"], facts["cleared"]) == (0, str(videos), False)
    assert sorted(map(str, (video["shape"] for video in facts["videos"]))) == ["None", "[3, 1, 8, 12]", "[5, 1, 8, 12]"]
    assert all((videos / "clips" / video["file"]).stat().st_size == video["bytes"] for video in facts["videos"])
    assert facts["bytes"] == sum(video["bytes"] for video in facts["videos"]) > 8 * 8 * 12
    code, out, _ = run_command("data", "cache")
    assert code == 0
    assert "5x1x8x12" in out and "incomplete" in out
    assert f"3 decoded videos, 0.0 MB, in {videos}" in out


def test_the_cache_is_cleared_of_what_is_ours(videos, run_command, tmp_path):
    code, out, _ = run_command("data", "cache", "--clear")
    assert code == 0
    assert f"3 decoded videos, 0.0 MB, removed from {videos}" in out
    assert sorted(path.name for path in videos.rglob("*.*")) == ["mine.npy", "notes.txt"]
    assert json.loads(run_command("data", "cache", "--json")[1])["videos"] == []
    assert len(cache.decode(tmp_path / "3.mp4", 1, 8)) == 3  # anew


def test_a_cache_that_is_not_there(run_command, tmp_path, monkeypatch):
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "none"))
    assert run_command("data", "cache", "--clear")[:2] == (
        0,
        f"0 decoded videos, 0.0 MB, removed from {tmp_path / 'none'}\n",
    )


@pytest.mark.parametrize("share", [0.0, 0.003, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("damage", ["flip", "cut", "insert"])
def test_damaged_entries_are_decoded_anew(videos, tmp_path, damage, share):
    good = cache.decode(tmp_path / "5.mp4", 1, 8)
    want, content = good.frames().copy(), good.path.read_bytes()
    at = int(share * len(content))
    new = {"flip": bytes([content[at] ^ 0x11]) + content[at + 1 :], "cut": b"", "insert": b"((" + content[at:]}
    good.path.write_bytes(content[:at] + new[damage])
    assert cache.open_cached(good.path) is None
    np.testing.assert_array_equal(cache.decode(tmp_path / "5.mp4", 1, 8).frames(), want)


def test_what_was_said_of_a_video_is_kept_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    with write_video(tmp_path / "a.mp4", fps=10, overwrite=False) as writer:
        for _ in range(30):
            writer.write(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])
    first, second = (cache.decode(tmp_path / "a.mp4", 1, 8) for _ in range(2))
    assert first == second and "ends early: it says 3.0 s" in first.notes[0]


def test_without_a_home_folder(run_command, monkeypatch):
    def nowhere(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VMRNN_CACHE", raising=False)
    monkeypatch.setattr("pathlib.Path.home", classmethod(nowhere))
    code, _, err = run_command("data", "cache")
    assert code == 1 and "VMRNN_CACHE" in err
