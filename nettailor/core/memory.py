"""Memory that does not suffice, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from nettailor.core.errors import UserError

# torch's own class for one of the ways in which a GPU says it has the first of these in its texts
_SIGNS_OF_GPU = ("out of memory", "_STATUS_ALLOC_FAILED")
# torch has no class for the CPU's; the last two are oneDNN's, whose "primitive descriptor" that
# cannot be created is a layer that it does not know
_SIGNS_OF_CPU = (
    "can't allocate memory",
    "could not create a memory object",
    "could not create a primitive",
)
_UNKNOWN_LAYER = "could not create a primitive descriptor"
_FEWER_A_STEP = "begin anew with --batch-size {fewer} --overwrite"


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that a GPU, or this machine, has not enough memory."""
    if isinstance(fault, MemoryError):
        return True
    if not isinstance(fault, RuntimeError) or _UNKNOWN_LAYER in str(fault):
        return False
    return any(sign in str(fault) for sign in (*_SIGNS_OF_GPU, *_SIGNS_OF_CPU))


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
        on_cpu = not any(sign in str(fault) for sign in _SIGNS_OF_GPU)
        ways = [] if on_cpu else ["go on with --device cpu"]
        if fewer:
            ways.append(fewer.format(fewer=max(2, images // 2)))
        raise UserError(
            f"not enough memory for {images} images at once in {task}; what was saved is kept: "
            f"{', or '.join(ways) or 'free some, and go on'}"
        ) from fault
