"""The Triton kernels in Triton's interpreter, on the CPU; mamba-ssm's layout; the recorded step; the GPU benchmark."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import scan_inputs
import torch
import torch.nn.functional as F
from published import TOLERANCES, assert_rollout_is_published
from scan_inputs import distance

from vmrnn_cli import scan
from vmrnn_cli.devices import autocast
from vmrnn_cli.errors import InputError
from vmrnn_cli.gpu import GraphedStep
from vmrnn_cli.model import SS2D, VMRNN, VMRNNConfig, rollout
from vmrnn_cli.predictor import Predictor, Timing
from vmrnn_cli.scan import mamba, operators, reference

HAS_TRITON = importlib.util.find_spec("triton") is not None
if HAS_TRITON:
    # Triton decides for its own library too, when it is first imported, whether the interpreter runs it; PyTorch's FLOP
    # counter has imported it by now. All but its compiled part is therefore imported once more.
    for name in [n for n in sys.modules if n.split(".")[0] == "triton" and not n.startswith("triton._C")]:
        del sys.modules[name]
    with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
        from vmrnn_cli.scan import triton as interpreted
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed (there are wheels for Linux x86-64)")
inputs = functools.partial(scan_inputs.inputs, N=4)  # fewer states: the interpreter is slow
NAMES = ("y", "x", "x_dbl", "dt_weight", "dt_bias", "A_logs", "Ds")


def exact(tensors, dy):
    """Output and gradients by the definition, in float64."""
    doubles = [t.double() for t in tensors]
    y, states = reference.forward(*doubles)
    return [y, *reference.backward(dy.double(), *doubles, states)]


def assert_close(got, want, tolerance=1e-6):
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert distance(a, b) < tolerance, name


@pytest.fixture
def kernels(monkeypatch):
    """The Triton module, interpreted, with tiles of 4 tokens instead of 16, so that small grids have several."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(interpreted, "TILE", 4)
    return interpreted


# ---- the scan


@needs_triton
@pytest.mark.parametrize(
    ("shape", "N"),
    [
        ((1, 1, 1, 8, 1), 4),
        ((2, 3, 4, 24, 3), 2),
        ((1, 4, 3, 40, 2), 3),
        ((1, 1, 7, 16, 17), 1),
        ((1, 9, 1, 18, 1), 2),
        ((1, 2, 3, 24, 2), 16),
    ],
    ids=str,
)
def test_scan_matches_the_definition(kernels, shape, N):
    tensors = inputs(*shape, N=N)
    y, kept = kernels.scan_forward(*tensors, True)
    assert y.dtype == torch.float32
    assert kept.shape == kernels.kept_shape(shape[:4], 4, N)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    assert_close([y, *kernels.scan_backward(dy, *tensors, kept)], exact(tensors, dy))


@needs_triton
def test_scan_with_the_tiles_of_a_gpu(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", 16)
    tensors = inputs(1, 3, 7, 8, 2)
    y, kept = kernels.scan_forward(*tensors, True)
    dy = torch.ones_like(y)
    assert_close([y, *kernels.scan_backward(dy, *tensors, kept)], exact(tensors, dy))


@needs_triton
@pytest.mark.parametrize("chunk", [4, 8, 16])  # of 15 tokens: 4, 2 and 1 chunks
def test_chunks_change_nothing(kernels, chunk):
    tensors = inputs(1 if chunk == 4 else 2, 3, 5, 10, 2, N=2)
    y, kept = kernels.scan_forward(*tensors, True, chunk)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    assert_close([y, *kernels.scan_backward(dy, *tensors, kept, chunk)], exact(tensors, dy))


@needs_triton
def test_more_chunks_than_the_carry_pass_takes_at_once(kernels):
    tensors = inputs(1, 5, 7, 4, 1, N=1)
    y, _ = kernels.scan_forward(*tensors, False, 4)  # 9 chunks, in groups of 8
    assert distance(y, exact(tensors, y)[0]) < 1e-6


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_comes_in_and_gradients_go_out_likewise(kernels, dtype):
    x, x_dbl, *weights = inputs(1, 3, 4, 16, 2)
    tensors = [x.to(dtype), x_dbl.to(dtype), *weights]
    y, kept = kernels.scan_forward(*tensors, True)
    assert y.dtype == torch.float32
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    got, want = kernels.scan_backward(dy, *tensors, kept), exact(tensors, dy)
    assert distance(y, want[0]) < 1e-6
    assert [g.dtype for g in got] == [t.dtype for t in tensors]
    rounding = torch.finfo(dtype).eps
    assert all(distance(g, w) < (rounding if g.dtype == dtype else 1e-6) for g, w in zip(got, want[1:], strict=True))


@needs_triton
@pytest.mark.parametrize("bias", [-12.0, 0.0, 30.0, 80.0])
def test_extreme_steps(kernels, bias):
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = inputs(1, 2, 4, 8, 1)
    tensors = (x, x_dbl, dt_weight, dt_bias + bias, A_logs, Ds)
    y, kept = kernels.scan_forward(*tensors, True)
    got = [y, *kernels.scan_backward(torch.ones_like(y), *tensors, kept)]
    for a, b in zip(got, exact(tensors, torch.ones_like(y)), strict=True):
        assert torch.isfinite(a).all()
        assert distance(a, b) < 1e-5 or b.norm() < 1e-6


@needs_triton
def test_scan_is_reproducible(kernels):
    tensors = inputs(1, 3, 4, 40, 2, N=2)
    y, kept = kernels.scan_forward(*tensors, True, 8)
    first = [y, *kernels.scan_backward(torch.ones_like(y), *tensors, kept, 8)]
    again, kept = kernels.scan_forward(*tensors, True, 8)
    second = [again, *kernels.scan_backward(torch.ones_like(y), *tensors, kept, 8)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_triton
def test_a_card_is_filled_by_chunks_of_whole_tiles(kernels, monkeypatch):
    card = type("Card", (), {"multi_processor_count": 132})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(kernels, "TILE", 16)
    cuda = torch.device("cuda")
    assert kernels.chunk_tokens(1, 4096, 256, cuda) == 64  # 64 chunks of 32 programs: about 16 programs a processor
    assert kernels.chunk_tokens(64, 4096, 256, cuda) == 4096  # enough programs without
    assert kernels.chunk_tokens(1, 5, 256, cuda) == 32
    assert kernels.chunk_tokens(1, 4096, 256, torch.device("cpu")) == 4096


# ---- its neighbours


@needs_triton
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 5, 7, 24), (1, 3, 1, 18), (1, 9, 9, 66)], ids=str)
def test_convolution_and_gate(kernels, shape):
    B, H, W, D = shape
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator) for s in ((B, H, W, 2 * D), (D, 1, 3, 3), (D,))]
    norm = torch.nn.LayerNorm(D)
    torch.nn.init.normal_(norm.weight, generator=generator)
    torch.nn.init.normal_(norm.bias, generator=generator)
    results = []
    for dtype, backend in ((torch.float64, "torch"), (torch.float32, "triton")):
        xz, weight, bias = (t.to(dtype).requires_grad_() for t in start)
        gate = torch.nn.LayerNorm(D).to(dtype)
        gate.load_state_dict(norm.state_dict())
        x, z = xz.chunk(2, dim=-1)  # neither is contiguous
        u = scan.conv_silu(x, weight, bias, backend)
        out = scan.norm_gate(u, z, gate, backend)
        grads = torch.autograd.grad((out * 3).sin().sum() + u.cos().sum(), (xz, weight, bias, *gate.parameters()))
        results.append([u, out, *grads])
    for got, want in zip(results[1], results[0], strict=True):
        assert got.dtype == torch.float32
        assert distance(got, want) < 5e-6


@needs_triton
def test_convolution_and_gate_in_bfloat16(kernels):
    x = torch.randn(1, 3, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight, bias, norm = torch.ones(8, 1, 3, 3), torch.zeros(8), torch.nn.LayerNorm(8)
    u = scan.conv_silu(x, weight, bias, "triton")
    want = F.silu(F.conv2d(x.float().permute(0, 3, 1, 2), weight, bias, padding=1, groups=8)).permute(0, 2, 3, 1)
    assert u.dtype == torch.bfloat16
    assert distance(u, want) < 4e-3
    out = scan.norm_gate(want.contiguous(), x, norm, "triton")
    assert out.dtype == torch.bfloat16
    assert distance(out, norm(want) * F.silu(x.float())) < 4e-3


@needs_triton
def test_operators_obey_pytorch(kernels):
    tensors = [t.requires_grad_() for t in inputs(1, 2, 2, 4, 1, N=2)]
    torch.library.opcheck(operators.selective_scan, (*tensors, "triton", True))
    low = (tensors[0].detach().bfloat16(), *(t.detach() for t in tensors[1:]))
    torch.library.opcheck(operators.selective_scan, (*low, "triton", False))
    x, z = (torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(2))
    vector = torch.randn(4, requires_grad=True)
    torch.library.opcheck(operators.conv_silu, (x, torch.randn(4, 1, 3, 3, requires_grad=True), vector, "triton"))
    torch.library.opcheck(operators.norm_gate, (x, z, vector, vector, 1e-5, "triton"))


@needs_triton
def test_the_network_runs_on_the_kernels(kernels):
    torch.manual_seed(0)
    model = VMRNN(VMRNNConfig("B", 1, (8, 8), 4, 16, (2,), d_state=4)).eval()
    frame, outputs = torch.rand(1, 1, 8, 12), {}
    for backend in ("torch", "triton"):
        model.scan_backend = backend
        model.zero_grad()
        output, states = model(frame, model(frame)[1])
        output.square().sum().backward()
        outputs[backend] = [output, *states[0], *(p.grad.clone() for p in model.parameters())]
    for got, want in zip(outputs["triton"], outputs["torch"], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@needs_triton
def test_ss2d_is_the_published_one(kernels, golden):
    numbers = golden("ss2d")
    ss2d = SS2D(8)
    ss2d.load_state_dict(numbers.params)
    ss2d.scan_backend = "triton"
    torch.testing.assert_close(ss2d(numbers.tensors["input"]), numbers.tensors["output"], rtol=1e-5, atol=2e-6)


@needs_triton
@pytest.mark.skipif("VMRNN_SLOW_TESTS" not in os.environ, reason="takes minutes interpreted: set VMRNN_SLOW_TESTS=1")
@pytest.mark.parametrize("name", TOLERANCES)
def test_the_published_numbers(kernels, monkeypatch, golden, name):
    # Wide blocks, all states at once: the interpreter takes as long for a wide operation as for a narrow one.
    monkeypatch.setattr(kernels, "TILE", 16)
    monkeypatch.setattr(kernels, "GRADIENT_BLOCK", 128)
    monkeypatch.setattr(kernels, "GRADIENT_STATES", 16)
    assert_rollout_is_published(golden, name, "triton")


# ---- choice of the backend


def test_gpu_backends_say_why_not(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for backend in ("triton", "mamba"):
        with pytest.raises(InputError, match="NVIDIA GPUs only"):
            scan.pick_backend(backend, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert scan.why_unavailable("triton", "cuda") == "PyTorch finds no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert "compute capability 7.5" in scan.why_unavailable("triton", "cuda")
    assert "compute capability 8.0" in scan.why_unavailable("mamba", "cuda")


@pytest.mark.parametrize(
    ("installed", "reason"), [(None, "not installed"), ("3.2.0", "Triton 3.3 or later"), ("3.9.0", "OSError: broken")]
)
def test_why_there_is_no_triton(monkeypatch, installed, reason):
    def import_module(name, *_):
        if name != "triton":
            raise OSError("broken")
        if installed is None:
            raise ModuleNotFoundError
        return mock.Mock(__version__=installed)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(scan.importlib, "import_module", import_module)
    scan._why_no_triton.cache_clear()
    try:
        assert reason in scan.why_unavailable("triton", "cpu")
    finally:
        scan._why_no_triton.cache_clear()


@needs_triton
def test_where_triton_cannot_launch(kernels, monkeypatch):
    def compilerless(*_):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    for conv_forward, reason in ((kernels.conv_forward, None), (compilerless, "fails: RuntimeError: Failed to find C")):
        monkeypatch.setattr(kernels, "conv_forward", conv_forward)
        scan._why_no_launch.cache_clear()
        try:
            why = scan.why_unavailable("triton", "cpu")
        finally:
            scan._why_no_launch.cache_clear()
        assert why is None if reason is None else reason in why


@needs_triton
@pytest.mark.parametrize("sizes", [{"d_state": 65}, {"rank": 129}], ids=str)
def test_what_is_too_large_for_registers(kernels, sizes):
    assert "registers hold up to" in scan.why_unavailable("triton", "cpu", **sizes)


def test_on_a_gpu_triton_comes_first_then_mamba_then_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(scan, "_why_no_triton", lambda: None)
    monkeypatch.setattr(scan, "_why_no_launch", lambda device: None)
    monkeypatch.setattr(mamba, "why_unavailable", lambda: None)
    assert scan.pick_backend("auto", "cuda") == "triton"
    assert scan.pick_backend("auto", "cuda", d_state=4) == "triton"
    monkeypatch.setattr(scan, "_why_no_triton", lambda: "no")
    assert scan.pick_backend("auto", "cuda") == "mamba"
    monkeypatch.setattr(mamba, "why_unavailable", lambda: "no")
    assert scan.pick_backend("auto", "cuda") == "torch"
    assert scan.in_words("torch", "cuda", 16, 8) == "torch (slow on GPUs; triton is not available: no)"
    monkeypatch.setattr(scan, "_why_no_triton", lambda: None)
    assert scan.in_words("torch", "cuda", 16, 8) == "torch (slow on GPUs)"


@needs_triton
def test_the_interpreter_only_on_request(kernels):
    assert scan.pick_backend("triton", "cpu") == "triton"
    assert scan.pick_backend("auto", "cpu", d_state=17) == "torch"


@pytest.mark.parametrize("backend", ["triton", "mamba"])
def test_float64_is_computed_in_float64(backend):
    tensors = inputs(1, 2, 3, 4, 1, dtype=torch.float64)
    y = scan.selective_scan(*tensors, backend)
    assert y.dtype == torch.float64
    assert distance(y, scan.selective_scan(*tensors, "reference")) < 1e-14


def test_autocast_does_not_reach_into_the_scan():
    tensors = [t.requires_grad_() for t in inputs(1, 4, 5, 16, 2)]
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = scan.selective_scan(*tensors, "torch")
            results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# ---- mamba-ssm


def selective_scan_fn(u, delta, A, B, C, D, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    """What mamba-ssm documents, channel by channel: u, delta (B, KD, L), A (KD, N), B, C (B, K, N, L), D (KD,)."""
    batch, channels, L = u.shape
    assert delta.shape == u.shape and B.shape == C.shape == (batch, 4, A.shape[1], L) and A.shape[0] == channels
    assert all(t.dtype == torch.float32 for t in (u, delta, A, B, C, D, delta_bias))
    assert delta_softplus and z is None and not return_last_state
    B, C = (t.repeat_interleave(channels // 4, dim=1) for t in (B, C))  # a group's channels lie together
    delta = F.softplus(delta + delta_bias[:, None])
    state, outputs = torch.zeros(batch, channels, A.shape[1]), []
    for l in range(L):
        state = torch.exp(delta[..., l, None] * A) * state + (delta * u)[..., l, None] * B[..., l]
        outputs.append((state * C[..., l]).sum(-1))
    return torch.stack(outputs, dim=-1) + D[:, None] * u


@pytest.fixture
def mamba_ssm(monkeypatch):
    """A package of that name around the stand-in above."""
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["mamba_ssm.ops.selective_scan_interface"].selective_scan_fn = selective_scan_fn
    mamba.why_unavailable.cache_clear()
    yield
    mamba.why_unavailable.cache_clear()


@pytest.mark.parametrize("shape", [(2, 3, 5, 6, 2), (1, 4, 1, 8, 1)], ids=str)
def test_mamba_gets_the_directions_as_groups(mamba_ssm, shape):
    tensors = [t.requires_grad_() for t in inputs(*shape)]
    assert mamba.why_unavailable() is None
    y = scan.selective_scan(*tensors, "mamba")
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    got = [y, *torch.autograd.grad(y, tensors, dy)]
    assert_close(got, exact([t.detach() for t in tensors], dy), 1e-6)


def test_mamba_takes_what_autocast_makes(mamba_ssm):
    x, x_dbl, *weights = inputs(1, 3, 2, 8, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = scan.selective_scan(x.bfloat16(), x_dbl.bfloat16(), *weights, "mamba")
    want = scan.selective_scan(
        x.bfloat16().double(), x_dbl.bfloat16().double(), *(w.double() for w in weights), "torch"
    )
    assert y.dtype == torch.float32
    assert distance(y, want) < 1e-6


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("no", name="mamba_ssm"), "not installed"),
        (ModuleNotFoundError("no", name="causal_conv1d"), "causal_conv1d"),
        (ImportError("undefined symbol: x"), "ImportError: undefined symbol: x"),
    ],
)
def test_why_there_is_no_mamba(monkeypatch, error, reason):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "mamba_ssm":
                raise error

    for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    mamba.why_unavailable.cache_clear()
    try:
        assert reason in mamba.why_unavailable()
    finally:
        mamba.why_unavailable.cache_clear()


# ---- the recorded step, and precision


def tiny(**changes):
    torch.manual_seed(0)
    return VMRNN(VMRNNConfig("B", 1, (16, 16), 4, 16, (2,), context=3, horizon=3, **changes)).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_recorded_step_is_the_step(dtype):
    model, context, records = tiny(), torch.rand(3, 2, 1, 16, 16), []

    def record(work):
        records.append(work)
        work(), work()  # as a recording warms up: it must leave no trace in the states
        return work

    step = GraphedStep(model, context[0], dtype, record)
    for _ in range(2):  # a second rollout forgets the first
        with torch.inference_mode(), autocast(torch.device("cpu"), dtype):
            want = list(rollout(model, context, 4))
        got = list(rollout(step, context, 4))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert len(records) == 1
    assert len({frame.data_ptr() for frame in got}) == len(got)  # later steps do not overwrite earlier frames


def test_a_recorded_step_refuses_what_it_was_not_recorded_for():
    step = GraphedStep(tiny(), torch.rand(1, 1, 16, 16), record=lambda work: work)
    _, states = step(torch.rand(1, 1, 16, 16))
    assert step.fits(torch.rand(1, 1, 16, 16))
    assert not step.fits(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="recorded for frames of"):
        step(torch.rand(1, 1, 16, 20))
    with pytest.raises(ValueError, match="states"):
        step(torch.rand(1, 1, 16, 16), [*states])
    step(torch.rand(1, 1, 16, 16))
    with pytest.raises(ValueError, match="states"):  # of a rollout that another one has ended
        step(torch.rand(1, 1, 16, 16), states)


def test_a_recorded_step_knows_when_the_weights_have_moved():
    model, frame = tiny(), torch.rand(1, 1, 16, 16)
    step = GraphedStep(model, frame, record=lambda work: work)
    model.to(torch.float64)
    assert not step.fits(frame)
    model.to(torch.float32)
    assert not step.fits(frame)  # other places than at first


def test_rollouts_of_one_predictor_do_not_share_a_recorded_step():
    predictor = Predictor(tiny(), device="cpu")
    contexts = torch.rand(2, 3, 1, 16, 16).numpy()
    want = [list(predictor.stream(list(context), 4)) for context in contexts]
    records = []
    predictor._record = lambda work: records.append(work) or work
    timing = Timing()
    together = list(zip(*(predictor.stream(list(context), 4, timing) for context in contexts), strict=True))
    for a, b in zip(zip(*together, strict=True), want, strict=True):
        np.testing.assert_array_equal([output.frame for output in a], [output.frame for output in b])
    assert timing.load_s > 0
    assert len(records) == 2
    assert len(list(predictor.stream(list(contexts[0]), 2))) == 2
    assert len(records) == 2  # the idle one is used again


def test_the_state_stays_float32_under_autocast_and_a_rollout_stays_close():
    model, context = tiny(), torch.rand(3, 1, 1, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        _, states = model(context[0])
        _, states = model(context[1], states)
        low = torch.stack(list(rollout(model, context, 40))).float()
    assert {t.dtype for state in states for t in state} == {torch.float32}
    with torch.inference_mode():
        full = torch.stack(list(rollout(model, context, 40)))
    difference = (low - full).abs().amax((1, 2, 3, 4))
    assert 0 < difference.max() < 0.02
    assert difference[-1] < 3 * difference[:5].max() + 1e-3  # it does not grow with the rollout


# ---- what needs the compiler, and the benchmark


@needs_triton
def test_every_kernel_compiles_for_gpus_without_one():
    """Triton's compiler and NVIDIA's assembler need no GPU, and forgive less than the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parents[1] / "benchmarks" / "compile_kernels.py"
    done = subprocess.run(
        [sys.executable, script, "--quick"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["kernel"] for line in lines}) == 8
    recurrences = [line for line in lines if line["kernel"] in ("_scan_kernel", "_adjoint_kernel")]
    assert all(line["stack_bytes"] == 0 and line["shared_bytes"] == 0 for line in recurrences), recurrences


@needs_triton
def test_the_benchmark_runs_without_a_gpu_for_show_only(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    out = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, script, "--smoke", "--out", out], env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert results["machine"]["ours"] == "triton"
    assert {r["relative_error"] < 1e-6 for r in results["scans"]} == {True}
    assert "clips/s" in done.stdout and "substitute" in done.stdout
    table = subprocess.run([sys.executable, script, "--table", out], capture_output=True, text=True)
    assert table.stdout == done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_says_that_there_is_no_gpu():
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("no GPU") and done.stderr.count("\n") == 1
