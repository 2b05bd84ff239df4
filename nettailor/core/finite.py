"""Training that broke down: the first loss that is NaN or infinite, by term, epoch and step."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nettailor.core.errors import NotFiniteError

_ADVICE = (
    "what earlier epochs saved is kept. Try a lower learning rate (other settings need --overwrite "
    "or another --out)"
)


def require_finite(losses: Sequence[Tensor], names: Sequence[str], epoch: int, before: int) -> None:
    """Raise NotFiniteError for the first step and term that is not finite.

    Args:
        losses: of steps in a row of an epoch, after `before` others: (terms,) each.
        names: of the terms.
    """
    course = torch.stack(list(losses)) if losses else torch.empty(0)
    bad = (~torch.isfinite(course)).nonzero()
    if len(bad):
        step, term = bad[0].tolist()
        raise NotFiniteError(
            f"the loss term {names[term]!r} became {float(course[step, term])} at epoch {epoch}, "
            f"step {before + step + 1}; {_ADVICE}"
        )


def require_finite_validation(loss: float, epoch: int) -> None:
    """Raise NotFiniteError where the validation loss after an epoch is not finite."""
    if not math.isfinite(loss):
        raise NotFiniteError(
            f"the validation loss became {loss} after epoch {epoch}: its last steps broke the "
            f"weights; {_ADVICE}"
        )
