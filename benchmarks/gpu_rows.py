"""What the parts of `gpu.py` share: their command line and the rows that they print."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# timm's smallest network with images to match, for what has to take seconds only
SMALL = ("--backbone", "test_resnet", "--weights", "none", "--image-size", "32")


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line of a part: device, work, quick."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(words)


def row(what: str, measured: Any = None, *, predicted: Any = None, ok: bool | None = None) -> None:
    """Print one row; `ok` is None where nothing was checked."""
    content = {"what": what, "predicted": predicted, "measured": measured, "ok": ok}
    print("ROW " + json.dumps(content), flush=True)


def nettailor(*words: str, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """A command of the project in a process of its own; what it says goes to the log, too."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "nettailor", *words],
        capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    print("$ nettailor", *words, f"-> {done.returncode}")
    print(done.stdout[-2000:], done.stderr[-3000:], flush=True)
    row(f"{words[0]}, the whole command: s", time.monotonic() - started)
    return done
