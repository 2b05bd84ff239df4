"""What two ranks check of `nettailor.core.ranks` and of what shares work by it; for torchrun."""

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.backbone import NetOutput
from nettailor.core.device import start_accelerator
from nettailor.core.errors import UserError
from nettailor.core.latency import time_in_turn
from nettailor.core.loader import EvalLoader
from nettailor.core.preprocessing import Transform
from nettailor.core.scores import classify
from nettailor.core.shared_norms import shared_norms

IMAGES = 7  # which two ranks cannot share equally


def settled() -> None:
    """What rank 0 says counts, its faults too, and what it calls finds it alone."""
    mine = ranks.rank()
    assert ranks.from_main(lambda: (mine, ranks.count(), ranks.from_main(ranks.rank))) == (0, 1, 0)

    def faulty() -> None:
        raise UserError(f"of process {mine}")

    with pytest.raises(UserError, match="of process 0"):
        ranks.from_main(faulty)
    assert ranks.count() == 2


def faults_are_told_apart() -> None:
    """What fails in the midst of an exchange is no lost process, unless it is one."""
    with pytest.raises(torch.OutOfMemoryError), ranks._told():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="tensors of one type"), ranks._told():
        raise RuntimeError("tensors of one type")
    group = torch.distributed.group.WORLD
    backend = group._get_backend(torch.device("cpu"))  # type: ignore[union-attr]
    assert backend.options._timeout == ranks.PATIENCE


def put_together() -> None:
    """Numbers, tensors, values and states of both."""
    mine = ranks.rank()
    assert ranks.highest([mine, 1 - mine, -5]) == [1, 1, -5]
    assert ranks.gathered(f"of {mine}") == ["of 0", "of 1"]
    vector, matrix = torch.full((3,), 1.0 + mine), torch.full((2, 2), 10.0 * mine)
    ranks.add_up([vector, matrix])
    assert vector.tolist() == [3, 3, 3]
    assert matrix.tolist() == [[10, 10], [10, 10]]
    linear = nn.Linear(2, 1)
    nn.init.constant_(linear.weight, mine)
    ranks.share_state(linear)
    assert linear.weight.tolist() == [[0, 0]]
    both = ranks.gathered(list(range(IMAGES))[ranks.part(IMAGES)])
    assert [*both[0], *both[1]] == list(range(IMAGES))
    assert [len(part) for part in both] == [3, 4]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    still = nn.BatchNorm2d(6).eval()
    still.train = lambda mode=True: still  # type: ignore[method-assign]
    layers = [
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, momentum=None, affine=False), still,
        nn.Flatten(), nn.Linear(6 * 16, 5), nn.BatchNorm1d(5),
    ]  # fmt: skip
    return nn.Sequential(*layers).double().train()


def norms_as_one() -> None:
    """Outputs, gradients and statistics of two shares are those of the whole batch."""
    torch.manual_seed(1)
    images = 3 + 5 * torch.randn(IMAGES, 3, 8, 8, dtype=torch.float64)
    target = torch.randn(IMAGES, 5, dtype=torch.float64)
    whole, shared = network(), network()
    part = ranks.part(IMAGES)
    for _ in range(2):  # so that a cumulative average has something to average
        for one in (whole, shared):
            one.zero_grad()
        output = whole(images)
        (output - target).square().mean().backward()
        with shared_norms():
            mine = shared(images[part])
        share = len(images[part]) / IMAGES
        ((mine - target[part]).square().mean() * share).backward()
    ranks.add_up([one.grad for one in shared.parameters() if one.grad is not None])
    close(mine, output[part])
    for one, other in zip(shared.parameters(), whole.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            close(one.grad, other.grad)
    for one, other in zip(shared.buffers(), whole.buffers(), strict=True):
        close(one.double(), other.double())
    # each by itself is something else, or this shows nothing
    assert (network()(images[part]) - output[part]).abs().max() > 0.01


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


class Pixels:
    """Images of one number each, which is also their label."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, index


class Same(nn.Module):
    """Takes an image's number for its class."""

    seen = 0

    def forward(self, images: Tensor) -> NetOutput:
        """(B, 1, 1, 1) -> logits (B, IMAGES)."""
        self.seen += len(images)
        classes = torch.arange(IMAGES)
        return NetOutput((images.flatten(1).round() == classes).float(), [])


def _pixel(number: int) -> Tensor:
    return torch.full((1, 1, 1), number, dtype=torch.uint8)


def batches_in_turns(accelerator: Accelerator) -> None:
    """Two ranks judge some of the images each, and both know of all."""
    loader = EvalLoader(
        Pixels(),  # type: ignore[arg-type]
        Transform(_pixel, (0.0,), (1 / 255,)),  # type: ignore[arg-type]
        batch_size=2,
        workers=0,
    )
    network = Same()
    said = classify(network, loader, accelerator)
    assert said.labels.tolist() == list(range(IMAGES))
    assert said.scores().accuracy == 100
    assert network.seen == (4, 3)[ranks.rank()]
    alone = Same()
    ranks.from_main(lambda: classify(alone, loader, accelerator))
    assert alone.seen == (7, 0)[ranks.rank()]


def one_measures() -> None:
    """Times are of rank 0, and the same for both."""
    network = Same()
    images = torch.zeros(1, 1, 1, 1)
    times = time_in_turn({"n": network}, {"n": images}, torch.device("cpu"), seconds=0)
    assert (network.seen > 0) == (ranks.rank() == 0)
    assert ranks.gathered(times) == [times, times]


if __name__ == "__main__":
    accelerator = start_accelerator("cpu", "float32")
    settled()
    faults_are_told_apart()
    put_together()
    norms_as_one()
    batches_in_turns(accelerator)
    one_measures()
    print(f"rank {ranks.rank()} of {ranks.count()} found nothing wrong")
    ranks.leave()
