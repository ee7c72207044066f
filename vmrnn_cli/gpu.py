"""What only a GPU needs: a rollout step replayed as one CUDA graph.

A step of a small network is hundreds of short kernels, and at batch 1 the processor cannot launch them as fast as the
GPU runs them. A graph records the launches once and replays them as one.

Notation: B batch, C channels, H x W pixels, h x w grid of tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .devices import autocast
from .model import VMRNN, State

Record = Callable[[Callable[[], None]], Callable[[], None]]


def record_cuda_graph(work: Callable[[], None], warm_ups: int = 3) -> Callable[[], None]:
    """Run `work` for what happens only once (autotuning, allocations), then record it; returns the replay.

    `work` reads and writes tensors that stay where they are, and does not wait for the GPU.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # PyTorch's own stream for this stays on the GPU that was current when it was made. What other threads do meanwhile
    # (a server's, a process group's) is no part of the graph.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    return graph.replay


class GraphedStep:
    """One step of a model for frames of one shape, recorded when it is made; takes the model's place in `rollout`.

    The recurrent state lives inside: `states` of a call only says whether a rollout begins (None) or goes on with what
    the last call returned. One rollout at a time, therefore: when another begins, the one before can't go on.
    Inference only.

    Args:
        model: the network, on a GPU and in evaluation mode.
        frame: (B, C, H, W), whose shape and device the steps have.
        dtype: of the matrix products, see `vmrnn_cli.devices.autocast`.
        record: turns work into its replay; tests without a GPU give their own.
    """

    def __init__(
        self, model: VMRNN, frame: Tensor, dtype: torch.dtype = torch.float32, record: Record = record_cuda_graph
    ) -> None:
        self._model, self._device, self._dtype = model, frame.device, dtype
        self._frame = torch.zeros_like(frame)
        # What is recorded reads the weights where they lie now. Held here, they stay there.
        self._weights = [p.data for p in model.parameters()]
        with torch.inference_mode(), torch.cuda.device_of(frame):  # streams and graphs belong to the current GPU
            with self._autocast():
                output, states = model(self._frame)
            self._output = torch.empty_like(output)
            self._states = tuple(State(*(torch.zeros_like(t) for t in state)) for state in states)
            self._replay = record(self._step)

    def fits(self, frame: Tensor) -> bool:
        """Whether the graph is for such frames, and the model's weights are where they were."""
        where = [(p.data_ptr(), p.dtype) for p in self._model.parameters()]
        return self._takes(frame) and where == [(w.data_ptr(), w.dtype) for w in self._weights]

    def _takes(self, frame: Tensor) -> bool:
        return (frame.shape, frame.device) == (self._frame.shape, self._frame.device)

    @torch.inference_mode()
    def __call__(self, frame: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, tuple[State, ...]]:
        """As `VMRNN.forward`; the returned frame is the caller's own, the states are the step's.

        Raises:
            ValueError: a frame of another shape or device, or states that are not of the last call.
        """
        if not self._takes(frame):
            raise ValueError(f"recorded for frames of {tuple(self._frame.shape)}, not {tuple(frame.shape)}")
        if states is None:
            self._forget()
        elif states is not self._states:
            raise ValueError("a recorded step goes on only from the states that its last call returned")
        with torch.cuda.device_of(frame):
            self._frame.copy_(frame)
            self._replay()
            return self._output.clone(), self._states

    def _step(self) -> None:
        with self._autocast():
            output, states = self._model(self._frame, self._states)
        self._output.copy_(output)
        for place, state in zip(self._states, states, strict=True):
            place.hidden.copy_(state.hidden)
            place.cell.copy_(state.cell)

    def _autocast(self) -> AbstractContextManager[None]:
        # No cache of cast weights: it would outlive the recording, and point into the graph's memory.
        return autocast(self._device, self._dtype, cache=False)

    def _forget(self) -> None:
        """A rollout begins: zeros, which the first block normalises like any other hidden state."""
        self._states = (*self._states,)  # the same places, but another tuple than an earlier rollout has
        for state in self._states:
            state.hidden.zero_()
            state.cell.zero_()
