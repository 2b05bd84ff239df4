"""What several test files share: one small real network and one accelerator."""

import os

# Two test processes on two cores would otherwise wait for each other's threads.
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import pytest
import torch
from accelerate import Accelerator

from nettailor.core.device import start_accelerator


@pytest.fixture(scope="session")
def accelerator() -> Accelerator:
    """The CPU in float32."""
    return start_accelerator("cpu", "float32")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
