"""The whole procedure on a CUDA device, where there is one."""

import json
import os
import subprocess
import sys

import pytest
import torch

ON_A_GPU = dict(os.environ)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_teach_and_tailor_on_a_gpu(tmp_path):
    """In processes of their own: tests on the CPU hide the GPU from this one, later than now."""
    words = [
        "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "2",
        "--device", "cuda", "--workers", "2", "--out", str(tmp_path),
    ]  # fmt: skip
    for command in (["teach"], ["tailor", "--tolerance", "100"]):
        subprocess.run(
            [sys.executable, "-m", "nettailor", *command, *words], check=True, env=ON_A_GPU
        )
    (folder,) = (tmp_path / "digits" / "tailored").iterdir()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["latency_ms"]) == {"cuda"}
    assert summary["profile"]["timed_in"] in ("bfloat16", "float16")
    assert not (folder / "state").exists()
