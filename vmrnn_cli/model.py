"""VMRNN (arXiv 2403.16536): Vision-Mamba blocks inside a recurrent cell, over patch-embedded frames.

Notation: B batch, T time, C channels of a frame, H x W pixels, h x w grid of tokens, L = h*w, E embedding width of a
cell, D = 2E inner width, N states, R = ceil(E / 16) rank of dt, K = 4 scan directions.

Tokens are (B, h, w, E) throughout, channels last. The file reads top-down like the paper: patch embedding, SS2D, VSS
block, VMRNN cell, patch merging and expanding, reconstruction, the two networks, rollout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import scan
from .config import VMRNNConfig as VMRNNConfig


class State(NamedTuple):
    """What a cell remembers, each (B, h, w, E) float32."""

    hidden: Tensor
    cell: Tensor


class PatchEmbedding(nn.Module):
    """Frames to tokens: one linear map of each patch, then LayerNorm. Section 3.2."""

    def __init__(self, channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frame: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, h, w, E), h = H / patch_size."""
        return self.norm(rearrange(self.proj(frame), "b e h w -> b h w e"))


class SS2D(nn.Module):
    """2-D selective scan: each token is mixed with the others along four paths over the grid. Section 3.1, figure 2.

    `scan_backend` names the implementation of the scan, see `vmrnn_cli.scan`.
    """

    def __init__(self, dim: int, d_state: int = 16) -> None:
        super().__init__()
        K, D, R = 4, 2 * dim, math.ceil(dim / 16)
        self.rank, self.scan_backend = R, "auto"
        self.in_proj = nn.Linear(dim, 2 * D, bias=False)
        self.conv2d = nn.Conv2d(D, D, 3, padding=1, groups=D)
        self.x_proj_weight = nn.Parameter(torch.empty(K, R + 2 * d_state, D))
        self.dt_projs_weight = nn.Parameter(torch.empty(K, D, R))
        self.dt_projs_bias = nn.Parameter(torch.empty(K, D))
        self.A_logs = nn.Parameter(torch.empty(K * D, d_state))
        self.Ds = nn.Parameter(torch.ones(K * D))
        self.out_norm = nn.LayerNorm(D)
        self.out_proj = nn.Linear(D, dim, bias=False)
        self.reset_scan_parameters()

    @torch.no_grad()
    def reset_scan_parameters(self) -> None:
        """Initial values, as Mamba has them: A = -1 .. -N, and softplus(dt bias) is log-uniform in [1e-3, 1e-1]."""
        if self.A_logs.is_meta:
            return  # shapes only, and PyTorch would load a compiler to work out those of what follows
        self.A_logs.copy_(torch.arange(1.0, self.A_logs.shape[-1] + 1).log())
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # that of nn.Linear
        self.dt_projs_weight.uniform_(-(self.rank**-0.5), self.rank**-0.5)
        log_low, log_high = math.log(1e-3), math.log(1e-1)
        dt = torch.exp(torch.rand(self.dt_projs_bias.shape) * (log_high - log_low) + log_low).clamp(min=1e-4)
        self.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, h, w, E)."""
        backend = scan.pick_backend(self.scan_backend, tokens.device, self.A_logs.shape[-1], self.rank)
        x, z = self.in_proj(tokens).chunk(2, dim=-1)  # (B, h, w, D) each
        x = scan.conv_silu(x, self.conv2d.weight, self.conv2d.bias, backend)
        x_dbl = F.linear(x, self.x_proj_weight.flatten(0, 1))  # all directions at once
        x_dbl = x_dbl.unflatten(-1, self.x_proj_weight.shape[:2])  # (B, h, w, K, R + 2N)
        y = scan.selective_scan(x, x_dbl, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds, backend)
        return self.out_proj(scan.norm_gate(y, z, self.out_norm, backend))


class DropPath(nn.Module):
    """Stochastic depth: in training, a residual branch is left out for a sample with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape (B, ...), unchanged."""
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * kept / (1.0 - self.rate)


class VSB(nn.Module):
    """Vision state-space block: LayerNorm, SS2D, residual. The first of a cell also takes in the hidden state.

    Token and hidden state go through the same LayerNorm and are mixed by one linear layer ("LP" in figure 3).
    """

    def __init__(self, dim: int, d_state: int, drop_path: float, takes_hidden: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mix = nn.Linear(2 * dim, dim) if takes_hidden else None
        self.ss2d = SS2D(dim, d_state)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, h, w, E), and the hidden state likewise for the first block -> (B, h, w, E)."""
        y = self.norm(tokens)
        if self.mix is not None:
            y = self.mix(torch.cat([y, self.norm(hidden)], dim=-1))
        return tokens + self.drop_path(self.ss2d(y))


class VMRNNCell(nn.Module):
    """The recurrent cell: VSS blocks, then an LSTM with a single gate. Section 3.3, equations 5-7."""

    def __init__(self, dim: int, d_state: int, drop_path: Sequence[float]) -> None:
        super().__init__()
        self.dim = dim
        self.blocks = nn.ModuleList(VSB(dim, d_state, rate, takes_hidden=i == 0) for i, rate in enumerate(drop_path))

    def forward(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One step. (B, h, w, E) and the state, None for the first -> the new hidden state, and the new state."""
        if state is None:
            zeros = torch.zeros_like(tokens, dtype=torch.promote_types(tokens.dtype, torch.float32))
            state = State(zeros, zeros)
        in_one_go = scan.cell(self.blocks, tokens, *state)  # the same as what follows, where nothing is learnt
        if in_one_go is not None:
            return in_one_go[0], State(*in_one_go)
        first, *others = self.blocks
        o = first(tokens, state.hidden.to(tokens.dtype))
        for block in others:
            o = block(o)
        o = o.to(state.cell.dtype)
        f, g = torch.sigmoid(o), torch.tanh(o)
        cell = f * (state.cell + g)
        hidden = f * torch.tanh(cell)
        return hidden, State(hidden, cell)


class PatchMerging(nn.Module):
    """Halve the grid, double the width: 2x2 neighbours are concatenated, normalised and projected. Section 3.2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, h/2, w/2, 2E)."""
        quads = rearrange(tokens, "b (h p1) (w p2) e -> b h w (p2 p1 e)", p1=2, p2=2)  # (0,0), (1,0), (0,1), (1,1)
        return self.reduction(self.norm(quads))


class PatchExpanding(nn.Module):
    """Double the grid, halve the width: the inverse of patch merging. Section 3.2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, 2h, 2w, E/2)."""
        return self.norm(rearrange(self.expand(tokens), "b h w (p1 p2 e) -> b (h p1) (w p2) e", p1=2, p2=2))


class GroupNorm(nn.GroupNorm):
    """In float32 at least, as autocast has it on GPUs. On CPUs its backward is three times slower in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32)))


class Reconstruction(nn.Module):
    """Tokens to frames by transposed convolutions, each doubling the grid. Section 3.2."""

    def __init__(self, dim: int, patch_size: int, channels: int) -> None:
        super().__init__()

        def double(width: int) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(dim, width, 3, stride=2, padding=1, output_padding=1)

        self.inflate = nn.Sequential()
        if patch_size == 4:
            self.inflate = nn.Sequential(double(dim), GroupNorm(16, dim), nn.LeakyReLU(0.2))
        self.final = double(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, E) -> (B, C, H, W), of any value."""
        return self.final(self.inflate(rearrange(tokens, "b h w e -> b e h w")))


class ScanNetwork(nn.Module):
    """A network with SS2D in it, as a whole.

    `source` is what messages call it: the file that it was read from; `place`, where in there, if others were, too.
    """

    source, place = "the network", ""

    @property
    def rank(self) -> int:
        """The largest rank of dt of any block, R in the scan."""
        return max(m.rank for m in self.modules() if isinstance(m, SS2D))

    @property
    def scan_backend(self) -> str:
        """Name of the scan implementation ("auto" or one of `vmrnn_cli.scan.BACKENDS`)."""
        return next(m.scan_backend for m in self.modules() if isinstance(m, SS2D))

    @scan_backend.setter
    def scan_backend(self, name: str) -> None:
        for module in self.modules():
            if isinstance(module, SS2D):
                module.scan_backend = name


class VMRNN(ScanNetwork):
    """The network, one step per call. VMRNN-B is one cell; VMRNN-D has cells on ever coarser grids and back (figure 3).

    Any height and width: frames are padded inside by repeating the edge, and outputs cropped.
    """

    def __init__(self, config: VMRNNConfig) -> None:
        super().__init__()
        self.config = config
        dim, levels = config.embed_dim, len(config.depths)
        self.patch_embedding = PatchEmbedding(config.image_channels, config.patch_size, dim)
        if config.variant == "B":
            self.down = nn.ModuleList([self._cell(dim, [config.drop_path] * config.depths[0])])
            self.merging = nn.ModuleList([nn.Identity()])
            self.up, self.expanding = nn.ModuleList(), nn.ModuleList()
        else:
            widths = [dim * 2**i for i in range(levels + 1)]
            self.down = nn.ModuleList(map(self._cell, widths, self._drop_path(config.depths)))
            self.merging = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
            self.up = nn.ModuleList(map(self._cell, widths[:0:-1], self._drop_path(config.depths_up)[::-1]))
            self.expanding = nn.ModuleList(PatchExpanding(width) for width in widths[:0:-1])
        self.reconstruction = Reconstruction(dim, config.patch_size, config.image_channels)

    def _cell(self, dim: int, drop_path: Sequence[float]) -> VMRNNCell:
        return VMRNNCell(dim, self.config.d_state, drop_path)

    def _drop_path(self, depths: Sequence[int]) -> list[list[float]]:
        """Per cell and block, growing linearly from 0 to the rate."""
        last = max(1, sum(depths) - 1)
        rates = iter(self.config.drop_path * block / last for block in range(sum(depths)))
        return [list(itertools.islice(rates, depth)) for depth in depths]

    def forward(self, frame: Tensor, states: tuple[State, ...] | None = None) -> tuple[Tensor, tuple[State, ...]]:
        """Predict the next frame.

        Args:
            frame: (B, C, H, W) in [0, 1].
            states: what the last call returned, None for the first frame.

        Returns:
            The next frame, (B, C, H, W) in [0, 1], and one state per cell, from the first down to the last up.
        """
        H, W = frame.shape[-2:]
        multiple = self.config.multiple
        tokens = self.patch_embedding(F.pad(frame, (0, -W % multiple, 0, -H % multiple), mode="replicate"))
        previous = iter(states or [None] * (len(self.down) + len(self.up)))
        new_states = []
        for cell, resize in [*zip(self.down, self.merging, strict=True), *zip(self.up, self.expanding, strict=True)]:
            tokens, state = cell(tokens, next(previous))
            new_states.append(state)
            tokens = resize(tokens)
        output = self.reconstruction(tokens)[..., :H, :W]
        # Frames are float32 at least: bfloat16 has no number from 0.996 to 1, and cross-entropy no gradient there.
        return torch.sigmoid(output.to(torch.promote_types(output.dtype, torch.float32))), tuple(new_states)


def rollout(model: Callable[..., Any], context: Tensor | Sequence[Tensor], frames: int) -> Iterator[Tensor]:
    """Run the model over known frames, then on its own outputs. Section 3.3.

    Args:
        model: a `VMRNN`, or what takes and returns the same.
        context: T_in frames, (T_in, B, C, H, W) or a sequence of (B, C, H, W), in [0, 1].
        frames: how many frames beyond the context to predict.

    Yields:
        T_in - 1 + frames outputs (B, C, H, W): first the predictions of context frames 2 .. T_in, then the forecast.
    """
    states: tuple[State, ...] | None = None
    frame = context[0]
    for step in range(len(context) - 1 + frames):
        frame, states = model(context[step] if step < len(context) else frame, states)
        yield frame
