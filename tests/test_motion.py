"""Motion is found and continued: on scenes whose motion is known.

Notation: T time, B batch, C channels, H x W pixels.
"""

from __future__ import annotations

import math

import pytest
import torch
from moving import SIZE, crossing, disc, error, panning, texture
from torch import Tensor

from vmrnn_cli import motion


def continued(scene: Tensor, given: int = 10, ahead: int = 10) -> dict[str, Tensor]:
    """The picture of each hypothesis alone, and of their mean, for all steps ahead: (K, 1, 1, H, W)."""
    frames = scene[:given]
    going_on = motion.Continuation(motion.follow(frames, motion.find_matches(frames)))
    anchors, steps = going_on.anchors(list(frames)).expand(ahead, -1, -1, -1, -1), going_on.steps(ahead)
    pictures = {}
    for number, name in enumerate(motion.HYPOTHESES[:4]):
        logits = torch.full_like(steps.prior(), -1e4)
        logits[:, :, number] = 0.0
        pictures[name] = logits
    both = steps.prior()
    both[:, :, :4] = -1e4
    pictures |= {"matter and plate": both, "mean": steps.prior()}
    return {name: motion.draw(anchors, steps.fields[:, 0], logits[:, 0])[:, None] for name, logits in pictures.items()}


@pytest.mark.parametrize("velocity", [(0.0, 2.0), (-1.5, 0.5), (0.3, 0.0), (3.0, -4.0), (0.0, 9.0)])
def test_match_finds_a_pan(velocity: tuple[float, float]) -> None:
    before, now = panning(velocity, 2)
    found = motion.find_matches(torch.stack([before, now]))[0, ..., 4:-4, 4:-4].mean((0, 2, 3))
    assert (-found).tolist() == pytest.approx(velocity, abs=0.12)


def test_match_says_still_where_nothing_moves_and_where_there_is_only_noise() -> None:
    frame = texture()
    assert motion.match(frame, frame).abs().max() < 0.02
    generator = torch.Generator().manual_seed(1)
    noisy = [0.5 + 0.01 * torch.randn(1, 1, SIZE, SIZE, generator=generator) for _ in range(2)]
    assert motion.match(*noisy).abs().mean() < 0.25


def test_motion_ends_where_the_disc_ends() -> None:
    before, now = crossing([((48.0, 40.0), (0.0, 2.5))])[8:10]
    (found,) = motion.find_matches(torch.stack([before, now]))
    at = motion.positions(*found.shape[-2:], found) * 4 + 1.5
    distance = ((at - torch.tensor([48.0, 62.5])[:, None, None]) ** 2).sum(1).sqrt()[0]
    assert (found[0, 1, distance < 11] + 2.5).abs().mean() < 0.15
    assert found[0, 1, distance > 19].abs().mean() < 0.05


def test_the_median_keeps_an_edge_and_drops_an_outlier() -> None:
    field = torch.zeros(1, 2, 12, 12)
    field[:, 1, :, 6:] = 3.0
    edge = field.clone()
    field[0, 0, 4, 4] = field[0, 1, 2, 9] = -9.0
    assert torch.equal(motion.median(field, 5), edge)


def test_what_is_plain_moves_as_fast_over_a_texture_as_it_does() -> None:
    still, velocity = 0.6 * texture(seed=1), 2.0
    shapes = [disc((48.0, 20 + velocity * t), 13) for t in range(10)]
    frames = torch.stack([still * (1 - shape) + 0.9 * shape for shape in shapes])
    matter = motion.follow(frames, motion.find_matches(frames))[-1].matter
    assert matter is not None
    inside = motion.halve(shapes[-1])[0, 0] > 0.99
    assert matter.mask[0, 0, inside].mean() > 0.9
    assert 2 * matter.velocity[0, 1, inside].mean() == pytest.approx(velocity, rel=0.15)
    assert 2 * matter.velocity[0, :, inside].std(1).max() < 0.25 * velocity  # it keeps its shape


def test_the_matte_is_what_hides_the_plate() -> None:
    """Around a disc over a plain ground nothing tells what moves from what doesn't; the plate does."""
    shapes = [disc((48.0, 22 + 4.0 * t), 10) for t in range(10)]
    frames = torch.stack([0.4 * (1 - shape) + 0.8 * shape for shape in shapes])
    known = motion.follow(frames, motion.find_matches(frames))[-1]
    matter, hidden = known.matter, motion.halve(shapes[-1])
    assert matter is not None
    mask, matte = matter.mask, matter.matte(known.small)
    assert float(matte[hidden == 1].min()) > 0.9
    around = float(matte[hidden == 0].sum() / mask[hidden == 0].sum())
    assert float(mask[hidden == 0].sum()) > 20 and around < 0.4
    assert float(((1 - matte) * (known.small - matter.plate)).abs().max()) < 0.05


def test_a_thing_goes_on_as_one() -> None:
    """A plain box over a texture: what is seen of its motion is its rim, and less and less of it within."""
    still, ahead = 0.6 * texture(seed=1), 20
    frames = still.repeat(10 + ahead, 1, 1, 1, 1)
    for t, frame in enumerate(frames):
        frame[..., 36:60, 10 + 2 * t : 34 + 2 * t] = 0.9
    known = motion.follow(frames[:10], motion.find_matches(frames[:10]))
    matter, inside = known[-1].matter, (0, slice(None), slice(19, 29), slice(15, 25))  # on the half grid
    assert matter is not None
    apart, as_one = (2 * velocity[inside].flatten(1) for velocity in (matter.velocity, matter.as_one()))
    assert as_one.mean(1).tolist() == pytest.approx([0.0, 2.0], abs=0.18)  # of all speeds, the edges' are lower
    assert float(as_one.std(1).max()) < min(0.1, 0.5 * float(apart.std(1).max()))
    going_on = motion.Continuation(known)
    steps, anchors = going_on.steps(ahead), going_on.anchors(list(frames[:10]))
    there = (..., slice(38, 58), slice(12 + 2 * 29, 32 + 2 * 29))
    missed = {}
    for name in ("thing", "matter"):
        logits = torch.full_like(steps.prior()[-1], -30.0)
        logits[:, motion.HYPOTHESES.index(name)] = 0.0
        missed[name] = error(motion.draw(anchors, steps.fields[-1], logits)[there], frames[-1][there])
    assert missed["thing"] < 0.5 * missed["matter"], missed


def test_warp_and_carry_move_by_what_they_are_told() -> None:
    picture = texture()
    right = torch.tensor([0.0, 3.0])[None, :, None, None].expand(1, 2, SIZE, SIZE)
    torch.testing.assert_close(motion.warp(picture, -right)[..., 3:], picture[..., :-3], atol=1e-5, rtol=0)
    landed, weight = motion.carry(picture, right, torch.ones_like(picture))
    torch.testing.assert_close(landed[..., 3:], picture[..., :-3], atol=1e-5, rtol=0)
    assert weight[..., :3].abs().max() == 0
    half = right / 6
    landed, weight = motion.carry(picture, half, torch.ones_like(picture))
    between = (picture[..., 1:] + picture[..., :-1]) / 2
    torch.testing.assert_close(landed[..., 1:], between, atol=1e-5, rtol=0)


def test_what_comes_from_beyond_the_edge_leaves_no_streaks() -> None:
    picture = texture()
    still, right = (
        torch.zeros(1, 2, SIZE, SIZE),
        torch.tensor([0.0, 20.0])[None, :, None, None].expand(1, 2, SIZE, SIZE),
    )
    around = motion.framed(picture)
    assert around.shape == (1, 1, SIZE + 2, SIZE + 2)
    torch.testing.assert_close(motion.warp(around, still), picture, atol=1e-5, rtol=0)
    sharp, soft = motion.warp(picture, -right), motion.warp(around, -right)
    torch.testing.assert_close(soft[..., 20:], sharp[..., 20:], atol=1e-5, rtol=0)
    streaks = [float((new[..., 1:, :19] - new[..., :-1, :19]).abs().mean()) for new in (sharp, soft)]
    assert streaks[1] < 0.4 * streaks[0]
    assert float(soft[..., :19].mean()) == pytest.approx(float(sharp[..., :19].mean()), abs=0.01)
    one = torch.full((1, 1, 1, 1), 0.25)
    torch.testing.assert_close(motion.warp(motion.framed(one), torch.full((1, 2, 1, 1), 5.0)), one)


def test_camera_motion_ignores_what_moves_by_itself() -> None:
    field = torch.zeros(1, 2, 32, 32)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    field[0, 0], field[0, 1] = 1 + 0.8 * y, -2 + 0.8 * x  # a pan and a zoom
    expected = field.clone()
    field[0, :, 10:20, 5:15] = 6.0
    assert (motion.camera_motion(field) - expected).abs().mean() < 0.1


def test_a_pan_goes_on() -> None:
    scene = panning((0.5, -1.5))
    last, inside = scene[9], (..., slice(20, -20), slice(20, -20))
    for name, forecast in continued(scene).items():
        if name in ("place", "camera"):
            assert error(forecast[inside], scene[10:20][inside]) < 0.05 * error(
                last.expand_as(scene[10:20])[inside], scene[10:20][inside]
            ), name


def test_a_zoom_goes_on() -> None:
    world, scene = texture(), []
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    for t in range(20):
        scene.append(motion.warp(world, torch.stack([y, x])[None] * (SIZE - 1) / 2 * (0.985**t - 1)))
    frames = torch.stack(scene)
    still = error(frames[9].expand_as(frames[10:]), frames[10:])
    forecasts = continued(frames)
    assert error(forecasts["place"], frames[10:]) < 0.4 * still
    assert error(forecasts["camera"], frames[10:]) < 0.4 * still


def test_a_disc_is_carried_over_a_still_texture_and_shows_what_was_behind() -> None:
    scene = crossing([((48.0, 24.0), (0.0, 2.0))])
    truth = scene[10:20]
    forecasts = continued(scene)
    still = error(scene[9].expand_as(truth), truth)
    assert error(forecasts["matter and plate"], truth) < 0.45 * still
    frames = scene[:10]
    prior = motion.Continuation(motion.follow(frames, motion.find_matches(frames))).steps(10).prior()[-1, 0].exp()
    was, lands = (dict(zip(motion.HYPOTHESES, prior[:, 24, column // 2], strict=True)) for column in (30, 62))
    assert was["plate"] > was["still"] and lands["plate"] < 0.1 * lands["matter"]  # it was there, and is here
    behind = (..., slice(38, 58), slice(39, 46))  # where the disc is last seen, and was not at first
    left = truth[8:][behind]
    still = error(scene[9].expand_as(truth)[8:][behind], left)
    assert error(forecasts["matter and plate"][8:][behind], left) < 0.25 * still


def test_two_discs_that_cross_both_arrive() -> None:
    scene = crossing([((30.0, 20.0), (0.0, 2.0)), ((66.0, 76.0), (0.0, -2.0))])
    truth = scene[10:20]
    assert error(continued(scene)["matter and plate"], truth) < 0.5 * error(scene[9].expand_as(truth), truth)


def test_nothing_moves_where_nothing_moved() -> None:
    scene = texture()[None].expand(20, -1, -1, -1, -1)
    for name, forecast in continued(scene).items():
        assert (forecast - scene[10:]).abs().max() < 1e-3, name


def test_noise_is_not_taken_for_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    scene = texture()[None] + 0.01 * torch.randn(20, 1, 1, SIZE, SIZE, generator=generator)
    truth = scene[10:]
    assert error(continued(scene)["mean"], truth) < 1.1 * error(scene[9].expand_as(truth), truth)


def test_after_a_cut_the_forecast_is_of_the_new_scene() -> None:
    scene = torch.cat(
        [texture(seed=3)[None].expand(6, -1, -1, -1, -1), texture(seed=4)[None].expand(14, -1, -1, -1, -1)]
    )
    assert error(continued(scene)["mean"], scene[10:]) < 0.2 * error(scene[0].expand_as(scene[10:]), scene[10:])


def test_steps_go_on_where_they_ended() -> None:
    frames = crossing([((48.0, 24.0), (0.5, 2.0))], 8)
    known = motion.follow(frames, motion.find_matches(frames))
    at_once = motion.Continuation(known).steps(7)
    piecewise = motion.Continuation(known)
    parts = [piecewise.steps(3), piecewise.steps(4)]
    assert torch.equal(at_once.fields, torch.cat([part.fields for part in parts]))
    assert torch.equal(at_once.masks, torch.cat([part.masks for part in parts]))


def test_clips_of_a_batch_do_not_meet() -> None:
    one, other = crossing([((48.0, 24.0), (0.0, 2.0))], 8), panning((1.0, 1.0), 8)
    together = torch.stack(list(motion.motion_continued(torch.cat([one, other], 1), 3)))
    for number, scene in enumerate((one, other)):
        alone = torch.stack(list(motion.motion_continued(scene, 3)))
        torch.testing.assert_close(together[:, number : number + 1], alone, atol=1e-5, rtol=0)


def test_the_same_fields_draw_a_larger_picture_in_colour() -> None:
    scene = crossing([((48.0, 24.0), (0.0, 2.0))])
    frames = scene[:10]
    going_on = motion.Continuation(motion.follow(frames, motion.find_matches(frames)))
    steps = going_on.steps(5)
    small = motion.draw(going_on.anchors(list(frames)), steps.fields[4], steps.prior()[4])
    tint = torch.tensor([1.0, 0.5, 0.25])[None, :, None, None]
    large = [motion.resize(frame, 2 * SIZE, 2 * SIZE) * tint for frame in frames]
    drawn = motion.draw(going_on.anchors(large), steps.fields[4], steps.prior()[4])
    assert drawn.shape == (1, 3, 2 * SIZE, 2 * SIZE)
    assert error(motion.halve(drawn[:, :1]), small) < 2e-4
    torch.testing.assert_close(drawn[:, 2], drawn[:, 0] / 4, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(7, 9), (16, 8), (33, 64)])
@pytest.mark.parametrize("given", [1, 2, 3])
def test_any_size_and_few_frames(shape: tuple[int, int], given: int) -> None:
    frames = torch.rand(given, 2, 2, *shape, generator=torch.Generator().manual_seed(0))
    forecast = list(motion.motion_continued(frames, 3))
    assert [frame.shape for frame in forecast] == [(2, 2, *shape)] * 3
    assert all(torch.isfinite(frame).all() for frame in forecast)
    if given == 1:
        torch.testing.assert_close(forecast[-1], frames[0], atol=1e-4, rtol=0)


def test_large_frames_are_looked_at_in_half_and_drawn_whole() -> None:
    scene = motion.resize(panning((0.0, 1.5), 5, 100).flatten(0, 1), 400, 400)[:, None]
    assert motion.looked_at(scene).shape == (5, 1, 1, 200, 200)
    forecast = next(motion.motion_continued(scene[:4], 1))
    inside = (..., slice(50, -50), slice(50, -50))
    assert error(forecast[inside], scene[4][inside]) < 0.3 * error(scene[3][inside], scene[4][inside])


def test_what_was_never_seen_behind_is_made_up_from_around_it() -> None:
    """A disc that moves less than its own width hides a part of the still picture in all given frames."""
    frames = crossing([((40.0, 40.0), (0.0, 1.5))], 10)
    still = 0.6 * texture(seed=1)
    known = motion.follow(frames, motion.find_matches(frames))
    plate, past = motion.Continuation(known).anchors(list(frames))[:, -2:, :, 1:-1, 1:-1].unbind(1)
    hidden = disc((40.0, 47.0), 5) > 0.5
    seen = motion.resize(known[-1].matter.shown(), SIZE, SIZE)
    assert float(seen[hidden].max()) < 0.1 and float(seen[..., 70:, :].min()) > 0.9
    assert float(seen[disc((40.0, 29.0), 2) > 0.5].min()) > 0.9  # it left there
    assert float((plate - still)[hidden].square().mean()) < 0.2 * float((frames[-1] - still)[hidden].square().mean())
    assert float((plate - still)[..., 70:, :].abs().max()) < 1e-3
    first_seen = (frames[0] - still)[hidden].square().mean()
    assert float((past - frames[0])[hidden].square().mean()) < 0.5 * float(first_seen)  # nothing is made up in it


def test_values_spread_along_what_looks_alike() -> None:
    guide = torch.zeros(1, 1, 32, 32)
    guide[..., 10:22, 10:22] = 0.8
    known = torch.zeros_like(guide)
    known[..., 11, 11:21] = known[..., 8, 8:24] = 1.0  # a row within, of value 1, and one outside it, of value 0
    spread = motion._spread((guide > 0).float(), known, guide)
    assert float(spread[..., 11:16, 11:21].min()) > 0.5 and float(spread[..., 3:9, :].abs().max()) < 0.02
    assert float(spread[..., 29:, :].abs().max()) < 1e-6  # nothing is known there


def test_the_unknown_is_filled_from_around() -> None:
    known = torch.ones(1, 1, 20, 27)
    known[..., 4:15, 5:20] = 0
    ramp = torch.linspace(0, 1, 27).expand(1, 3, 20, 27)
    torch.testing.assert_close(motion.fill_in(ramp, torch.ones_like(known)), ramp)
    hole = ramp.masked_fill(known == 0, 7.0)
    assert float((motion.fill_in(hole, known) - ramp).abs().max()) < 0.25
    assert torch.isfinite(motion.fill_in(hole, torch.zeros_like(known))).all()


def test_where_hypotheses_disagree_their_mean_is_drawn_once() -> None:
    frames = panning((0.0, 2.0), 10)
    going_on = motion.Continuation(motion.follow(frames, motion.find_matches(frames)))
    steps, anchors = going_on.steps(3), going_on.anchors(list(frames))
    logits = torch.full((1, len(motion.HYPOTHESES) + 3, SIZE // 2, SIZE // 2), -30.0)
    logits[:, :2] = 0.0  # half still, half moved by 6 pixels
    logits[:, 7] = math.log(9)
    fields, shares = motion.agree(steps.fields[2], logits)
    weights = torch.softmax(shares, 1)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    assert weights[0, :, 20, 20].tolist() == pytest.approx([0.05, 0.05, 0, 0, 0, 0, 0, 0.9, 0, 0], abs=1e-5)
    torch.testing.assert_close(fields[:, 5], steps.fields[2, :, 0] / 2)
    once = motion.warp(motion.framed(frames[-1]), motion.resize(fields[:, 5], SIZE, SIZE))
    twice = motion.draw(anchors, steps.fields[2], logits[:, :7])
    torch.testing.assert_close(motion.draw(anchors, fields, shares), 0.9 * once + 0.1 * twice)
    logits[:, 5] = 50.0  # what stands behind is no motion of the last frame
    assert torch.softmax(motion.agree(steps.fields[2], logits)[1], 1)[:, 5].min() > 0.99


def test_where_nothing_can_be_known_their_mean_is_blurred() -> None:
    frames = panning((0.0, 2.0), 10)
    going_on = motion.Continuation(motion.follow(frames, motion.find_matches(frames)))
    fields, anchors = going_on.steps(1).fields[0], going_on.anchors(list(frames))
    slopes = []
    for blur in range(3):
        logits = torch.full((1, len(motion.HYPOTHESES) + 3, SIZE // 2, SIZE // 2), -30.0)
        logits[:, 7] = 30.0
        logits[:, 7 + blur] = 30.0
        drawn = motion.draw(anchors, *motion.agree(fields, logits))
        slopes.append(float((drawn[..., 1:] - drawn[..., :-1]).abs().mean()))
        assert float(drawn.mean()) == pytest.approx(float(frames[-1].mean()), abs=5e-3)
    assert slopes[1] < 0.85 * slopes[0] and slopes[2] < 0.8 * slopes[1]


@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (2, 2)])
def test_frames_of_two_pixels_are_carried_on(shape):
    frames = torch.rand(5, 1, 1, *shape, generator=torch.Generator().manual_seed(0))
    assert all(frame.isfinite().all() for frame in motion.motion_continued(frames, 3))
