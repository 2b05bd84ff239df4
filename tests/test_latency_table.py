"""The table of times: additive by construction, in order, and of the paths that it names."""

import time

import pytest
import torch
from conftest import lively_chain
from networks import TRANSFORMERS, student_of, transformer
from torch import nn

from nettailor.core.backbone import Backbone, NetOutput
from nettailor.student.latency_table import LatencyTable, measure_paths
from nettailor.student.network import Student

BRIEF = 0.05  # seconds for all measurements


def pair(backbone: str) -> tuple[Backbone, Student]:
    make = transformer if backbone in TRANSFORMERS else lively_chain
    return make(backbone), student_of(make(backbone), "dense")


def table_of(chain: Backbone, student: Student, batch: int = 1) -> LatencyTable:
    return measure_paths(student, chain, 64, torch.device("cpu"), batch=batch, seconds=BRIEF)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "swin"]
)
def test_the_backbones_paths_add_up_to_the_whole(backbone, batch):
    chain, student = pair(backbone)
    student.train()
    table = table_of(chain, student, batch)
    paths = student.wiring.paths
    assert list(table.paths) == [path.key for path in paths]
    own = [table.paths[path.key] for path in paths if path.kind in ("block", "head")]
    assert table.stem + sum(own) == pytest.approx(table.whole, abs=1e-9)
    assert table.stem > 0
    assert table.whole > 0
    for path in paths:
        milliseconds = table.paths[path.key]
        assert milliseconds == 0 if path.kind == "identity" else milliseconds > 0
    assert {path.kind for path in paths} == {"block", "identity", "proxy", "head", "exit"}
    assert student.training
    assert not chain.training


def sleep(*_: object) -> None:
    time.sleep(0.02)


def test_each_time_is_that_of_its_own_path():
    """One path at a time is made to sleep, and the table says which."""
    chain, student = pair("test_resnet")
    keys = [path.key for path in student.wiring.paths]
    modules: dict[str, nn.Module] = {}
    for path in student.wiring.paths:
        for parts in (student.blocks, student.proxies, student.heads):
            if path.key in parts:
                modules[path.key] = parts[path.key]
    assert len(modules) == len(keys) - len(student.wiring.of_kind("identity"))
    for key in ("block-1-2", "proxy-0-4", "exit-2-5", "head-4-5"):
        hook = modules[key].register_forward_hook(sleep)
        table = table_of(chain, student)
        hook.remove()
        assert max(keys, key=table.paths.__getitem__) == key
    hook = student.stem.register_forward_hook(sleep)
    table = table_of(chain, student)
    hook.remove()
    assert table.stem > max(table.paths.values())


def test_adapters_come_on_top_of_the_backbone():
    """One takes 20 ms, the whole backbone a few: its path takes longer than the backbone."""
    chain = lively_chain("test_resnet")
    student = student_of("test_resnet", 0, exits=False, batch_norm="train", adapters=True)
    student.adapters["block-1-2"].register_forward_hook(sleep)
    table = table_of(chain, student)
    assert table.paths["block-1-2"] > table.whole
    assert table.paths["block-0-1"] < table.whole


def test_the_whole_is_the_chain_that_is_given():
    """A product of large matrices, which no path of the student has, is in the whole."""
    chain, student = pair("test_resnet")
    alone = table_of(chain, student).whole
    large = torch.randn(1000, 1000)

    def slower(_: object, __: object, out: NetOutput) -> NetOutput:
        return out._replace(logits=out.logits + (large @ large).sum())

    chain.register_forward_hook(slower)
    assert table_of(chain, student).whole > 3 * alone
