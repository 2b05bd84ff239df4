"""How fast networks are where they are used: modules, .pt2 and ONNX files, interleaved.

    python benchmarks/deploy.py TEACHER_RUN RUN… --out DIR

Times every run's network as trained, folded, as .pt2, and as ONNX in float32 and int8 in ONNX
Runtime, at batch 1 and 64, with `--threads` threads. All of them take turns, pass by pass. The
table gives medians: milliseconds of the first run, and of others the ratio to the first in the same
form, in brackets over the ratio of FLOPs. `--profile` adds where ONNX Runtime spends its time. On a
GPU the folded networks run there too, in half precision and channels last, as a CUDA graph.
Writes `deploy.md`, and `deploy.csv` with the range of the middle half.
"""

import argparse
import copy
import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from os.path import commonprefix
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import nn

from nettailor.core.console import Screen
from nettailor.core.cost import module_flops
from nettailor.core.device import place
from nettailor.core.files import write_text
from nettailor.core.latency import sample, time_in_turn
from nettailor.deploy.check_images import check_images
from nettailor.deploy.int8 import to_int8
from nettailor.deploy.onnx_file import load_onnx, to_onnx
from nettailor.deploy.pt2_file import load_pt2, to_pt2
from nettailor.network import find_run, load_network
from nettailor.prune.fold import fold

BATCHES = (1, 64)
CPU = torch.device("cpu")


class Form(NamedTuple):
    """A network as it is run."""

    run: str
    form: str


class Row(NamedTuple):
    """flops, ratio: over those of the first run; ratio is of the medians in the same form."""

    run: str
    form: str
    batch: int
    flops: float
    median_ms: float
    middle_half_ms: float
    ratio: float


class Deployed(NamedTuple):
    """One run: its folded network, its ONNX content, its other forms, its FLOPs and image side."""

    plain: nn.Module
    content: bytes
    forms: dict[str, nn.Module]
    flops: int
    side: int


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="the first is what others are over")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring, each batch size")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/deploy"))
    arguments = parser.parse_args()
    if torch.cuda.is_available():
        torch.cuda.init()  # type: ignore[no-untyped-call]  # to read a run's images takes a session on the CPU, which hides GPUs
    torch.set_num_threads(arguments.threads)
    folders = [find_run(run) for run in arguments.runs]
    runs = {
        name: deployed(folder, arguments.threads)
        for name, folder in zip(short_names(folders), folders, strict=True)
    }
    rows = [row for batch in BATCHES for row in measured(runs, batch, arguments.seconds)]
    lines = [*table_of(rows)]
    if arguments.profile:
        for batch in BATCHES:
            lines += ["", *profile(runs, batch, arguments.threads)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    write_text(arguments.out / "deploy.csv", table.getvalue())
    write_text(arguments.out / "deploy.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def short_names(folders: list[Path]) -> list[str]:
    """The kind of each run, and what tells its name from the others'."""
    names = [folder.absolute().name for folder in folders]
    first = len(commonprefix(names))  # noqa: RUF071  # of names, not of paths
    last = len(commonprefix([name[first:][::-1] for name in names]))  # noqa: RUF071
    own = [name[first : len(name) - last].strip("-") for name in names]
    kinds = [folder.absolute().parent.name for folder in folders]
    short = [f"{kind} {name}".strip() for kind, name in zip(kinds, own, strict=True)]
    if len({*short}) < len(short):
        return [str(folder) for folder in folders]
    return short


def table_of(rows: list[Row]) -> Iterator[str]:
    """A row a run, a column for each form and batch size."""
    columns = sorted({(row.form, row.batch) for row in rows}, key=lambda one: (one[0], one[1]))
    yield (
        " | ".join(["| run | FLOPs", *(f"{form}, batch {batch}" for form, batch in columns)]) + " |"
    )
    yield "|---" * (2 + len(columns)) + "|"
    first = rows[0].run
    for run in dict.fromkeys(row.run for row in rows):
        own = {(row.form, row.batch): row for row in rows if row.run == run}
        cells = [
            "–" if one not in own
            else f"{own[one].median_ms:.3g} ms" if run == first
            else f"{own[one].ratio:.2f} ({own[one].ratio / own[one].flops:.2f})"
            for one in columns
        ]  # fmt: skip
        yield " | ".join([f"| {run} | {own[columns[0]].flops:.3f}", *cells]) + " |"


def deployed(folder: Path, threads: int) -> Deployed:
    """A run's network in every form."""
    network, architecture = load_network(folder)
    side = architecture.preprocessing.image_size
    plain = place(fold(network), CPU)
    content = to_onnx(plain, side, {})
    forms = {
        "as trained": network,
        "folded": plain,
        "pt2": load_pt2(to_pt2(plain, side, {})),
        "onnx": load_onnx(content, threads=threads),
    }
    with Screen() as screen:
        images = check_images(folder, architecture, screen)
    if images.loaders is not None:
        in_int8 = to_int8(content, images.calibration(), {})
        forms["onnx int8"] = load_onnx(in_int8, threads=threads)
    return Deployed(plain, content, forms, module_flops(plain, (3, side, side)), side)


def measured(runs: dict[str, Deployed], batch: int, seconds: float) -> Iterator[Row]:
    """Every form of every run at one batch size, in turn; on the GPU after the CPU."""
    on_cpu = {
        Form(name, form): module for name, run in runs.items() for form, module in run.forms.items()
    }
    times = in_turn(on_cpu, runs, batch, CPU, seconds)
    if torch.cuda.is_available():
        device = torch.device("cuda")
        on_gpu = {
            Form(name, "folded, cuda graph"): place(copy.deepcopy(run.plain), device)
            for name, run in runs.items()
        }
        times |= in_turn(on_gpu, runs, batch, device, seconds)
    first, *_ = runs
    for key, passes in times.items():
        low, median, high = np.percentile(passes, [25, 50, 75]).tolist()
        ratio = median / float(np.median(np.array(times[Form(first, key.form)])))
        flops = runs[key.run].flops / runs[first].flops
        yield Row(key.run, key.form, batch, flops, median, high - low, ratio)


def in_turn(
    modules: dict[Form, nn.Module],
    runs: dict[str, Deployed],
    batch: int,
    device: torch.device,
    seconds: float,
) -> dict[Form, list[float]]:
    """Milliseconds of each pass, on images of each run's own side."""
    images = {name: sample(batch, 3, run.side, device) for name, run in runs.items()}
    names = {" ".join(form): form for form in modules}
    times = time_in_turn(
        {name: modules[form] for name, form in names.items()},
        {name: images[form.run] for name, form in names.items()},
        device,
        seconds=seconds,
    )
    return {form: times[name] for name, form in names.items()}


def profile(runs: dict[str, Deployed], batch: int, threads: int) -> Iterator[str]:
    """Milliseconds a pass by operator and output side, in ONNX Runtime."""
    yield f"ONNX Runtime, batch {batch}, ms a pass by operator:"
    yield ""
    passes = 20
    for name, run in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(
                run.content, options, providers=["CPUExecutionProvider"]
            )
            images = sample(batch, 3, run.side, CPU).contiguous().numpy()
            for _ in range(passes):
                session.run(None, {"images": images})
            events = json.loads(Path(session.end_profiling()).read_text())
        spent: Counter[str] = Counter()
        for event in events:
            arguments = event.get("args", {})
            if event.get("cat") == "Node" and "output_type_shape" in arguments:
                (shape,) = arguments["output_type_shape"][0].values()
                sides = "×".join(map(str, shape[1:]))
                spent[f"{arguments['op_name']} → {sides}"] += event["dur"] / 1000 / passes
        most = ", ".join(f"{where} {ms:.3f}" for where, ms in spent.most_common(8))
        yield f"- {name}: {sum(spent.values()):.3f} in all; {most}"


if __name__ == "__main__":
    main()
