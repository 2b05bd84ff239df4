"""The digest of a backbone: of all that tasks share, and of nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.weights import universal_digest


def moved(name: str, view: Callable[[Tensor], Tensor]) -> Callable[[Backbone], object]:
    """Puts another view of a buffer of the stem's batch norm in its place."""
    return lambda chain: setattr(
        chain.get_submodule("stem.bn1"), name, view(chain.get_buffer(f"stem.bn1.{name}"))
    )


def added(name: str) -> Callable[[Backbone], object]:
    return lambda chain: chain.state_dict()[name].view(-1)[:1].add_(1)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (added("blocks.1.conv2.weight"), True),
        (added("stem.bn1.running_mean"), True),
        (moved("running_mean", lambda tensor: tensor.view(torch.int32)), True),
        (moved("running_mean", lambda tensor: tensor.view(4, -1)), True),
        (added("classifier.weight"), False),
        (added("stem.bn1.num_batches_tracked"), False),
        (lambda chain: chain.to(memory_format=torch.channels_last), False),
    ],
)
def test_digest_covers_what_tasks_share(change, seen):
    chain = create_backbone("test_resnet", 3)
    before = universal_digest(chain)
    assert len(before) == 64
    change(chain)
    assert (universal_digest(chain) != before) is seen
