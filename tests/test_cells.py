"""A cell in one go: the same as its modules, to the last digits, and only where nobody could tell otherwise."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scan_inputs import distance
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vmrnn_cli import scan
from vmrnn_cli.model import State, VMRNNCell
from vmrnn_cli.scan import native

pytestmark = pytest.mark.skipif(bool(native.why_unavailable()), reason=f"no native scan: {native.why_unavailable()}")


@pytest.fixture(params=native.INSTRUCTION_SETS)
def isa(request, use_isa):
    use_isa(request.param)
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cell_and_inputs(dim=16, d_state=4, depth=2, shape=(2, 5, 6), drop_path=0.0, seed=0):
    torch.manual_seed(seed)
    cell = VMRNNCell(dim, d_state, [drop_path] * depth).eval()
    for parameter in cell.parameters():  # the norms too
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens, hidden, state = torch.randn(3, *shape, dim).unbind()
    return cell, tokens, State(hidden, state)


@torch.no_grad()
def by_modules(cell, tokens, state, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(scan, "cell", lambda *_: None)
        _, made = cell(tokens, state)
    return made


@torch.no_grad()
def in_one_go(cell, tokens, state):
    return scan.cell(cell.blocks, tokens, *state)


@pytest.mark.parametrize("d_state", [1, 4, 16])
@pytest.mark.parametrize(
    ("dim", "shape"),
    [(16, (2, 5, 6)), (24, (1, 1, 1)), (20, (3, 7, 1)), (64, (1, 16, 16)), (40, (1, 3, 50)), (130, (1, 4, 4))],
    ids=str,
)
def test_it_is_what_the_modules_compute(isa, dim, shape, d_state, monkeypatch):
    cell, tokens, state = cell_and_inputs(dim, d_state, shape=shape)
    got = in_one_go(cell, tokens, state)
    with monkeypatch.context() as patched:
        patched.setattr(scan, "pick_backend", lambda *_: "torch")
        want = by_modules(cell.double(), tokens.double(), State(*(t.double() for t in state)), monkeypatch)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        assert distance(a, b) < 3e-6


@pytest.mark.parametrize("where", ["tokens", "hidden", "cell", "weights"])
def test_what_is_no_number_stays_none(isa, where):
    cell, tokens, state = cell_and_inputs(shape=(1, 3, 3))
    given = {
        "tokens": tokens,
        "hidden": state.hidden,
        "cell": state.cell,
        "weights": cell.blocks[1].ss2d.out_proj.weight,
    }
    with torch.no_grad():
        given[where].view(-1)[5] = math.nan
    hidden, new_cell = in_one_go(cell, tokens, state)
    assert hidden.isnan().any()
    assert torch.equal(hidden.isnan(), new_cell.isnan())


def test_the_model_runs_it(monkeypatch):
    cell, tokens, state = cell_and_inputs()
    calls = []
    monkeypatch.setattr(native.Library, "call", lambda self, name, job: calls.append((name, job.E, job.B)))
    with torch.inference_mode():
        cell(tokens, state)
        cell(tokens, None)
    assert calls == [("block_forward", 16, 2)] * 4


@pytest.mark.parametrize("team", ["openmp", "none"])
def test_threads_change_nothing(team, monkeypatch):
    if team == "none":
        monkeypatch.setattr(native, "_openmp_team", lambda: None)
    elif native._openmp_team() is None:
        pytest.skip("PyTorch has no GNU-compatible OpenMP runtime here")
    cell, tokens, state = cell_and_inputs(32, shape=(3, 9, 8))
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(in_one_go(cell, tokens, state))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_clips_of_a_batch_do_not_meet():
    cell, tokens, state = cell_and_inputs(shape=(3, 5, 6))
    whole = in_one_go(cell, tokens, state)
    alone = in_one_go(cell, tokens[1:2], State(*(t[1:2] for t in state)))
    assert all(torch.equal(a[1:2], b) for a, b in zip(whole, alone, strict=True))


def test_inputs_need_not_be_contiguous():
    cell, tokens, state = cell_and_inputs()
    strange = [torch.stack([t, t], dim=-1)[..., 0] for t in (tokens, *state)]
    want = in_one_go(cell, tokens, state)
    assert all(torch.equal(a, b) for a, b in zip(in_one_go(cell, strange[0], State(*strange[1:])), want, strict=True))


@pytest.mark.parametrize("change", ["step", "load", "replace", "module", "copy"])
def test_weights_that_change_are_seen(change, monkeypatch):
    cell, tokens, state = cell_and_inputs()
    before = in_one_go(cell, tokens, state)
    other, _, _ = cell_and_inputs(seed=1)
    if change == "step":
        with torch.no_grad():
            cell.blocks[1].ss2d.in_proj.weight.mul_(1.5)
    elif change == "load":
        cell.load_state_dict(other.state_dict())
    elif change == "replace":
        cell.blocks[0].ss2d.Ds = nn.Parameter(torch.zeros_like(cell.blocks[0].ss2d.Ds))
    elif change == "module":
        cell.blocks[0].ss2d.out_proj = other.blocks[0].ss2d.out_proj
    else:
        cell = copy.deepcopy(cell)
        with torch.no_grad():
            cell.blocks[0].norm.weight.add_(1)
    got = in_one_go(cell, tokens, state)
    assert not torch.equal(got[0], before[0])
    assert all(distance(a, b) < 3e-6 for a, b in zip(got, by_modules(cell, tokens, state, monkeypatch), strict=True))


def test_where_something_is_learnt_or_looked_at_the_modules_run():
    cell, tokens, state = cell_and_inputs()

    def goes():
        return scan.cell(cell.blocks, tokens, *state) is not None

    assert not goes()  # with gradients
    with torch.no_grad():
        assert goes()
        with FlopCounterMode(display=False):
            assert not goes()
        with torch.autocast("cpu", torch.bfloat16):
            assert not goes()
        handle = cell.blocks[1].ss2d.register_forward_hook(lambda *_: None)
        assert not goes()
        handle.remove()
        for block in cell.blocks:
            block.ss2d.scan_backend = "torch"
        assert not goes()
        for block in cell.blocks:
            block.ss2d.scan_backend = "auto"
        nn.utils.parametrizations.weight_norm(cell.blocks[0].ss2d.in_proj)
        assert not goes()
    cell, tokens, state = cell_and_inputs(drop_path=0.5)
    with torch.no_grad():
        assert goes()
        cell.train()
        assert not goes()
        cell.eval().double()
        tokens, state = tokens.double(), State(*(t.double() for t in state))
        assert not goes()


def test_functional_transforms_see_the_modules():
    cell, tokens, state = cell_and_inputs(shape=(2, 3, 3))
    for block in cell.blocks:
        block.ss2d.scan_backend = "auto"
    with torch.no_grad():
        assert torch.func.vmap(lambda t: torch.zeros(()) + (scan.cell(cell.blocks, t, t, t) is None))(
            tokens[:, None]
        ).all()
