"""How each kind of network looks in every picture: a colour and a marker, told apart by either."""

from dataclasses import dataclass

from nettailor.report.methods import Method

# Okabe and Ito's colours, which colour-blind readers tell apart
BLACK, BLUE, SKY, ORANGE, GREEN, PURPLE, VERMILLION = (
    "#000000", "#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """A colour and one of matplotlib's markers, filled or hollow, with the name in a legend."""

    name: str
    colour: str
    marker: str
    hollow: bool = False

    @property
    def face(self) -> str:
        """Colour of the marker's inside."""
        return "white" if self.hollow else self.colour


_LOOKS = {
    "teacher": Look("teacher", BLACK, "*"),
    "task": Look("tailored, blocks shared", BLUE, "o"),
    "all": Look("tailored, stand-alone", VERMILLION, "D"),
    "eliminated": Look("top removed", ORANGE, "s"),
    "eliminated head": Look("top removed, head trained", ORANGE, "s", hollow=True),
    "head-only": Look("head only", GREEN, "^"),
    "scratch": Look("from scratch", PURPLE, "v"),
    "scaled": Look("scaled", GREEN, "p"),
    "knapsack": Look("channels removed", SKY, "P"),
    "knapsack tailored": Look("tailored, channels removed", SKY, "X"),
    "searched": Look("searched from scratch", PURPLE, "h"),
}


def look_of(method: Method) -> Look:
    """The look of a method's kind."""
    summary = method.example
    if summary.tailored:
        return _LOOKS[summary.tailored.finetune]
    if summary.eliminated and summary.eliminated.trainable == "head":
        return _LOOKS["eliminated head"]
    if summary.knapsack and summary.knapsack.of.kind == "tailored":
        return _LOOKS["knapsack tailored"]
    return _LOOKS[summary.kind]
