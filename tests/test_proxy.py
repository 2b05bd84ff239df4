"""Proxies: geometry, size, cost, and batch norm scaled by a path weight."""

from copy import deepcopy

import pytest
import torch
from networks import enliven, student_of
from torch import Tensor, nn

from nettailor.core.backbone import create_backbone
from nettailor.core.cost import chain_costs, module_flops, parameters
from nettailor.core.layout import pool
from nettailor.student.costs import path_costs
from nettailor.student.proxy import Proxy, ScaledBatchNorm2d, scaled_affines


def test_pooling_by_hand() -> None:
    """Stride 2: kernel 3, padding 1. Windows along 0 … 4 are {0,1}, {1,2,3}, {3,4}."""
    x = torch.tensor([[[[5.0, 1, 2, 3, 4]]]])
    assert pool(x, 2).flatten().tolist() == [5, 3, 4]
    assert pool(x - 9, 2).flatten().tolist() == [-4, -6, -5]  # what lies outside is no zero
    assert pool(x, 1) is x
    x = torch.tensor([[[[5.0, 1, 2, 7, 0, 3]]]])
    assert pool(x, 2).flatten().tolist() == [5, 7, 7]
    # stride 4: kernel 5, padding 2; windows are {0,1,2}, {2 … 6}
    x = torch.tensor([[[[1.0, 2, 3, 9, 4, 5, 6, 8]]]])
    assert pool(x, 4).flatten().tolist() == [3, 9]
    # stride 3: kernel 4, padding 1; windows are {0,1,2}, and {2,3} of four, {2 … 5} of six
    assert pool(x[..., :4] - 9, 3).flatten().tolist() == [-6, 0]
    assert pool(x[..., :6], 3).flatten().tolist() == [3, 9]


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("side", [7, 8, 13, 16, 31])
def test_pooling_gives_the_target_its_resolution(stride: int, side: int) -> None:
    out = pool(torch.randn(2, 3, side, side + 1), stride)
    assert out.shape == (2, 3, -(-side // stride), -(-(side + 1) // stride))


def times(proxy: Proxy, alpha: float) -> tuple[Tensor, Tensor]:
    """What scales a proxy by α."""
    return scaled_affines([proxy.norm], [torch.tensor(alpha)])[0]


def test_affines_of_several_norms_by_hand() -> None:
    """Each norm's two channels, or three, are multiplied by its own α; gradients reach both."""
    norms = [nn.BatchNorm2d(2), nn.BatchNorm2d(3)]
    with torch.no_grad():
        norms[0].weight.copy_(torch.tensor([1.0, 2.0]))
        norms[1].bias.copy_(torch.tensor([1.0, 0.0, 4.0]))
    alphas = torch.tensor([0.5, 3.0], requires_grad=True)
    (one, other) = scaled_affines(norms, alphas.unbind())
    assert [part.tolist() for part in one] == [[0.5, 1.0], [0.0, 0.0]]
    assert [part.tolist() for part in other] == [[3.0, 3.0, 3.0], [3.0, 0.0, 12.0]]
    sum(part.sum() for part in (*one, *other)).backward()  # type: ignore[union-attr]
    assert alphas.grad is not None
    assert alphas.grad.tolist() == [1 + 2, 3 + 1 + 4]
    assert norms[1].bias.grad is not None
    assert norms[1].bias.grad.tolist() == [3, 3, 3]


def test_basic_proxy_by_hand() -> None:
    """A 1×1 convolution of 24·40 weights and a batch norm of 2·40."""
    proxy = Proxy(24, 40, "basic")
    assert parameters(proxy) == 24 * 40 + 2 * 40
    assert proxy(torch.randn(2, 24, 5, 6), times(proxy, 0.3)).shape == (2, 40, 5, 6)
    assert module_flops(proxy, (24, 5, 6)) == 24 * 40 * 5 * 6


@pytest.mark.parametrize(("channels", "between"), [(256, 16), (1024, 32), (2048, 64)])
def test_bottleneck_proxy_by_hand(channels: int, between: int) -> None:
    """max(C_out / 32, 16) channels between, each convolution with its batch norm."""
    proxy = Proxy(64, channels, "bottleneck")
    assert parameters(proxy) == 64 * between + 2 * between + between * channels + 2 * channels
    assert proxy(torch.randn(2, 64, 3, 3), None).shape == (2, channels, 3, 3)
    assert module_flops(proxy, (64, 3, 3)) == 9 * (64 * between + between * channels)


def test_proxy_costs_an_eighteenth_of_a_basic_block() -> None:
    """Two 3×3 convolutions of C² weights a tap are 18 C², a proxy C²; padding changes nothing."""
    chain = create_backbone("resnet18", 5)
    costs = chain_costs(chain, 64)
    student = student_of("resnet18", 1, beside=False)
    paths, total = path_costs(student, chain, 64)
    assert total == costs.total
    by_key = {path.key: cost for path, cost in zip(student.wiring.paths, paths, strict=True)}
    # block 2 keeps channels and resolution
    assert by_key["block-1-2"] == costs.blocks[1]
    assert by_key["block-1-2"].flops == 18 * by_key["proxy-1-2"].flops
    # batch norms, which count among parameters, bring 18 down to 17.5
    assert by_key["block-1-2"].parameters == 18 * 64**2 + 2 * 2 * 64
    assert by_key["proxy-1-2"].parameters == 64**2 + 2 * 64


def test_proxies_cost_what_they_compute_at_an_odd_size() -> None:
    """67 px: nodes of stride 4 are 17 px, of stride 8 are 9 px."""
    chain = create_backbone("resnet18", 5)
    student = student_of("resnet18", 3, beside=False).eval()
    paths, _ = path_costs(student, chain, 67)
    by_key = {path.key: cost for path, cost in zip(student.wiring.paths, paths, strict=True)}
    assert by_key["proxy-0-1"].flops == 64 * 64 * 17 * 17
    assert by_key["proxy-1-3"].flops == 64 * 128 * 9 * 9
    with torch.no_grad():
        nodes = student(torch.randn(1, 3, 67, 67)).nodes
    assert [None if node is None else node.shape[2] for node in nodes] == [
        17, 17, 17, 9, 9, 5, 5, 3, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("momentum", [0.1, 0.3])
def test_scaled_batch_norm_is_batch_norm_times_scale(momentum: float) -> None:
    """Outputs, running statistics and gradients, in training and in evaluation."""
    norm = nn.BatchNorm2d(6, momentum=momentum)
    enliven(norm)
    scaled = ScaledBatchNorm2d(6, momentum=momentum)
    scaled.load_state_dict(norm.state_dict())
    scale = torch.tensor(0.37, requires_grad=True)
    other = scale.detach().clone().requires_grad_()
    for _ in range(3):
        x = 2 * torch.randn(4, 6, 5, 5) + 1
        (affine,) = scaled_affines([scaled], [scale])
        out, expected = scaled(x, affine), other * norm(x)
        torch.testing.assert_close(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
        for name, buffer in norm.named_buffers():
            if name != "num_batches_tracked":  # which matters without a momentum only
                assert torch.equal(buffer, scaled.get_buffer(name)), name
    torch.testing.assert_close(scale.grad, other.grad)
    torch.testing.assert_close(scaled.weight.grad, norm.weight.grad)
    torch.testing.assert_close(scaled.bias.grad, norm.bias.grad)
    norm.eval()
    scaled.eval()
    before = deepcopy(scaled.state_dict())
    x = torch.randn(4, 6, 5, 5)
    with torch.no_grad():
        (affine,) = scaled_affines([scaled], [scale])
        torch.testing.assert_close(scaled(x, affine), other * norm(x))
        torch.testing.assert_close(scaled(x), norm(x))
    for name, tensor in scaled.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_without_a_scale_it_is_plain_batch_norm() -> None:
    norm, scaled = nn.BatchNorm2d(6), ScaledBatchNorm2d(6)
    x = torch.randn(4, 6, 5, 5)
    assert torch.equal(norm(x), scaled(x))
    assert torch.equal(norm.running_mean, scaled.running_mean)
    assert torch.equal(norm.running_var, scaled.running_var)
