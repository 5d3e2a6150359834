"""Programs of a GPU, captured once and replayed: what they read and write stays where it is."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

Program = Callable[[], None]


def capture(program: Program, device: torch.device, changing: Sequence[Tensor] = ()) -> Program:
    """A program as a CUDA graph, which runs when it is called.

    Before it is captured it runs a few times, after each of which the tensors that it changes are
    as they were before: no run after the next need exist.
    """
    before = [tensor.clone() for tensor in changing]
    stream = _side_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            program()
            for tensor, values in zip(changing, before, strict=True):
                tensor.copy_(values)
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.empty_cache()  # a graph has memory of its own
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        program()
    return graph.replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which programs are captured: one for all, as the matrix library keeps a
    workspace, tens of MiB, for each that it has seen."""
    return torch.cuda.Stream(device)
