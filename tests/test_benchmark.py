"""`vmrnn benchmark` and what it measures with."""

from __future__ import annotations

import json

import pytest

from vmrnn_cli import benchmark
from vmrnn_cli.errors import InputError

FEW = ("--threads", 1, "--repeats", 2, "--frames", 2, "--context", 3)


def test_it_says_how_fast_a_network_is(run, tiny):
    code, out, err = run("benchmark", tiny, *FEW, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["frame_size"] == [32, 32]
    assert (result["context"], result["frames"], result["batch"], result["repeats"]) == (3, 2, 1, 2)
    assert result["clip_s_min"] <= result["clip_s"] <= result["clip_s_max"]
    assert result["frames_per_s"] == pytest.approx(2 / result["clip_s"])
    assert result["step_ms"] == pytest.approx(1000 * result["clip_s"] / 4)
    assert result["share_of_product"] == pytest.approx(result["gflop_per_s"] / result["product_gflop_per_s"])
    assert result["memory_mib"] is None or result["memory_mib"] > 50
    assert result["machine"]["threads"] == 1


def test_clips_at_once_and_sizes(run, tiny):
    code, out, _ = run("benchmark", tiny, *FEW, "--batch", 2, "--size", "24x16", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["batch"], result["frame_size"]) == (2, [24, 16])
    assert result["frames_per_s"] == pytest.approx(4 / result["clip_s"])


@pytest.mark.parametrize("what", ["tiny", "vmrnn-d-motion"])
def test_for_people(run, what):
    code, out, err = run("benchmark", what, *FEW, "--size", 32)
    assert (code, err) == (0, "")
    assert out.startswith(f"{what} on cpu (1 threads), float32, scan ")
    assert "1 clip(s) of 3 -> 2 frames of 32x32, 2 times" in out
    for line in ("frames a second", "a step", "operations", "% of a matrix product's"):
        assert line in out


def test_against_an_earlier_result(run, tiny, tmp_path):
    _, out, _ = run("benchmark", tiny, *FEW, "--json")
    before = json.loads(out) | {"frames_per_s": 1e-3}
    (tmp_path / "before.json").write_text(json.dumps(before))
    code, out, _ = run("benchmark", tiny, *FEW, "--json", "--compare", "before.json")
    now = json.loads(out)
    assert code == 0
    assert now["times_as_fast"] == pytest.approx(now["frames_per_s"] / 1e-3)
    ratio = before["product_gflop_per_s"] / now["product_gflop_per_s"]
    assert now["times_as_fast_for_its_product"] == pytest.approx(now["times_as_fast"] * ratio)
    code, out, _ = run("benchmark", tiny, *FEW, "--compare", "before.json")
    assert code == 0
    assert "against before.json: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", 0], "0 clip(s) of 3 + 2 frames of 32x32 cannot be forecast"),
        (["--size", "1x1"], "cannot be forecast"),
        (["--compare", "none.json"], "none.json"),
        (["--compare", "text.json"], "text.json is no result of a benchmark"),
        (["--compare", "other.json"], "the earlier result is of another frame_size: [8, 8], not [32, 32]"),
    ],
)
def test_what_cannot_be(run, tiny, tmp_path, arguments, message):
    (tmp_path / "text.json").write_text("no")
    keys = {"weights": str(tiny), "frames_per_s": 1.0, "frame_size": [8, 8]}
    (tmp_path / "other.json").write_text(json.dumps(keys))
    code, _, err = run("benchmark", tiny, *FEW, *arguments)
    assert code == 2
    assert err.count("error: ") == 1
    assert message in err


def test_turn_by_turn():
    done = []
    times = benchmark.in_turn({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2)
    assert done == ["a", "b"] * 3
    assert [len(each) for each in times.values()] == [2, 2]


def test_other_work_is_not_compared():
    now = dict.fromkeys(("weights", "frame_size", "channels", "context", "frames", "batch"), 1)
    with pytest.raises(InputError, match="another batch: 2, not 1"):
        benchmark.compare(now, now | {"batch": 2})
