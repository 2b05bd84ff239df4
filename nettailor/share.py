"""What a user asks of the front of a tailored run: at most a share of the backbone's cost."""

from typing import Literal, NamedTuple, get_args

from nettailor.core.errors import UserError

Unit = Literal["flops", "params"]
UNITS: tuple[Unit, ...] = get_args(Unit)


class Share(NamedTuple):
    """What a user asks for: at most this share of the backbone's cost."""

    unit: Unit
    most: float

    @property
    def name(self) -> str:
        """Such as `flops0.25`, as a part of a folder's name."""
        return f"{self.unit}{self.most:g}"


def read_share(text: str, asked_by: str = "--pick") -> Share:
    """`flops=0.25` or `params=0.1`; UserError for anything else, which begins with `asked_by`."""
    unit, _, number = text.partition("=")
    known = next((one for one in UNITS if one == unit), None)
    try:
        most = float(number)
    except ValueError:
        most = 0.0
    if known is None or not 0 < most < float("inf"):
        raise UserError(
            f"{asked_by} {text}: expected a share of the cost, such as flops=0.25 or params=0.1"
        )
    return Share(known, most)
