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


def run(*words: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    """Python in a process of its own; the end of what it says goes to the log, too."""
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, **settings
    )
    print("$ python", *words, f"-> {done.returncode}")
    print(done.stdout[-6000:], done.stderr[-4000:], flush=True)
    return done


def nettailor(*words: str) -> "subprocess.CompletedProcess[str]":
    """A command of the project, and a row of how long it took."""
    started = time.monotonic()
    done = run("-m", "nettailor", *words, timeout=120)
    row(f"{words[0]}, the whole command: s", time.monotonic() - started)
    return done
