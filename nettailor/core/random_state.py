"""The random generators of a process: Python's, NumPy's, torch's on the CPU and on GPUs."""

import random
from typing import Any

import numpy as np
import torch


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
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all generators where `random_state` found them."""
    random.setstate(state["python"])
    inner = state["numpy"]["state"]
    key = inner["key"].numpy().astype("uint32")
    np.random.set_state(state["numpy"] | {"state": inner | {"key": key}})
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
