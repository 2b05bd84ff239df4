"""The page of a comparison: whole, self-contained, and fit to be read in a real browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import (
    CLASSES,
    FULL_FLOPS,
    FULL_PARAMS,
    accuracy,
    cut,
    summary,
    tailored,
    timings,
    write_run,
)

from nettailor.cli import compare
from nettailor.core.errors import UserError

HOSTILE = '<img src=x onerror="alert(1)">&amp;$\\frac{'


def write_task(task: Path, classes: tuple[str, ...] = CLASSES, **common: Any) -> None:
    """A task with a teacher, two tailored networks, four cut ones and both references."""
    count = len(classes)
    labels = {"val": [i % count for i in range(2 * count)], "test": [i % count for i in range(240)]}
    common |= {"classes": list(classes)}
    for seed in (0, 1):
        shared = {**common, "seed": seed}
        teacher = summary("teacher", **shared, accuracy=accuracy(98.9, 99.0))
        write_run(task, teacher, labels=labels, wrong={5: (5 + 1) % count})
        for kind, share, percent, changes in (
            ("tailored", 0.5, 98.8, {}),
            ("tailored", 0.35, 97.0, {"tailored": tailored(finetune="all", gamma=1.0)}),
            ("eliminated", 0.9, 98.7, {"eliminated": cut(1)}),
            ("eliminated", 0.6, 98.5, {"eliminated": cut(2)}),
            ("eliminated", 0.3, 85.0, {"eliminated": cut(3)}),
            ("eliminated", 0.6, 93.0, {"eliminated": cut(2, replacement=True, trainable="head")}),
            ("head-only", 1.0, 90.0, {}),
            ("scratch", 1.0, 95.0, {}),
        ):
            total = int(FULL_PARAMS * share**2)
            content = summary(
                kind, **shared, **changes, teacher=teacher, flops=int(FULL_FLOPS * share),
                accuracy=accuracy(percent, percent - 0.3 + 0.2 * seed),
                params={"total": total, "universal": 0, "task": total},
                latency_ms={"cpu": timings(2 * share, 40 * share)},
            )  # fmt: skip
            stages = ("student", "route-0.400") if kind == "tailored" else (kind, kind)
            write_run(
                task, content, labels=labels,
                wrong={i: (i + 1) % count for i in range(0, 24, 1 + seed)},
                epochs=[(stage, percent - 5 * late, 0.2) for late, stage in enumerate(stages)],
            )  # fmt: skip
    (write_run(task, summary("scratch", **common, seed=9)) / "summary.json").unlink()


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text outside of styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the report on a whole task."""
    runs = tmp_path_factory.mktemp("runs")
    write_task(runs / "shapes")
    compare.main([str(runs / "shapes")])
    return runs / "shapes" / "comparison"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on classes and a task whose names try to break the page, and very many classes."""
    runs = tmp_path_factory.mktemp("hostile")
    classes = (HOSTILE, "猫", "a\tb\x00", "x" * 300, *(f"class {i}" for i in range(56)))
    write_task(runs / "shapes", classes, dataset=HOSTILE)
    compare.main([str(runs / "shapes"), "--report", str(runs / "out")])
    return runs / "out"


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_the_page_has_all_its_parts(report: Path) -> None:
    page = Elements(page_of(report))
    titles = [picture["alt"] or "" for picture in page.of("img")]
    for beginning, times in (
        ("Test accuracy against FLOPs, parameters and measured latency", 1),
        ("Validation accuracy and loss by epoch", 1),
        ("elim 2 conv head, seed 0, 4 of 4 pretrained blocks", 1),
        ("tailored task, γ 0.3, seed 0, 4 of 4 pretrained blocks", 1),
        # of those that are best within a budget
        ("Confusion matrix of teacher on the test, 2 seeds together", 1),
        ("Confusion matrix of tailored task, γ 0.3 on the test, 2 seeds together", 1),
        ("Confusion matrix of", 3),
    ):
        assert sum(title.startswith(beginning) for title in titles) == times, beginning
    for told in (
        "All networks", "The best within each budget", "Accuracy against cost",
        "Seconds of training", "Classes that got worse", "All figures", "this network", "Left out",
        "not finished", f"python -m nettailor.compare {report.parent}",
    ):  # fmt: skip
        assert told in page.text, told


def test_the_page_needs_nothing_beside_itself(report: Path, hostile: Path) -> None:
    for folder in (report, hostile):
        text = page_of(folder)
        page = Elements(text)
        assert not page.of("script")
        addresses = [
            value or ""
            for _, attributes in page.found
            for key, value in attributes.items()
            if key in ("src", "href", "xlink:href", "srcset", "data", "action")
        ]
        assert addresses
        assert all(address.startswith(("data:", "#")) for address in addresses)
        assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", text))
        assert "@import" not in text


def test_the_same_runs_give_the_same_files(report: Path, tmp_path: Path) -> None:
    arguments = [str(report.parent), "--report", str(tmp_path)]
    compare.main(arguments)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"report.html", "comparison.csv", "comparison.md"}
    assert first["comparison.csv"].count(b"\n") == 1 + 2 * 9  # and no report is taken for a run
    compare.main(arguments)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["report.html", "comparison.csv", "comparison.md"])
def test_files_of_others_are_not_replaced(report: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<title>Mine</title>", "utf-8")
    with pytest.raises(UserError, match=f"{tmp_path}: holds {name}, which is of no comparison"):
        compare.main([str(report.parent), "--report", str(tmp_path)])
    assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["<title>Mine</title>"]


def test_names_are_text_and_never_markup(hostile: Path) -> None:
    page = Elements(page_of(hostile))
    assert not any("onerror" in attributes for _, attributes in page.found)
    assert HOSTILE in page.text
    assert r"a\tb\x00" in page.text
    assert "Classes taken for each other most" in page.text
    assert not any("Confusion" in (picture["alt"] or "") for picture in page.of("img"))


def test_the_command_prints_tables_and_what_was_left_out(
    report: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(report.parent.parent)
    # without folders: the task's folder of the settings
    compare.main(["--data", "anywhere/shapes", "--image-size", "32", "--out", "."])
    text = capsys.readouterr().out
    for told in (
        "shapes at 32 px", "The best on validation within each share", "Seconds of training",
        "left out: shapes/scratch/tiny-32px-seed9: not finished",
    ):  # fmt: skip
        assert told in text
    # not on a terminal no column is left out: latency at batch 1, at batch 64
    assert re.search(r"^  tailored all, γ 1 .* 0\.35±0\.00 +0\.35±0\.00 *$", text, re.M)
    assert text.strip().endswith("report: " + str(report / "report.html"))
    markdown = (report / "comparison.md").read_text("utf-8")
    assert markdown.startswith("# shapes at 32 px\n\n| network | seeds | validation accuracy, % |")
    for told in (
        "\n| elim 2 | 0 1 | 98.50 ± 0.00 |",
        "\n| ≤ 0.6 | tailored task, γ 0.3 | 0 1 | 98.80 ± 0.00 | 98.60 ± 0.14 | 0.500 |",
        "\n| tailored task, γ 0.3 | 0 1 | 60 ± 0 | 60 ± 0 | 120 ± 0 |",
        "--data anywhere/shapes --image-size 32 --out .",
        "\n## Left out\n\n- shapes/scratch/tiny-32px-seed9: not finished; the",
    ):
        assert told in markdown, told


def test_a_teacher_alone_still_has_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, summary("teacher"))
    compare.main([str(tmp_path), "--report", str(tmp_path / "out")])
    text = Elements(page_of(tmp_path / "out")).text
    assert "Mistakes of teacher" in text


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")

# What is asked of the page in each width, written into the document that the browser prints. The
# frame is as narrow as is asked; a window would not be.
PROBE = """<!doctype html><title>probe</title>
<iframe id="frame" style="border:0;width:{width}px;height:900px"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("frame");
frame.onload = () => {{
  const page = frame.contentDocument, view = frame.contentWindow;
  const inside = (element) => element.closest(".scroll, pre") !== null;
  document.getElementById("found").textContent = "found:" + JSON.stringify({{
    width: view.innerWidth,
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    beyond: [...page.body.querySelectorAll("*")].filter((element) => !inside(element)
      && element.getBoundingClientRect().right > view.innerWidth + 1).map((e) => e.tagName),
    pictures: [...page.images].map((image) => image.complete && image.naturalWidth > 0),
    requests: view.performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => !name.startsWith("data:")),
  }}) + ":end";
}};
frame.srcdoc = {page};
</script>
"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", ["report", "hostile"])
def test_the_page_in_a_browser(
    which: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    content = json.dumps(page_of(request.getfixturevalue(which))).replace("</", "<\\/")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=content), "utf-8")
    assert BROWSER
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
            "--enable-logging=stderr", "--dump-dom", "--window-size=1400,1000", probe.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(done.stdout.partition("found:")[2].partition(":end")[0].replace("&lt;", "<"))
    assert found["pictures"]
    assert all(found["pictures"])
    del found["pictures"]
    assert found == {"width": width, "overflow": 0, "beyond": [], "requests": []}
