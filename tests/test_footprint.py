"""Memory and processor time of a forward pass."""

import time

import pytest
import torch
from conftest import lively_chain
from torch import Tensor, nn

from nettailor.core.footprint import peak_memory, processor_time

CPU = torch.device("cpu")
IMAGE = 4 * 3 * 16 * 16  # bytes of one image of 16 × 16 pixels


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a = x + 1
        b = a * 2
        del a
        c = b - 1
        del b
        return c


class Hoard(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x + 1, x + 2, x + 3]


def test_peak_is_the_worst_moment_and_not_the_sum() -> None:
    assert peak_memory(Steps(), 16, CPU, batch=2) == 2 * 3 * IMAGE  # the images and two more
    assert peak_memory(Hoard(), 16, CPU, batch=2) == 2 * 4 * IMAGE


def test_weights_count_and_work_in_place_is_free() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 1)
    )
    weights = 4 * (3 * 8 * 9 + 8 + 8 + 1)
    pixels = 4 * 16 * 16
    assert peak_memory(network, 16, CPU, batch=1) == weights + pixels * (3 + 8 + 1)


def test_peak_grows_with_the_batch_by_what_is_not_weights() -> None:
    chain = lively_chain("test_resnet")
    held = sum(tensor.nbytes for tensor in (*chain.parameters(), *chain.buffers()))
    one, two, four = (peak_memory(chain, 32, CPU, batch=batch) for batch in (1, 2, 4))
    assert two - held == pytest.approx(2 * (one - held), rel=0.01)
    assert four - held == pytest.approx(4 * (one - held), rel=0.01)


class Spin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        until = time.process_time() + 0.004
        while time.process_time() < until:
            pass
        time.sleep(0.002)  # which is no work
        return x


def test_processor_time_counts_work_and_not_waiting() -> None:
    assert 4 <= processor_time(Spin(), 16, CPU) < 5.5


def test_the_training_mode_is_put_back() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3)).train()
    processor_time(network, 16, CPU)
    peak_memory(network, 16, CPU, batch=1)
    assert network.training
