"""The network: the published numbers, and what must hold for any input."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from published import TOLERANCES, assert_rollout_is_published

from vmrnn_cli import scan
from vmrnn_cli.model import SS2D, VMRNN, DropPath, PatchExpanding, PatchMerging, State, VMRNNConfig, rollout
from vmrnn_cli.networks import NETWORKS
from vmrnn_cli.scan import native

BACKENDS = [
    *(f"native {isa}, float32" for isa in native.INSTRUCTION_SETS),
    "torch, float32", "reference, float32", "torch, float64", "reference, float64",
]  # fmt: skip


@pytest.fixture
def backend_and_dtype(request, use_isa):
    """The backend and the float type of a line of BACKENDS."""
    name, dtype = request.param.split(", ")
    backend, *isa = name.split()
    if isa:
        use_isa(*isa)
    return backend, getattr(torch, dtype)


@pytest.mark.parametrize("backend_and_dtype", BACKENDS, indirect=True)
def test_ss2d_is_the_published_one(golden, backend_and_dtype):
    backend, dtype = backend_and_dtype
    numbers = golden("ss2d")
    ss2d = SS2D(8)
    ss2d.load_state_dict(numbers.params)
    ss2d.to(dtype).scan_backend = backend
    out = ss2d(numbers.tensors["input"].to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), numbers.tensors["output"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("backend_and_dtype", BACKENDS, indirect=True)
@pytest.mark.parametrize("name", TOLERANCES)
def test_rollout_states_loss_and_gradients_are_the_published_ones(golden, name, backend_and_dtype):
    assert_rollout_is_published(golden, name, *backend_and_dtype)


SMALL_B = VMRNNConfig(embed_dim=16, depths=(2,))
SMALL_D = VMRNNConfig(variant="D", embed_dim=16, depths=(1, 2), depths_up=(2, 1))
SMALL_4 = VMRNNConfig(embed_dim=16, depths=(1,), patch_size=4, image_channels=3)
SMALL = pytest.mark.parametrize("config", [SMALL_B, SMALL_D, SMALL_4], ids=["B", "D", "B4"])


def network(config, seed=0):
    torch.manual_seed(seed)
    return VMRNN(config).eval()


@SMALL
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (5, 7), (1, 1), (4, 30), (17, 2)], ids=str)
@torch.no_grad()
def test_any_size(config, size):
    frame = torch.rand(2, config.image_channels, *size)
    out, states = network(config)(frame)
    assert out.shape == frame.shape
    assert ((out > 0) & (out < 1)).all()
    assert len(states) == (1 if config.variant == "B" else 4)
    assert all(isinstance(state, State) for state in states)


@SMALL
@torch.no_grad()
def test_padding_repeats_the_edge_and_is_cropped(config):
    model, m = network(config), config.multiple
    frame = torch.rand(1, config.image_channels, m + 1, 2 * m - 1)
    by_hand = torch.nn.functional.pad(frame, (0, 1, 0, m - 1), mode="replicate")
    torch.testing.assert_close(model(frame)[0], model(by_hand)[0][..., : m + 1, : 2 * m - 1])


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@torch.no_grad()
def test_any_number_of_channels(channels):
    model = network(dataclasses.replace(SMALL_B, image_channels=channels))
    assert model(torch.rand(1, channels, 8, 8))[0].shape == (1, channels, 8, 8)


@SMALL
@torch.no_grad()
def test_rollout_is_step_after_step(config):
    model = network(config)
    context = torch.rand(3, 2, config.image_channels, 16, 16)
    outputs = list(rollout(model, context, 2))
    assert len(outputs) == 3 - 1 + 2
    frame, states = model(context[0])
    torch.testing.assert_close(outputs[0], frame, rtol=0, atol=0)
    for step in (1, 2):
        frame, states = model(context[step], states)
        torch.testing.assert_close(outputs[step], frame, rtol=0, atol=0)
    frame, states = model(frame, states)
    torch.testing.assert_close(outputs[3], frame, rtol=0, atol=0)


@SMALL
@torch.no_grad()
def test_outputs_depend_on_earlier_frames_only(config):
    model = network(config)
    context = torch.rand(4, 1, config.image_channels, 16, 16)
    changed = context.clone()
    changed[2] = 1 - changed[2]
    before, after = list(rollout(model, context, 1)), list(rollout(model, changed, 1))
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[2:], after[2:], strict=True))


@SMALL
@torch.no_grad()
def test_batch_elements_do_not_meet(config):
    model = network(config)
    context = torch.rand(2, 3, config.image_channels, 16, 16)
    whole, alone = list(rollout(model, context, 2))[-1], list(rollout(model, context[:, 1:2], 2))[-1]
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-5, atol=1e-5)


@SMALL
def test_every_parameter_is_used(config):
    model = VMRNN(config)
    frame, states = model(torch.rand(1, config.image_channels, 16, 16))
    model(frame, states)[0].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_a_state_of_zeros_is_normalised_like_any_other():
    """LayerNorm of zeros is its bias: with one, the first block sees the hidden state of the very first step."""
    model = network(SMALL_B)
    frame = torch.rand(1, 1, 8, 8)
    block = model.down[0].blocks[0]
    block.norm.bias.fill_(0.5)
    first = model(frame)[0]
    zeros = State(torch.zeros(1, 4, 4, 16), torch.zeros(1, 4, 4, 16))
    torch.testing.assert_close(first, model(frame, (zeros,))[0], rtol=0, atol=0)
    block.mix.weight[:, 16:] = 0  # no longer listens to the hidden state
    assert not torch.equal(first, model(frame)[0])


@torch.no_grad()
def test_patch_merging_order_and_expanding():
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()
    merging.reduction.weight.copy_(torch.eye(4)[:2])
    grid = torch.arange(16.0).view(1, 4, 4, 1)
    assert merging(grid)[0, 0, 0].tolist() == [0.0, 4.0]  # (0, 0), (1, 0)
    merging.reduction.weight.copy_(torch.eye(4)[2:])
    assert merging(grid)[0, 0, 0].tolist() == [1.0, 5.0]  # (0, 1), (1, 1)
    expanding = PatchExpanding(2)
    expanding.norm = torch.nn.Identity()
    expanding.expand.weight.copy_(torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    assert expanding(torch.tensor([[[[1.0, 0.0]]]]))[0, :, :, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_initial_values():
    torch.manual_seed(0)
    ss2d = SS2D(32)
    dt = torch.nn.functional.softplus(ss2d.dt_projs_bias)
    assert 1e-3 * 0.99 < dt.min() < 2e-3
    assert 5e-2 < dt.max() < 1e-1 * 1.01
    assert ss2d.dt_projs_weight.abs().max() <= 2**-0.5
    torch.testing.assert_close(ss2d.A_logs.exp(), torch.arange(1.0, 17.0).expand(256, 16))
    assert (ss2d.Ds == 1).all()


def test_same_seed_same_network():
    a, b = network(SMALL_D, seed=5), network(SMALL_D, seed=5)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_drop_path_keeps_the_mean_and_rests_in_evaluation():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert out.mean() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_rates():
    rates = [b.drop_path.rate for b in VMRNN(dataclasses.replace(SMALL_B, drop_path=0.3)).down[0].blocks]
    assert rates == [0.3, 0.3]
    model = VMRNN(dataclasses.replace(SMALL_D, drop_path=0.2))
    rates = [b.drop_path.rate for cell in model.down for b in cell.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_state_stays_float32_under_bfloat16():
    model = network(SMALL_B)
    with torch.autocast("cpu", torch.bfloat16):
        _, states = model(torch.rand(1, 1, 8, 8))
        _, states = model(torch.rand(1, 1, 8, 8), states)
    assert {t.dtype for state in states for t in state} == {torch.float32}


def test_frames_stay_float32_under_bfloat16():
    """Where a pixel is almost white, bfloat16 would round it to 1 and its gradient away."""
    model = network(SMALL_B)
    torch.nn.init.constant_(model.reconstruction.final.bias, 8.0)
    with torch.autocast("cpu", torch.bfloat16):
        frame, _ = model(torch.rand(1, 1, 8, 8))
    assert frame.dtype == torch.float32
    assert ((frame > 0.99) & (frame < 1)).any()


@torch.no_grad()
def test_a_network_too_wide_for_the_native_scan_runs_on_another():
    """A rank of dt beyond what the kernels hold on their stack must never reach them."""
    ss2d = SS2D(16 * native.MAX_RANK + 1)
    assert ss2d.rank == native.MAX_RANK + 1
    assert ss2d(torch.rand(1, 1, 1, 16 * native.MAX_RANK + 1)).isfinite().all()


def test_scan_backend_is_set_everywhere():
    model = VMRNN(SMALL_D)
    model.scan_backend = "torch"
    assert {m.scan_backend for m in model.modules() if isinstance(m, SS2D)} == {"torch"}
    assert model.scan_backend == "torch"
    assert scan.pick_backend("auto", "cpu") in scan.BACKENDS


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "C"}, {"patch_size": 3}, {"depths": (2, 2)}, {"depths": ()}, {"depths_up": (1,)}, {"embed_dim": 0},
        {"variant": "D", "depths": (1, 2), "depths_up": (1,)}, {"patch_size": 4, "embed_dim": 24},
        {"image_channels": -1}, {"image_size": (64,)}, {"image_size": (0, 64)}, {"d_state": 0}, {"depths": (0,)},
        {"context": 0}, {"horizon": -1}, {"drop_path": 1.0}, {"drop_path": -0.1}, {"drop_path": math.nan},
        {"embed_dim": 10**9}, {"depths": (10**9,)}, {"image_channels": 10**30}, {"horizon": 10**30},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_configurations(wrong):
    with pytest.raises(ValueError, match=r".+"):
        VMRNNConfig(**wrong)


@pytest.mark.parametrize("name", NETWORKS)
def test_configuration_survives_json(name):
    config = NETWORKS[name]
    assert type(config)(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert hash(config) == hash(dataclasses.replace(config))


def test_a_predictor_falls_back_as_its_widest_block_must():
    from vmrnn_cli.predictor import Predictor

    wide = VMRNN(dataclasses.replace(SMALL_B, depths=(1,)))
    assert wide.rank == 1
    wide.down[0].blocks[0].ss2d.rank = native.MAX_RANK + 1
    assert Predictor(wide, device="cpu").scan_backend == "torch"
