"""Where a run computes: the CPU alone where it is asked for, one GPU a process, and in what."""

import os
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from shell import DIGITS

from nettailor.cli import tailor
from nettailor.core.device import chosen_precision, worker_count


def test_a_run_on_the_cpu_leaves_a_gpu_alone(shell, monkeypatch):
    """A GPU is there, and the first call that would take it into use ends the test."""

    def taken():
        raise AssertionError("CUDA was initialised")

    def seen():
        return len(os.environ["CUDA_VISIBLE_DEVICES"])

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen() > 0)
    for module in (torch.cuda, torch.cuda.random):
        monkeypatch.setattr(module, "device_count", seen)
        monkeypatch.setattr(module, "_lazy_init", taken)
    with pytest.raises(AssertionError, match="CUDA was initialised"):
        torch.cuda.get_rng_state_all()
    assert shell(*DIGITS)[0] == 0
    assert shell(*DIGITS, "--tolerance", "100", main=tailor.main)[0] == 0


@pytest.mark.parametrize(
    ("asked", "native", "on_cpu", "chosen"),
    [
        ("auto", True, False, "bf16"),
        ("auto", False, False, "float32"),  # T4, V100: bf16 is imitated there
        ("auto", True, True, "float32"),
        ("fp16", False, False, "fp16"),
        ("bf16", False, True, "bf16"),
    ],
)
def test_auto_precision(asked, native, on_cpu, chosen, monkeypatch):
    def supported(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert chosen_precision(asked, on_cpu=on_cpu) == chosen


@pytest.mark.parametrize(
    ("cores", "ranks", "workers"),
    [(1, 1, 0), (2, 1, 0), (8, 1, 6), (16, 1, 14), (16, 4, 2), (99, 1, 16)],
)
def test_workers_by_the_cores_that_a_rank_has(cores, ranks, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert worker_count(None) == workers
    assert worker_count(3) == 3


TAKE = """
import sys
from pathlib import Path
from nettailor.core.device import take_first_free
place = Path(sys.argv[1])
print(take_first_free(["one", "two"], place), take_first_free(["one", "two"], place), flush=True)
sys.stdin.read()
"""


def test_each_process_takes_a_gpu_of_its_own(tmp_path):
    """The first two take one each, the third shares one, and an ended one's is free."""

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return process, [int(word) for word in process.stdout.readline().split()]

    def end(process):
        process.communicate()

    first, took_first = start()
    second, took_second = start()
    third, took_third = start()
    assert (took_first, took_second) == ([0, 0], [1, 1])
    assert took_third in ([0, 0], [1, 1])
    end(first)
    fourth, took_fourth = start()
    assert took_fourth == [0, 0]
    for process in (second, third, fourth):
        end(process)
    with FileLock(tmp_path / "nettailor-one.lock").acquire(timeout=0):
        pass
