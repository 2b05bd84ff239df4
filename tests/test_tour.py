"""The tour: every cell runs and what it asserts holds; the outputs in the file are of one run.

`python tests/test_tour.py` writes docs/tour.ipynb anew, on all of its images.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"
PLACES = (str(Path.home()), str(TOUR.parents[1]), tempfile.gettempdir(), sys.prefix, "-packages")


def executed(folder: Path) -> Any:
    """The notebook with the outputs of a run in a folder; CellExecutionError where a cell fails."""
    notebook = nbformat.read(TOUR, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore"})
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def kinds(notebook: Any) -> list[list[tuple[str, ...]]]:
    """What each code cell gives: text, pictures."""
    return [
        [(one.output_type, *sorted(one.get("data", {}))) for one in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUR_QUICK", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = executed(tmp_path)
    assert sum("assert " in cell.source for cell in notebook.cells) == 4
    assert kinds(notebook) == kinds(nbformat.read(TOUR, as_version=4))
    assert [one.name for one in tmp_path.iterdir()] == ["digits.onnx"]


def test_the_outputs_in_the_file() -> None:
    """Of one run from top to bottom, without faults, clocks or places of a machine."""
    text = TOUR.read_text(encoding="utf-8")
    assert len(text.encode()) < 500_000
    notebook = nbformat.reads(text, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (one for cell in cells for one in cell.outputs):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr"
    assert not [place for place in PLACES if place in text]
    assert not any("execution" in cell.metadata for cell in cells)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(nbformat.write(executed(Path(folder)), TOUR))
