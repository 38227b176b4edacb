"""Forward and backward pass as a CUDA graph: captured once, then started as one instead of by thousands of launches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from engine.console import say
from engine.device import free_memory, random_state, set_random_state
from engine.errors import out_of_memory

# Adds the gradient of the mean loss of a batch, (B, 3, H, W) and (B,), to the parameters'; returns the loss, ().
Gradient = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Replay = Callable[[], None]

WARM_UP = 3  # passes, as in PyTorch's notes: cuDNN's search, handles and workspaces are to be over before the capture


class GraphedGradient:
    """The gradients of `model` by a graph, captured at the first batch.

    A graph is of the model as it is at the capture: where its layers change their mode or their probability of dropping
    something, another scaler scales the loss, or a batch has another shape, it is captured anew. Weights and scale may
    change in place. The parameters must stay where they are in memory, and the same must be frozen.

    What was captured is freed with this object, or by release().
    """

    def __init__(self, model: nn.Module) -> None:
        self.possible = True  # whether no capture has failed
        self._model = model
        self._parameters, self._layers = list(model.parameters()), list(model.modules())
        self._droppers = [layer for layer in self._layers if isinstance(vars(layer).get("p"), (int, float))]
        self._graph: _Graph | None = None
        self._captured: tuple[Any, ...] = ()  # all that the graph depends on, as it was then

    def release(self) -> None:
        """Free the graph and its memory; the next batch is captured anew."""
        self._graph, self._captured = None, ()

    def add(
        self, gradient: Gradient, images: torch.Tensor, labels: torch.Tensor, scaler: torch.amp.GradScaler
    ) -> torch.Tensor:
        """What `gradient`, which scales by `scaler`, does with a batch; the loss is a tensor of its own.

        Where there are gradients to add to, or a capture has failed, `gradient` itself is called. A capture that fails
        is said once; only where memory is short, its error comes through.
        """
        if not self.possible or any(parameter.grad is not None for parameter in self._parameters):
            return gradient(images, labels)
        modes = [layer.training for layer in self._layers]
        now = (scaler, images.shape, images.dtype, labels.dtype, modes, [layer.p for layer in self._droppers])
        if self._graph is None or self._captured != now:
            self.release()
            problem = self._capture(gradient, images, labels)
            if problem:
                _tell(problem)
                self.possible = False
                return gradient(images, labels)
            self._captured = now
        assert self._graph is not None
        return self._graph.replay(images, labels)

    def _capture(self, gradient: Gradient, images: torch.Tensor, labels: torch.Tensor) -> str:
        """Why there can be no graph; "" where there is one now."""
        try:
            self._graph = _Graph(self._model, gradient, images, labels)
        except RuntimeError as problem:
            if out_of_memory(problem):
                raise
            return str(problem).strip().partition("\n")[0][:200] or type(problem).__name__
        return ""


class _Graph:
    """One capture: its inputs, its gradients and its loss are tensors that every replay writes anew."""

    def __init__(self, model: nn.Module, gradient: Gradient, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._images, self._labels = images.clone(), labels.clone()  # in the same memory format
        work = partial(gradient, self._images, self._labels)
        try:
            with _unchanged(model, images.device.type):
                with aside():
                    for _ in range(WARM_UP):
                        work()
                        model.zero_grad(set_to_none=True)  # what is there at the capture would be added to
                self._replay, self._loss = record(work)
            self._gradients = [(each, each.grad) for each in model.parameters() if each.grad is not None]
        finally:
            model.zero_grad(set_to_none=True)

    def replay(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()


@contextmanager
def _unchanged(model: nn.Module, device: str) -> Iterator[None]:
    """What runs inside leaves no trace in the model's buffers, such as batch statistics, nor in random numbers."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    random = random_state(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        set_random_state(random, device)


@cache
def _tell(problem: str) -> None:
    say(f"note: the training step can't be a CUDA graph here and goes on without: {problem}")


@contextmanager
def aside() -> Iterator[None]:
    """What runs inside is launched on the stream that captures, which thus has its workspaces before it does."""
    current, side = torch.cuda.current_stream(), _side_stream()
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):
            yield
    finally:
        current.wait_stream(side)


def record(work: Callable[[], torch.Tensor]) -> tuple[Replay, torch.Tensor]:
    """Capture what `work` launches, without doing it: what replays it, and what `work` returned.

    Random numbers are other ones at each replay: it goes on from where the generator is. Raises RuntimeError where
    `work` can't be captured; the device is then as it was.
    """
    free_memory("cuda")  # also of graphs that are garbage: they must not be destroyed in the middle of a capture
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    stream, random = torch.cuda.current_stream(), torch.cuda.get_rng_state()
    first: RuntimeError | None = None
    try:
        # of this thread alone: the one that sends batches may allocate and wait meanwhile
        with torch.cuda.graph(graph, pool, _side_stream(), "thread_local"):
            try:
                result = work()
            except RuntimeError as problem:
                first = problem  # ending a capture that it has spoilt raises another one
                raise
    except BaseException as problem:
        torch.cuda.set_stream(stream)  # where a capture can't begin or end, PyTorch leaves the side stream current
        _abandon(graph, pool, random)
        if first is None or first is problem:
            raise
        problem.__traceback__ = None  # its frames hold `first`, whose context it is: a circle around what was allocated
        raise first from None
    finally:
        first = None  # it would keep this frame, and so itself, alive
    return graph.replay, result


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any, random: torch.Tensor) -> None:
    """Let allocator and generator know that a failed capture is over, which PyTorch tells them from 2.14 on."""
    graph.reset()
    device = torch.cuda.current_device()
    # Raises where there is nothing to end. Else memory that other streams have used would never be free again.
    for end in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
        with suppress(AttributeError, RuntimeError):
            getattr(torch._C, end)(device, pool)
            torch._C._cuda_releasePool(device, pool)
    generator = torch.Generator("cuda")
    generator.set_state(random)
    torch.cuda.default_generators[device].graphsafe_set_state(generator)


def free_workspaces() -> None:
    """Give back what cuBLAS keeps for the streams that it has seen, 64 MiB and more each, where PyTorch can.

    A graph works in what was there at its capture: none may be left.
    """
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear:
        clear()


@cache
def _side_stream() -> torch.cuda.Stream:
    """One a process: cuBLAS keeps a workspace for each stream that it has seen."""
    return torch.cuda.Stream()
