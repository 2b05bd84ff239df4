"""A training step's loss and gradients; on a GPU replayed as one CUDA graph."""

from contextlib import suppress

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.objective import Objective
from nettailor.core.shared_norms import shared_norms

_WARM_UP = 3  # steps taken operator by operator: cuDNN chooses its algorithms, memory settles


class Gradients:
    """(images, labels) -> the loss's terms, and the gradients of their sum in every `grad`.

    A step of a student is some thousand small kernels, and a GPU ends each sooner than the next is
    launched. So on a GPU the first steps are taken operator by operator, the next is captured as a
    CUDA graph, and from there on a step is one launch: the same kernels on the same memory. What
    cannot be captured goes on operator by operator. So do fp16, whose scaler asks for the gradients
    on the host, and several ranks.

    network, objective: of the stage; the network stays in training mode while steps are taken.
    batch_size: images of a step, over all ranks. A batch of another shape than the captured one is
    taken operator by operator.

    Attributes:
        names: of the terms, in the order in which they come; known after the first step.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, accelerator: Accelerator, batch_size: int
    ) -> None:
        self._network, self._objective = network, objective
        self.names: tuple[str, ...] = ()
        self._accelerator, self._batch_size = accelerator, batch_size
        on_gpu = accelerator.device.type == "cuda"
        self._capturable = on_gpu and accelerator.scaler is None and ranks.count() == 1
        # a graph is captured on a stream of its own, and what leads up to it is launched there
        self._aside = torch.cuda.Stream() if self._capturable else None  # type: ignore[no-untyped-call]
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of a batch on the device: the terms, (terms,), detached."""
        if self._graph is None and self._capturable and self._taken >= _WARM_UP:
            self._capture(images, labels)
        if self._graph is not None and images.shape == self._images.shape:
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._graph.replay()
            return self._loss.clone()
        self._taken += 1
        if self._aside is None:
            return self._compute(images, labels)
        current = torch.cuda.current_stream()
        self._aside.wait_stream(current)
        with torch.cuda.stream(self._aside):
            loss = self._compute(images, labels)
        current.wait_stream(self._aside)
        return loss

    def forget(self) -> None:
        """The network computes otherwise from here on: a captured step is no longer its own."""
        self._graph, self._taken = None, 0

    def _compute(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._accelerator.autocast(), shared_norms():
            terms = self._objective(self._network, images, labels)
        # of ranks that share the batch, each adds its part: a term is a mean over the images
        part = len(images) / self._batch_size if ranks.count() > 1 else 1.0
        loss = torch.stack(list(terms.values())) * part
        self.names = tuple(terms)
        self._network.zero_grad()
        self._accelerator.backward(loss.sum())
        return loss.detach()

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        """Record a step without taking it; where that fails, none is ever recorded."""
        self._images, self._labels = images.clone(), labels.clone()
        self._network.zero_grad()
        current = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        with suppress(RuntimeError):  # a look at a value on the host, or too little memory
            # another thread pins the next batches meanwhile
            with torch.cuda.graph(graph, stream=self._aside, capture_error_mode="thread_local"):
                self._loss = self._compute(self._images, self._labels)
            self._graph = graph
        if self._graph is None:
            self._capturable, self._aside = False, None
            # torch leaves the stream of a failed capture in place, and its random generator takes
            # no step until another capture has ended
            torch.cuda.set_stream(current)
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                self._labels.add(0)
