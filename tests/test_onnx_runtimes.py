"""ONNX files that other runtimes than ONNX Runtime read alike."""

import onnx
import pytest
import torch
from conftest import enliven, lively_chain
from networks import student_of
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from nettailor.core.backbone import Backbone, NetOutput, create_backbone
from nettailor.core.device import place
from nettailor.deploy.int8 import to_int8
from nettailor.deploy.onnx_file import load_onnx, to_onnx
from nettailor.prune.fold import fold
from nettailor.student.network import Student

CPU = torch.device("cpu")
BACKBONES = (
    "test_resnet", "test_efficientnet", "mobilenetv3_small_050", "regnety_002", "test_convnext",
    # attention over channels, group norm, attention over pixels, RMS norm
    "ecaresnet26t", "test_efficientnet_gn",
    pytest.param("mobilenetv4_hybrid_medium", marks=pytest.mark.slow),
    pytest.param("convnext_zepto_rms_ols", marks=pytest.mark.slow),
)  # fmt: skip
SIDE = 64  # pixels; at 32 these networks end in one pixel, of which no mean is taken
# what int8 in OpenVINO reads otherwise, and what a graph of any batch size can do without
UNWANTED = {"Gather", "Range", "Shape", "Expand"}


def operators(content: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(content).graph.node}


def computed_shapes(content: bytes) -> list[str]:
    """Operators whose target shape is no constant of the file."""
    graph = onnx.load_from_string(content).graph
    constants = {tensor.name for tensor in graph.initializer}
    shaped = (node for node in graph.node if node.op_type in ("Reshape", "Expand"))
    return [node.op_type for node in shaped if node.input[1] not in constants]


def in_onnx(network: Backbone | Student) -> bytes:
    """As the export command does it: the network comes with channels last from its folder."""
    return to_onnx(fold(place(network, CPU)), SIDE, {})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_shape_is_computed_for_a_chain(backbone):
    chain = lively_chain(backbone)
    content = in_onnx(chain)
    found = operators(content)
    assert not found & UNWANTED
    assert not computed_shapes(content)
    assert {"Conv", "ReduceMean", "Gemm"} <= found
    answer = load_onnx(content)
    for batch in (1, 3):
        images = torch.randn(batch, 3, SIDE, SIDE)
        with torch.no_grad():
            expected = chain(images).logits
        apart = (answer(images).logits - expected).abs().max()
        assert float(apart) < 1e-4 * float(expected.abs().max())


class Spread(nn.Module):
    """The sum of two rows of (B, 3, 1, S), each spread over the images' height first."""

    def forward(self, images: Tensor) -> NetOutput:
        first, second = images.mean(2, keepdim=True), images.amax(2, keepdim=True)
        total = first.expand_as(images) + second.expand_as(images)
        return NetOutput(total.flatten(1), [])


def test_a_size_that_only_expanding_gives_is_kept():
    content = to_onnx(Spread(), SIDE, {})
    assert not operators(content) & (UNWANTED - {"Expand"})
    assert not computed_shapes(content)
    images = torch.randn(3, 3, SIDE, SIDE)
    torch.testing.assert_close(load_onnx(content)(images).logits, Spread()(images).logits)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_no_shape_is_computed_for_a_student(backbone):
    student = student_of(create_backbone(backbone, 5), adapters=True)
    enliven(student)
    kinds = {path.kind for path in student.wiring.paths}
    assert kinds == {"block", "proxy", "identity", "exit", "head"}
    assert not operators(in_onnx(student.eval())) & UNWANTED


def digits() -> tuple[Tensor, Tensor]:
    """All 1797 digits at 64 px, -1 to 1, and their classes."""
    found = load_digits()
    pixels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    large = nn.functional.interpolate(pixels, SIDE, mode="bilinear").expand(-1, 3, -1, -1)
    return large.contiguous(), torch.tensor(found.target)


def taught() -> Backbone:
    """test_efficientnet, trained for 5 epochs on the first 1000 digits: 95 % of the others."""
    torch.manual_seed(0)
    images, labels = (part[:1000] for part in digits())
    chain = place(create_backbone("test_efficientnet", 10), CPU)
    optimizer = torch.optim.SGD(chain.parameters(), lr=0.03, momentum=0.9, nesterov=True)
    schedule = OneCycleLR(optimizer, max_lr=0.09, total_steps=200)
    for _ in range(5):
        for batch in torch.randperm(len(images)).split(25):
            loss = nn.functional.cross_entropy(chain(images[batch]).logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return chain.eval()


def test_int8_says_the_same_in_both_runtimes():
    """With the Gather in it, OpenVINO agreed on 37 % of the images."""
    pytest.importorskip("openvino")
    from nettailor.deploy.openvino_file import load_openvino

    images, labels = digits()
    content = to_int8(in_onnx(taught()), images[:256].split(64), {})
    assert not operators(content) & UNWANTED
    images, labels = images[1000:], labels[1000:]
    one, other = (load(content)(images).logits.argmax(1) for load in (load_onnx, load_openvino))
    assert float((one == labels).float().mean()) > 0.9
    assert float((one == other).float().mean()) >= 0.98
    # any batch size
    assert load_openvino(content)(images[:1]).logits.shape == (1, 10)
