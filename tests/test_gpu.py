"""The whole procedure on a CUDA device, where there is one."""

import json
from pathlib import Path

import pytest
import torch

from nettailor import tailor, teach


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_teach_and_tailor_on_a_gpu(tmp_path: Path) -> None:
    argv = [
        "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "2",
        "--device", "cuda", "--workers", "2", "--out", str(tmp_path),
    ]  # fmt: skip
    teach.main(argv)
    tailor.main([*argv, "--tolerance", "100"])
    (folder,) = (tmp_path / "digits" / "tailored").iterdir()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["latency_ms"]) == {"cuda"}
    assert not (folder / "state").exists()
