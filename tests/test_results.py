"""The tables of results.md are those that their commands print of what is kept in docs/measured."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
COMMAND = r"^    python benchmarks/(\w+)\.py (.*--out docs/measured/.*)$"
COMMANDS = re.findall(COMMAND, RESULTS, re.MULTILINE)


@pytest.mark.parametrize(("script", "words"), COMMANDS)
def test_tables(
    script: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained for it: the folders of images that the command names are not there."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [script, *shlex.split(words)])
    importlib.import_module(script).main()
    printed = capsys.readouterr().out
    assert printed[printed.rindex("| network |") :] in RESULTS


def test_all_that_is_kept_is_in_a_table() -> None:
    folders = {Path(words.split("--out ")[1].split()[0]).name for _, words in COMMANDS}
    assert folders == {path.name for path in (ROOT / "docs" / "measured").iterdir()}
