"""Loaders that shuffle, draw from a generator or are empty; calls that keep to what they say."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from networks import labelled, lively_chain
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import nettailor as nt
from nettailor.core.backbone import Backbone
from nettailor.core.device import start_accelerator
from nettailor.core.epochs import LoaderEpochs
from nettailor.core.errors import NotFiniteError
from nettailor.core.judge import error_of_difference
from nettailor.fitting import accelerator_for, scores_on, side_of
from nettailor.prune.plan import PrunePlan

QUIET: dict[str, Any] = {"verbose": False}


def data(count: int = 64, seed: int = 5) -> TensorDataset:
    return TensorDataset(*labelled(count, seed))


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    return DataLoader(data(), 16, shuffle=True), DataLoader(data(32, 6), 32)


def test_a_network_is_no_other_than_itself_where_validation_is_shuffled() -> None:
    """No image is right of one and wrong of the other: half an image of either kind is left."""
    network, accelerator = lively_chain("test_resnet"), accelerator_for("cpu")
    shuffled = DataLoader(data(), 16, shuffle=True)
    torch.manual_seed(0)
    one, other = (scores_on(shuffled, network, accelerator).right for _ in range(2))
    assert error_of_difference(one, other) == pytest.approx(100 / 66)
    assert 0 < sum(one) < len(one), "in another order it would show"


def test_batches_in_a_list_are_validated_on_as_well() -> None:
    network, accelerator = lively_chain("test_resnet"), accelerator_for("cpu")
    loader = loaders()[1]
    assert scores_on(list(loader), network, accelerator) == scores_on(loader, network, accelerator)


@pytest.mark.parametrize("owner", ["loader", "sampler", "batch sampler"])
def test_a_generator_of_its_own_is_seeded_as_well(owner: str) -> None:
    dataset, own = data(), torch.Generator().manual_seed(1)
    sampler = RandomSampler(dataset, generator=own)
    batched = torch.utils.data.BatchSampler(sampler, 16, drop_last=False)
    loader = {
        "loader": DataLoader(dataset, 16, shuffle=True, generator=own),
        "sampler": DataLoader(dataset, 16, sampler=sampler),
        "batch sampler": DataLoader(dataset, batch_sampler=batched),
    }[owner]
    epochs = LoaderEpochs(loader, 0)
    first, second, again = (
        torch.cat([labels for _, labels in epochs.epoch(number)]) for number in (1, 2, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def shrunk(student: nt.Student, teacher: Backbone) -> None:
    nt.shrink(student, teacher, *loaders(), max_flops=0.6, epochs=1, **QUIET)


CALLS: dict[str, Callable[[nt.Student, Backbone], object]] = {
    "shrink": shrunk,
    "best_route": lambda one, whole: nt.best_route(one, whole, loaders()[0], max_flops=0.6),
    "cut": lambda one, _: nt.cut(one, PrunePlan("all", one.wiring, one.wiring), loaders()[0]),
    "narrow": lambda _, whole: nt.narrow(whole, loaders()[0], max_flops=0.6),
    "validation": lambda _, whole: scores_on(loaders()[0], whole, accelerator_for("cpu")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_generators_are_left_as_they_were_found(
    call: Callable[[nt.Student, Backbone], object],
) -> None:
    teacher = lively_chain("test_resnet")
    student = nt.Student(teacher)
    before = torch.get_rng_state()
    call(student, teacher)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_look_leaves_a_generator_of_the_loader_where_it_was() -> None:
    own = torch.Generator().manual_seed(1)
    loader = DataLoader(data(), 16, shuffle=True, generator=own)
    before = own.get_state()
    side_of(loader, 0)
    scores_on(loader, lively_chain("test_resnet"), accelerator_for("cpu"))
    assert torch.equal(own.get_state(), before)


def test_a_shrunk_student_has_the_momenta_that_it_had() -> None:
    teacher = lively_chain("test_resnet")
    shrunk(student := nt.Student(teacher), teacher)
    norms = [one for one in student.modules() if isinstance(one, _BatchNorm)]
    assert {norm.momentum for norm in norms} == {0.1}


@pytest.mark.parametrize(
    "other", [{"max_flops": 0.5}, {"max_params": 0.6}, {"max_flops": 0.6, "epochs": 3}, {}]
)
def test_a_run_holds_one_call_of_a_name(tmp_path: Path, other: dict[str, Any]) -> None:
    teacher = lively_chain("test_resnet")
    run = nt.Run(tmp_path)

    def call(**how: Any) -> list[Any]:
        how = {"epochs": 2, "run": run, **QUIET, **how}
        return nt.shrink(nt.Student(teacher), teacher, *loaders(), **how)

    first = call(max_flops=0.6)
    with pytest.raises(nt.UserError, match=r"student was begun in .* is .* there and .* here"):
        call(**other)
    assert [one.cost for one in call(max_flops=0.6)] == [one.cost for one in first]
    fitted(lr=0.001, name="one", run=run)
    with pytest.raises(nt.UserError, match=r"one was begun .*lr is 0\.001 there and 0\.01 here"):
        fitted(lr=0.01, name="one", run=run)
    (tmp_path / "calls.json").write_text("[]", encoding="utf-8")
    with pytest.raises(nt.UserError, match=r"calls\.json: is damaged"):
        call(max_flops=0.6)
    run.close()


def test_a_call_that_has_not_trained_binds_nobody(tmp_path: Path) -> None:
    """Such as one whose loss became NaN at the learning rate that it was given."""
    run = nt.Run(tmp_path)
    with pytest.raises(NotFiniteError):
        fitted(lr=1e30, name="one", run=run)
    fitted(lr=0.001, name="one", run=run)
    run.close()


def test_numbers_of_numpy_and_names_as_timm_takes_them(tmp_path: Path) -> None:
    run = nt.Run(tmp_path)
    how = {"name": "one", "run": run, "optimizer": "AdamW"}
    fitted(seed=np.int64(1), lr=np.float32(0.5), **how)
    fitted(seed=1, lr=0.5, **how)
    run.close()


def empty() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(0, 3, 32, 32), torch.zeros(0).long()), 4)


def tailored(**how: Any) -> None:
    nt.tailor(lively_chain("test_resnet"), *loaders(), **how, **QUIET)


def shrunk_with(**how: Any) -> None:
    teacher = lively_chain("test_resnet")
    nt.shrink(nt.Student(teacher), teacher, *loaders(), **how, **QUIET)


def fitted(**how: Any) -> None:
    both = dict(zip(("train_loader", "val_loader"), loaders(), strict=True))
    nt.fit(lively_chain("test_resnet"), nt.CrossEntropy(), **{**both, "epochs": 1, **QUIET, **how})


def routed(**how: Any) -> None:
    teacher = lively_chain("test_resnet")
    nt.best_route(nt.Student(teacher), teacher, loaders()[0], **how)


@pytest.mark.parametrize(
    ("call", "how", "said"),
    [
        (shrunk_with, {"epochs": 0}, "epochs is 0: expected at least 1"),
        (shrunk_with, {"epochs": -1}, "epochs is -1: expected at least 1"),
        (tailored, {"student_epochs": 0}, "student_epochs is 0: expected at least 1"),
        (tailored, {"finetune_epochs": 0}, "finetune_epochs is 0: expected at least 1"),
        (tailored, {"levers": ("block",)}, "levers are 'block': expected one or more of blocks, "),
        (tailored, {"levers": ()}, "levers are none: expected one or more of blocks, channels, "),
        (fitted, {"val_loader": empty()}, "the loader is empty: expected a batch at least"),
        (fitted, {"optimizer": "adamv"}, "optimizer is 'adamv': no optimizer of timm's"),
        (fitted, {"precision": "bf17"}, "precision is 'bf17': expected one of auto, float32, bf16"),
        (fitted, {"precision": "fp16"}, "fp16, which needs a CUDA device: give bf16 or float32"),
        (fitted, {"device": "tpu"}, "device is 'tpu': expected one of auto, cpu, cuda"),
        (routed, {"batches": 0}, "batches is 0: expected at least 1"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    call: Callable[..., None], how: dict[str, Any], said: str
) -> None:
    if how.get("precision") == "fp16" and torch.cuda.is_available():
        how = {**how, "device": "cpu"}
    with pytest.raises(nt.UserError) as error:
        call(**how)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def _another_process() -> Iterator[None]:
    """As if nothing had been computed yet; put back as `conftest` begins."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    start_accelerator("cpu", "float32")


@pytest.mark.usefixtures("_another_process")
def test_a_whole_call_keeps_to_its_precision() -> None:
    """accelerate holds a process to one; what the stages ask for between them is that one."""
    how = {"teacher_epochs": 0, "student_epochs": 1, "finetune_epochs": 1, "device": "cpu"}
    for levers in (("blocks",), ("channels",)):
        tailored(**how, precision="bf16", max_flops=0.6, levers=levers)
    assert accelerator_for("cpu").mixed_precision == "bf16"
    said = "'cpu' and precision 'float32', and this process has begun on cpu in bf16: give the"
    with pytest.raises(nt.UserError, match=said):
        fitted(precision="float32", device="cpu")
