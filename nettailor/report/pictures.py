"""All pictures of a page, each with its caption, made from the runs that are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from nettailor.report.brief import times
from nettailor.report.drawings import drawing
from nettailor.report.measures import flops_ratio, params_ratio
from nettailor.report.methods import Method
from nettailor.report.mistakes import Worse, confusion, confusion_picture, worse_picture
from nettailor.report.path_weights import read_path_weights, weights_in_time
from nettailor.report.svg import chart_style, inline_svg
from nettailor.report.tradeoffs import COSTS, tradeoff
from nettailor.report.training import accuracy_curves, loss_curves
from nettailor.report.verdict import Verdict

_PANEL = 450  # pixels: wider pictures would be too small in one


@dataclass(frozen=True)
class Picture:
    """An `<svg>` element, and what stands below it; a wide one may not shrink to any panel."""

    svg: str
    caption: str
    wide: bool


def _picture(name: str, title: str, draw: Callable[[], Figure], caption: str = "") -> Picture:
    with chart_style():
        figure = draw()
        wide = 96 * figure.get_figwidth() > _PANEL
        return Picture(inline_svg(figure, name, title), caption or title, wide)


def tradeoffs(methods: Sequence[Method]) -> list[Picture]:
    """Test accuracy against FLOPs, parameters and measured latency."""
    titles = {"flops": "FLOPs", "parameters": "parameters", "latency": "measured latency"}
    return [
        _picture(
            f"cost-{cost.name}",
            f"Test accuracy against {titles[cost.name]}",
            lambda cost=cost: tradeoff(methods, cost),  # type: ignore[misc]
        )
        for cost in COSTS
    ]


def drawings(methods: Sequence[Method], verdict: Verdict) -> list[Picture]:
    """The winner, the best tailored network, and the eliminated ones; the first seed of each."""
    roles = {verdict.tailored: "best tailored", verdict.winner: "winner"}
    chosen = [verdict.winner, verdict.tailored]
    chosen += [method for method in methods if method.kind == "eliminated"]
    found = []
    for number, method in enumerate(dict.fromkeys(method for method in chosen if method)):
        run = method.runs[0]
        blocks, tailored = run.summary.blocks, run.summary.tailored
        exits = [row[0] for row in tailored.paths if row[2] == "exit"] if tailored else []
        words = [
            f"{method.label} ({roles[method]})" if method in roles else method.label,
            f"{blocks.universal} of {len(run.summary.stages)} pretrained blocks"
            if run.summary.searched is None
            else f"{blocks.universal} blocks, none of them pretrained",
            *([f"{blocks.proxy} proxies"] if blocks.proxy else []),
            *(f"exit at x{node}" for node in exits),
            f"{times(flops_ratio(run))} FLOPs",
            f"{times(params_ratio(run))} parameters of the teacher",
            f"seed {run.summary.seed}",
        ]
        caption = ", ".join(words)
        found.append(
            _picture(f"network-{number}", caption, lambda run=run: drawing(run))  # type: ignore[misc]
        )
    return found


def training(methods: Sequence[Method], verdict: Verdict) -> list[Picture]:
    """Curves of all methods, and the path weights of the best tailored run where it has them."""
    first = "The first seed of each. A tailored run goes on from its student to the kept cut; a "
    pictures = [
        _picture(
            "accuracy",
            "Validation accuracy by epoch",
            lambda: accuracy_curves(methods),
            f"Validation accuracy by epoch. {first}ring marks the cut.",
        ),
        _picture(
            "loss",
            "Validation loss by epoch",
            lambda: loss_curves(methods),
            f"Validation loss by epoch. {first}ring marks the cut.",
        ),
    ]
    if verdict.tailored:
        run = verdict.tailored.runs[0]
        epochs, weights = read_path_weights(run)
        if weights:
            title = f"Path weights through time, {verdict.tailored.label}, seed {run.summary.seed}"
            pictures.append(
                _picture(
                    "path-weights",
                    title,
                    lambda: weights_in_time(run, epochs, weights),
                    f"{title}. Bold names are of the paths that were kept.",
                )
            )
    return pictures


def confusions(method: Method) -> Picture:
    """The confusion matrix of a method on the test, all seeds together."""
    table = confusion(method)
    title = f"Confusion matrix of {method.label} on the test"
    seeds = f", {len(method.runs)} seeds together" if len(method.runs) > 1 else ""
    return _picture(
        "confusion",
        title,
        lambda: confusion_picture(table, method.example.classes),
        f"{title}{seeds}. Mistakes are orange.",
    )


def worse(classes: Sequence[Worse], method: Method) -> Picture:
    """The classes that lost most against the teacher."""
    title = f"The classes that got worse most, {method.label} against the teacher"
    return _picture("worse", title, lambda: worse_picture(classes, method))
