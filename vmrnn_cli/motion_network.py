"""A VMRNN that decides how the picture goes on: which hypothesis of motion holds where, and how far it is off.

This is ours and not the paper's, whose cells it is made of. The frame is not painted but carried on: each forecast is a
weighted mean of the hypotheses of `motion.py`, whose velocities the network may correct. Untrained, it gives each the
weight that it has when nothing else is known.

It learns from a rehearsal. The hypotheses first continue the first half of the given frames, and the recurrent state
sees, one frame at a time, how well each of them meets the second half; then it goes on with those that continue all
given frames, and there is nothing more to see. Where more frames are given than the weights were trained for (their
context), the rehearsal is of the last half of a context: `Given` is all that a forecast needs of the frames so far, and
has the same size for ten of them as for a stream that never ends.

Notation: B batch, T given frames, S steps (rehearsed frames, or frames ahead), M hypotheses, C channels, H x W pixels,
h x w = H/2 x W/2 the half grid, P pictures that are mixed, A anchors, E width of the tokens, which lie on a grid of
H/8 x W/8.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import MotionConfig
from .model import PatchEmbedding, PatchExpanding, PatchMerging, ScanNetwork, State, VMRNNCell
from .motion import (
    BLURS,
    FIELDS,
    FRONT,
    HYPOTHESES,
    Continuation,
    Followed,
    Steps,
    agree,
    box_mean,
    draw,
    draw_each,
    find_matches,
    halve,
    looked_at,
    nothing_behind,
    resize,
    warp,
)

_M = len(HYPOTHESES)
_P = _M + 1 + len(BLURS)  # pictures that are mixed, see `motion.agree`
_EVIDENCE = 1 + (_M - 1) + _M + 3 + 2 * FIELDS + 3 + _M  # channels, see `_Stage.evidence`
AGREEMENT, BLUR = 1.5, -3.0  # logits of the mean's share and of its blurs, before anything is decided
_DAMPING = 0.97  # of a correction's velocity, a frame


class Outlook(NamedTuple):
    """Frames to be drawn, at any size, from the anchors of the given ones.

    fields : (N, 6, 2, h, w), displacements as in `motion.Steps`, corrected, and their mean as of `motion.agree`
    logits : (N, P, h, w), logarithms of the weights of the pictures that are mixed
    light : (N, 1, h/2, w/2), added to the picture

    N is whatever is drawn together.
    """

    fields: Tensor
    logits: Tensor
    light: Tensor

    def weights(self) -> Tensor:
        """Of the hypotheses, (N, M, h, w), of sum 1: what their mean has is given back to those it is the mean of."""
        front, behind, _ = torch.softmax(self.logits, 1).split([FRONT, _M - FRONT, _P - _M], 1)
        shares = front / front.sum(1, keepdim=True).clamp(min=1e-12)
        return torch.cat([shares * (1 - behind.sum(1, keepdim=True)), behind], 1)

    def displacement(self) -> Tensor:
        """Where pixels are taken from, by the mean of the hypotheses: (N, 2, h, w), in pixels."""
        front, behind = self.weights().split([FRONT, _M - FRONT], 1)
        weights = torch.cat([front[:, 1:], behind.sum(1, keepdim=True)], 1)  # "still" has no displacement
        return (weights[:, :, None] * self.fields[:, :FIELDS]).sum(1)

    def draw_each(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures that are mixed (N, P, C, H, W), and their weights, as `motion.draw_each`."""
        pictures, weights = draw_each(anchors, self.fields, self.logits)
        return pictures + resize(self.light, *pictures.shape[-2:])[:, None], weights

    def draw(self, anchors: Tensor) -> Tensor:
        """(N, C, H, W) from anchors (N, A, C, H + 2, W + 2) in [0, 1]; not clamped, which would cut gradients off."""
        picture = draw(anchors, self.fields, self.logits)
        return picture + resize(self.light, *picture.shape[-2:])


class Decisions(NamedTuple):
    """What the network adds to what the hypotheses are untrained.

    logits : (S, B, P, h, w), to the logarithms of their weights, and to the logits of what `motion.agree` adds
    velocity : (S, B, 5, 2, h/2, w/2), to the fields' velocities, in pixels a frame
    light : (S, B, 1, h/2, w/2), to the picture
    """

    logits: Tensor
    velocity: Tensor
    light: Tensor


class Part(NamedTuple):
    """Some frames of a forecast.

    given : how many of the given frames it was made from
    continuation : how their motion goes on; gathers the anchors from them
    outlook : (S, B, ...)
    decided : what the outlook has of the network
    """

    given: int
    continuation: Continuation
    outlook: Outlook
    decided: Decisions


class MotionVMRNN(ScanNetwork):
    """A VMRNN-D over the evidence of motion: one cell on the grid of patches, one on half of it (figure 3)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        dim, width = config.embed_dim, config.decoder_dim
        self.patch_embedding = PatchEmbedding(_EVIDENCE, 4, dim)
        self.down = VMRNNCell(dim, config.d_state, [config.drop_path] * config.depths[0])
        self.merging = PatchMerging(dim)
        self.up = VMRNNCell(2 * dim, config.d_state, [config.drop_path] * config.depths[1])
        self.expanding = PatchExpanding(2 * dim)
        self.detail = nn.Conv2d(_EVIDENCE, config.detail_dim, 2, stride=2)  # what the patches are too coarse for
        self.join = nn.Conv2d(2 * dim + config.detail_dim, width, 3, padding=1)
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.decide = nn.Conv2d(width, 4 * _P + 2 * FIELDS + 1, 1)
        for parameter in self.decide.parameters():  # untrained, it corrects nothing
            nn.init.zeros_(parameter)
        assert self.decide.bias is not None
        nn.init.constant_(self.decide.bias[4 * _M : 4 * _M + 4], AGREEMENT)
        nn.init.constant_(self.decide.bias[4 * _M + 4 : 4 * _P], BLUR)

    def forward(self, frames: Tensor, ahead: Iterable[int]) -> Iterator[Part]:
        """Forecast the second half of the given frames from the first, then the frames ahead from all of them.

        Args:
            frames: the given ones, (T, B, C, H, W) in [0, 1], T at least 2 (see `motion.at_least_two`).
            ahead: how many frames to forecast together, once, or as often as it says.

        Yields:
            The rehearsal, left out where there are fewer than four frames, and a part for each number of `ahead`.
        """
        given, known = Given(self.config.context), []
        for frame in frames:
            known.append(given.add(frame))
        yield from self.go_on(given, ahead, known)

    def go_on(self, given: Given, ahead: Iterable[int], known: Sequence[Followed] = ()) -> Iterator[Part]:
        """The same from what is kept of the given frames, which stays as it is.

        Args:
            given: of at least two frames.
            ahead: as in `forward`.
            known: what `given.add` returned for each frame, for who asks the parts' continuations for their anchors.
        """
        T, rehearsed = given.count, given.rehearsed
        newest, change = given.kept[-1], given.change
        states, found, credit = None, {}, None
        if T - rehearsed >= 2:
            before = given.kept[-1 - rehearsed]
            stage = _Stage(known[: T - rehearsed] or [before.known], before, change)
            steps, pictures = stage.go_on(rehearsed)
            with _measuring(pictures):
                truth = torch.cat([kept.known.small for kept in list(given.kept)[-rehearsed:]])
                errors = (pictures - truth.unflatten(0, (rehearsed, -1))).abs()
            decided, states = self.decide_on(stage.evidence(steps, pictures, {1: errors[:-1]}), states)
            found, credit = {0: errors[-1:]}, errors[-1]
            yield Part(T - rehearsed, stage.continuation, self._outlook(steps, decided, stage.lead), decided)
        stage = _Stage(known or [newest.known], newest, change, credit)
        for count in ahead:
            steps, pictures = stage.go_on(count)
            decided, states = self.decide_on(stage.evidence(steps, pictures, found), states)
            found = {}
            yield Part(T, stage.continuation, self._outlook(steps, decided, stage.lead), decided)

    def decide_on(self, evidence: Tensor, states: tuple[State, State] | None) -> tuple[Decisions, tuple[State, State]]:
        """One step of the cells after the other, and what they decide.

        Args:
            evidence: (S, B, n, h, w), see `_Stage.evidence`.
            states: of the cells; None at first.

        Returns:
            What was decided, and the states after the last step.
        """
        S, B, _, h, w = evidence.shape
        padded = evidence.flatten(0, 1)
        if h % 8 or w % 8:
            padded = F.pad(padded, (0, -w % 8, 0, -h % 8), mode="replicate")
        tokens = self.patch_embedding(padded).unflatten(0, (S, B))  # (S, B, H/8, W/8, E)
        first, second = states or (None, None)
        outputs = []
        for step in tokens:
            fine, first = self.down(step, first)
            coarse, second = self.up(self.merging(fine), second)
            outputs.append(torch.cat([fine, self.expanding(coarse)], -1))
        assert first is not None and second is not None
        detail = F.gelu(self.detail(padded))  # (S B, ., H/4, W/4)
        seen = rearrange(torch.cat(outputs), "n h w e -> n e h w").to(detail.dtype)
        seen = F.interpolate(seen, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.gelu(self.join(torch.cat([seen, detail], 1)))
        x = self.decide(x + F.gelu(self.refine(x))).float()
        logits, velocity, light = x.split([4 * _P, 2 * FIELDS, 1], 1)
        logits = F.pixel_shuffle(logits, 2)[..., :h, :w]
        velocity, light = (part[..., : -(-h // 2), : -(-w // 2)] for part in (velocity, light))
        decided = logits, 0.5 * velocity.unflatten(1, (FIELDS, 2)), 0.1 * light
        return Decisions(*(part.unflatten(0, (S, B)) for part in decided)), (first, second)

    def _outlook(self, steps: Steps, decided: Decisions, lead: int) -> Outlook:
        """The steps up to `lead` frames ahead, with what was decided on them."""
        logits, velocity, light = decided
        S, _, _, _, h, w = steps.fields.shape
        ahead = torch.arange(lead - S + 1.0, lead + 1, device=velocity.device)[:, None, None, None, None, None]
        correction = velocity * ((1 - _DAMPING**ahead) / (1 - _DAMPING))
        correction = resize(correction.flatten(0, 2), h, w).view_as(steps.fields)
        own, agreement = logits.split([_M, _P - _M], 2)
        logits = torch.cat([self.config.decisiveness * (steps.prior() + own), agreement], 2)
        return Outlook(*agree(steps.fields + correction, logits), light)


@contextlib.contextmanager
def _measuring(frames: Tensor) -> Iterator[None]:
    """Motion is measured in float32, whatever the network runs in, and has no gradient: only decisions have."""
    with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
        yield


class _Kept(NamedTuple):
    """Of one frame: how what came up to it moved, and what is behind it on the half grid, (B, 2, h, w)."""

    known: Followed
    behind: Tensor


class Given:
    """What a forecast needs of the frames given so far, however many.

    count : of the frames
    kept : of the last frames, as many as a rehearsal takes and one more

    Args:
        context: how many of the last frames count for the rehearsal, and for how much the clip changes.
    """

    def __init__(self, context: int) -> None:
        self.count = 0
        self._span = max(2, context)
        self.kept: deque[_Kept] = deque(maxlen=(self._span + 1) // 2 + 1)
        self._last: Tensor | None = None  # (B, 1, H, W), gray, as motion is looked for in it
        self._behind: Tensor | None = None  # (B, 2, 1, H, W)
        self._changes: deque[Tensor] = deque(maxlen=self._span - 1)  # squared, (B,)

    def add(self, frame: Tensor) -> Followed:
        """Take the next frame, (B, C, H, W) in [0, 1], and return how what came up to it moved."""
        with _measuring(frame):
            (frame,) = looked_at(frame[None])
            if self._last is None or self._behind is None:
                known, self._behind = Followed.first(frame), nothing_behind(frame)
                behind = self._behind[:, :, 0]
            else:
                (match,) = find_matches(torch.stack([self._last, frame]))
                known = self.kept[-1].known.then(frame, match)
                self._behind = known.behind(self._behind, frame)
                behind = known.anchors(self._behind, frame)[:, -2:, 0, 1:-1, 1:-1]
                self._changes.append((frame - self._last).square().mean((1, 2, 3)))
            self._last = frame
            self.kept.append(_Kept(known, halve(behind)))
        self.count += 1
        return known

    @property
    def rehearsed(self) -> int:
        """How many of the last frames are rehearsed."""
        span = min(self.count, self._span)
        return span - span // 2

    @property
    def change(self) -> Tensor:
        """How much the clip changes from frame to frame, in terms of which evidence is told: (B, 1, 1, 1)."""
        return torch.stack(list(self._changes)).mean(0).sqrt()[:, None, None, None] + 0.004


class _Stage:
    """A continuation of the given frames up to some, and the evidence that it offers, on the half grid."""

    def __init__(self, known: Sequence[Followed], kept: _Kept, change: Tensor, errors: Tensor | None = None) -> None:
        """A continuation.

        Args:
            known: after each frame, or after the last one.
            kept: of the last one.
            change: how much the clip changes, (B, 1, 1, 1).
            errors: of the hypotheses in the last frame, (B, M, h, w), if that was rehearsed.
        """
        with _measuring(kept.behind):
            self.continuation = Continuation(known)
        self._last = kept.known.small
        self._anchors = torch.cat([self._last] * (FRONT - 1) + [kept.behind], 1)  # (B, M - 1, h, w)
        assert kept.known.matter is not None
        self._shown = kept.known.matter.shown()
        self._change = change
        self._errors = torch.zeros_like(self._last).expand(-1, _M, -1, -1)
        if errors is not None:
            with _measuring(errors):
                self._errors = (box_mean(errors, 5) / (2 * change)).clamp(max=4)
        self.lead = 0  # frames ahead of the last step

    def go_on(self, count: int) -> tuple[Steps, Tensor]:
        """The next `count` steps, and the hypotheses' pictures (S, B, M, h, w)."""
        self.lead += count
        with _measuring(self._last):
            steps = self.continuation.steps(count)
            shown = self._shown.expand(count, -1, -1, -1, -1).flatten(0, 1)
            self._visible = warp(shown, steps.fields[:, :, -1].flatten(0, 1) / 2).view_as(steps.masks[:, :, :1])
            anchors = self._anchors.expand(count, -1, -1, -1, -1).flatten(0, 2)[:, None]  # (S B (M-1), 1, h, w)
            fields = torch.cat([steps.fields, steps.fields[:, :, -1:]], 2) / 2  # "past" has that of "plate"
            moved = warp(anchors, fields.flatten(0, 2)).view(count, *self._anchors.shape)
            still, others = self._errors[:, :1], self._errors[:, 1:, None]
            others = others.expand(count, -1, -1, -1, -1, -1).flatten(0, 2)  # (S B (M-1), 1, h, w)
            carried = warp(others, fields.flatten(0, 2)).view(count, *self._anchors.shape)
            self._carried = torch.cat([still.expand(count, -1, -1, -1, -1), carried], 2)
            return steps, torch.cat([self._last.expand(count, -1, -1, -1, -1), moved], 2)

    def evidence(self, steps: Steps, pictures: Tensor, found: dict[int, Tensor]) -> Tensor:
        """What the network sees of the steps that `go_on` returned last.

        Args:
            steps: of `go_on`.
            pictures: of `go_on`.
            found: how far the hypotheses were off one frame earlier, (s, B, M, h, w), by the first step that gets to
                know it: all but the first one in a rehearsal, only the first one after it.

        Returns:
            (S, B, 37, h, w): the last frame, how the hypotheses differ from it, their errors, the masks, the fields,
            whether the errors are known, how far ahead the step is, where the plate was seen, and how far the
            hypotheses were off in the last frame, carried along with what they carry.
        """
        S, B, _, h, w = pictures.shape
        known, seen = torch.zeros_like(steps.masks[:, :, :1]), torch.zeros_like(pictures)
        for first, errors in found.items():
            known[first : first + len(errors)] = 1.0
            seen[first : first + len(errors)] = errors / (2 * self._change)
        lead = torch.arange(self.lead - S + 1.0, self.lead + 1, device=pictures.device)[:, None, None, None, None]
        return torch.cat(
            [
                (self._last - 0.5).expand(S, -1, -1, -1, -1),
                ((pictures[:, :, 1:] - self._last) / (4 * self._change)).clamp(-4, 4),
                seen.clamp(-4, 4),
                steps.masks,
                (steps.fields / (4 + 2 * lead[..., None])).flatten(2, 3),
                known,
                (lead / 10).clamp(max=3).expand(-1, B, -1, h, w),
                self._visible,
                self._carried,
            ],
            2,
        )
