"""NetTailor: cut a pretrained vision network to the size of a task.

    import nettailor as nt

    small = nt.tailor(network, train_loader, val_loader, max_flops=0.3)

or step by step, see docs/library.md. Names are imported when they are asked for: the commands' help
needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "narrow": "nettailor.cutting",
    "shrink": "nettailor.shrinking",
    "tailor": "nettailor.procedure",
}

if TYPE_CHECKING:
    from nettailor.core.backbone import Backbone as Backbone
    from nettailor.cutting import best_route as best_route
    from nettailor.cutting import cut as cut
    from nettailor.cutting import load as load
    from nettailor.cutting import narrow as narrow
    from nettailor.errors import UserError as UserError
    from nettailor.fitting import Run as Run
    from nettailor.fitting import fit as fit
    from nettailor.procedure import tailor as tailor
    from nettailor.prune.fold import fold as fold
    from nettailor.prune.plan import PrunePlan as PrunePlan
    from nettailor.shrinking import shrink as shrink
    from nettailor.student.loss import TailorLoss as TailorLoss
    from nettailor.student.network import Student as Student
    from nettailor.teacher.objective import CrossEntropy as CrossEntropy
else:
    __all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'nettailor' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
