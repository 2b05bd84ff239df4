"""Time by widths: measured for real, so only what holds on any machine is asked."""

import numpy as np
import pytest
import torch
from conftest import lively_chain
from networks import transformer

from nettailor.core.device import place
from nettailor.prune import layer_times
from nettailor.prune.channels import trace_channels
from nettailor.prune.layer_times import measure_times
from nettailor.prune.widths import allowed


def test_layers_that_read_one_shape_read_one_batch(monkeypatch):
    """Else a batch of 64 large images would take gigabytes."""
    seen: dict[str, torch.Tensor] = {}

    def once(modules, inputs, *_, **__):
        seen.update(inputs)
        return {name: [1.0] for name in modules}

    monkeypatch.setattr(layer_times, "time_in_turn", once)
    cpu = torch.device("cpu")
    network = place(lively_chain("test_resnet"), cpu)
    measure_times(network, trace_channels(network, 64), 64, cpu, batch=16)
    whole = seen.pop("whole")
    assert whole.shape == (16, 3, 64, 64)
    shapes, batches = {x.shape for x in seen.values()}, {x.data_ptr() for x in seen.values()}
    assert len(batches) == len(shapes) < len(seen) / 4


@pytest.mark.parametrize("backbone", ["test_resnet", "regnety_002", "swin"])
def test_shares_of_the_whole_networks_time(backbone):
    cpu = torch.device("cpu")
    network = place((transformer if backbone == "swin" else lively_chain)(backbone), cpu)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    channels = trace_channels(network, 64)
    costs, whole = measure_times(network, channels, 64, cpu, batch=16, seconds=0.5)
    assert whole > 0
    ranges = allowed(channels.families, 1)
    half = np.array([(counts[-1] + 1) // 2 for counts in ranges.counts])
    least, middle, most = costs.of(np.stack([ranges.least, half, ranges.most]))
    assert most == pytest.approx(1)
    assert 0 <= least < middle < most
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
