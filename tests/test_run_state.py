"""The state of a run: every kind of damage is found, and the state before is used."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch

from vmrnn_cli import recipes, train, training_log
from vmrnn_cli.errors import InputError
from vmrnn_cli.run_state import PREVIOUS_STATE_NAME, STATE_NAME, read_state


def trainer(data, out, **options):
    flags = {"data": str(data), "context": 3, "horizon": 2, "batch_size": 2, "steps": 4, "checkpoint_every": 2}
    flags |= {"preset": "tiny", "eval_every": 1000}
    return train.Trainer(recipes.make_config({}, flags), out, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "clips.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (6, 8, 1, 16, 16)).astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run with a state of step 4 and the one of step 2 before it."""
    out = tmp_path_factory.mktemp("run")
    made = trainer(data, out)
    made.evaluate = lambda: None  # which takes most of the time
    for report in made.fit():
        if report.progress.step == 3:
            assert read_state(out)["progress"]["step"] == 2
    shutil.copy(out / STATE_NAME, out / "newest.pt")
    (out / PREVIOUS_STATE_NAME).unlink()
    again = trainer(data, out / "again")
    again.evaluate = lambda: None
    next(iter(again.fit()))
    again.save()
    shutil.copy(out / "again" / STATE_NAME, out / PREVIOUS_STATE_NAME)
    return out


@pytest.fixture
def run(whole, tmp_path):
    for name in (STATE_NAME, PREVIOUS_STATE_NAME):
        shutil.copy(whole / name, tmp_path)
    return tmp_path


def alike(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b


def test_a_whole_state_is_read_as_it_was_written(run):
    state = read_state(run)
    assert state.pop("passed over") is None
    assert alike(state, torch.load(run / STATE_NAME, weights_only=True))
    assert state["progress"]["step"] == 4


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_is_taken_for_a_state(run, seed):
    chance = random.Random(seed)
    newest, before = (torch.load(run / name, weights_only=True) for name in (STATE_NAME, PREVIOUS_STATE_NAME))
    content = bytearray((run / STATE_NAME).read_bytes())
    # Half of the damage near the end, where the directory of a zip file is, and near the start, where the pickle is.
    at = chance.choice(
        [chance.randrange(len(content)), chance.randrange(20_000), len(content) - chance.randrange(9000)]
    )
    at = min(at, len(content) - 1)
    if seed % 4 == 0:
        del content[at : at + chance.choice([1, 100, len(content)])]
    elif seed % 4 == 1:
        content[at:at] = chance.randbytes(chance.choice([1, 64]))
    else:
        content[at] ^= 1 << chance.randrange(8)
    (run / STATE_NAME).write_bytes(content)
    state = read_state(run)
    wrong = state.pop("passed over")
    assert alike(state, newest if wrong is None else before)
    assert wrong is None or (STATE_NAME in wrong and "\n" not in wrong)


CHANGES = {
    "no part": lambda s: s.pop("ema"),
    "half a step": lambda s: s["progress"].update(step=2.5),
    "a step below 0": lambda s: s["progress"].update(step=-1),
    "no number": lambda s: s["progress"].update(seconds=float("nan")),
    "a field more": lambda s: s["progress"].update(speed=1),
    "another network": lambda s: s["network"].update(embed_dim=48),
    "a network that no file fills": lambda s: s["network"].update(depths=[900]),
    "no network": lambda s: s.update(network=[1]),
    "another shape": lambda s: s["ema"].update({"patch_embedding.norm.bias": torch.zeros(3)}),
    "another type": lambda s: s["model"].update({"patch_embedding.norm.bias": torch.zeros(32, dtype=torch.int64)}),
    "a tensor less": lambda s: s["model"].pop("patch_embedding.norm.bias"),
    "an optimizer less": lambda s: s["optimizers"].pop(),
    "an optimizer of another": lambda s: s["optimizers"].reverse(),
    "a rate in words": lambda s: s["optimizers"][0]["param_groups"][0].update(lr="fast"),
    "memory of another shape": lambda s: s["optimizers"][1]["state"][0].update(exp_avg=torch.zeros(2, 2)),
    "half the memory": lambda s: s["optimizers"][1]["state"][0].pop("exp_avg_sq"),
    "no settings": lambda s: s.update(config=None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_no_state_of_a_run_is_passed_over(run, change):
    state = torch.load(run / STATE_NAME, weights_only=True)
    change(state)
    torch.save(state, run / STATE_NAME)
    assert read_state(run)["progress"]["step"] == 1
    (run / PREVIOUS_STATE_NAME).unlink()
    with pytest.raises(InputError, match=r"state\.pt is damaged") as caught:
        read_state(run)
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_from_the_state_before_and_says_so(run, data):
    (run / STATE_NAME).write_bytes((run / STATE_NAME).read_bytes()[:-9])
    resumed = trainer(data, run, resume=True)
    assert any("state.pt is damaged" in line for line in resumed.describe())
    resumed.evaluate = lambda: None
    assert next(iter(resumed.fit())).progress.step == 2


@pytest.mark.parametrize("damage", [b"\0", b"\xff\xfe", b'"', b"\r\n,,,\n", b"9" * 200_000, b"nan", b"-3,", b"\n\n"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_damaged_log_stops_no_run(tmp_path, damage, share):
    header = ",".join(training_log._COLUMNS)
    lines = [f"{step},0,{2 * step},1.5,0.01,0.5,0.1,3.0,{'7.5,8.5' if step == 3 else ','}" for step in range(1, 6)]
    content = "\r\n".join([header, *lines, ""]).encode()
    at = int(share * len(content))
    (tmp_path / "metrics.csv").write_bytes(content[:at] + damage + content[at:])
    log = training_log.MetricsLog(tmp_path, 4)
    log.close()
    kept = (tmp_path / "metrics.csv").read_text().splitlines()
    assert kept[0] == header
    assert set(kept[1:]) <= set(lines[:4]) and len(kept) >= 4
    for row in training_log._read_metrics(tmp_path / "metrics.csv"):  # as the curves are drawn from them
        assert int(row["clips"]) > 0 and float(row["loss"]) > 0 and float(row["eval_mse"] or 1) > 0
