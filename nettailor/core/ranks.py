"""Several processes that train one network together, as torchrun starts them: the ranks.

Every rank runs the whole program and takes the same turns. A training step shares out its batch;
whatever else could come out differently is settled by rank 0, which alone writes files. A process
by itself is rank 0 of 1, and then nothing here does anything.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nettailor.core.errors import PeerLostError, UserError
from nettailor.core.interruption import expect_peers
from nettailor.core.launch import alone
from nettailor.core.launch import count as count
from nettailor.core.launch import rank as rank

Result = TypeVar("Result")
# How long a rank waits for another: rank 0 can weigh paths, or time networks, for an hour. One that
# has ended is noticed at once.
PATIENCE = timedelta(days=1)


class _Here:
    """The group of plain values."""

    # of its own where tensors travel between GPUs: flags and texts stay on the CPU
    values: Any = None


def meet(backend: Literal["gloo", "nccl"]) -> None:
    """Wait for the other ranks; UserError where they are not found.

    Args:
        backend: how tensors travel: gloo between CPUs, nccl between GPUs.
    """
    if count() == 1:
        return
    # torchrun keeps its store over a restart: without a prefix, addresses of processes that are
    # gone can be read there
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store, number, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            backend, store=store, rank=number, world_size=size, timeout=PATIENCE
        )
        if backend != "gloo":
            _Here.values = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the {count()} processes of this run (WORLD_SIZE) do not find each other: start them "
            "with torchrun"
        ) from error
    expect_peers()


def leave() -> None:
    """At the end of the work, say goodbye."""
    if dist.is_initialized():
        dist.destroy_process_group()


def part(whole: int) -> slice:
    """This rank's share of `whole` things in a row; shares differ by one at most."""
    return slice(whole * rank() // count(), whole * (rank() + 1) // count())


def from_main(compute: Callable[[], Result]) -> Result:
    """What rank 0 computes, or writes, while the others wait; a UserError of its is everybody's.

    Rank 0 begins when all have come here, so nobody reads a file while it changes. What it calls
    finds it alone.
    """
    if count() == 1:
        return compute()
    with _told():
        dist.barrier(group=_Here.values)
    outcome: list[tuple[Result | None, str | None]] = [(None, None)]
    if rank() == 0:
        try:
            with alone():
                outcome = [(compute(), None)]
        except UserError as fault:
            outcome = [(None, str(fault))]
    with _told():
        dist.broadcast_object_list(outcome, src=0, group=_Here.values)
    ((result, fault_text),) = outcome
    if fault_text is not None:
        raise UserError(fault_text)
    return result  # type: ignore[return-value]


def gathered(mine: Result) -> list[Result]:
    """What every rank has, by rank; plain values and tensors on the CPU."""
    if count() == 1:
        return [mine]
    everybody: list[Result] = [mine] * count()
    with _told():
        dist.all_gather_object(everybody, mine, group=_Here.values)
    return everybody


def highest(mine: Sequence[int]) -> list[int]:
    """Place by place, the highest number of any rank."""
    if count() == 1:
        return list(mine)
    numbers = torch.tensor(mine)
    with _told():
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_Here.values)
    return numbers.tolist()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one data type, on the ranks' devices, by their sums over all ranks."""
    if count() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _told():
        dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, parts, strict=True):
        tensor.copy_(total.view(tensor.shape))


def all_of(mine: Tensor) -> Tensor:
    """A tensor of every rank, in a stack by rank: (C, …) -> (ranks, C, …)."""
    everybody = [torch.empty_like(mine) for _ in range(count())]
    with _told():
        dist.all_gather(everybody, mine)
    return torch.stack(everybody)


def share_state(network: nn.Module) -> None:
    """Give every rank the parameters and buffers that rank 0 has."""
    if count() == 1:
        return
    for tensor in network.state_dict().values():
        value = tensor.contiguous()
        with _told():
            dist.broadcast(value, src=0)
        tensor.copy_(value)


@contextmanager
def _told() -> Iterator[None]:
    """Inside, that another rank is gone is a PeerLostError; what else fails is raised as it is."""
    try:
        yield
    except RuntimeError as error:
        # gloo has no class of its own: its messages name its source
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PeerLostError from error
        raise
