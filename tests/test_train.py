"""Training: resumable bit for bit, alike on one process and two, and never the loser of a checkpoint."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vmrnn_cli
from vmrnn_cli import interrupts, metrics, recipes, run_state, train
from vmrnn_cli import weights as known_weights
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.optim import Muon, muon_parameters, orthogonalise
from vmrnn_cli.pretrained import load_model, save_model


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Forty clips of a bright square that moves to the right, (N, 5, 1, 16, 16)."""
    path = tmp_path_factory.mktemp("data") / "clips.npy"
    array = np.zeros((40, 5, 1, 16, 16), np.uint8)
    for number, clip in enumerate(array):
        for frame in range(5):
            left = number % 6 + 2 * frame
            clip[frame, 0, number % 11 : number % 11 + 4, left : left + 4] = 200
    np.save(path, array)
    return path


BASE = ["--context", "3", "--horizon", "2", "--batch-size", "4", "--eval-every", "1000", "--threads", "1", "-q"]


@pytest.fixture
def vmrnn(run):
    return run


def start(*arguments, cwd, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "vmrnn_cli", *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


def weights(folder):
    return load_file(Path(folder) / train.CHECKPOINT_NAME)


def same(a, b):
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder):
    with (Path(folder) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def losses(folder):
    return [float(row["loss"]) for row in rows(folder)]


def test_a_run_leaves_everything_that_was_promised(vmrnn, clips, tmp_path):
    code, _, err = vmrnn("train", "--data", clips, "--steps", 6, "--out", "run", *BASE)
    assert code == 0, err
    run = tmp_path / "run"
    names = {"config.toml", "state.pt", train.CHECKPOINT_NAME, "best", "metrics.csv", "curves.png", "report.html"}
    names |= {"samples"}
    assert {p.name for p in run.iterdir()} == names
    assert len(losses(run)) == 6
    assert "steps = 6" in (run / "config.toml").read_text()
    card = (run / "best" / "README.md").read_text()
    assert all(part in card for part in ("last frame repeated", f"vmrnn {vmrnn_cli.__version__}", "| steps | 6 |"))
    code, out, err = vmrnn("predict", clips.parent / "clips.npy", "--weights", run / "best", "-o", "o.npz")
    assert code == 2  # five dimensions are no clip
    np.save(tmp_path / "one.npy", np.load(clips)[0])
    code, out, err = vmrnn("predict", "one.npy", "--weights", run / "best", "-o", "o.npz", "--json")
    assert code == 0, err
    assert json.loads(out)["frames"] == 2


def test_training_learns(vmrnn, clips):
    assert vmrnn("train", "--data", clips, "--steps", 60, "--out", "run", *BASE)[0] == 0
    curve = losses("run")
    assert np.mean(curve[-5:]) < 0.6 * np.mean(curve[:5])


def write_as_earlier_versions(folder, *, residual):
    """Let the newest checkpoint name what networks have no more."""
    state = torch.load(folder / "state.pt", weights_only=True)
    state["network"] |= {"residual": residual, "shrink": 0.0}
    torch.save(state, folder / "state.pt")


def test_resume_is_bit_for_bit(vmrnn, clips):
    """Straight through, against killed without warning after a checkpoint and resumed."""
    common = ["train", "--data", clips, "--steps", 14, "--checkpoint-every", 5, *BASE]
    assert vmrnn(*common, "--out", "straight")[0] == 0
    process = start(*common, "--out", "killed", cwd=Path.cwd())
    deadline = time.monotonic() + 120
    while not Path("killed/state.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert run_state.read_state(Path("killed"))["progress"]["step"] < 14
    write_as_earlier_versions(Path("killed"), residual=True)
    code, _, err = vmrnn(*common, "--out", "killed", "--resume")
    assert code == 2
    assert "residual must be False, got True" in err
    write_as_earlier_versions(Path("killed"), residual=False)
    assert vmrnn(*common, "--out", "killed", "--resume")[0] == 0
    assert same("straight", "killed")
    assert losses("straight") == losses("killed")


def test_a_weight_decay_that_is_given_on_resuming_counts(vmrnn, clips):
    Path("decay.toml").write_text("weight_decay = 5.0\n")
    common = ["train", "--data", clips, "--steps", 5, "--lr", 0.05, *BASE[:-1]]
    assert vmrnn(*common[:4], 3, *common[5:], "--out", "run")[0] == 0
    shutil.copytree("run", "other")
    code, _, err = vmrnn(*common, "--out", "run", "--resume", "--config", "decay.toml", "--init", "w")
    assert code == 0, err
    assert "weight_decay was 0.01 and is 5.0" in err
    assert "init" not in err  # which began the run, or did not
    assert vmrnn(*common, "--out", "other", "--resume")[0] == 0
    norms = [sum(float(t.norm()) for name, t in weights(run).items() if "in_proj" in name) for run in ("run", "other")]
    assert norms[0] < 0.9 * norms[1]


def test_what_a_run_left_before_its_first_checkpoint_is_no_obstacle(vmrnn, clips):
    common = ["train", "--data", clips, "--steps", 1, "--out", "run", *BASE]
    Path("run").mkdir()
    for name in ("config.toml", "metrics.csv", "report.html", ".vmrnn-0123.pt", "events.out.tfevents.1"):
        Path("run", name).write_text("")
    assert vmrnn(*common)[0] == 0
    assert "--resume" in vmrnn(*common)[2]
    Path("full").mkdir()
    Path("full/mine.txt").write_text("")
    code, _, err = vmrnn("train", "--data", clips, "--steps", 1, "--out", "full", *BASE)
    assert code == 2
    assert "holds mine.txt" in err


def test_ignored_signals_stay_ignored(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell has it for what runs in the background
    try:
        assert interrupts.signals() == [signal.SIGTERM, signal.SIGHUP]
        with interrupts.deferred():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_resume_draws_the_same_drop_path(vmrnn, clips):
    common = ["train", "--data", clips, "--init", "w", "--checkpoint-every", 3, *BASE]
    Path("w").mkdir()
    save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(2,), drop_path=0.5)), Path("w"), half=False)
    assert vmrnn(*common, "--steps", 5, "--out", "straight")[0] == 0
    assert vmrnn(*common, "--steps", 5, "--out", "other", "--seed", 1)[0] == 0
    shutil.copytree("straight", "resumed")
    Path("resumed/state-previous.pt").replace("resumed/state.pt")  # that of step 3
    shutil.rmtree("w")  # what a run began with may be gone
    assert vmrnn(*common, "--steps", 5, "--out", "resumed", "--resume")[0] == 0
    assert same("straight", "resumed")
    assert losses("straight") == losses("resumed") != losses("other")


def test_resume_keeps_the_settings_of_the_run(vmrnn, clips):
    Path("l1.toml").write_text('loss = "l1"\nema = 0.5\n')
    common = ["train", "--data", clips, *BASE]
    assert vmrnn(*common, "--steps", 6, "--config", "l1.toml", "--lr", 0.0005, "--out", "straight")[0] == 0
    assert vmrnn(*common, "--steps", 3, "--config", "l1.toml", "--lr", 0.0005, "--out", "run")[0] == 0
    code, _, err = vmrnn(*common[:-1], "--steps", 6, "--lr", 0.001, "--out", "run", "--resume")
    assert code == 0
    assert "at step 3, steps was 3 and is 6, lr was 0.0005 and is 0.001\n" in err
    text = Path("run/config.toml").read_text()
    assert all(line in text for line in ('loss = "l1"', "ema = 0.5", "lr = 0.001", "steps = 6"))
    assert losses("run")[:3] == losses("straight")[:3]


def test_resume_finds_the_data_itself(vmrnn, clips):
    assert vmrnn("train", "--data", clips, *BASE, "--steps", 1, "--out", "run")[0] == 0
    assert vmrnn("train", "--resume", "--out", "run", "--steps", 2, "-q")[0] == 0
    assert run_state.read_state(Path("run"))["progress"]["step"] == 2
    for arguments, error in (([], "there is no data"), (["--resume", "--out", "other"], "config.toml names no data")):
        code, _, err = vmrnn("train", *arguments)
        assert code == 2
        assert error in err


def test_an_unknown_setting(vmrnn, clips):
    for key, hint in (("learn", "use some of data, dataset"), ("batchsize", "did you mean 'batch_size'?")):
        Path("x.toml").write_text(f"{key} = 1\n")
        code, _, err = vmrnn("train", "--data", clips, "--config", "x.toml")
        assert code == 2
        assert hint in err


def test_grids_of_counts_go_through_training_and_forecast(vmrnn):
    """What training divided by goes with the weights: a forecast takes counts and gives counts."""
    grids = np.random.default_rng(0).integers(0, 300, (60, 2, 8, 8)).astype(np.float32)
    np.save("counts.npy", grids)
    arguments = ["--preset", "vmrnn-b-bikenyc", "--steps", 1, "--batch-size", 4, "--out", "run", "--threads", 1, "-q"]
    assert vmrnn("train", "--data", "counts.npy", *arguments)[0] == 0
    largest = grids[:48].max()  # of the training part
    code, out, err = vmrnn("predict", "counts.npy", "--weights", "run/best", "-o", "counts.npz")
    assert code == 0, err
    assert f"values divided by {largest:g}" in out
    with np.load("counts.npz") as written:
        np.testing.assert_allclose(written["context"], grids[:4], rtol=1e-6)
        assert 1 < written["prediction"].max() <= largest
    np.save("shares.npy", grids / 300)  # are taken as they are
    code, out, _ = vmrnn("predict", "shares.npy", "--weights", "run/best", "-o", "shares.npz", "--json")
    assert code == 0
    assert json.loads(out)["divided_by"] == 1
    np.save("other.npy", grids[:, :, :, :4] * 2)
    code, out, _ = vmrnn("eval", "--data", "other.npy", "--weights", "run/best", "--limit", 1, "--json")
    assert code == 0
    assert json.loads(out)["divided_by"] == largest  # not its own maximum


def test_data_is_known_again_from_another_folder(vmrnn, clips, tmp_path, monkeypatch):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        shutil.copy(clips, folder)
    monkeypatch.chdir(tmp_path / "a")
    assert vmrnn("train", "--data", "clips.npy", "--steps", 2, "--out", "../run", *BASE)[0] == 0
    monkeypatch.chdir(tmp_path / "b")
    code, _, err = vmrnn("train", "--data", "clips.npy", "--steps", 3, "--out", "../run", "--resume", *BASE)
    assert code == 2
    assert "trained with another data" in err
    monkeypatch.chdir(tmp_path)
    assert vmrnn("train", "--data", "a/clips.npy", "--steps", 3, "--out", "run", "--resume", *BASE)[0] == 0


def test_dry_run_measures_whole_clips(clips, tmp_path):
    given = {"data": str(clips), "context": 3, "horizon": 2, "steps": 3, "batch_size": 4}
    trainer = train.Trainer(recipes.make_config({"curriculum": [[0.9, 2, 1]]}, given), tmp_path / "run")
    lengths = []
    forward = trainer.loss.forward
    trainer.loss.forward = lambda clips, *rest: (lengths.append(clips.shape[1]), forward(clips, *rest))[1]
    trainer.dry_run()
    assert lengths == [5, 5]


@pytest.mark.parametrize("option", [["--memory", "low"], ["--workers", "2"]], ids=" ".join)
def test_options_that_change_nothing(vmrnn, clips, option):
    common = ["train", "--data", clips, "--steps", 4, *BASE]
    assert vmrnn(*common, "--out", "a")[0] == 0
    assert vmrnn(*common, "--out", "b", *option)[0] == 0
    for name, tensor in weights("a").items():
        torch.testing.assert_close(weights("b")[name], tensor, rtol=1e-5, atol=1e-6)


def test_kills_at_random_moments_lose_at_most_one_interval(vmrnn, clips, tmp_path):
    """Four kills; twenty, and some of them before the first step, with VMRNN_SLOW_TESTS=1."""
    kills, interval = (20, 2) if os.environ.get("VMRNN_SLOW_TESTS") == "1" else (4, 2)
    common = ["train", "--data", clips, "--steps", 30 * kills, "--checkpoint-every", interval, *BASE]
    run, chance, reached, lost = tmp_path / "run", random.Random(0), 0, []
    for attempt in range(kills):
        process = start(*common, "--out", "run", *(["--resume"] if attempt else []), cwd=tmp_path)
        if attempt % 5 == 4:
            time.sleep(chance.random() * 4)
        else:
            wait_for_steps(process, run, reached + chance.randint(3, 9))
            time.sleep(chance.random() * 0.2)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
        done, state = len(losses(run)), run_state.read_state(run)
        assert weights(run)
        lost.append(max(done, reached) - state["progress"]["step"])
        reached = state["progress"]["step"]
    assert max(lost) <= interval
    assert vmrnn(*common, "--out", "run", "--resume")[0] == 0
    assert not list(run.rglob(".vmrnn-*"))
    assert vmrnn(*common, "--out", "straight")[0] == 0
    assert same("straight", "run")
    assert losses("straight") == losses("run")
    assert {path.name for path in run.iterdir()} == {path.name for path in Path("straight").iterdir()}


def wait_for_steps(process, run, steps):
    deadline = time.monotonic() + 120
    while not (run / "metrics.csv").exists() or len(losses(run)) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_leftovers_of_a_killed_run_are_removed(vmrnn, clips):
    assert vmrnn("train", "--data", clips, "--steps", 2, "--out", "run", *BASE)[0] == 0
    left = [Path("run/.vmrnn-0123456789ab.pt"), Path("run/best/.vmrnn-0123456789ab.safetensors")]
    for path in left:
        path.write_bytes(b"half")
    assert vmrnn("train", "--data", clips, "--steps", 3, "--out", "run", "--resume", *BASE)[0] == 0
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_checkpoint_and_leave(clips, tmp_path, number):
    process = start("train", "--data", clips, "--steps", 100000, "--out", "run", *BASE, cwd=tmp_path)
    wait_for_steps(process, tmp_path / "run", 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"--resume" in err
    assert b"Traceback" not in err
    assert run_state.read_state(tmp_path / "run")["progress"]["step"] == len(losses(tmp_path / "run"))


def test_signals_that_come_together_are_one(clips, tmp_path):
    process = start("train", "--data", clips, "--steps", 100000, "--out", "run", *BASE, cwd=tmp_path)
    wait_for_steps(process, tmp_path / "run", 3)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.05)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert run_state.read_state(tmp_path / "run")["progress"]["step"] == len(losses(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob(".vmrnn-*"))


def test_a_folder_takes_one_run_at_a_time(clips, tmp_path):
    flags = {"data": str(clips), "context": 3, "horizon": 2, "steps": 3, "batch_size": 4, "preset": "tiny"}
    first, second = (train.Trainer(recipes.make_config({}, flags), tmp_path / "run") for _ in range(2))
    with first.folder():
        with pytest.raises(InputError, match=r"another run is writing .*run "), second.folder():
            pytest.fail("the block must not run")
        first.save()
    with pytest.raises(InputError, match=r"run already holds a run"), second.folder():
        pytest.fail("the block must not run")
    with train.Trainer(recipes.make_config({}, flags), tmp_path / "run", resume=True).folder():
        pass
    assert not list((tmp_path / "run").rglob(".vmrnn-*"))


def test_two_processes_train_as_one(vmrnn, clips, tmp_path):
    common = ["train", "--data", str(clips), "--steps", "12", *BASE, "--eval-every", "6"]
    assert vmrnn(*common, "--out", "one")[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    done = subprocess.run(
        [*torchrun, "-m", "vmrnn_cli", *common, "--out", "two"], cwd=tmp_path, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    np.testing.assert_allclose(losses("two"), losses("one"), atol=1e-5)
    scores = [[float(row["eval_mse"]) for row in rows(run) if row["eval_mse"]] for run in ("one", "two")]
    assert len(scores[0]) == 2
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3)
    assert {path.name for path in Path("two").iterdir()} == {path.name for path in Path("one").iterdir()}


def test_an_elastic_restart_resumes(vmrnn, clips, monkeypatch):
    common = ["train", "--data", clips, "--checkpoint-every", "2", "--out", "run", *BASE]
    assert vmrnn(*common, "--steps", 4)[0] == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert vmrnn(*common, "--steps", 6)[0] == 0
    assert run_state.read_state(Path("run"))["progress"]["step"] == 6
    assert len(losses("run")) == 6


def test_time_limit(vmrnn, clips):
    begin = time.monotonic()
    assert vmrnn("train", "--data", clips, "--max-time", "1s", "--out", "run", *BASE)[0] == 0
    assert time.monotonic() - begin < 60
    assert Path("run/best/model.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")
def test_full_disk_keeps_the_old_checkpoint(vmrnn, clips):
    """A limit on the size of files stands for the full disk: the same calls fail, in the middle of the checkpoint."""
    import resource

    assert vmrnn("train", "--data", clips, "--steps", 4, "--out", "run", *BASE)[0] == 0
    before = Path("run/state.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        code, _, err = vmrnn("train", "--data", clips, "--steps", 8, "--out", "run", "--resume", *BASE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert "cannot write" in err
    assert "state.pt: File too large" in err
    assert len(err.splitlines()) == 1
    assert Path("run/state.pt").read_bytes() == before
    assert not list(Path("run").glob(".vmrnn*"))


def test_an_elastic_restart_finds_the_state_before(vmrnn, clips, monkeypatch):
    common = ["train", "--data", clips, "--out", "run", "--checkpoint-every", 2, *BASE]
    assert vmrnn(*common, "--steps", 4)[0] == 0
    Path("run/state.pt").unlink()  # as when killed between the two renames
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert vmrnn(*common, "--steps", 5)[0] == 0
    assert len(rows("run")) == 5


@pytest.mark.parametrize("damage", [lambda content: content[:1000], lambda _: b"no zip file", lambda _: b""])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(vmrnn, clips, damage):
    assert vmrnn("train", "--data", clips, "--steps", 6, "--checkpoint-every", 2, "--out", "run", *BASE)[0] == 0
    state = Path("run/state.pt")
    state.write_bytes(damage(state.read_bytes()))
    assert run_state.read_state(Path("run"))["progress"]["step"] == 6  # saved at step 6, and once more at the end
    assert vmrnn("train", "--data", clips, "--steps", 8, "--out", "run", "--resume", *BASE)[0] == 0


def test_loss_that_is_not_finite_stops_the_run(vmrnn, clips):
    code, _, err = vmrnn("train", "--data", clips, "--steps", 9, "--lr", "1e30", "--out", "run", *BASE)
    assert code == 1
    assert "at step" in err
    assert "--lr" in err


def test_weights_that_are_not_finite_stop_the_run(vmrnn, clips):
    """The only step is taken with a finite loss; what it made of the weights shows in the evaluation."""
    code, _, err = vmrnn("train", "--data", clips, "--steps", 1, "--lr", "1e30", "--out", "run", *BASE)
    assert code == 1, err
    assert len(err.splitlines()) == 1
    assert "not finite at step 1" in err
    assert not Path("run/best").exists()


def test_data_that_cannot_be_evaluated_on_is_no_divergence(vmrnn, clips, monkeypatch):
    def evaluate(*arguments, **options):
        raise InputError("clip 3 is damaged", "download it again")

    monkeypatch.setattr(train, "evaluate", evaluate)
    code, _, err = vmrnn("train", "--data", clips, "--steps", 1, "--out", "run", *BASE)
    assert (code, err) == (2, "error: clip 3 is damaged — download it again\n")


def test_dry_run_writes_nothing(vmrnn, clips, tmp_path):
    code, out, _ = vmrnn("train", "--data", clips, "--dry-run", "--out", "run", *BASE)
    assert code == 0
    assert "peak memory" in out
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_step(vmrnn, clips, monkeypatch):
    """With a stand-in for the package: whatever is installed."""
    written, closed = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            assert folder == "run"
            written[purge_step - 1 :] = []

        def add_scalar(self, name, value, step):
            if name == "train/loss":
                written.append((step, value))
            elif name == "eval/mse":
                closed.append(value)

        def close(self):
            closed.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    common = ["train", "--data", clips, "--out", "run", "--tensorboard", *BASE]
    assert vmrnn(*common, "--steps", 3)[0] == 0
    assert vmrnn(*common, "--steps", 5, "--resume")[0] == 0
    assert [step for step, _ in written] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([loss for _, loss in written], losses("run"), atol=1e-7)
    assert closed == [pytest.approx(float(rows("run")[2]["eval_mse"]), abs=1e-4), "closed", closed[2], "closed"]


def test_tensorboard_reads_what_was_written(vmrnn, clips):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    assert vmrnn("train", "--data", clips, "--steps", 3, "--out", "run", "--tensorboard", *BASE)[0] == 0
    accumulator = events.EventAccumulator("run")
    accumulator.Reload()
    np.testing.assert_allclose([event.value for event in accumulator.Scalars("train/loss")], losses("run"), atol=1e-6)


def test_tensorboard_that_is_not_installed(vmrnn, clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    code, out, err = vmrnn("train", "--data", clips, "--steps", 3, "--out", "run", "--tensorboard", *BASE)
    assert (code, out) == (2, "")
    assert "pip install 'vmrnn[tensorboard]'" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_weights(vmrnn, clips, tmp_path):
    assert vmrnn("train", "--data", clips, "--steps", 2, "--out", "a", *BASE)[0] == 0
    code, _, err = vmrnn(
        "train", "--data", clips, "--steps", 1, "--lr", "1e-9", "--init", "a/best", "--out", "b", *BASE
    )
    assert code == 0, err
    for name, tensor in load_model(Path("a/best")).state_dict().items():
        torch.testing.assert_close(weights("b")[name], tensor, rtol=1e-4, atol=1e-5)


def test_seeds_stay_what_they_were():
    """Runs are resumed by another Python than began them: both must draw the same."""
    assert [train.seed_of(*numbers) for numbers in ((0, 0, 0), (0, 7, 1), (3, 1000, 0, 1))] == [
        3010437511937009226,
        -7512759699906963584,
        -8648303314533679837,
    ]


def test_weights_to_start_from_are_loaded_once(clips, tmp_path, monkeypatch):
    loaded = []
    load = known_weights.load
    monkeypatch.setattr(known_weights, "load", lambda name: loaded.append(name) or load(name))
    given = {"data": str(clips), "init": "vmrnn-b-mmnist", "context": 3, "horizon": 2, "steps": 1, "batch_size": 2}
    trainer = train.Trainer(recipes.make_config({}, given), tmp_path / "run")
    assert loaded == ["vmrnn-b-mmnist"]
    for name, tensor in load("vmrnn-b-mmnist").state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], tensor)
        assert torch.equal(trainer.ema.state_dict()[name], tensor)
    assert trainer.model.training


def test_states_that_do_not_name_their_architecture_are_resumed(vmrnn, clips):
    common = ["train", "--data", clips, "--out", "run", *BASE]
    assert vmrnn(*common, "--steps", 1)[0] == 0
    state = torch.load("run/state.pt", weights_only=True)
    assert state["network"].pop("architecture") == "VMRNN"
    torch.save(state, "run/state.pt")
    assert vmrnn(*common, "--steps", 2, "--resume")[0] == 0


def test_fine_tuning_for_other_frames_is_said(clips, tmp_path):
    given = {"data": str(clips), "init": "vmrnn-b-mmnist", "context": 3, "horizon": 2, "steps": 1, "batch_size": 2}
    lines = train.Trainer(recipes.make_config({}, given), tmp_path / "run").describe()
    assert "vmrnn-b-mmnist was made for 64x64, 10 -> 10 frames; now 16x16, 3 -> 2 frames" in lines


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch-size", "400"], "--batch-size"),
        (["--data", "nowhere"], "nowhere"),
        (["--preset", "huge"], "huge"),
        (["--max-time", "soon"], "soon"),
        (["--resume"], "checkpoint"),
        (["--context", "9"], "--context"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--config", "bad.toml"], "batch_size"),
        (["--config", "type.toml"], "steps"),
        (["--config", "broken.toml"], "broken.toml"),
        (["--device", "toaster"], "toaster"),
        (["--init", "nothing.pth"], "nothing.pth"),
        (["--steps", "0", "--epochs", "0"], "end"),
        (["--memory", "none"], "memory"),
        (["--lr", "nan"], "lr is nan"),
        (["--lr", "0"], "lr is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--workers", "-1"], "workers is -1"),
        (["--epochs", "-1"], "epochs is -1"),
        (["--config", "ema.toml"], "ema in ema.toml is 2.0"),
        (["--config", "stage.toml"], "no stage"),
        (["--out", "ema.toml"], "ema.toml is a file"),
        (["--out", "ema.toml/run"], "ema.toml is a file"),
        (["--config", "loss.toml"], "mse+fun"),
        (["--config", "crop.toml"], "crop in crop.toml is -5"),
        (["--config", "burn.toml"], "burn_in in burn.toml is 2"),
        (["--config", "preset.toml"], "there is no preset '['tiny']'"),
        (["--config", "order.toml"], "put the earlier ones first"),
        (["--config", "twice.toml"], "there is no loss"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(vmrnn, clips, tmp_path, arguments, says):
    (tmp_path / "bad.toml").write_text("bach_size = 3\n")
    (tmp_path / "type.toml").write_text('steps = "many"\n')
    (tmp_path / "broken.toml").write_text("= = =")
    (tmp_path / "ema.toml").write_text("ema = 2.0\n")
    (tmp_path / "stage.toml").write_text('curriculum = [["half", 3, 2]]\n')
    (tmp_path / "loss.toml").write_text('loss = "mse+fun"')
    (tmp_path / "crop.toml").write_text("crop = -5")
    (tmp_path / "preset.toml").write_text('preset = ["tiny"]\n')
    (tmp_path / "order.toml").write_text("curriculum = [[0.9, 2, 1], [0.1, 3, 2]]")
    (tmp_path / "twice.toml").write_text('loss = "mse+0.1*mse"')
    (tmp_path / "burn.toml").write_text("burn_in = 2\ncurriculum = [[0.5, 2, 2]]")
    code, out, err = vmrnn("train", "--data", clips, "--steps", 2, "--out", "run", *BASE, *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_failed_before_its_first_checkpoint_starts_over(vmrnn, clips, tmp_path):
    np.save(tmp_path / "bad.npy", np.full((8, 5, 1, 16, 16), 2.0, np.float32))
    code, _, err = vmrnn("train", "--data", "bad.npy", "--steps", 2, "--out", "run", *BASE)
    assert (code, len(err.splitlines())) == (2, 1)
    assert vmrnn("train", "--data", clips, "--steps", 2, "--out", "run", *BASE)[0] == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_spoilt_data_is_named(vmrnn, clips, workers):
    array = np.load(clips).astype(np.float32) / 255
    array[7:9] = np.inf
    np.save("spoilt.npy", array)
    code, _, err = vmrnn("train", "--data", "spoilt.npy", "--steps", 20, "--workers", workers, "--out", "run", *BASE)
    assert code == 2
    assert err.startswith("error: spoilt.npy")
    assert "infinite" in err


def test_a_path_that_holds_other_data_than_before(vmrnn, clips, tmp_path):
    shutil.copy(clips, tmp_path / "data.npy")
    common = ["train", "--data", "data.npy", "--out", "run", *BASE]
    assert vmrnn(*common, "--steps", 2)[0] == 0
    np.save(tmp_path / "data.npy", np.load(clips)[:30])
    code, _, err = vmrnn(*common, "--steps", 4, "--resume")
    assert code == 2
    assert "number of clips was 40 and is 30" in err


def test_evaluating_on_training_clips_is_said(clips, tmp_path):
    """A gridded sequence long enough for training windows only."""
    np.save(tmp_path / "grid.npy", np.random.default_rng(0).random((30, 1, 8, 8)).astype(np.float32))
    given = {"data": str(tmp_path / "grid.npy"), "context": 3, "horizon": 6, "steps": 3, "batch_size": 4}
    lines = train.Trainer(recipes.make_config({}, given), tmp_path / "run").describe()
    assert [line for line in lines if "evaluating on training clips, as grid.npy: the test split" in line]


def test_evaluating_on_the_training_clips_of_a_file_is_said(vmrnn, clips):
    plain = BASE[:-1]  # not quiet
    code, out, err = vmrnn("train", "--data", clips, "--steps", 1, "--out", "run", *plain)
    assert code == 0
    assert "warning: evaluating on training clips, as clips.npy has no test split of its own" in out + err
    assert "training clips of clips.npy" in Path("run/best/README.md").read_text()


def test_evaluating_on_training_videos_is_said(vmrnn, tmp_path):
    """Of these names, the hash puts one into the test split and the others into training."""
    from vmrnn_cli.video import write_video

    (tmp_path / "folder").mkdir()
    for number in range(5):
        with write_video(tmp_path / "folder" / f"v{number}.mp4", fps=10, overwrite=False) as writer:
            for frame in range(8):
                writer.write(np.full((32, 32, 3), 10 * frame + number, np.uint8))
    common = ["train", "--data", "folder", "--size", 32, "--steps", 1, *BASE]
    assert vmrnn(*common, "--out", "run")[0] == 0
    assert "evaluation split of folder" in Path("run/best/README.md").read_text()
    Path("folder/v2.mp4").unlink()
    assert vmrnn(*common, "--out", "none")[0] == 0
    assert "training clips of folder" in Path("none/best/README.md").read_text()


def test_any_path_can_be_trained_on(vmrnn, clips, tmp_path):
    for number, name in enumerate((b"cl\xff.npy", "cl\N{GRINNING FACE}.npy".encode())):
        shutil.copy(clips, os.fsencode(tmp_path) + b"/" + name)
        assert vmrnn("train", "--data", os.fsdecode(name), "--steps", 1, "--out", f"run{number}", *BASE)[0] == 0
    data = os.fsdecode(name)
    assert vmrnn("train", "--data", data, "--config", "run1/config.toml", "--out", "again", "-q")[0] == 0


def test_a_run_is_not_overwritten_nor_resumed_with_other_data(vmrnn, clips, tmp_path):
    assert vmrnn("train", "--data", clips, "--steps", 2, "--out", "run", *BASE)[0] == 0
    code, _, err = vmrnn("train", "--data", clips, "--steps", 2, "--out", "run", *BASE)
    assert (code, "--resume" in err) == (2, True)
    shutil.copy(clips, tmp_path / "other.npy")
    for change, says in (
        (["--data", tmp_path / "other.npy"], "other.npy"),
        (["--seed", "7"], "seed was 0 and is 7"),
        (["--preset", "vmrnn-b-mmnist"], "embed_dim was 32 and is 64"),
    ):
        arguments = ["train", "--data", clips, "--steps", 4, "--out", "run", "--resume", *BASE, *change]
        code, _, err = vmrnn(*arguments)
        assert code == 2
        assert says in err


# ---- parts


def test_the_published_rates():
    moving_mnist = recipes.make_config({}, {"preset": "vmrnn-d-mmnist"})
    assert [train.learning_rate(moving_mnist, share) for share in (0, 0.5, 1)] == [1, 1, 1]  # as published
    config = recipes.make_config({}, {"preset": "vmrnn-b-taxibj"})
    assert config.lr * train.learning_rate(config, 0.0) == pytest.approx(1e-5)
    assert config.lr * train.learning_rate(config, config.warmup) == pytest.approx(4e-4, rel=2e-3)


def test_learning_rate_warms_up_and_falls():
    config = recipes.make_config({"warmup": 0.1, "plateau": 0.5, "final_lr": 0.01}, {"steps": 9})
    shape = [train.learning_rate(config, share) for share in np.linspace(0, 1, 101)]
    assert shape[0] == pytest.approx(0.1)
    assert shape[5] == pytest.approx(0.55)
    assert shape[11:50] == [1.0] * 39
    assert shape[100] == pytest.approx(0.01)
    assert shape[75] == pytest.approx(0.505)
    assert sorted(shape[50:], reverse=True) == shape[50:]
    cosine = recipes.make_config({"schedule": "cosine", "plateau": 0.0, "warmup": 0.0, "final_lr": 0.0}, {"steps": 9})
    assert train.learning_rate(cosine, 0.5) == pytest.approx(0.5)
    # Published: from 1e-5 up to 1e-4 over 5 of 100 epochs, then on the cosine over all of them down to 1e-6.
    kth = recipes.make_config({"preset": "vmrnn-b-kth"}, {})
    rates = [kth.lr * train.learning_rate(kth, epoch / 100) for epoch in (0, 5, 50, 100)]
    cosine_at_5 = 1e-6 + 0.5 * (1e-4 - 1e-6) * (1 + math.cos(math.pi * 0.05))
    np.testing.assert_allclose(rates, [1e-5, cosine_at_5, 5.05e-5, 1e-6], rtol=1e-6)


def test_loss_covers_every_output_but_no_given_frame():
    torch.manual_seed(0)
    model = VMRNN(VMRNNConfig(embed_dim=16, depths=(1,)))
    clips = torch.rand(2, 5, 1, 8, 8)
    loss = train.RolloutLoss(model, "mse+l1", low_memory=False)(clips, 3)
    from vmrnn_cli.model import rollout

    outputs = torch.stack(list(rollout(model, clips[:, :3].transpose(0, 1), 2)), dim=1)
    d = outputs - clips[:, 1:]
    torch.testing.assert_close(loss, d.square().mean() + d.abs().mean())
    bce = train.RolloutLoss(model, "bce", low_memory=False)(clips, 3)
    torch.testing.assert_close(bce, torch.nn.functional.binary_cross_entropy(outputs, clips[:, 1:]))
    later = train.RolloutLoss(model, "mse", low_memory=False, burn_in=2)(clips, 3)
    torch.testing.assert_close(later, d[:, 2:].square().mean())


def test_losses_with_weights():
    assert recipes.loss_terms("mse+0.05*ssim") == {"mse": 1.0, "ssim": 0.05}
    for wrong in ("", "mse+", "x*mse", "-1*mse", "nan*mse", "inf*mse"):
        with pytest.raises(InputError, match="there is no loss"):
            recipes.loss_terms(wrong)


def test_ssim_as_a_loss_is_the_metric():
    x, y = torch.rand(2, 3, 2, 2, 20, 17, generator=torch.Generator().manual_seed(0))  # (T, B, C, H, W) each
    y = 0.6 * x + 0.4 * y
    want = np.mean([metrics.ssim(a, b) for a, b in zip(x.flatten(0, 1).numpy(), y.flatten(0, 1).numpy(), strict=True)])
    assert train.structural_similarity(x, y).item() == pytest.approx(want, abs=1e-5)
    small = torch.rand(1, 1, 1, 3, 5)  # has no room for the whole window
    assert train.structural_similarity(small, small).item() == pytest.approx(1.0)


def test_teacher_forcing_puts_true_frames_in():
    torch.manual_seed(0)
    model = VMRNN(VMRNNConfig(embed_dim=16, depths=(1,)))
    loss = train.RolloutLoss(model, "mse", low_memory=False)
    clips = torch.rand(2, 6, 1, 8, 8)
    forced = loss(clips, 2, torch.ones(4, 2, dtype=torch.bool))
    torch.testing.assert_close(forced, loss(clips, 5))
    torch.testing.assert_close(loss(clips, 2, torch.zeros(4, 2, dtype=torch.bool)), loss(clips, 2))


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 20, 8), (3, 8, 20), (16, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape), steps=8))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_takes_matrices_only():
    model = VMRNN(VMRNNConfig("D", embed_dim=16, depths=(1,), depths_up=(1,)))
    matrices, others = muon_parameters(model)
    assert all(p.dim() >= 2 for p in matrices)
    assert len(matrices) + len(others) == len(list(model.parameters()))
    p = torch.nn.Parameter(torch.randn(6, 4))
    p.grad = torch.randn(6, 4)
    before = p.detach().clone()
    Muon([p], lr=0.1, weight_decay=0.0).step()
    assert (p.detach() - before).norm() == pytest.approx(0.1 * math.sqrt(4) * math.sqrt(6 / 4), rel=0.2)


def test_errors_name_the_step(clips, tmp_path):
    config = recipes.make_config({}, {"data": str(clips), "context": 3, "horizon": 2, "steps": 3, "batch_size": 4})
    trainer = train.Trainer(config, tmp_path / "run")
    with torch.no_grad():
        trainer.model.reconstruction.final.bias.fill_(float("nan"))
    with pytest.raises(VMRNNError, match="nan at step 1"):
        next(trainer.fit())
    with pytest.raises(InputError, match="no checkpoint"):
        run_state.read_state(tmp_path / "run")


def test_a_folder_of_clips_goes_on_from_our_own_weights(vmrnn, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(Path(__file__).parent.parent / "examples" / "digits.mp4", tmp_path / "mine")
    common = ("train", "--data", "mine", "--context", 3, "--frames", 2, "--steps", 1, "--batch-size", 1, "--size", 32)
    code, _, err = vmrnn(*common, "--out", "run")
    assert code == 0, err
    assert f"starting from {known_weights.default_name()}" in err.splitlines()
    assert load_model(tmp_path / "run" / "best").config.image_size == (32, 32)
    code, _, err = vmrnn(*common, "--init", "none", "--out", "other")
    assert code == 0, err
    assert "starting from" not in err
    assert type(load_model(tmp_path / "other" / "best")) is type(load_model(tmp_path / "run" / "best"))
    code, _, err = vmrnn(*common, "--init", "run/best", "--out", "more")
    assert code == 0, err
    assert f'preset = "{known_weights.default_name()}"' in (tmp_path / "more" / "config.toml").read_text()
    code, _, err = vmrnn(*common, "--init", "run/best", "--preset", "tiny", "--out", "another")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no loss 'mse+bce' of a MotionVMRNN" in err


def test_grids_make_no_scenes(vmrnn, tmp_path):
    np.save(tmp_path / "grid.npy", np.random.default_rng(0).random((60, 2, 16, 8), np.float32))
    code, _, err = vmrnn(
        "train", "--data", "grid.npy", "--init", "vmrnn-d-motion", "--context", 4, "--frames", 2, "--steps", 1,
        "--batch-size", 1, "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    assert any(line.startswith("no scenes of moving layers") for line in err.splitlines())
