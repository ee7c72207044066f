"""The training on a GPU alone and the call that prepares, tests and measures it, on the CPU: benchmarks/gpu_*.py."""

from __future__ import annotations

import ast
import dataclasses
import functools
import gc
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vmrnn_cli import pretrained, scan
from vmrnn_cli.data.moving_mnist import MovingMNIST, make_clip, read_digits
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.model import rollout
from vmrnn_cli.optim import Muon, muon_parameters

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu  # noqa: E402
import gpu_all  # noqa: E402
import gpu_train  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A folder like MNIST's, with a few drawn digits."""
    folder = tmp_path_factory.mktemp("mnist")
    gpu_all.make_digits(folder)
    return folder


@functools.cache
def begun(record=gpu_train.work_again, **changes):
    """A training of the tiny network; its batches have two clips."""
    recipe = dataclasses.replace(gpu_train.TINY_RECIPE, **changes)
    return gpu_train.Training(gpu_train.TINY, recipe, CPU, torch.float32, record)


def training(record=gpu_train.work_again, **changes):
    begun.cache_clear()
    return begun(record, **changes)


def some_clips(count=2, frames=4, seed=0):
    return torch.rand(count, frames, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


def copies(tensors):
    return [tensor.clone() for tensor in tensors]


# ---- digits


def test_test_clips_are_those_of_the_data_set(mnist):
    digits = gpu_train.load_digits(mnist, CPU)[1]
    dataset = MovingMNIST(mnist, "test", 20)
    got = digits.test(range(5, 9), 20)
    assert got.dtype == torch.uint8
    for clip, number in zip(got, range(5, 9), strict=True):
        np.testing.assert_array_equal(clip.numpy(), dataset.clip(number, np.random.default_rng(0)))


def test_drawn_clips_follow_the_same_law(mnist):
    images = read_digits(mnist / "train-images-idx3-ubyte")
    digits = gpu_train.Digits(images, CPU)
    draw = functools.partial(digits.draw, 200, 12)
    clips = draw(torch.Generator().manual_seed(3))
    assert clips.shape == (200, 12, 1, 64, 64) and clips.dtype == torch.float32
    assert clips.min() == 0 and clips.max() == 1
    assert torch.equal(clips, draw(torch.Generator().manual_seed(3)))
    assert not torch.equal(clips, draw(torch.Generator().manual_seed(4)))
    rng = np.random.default_rng(0)
    want = np.stack([make_clip(images, rng, 12) for _ in range(200)]) / 255
    assert abs(clips.mean().item() / want.mean() - 1) < 0.05
    changes, wanted = clips.diff(dim=1).abs().mean().item(), np.abs(np.diff(want, axis=1)).mean()
    assert abs(changes / wanted - 1) < 0.05  # they move as fast
    brightness = clips.mean((0, 1, 2)).numpy(), want.mean((0, 1, 2))  # and are as often in each place
    assert np.corrcoef(brightness[0].ravel(), brightness[1].ravel())[0, 1] > 0.9


def test_digits_to_train_on_are_not_those_of_the_validation_split(mnist):
    train, test = gpu_train.load_digits(mnist, CPU)
    assert (len(train.rimmed), len(test.rimmed)) == (9, 10)
    with pytest.raises(InputError, match="no train digits"):
        gpu_train.load_digits(mnist / "none", CPU)


# ---- the step


def test_batched_muon_is_muon():
    one, other = training(), training()
    rate = torch.tensor(0.02)
    matrices = muon_parameters(one.model)[0]
    batched = gpu_train.BatchedMuon(matrices, rate, 0.01, torch.float32)
    plain = Muon(muon_parameters(other.model)[0], lr=0.02, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        gradients = [torch.randn(p.shape, generator=generator) for p in matrices]
        batched.step(dict(zip(matrices, gradients, strict=True)))
        for parameter, gradient in zip(plain.param_groups[0]["params"], gradients, strict=True):
            parameter.grad = gradient
        plain.step()
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_is_that_of_pytorch(parts):
    """Forward, backward, clipping, AdamW and the average, written as in any training."""
    ours, theirs, clips = training(None), training(None), some_clips()
    matrices, others = muon_parameters(theirs.model)
    optimizers = Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=0.0025, betas=(0.9, 0.98), weight_decay=0.0)
    ours.record(clips, 2, parts)
    for seed in range(3):
        clips = some_clips(seed=seed)
        loss, norm = ours.step(clips, 0.01, 0.9)
        before = theirs.loss(clips, 2)
        before.backward()
        total = torch.nn.utils.clip_grad_norm_(theirs.model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for average, parameter in zip(theirs.average.parameters(), theirs.model.parameters(), strict=True):
                average.lerp_(parameter, 0.1)
        assert loss == pytest.approx(before.item(), rel=1e-4)
        assert norm == pytest.approx(total.item(), rel=1e-3)
    for kind in ("model", "average"):
        others = dict(getattr(theirs, kind).named_parameters())
        for name, parameter in getattr(ours, kind).named_parameters():
            if name != "reconstruction.inflate.0.bias":  # a norm follows: its gradient is nothing but rounding
                torch.testing.assert_close(parameter, others[name], rtol=1e-3, atol=1e-4)


def test_recording_leaves_no_trace():
    run = training()
    run.record(some_clips(), 2, 1)
    run.step(some_clips(), 0.01, 0.9)
    before = copies(run.tensors())
    assert len(before) == 2 * len(run.parameters) + len(run.muon.momenta) + 3 * len(run.others)
    run.record(some_clips(frames=3), 2, 1)
    assert all(torch.equal(a, b) for a, b in zip(run.tensors(), before, strict=True))


def test_a_recording_that_computes_something_else_is_refused():
    def record(work):
        work()
        return lambda: run.told.mul_(1.2)

    run = training(record)
    with pytest.raises(VMRNNError, match="the recorded step has a loss"):
        run.record(some_clips(), 2, 1)


def test_a_recorded_step_moves_nothing_that_it_uses_again():
    run = training(None)
    run.record(some_clips(), 2, 1)
    places = [tensor.data_ptr() for tensor in [*run.tensors(), run.clips, run.rate, run.told]]
    run.step(some_clips(seed=1), 0.01, 0.9)
    assert [tensor.data_ptr() for tensor in [*run.tensors(), run.clips, run.rate, run.told]] == places


def test_nothing_remembers_an_earlier_stream():
    """The nodes at which gradients arrive belong to the stream on which they were made: a recording wants new ones."""
    run = training(None)
    loss = run.loss

    def nodes():
        return [parameter.view_as(parameter).grad_fn.next_functions[0][0] for parameter in run.parameters]

    def marking(clips, context):
        value = loss(clips, context)
        for node in nodes():
            node.metadata["old"] = True
        return value

    run.loss = marking
    gc.collect()
    gc.disable()  # at once, and not when rubbish is collected
    try:
        run.gradients(some_clips(), 2, 1)
        assert not any("old" in node.metadata for node in nodes())
    finally:
        gc.enable()


def test_a_gradient_that_is_not_finite_spoils_nothing():
    run = training(None)
    run.record(some_clips(), 2, 1)
    run.step(some_clips(), 0.01, 0.9)
    _, norm = run.step(some_clips() * float("nan"), 0.01, 0.9)
    assert not np.isfinite(norm)
    assert all(torch.isfinite(tensor).all() for tensor in run.tensors())


def test_evaluation_is_the_squared_error_of_frames(mnist):
    run = training(None)
    digits = gpu_train.load_digits(mnist, CPU)[1]
    scores = gpu_train.evaluate(run, gpu_train.in_batches(digits, 5, 5, size=2))
    clips = digits.test(range(5), 5).float() / 255
    with torch.inference_mode():
        outputs = torch.stack(list(rollout(run.average, clips[:, :3].transpose(0, 1), 2)), 1)[:, 2:]
    assert scores["clips"] == 5
    assert scores["mse"] == pytest.approx((outputs - clips[:, 3:]).square().sum((2, 3, 4)).mean().item(), rel=1e-5)
    repeated = (clips[:, 2:3] - clips[:, 3:]).square().sum((2, 3, 4))
    assert scores["last_frame_mse"] == pytest.approx(repeated.mean().item(), rel=1e-5)


def test_a_batch_is_cut_to_fit(monkeypatch):
    run = training(None, batch_size=32)
    run.device = torch.device("cuda")
    for most in (32, 5, 1):  # clips that fit at once

        def peak(batch, context, horizon, most=most):
            if batch > most:
                raise torch.OutOfMemoryError
            return batch * (context + horizon - 1) * 10**8

        monkeypatch.setattr(run, "_peak", peak)
        run.kept = 0.0
        for free, parts in ((90e9, 1), (70e9, 2), (3e9, 32), (1e9, 32)):  # a clip takes 1.9e9 of three quarters of it
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 100e9))
            assert run.parts_that_fit(10, 10) == parts


@pytest.mark.parametrize("name, chosen", [("cuda", []), ("cuda:1", [torch.device("cuda", 1)])])
def test_the_gpu_is_chosen_where_one_is_named(monkeypatch, name, chosen):
    devices, made, run = [], [], training()

    def choose(device):
        assert device.index is not None, "PyTorch wants one"
        devices.append(device)

    def remember(*arguments):
        made.append(arguments)
        return run

    monkeypatch.setattr(torch.cuda, "set_device", choose)
    monkeypatch.setattr(gpu_train, "pick_device", torch.device)
    monkeypatch.setattr(gpu_train, "pick_dtype", lambda name, device: torch.float32)
    monkeypatch.setattr(gpu_train, "Training", remember)
    gpu_train.build(gpu_train.parse(["--tiny", "--device", name]))
    assert devices == chosen and made[0][2] == torch.device(name)


def test_a_batch_is_cut_further_where_it_does_not_fit(monkeypatch):
    run = training(batch_size=4)
    record, tried = run.record, []

    def tight(clips, context, parts):
        tried.append(parts)
        if parts < 2:
            raise torch.OutOfMemoryError
        record(clips, context, parts)

    monkeypatch.setattr(run, "record", tight)
    assert run.prepare(some_clips(4), 2) == 2
    assert tried == [1, 2]
    assert np.isfinite(run.step(some_clips(4), 0.01, 0.9)).all()


def test_what_fails_is_left_to_pytorch(monkeypatch):
    calls = []
    for name in gpu_train.PLAIN:
        operator = getattr(scan, name)
        monkeypatch.setattr(scan, name, lambda *inputs, f=operator, n=name: calls.append((n, inputs[-1])) or f(*inputs))
    options = ["digits", "--tiny", "--device", "cpu", "--scan", "torch", "--no-graph", "--lr", "0.5"]
    run = gpu_train.build(gpu_train.parse([*options, "--plain", "norm_gate"]))
    assert run.record_graph is None and run.recipe.lr == 0.5
    run.model.scan_backend = "reference"
    run.model(some_clips()[:, 0])
    assert set(calls) == {("conv_silu", "reference"), ("norm_gate", "torch")}


# ---- the schedule


def test_clips_grow_longer_over_the_schedule():
    assert [gpu_train.stage(gpu_train.RECIPE, share) for share in (0, 0.3, 0.6, 0.9, 1)] == [
        (6, 2), (6, 6), (6, 10), (10, 10), (10, 10),
    ]  # fmt: skip
    steps = gpu_train.network_steps(gpu_train.RECIPE, 0, 1000)
    assert steps == pytest.approx(250 * 7 + 200 * 11 + 300 * 15 + 250 * 19)
    assert gpu_train.network_steps(gpu_train.RECIPE, 500, 1000) == pytest.approx(250 * 15 + 250 * 19)


@pytest.mark.parametrize("first", [0, 5000])
def test_the_schedule_ends_with_the_time(first):
    total = gpu_train.reachable(gpu_train.RECIPE, first, 100_000)
    assert total > first
    assert gpu_train.network_steps(gpu_train.RECIPE, first, total) == pytest.approx(100_000)


def test_a_spell_stretches_the_schedule_of_the_one_before(monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spell = gpu_train.Spell(tmp_path, 100.0, 60.0, 0, 0, 500, None)
    before = {"clips": 3200, "share": 1.0}
    pace, clips, shares = gpu_train.Pace(gpu_train.RECIPE, spell, before), 3200, []
    while now[0] < 100:  # ten batches a second of the shortest clips, fewer of longer ones
        shares.append(pace.share(clips, 100 - now[0]))
        steps = 32 * (sum(gpu_train.stage(gpu_train.RECIPE, shares[-1])) - 1)
        now[0] += steps / (320 * 7)
        clips += 32
        pace.took(steps)
    assert shares[0] == 0.5
    assert shares == sorted(shares)
    assert 0.97 < shares[-1] <= 1.0
    assert not pace.over(clips)


def test_a_schedule_of_so_many_clips(tmp_path):
    pace = gpu_train.Pace(
        gpu_train.RECIPE, gpu_train.Spell(tmp_path, 1.0, 1.0, 1000, 0, 500, None), {"clips": 100, "share": 0.9}
    )
    assert [pace.share(clips, 1.0) for clips in (100, 500, 1000)] == [0.1, 0.5, 1.0]
    assert not pace.over(999) and pace.over(1000)


# ---- checkpoints


def test_a_checkpoint_goes_on_where_it_was(tmp_path):
    run, progress = training(None), gpu_train.new_progress(gpu_train.TINY)
    run.record(some_clips(), 2, 1)
    for seed in range(3):
        run.step(some_clips(seed=seed), 0.01, 0.9)
    gpu_train.save_checkpoint(tmp_path, run, progress | {"clips": 6, "steps": 3})
    other = training(None, seed=1)
    assert gpu_train.load_checkpoint(tmp_path, other)["clips"] == 6
    for got, want in zip(other.tensors(), run.tensors(), strict=True):
        error = (got - want).abs().max().item()
        assert error <= 1e-2 * want.abs().max().item() + 1e-12
    for got, want in zip(
        other.parameters, run.parameters, strict=True
    ):  # a byte says how far they are from the average
        assert (got - want).abs().max() < 1e-4
    assert next(iter(other.adam.state.values()))["step"] == 3
    (tmp_path / "momentum-1.safetensors").unlink()  # may be left behind
    third = training(None, seed=2)
    gpu_train.load_checkpoint(tmp_path, third)
    assert not any(momentum.any() for momentum in third.muon.momenta)
    assert all(torch.equal(a, b) for a, b in zip(third.parameters, other.parameters, strict=True))


def test_pieces_are_few_and_none_too_large():
    sizes = [9, 9, 5, 5, 1, 1]  # MiB
    tensors = {f"t{number}": torch.zeros(size * 2**20, dtype=torch.int8) for number, size in enumerate(sizes)}
    pieces = gpu_train._pieces(tensors)
    assert len(pieces) == 2
    assert {name for piece in pieces for name in piece} == set(tensors)
    assert all(sum(t.nbytes for t in piece.values()) < 16 * 2**20 for piece in pieces)


def test_half_a_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_train, "PIECE", 50_000)
    run, progress = training(None), gpu_train.new_progress(gpu_train.TINY)
    gpu_train.save_checkpoint(tmp_path, run, progress)
    pieces = sorted(tmp_path.glob("network-*"))
    assert len(pieces) > 1
    gpu_train.load_checkpoint(tmp_path, run)
    mixed = pieces[0].read_bytes()
    gpu_train.save_checkpoint(tmp_path, run, progress | {"steps": 1})
    pieces[0].write_bytes(mixed)
    with pytest.raises(InputError, match="not whole"):
        gpu_train.load_checkpoint(tmp_path, run)
    pieces[0].unlink()
    with pytest.raises(InputError, match="not whole"):
        gpu_train.load_checkpoint(tmp_path, run)
    with pytest.raises(InputError, match="no checkpoint"):
        gpu_train.load_checkpoint(tmp_path / "none", run)


def test_another_network_is_refused(tmp_path):
    gpu_train.save_checkpoint(tmp_path, training(None), gpu_train.new_progress(gpu_train.NETWORK))
    with pytest.raises(InputError, match="another network"):
        gpu_train.load_checkpoint(tmp_path, training(None))


def test_a_checkpoint_becomes_weights(tmp_path):
    run = training(None)
    gpu_train.save_checkpoint(tmp_path, run, gpu_train.new_progress(gpu_train.TINY))
    gpu_train.export(tmp_path, tmp_path / "weights")
    model = pretrained.load_model(tmp_path / "weights")
    assert model.config == gpu_train.TINY
    for got, want in zip(model.parameters(), run.average.parameters(), strict=True):
        assert torch.equal(got, want.half().float())


def test_a_spell_ends_in_time_with_a_checkpoint(mnist, tmp_path, monkeypatch):
    run = training(None)
    train, test = gpu_train.load_digits(mnist, CPU)
    spell, facts = gpu_train.Spell(tmp_path, 30.0, 10.0, 0, 4, 2, tmp_path / "report.json"), {}
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 4)
    gpu_train.run(spell, run, train, test, gpu_train.new_progress(gpu_train.TINY), facts)
    assert 26 < next(clock) / 4 < 30
    told = json.loads(spell.report.read_text())
    assert told["progress"]["share"] > 0.9  # the schedule has ended with the time
    assert len(told["progress"]["history"]) == 4  # at the beginning, every ten seconds and at the end
    assert told["progress"]["test"]["clips"] == 4
    assert sum(speed["clips"] for speed in facts["speeds"].values()) == told["progress"]["clips"]
    _, progress = gpu_train.read_pieces(tmp_path, "network")
    assert progress == told["progress"]


# ---- the call


def test_ways_go_from_the_fastest_that_passed_to_what_always_works():
    triton = ["--scan", "triton"]
    both = ["--plain", "conv_silu", "norm_gate"]
    torch_ways = [["--scan", "torch"], ["--scan", "torch", "--no-graph"]]
    assert gpu_all.ways(set()) == [triton, [*triton, *both], [*triton, "--no-graph"], *torch_ways]
    plain = [*triton, "--plain", "norm_gate"]
    assert gpu_all.ways({"norm_gate"}) == [plain, [*triton, *both], [*plain, "--no-graph"], *torch_ways]
    assert gpu_all.ways({"graph"}) == [[*triton, "--no-graph"], torch_ways[1]]
    assert gpu_all.ways({"scan", "conv_silu"}) == torch_ways
    assert gpu_all.ways({"scan"}, mamba=True)[0] == ["--scan", "mamba"]


def test_every_way_is_understood():
    for way in gpu_all.ways({"conv_silu"}, mamba=True):
        options = gpu_train.parse(["digits", *way])
        assert options.data == Path("digits") and options.scan == way[1]
        assert options.graph == ("--no-graph" not in way)


def test_every_test_on_a_gpu_speaks_for_something():
    source = ast.parse((Path(__file__).parent / "test_gpu.py").read_text())
    names = {node.name for node in source.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    assert names == set(gpu_all.TESTS)


def test_a_process_that_breaks_or_hangs_costs_only_itself(tmp_path):
    def job(name, code):
        return gpu_all.Job(name, [sys.executable, "-S", "-c", code])

    jobs = [
        job("good", "print('found: {\"a\": 1}'); print('found: {\"b\": 2}')"),
        job("bad", "raise SystemExit('it broke')"),
        job("slow", "print('found: {\"a\": 3}', flush=True); import time; time.sleep(600)"),
        job("late", "print()"),
    ]
    seen = []
    log = tmp_path / "log.txt"
    outcomes = gpu_all.run_jobs(jobs, time.monotonic() + 8, workers=1, log=log, done=seen.append)
    assert outcomes == seen
    assert [(o.job.name, o.ended) for o in outcomes] == [
        ("good", "passed"), ("bad", "failed"), ("slow", "stopped"), ("late", "skipped"),
    ]  # fmt: skip
    assert [o.found for o in outcomes] == [{"a": 1, "b": 2}, {}, {"a": 3}, {}]
    assert "it broke" in log.read_text()
    assert outcomes[1].facts()["output"].strip() == "it broke"


@pytest.mark.parametrize(
    ("code", "blamed"),
    [
        ("print('found: {\"begun\": true}'); raise SystemExit('wrong')", ("scan",)),
        ("print('found: {\"begun\": false}'); import nothing_of_this_name", ()),
        ("raise SystemExit(1)", ("scan",)),  # pytest: a test failed
        ("raise SystemExit(4)", ()),  # pytest: there is no such test
        ("import os; os.abort()", ("scan",)),
        ("", ()),
    ],
)
def test_a_kernel_is_blamed_for_its_own_failures(code, blamed, tmp_path):
    job = gpu_all.Job("one", [sys.executable, "-S", "-c", code], ("scan",))
    (outcome,) = gpu_all.run_jobs(
        [job], time.monotonic() + 60, workers=1, log=tmp_path / "log", done=lambda outcome: None
    )
    assert outcome.blamed() == blamed


def test_nothing_runs_on_after_an_interruption(tmp_path):
    number = tmp_path / "number"
    slow = f"import os, pathlib, time; pathlib.Path({str(number)!r}).write_text(str(os.getpid())); time.sleep(600)"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(number)!r}).exists(): time.sleep(0.1)"
    jobs = [gpu_all.Job(code, [sys.executable, "-S", "-c", code]) for code in (slow, wait)]

    def interrupted(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu_all.run_jobs(jobs, time.monotonic() + 60, workers=2, log=tmp_path / "log", done=interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)


def test_what_the_training_lacks_is_said_at_once(mnist, tmp_path):
    for options, reason in (
        ([], "a folder with MNIST's idx files"),
        (["--data", tmp_path], "a folder with MNIST's idx files"),
        (["--data", mnist, "--resume", tmp_path], "no checkpoint"),
    ):
        command = [sys.executable, BENCHMARKS / "gpu_all.py", "--out", tmp_path / "out", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert reason in done.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()


def test_the_rehearsal_with_nothing_but_what_it_needs(tmp_path):
    """All phases, in an environment without anything for pictures, videos and downloads."""
    pytest.importorskip("triton")
    blocked = ("imageio", "imageio_ffmpeg", "pooch", "matplotlib", "PIL", "tensorboard", "torchvision", "mamba_ssm")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    out = tmp_path / "out"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "VMRNN_TEST_GPU"))
    }
    environment |= {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        BENCHMARKS / "gpu_all.py",
        "--rehearse",
        "--out",
        out,
        "--budget",
        "900",
        "--train=--lr 0.002",
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    log = (out / "log.txt").read_text()
    assert done.returncode == 0, done.stderr + log
    assert "failed" not in done.stdout, log
    results = json.loads((out / "results.json").read_text())
    draws = "batch commands.doctor event_films maps pages render serve writers"
    pictures = tuple(f"vmrnn_cli.{name}" for name in draws.split())
    assert all(name.startswith(pictures) for name in results["a"]["look"]["imports_failing"]), log
    for phase in "abcd":
        assert results[phase] and all(job["ended"] == "passed" for job in results[phase].values()), log
    trained = results["d"]["--scan auto"]["progress"]
    assert (trained["clips"], trained["steps"], trained["share"]) == (8, 4, 0.75)
    assert [point["clips"] for point in trained["history"]] == [0, 2, 4, 6, 8]
    assert trained["test"]["clips"] == 6
    assert "loss" in log and ", rate 0.00001," in log  # a twentieth of a tenth, in the first step
    assert len(list(out.iterdir())) <= 8
    assert {path.name for path in out.iterdir()} == {
        "log.txt", "results.json", "speed.json", "network-1.safetensors", "momentum-1.safetensors",
    }  # fmt: skip


def test_the_table_of_what_an_h200_reached():
    results = json.loads((BENCHMARKS / "results" / "NVIDIA-H200.json").read_text())
    table = gpu.table(results)
    assert "| vmrnn-d-mmnist, one step at batch 1, ms | 1.92 | 155.73 | 81.2 |" in table
    assert "| 3168 | not measured |" in table
    results["steps"][1]["out_of_memory_at_batch"] = 4
    assert "| 3168 | out of memory |" in gpu.table(results)
