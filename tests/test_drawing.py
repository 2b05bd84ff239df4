"""Pictures of a student: what is drawn, how strongly, and that labels never overlap."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from conftest import lively_chain
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from networks import student_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from nettailor.student.drawing import architecture, heat_map
from nettailor.student.pictures import StudentPictures
from nettailor.student.wiring import Path, Wiring, full_wiring

# sixteen blocks in seven stages, as in EfficientNet-Lite0
STAGES = (0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6)
ENDS = (1, 3, 5, 8, 11, 15, 16)
LEFT = (Path(n - 1, n, "block" if n in (1, 2, 4, 6) else "identity") for n in range(1, 9))
ROUTE = Wiring(17, (*LEFT, Path(8, 17, "exit")))
BLOCKS = (Path(n - 1, n, "block") for n in (1, 2, 4, 5, 6, 16))
PROXIES = ((1, 3), (2, 3), (3, 5), (6, 9), (9, 12), (12, 15))
PUBLISHED = Wiring(17, (*BLOCKS, *(Path(p, n, "proxy") for p, n in PROXIES), Path(16, 17, "head")))
WIRINGS = {
    "identities and exits": full_wiring(16, 0, identities=range(1, 17), exits=ENDS),
    "proxies as well": full_wiring(16, 3, identities=range(1, 17), exits=ENDS),
    "dense": full_wiring(16, "dense"),
    "route": ROUTE,
    "published": PUBLISHED,
    "top removed": full_wiring(10, 0),
    "four blocks": full_wiring(4, 3, identities=range(1, 5), exits=range(1, 5)),
    "nothing but the head": full_wiring(0, 0),
}


def uniform(wiring: Wiring) -> list[float]:
    """Paths into a node share its weight evenly."""
    return [1 / len(wiring.incoming[path.target]) for path in wiring.paths]


def drawn(wiring: Wiring, alpha: Sequence[float] | None = None, **options: Any) -> Figure:
    stages = STAGES[: wiring.depth - 1] if wiring.depth < 6 else STAGES
    weights = uniform(wiring) if alpha is None else alpha
    return architecture(wiring, weights, stages=stages, title="epoch 3", **options)


def boxes(figure: Figure) -> dict[str, FancyBboxPatch]:
    """The boxes by the name that stands in them."""
    axes = figure.axes[0]
    found = {}
    for patch in axes.patches:
        if isinstance(patch, FancyBboxPatch):
            extent = patch.get_window_extent()
            (name,) = [
                text.get_text()
                for text in axes.texts
                if extent.contains(*axes.transData.transform(text.get_position()))
            ]
            found[name.replace("\n", " ")] = patch
    return found


def ghosts(figure: Figure) -> set[str]:
    return {
        name for name, box in boxes(figure).items() if box.get_linestyle() not in ("-", "solid")
    }


@pytest.mark.parametrize("image_size", [None, 1024], ids=["", "px"])
@pytest.mark.parametrize("replacement", [False, True], ids=["", "conv"])
@pytest.mark.parametrize("name", WIRINGS)
def test_labels_overlap_nothing_and_lie_in_the_picture(name, replacement, image_size):
    figure = drawn(WIRINGS[name], ghosts=True, replacement=replacement, image_size=image_size)
    figure.draw_without_rendering()  # the legend finds its place
    axes = figure.axes[0]
    legend = axes.get_legend()
    texts = [*axes.texts, *(legend.get_texts() if legend else [])]
    extents = {text.get_text(): text.get_window_extent() for text in texts}
    assert len(extents) == len(texts)
    for (one, here), (other, there) in combinations(extents.items(), 2):
        assert not here.overlaps(there), (one, other)
    within = [box.get_window_extent() for box in boxes(figure).values()]
    for one, other in combinations(within, 2):
        assert not one.overlaps(other)
    for extent in [*within, *extents.values()]:
        assert figure.bbox.x0 <= extent.x0
        assert extent.x1 <= figure.bbox.x1
    for extent in within:
        assert axes.bbox.y0 <= extent.y0
        assert extent.y1 <= axes.bbox.y1
    # words of the legend stand above the drawing
    if legend:
        arcs = [arc.get_window_extent() for arc in axes.patches if isinstance(arc, FancyArrowPatch)]
        highest = max(extent.y1 for extent in [*within, *arcs])
        assert all(text.get_window_extent().y0 > highest for text in legend.get_texts())


def test_opacity_is_the_weight():
    wiring = Wiring(
        3,
        (
            Path(0, 1, "block"), Path(0, 1, "identity"), Path(0, 1, "proxy"),
            Path(1, 2, "identity"), Path(1, 3, "exit"), Path(2, 3, "head"),
        ),
    )  # fmt: skip
    alpha = [0.5, 0.3, 0.2, 1.0, 0.75, 0.25]
    figure = architecture(wiring, dict_order(wiring, alpha), stages=(0, 1))
    found = {name: box.get_alpha() for name, box in boxes(figure).items()}
    assert found == {"G1": 0.5, "head": 0.25, "exit x1": 0.75}
    (arc,) = (patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch))
    assert arc.get_alpha() == 0.2
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() == 0.9]
    assert [line.get_alpha() for line in thin] == [0.3, 1.0]
    # over the block that is there, straight where it is gone
    assert [max(line.get_ydata()) > 0.3 for line in thin] == [True, False]


def test_the_height_of_a_block_is_the_part_of_its_channels_that_is_left():
    """Within the outline of all of them; never so low that its name has no room."""
    wiring = Wiring(4, (*(Path(i, i + 1, "block") for i in range(3)), Path(3, 4, "head")))
    figure = architecture(wiring, [1.0] * 4, stages=(0, 1, 1), channels={1: 0.5, 3: 0.1})
    heights = {name: box.get_height() for name, box in boxes(figure).items()}
    whole = heights["head"]
    assert heights == pytest.approx(
        {"G1": whole / 2, "G2": whole, "G3": 0.3 * whole, "head": whole}
    )
    drawn = [one for one in figure.axes[0].patches if isinstance(one, FancyBboxPatch)]
    assert sorted(one.get_height() for one in drawn if one.get_facecolor()[3] == 0) == [whole] * 2


def dict_order(wiring: Wiring, alpha: Sequence[float]) -> list[float]:
    """Weights in the wiring's order, given with exits before heads."""
    listed = sorted(
        wiring.paths,
        key=lambda p: (p.target, ("block", "identity", "proxy", "exit", "head").index(p.kind)),
    )
    weights = dict(zip(listed, alpha, strict=True))
    return [weights[path] for path in wiring.paths]


def test_what_lies_behind_an_exit_is_gone_or_a_ghost():
    figure = drawn(ROUTE, ghosts=True)
    assert ghosts(figure) == {f"G{n}" for n in range(1, 17) if n not in (1, 2, 4, 6)}
    assert set(boxes(figure)) - ghosts(figure) == {"G1", "G2", "G4", "G6", "exit x8"}
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert entries == ["pretrained block", "identity", "exit", "taken out"]
    assert to_hex(boxes(figure)["exit x8"].get_facecolor()) == "#e69f00"
    nodes = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(nodes) == 9
    assert set(boxes(drawn(ROUTE))) == {"G1", "G2", "G4", "G6", "exit x8"}


def table_of(figure: Figure, place: int) -> list[list[float | None]]:
    """The cells of a map, None where there is no path."""
    cells = np.ma.filled(figure.axes[place].images[0].get_array(), np.nan)
    return [[None if np.isnan(cell) else float(cell) for cell in row] for row in cells]


def columns_of(figure: Figure, place: int) -> list[str]:
    return [label.get_text() for label in figure.axes[place].get_xticklabels()]


def test_the_map_has_a_cell_for_each_path():
    wiring = Wiring(
        4,
        (
            Path(0, 1, "block"), Path(0, 1, "identity"), Path(1, 2, "block"), Path(0, 2, "proxy"),
            Path(2, 3, "block"), Path(2, 3, "proxy"), Path(1, 4, "exit"), Path(3, 4, "exit"),
            Path(3, 4, "head"),
        ),
    )  # fmt: skip
    # in the wiring's order: the head before the exits
    figure = heat_map(wiring, [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.5, 0.1, 0.4])
    assert columns_of(figure, 0) == ["block", "identity", "−1", "−2"]
    assert table_of(figure, 0) == [
        [0.9, 0.1, None, None],
        [0.8, None, None, 0.2],
        [0.7, None, 0.3, None],
    ]
    assert columns_of(figure, 1) == ["exit", "head"]
    assert table_of(figure, 1) == [[0.1, None], [None, None], [0.4, 0.5]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x1", "x2", "x3"]


def test_the_map_of_blocks_and_proxies_has_no_columns_for_the_rest():
    wiring = full_wiring(3, 1)
    figure = heat_map(wiring, uniform(wiring))
    assert len(figure.axes) == 2  # the map and its colour bar
    assert columns_of(figure, 0) == ["block", "−1"]


@pytest.mark.parametrize("name", [name for name in WIRINGS if WIRINGS[name].depth > 1])
def test_labels_of_the_map_do_not_overlap(name):
    figure = heat_map(WIRINGS[name], uniform(WIRINGS[name]))
    figure.draw_without_rendering()
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
            extents = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(one.overlaps(other) for one, other in combinations(extents, 2))
    words = [axes.xaxis.label.get_window_extent() for axes in figure.axes if axes.get_xlabel()]
    assert not any(one.overlaps(other) for one, other in combinations(words, 2))


def test_every_path_has_a_curve_and_chosen_epochs_have_pictures(tmp_path):
    chain = lively_chain("test_resnet")
    student = student_of(chain, 1)
    pictures = StudentPictures(chain.stages, {1}, lambda _, epoch: {"cost": 1 - epoch / 4})
    with SummaryWriter(str(tmp_path)) as writer:
        for epoch in (0, 1):
            pictures(writer, epoch, student)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("path_weight/")}
    assert len(tags) == len(student.wiring.paths)
    assert {
        "path_weight/x2/block", "path_weight/x2/identity", "path_weight/x2/from-x1",
        "path_weight/logits/head", "path_weight/logits/exit-x4",
    } <= tags  # fmt: skip
    assert [event.value for event in events.Scalars("cost")] == [1, 0.75]
    into_logits = [tag for tag in tags if tag.startswith("path_weight/logits/")]
    assert sum(events.Scalars(tag)[1].value for tag in into_logits) == pytest.approx(1)
    for picture in ("path_weights", "architecture"):
        assert [event.step for event in events.Images(picture)] == [1]
