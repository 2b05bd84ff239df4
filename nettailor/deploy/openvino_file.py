"""ONNX answered by OpenVINO, with the settings that it takes unless told otherwise."""

import io

import openvino
import torch
from torch import Tensor

from nettailor.deploy.written import Loaded


def load_openvino(content: bytes) -> Loaded:
    """The content of an ONNX file as a network on the CPU."""
    model = openvino.Core().read_model(io.BytesIO(content))
    compiled = openvino.compile_model(model, "CPU")

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())

    return Loaded(answer)
