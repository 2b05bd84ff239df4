"""What ten tasks cost on one set of blocks, beside ten networks of their own.

    python benchmarks/packs.py RUN...

Packs are made of the given `task` runs under ten names, in turn. It prints, and writes to packs.md:
resident memory of both ways, each in a fresh process and after one forward pass of every task;
bytes on disk; the time to switch tasks; the latency of a pack's network beside the same network
folded (batch norms and path weights in the convolutions, which cannot be shared then). The packed
and the folded network run in turn in one process.
"""

import argparse
import ctypes
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from nettailor.core.architecture import ARCHITECTURE_FILE, WEIGHTS_FILE
from nettailor.core.device import place
from nettailor.core.files import write_text
from nettailor.core.latency import measure_latency
from nettailor.library import Library
from nettailor.network import load_network
from nettailor.packing import add_to_library
from nettailor.prune.fold import fold

TASKS = 10
SWITCHES = 200
CPU = torch.device("cpu")


def resident(kind: str) -> int:
    """Bytes of this process in memory, by Linux: "VmRSS", all, or "RssAnon", no file's.

    Memory that was freed is given back first: what loading takes for a moment is not counted.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{kind}:"))
    return 1024 * int(kilobytes)


@torch.no_grad()
def use(way: str, place: Path, names: list[str]) -> tuple[int, int]:
    """Bytes of memory with all tasks loaded and used, in a process that has done nothing else.

    Of the whole process, and what came with the tasks.

    way: "library" of the folder `place`, or "networks" of the run folders in it.
    """
    images = torch.zeros(1, 3, 64, 64)
    torch.nn.Conv2d(3, 8, 3)(images)  # torch's own buffers are nobody's
    before = resident("RssAnon")
    if way == "library":
        library = Library(place)
        networks: list[torch.nn.Module] = [library[name] for name in names]
    else:
        networks = [load_network(place / name)[0] for name in names]
    for network in networks:
        network(images)
    return resident("VmRSS"), resident("RssAnon") - before


def memory(way: str, place: Path, names: list[str], rounds: int = 3) -> tuple[float, float]:
    """The medians of what fresh processes say, in bytes."""
    said = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--use", way, str(place), *names]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said.append([int(number) for number in done.stdout.split()])
    whole, added = (statistics.median(column) for column in zip(*said, strict=True))
    return whole, added


def bytes_in(folder: Path) -> int:
    """Of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def switch_times(library: Library) -> tuple[float, float, float]:
    """Milliseconds: the first use of all, a first use, from a loaded task to another: medians."""
    first = []
    for task in library.tasks:
        started = time.perf_counter()
        library[task]
        first.append(1000 * (time.perf_counter() - started))
    loaded = []
    for turn in range(SWITCHES):
        task = library.tasks[turn % len(library.tasks)]
        started = time.perf_counter()
        library[task]
        loaded.append(1000 * (time.perf_counter() - started))
    return first[0], statistics.median(first[1:]), statistics.median(loaded)


def report(runs: list[Path]) -> str:
    """The tables, in Markdown."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, apart = Path(scratch) / "library", Path(scratch) / "apart"
        names = [f"task-{number}" for number in range(TASKS)]
        for number, name in enumerate(names):
            run = runs[number % len(runs)]
            add_to_library(run, folder, name)
            (apart / name).mkdir(parents=True)
            for file in (ARCHITECTURE_FILE, WEIGHTS_FILE):
                (apart / name / file).write_bytes((run / file).read_bytes())
        held = memory("library", folder, names), memory("networks", apart, names)
        whole_process, added = zip(*held, strict=True)
        disk = [bytes_in(folder), bytes_in(apart)]
        packs = bytes_in(folder / "packs") / TASKS
        whole, first, loaded = switch_times(Library(folder))
        library, sections = Library(folder), []
        for run, name in zip(runs, names, strict=False):
            architecture = library[name].architecture
            sections.append(latency(library, name, run, architecture.preprocessing.image_size))
    backbone = disk[0] - TASKS * packs
    lines = [
        f"# {TASKS} task packs on one backbone",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, "
        f"{platform.machine()}; packs of: {', '.join(run.name for run in runs)}.",
        "",
        f"| | one backbone + {TASKS} packs | {TASKS} networks | ratio |",
        "|---|---|---|---|",
        row("resident memory of the whole process, MB", whole_process),
        row("resident memory that came with the tasks, MB", added),
        row("on disk, MB", disk),
        "",
        f"A pack is {packs / 1e6:.2f} MB on disk, {packs / backbone:.1%} of the backbone's "
        f"{backbone / 1e6:.2f} MB.",
        "",
        "| switch to | median, ms |",
        "|---|---|",
        f"| a loaded task | {loaded:.5f} |",
        f"| a task on its first use, backbone loaded | {first:.1f} |",
        f"| the first task of all, with the backbone | {whole:.1f} |",
        "",
        "| latency, ms (range of the middle half) | batch | packed | folded | packed / folded |",
        "|---|---|---|---|---|",
        *(line for section in sections for line in section),
    ]
    return "\n".join(lines) + "\n"


def row(label: str, values: Sequence[float]) -> str:
    """A row of two numbers of bytes and their ratio."""
    one, other = (value / 1e6 for value in values)
    return f"| {label} | {one:.2f} | {other:.2f} | {one / other:.2f} |"


def latency(library: Library, task: str, run: Path, image_size: int) -> list[str]:
    """Rows for batch 1 and 64 of one run."""
    student, _ = load_network(run)
    networks = {"packed": library[task], "folded": place(fold(student), CPU)}
    times = measure_latency(networks, image_size, CPU, seconds=10)
    lines = []
    for batch in times["packed"]:
        packed, folded = (times[name][batch] for name in ("packed", "folded"))
        lines.append(
            f"| {run.name} | {batch} | {packed['median']:.2f} ({packed['iqr']:.2f}) "
            f"| {folded['median']:.2f} ({folded['iqr']:.2f}) "
            f"| {packed['median'] / folded['median']:.2f} |"
        )
    return lines


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("packs.md"))
    parser.add_argument("--use", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.use:
        way, folder, *names = given.use
        print(*use(way, Path(folder), names))
        return
    if not given.runs:
        parser.error("give a run folder of `python -m nettailor.tailor --finetune task`")
    text = report(given.runs)
    print(text, end="")
    write_text(given.output, text)


if __name__ == "__main__":
    main()
