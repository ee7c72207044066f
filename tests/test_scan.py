"""The selective scan and its neighbours: every backend against the definition, and what must hold for any input."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scan_inputs import distance, inputs

from vmrnn_cli import scan
from vmrnn_cli.errors import InputError
from vmrnn_cli.scan import blocked, native, operators, reference

needs_native = pytest.mark.skipif(bool(native.why_unavailable()), reason=f"no native scan: {native.why_unavailable()}")
NATIVE = pytest.param("native", marks=needs_native)
#        B  H  W  D   R
SHAPES = [
    (1, 1, 1, 16, 1),
    (2, 5, 7, 24, 3),
    (1, 1, 33, 16, 2),
    (3, 33, 1, 8, 1),
    (9, 4, 4, 64, 4),
    (1, 9, 6, 40, 17),
    (2, 8, 9, 17, 2),
    (1, 3, 3, 600, 40),
]


def forward_backward(backend, tensors, seed=1):
    """Output and the six gradients for a random gradient of the output."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    y = scan.selective_scan(*leaves, backend)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype)
    return [y, *torch.autograd.grad(y, leaves, dy)]


@pytest.fixture(params=native.INSTRUCTION_SETS)
def isa(request, use_isa):
    """Each instruction set that the native backend is compiled for and this processor has."""
    use_isa(request.param)
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_native_matches_the_definition(isa, shape):
    got = forward_backward("native", inputs(*shape))
    want = forward_backward("reference", inputs(*shape, dtype=torch.float64))
    for name, a, b in zip(("y", "dx", "dx_dbl", "dt_weight", "dt_bias", "A_logs", "Ds"), got, want, strict=True):
        assert a.dtype == torch.float32
        assert distance(a, b) < 1e-6, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_matches_the_definition(shape, dtype):
    got = forward_backward("torch", inputs(*shape, dtype=dtype))
    want = forward_backward("reference", inputs(*shape, dtype=torch.float64))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        assert distance(a, b) < (2e-6 if dtype == torch.float32 else 1e-14)


def test_reference_gradients_are_those_of_its_output():
    tensors = [t.requires_grad_() for t in inputs(2, 2, 3, 3, 2, N=4, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: scan.selective_scan(*t, "reference"), tensors)


@pytest.mark.parametrize("backend", [NATIVE, "torch", "reference"])
def test_float64_stays_float64(backend):
    tensors = [t.requires_grad_() for t in inputs(2, 5, 4, 8, 2, N=4, dtype=torch.float64)]
    y = scan.selective_scan(*tensors, backend)
    want = scan.selective_scan(*tensors, "reference")
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(y.sum(), tensors), torch.autograd.grad(want.sum(), tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("N", [1, 3, 4, 7, 8, 13, 16])
@pytest.mark.parametrize("backend", [NATIVE, "torch"])
def test_fewer_states(backend, N):
    got = forward_backward(backend, inputs(2, 5, 8, 24, 2, N=N))
    want = forward_backward("reference", inputs(2, 5, 8, 24, 2, N=N, dtype=torch.float64))
    assert all(distance(a, b) < 2e-6 for a, b in zip(got, want, strict=True))
    assert scan.pick_backend(backend, "cpu", d_state=N) == backend


def test_more_states_than_the_native_scan_holds():
    got = forward_backward("torch", inputs(2, 3, 4, 8, 2, N=32))
    want = forward_backward("reference", inputs(2, 3, 4, 8, 2, N=32, dtype=torch.float64))
    assert all(distance(a, b) < 2e-6 for a, b in zip(got, want, strict=True))
    assert scan.pick_backend("auto", "cpu", d_state=32) == "torch"
    with pytest.raises(InputError, match="16 states, not 32"):
        scan.pick_backend("native", "cpu", d_state=32)


@pytest.mark.parametrize("tile", [1, 2, 5, 13, 35, 64])
def test_tile_size_changes_nothing(tile):
    tensors = inputs(2, 5, 7, 8, 2, dtype=torch.float64)
    y, states = blocked.forward(*tensors, tile=35)
    dy = torch.ones_like(y)
    want = [y, *blocked.backward(dy, *tensors, states, tile=35)]
    y, states = blocked.forward(*tensors, tile=tile)
    got = [y, *blocked.backward(dy, *tensors, states, tile=tile)]
    assert all(distance(a, b) < 1e-14 for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("backend", [NATIVE, "torch"])
def test_batch_elements_do_not_meet(backend):
    tensors = inputs(3, 5, 6, 24, 2)
    whole = scan.selective_scan(*tensors, backend)
    alone = scan.selective_scan(tensors[0][1:2], tensors[1][1:2], *tensors[2:], backend)
    assert distance(whole[1:2], alone) < (1e-30 if backend == "native" else 1e-6)  # native: to the bit


@pytest.mark.parametrize("k", range(4), ids=["rows", "columns", "rows reversed", "columns reversed"])
@pytest.mark.parametrize("backend", [NATIVE, "torch", "reference"])
def test_a_direction_sees_only_what_came_before(backend, k):
    H, W = 4, 5
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = inputs(1, H, W, 16, 1)
    others = [d for d in range(4) if d != k]
    x_dbl[..., others, 1 + 16 :] = 0  # C: the other directions read nothing from their states
    Ds.view(4, -1)[others] = 0
    order = reference.scan_orders(H, W, x.device)[k].tolist()
    place = order[7]
    changed = x.clone()
    changed.view(H * W, 16)[place] += 1
    before = scan.selective_scan(x, x_dbl, dt_weight, dt_bias, A_logs, Ds, backend).view(H * W, 16)
    after = scan.selective_scan(changed, x_dbl, dt_weight, dt_bias, A_logs, Ds, backend).view(H * W, 16)
    moved = (before != after).any(-1)
    assert not moved[order[:7]].any()
    assert moved[order[7:]].all()


def test_directions_visit_rows_and_columns():
    assert reference.scan_orders(2, 3, torch.device("cpu")).tolist() == [
        [0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0],
    ]  # fmt: skip


@pytest.fixture
def threads():
    """Set the number of threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_native
@pytest.mark.parametrize("team", ["openmp", "python"])
@pytest.mark.parametrize("shape", [(1, 8, 8, 64, 2), (5, 6, 7, 40, 3)], ids=str)
def test_threads_change_nothing(shape, team, threads, monkeypatch):
    if team == "python":
        monkeypatch.setattr(native, "_openmp_team", lambda: None)
    elif native._openmp_team() is None:
        pytest.skip("PyTorch has no GNU-compatible OpenMP runtime here")
    results = []
    for number in (1, 2, 3, 1):
        threads(number)
        results.append(forward_backward("native", inputs(*shape)) + neighbours(shape))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def neighbours(shape):
    """Outputs and gradients of the convolution and the gate."""
    B, H, W, D, _ = shape
    generator = torch.Generator().manual_seed(3)
    xz = torch.randn(B, H, W, 2 * D, generator=generator, requires_grad=True)
    weight = torch.randn(D, 1, 3, 3, generator=generator, requires_grad=True)
    bias = torch.randn(D, generator=generator, requires_grad=True)
    norm = torch.nn.LayerNorm(D)
    torch.nn.init.normal_(norm.weight, generator=generator)
    torch.nn.init.normal_(norm.bias, generator=generator)
    x, z = xz.chunk(2, dim=-1)
    u = scan.conv_silu(x, weight, bias, "native")
    out = scan.norm_gate(u, z, norm, "native")
    grads = torch.autograd.grad(out.square().sum() + u.sin().sum(), (xz, weight, bias, *norm.parameters()))
    return [u, out, *grads]


def test_no_drift_over_many_tokens_with_decay_near_one(isa):
    """The state of a slow channel must forget nothing that it should keep: exp near 0 has to be exact at 0.

    That float32 rounds these decays to 1 costs 2e-5 by itself; one unit in the last place would cost ten times that.
    """
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = inputs(1, 64, 64, 16, 1)
    dt_bias.fill_(-9.0)
    dt_weight.zero_()
    A_logs.fill_(math.log(1e-4))
    Ds.zero_()  # the skip connection would hide the rest
    tensors = (x, x_dbl, dt_weight, dt_bias, A_logs, Ds)
    exact = forward_backward("torch", [t.double() for t in tensors])
    for a, b in zip(forward_backward("native", tensors), exact, strict=True):
        assert distance(a, b) < 5e-5


@pytest.mark.parametrize("bias", [-2.0, -5.0, -9.0, -12.0])
@pytest.mark.parametrize("backend", [NATIVE, "torch"])
def test_gradients_of_small_steps_are_as_precise_as_others(backend, bias):
    """Channel by channel, since a norm over all of them shows the large ones only. The slope of softplus must not be
    taken as 1 - exp(-delta).
    """
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = inputs(2, 6, 5, 32, 2)
    tensors = (x, x_dbl, 0.1 * dt_weight, torch.full_like(dt_bias, bias), A_logs, Ds)
    got = forward_backward(backend, tensors)
    want = forward_backward("reference", [t.double() for t in tensors])
    for a, b in zip(got[3:6], want[3:6], strict=True):  # dt_weight, dt_bias, A_logs
        assert ((a - b).abs() / b.abs()).median() < 2e-6


@pytest.mark.parametrize("bias", [-40.0, 0.0, 30.0, 80.0])
def test_extreme_steps(isa, bias):
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = inputs(1, 4, 4, 16, 1)
    tensors = (x, x_dbl, dt_weight, dt_bias + bias, A_logs, Ds)
    got = forward_backward("native", tensors)
    want = forward_backward("reference", [t.double() for t in tensors])
    for a, b in zip(got, want, strict=True):
        assert torch.isfinite(a).all()
        assert (a - b).norm() < 1e-5 * b.norm() + 1e-12


@pytest.mark.parametrize("backend", [NATIVE, "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_scanned_in_float32(backend, dtype):
    tensors = inputs(1, 4, 5, 16, 2)
    low = [t.to(dtype) for t in tensors]
    y, *gradients = forward_backward(backend, low)
    assert y.dtype == torch.float32
    exact, *exact_gradients = forward_backward("reference", [t.double() for t in low])
    assert distance(y, exact) < 1e-6
    for a, b in zip(gradients, exact_gradients, strict=True):
        assert a.dtype == dtype
        assert distance(a, b) < torch.finfo(dtype).eps


@pytest.mark.parametrize("backend", [NATIVE, "torch", "reference"])
def test_inputs_need_not_be_contiguous(backend):
    tensors = [t.requires_grad_() for t in inputs(2, 5, 7, 24, 3)]
    strange = [torch.stack([t, t], dim=-1)[..., 0] for t in tensors]
    assert not strange[0].is_contiguous()
    y, want = scan.selective_scan(*strange, backend), scan.selective_scan(*tensors, backend)
    assert torch.equal(y, want)
    dy = torch.randn(7, 5, 2, 24).transpose(0, 2)  # (B, H, W, D)
    got, want = torch.autograd.grad(y, tensors, dy), torch.autograd.grad(want, tensors, dy.contiguous())
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b) if backend == "native" else distance(a, b) < 1e-6


@needs_native
def test_neighbours_inputs_need_not_be_contiguous():
    torch.manual_seed(0)
    x, weight, bias, norm = torch.randn(2, 6, 5, 24), torch.randn(24, 1, 3, 3), torch.randn(24), torch.nn.LayerNorm(24)
    for strange in (x.transpose(1, 2).contiguous().transpose(1, 2), torch.stack([x, x], dim=-1)[..., 0]):
        assert torch.equal(scan.conv_silu(strange, weight, bias, "native"), scan.conv_silu(x, weight, bias, "native"))
        assert torch.equal(scan.norm_gate(strange, strange, norm, "native"), scan.norm_gate(x, x, norm, "native"))


@pytest.mark.parametrize("backend", [NATIVE, "torch", "reference"])
def test_operators_obey_pytorch(backend):
    tensors = [t.requires_grad_() for t in inputs(2, 3, 4, 8, 2)]
    torch.library.opcheck(operators.selective_scan, (*tensors, backend, True))
    detached = [t.detach() for t in tensors]
    torch.library.opcheck(operators.selective_scan, (*detached, backend, False))
    y, states = operators.selective_scan(*detached, backend, True)
    torch.library.opcheck(operators.selective_scan_backward, (torch.ones_like(y), *detached, states, backend))


@needs_native
def test_neighbour_operators_obey_pytorch():
    x = torch.randn(2, 3, 4, 8, requires_grad=True)
    z = torch.randn(2, 3, 4, 8, requires_grad=True)
    vector = torch.randn(8, requires_grad=True)
    torch.library.opcheck(operators.conv_silu, (x, torch.randn(8, 1, 3, 3, requires_grad=True), vector))
    torch.library.opcheck(operators.norm_gate, (x, z, vector, vector, 1e-5))
    x, z, vector = x.detach(), z.detach(), vector.detach()
    torch.library.opcheck(operators.conv_silu_backward, (z, x, torch.randn(8, 1, 3, 3), vector))
    torch.library.opcheck(operators.norm_gate_backward, (z, x, z, vector, vector, 1e-5))


@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 5, 7, 24), (1, 3, 1, 17), (3, 8, 8, 64)], ids=str)
def test_native_convolution_and_gate(isa, shape):
    B, H, W, D = shape
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(D).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    exact = [
        torch.randn(B, H, W, 2 * D, dtype=torch.float64), torch.randn(D, 1, 3, 3, dtype=torch.float64),
        torch.randn(D, dtype=torch.float64),
    ]  # fmt: skip
    results = []
    for dtype, backend in ((torch.float64, "torch"), (torch.float32, "native")):
        xz, weight, bias = (t.detach().to(dtype).requires_grad_() for t in exact)
        gate = torch.nn.LayerNorm(D).to(dtype)
        gate.load_state_dict(norm.state_dict())
        x, z = xz.chunk(2, dim=-1)
        u = scan.conv_silu(x, weight, bias, backend)
        out = scan.norm_gate(u, z, gate, backend)
        grads = torch.autograd.grad((out * 3).sin().sum() + u.cos().sum(), (xz, weight, bias, *gate.parameters()))
        results.append([u, out, *grads])
    for a, b in zip(results[1], results[0], strict=True):
        assert distance(a, b) < 2e-5


def test_conv_is_pytorchs():
    x, weight, bias = torch.randn(2, 5, 6, 8), torch.randn(8, 1, 3, 3), torch.randn(8)
    want = F.silu(F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=8)).permute(0, 2, 3, 1)
    torch.testing.assert_close(scan.conv_silu(x, weight, bias, "torch"), want, rtol=1e-5, atol=1e-5)


# ---- choice of the backend


def test_without_a_compiled_object_torch_runs_and_the_reason_is_told(monkeypatch):
    native.load.cache_clear()
    monkeypatch.setattr(native, "object_path", lambda isa: Path("/nowhere"))
    try:
        assert scan.pick_backend("auto", "cpu") == "torch"
        with pytest.raises(InputError, match="not compiled when vmrnn was installed"):
            scan.pick_backend("native", "cpu")
    finally:
        native.load.cache_clear()


@needs_native
def test_an_object_of_another_version_is_told(monkeypatch):
    native.load.cache_clear()
    monkeypatch.setattr(native, "_KERNELS", (*native._KERNELS, "soup"))
    try:
        assert scan.pick_backend("auto", "cpu") == "torch"
        with pytest.raises(InputError, match="another version of vmrnn and has no soup: install vmrnn again"):
            scan.pick_backend("native", "cpu")
    finally:
        native.load.cache_clear()


@needs_native
def test_instruction_set_can_be_chosen(monkeypatch):
    native.load.cache_clear()
    monkeypatch.setenv(native.ISA_VARIABLE, "baseline")
    try:
        assert native.load().instruction_set == "baseline"
        native.load.cache_clear()
        monkeypatch.setenv(native.ISA_VARIABLE, "mmx")
        assert "mmx" in native.why_unavailable()
    finally:
        native.load.cache_clear()


def test_unknown_and_unfit_backends():
    with pytest.raises(InputError, match="no such backend"):
        scan.pick_backend("abacus", "cpu")
    with pytest.raises(InputError, match="CPU only"):
        scan.pick_backend("native", "cuda")
    assert scan.pick_backend("auto", "cpu", rank=native.MAX_RANK + 1) == "torch"
    with pytest.raises(InputError, match=f"up to {native.MAX_RANK}, not {native.MAX_RANK + 1}"):
        scan.pick_backend("native", "cpu", rank=native.MAX_RANK + 1)
