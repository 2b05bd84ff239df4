"""Memory that does not suffice ends in one line with what to try, wherever it is noticed."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from small_stages import batches, fit_tiny
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.core.errors import UserError
from nettailor.core.footprint import peak_memory
from nettailor.core.latency import measure_latency
from nettailor.core.memory import room_for
from nettailor.core.scores import classify
from nettailor.core.state import read_state
from nettailor.prune.channels import trace_channels
from nettailor.prune.statistics import reestimate
from nettailor.prune.taylor import taylor_values
from nettailor.teacher.objective import CrossEntropy

CPU = torch.device("cpu")
SAID_BY_A_GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …"


class Large(nn.Module):
    """Fits in the memory for images up to `most` at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.conv, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.classifier = nn.Linear(2, 5)

    def forward(self, images: Tensor) -> NetOutput:
        if len(images) > self.most:
            raise torch.OutOfMemoryError(SAID_BY_A_GPU)
        node = self.norm(self.conv(images))
        return NetOutput(self.classifier(node.mean((2, 3))), [node])


BATCH = [(torch.randn(64, 3, 4, 4), torch.zeros(64, dtype=torch.long))]
PLACES: dict[str, Callable[[Large, Accelerator], Any]] = {
    "an evaluation": lambda network, where: classify(network, BATCH, where),
    "re-estimating statistics": lambda network, where: reestimate(network, BATCH, where),
    "weighing channels": lambda network, where: taylor_values(
        network, trace_channels(network, 4), BATCH, where
    ),
    "timing": lambda network, where: measure_latency({"n": network}, 4, CPU, seconds=0),
    "a forward pass": lambda network, where: peak_memory(network, 4, CPU, batch=64),
}


@pytest.mark.parametrize("place", PLACES)
def test_too_many_images_at_once(place, accelerator):
    with pytest.raises(UserError) as caught:
        PLACES[place](Large(32), accelerator)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"not enough memory for 64 images at once in {place}; ")
    assert "go on with --device cpu" in text
    if place != "a forward pass":
        assert re.search(r"--(batch-size|budget\.batch of) 32\b", text)
    PLACES[place](Large(64), accelerator)


class Heavy(CrossEntropy):
    """Fits in the memory for four steps."""

    calls = 0

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls > 4:
            raise torch.OutOfMemoryError(SAID_BY_A_GPU)
        return super().__call__(network, images, labels)


@pytest.mark.usefixtures("_saved_every_epoch")
def test_a_step_that_does_not_fit_keeps_the_state(tmp_path, accelerator):
    path = tmp_path / "state.pt"
    size = batches().batch_size
    words = f"{size} images at once in a training step; .*--batch-size {size // 2} --overwrite$"
    with pytest.raises(UserError, match=words):
        fit_tiny(path, accelerator, objective=Heavy())
    assert len(read_state(path)["history"]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError(SAID_BY_A_GPU),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        MemoryError(),
    ],
)
def test_all_ways_in_which_it_is_said(fault):
    on_gpu = "CUDA" in str(fault)
    with pytest.raises(UserError) as caught, room_for(2, "a training step"):
        raise fault
    assert ("--device cpu" in str(caught.value)) == on_gpu
    assert str(caught.value).endswith("--batch-size 2 --overwrite")


@pytest.mark.parametrize(
    "words", ["a shape of 3", "could not create a primitive descriptor for a convolution"]
)
def test_other_faults_are_raised_as_they_are(words):
    with pytest.raises(RuntimeError, match=words), room_for(2, "a training step"):
        raise RuntimeError(f"{words} was expected")


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import nettailor.commands.teach  # before memory is short
from nettailor.cli import teach
from nettailor.core.flags import run_command
sys.argv[1:] = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "256", "--device", "cpu",
    "--workers", "0", "--epochs", "1", "--limit.train", "500", "--limit.test", "20",
    "--batch-size", "256", "--out", sys.argv[1],
]
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 1_200_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
run_command(teach.main)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory")
def test_a_real_batch_that_does_not_fit(tmp_path):
    """256 images of 256 px take 0.2 GB, and what a step keeps of them more than 1 GB."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "not enough memory for 256 images at once in a training step" in line
    assert "--batch-size 128 --overwrite" in line
    assert "--device cpu" not in line
    assert "Traceback" not in done.stderr
