"""Where a run computes: one accelerator for the process."""

import os
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import nn

from nettailor.core import ranks
from nettailor.core.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


def start_accelerator(device: str, precision: str) -> Accelerator:
    """The accelerate handle for device "auto", "cpu" or "cuda" and precision "auto", …, "fp16".

    Under torchrun the ranks meet here.

    Raises UserError when CUDA is asked for and absent, or there are fewer GPUs than ranks.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda: no CUDA device was found; use --device cpu or auto, or install a "
            "driver and a CUDA build of torch"
        )
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise UserError("--precision fp16 needs a CUDA device; use bf16 or float32 on a CPU")
    if precision == "auto":
        precision = "float32" if on_cpu else "bf16"
    gpus = torch.cuda.device_count()
    if not on_cpu and int(os.environ.get("LOCAL_RANK", "0")) >= gpus:
        raise UserError(
            f"more processes than GPUs on this machine: give torchrun --nproc-per-node {gpus}, or "
            "--device cpu"
        )
    ranks.meet("gloo" if on_cpu else "nccl")
    return Accelerator(cpu=on_cpu, mixed_precision="no" if precision == "float32" else precision)


def worker_count(workers: int | None) -> int:
    """Loader processes: as asked, else one per spare core, at most 8.

    On two cores or fewer there is none to spare: training itself fills them.
    """
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, max(0, (cores or 1) - 2))


def place(network: Network, device: torch.device) -> Network:
    """On the device with channels last, the memory order in which convolutions run fastest."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
