"""Pictures: what is drawn, that no text covers another, and what mistakes are told."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from report_runs import FULL_FLOPS, PATHS, accuracy, cut, knapsack, summary, tailored, write_run

from nettailor.report.comparison import Comparison, compare_folders, kept_epochs
from nettailor.report.page import confusion, most_confused, worse_classes
from nettailor.report.plots import (
    confusion_picture,
    curves,
    drawing,
    plot_style,
    svg_uri,
    tradeoffs,
)
from nettailor.report.runs import Run, read_runs


def run_of(task: Path, content: dict[str, Any], **options: Any) -> Run:
    return read_runs([write_run(task, content, **options)])[0][0]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A teacher, ten tailored and four eliminated networks of two seeds, some without a mistake."""
    task = tmp_path_factory.mktemp("many")
    for seed in (0, 1):
        write_run(task, summary("teacher", seed=seed, accuracy=accuracy(95, 98.9)))
        for number in range(10):
            how = tailored(gamma=(number + 1) / 10)
            flops = int(FULL_FLOPS * (0.45 + 0.02 * number))
            percents = accuracy(95, 100 - 0.1 * number)
            changes = {"seed": seed, "accuracy": percents, "flops": flops, "tailored": how}
            epochs = [("student", 80, 0.5), ("route-0.400", 95, 0.2)]
            write_run(task, summary("tailored", **changes), epochs=epochs)
        for top, test in enumerate((99.0, 98.9, 98.8, 80.0), start=1):
            flops = int(FULL_FLOPS * (1 - 0.2 * top))
            changes = {"seed": seed, "accuracy": accuracy(95, test + 0.3 * seed), "flops": flops}
            write_run(task, summary("eliminated", **changes, eliminated=cut(top)))
    return compare_folders([task])


def texts_of(figure: Figure) -> list[Any]:
    """Where every text of the axes and the legend stands."""
    found = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        found += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [text for tick in ticks for text in (tick.label1, tick.label2)]
    return [text.get_window_extent() for text in found if text.get_text() and text.get_visible()]


def require_readable(figure: Figure) -> None:
    """No text covers another one, or is cut off."""
    figure.draw_without_rendering()
    boxes = texts_of(figure)
    assert boxes
    for one, other in combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))
    whole = figure.bbox
    for box in boxes:
        assert whole.x0 <= box.x0 + 1
        assert box.x1 - 1 <= whole.x1
        assert whole.y0 <= box.y0 + 1
        assert box.y1 - 1 <= whole.y1


def test_accuracy_and_cost_of_every_network_and_a_ring_around_the_best(many: Comparison) -> None:
    with plot_style():
        figure = tradeoffs(many.methods, many.frame, ["elim 4"])
        require_readable(figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*many.methods, "Pareto front", "best within a budget"]
    assert len({(handle.get_marker(), handle.get_color(), handle.get_markerfacecolor())
                for handle in figure.legends[0].get_lines()}) == len(names)  # fmt: skip
    for axes, ring in zip(figure.axes, (0.2, 0.2, 1.0), strict=True):
        points = [line for line in axes.lines if line.get_marker() not in ("None", "_", "")]
        (around,) = (line for line in points if line.get_markerfacecolor() == "none")
        assert around.get_xdata() == pytest.approx([ring], abs=1e-5)
        assert "log" in figure.axes[0].get_ylabel()
        # 80 and 80.3 %, told upwards
        assert around.get_ydata()[0] == pytest.approx(19.85)
        assert axes.yaxis_inverted()


def test_without_a_test_accuracy_a_network_is_not_drawn(tmp_path: Path) -> None:
    write_run(tmp_path, summary("scratch", accuracy=accuracy(95.0, None)))
    comparison = compare_folders([tmp_path])
    with plot_style():
        figure = tradeoffs(comparison.methods, comparison.frame, [])
        assert svg_uri(figure).startswith("data:image/svg+xml;base64,")
    assert figure.legends[0].get_texts()[0].get_text() == "Pareto front"


def test_curves_follow_the_student_and_the_kept_depth_only(
    many: Comparison, tmp_path: Path
) -> None:
    epochs = [("student", 50, 1), ("route-0.300", 60, 1), ("route-0.400", 70, 1)]
    run = run_of(tmp_path, summary("tailored"), epochs=epochs)
    assert kept_epochs(run)["val_accuracy"].tolist() == [50, 70]
    # of several resolutions the student's at which the network was kept
    several = [("student-16px", 40, 1), *epochs[:1], ("student-24px", 45, 1), *epochs[1:]]
    lower = summary("tailored")
    lower["tailored"]["image_size"] = 24
    run = run_of(tmp_path / "lower", lower, epochs=several)
    assert kept_epochs(run)["val_accuracy"].tolist() == [45, 70]
    with plot_style():
        figure = curves(many.methods)
        require_readable(figure)
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(drawn) == len(many.methods)


def parts_of(figure: Figure) -> tuple[int, int, list[str]]:
    """Boxes that are there, outlines of those that are not, and names from left to right."""
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    solid = sum(patch.get_linestyle() in ("-", "solid") for patch in patches)
    texts = sorted(figure.axes[0].texts, key=lambda text: text.get_position()[0])
    return solid, len(patches) - solid, [text.get_text() for text in texts]


RANK_PATHS = [
    [0, 1, "block", 1.0], [0, 2, "proxy", 0.4], [1, 2, "proxy", 0.6], [2, 3, "block", 1.0],
    [3, 4, "block", 1.0], [4, 5, "head", 1.0],
]  # fmt: skip
OF = {"kind": "tailored", "name": "all-gamma0.3", "train_seconds": 9.0}
STEM = "32 px\nstem"
ROUTE = (3, 2, [STEM, "G1", "G2", "exit\nx3", "G3", "G4"])


@pytest.mark.parametrize(
    ("kind", "detail", "parts"),
    [
        ("scratch", None, (5, 0, [STEM, "G1", "G2", "G3", "G4", "head"])),
        ("eliminated", cut(1), (4, 1, [STEM, "G1", "G2", "G3", "head", "G4"])),
        (
            "eliminated",
            cut(2, replacement=True),
            (4, 2, [STEM, "G1", "G2", "conv", "head", "G3", "G4"]),
        ),
        ("tailored", tailored(), ROUTE),
        ("tailored", tailored(image_size=16), (3, 2, ["16 px\nstem", *ROUTE[2][1:]])),
        ("knapsack", knapsack(of=OF, paths=PATHS), ROUTE),
        (
            "tailored",
            tailored(cut="rank", depth="remove-01", paths=RANK_PATHS),
            (4, 1, [STEM, "G1", "G2", "G3", "G4", "head"]),
        ),
    ],
)
def test_networks_are_drawn_with_outlines_of_what_was_removed(
    tmp_path: Path, kind: str, detail: dict[str, Any] | None, parts: tuple[Any, ...]
) -> None:
    figure = drawing(run_of(tmp_path, summary(kind, **({kind: detail} if detail else {}))))
    solid, outlines, names = parts_of(figure)
    assert (solid, outlines, sorted(names)) == (parts[0], parts[1], sorted(parts[2]))
    if "head" in names:
        assert names == parts[2]
    arrows = sum(isinstance(patch, FancyArrowPatch) for patch in figure.axes[0].patches)
    assert arrows == (2 if kind == "tailored" and detail and detail["cut"] == "rank" else 0)


def test_confusion_is_summed_over_seeds(tmp_path: Path) -> None:
    one = run_of(tmp_path, summary("scratch"), wrong={0: 1, 3: 1, 1: 2})
    two = run_of(tmp_path, summary("scratch", seed=1), wrong={0: 1})
    table = confusion([one, two])
    assert table.tolist() == [[17, 3, 0], [0, 19, 1], [0, 0, 20]]
    pairs = most_confused(table, "abc").to_numpy().tolist()
    assert pairs == [["a", "b", "3", "15.0"], ["b", "c", "1", "5.0"]]
    with plot_style():
        figure = confusion_picture(table, ["circle", "square", "a $ and a very long name indeed"])
        require_readable(figure)
    shown = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert shown == ["17", "3", "19", "1", "20"]
    with plot_style():  # without numbers
        assert not confusion_picture(np.eye(30, dtype=int), list(map(str, range(30)))).axes[0].texts


def test_the_classes_that_got_worse(tmp_path: Path) -> None:
    # class 0: the teacher misses image 0, the other 0, 3 and 6: 90 against 70 %
    # class 1: 100 against 90 %; class 2 gets better
    teacher = run_of(tmp_path, summary("teacher"), wrong={0: 1, 2: 0})
    run = run_of(tmp_path, summary("scratch"), wrong={0: 1, 3: 2, 6: 1, 1: 0})
    table = worse_classes([teacher], [run], ["circle", "square", "star"])
    assert table.to_numpy().tolist() == [
        ["circle", "90.0", "70.0", "−20.0"],
        ["square", "100.0", "90.0", "−10.0"],
    ]
