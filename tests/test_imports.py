"""Imports run one way: core below the method, the method below the commands."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# each package may import itself and what stands below it
METHOD = {"nettailor.core", "nettailor.teacher", "nettailor.student", "nettailor.prune"}
BELOW: dict[str, set[str]] = {
    "nettailor.core": set(),
    "nettailor.teacher": {"nettailor.core"},
    "nettailor.student": {"nettailor.core", "nettailor.teacher"},
    "nettailor.prune": METHOD,
    "nettailor": METHOD,
    "nettailor.cli": {"nettailor", "nettailor.core"},
    "nettailor.commands": {"nettailor", "nettailor.cli", *METHOD},
}
# `python -m nettailor` and `python -m nettailor.tailor`, a few lines each
STARTS = {"__main__", *(path.stem for path in (ROOT / "nettailor" / "cli").glob("[a-z]*.py"))}
# these alone import what they need when it is asked for
LATE = {ROOT / "nettailor" / name for name in ("__init__.py", "cli/door.py", "core/arrow_sets.py")}


def package_of(module: str) -> str | None:
    """The innermost of the packages above that holds a module."""
    return max(
        (name for name in BELOW if f"{module}.".startswith(f"{name}.")), default=None, key=len
    )


TOP = {ROOT / name: f"nettailor.{name}" for name in ("teacher", "student", "prune")}
MODULES = {
    path: ".".join((package, *path.relative_to(folder).with_suffix("").parts))
    for folder, package in {ROOT / "nettailor": "nettailor", **TOP}.items()
    for path in sorted(folder.rglob("*.py"))
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_direction(path: Path) -> None:
    module = MODULES[path]
    own = "nettailor.cli" if module.removeprefix("nettailor.") in STARTS else package_of(module)
    assert own is not None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
        else:
            continue
        if path in LATE:
            continue
        assert id(node) in top_level, f"line {node.lineno}: an import hidden inside"
        late = {"import_module", "__import__"} & {alias.name for alias in node.names}
        assert not late, f"line {node.lineno}: only the door imports late"
        for name in names:
            target = package_of(name)
            allowed = {own, *BELOW[own]}
            assert target is None or target in allowed, f"line {node.lineno}: {own} imports {name}"


# what makes a tailored run, from the bottom up
TAILORING = (
    "front", "path_shares", "tailoring", "budget", "by_rank", "by_sizes", "by_shrinking",
    "all_blocks", "hand_over", "commands.tailor", "commands.sweep",
)  # fmt: skip
# task packs: on disk, and above that in memory, or made of runs
PACKS = ("network", "packs", "library", "classifier", "commands.predict")
PACKING = ("network", "packs", "packing", "commands.export")


@pytest.mark.parametrize(
    ("module", "row"),
    [(module, row) for row in (TAILORING, PACKS, PACKING) for module in row],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_parts_build_on_each_other(module: str, row: tuple[str, ...]) -> None:
    path = ROOT.joinpath("nettailor", *module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    above = {f"nettailor.{other}" for other in row[row.index(module) :]}
    assert not names & above


def test_pictures_leave_the_backend_of_matplotlib() -> None:
    """A notebook's own stays."""
    code = (
        "import matplotlib, nettailor.student.drawing, nettailor.report.plots\n"
        "print(matplotlib.get_backend())"
    )
    env = {**os.environ, "MPLBACKEND": "svg"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "svg"
