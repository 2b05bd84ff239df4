"""The documents: links that lead somewhere, programs that run, a README to be read at once."""

import re
from pathlib import Path
from typing import Any

import pytest
from test_api import digits
from torch.utils.data import DataLoader

import nettailor as nt

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# the programs of these sections read run folders that are not there
NEEDS_RUNS = "## What the commands wrote"


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        place = document.parent / file if file else document
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place.read_text(encoding="utf-8")), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("name", ["README.md", "docs/library.md"])
def test_programs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in turn, with a small network without pretrained weights, and an epoch a stage."""
    monkeypatch.chdir(tmp_path)
    fit, tailor = nt.fit, nt.tailor
    short = {"teacher_epochs": 1, "student_epochs": 1, "finetune_epochs": 1, "verbose": False}

    def fit_briefly(*given: Any, **settings: Any) -> Any:
        return fit(*given, **settings | {"epochs": 1, "verbose": False})

    def tailor_briefly(*given: Any, **settings: Any) -> Any:
        return tailor(*given, **settings | short)

    monkeypatch.setattr(nt, "fit", fit_briefly, raising=False)
    monkeypatch.setattr(nt, "tailor", tailor_briefly, raising=False)
    train, val = digits()
    there = {"train": DataLoader(train, 32, shuffle=True), "val": DataLoader(val, 80)}
    text, _, _ = (ROOT / name).read_text(encoding="utf-8").partition(NEEDS_RUNS)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block.replace('"resnet18", pretrained=True', '"test_resnet"'), there)
    images = next(iter(there["val"]))[0]
    assert there["plain"](images).shape == (80, 10)  # type: ignore[operator]
