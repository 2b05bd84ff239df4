"""Where a run computes: one accelerator for the process."""

import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import nn

from nettailor.core import ranks
from nettailor.core.allocator import keep_freed_memory
from nettailor.core.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


def start_accelerator(device: str, precision: str) -> Accelerator:
    """The accelerate handle for device "auto", "cpu" or "cuda" and precision "auto", …, "fp16".

    Under torchrun the ranks meet here. Device "cpu" hides all GPUs from this process and its own,
    and on a CPU freed memory is kept, see `keep_freed_memory`.

    Raises UserError when CUDA is asked for and absent, or there are fewer GPUs than ranks.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda: no CUDA device was found; use --device cpu or auto, or install a "
            "driver and a CUDA build of torch"
        )
    if device == "cpu" and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        # Else torch's Adam would take a GPU into use, to see whether a graph is being captured
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise UserError("--precision fp16 needs a CUDA device; use bf16 or float32 on a CPU")
    if on_cpu:
        keep_freed_memory()
    else:
        torch.cuda.set_device(_gpu(torch.cuda.device_count()))
    precision = chosen_precision(precision, on_cpu=on_cpu)
    ranks.meet("gloo" if on_cpu else "nccl")
    return Accelerator(cpu=on_cpu, mixed_precision="no" if precision == "float32" else precision)


def chosen_precision(asked: str, *, on_cpu: bool) -> str:
    """What "auto" stands for: bf16 on a GPU that is made for it, else float32.

    Older GPUs (T4, V100) only imitate bf16, more slowly than they compute in float32.
    """
    if asked != "auto":
        return asked
    native = not on_cpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "float32"


def _gpu(gpus: int) -> int:
    """Which of this machine's GPUs is this process's: its rank's, or one that no other has taken.

    Raises UserError where there are fewer GPUs than ranks.
    """
    if ranks.count() > 1:
        number = int(os.environ.get("LOCAL_RANK", "0"))
        if number >= gpus:
            raise UserError(
                "more processes than GPUs on this machine: give torchrun --nproc-per-node "
                f"{gpus}, or --device cpu"
            )
        return number
    if gpus == 1:
        return 0
    names = [str(torch.cuda.get_device_properties(number).uuid) for number in range(gpus)]
    return take_first_free(names, Path(tempfile.gettempdir()))


class _Taken:
    """The lock that this process holds, and the number of what it is for."""

    lock: FileLock | None = None
    number = 0


def take_first_free(names: Sequence[str], folder: Path) -> int:
    """The first of several devices that no process on this machine works on, its own from now on.

    Where all are taken the process shares one. Who asks again gets the same.

    Args:
        names: what all processes call them.
        folder: for a lock file each.
    """
    if _Taken.lock is None:
        _Taken.number = os.getpid() % len(names)
        for number, name in enumerate(names):
            lock = FileLock(folder / f"nettailor-{name}.lock")
            with suppress(Timeout, OSError):  # a lock of another user's cannot be opened
                lock.acquire(timeout=0)
                _Taken.lock, _Taken.number = lock, number
                break
    return _Taken.number


def processor_name(device: torch.device) -> str:
    """The name of the GPU, or the kind of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine()


def numbers_of(accelerator: Accelerator) -> str:
    """What training steps compute in, in words."""
    if accelerator.mixed_precision != "no":
        return f"steps in {accelerator.mixed_precision}, classifiers, losses and scores in float32"
    quicker = ", convolutions in TF32" if torch.backends.cudnn.allow_tf32 else ""
    return f"float32{quicker}"


def worker_count(workers: int | None) -> int:
    """Loader processes: as asked, else one per spare core, at most 16.

    Ranks on one machine share its cores. On two cores or fewer there is none to spare: training
    itself fills them.
    """
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(0, share - 2))


def place(network: Network, device: torch.device) -> Network:
    """On the device with channels last, the memory order in which convolutions run fastest.

    A network whose `channels_last` is False keeps its order.
    """
    order = torch.channels_last if getattr(network, "channels_last", True) else None
    return network.to(device=device, memory_format=order)  # type: ignore[call-overload,no-any-return]
