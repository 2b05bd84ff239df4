"""Labels that cover nothing, axes that can be read, drawings that show what was removed."""

import base64
import io
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from report_runs import (
    FULL_FLOPS,
    FULL_PARAMS,
    PATHS,
    accuracy,
    cut,
    knapsack,
    summary,
    tailored,
    write_run,
)

from nettailor.report.boxes import Box, crosses, place_labels, spread_out
from nettailor.report.drawings import drawing
from nettailor.report.methods import Method, group
from nettailor.report.mistakes import (
    confusion,
    confusion_picture,
    most_confused,
    worse_classes,
    worse_picture,
)
from nettailor.report.path_weights import read_path_weights, weights_in_time
from nettailor.report.runs import Run, read_runs
from nettailor.report.scales import AccuracyScale, label_logarithmic
from nettailor.report.svg import chart_style, inline_svg
from nettailor.report.tradeoffs import COSTS, tradeoff
from nettailor.report.training import accuracy_curves, kept_epochs, loss_curves
from nettailor.student.wiring import Path as WirePath
from nettailor.student.wiring import full_wiring

BOUNDS = Box(0, 0, 400, 300)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(5, 395), st.floats(5, 295)), min_size=1, max_size=14),
    st.data(),
)
def test_no_label_covers_another_or_a_marker(
    points: list[tuple[float, float]], data: st.DataObject
) -> None:
    sizes = [(data.draw(st.floats(10, 90)), 12.0) for _ in points]
    markers = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    boxes = place_labels(points, sizes, markers, BOUNDS, gap=10)
    placed = [box for box in boxes if box]
    for box in placed:
        assert box.within(BOUNDS)
        assert not any(box.overlaps(marker) for marker in markers)
    assert not any(one.overlaps(other) for one, other in combinations(placed, 2))


def test_a_lonely_point_has_its_label_beside_it_and_a_full_place_none() -> None:
    (box,) = place_labels([(100.0, 100.0)], [(40.0, 12.0)], [], BOUNDS, gap=10)
    assert box == Box(110, 94, 150, 106)
    assert place_labels([(5.0, 5.0)], [(40.0, 12.0)], [BOUNDS], BOUNDS, gap=10) == [None]


def test_a_crowd_of_twelve_still_has_all_its_labels() -> None:
    points = [(200.0 + 3 * i, 150.0 + 2 * (i % 4)) for i in range(12)]
    markers = [Box(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    assert all(place_labels(points, [(80.0, 11.0)] * 12, markers, BOUNDS, gap=9))


def test_lines_to_labels_cross_neither_labels_nor_markers_where_there_is_room() -> None:
    points = [(120.0 + 25 * i, 150.0 + 20 * (i % 3)) for i in range(8)]
    markers = [Box(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    boxes = place_labels(points, [(80.0, 11.0)] * 8, markers, BOUNDS, gap=9)
    for place, (point, box) in enumerate(zip(points, boxes, strict=True)):
        assert box
        others = [other for other in boxes if other and other is not box]
        others += [marker for number, marker in enumerate(markers) if number != place]
        assert not any(crosses(point, box.nearest(*point), other) for other in others)


@pytest.mark.parametrize(
    ("start", "end", "crossed"),
    [
        ((0, 5), (20, 5), True),
        ((0, 0), (20, 10), True),
        ((0, 5), (9, 5), False),
        ((0, 11), (20, 11), False),
        ((15, 0), (15, 20), True),
        ((0, 10), (20, 10), False),  # along an edge
    ],
)
def test_lines_through_boxes(start: Any, end: Any, crossed: bool) -> None:
    assert crosses(start, end, Box(10, 0, 20, 10)) is crossed


def test_places_are_moved_as_little_as_needed() -> None:
    assert spread_out([1.0, 5.0], 1, 0, 10) == [1.0, 5.0]
    assert spread_out([5.0, 5.0], 2, 0, 10) == [4.0, 6.0]
    assert spread_out([9.9, 0.1, 9.9], 2, 0, 10) == [8.0, 0.1, 10.0]
    assert spread_out([3.0, 3.0, 3.0], 9, 0, 10) == [0.0, 5.0, 10.0]
    assert spread_out([], 1, 0, 10) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_moved_places_keep_order_and_distance(places: list[float]) -> None:
    moved = spread_out(places, 0.05, 0, 1)
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    for before, after in pairwise(order):
        assert moved[after] - moved[before] >= 0.05 - 1e-9
    assert min(moved) >= -1e-9
    assert max(moved) <= 1 + 1e-9


def test_wide_errors_are_drawn_by_their_logarithm_and_all_right_has_a_place() -> None:
    plain, wide = AccuracyScale([96.0, 97.5], 100), AccuracyScale([60.0, 99.0, 100.0], 100)
    assert not plain.logarithmic
    assert wide.logarithmic
    # from 99 to 99.9 as far as from 90 to 99; 100 % of 100 images is half a mistake: 99.5
    assert wide.place(99.9) == wide.place(100.0) == wide.place(99.5)
    assert wide.place(99) - wide.place(90) == pytest.approx(1)
    axes = Figure().add_subplot()
    wide.dress(axes, "accuracy")
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert ticks == ["50", "70", "80", "90", "95", "97", "98", "99", "100"]


@pytest.mark.parametrize(
    ("low", "high", "least"), [(0.02, 3.0, 5), (0.31, 0.47, 3), (0.2, 0.9, 3), (0.2, 0.2001, 1)]
)
def test_a_logarithmic_axis_always_has_numbers(low: float, high: float, least: int) -> None:
    axes = Figure().add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    label_logarithmic(axes.yaxis)
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert sum(low <= place <= high and text.get_text() != "" for place, text in ticks) >= least


def methods_of(task: Path) -> list[Method]:
    return group(read_runs([task])[0])


def run_of(task: Path, content: dict[str, Any], **options: Any) -> Run:
    return read_runs([write_run(task, content, **options)])[0][0]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Method]:
    """A teacher, three tailored and four eliminated networks, most of them of like accuracy."""
    task = tmp_path_factory.mktemp("many")
    for seed in (0, 1):
        wobble = 0.3 * seed
        write_run(task, summary("teacher", seed=seed, accuracy=accuracy(95, 98.9 + wobble)))
        for number, gamma in enumerate((0.1, 0.3, 1.0)):
            write_run(
                task,
                summary(
                    "tailored",
                    seed=seed,
                    accuracy=accuracy(95, 98.7 + wobble),
                    flops=int(FULL_FLOPS * (0.45 + 0.02 * number)),
                    tailored=tailored(gamma=gamma),
                ),
                epochs=[("student", 80, 0.5), ("route-0.400", 95, 0.2)],
            )  # fmt: skip
        for top, test in enumerate((99.0, 98.9, 98.8, 80.0), start=1):
            share = 1 - 0.2 * top
            total = int(FULL_PARAMS * share)
            write_run(
                task,
                summary(
                    "eliminated",
                    seed=seed,
                    accuracy=accuracy(95, test + wobble),
                    flops=int(FULL_FLOPS * share),
                    params={"total": total, "universal": 0, "task": total},
                    eliminated=cut(top),
                ),
            )
    return methods_of(task)


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: cost.name)
def test_every_network_is_named_once_and_no_name_covers_another(
    many: list[Method], cost: Any
) -> None:
    with chart_style():
        figure = tradeoff(many, cost)
        figure.set_dpi(100)
        boxes = {text.get_text(): text.get_window_extent() for text in figure.texts}
    assert sorted(boxes) == sorted(method.label for method in many)
    for one, other in combinations(boxes.values(), 2):
        assert not one.overlaps(other)
    axes = figure.axes[0]
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    markers = [
        line.get_transform().transform(line.get_xydata())[0]
        for line in points
        if line.get_marker() != "None" and line.get_markerfacecolor() != "none"
    ]
    assert len(markers) == len(many)
    # of equal accuracy on validation: the leanest at 1, 0.6, 0.4 and 0.25 of the FLOPs
    (ring,) = (line for line in points if line.get_markerfacecolor() == "none")
    (leanest,) = (method for method in many if method.label == "elim 4")
    assert ring.get_xdata() == [leanest.mean(cost.figure) / cost.unit]
    for x, y in markers:
        assert not any(box.contains(x, y) for box in boxes.values())
    assert axes.get_xlabel()
    assert "%" in axes.get_ylabel()


def test_curves_follow_the_student_and_the_kept_depth_only(tmp_path: Path) -> None:
    epochs = [("student", 50, 1), ("route-0.300", 60, 1)]
    epochs += [("route-0.400", 70, 1), ("route-0.400", 80, 1)]
    run = run_of(tmp_path, summary("tailored"), epochs=epochs)
    assert [epoch.accuracy for epoch in kept_epochs(run)] == [50, 70, 80]


def test_curves_name_each_method_without_overlap(many: list[Method]) -> None:
    for draw in (accuracy_curves, loss_curves):
        with chart_style():
            figure = draw(many)
            boxes = [text.get_window_extent() for text in figure.texts]
        assert [text.get_text() for text in figure.texts] == [method.label for method in many]
        assert all(
            one.y1 <= other.y0 + 1 for one, other in pairwise(sorted(boxes, key=lambda b: b.y0))
        )
        assert max(box.x1 for box in boxes) <= figure.get_figwidth() * figure.dpi


def boxes_in(figure: Figure) -> list[str]:
    """Edges of the boxes drawn: `-` for those that are there, `--` for ghosts."""
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    return ["-" if patch.get_linestyle() in ("-", "solid") else "--" for patch in patches]


def names_in(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.axes[0].texts}


def test_a_cut_network_is_drawn_with_its_head_before_the_ghosts(tmp_path: Path) -> None:
    run = run_of(tmp_path, summary("eliminated", eliminated=cut(1, kept_blocks=3)))
    figure = drawing(run)
    assert sorted(boxes_in(figure)) == ["-"] * 4 + ["--"]
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert places["stem"] < places["G1"] < places["G3"] < places["head"] < places["G4"]


def test_a_replacement_is_drawn_before_the_head(tmp_path: Path) -> None:
    content = summary("eliminated", eliminated=cut(2, kept_blocks=2, replacement=True))
    figure = drawing(run_of(tmp_path, content))
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert places["G2"] < places["conv"] < places["head"] < places["G3"]


def test_a_route_is_drawn_to_its_exit_with_ghosts_in_place(tmp_path: Path) -> None:
    figure = drawing(run_of(tmp_path, summary("tailored")))
    # blocks 1 and 3 of four, the identity for block 2, and an exit at the third node
    assert sorted(boxes_in(figure)) == ["-"] * 3 + ["--"] * 2
    assert names_in(figure) == {"stem", "exit\nx3", "G1", "G2", "G3", "G4"}


def test_a_cut_by_rank_is_drawn_with_proxies_and_head(tmp_path: Path) -> None:
    paths = [
        [0, 1, "block", 1.0], [0, 2, "proxy", 0.4], [1, 2, "proxy", 0.6], [2, 3, "block", 1.0],
        [3, 4, "block", 1.0], [4, 5, "head", 1.0],
    ]  # fmt: skip
    content = summary("tailored", tailored=tailored(cut="rank", depth="remove-01", paths=paths))
    figure = drawing(run_of(tmp_path, content))
    assert sorted(boxes_in(figure)) == ["-"] * 4 + ["--"]
    assert sum(isinstance(patch, FancyArrowPatch) for patch in figure.axes[0].patches) == 2
    assert names_in(figure) == {"stem", "head", "G1", "G2", "G3", "G4"}


def test_a_tailored_network_that_lost_channels_is_drawn_by_its_paths(tmp_path: Path) -> None:
    plain = drawing(run_of(tmp_path / "plain", summary("tailored")))
    of = {"kind": "tailored", "name": "all-gamma0.3", "train_seconds": 9.0}
    content = summary("knapsack", knapsack=knapsack(of=of, paths=PATHS))
    assert names_in(drawing(run_of(tmp_path / "narrow", content))) == names_in(plain)


def test_a_whole_backbone_has_no_ghosts(tmp_path: Path) -> None:
    figure = drawing(run_of(tmp_path, summary("scratch")))
    assert boxes_in(figure) == ["-"] * 5
    assert names_in(figure) == {"stem", "head", "G1", "G2", "G3", "G4"}


WEIGHTS = {
    "path_weight/x1/block": [0.7, 0.6, 0.5],
    "path_weight/x1/from-x0": [0.0, 0.1, 0.25],
    "path_weight/x2/block": [0.9, 0.5, 0.2],
    "path_weight/x2/identity": [0.1, 0.5, 0.8],
    "path_weight/logits/head": [0.8, 0.7, 0.1],
    "path_weight/logits/exit-x3": [0.2, 0.3, 0.9],
    "expected_complexity": [1.0, 0.8, 0.7],
}


def maps_of(figure: Figure) -> dict[str, Any]:
    """The maps by their titles."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}


def test_path_weights_are_read_from_the_events(tmp_path: Path) -> None:
    run = run_of(tmp_path, summary("tailored"), path_weights=WEIGHTS)
    epochs, weights = read_path_weights(run)
    assert epochs == [0, 1, 2]
    assert list(weights) == [
        WirePath(0, 1, "block"), WirePath(0, 1, "proxy"), WirePath(1, 2, "block"),
        WirePath(1, 2, "identity"), WirePath(4, 5, "head"), WirePath(3, 5, "exit"),
    ]  # fmt: skip
    assert weights[WirePath(3, 5, "exit")] == pytest.approx([0.2, 0.3, 0.9])
    with chart_style():
        maps = maps_of(weights_in_time(run, epochs, weights))
    # what the route of the run passes is bold
    rows = {
        title: [
            (label.get_text(), label.get_fontweight() == "bold") for label in axes.get_yticklabels()
        ]
        for title, axes in maps.items()
    }
    assert rows == {
        "pretrained blocks": [("G1", True), ("G2", False)],
        "identities": [("", False), ("G2", True)],
        "exits and head": [("x3", True), ("head", False)],
        "proxies": [("0→1", False)],
    }
    assert np.allclose(maps["proxies"].images[0].get_array(), [[0.0, 0.1, 0.25]])
    identities = np.ma.filled(maps["identities"].images[0].get_array(), np.nan)
    assert np.isnan(identities[0]).all()
    assert np.allclose(identities[1], [0.1, 0.5, 0.8])
    # an identity is beside its block
    blocks, beside = (maps[title].get_position() for title in ("pretrained blocks", "identities"))
    assert (blocks.y0, blocks.y1) == (beside.y0, beside.y1)


def test_a_students_only_head_has_no_map(tmp_path: Path) -> None:
    tags = {tag: WEIGHTS[tag] for tag in ("path_weight/x1/block", "path_weight/logits/head")}
    run = run_of(tmp_path, summary("tailored"), path_weights=tags)
    with chart_style():
        figure = weights_in_time(run, *read_path_weights(run))
    assert list(maps_of(figure)) == ["pretrained blocks"]


@pytest.mark.parametrize("skips", [0, 3, "dense"])
@pytest.mark.parametrize("others", [(), range(1, 17)], ids=["published", "improved"])
def test_names_beside_the_maps_do_not_overlap(tmp_path: Path, skips: Any, others: Any) -> None:
    wiring = full_wiring(16, skips, identities=others, exits=others)
    run = run_of(tmp_path, summary("tailored"))
    with chart_style():
        figure = weights_in_time(run, range(3), {path: [1.0, 0.5, 0.2] for path in wiring.paths})
        figure.draw_without_rendering()
        maps = list(maps_of(figure).values())
        names = [
            label.get_window_extent()
            for axes in maps
            for label in (*axes.get_yticklabels(), axes.title, axes.xaxis.label)
            if label.get_text()
        ]
    assert not any(one.overlaps(other) for one, other in combinations(names, 2))
    for axes in maps:
        assert not any(axes.bbox.overlaps(name) for name in names)


def test_without_readable_events_there_are_no_path_weights(tmp_path: Path) -> None:
    run = run_of(tmp_path, summary("tailored"))
    assert read_path_weights(run) == ([], {})
    events = run.folder / "events" / "student"
    events.mkdir(parents=True)
    (events / "events.out.tfevents.1.x").write_bytes(b"\x18\x00\x00\x00garbage" * 20)
    assert read_path_weights(run) == ([], {})


def test_confusion_is_summed_over_seeds(tmp_path: Path) -> None:
    write_run(tmp_path, summary("scratch"), wrong={0: 1, 3: 1, 1: 2})
    write_run(tmp_path, summary("scratch", seed=1), wrong={0: 1})
    (method,) = methods_of(tmp_path)
    table = confusion(method)
    assert table.tolist() == [[17, 3, 0], [0, 19, 1], [0, 0, 20]]
    pairs = [(p.true, p.predicted, p.images, p.share) for p in most_confused(table, "abc")]
    assert pairs == [("a", "b", 3, 15.0), ("b", "c", 1, 5.0)]
    with chart_style():
        shown = [text.get_text() for text in confusion_picture(table, "abc").axes[0].texts]
    assert shown == ["17", "3", "19", "1", "20"]


def test_many_classes_are_drawn_without_numbers(tmp_path: Path) -> None:
    table = np.eye(30, dtype=np.int64)
    with chart_style():
        figure = confusion_picture(table, [f"class {i}" for i in range(30)])
    assert not figure.axes[0].texts


@pytest.mark.parametrize("numbered", [False, True])
def test_the_classes_that_got_worse_with_what_the_teacher_still_knew(
    tmp_path: Path, numbered: bool
) -> None:
    # class 0: the teacher misses image 0, the other 0, 3 and 6: 90 against 70 %
    # class 1: 100 against 90 %; class 2 gets better
    write_run(tmp_path, summary("teacher"), wrong={0: 1, 2: 0})
    write_run(tmp_path, summary("teacher", seed=1))
    write_run(
        tmp_path, summary("scratch"), wrong={0: 1, 3: 2, 6: 1, 1: 0}, pictures=[0, 3, 1],
        numbered=numbered,
    )  # fmt: skip
    write_run(tmp_path, summary("scratch", seed=5), wrong={9: 1})
    teacher, scratch = methods_of(tmp_path)
    first, second = worse_classes(teacher, scratch)
    assert (first.name, first.teacher, first.winner) == ("circle", 90, 70)
    assert (second.name, second.teacher, second.winner) == ("square", 100, 90)
    # not image 0, which the teacher missed, nor 6, of which there is no picture
    (example,) = first.examples
    assert example.predicted == "star"
    with Image.open(io.BytesIO(base64.b64decode(example.source.partition(",")[2]))) as picture:
        assert picture.getpixel((0, 0)) == (24, 90, 160)  # as written for image 3
    with chart_style():
        figure = worse_picture([first, second], scratch)
    assert [text.get_text() for text in figure.axes[0].texts] == ["−20.0", "−10.0"]


def test_a_broken_picture_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, summary("teacher"))
    folder = write_run(tmp_path, summary("scratch"), wrong={0: 1, 3: 1}, pictures=[0, 3])
    (folder / "mistakes" / "picture 0.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    teacher, scratch = methods_of(tmp_path)
    (worse,) = worse_classes(teacher, scratch)
    assert len(worse.examples) == 1


def test_svg_of_a_picture_is_the_same_twice_and_its_names_are_its_own(many: list[Method]) -> None:
    def draw(name: str) -> str:
        with chart_style():
            return inline_svg(tradeoff(many, COSTS[0]), name, "a <title> & more")

    one, again, other = draw("one"), draw("one"), draw("other")
    assert one == again
    root = ElementTree.fromstring(one)
    assert root.get("aria-label") == "a <title> & more"
    ids = {element.get("id") for element in root.iter()} - {None}
    assert ids.isdisjoint({element.get("id") for element in ElementTree.fromstring(other).iter()})
    references = {
        value[1:] for element in root.iter() for key, value in element.items()
        if key.endswith("href") and value.startswith("#")
    }  # fmt: skip
    assert references
    assert references <= ids
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "tailored task, γ 0.3" in words
    assert "style>" not in one
