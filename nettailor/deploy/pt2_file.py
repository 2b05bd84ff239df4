"""PyTorch's own: a program written by torch.export."""

import io
import json
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from nettailor.core.program import program_of
from nettailor.deploy.written import Loaded

METADATA = "metadata.json"


def to_pt2(network: nn.Module, image_size: int, about: Mapping[str, str]) -> bytes:
    """A plain network as the content of a .pt2 file with any batch size.

    `about` is its extra file `metadata.json`.
    """
    content, program = io.BytesIO(), program_of(network, image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the lines of the source that every node came from, paths of this machine included
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, content, extra_files={METADATA: json.dumps(dict(about))})
    return content.getvalue()


def load_pt2(content: bytes) -> Loaded:
    """The content of a .pt2 file of our own as a network on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(io.BytesIO(content)).module()
    # such a module refuses to be put in eval mode, in which it always is
    return Loaded(lambda images: module(images))
