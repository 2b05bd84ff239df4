"""The random generators of a process: Python's, NumPy's, torch's on the CPU and on its GPU."""

import random
import zlib
from typing import Any

import numpy as np
import torch


def seed_stage(seed: int, stage: str) -> None:
    """Seed torch for a stage of a run, such as "teacher", whatever ran before; seed: the run's."""
    torch.manual_seed(zlib.crc32(f"{seed} {stage}".encode()))


def random_state() -> dict[str, Any]:
    """Where all generators stand, as plain values and tensors."""
    of_numpy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    inner = of_numpy["state"]
    # as a tensor: a state is read as plain data, which NumPy's arrays are not
    key = torch.from_numpy(inner["key"].astype("int64"))
    return {
        "python": random.getstate(),
        "numpy": of_numpy | {"state": inner | {"key": key}},
        "torch": torch.get_rng_state(),
        # to ask where no GPU is in use would take one into use
        "cuda": torch.cuda.get_rng_state() if _on_gpu() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all generators where `random_state` found them."""
    random.setstate(state["python"])
    inner = state["numpy"]["state"]
    key = inner["key"].numpy().astype("uint32")
    np.random.set_state(state["numpy"] | {"state": inner | {"key": key}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and _on_gpu():
        torch.cuda.set_rng_state(state["cuda"])


def _on_gpu() -> bool:
    """Whether this process has a GPU in use."""
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return in_use
