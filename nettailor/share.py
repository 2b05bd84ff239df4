"""What a user asks of the front of a tailored run: at most a share of the backbone's cost."""

from math import inf
from typing import NamedTuple, get_args

from nettailor.core.errors import UserError
from nettailor.core.sections import Unit

UNITS: tuple[Unit, ...] = get_args(Unit)


class Share(NamedTuple):
    """What a user asks for: at most this share of the backbone's cost."""

    unit: Unit
    most: float

    @property
    def name(self) -> str:
        """Such as `flops0.25`, as a part of a folder's name."""
        return f"{self.unit}{self.most:g}"


def read_share(text: str) -> Share:
    """`flops=0.25` or `params=0.1`, as --pick has it; UserError for anything else."""
    unit, _, number = text.partition("=")
    known = next((one for one in UNITS if one == unit), None)
    try:
        most = float(number)
    except ValueError:
        most = 0.0
    if known is None or not 0 < most < float("inf"):
        raise UserError(
            f"--pick {text}: expected a share of the cost, such as flops=0.25 or params=0.1"
        )
    return Share(known, most)


def budget_of(max_flops: float | None, max_params: float | None) -> tuple[Unit, float]:
    """The unit of a budget and its share of the backbone's cost, infinite where none is given.

    Raises UserError where both are given, or one that is not above 0.
    """
    if max_flops is not None and max_params is not None:
        raise UserError("max_flops and max_params are given: expected one of them")
    given = max_flops if max_params is None else max_params
    if given is not None and not given > 0:
        raise UserError(f"the budget is {given:g}: expected a share above 0")
    return "flops" if max_params is None else "params", inf if given is None else given
