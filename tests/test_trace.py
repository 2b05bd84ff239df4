"""What a network calls, written down: its modules, torch's functions, numbers from shapes."""

import operator
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nettailor.core.errors import UserError
from nettailor.core.meta import meta_copy
from nettailor.core.trace import image_nodes, trace, value_of

EXAMPLE = (3, 8, 8)
BATCH = 1009


def traced(network: nn.Module, *leaves: str, batch: int = BATCH) -> fx.Graph:
    return trace(meta_copy(network), EXAMPLE, batch, lambda name: name in leaves)


def replayed(network: nn.Module, graph: fx.Graph, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a network gives and what its graph gives."""
    for node in graph.nodes:
        node.meta.clear()
    with torch.no_grad():
        return network(images), fx.GraphModule(network, graph)(images)


class Odd(nn.Module):
    """Reads shapes, passes options and makes tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.register_buffer("scale", torch.tensor([2.0]))
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor, mask: Tensor | None = None, *, twice: bool = True) -> Tensor:
        batch, channels, height, width = x.shape
        if height * width > 10 and mask is None:
            x = F.pad(x, (0, 0, 0, 0, 0, 4 - channels))
        tokens = x.reshape(batch, 4, -1).transpose(1, 2)
        tokens = torch.cat([self.token.expand(batch, -1, -1), tokens], dim=1)
        places = torch.arange(tokens.shape[1], device=x.device, dtype=x.dtype)
        tokens = tokens + places[None, :, None] * self.scale
        for layer in self.layers:
            tokens = layer(tokens) if twice else tokens
        first, rest = tokens.split([1, height * width], dim=1)
        rest[:, 0] = 7.0
        rest += first
        return rest.mT.flatten(1).view(batch, -1)[:, : 2 * channels] / batch


def test_a_graph_computes_what_the_network_does() -> None:
    network = Odd()
    graph = traced(network)
    targets = [node.target for node in graph.nodes]
    assert "layers.1" in targets
    assert operator.setitem in targets
    for count in (1, 2, 5):  # it holds for any number of images
        mine, theirs = replayed(network, graph, torch.randn(count, *EXAMPLE))
        assert torch.equal(mine, theirs)


def test_what_a_node_is_known_by() -> None:
    graph = traced(nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(320, 2)))
    images, convolution, relu, flat, linear, _ = image_nodes(graph)
    assert value_of(images).shape == (BATCH, 3, 8, 8)
    assert value_of(convolution).shape == (BATCH, 5, 8, 8)
    assert value_of(flat).shape == (BATCH, 320)
    assert [value_of(node).flops for node in (convolution, relu, linear)] == [960, 0, 640]
    assert all(value_of(node).intact for node in (convolution, relu, linear))


def test_modules_are_opened_but_for_leaves() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Tanh())))
    opened, *_ = [node for node in traced(network).nodes if node.op == "call_module"]
    assert (opened.target, value_of(opened).owners) == ("0.0", ("0",))
    closed = [node for node in traced(network, "0.1").nodes if node.op == "call_module"]
    assert [node.target for node in closed] == ["0.0", "0.1"]


class WritesInto(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        view = y[:, :1]
        view.add_(1)
        return y.flatten(1)


def test_what_was_written_into_later_is_not_intact() -> None:
    graph = traced(WritesInto())
    values = {node.name: value_of(node).intact for node in image_nodes(graph)}
    assert not values["mul"]
    assert values["add_"]
    assert values["flatten"]
    assert torch.equal(*replayed(WritesInto(), graph, torch.randn(3, *EXAMPLE)))


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Kept(nn.Module):
    """The value that a dropout reads is needed again, and in evaluation it gives the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.same = nn.Dropout(0.5), Same()

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.same(self.drop(x))).flatten(1)


def test_a_layer_that_gives_its_input_is_a_call_all_the_same() -> None:
    graph = traced(Kept())
    (total,) = [node for node in graph.nodes if node.name == "add"]
    assert [node.op for node in total.all_input_nodes] == ["placeholder", "call_module"]


class Opaque(nn.Module):
    """Its inside cannot be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = self.linear.bias * 1
        return self.linear(x) + shift


def test_what_cannot_be_written_down_is_called_as_a_whole() -> None:
    graph = traced(nn.Sequential(Opaque(), nn.ReLU(), Opaque()))
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["0", "1", "2"]


def test_a_network_that_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(UserError, match=r"Opaque cannot be traced: .*by hand as Backbone"):
        traced(Opaque())


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=self.training).flatten(1)


class Powers(nn.Module):
    """Operators that torch writes in Python."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 - (x.abs() ** 2 + 1) ** 0.5 + 3 / (1 + x.abs()) + 2**x


def test_operators_are_found_again_in_a_copy() -> None:
    network, images = Powers(), torch.randn(2, *EXAMPLE)
    graph = traced(network)
    for node in graph.nodes:
        node.meta.clear()
    copy = deepcopy(fx.GraphModule(network, graph))
    torch.testing.assert_close(copy(images), network(images), rtol=0, atol=0)


def test_a_function_follows_the_mode_that_it_is_told() -> None:
    network = Functional()
    replay = fx.GraphModule(network, traced(network))
    images = torch.ones(2, *EXAMPLE)
    assert torch.equal(replay.eval()(images), images.flatten(1))
    assert (replay.train()(images) == 0).any()


def test_tracing_leaves_no_hooks_and_no_mode() -> None:
    network = meta_copy(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()))
    trace(network, EXAMPLE, BATCH, lambda name: False)
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert torch.equal(torch.relu(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))
