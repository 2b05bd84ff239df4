"""ONNX: written by torch's dynamo exporter, answered by ONNX Runtime."""

import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import onnxruntime
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from nettailor.deploy.settled_shapes import settle_shapes
from nettailor.deploy.written import Loaded

OPSET = 20


def to_onnx(network: nn.Module, image_size: int, about: Mapping[str, str]) -> bytes:
    """A plain network as the content of an ONNX file with any batch size.

    Input `images`, output `logits`; opset 20; `about` becomes its metadata.
    """
    images = torch.zeros(2, 3, image_size, image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            external_data=False,
        )
    assert program is not None
    settle_shapes(program.model)
    # the exporter notes the source line of every node, paths of this machine included
    ClearMetadataAndDocStringPass()(program.model)
    model = program.model_proto
    del model.graph.value_info[:]
    for told in (model, *model.graph.input, *model.graph.output):
        del told.metadata_props[:]
    return with_metadata(model, about)


def with_metadata(model: Any, about: Mapping[str, str]) -> bytes:
    """The content of a file with these texts as its metadata."""
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def load_onnx(content: bytes, *, threads: int | None = None) -> Loaded:
    """The content of an ONNX file as a network on the CPU.

    Args:
        threads: that compute one operator; None for the runtime's choice.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # int8 sums that do not overflow where the processor has no VNNI
    options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return Loaded(answer)
