"""NetTailor: cut a pretrained vision network to the size of a task.

    import nettailor as nt

    small = nt.tailor(network, train_loader, val_loader, max_flops=0.3)

or step by step, see docs/library.md. Names are imported when they are asked for: the commands' help
needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nettailor.core.backbone import Backbone
    from nettailor.cutting import best_route, cut, load
    from nettailor.errors import UserError
    from nettailor.fitting import Run, fit
    from nettailor.procedure import tailor
    from nettailor.prune.fold import fold
    from nettailor.prune.plan import PrunePlan
    from nettailor.shrinking import shrink
    from nettailor.student.loss import TailorLoss
    from nettailor.student.network import Student
    from nettailor.teacher.objective import CrossEntropy

_PLACES = {
    "Backbone": "nettailor.core.backbone",
    "CrossEntropy": "nettailor.teacher.objective",
    "PrunePlan": "nettailor.prune.plan",
    "Run": "nettailor.fitting",
    "Student": "nettailor.student.network",
    "TailorLoss": "nettailor.student.loss",
    "UserError": "nettailor.errors",
    "best_route": "nettailor.cutting",
    "cut": "nettailor.cutting",
    "fit": "nettailor.fitting",
    "fold": "nettailor.prune.fold",
    "load": "nettailor.cutting",
    "shrink": "nettailor.shrinking",
    "tailor": "nettailor.procedure",
}
__all__ = [
    "Backbone",
    "CrossEntropy",
    "PrunePlan",
    "Run",
    "Student",
    "TailorLoss",
    "UserError",
    "best_route",
    "cut",
    "fit",
    "fold",
    "load",
    "shrink",
    "tailor",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'nettailor' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
