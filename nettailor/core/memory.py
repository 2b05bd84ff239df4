"""Memory that does not suffice, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from nettailor.core.errors import UserError

# torch's own class for one of the ways in which a GPU says it has the first of these in its texts,
# and there is none for the CPU's
_SIGNS = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
_FEWER_A_STEP = "begin anew with --batch-size {fewer} --overwrite"


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that a GPU, or this machine, has not enough memory."""
    if isinstance(fault, MemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(sign in str(fault) for sign in _SIGNS)


@contextmanager
def room_for(images: int, task: str, fewer: str = _FEWER_A_STEP) -> Iterator[None]:
    """Inside, that memory does not suffice is a UserError that says what to try.

    Args:
        images: that are worked on at once.
        task: what for, such as "a training step"; follows "64 images at once in ".
        fewer: how to work on half as many, `{fewer}` in the place of their number; may be empty.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        if not is_out_of_memory(fault):
            raise
        on_cpu = isinstance(fault, MemoryError) or "CPUAllocator" in str(fault)
        ways = [] if on_cpu else ["go on with --device cpu"]
        if fewer:
            ways.append(fewer.format(fewer=max(2, images // 2)))
        raise UserError(
            f"not enough memory for {images} images at once in {task}; what was saved is kept: "
            f"{', or '.join(ways) or 'free some, and go on'}"
        ) from fault
