"""The network that decides how the picture goes on."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from moving import SIZE, crossing, panning
from torch import Tensor

from vmrnn_cli import motion, motion_loss
from vmrnn_cli.config import MotionConfig
from vmrnn_cli.errors import InputError
from vmrnn_cli.motion_loss import MotionLoss
from vmrnn_cli.motion_network import Given, MotionVMRNN, Outlook, Part, _Stage
from vmrnn_cli.recipes import LOSS_TERMS, RECIPES

M = len(motion.HYPOTHESES)
LOSS = RECIPES["vmrnn-d-motion"]["loss"]
SMALL = MotionConfig(embed_dim=16, depths=(1, 1), d_state=2, detail_dim=8, decoder_dim=16)


def network(seed: int = 0, decided: bool = True, **config: float) -> MotionVMRNN:
    """A small one, with decisions unlike those of an untrained one if `decided`."""
    torch.manual_seed(seed)
    made = MotionVMRNN(dataclasses.replace(SMALL, **config)).eval()
    if decided:
        torch.nn.init.normal_(made.decide.weight, std=0.3)
    return made


def drawn(part: Part, frames: Tensor) -> Tensor:
    """All pictures of a part of a forecast, (S, B, C, H, W)."""
    anchors = part.continuation.anchors(list(frames[: part.given]))
    outlooks = (Outlook(*(field[s] for field in part.outlook)) for s in range(len(part.outlook.light)))
    return torch.stack([outlook.draw(anchors) for outlook in outlooks])


@torch.no_grad()
def forecast(made: MotionVMRNN, frames: Tensor, ahead: list[int]) -> Tensor:
    frames = motion.at_least_two(frames)
    return torch.cat([drawn(part, frames) for part in made(frames, ahead) if part.given == len(frames)])


def test_untrained_it_is_motion_continued() -> None:
    frames = crossing([((48.0, 24.0), (0.0, 2.0))], 8)
    expected = torch.stack(list(motion.motion_continued(frames, 5)))
    untrained = network(decided=False)
    torch.nn.init.constant_(untrained.decide.bias[4 * M : 4 * M + 4], -99.0)  # no share for what they agree on
    torch.testing.assert_close(forecast(untrained, frames, [5]), expected, atol=1e-5, rtol=0)


def test_what_the_mean_of_motions_weighs_is_told_of_those_it_is_the_mean_of() -> None:
    frames, outlooks = panning((1.0, 1.0), 8), []
    for share in (-99.0, 2.0):
        made = network()
        torch.nn.init.constant_(made.decide.weight[4 * M : 4 * M + 4], 0.0)
        torch.nn.init.constant_(made.decide.bias[4 * M : 4 * M + 4], share)
        outlooks.append(Outlook(*(part[2] for part in list(made(frames, [3]))[-1].outlook)))
    one, other = outlooks
    torch.testing.assert_close(one.weights(), other.weights(), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(one.displacement(), other.displacement(), atol=1e-4, rtol=1e-3)
    mean = torch.softmax(other.logits, 1)[:, M:].sum(1)
    assert (mean > 0.8 * (1 - other.weights()[:, 5:].sum(1))).all()


def test_its_decisions_count() -> None:
    frames = crossing([((48.0, 24.0), (0.0, 2.0))], 8)
    untrained = forecast(network(decided=False), frames, [5])
    assert (forecast(network(), frames, [5]) - untrained).abs().mean() > 1e-3


def test_frames_are_the_same_in_any_pieces() -> None:
    frames = panning((1.0, -0.5), 8)
    torch.testing.assert_close(
        forecast(network(), frames, [1, 3, 2]), forecast(network(), frames, [6]), atol=1e-5, rtol=0
    )


def test_clips_of_a_batch_do_not_meet() -> None:
    one, other = crossing([((48.0, 24.0), (0.0, 2.0))], 8), panning((1.0, 1.0), 8)
    together = forecast(network(), torch.cat([one, other], 1), [4])
    torch.testing.assert_close(together[:, :1], forecast(network(), one, [4]), atol=1e-4, rtol=0)
    torch.testing.assert_close(together[:, 1:], forecast(network(), other, [4]), atol=1e-4, rtol=0)


def test_the_rehearsal_tells_the_forecast() -> None:
    """What the given frames were, and not only how they move at last, reaches the forecast through the state."""
    made, frames = network(), panning((1.0, 1.0), 8)
    evidence = []
    decide = made.decide_on
    made.decide_on = lambda seen, states: (evidence.append((seen, states)), decide(seen, states))[1]
    forecast(made, frames, [3])
    (rehearsed, nothing), (ahead, states) = evidence
    known, lead, carried = -3 - M, -2 - M, slice(-M, None)
    assert nothing is None and states is not None
    assert rehearsed[:, 0, known].amax((1, 2)).tolist() == [0, 1, 1, 1]  # the first one has nothing to look back on
    assert ahead[:, 0, known].amax((1, 2)).tolist() == [1, 0, 0]
    assert rehearsed[0, :, 7:14].abs().max() == 0 and rehearsed[1, :, 7:14].abs().max() > 0
    assert [round(float(step.mean()), 2) for step in ahead[:, 0, lead]] == [0.1, 0.2, 0.3]
    assert rehearsed[:, 0, carried].abs().max() == 0 and ahead[:, 0, carried].amax((1, 2, 3)).min() > 0.5
    with torch.no_grad():
        with_state = decide(ahead, states)[0][0]
        without = decide(ahead, None)[0][0]
    assert (with_state - without).abs().max() > 1e-4


def test_what_was_missed_goes_along_with_what_missed_it() -> None:
    given, frames = Given(8), panning((2.0, 2.0), 8)
    known = [given.add(frame) for frame in frames]
    rough = torch.rand(1, M, 2 * SIZE, 2 * SIZE, generator=torch.Generator().manual_seed(0))
    errors = 8 * given.change * motion.halve(motion.halve(rough))
    stage = _Stage(known, given.kept[-1], given.change, errors)
    still, place = stage.evidence(*stage.go_on(3), {})[:, 0, -M:][:, :2].unbind(1)
    assert torch.equal(still[0], still[2])
    torch.testing.assert_close(place[2, 12:-8, 12:-8], place[0, 10:-10, 10:-10], atol=0.04, rtol=0)  # a place a frame
    assert (place[2] - place[0])[12:-8, 12:-8].abs().max() > 0.15


@pytest.mark.parametrize(
    ("given", "channels", "shape"), [(1, 1, (8, 16)), (2, 2, (16, 8)), (3, 3, (33, 47)), (4, 1, (40, 64))]
)
def test_any_size_any_number_of_frames_and_channels(given: int, channels: int, shape: tuple[int, int]) -> None:
    frames = torch.rand(given, 2, channels, *shape, generator=torch.Generator().manual_seed(0))
    frames_ahead = forecast(network(), frames, [2, 1])
    assert frames_ahead.shape == (3, 2, channels, *shape)
    assert torch.isfinite(frames_ahead).all()


def test_far_ahead_it_stays_finite_and_within_the_picture() -> None:
    frames = crossing([((48.0, 24.0), (0.5, 2.0))], 8)
    far = forecast(network(), frames, [16] * 13)[-1]
    assert torch.isfinite(far).all()
    assert float(far.min()) > -0.5 and float(far.max()) < 1.5


def test_gray_decisions_draw_a_larger_picture_in_colour() -> None:
    frames = crossing([((48.0, 24.0), (0.0, 2.0))], 8)
    tint = torch.tensor([1.0, 0.5, 0.25])[None, :, None, None]
    large = [motion.resize(frame, 192, 192) * tint for frame in frames]
    with torch.no_grad():
        part = list(network()(frames, [3]))[-1]
        outlook = Outlook(*(field[2] for field in part.outlook))._replace(light=torch.zeros(1, 1, 24, 24))
        picture = outlook.draw(part.continuation.anchors(large))
        small = outlook.draw(part.continuation.anchors(list(frames)))
    assert picture.shape == (1, 3, 192, 192)
    assert (motion.halve(picture[:, :1]) - small).abs().mean() < 5e-3
    torch.testing.assert_close(picture[:, 1], picture[:, 0] / 2, atol=1e-5, rtol=0)


def test_the_loss_learns_from_the_forecast_and_from_the_rehearsal() -> None:
    made = network(decided=False).train()
    clips = crossing([((48.0, 24.0), (0.0, 2.0))], 9)[..., 24:72, 12:84].transpose(0, 1)  # (B, T, C, H, W)
    loss = MotionLoss(made, LOSS)(clips, 5)
    loss.backward()
    assert all(p.grad is not None for p in made.parameters())
    assert made.decide.weight.grad.abs().max() > 0
    before = loss.detach()
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    for _ in range(6):
        optimizer.step()
        optimizer.zero_grad()
        loss = MotionLoss(made, LOSS)(clips, 5)
        loss.backward()
    assert loss.detach() < 0.97 * before


def test_the_last_frame_repeated_costs_about_what_the_loss_is_measured_by() -> None:
    clips = panning((0.0, 2.0), 8).transpose(0, 1)

    class Still(MotionVMRNN):
        def forward(self, frames, ahead):
            for part in super().forward(frames, ahead):
                weights = torch.full_like(part.outlook.logits, -1e4)
                weights[:, :, 0] = 0
                yield part._replace(outlook=part.outlook._replace(logits=weights))

    with torch.no_grad():
        loss = float(MotionLoss(Still(SMALL), LOSS)(clips, 3))  # of three given frames, none is rehearsed
    assert 2.0 < loss < 2.55  # squared, absolute, slopes and choice: 1 + 0.5 + 0.5 + 0.5, less what counts as noise


def test_the_loss_is_the_sum_of_its_terms() -> None:
    clips, made = panning((0.0, 2.0), 8).transpose(0, 1), network(decided=False)
    with torch.no_grad():
        each = {term: float(MotionLoss(made, term)(clips, 4)) for term in LOSS_TERMS["MotionVMRNN"]}
        both = float(MotionLoss(made, "mse+0.3*l1")(clips, 4))
    assert both == pytest.approx(each["mse"] + 0.3 * each["l1"], rel=1e-5)
    assert min(each.values()) > 0 and len(set(each.values())) == 5
    with pytest.raises(InputError, match=r"no loss 'mse\+bce' of a MotionVMRNN"):
        MotionLoss(made, "mse+bce")


def test_the_loss_is_taught_where_things_were_and_what_is_behind() -> None:
    clips = panning((0.0, 2.0), 9).transpose(0, 1)
    taught = torch.zeros(1, 9, 4, *clips.shape[-2:])
    taught[:, 5:, 1] = -2.0 * torch.arange(1.0, 5)[:, None, None]
    taught[:, 5:, 2:] = 1.0
    wrong, hidden, unknown = taught.clone(), taught.clone(), torch.zeros_like(taught)
    wrong[:, 5:, 1] = 4.0
    hidden[:, 5:, 2] = 0.0
    loss = MotionLoss(network(decided=False).eval(), LOSS)
    with torch.no_grad():
        plain, *others = (
            float(loss(torch.cat([clips, *more], 2), 5)) for more in ([], [unknown], [taught], [wrong], [hidden])
        )
    assert others[0] == pytest.approx(plain, abs=1e-6)
    assert plain < others[1] < others[2] and others[1] < others[3]


def test_the_loss_holds_what_is_decided_near_nothing() -> None:
    clips = panning((0.0, 2.0), 9).transpose(0, 1)
    made = network(decided=False).eval()
    with torch.no_grad():
        before = float(MotionLoss(made, LOSS)(clips, 5))
        made.decide.bias[: 4 * len(motion.HYPOTHESES)] += 3.0  # of all alike: no picture is another
        assert float(MotionLoss(made, LOSS)(clips, 5)) == pytest.approx(before + 0.005 * 9 * 7 / 10, abs=2e-4)


def test_what_fades_costs_more_than_what_is_a_little_off() -> None:
    truth = panning((0.0, 2.0), 4, 64)[:, 0]
    shifted, faded = truth.roll(3, -1), 0.5 * (truth + truth.mean())
    assert motion_loss._fading(shifted, truth) < 0.5 * motion_loss._fading(faded, truth)
    assert float(motion_loss._fading(truth, truth)) == 0


def test_half_precision_decides_and_float32_measures() -> None:
    frames = panning((1.0, -0.5), 8)
    exact = forecast(network(), frames, [4])
    with torch.autocast("cpu", torch.bfloat16):
        rough = forecast(network(), frames, [4])
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().mean()) < 0.01


@pytest.mark.parametrize("given", [2, 3, 4, 10, 11, 16])
def test_frames_that_come_one_at_a_time_give_the_same_forecast(given: int) -> None:
    """What is kept of them is the same as what all of them together tell, and does not grow."""
    made, frames = network(), crossing([((48.0, 24.0), (0.5, 2.0))], given)
    kept, behind = Given(SMALL.context), motion.nothing_behind(frames[0])
    with torch.no_grad():
        for frame in frames:
            known = kept.add(frame)
            behind = behind if kept.count == 1 else known.behind(behind, frame)
        part = list(made.go_on(kept, [4]))[-1]
        again = list(made.go_on(kept, [4]))[-1]  # a forecast leaves no trace
    outlooks = (Outlook(*(field[s] for field in part.outlook)) for s in range(4))
    assert torch.equal(torch.stack([outlook.draw(known.anchors(behind, frames[-1])) for outlook in outlooks]),
                       forecast(made, frames, [4]))  # fmt: skip
    assert torch.equal(again.outlook.fields, part.outlook.fields)
    assert len(kept.kept) <= SMALL.context // 2 + 1


def test_long_ago_does_not_count_in_the_rehearsal() -> None:
    frames = torch.cat([panning((3.0, 0.0), 6), crossing([((48.0, 24.0), (0.5, 2.0))], SMALL.context)])
    kept = Given(SMALL.context)
    for frame in frames:
        kept.add(frame)
    with torch.no_grad():
        rehearsal, _ = network().go_on(kept, [1])
    assert (rehearsal.given, len(rehearsal.outlook.light)) == (len(frames) - 5, 5)
    assert float(kept.change) == pytest.approx(float((frames[7:] - frames[6:-1]).square().mean().sqrt()) + 0.004)


def test_a_hypothesis_that_may_be_right_costs_less_than_its_error() -> None:
    off = torch.stack([torch.zeros(1, 8, 8), torch.full((1, 8, 8), -0.6)])[None]  # (S, P, C, H, W)
    weights, one = torch.full((1, 2, 1, 8, 8), 0.5), torch.tensor(1.0)
    likely = 0.5 + 0.5 * math.exp(-0.6 / 0.3)
    assert float(motion_loss._missed(off, weights, one)) == pytest.approx(-0.3 * math.log(likely), rel=1e-5)
    assert float(motion_loss._missed(off[:, 1:], 2 * weights[:, 1:], one)) == pytest.approx(0.6, rel=1e-5)
    assert float(motion_loss._missed(2 * off[:, 1:], 2 * weights[:, 1:], 2 * one)) == pytest.approx(0.6, rel=1e-5)
