"""The parts of `gpu.py` that run the project's commands, a function each, which prints its rows."""

import argparse
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from gpu_rows import SMALL, arguments, nettailor, row, run
from PIL import Image

HERE = Path(__file__).resolve().parent


def photographs(given: argparse.Namespace) -> None:
    """JPEGs of 500 × 375 in 20 classes, each class of its own colours."""
    count = 400 if given.quick else 3000
    for number in range(20):
        (given.work / "photographs" / f"class{number}").mkdir(parents=True, exist_ok=True)
    with Pool() as pool:
        pool.starmap(write_photograph, [(given.work, number) for number in range(count)])
    row("photographs of 500 × 375 written", count)


def write_photograph(work: Path, number: int) -> None:
    """Soft shapes and some noise, which compress as photographs do."""
    generator = np.random.default_rng(number)
    name = f"class{number % 20}"
    shapes = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    shapes[..., number % 3] //= 1 + number % 20 // 3
    picture = np.asarray(Image.fromarray(shapes).resize((500, 375), Image.Resampling.BICUBIC))
    noisy = np.clip(picture + generator.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(work / "photographs" / name / f"{number}.jpg", quality=90)


SHORT = """
import sys
import torch
from nettailor.cli import teach
from nettailor.core.flags import run_command
if sys.argv[1] == "cuda":
    torch.cuda.set_per_process_memory_fraction(0.02)
else:
    import resource
    limit = 1_500_000_000 + 4096 * int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv[1:] = sys.argv[2:]
run_command(teach.main)
"""


def memory(given: argparse.Namespace) -> None:
    """A batch that does not fit is one line, exit code 2, and leaves no traceback."""
    words = ["--image-size", "224", "--batch-size", "512", "--epochs", "1", "--workers", "0",
             "--device", given.device, "--out", str(given.work / "memory")]  # fmt: skip
    done = run("-c", SHORT, given.device, *words)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    said = len(lines) == 1 and "not enough memory" in lines[0] and "--batch-size" in lines[0]
    row("out of memory: one line, exit code 2", f"exit code {done.returncode}",
        ok=said and done.returncode == 2 and "Traceback" not in done.stderr)  # fmt: skip


ALONE = """
import sys
import torch
from nettailor.cli import teach
teach.main(sys.argv[1:])
assert not torch.cuda.is_initialized(), "CUDA was taken into use"
"""


def cpu_alone(given: argparse.Namespace) -> None:
    """A run with --device cpu does not take a GPU into use; torch's Adam by itself would."""
    words = [*SMALL, "--device", "cpu", "--epochs", "1", "--limit.train", "100", "--limit.test",
             "20", "--teacher.optimizer", "adam", "--out", str(given.work / "cpu")]  # fmt: skip
    row("--device cpu leaves CUDA alone", ok=run("-c", ALONE, *words).returncode == 0)


RANK = """
import sys
from nettailor.cli import teach
from nettailor.core import device, ranks
meet = ranks.meet
device.ranks.meet = lambda backend: meet("gloo")  # NCCL refuses two ranks on one GPU
teach.main(sys.argv[1:])
"""


def two_ranks(given: argparse.Namespace) -> None:
    """Two ranks, on one GPU, over gloo: the losses of one process."""
    words = [*SMALL, "--device", given.device, "--precision", "float32", "--epochs", "2",
             "--limit.train", "300", "--limit.test", "20", "--batch-size", "15",
             "--teacher.lr", "0.001", "--workers", "0"]  # fmt: skip
    losses = {}
    for count in (1, 2):
        out = given.work / f"ranks{count}"
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517",
                  "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(count)}  # fmt: skip
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, *words, "--out", str(out)],
                env={**os.environ, **(shared if count > 1 else {}), "RANK": str(rank)},
            )
            for rank in range(count)
        ]
        codes = [process.wait() for process in processes]
        files = list(out.rglob("metrics.csv"))
        if any(codes) or not files:
            row(f"{count} ranks: exit codes {codes}", ok=False)
            return
        content = csv.DictReader(files[0].open(encoding="utf-8"))
        losses[count] = [float(one["loss"]) for one in content]
    apart = max(abs(a - b) / a for a, b in zip(losses[1], losses[2], strict=True))
    row("losses of two ranks beside one process's: apart", apart, predicted=2e-3, ok=apart <= 2e-3)


def commands(given: argparse.Namespace) -> None:
    """The commands of a user, one of them cut off by SIGTERM in its midst."""
    out = given.work / "runs"
    base = ["--device", given.device, "--out", str(out)]
    base += [*SMALL, "--limit.train", "300", "--limit.test", "60"] if given.quick else []
    few = ["--epochs", "2" if given.quick else "3", *base]
    spoilt = subprocess.Popen([sys.executable, "-m", "nettailor", "teach", *few])
    until = time.monotonic() + 90
    while not list(out.rglob("metrics.csv")) and time.monotonic() < until:
        time.sleep(0.02)  # the first epoch is done
    spoilt.send_signal(signal.SIGTERM)
    code = spoilt.wait()
    row("teach, SIGTERM in its midst: exit code", code, predicted=143, ok=code in (143, 0))
    done = nettailor("teach", *few)
    accuracy = accuracy_of(out / "digits" / "teacher")
    row("teach gone on: validation, %", accuracy, predicted=90,
        ok=done.returncode == 0 and accuracy > (0 if given.quick else 90))  # fmt: skip
    short = ["--epochs", "1" if given.quick else "3", *base]
    done = nettailor("tailor", *short, "--tolerance", "100" if given.quick else "5")
    row("tailor: validation, %", accuracy_of(out / "digits" / "tailored"), ok=done.returncode == 0)
    done = nettailor("knapsack", *short, "--max-flops", "0.7")
    row("knapsack: validation, %", accuracy_of(out / "digits" / "knapsack"),
        ok=done.returncode == 0)  # fmt: skip
    (tailored,) = (out / "digits" / "tailored").iterdir()
    done = nettailor("export", "--run", str(tailored), "--to", str(given.work / "exported"))
    row("export", ok=done.returncode == 0)
    (teacher,) = (out / "digits" / "teacher").iterdir()
    said = {}
    for device in dict.fromkeys(("cpu", given.device)):
        file = given.work / f"{device}.json"
        pictures = sorted((given.work / "photographs" / "class0").iterdir())[:16]
        done = nettailor("predict", *map(str, pictures), "--run", str(teacher), "--device", device,
                         "--format", "json", "--output", str(file))  # fmt: skip
        found = json.loads(file.read_text(encoding="utf-8"))["images"]
        said[device] = [one["predictions"][0] for one in found]
    pairs = list(zip(said["cpu"], said[given.device], strict=True))
    apart = max(abs(a["probability"] - b["probability"]) for a, b in pairs)
    same = sum(a["label"] == b["label"] for a, b in pairs) / len(pairs)
    row("predict beside the CPU's: probabilities apart", apart, ok=apart < 0.02 and same > 0.9)


def accuracy_of(folder: Path) -> float:
    """Validation accuracy in % of the one run in a folder; NaN where it is not finished."""
    for file in folder.glob("*/summary.json"):
        return float(json.loads(file.read_text(encoding="utf-8"))["accuracy"]["val"])
    return math.nan


def tests(given: argparse.Namespace) -> None:
    """The project's own tests, on this version of torch."""
    names = ["loader", "trainer"] if given.quick else ["student", "trainer", "export", "loader",
             "resume", "gpu"]  # fmt: skip
    files = [str(HERE.parent / "tests" / f"test_{name}.py") for name in names]
    processes = "2" if given.quick else "8"
    done = run("-m", "pytest", "-n", processes, *files, cwd=HERE.parent)
    lines = done.stdout.strip().splitlines() or ["nothing was said"]
    row(f"torch {torch.__version__}: {lines[-1]}", ok=done.returncode == 0)


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    globals()[part](arguments(rest))
