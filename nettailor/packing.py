"""A finished run becomes a task pack, after its shared tensors were held against the backbone's."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nettailor.core.architecture import Architecture, read_architecture
from nettailor.core.backbone import Backbone
from nettailor.core.errors import UserError
from nettailor.core.random_state import seed_stage
from nettailor.core.run_settings import CONFIG_FILE, read_config, settings_of
from nettailor.core.weights import load_pretrained
from nettailor.network import load_network
from nettailor.packs import (
    PACK_FILE,
    SHARED_RUN,
    PackedBackbone,
    check_backbone,
    has_backbone,
    load_backbone,
    pack_folder,
    read_backbone,
    shared_names,
    sharing_structure,
    write_backbone,
    write_pack,
)
from nettailor.student.network import Student


def add_to_library(
    run: Path, library: Path, task: str | None = None, *, overwrite: bool = False
) -> Path:
    """Make a pack of a tailored run that shares its blocks, and the library where there is none.

    Args:
        run: a run folder, or one inside of the same kind, such as `candidates/size-0.242`.
        library: the library's folder.
        task: the pack's name; None for that of the run's task.
        overwrite: replace a pack of that name.

    Returns the pack's folder.

    Raises:
        UserError: the run is unfinished, damaged or shares no blocks; its blocks are not those of
            its weights' source, or of the library; the name is taken. Nothing is written then.
    """
    sharing_structure(read_architecture(run), run)
    network, architecture = load_network(run)
    assert isinstance(network, Student)
    settings = _settings_of(run)
    folder = pack_folder(library, _task_of(settings) if task is None else task)
    if (folder / PACK_FILE).exists() and not overwrite:
        raise UserError(
            f"{folder}: there is a pack of that name; give another name with --task, or "
            "--overwrite to replace it"
        )
    fresh = not has_backbone(library)
    if fresh:
        entry = PackedBackbone(
            backbone=architecture.backbone,
            digest=architecture.weights_digest,
            origin=architecture.weights_origin,
        )
        chain = _pretrained(settings, architecture)
    else:
        entry = read_backbone(library)
        check_backbone(architecture, run, entry, library)
        chain = load_backbone(library, entry)
    _require_shared(network, chain, run)
    if fresh:
        write_backbone(library, chain, entry)
    write_pack(folder, network, architecture)
    return folder


def _settings_of(run: Path) -> Path:
    """The `config.yaml` of a run, in its folder or one above."""
    settings = settings_of(run)
    if settings is None:
        raise UserError(
            f"{run / CONFIG_FILE}: not found; it says where the backbone's weights come from: give "
            "a whole run folder"
        )
    return settings


def _setting(settings: Path, key: str, kind: type) -> Any:
    # one by one: a run of an earlier version may lack keys that do not matter here
    value = read_config(settings).get(key)
    if type(value) is not kind:
        raise UserError(f"{settings}: no settings of a run: {key} is missing; restore it")
    return value


def _task_of(settings: Path) -> str:
    """The name of the task that the run is of."""
    folder = settings.resolve().parent
    if folder.parent.name == "tailored":
        return folder.parent.parent.name
    return Path(_setting(settings, "data", str)).name


def _pretrained(settings: Path, architecture: Architecture) -> Backbone:
    """The backbone as the run had it from its weights' source; UserError where it changed."""
    weights = _setting(settings, "weights", str)
    with torch.random.fork_rng(devices=[]):
        # random weights are those of the run's teacher
        seed_stage(_setting(settings, "seed", int), "teacher")
        chain, source = load_pretrained(
            architecture.backbone,
            len(architecture.classes),
            weights,
            architecture.preprocessing.image_size,
        )
    if source.digest != architecture.weights_digest:
        raise UserError(
            f"{settings}: weights {weights!r} are no longer those that the run was made from "
            f"({source.digest[:12]!r} now, {architecture.weights_digest[:12]!r} then): restore them"
        )
    return chain


def _require_shared(student: Student, chain: Backbone, run: Path) -> None:
    """Raise UserError unless what the student shares is the chain's, to the last bit."""
    state, universal, shared = student.state_dict(), chain.state_dict(), shared_names(student)
    unlike = [
        name
        for name in state.keys() & shared.keys()
        # of batches, on which no output depends
        if not name.endswith("num_batches_tracked")
        and not torch.equal(_bits(state[name]), _bits(universal[shared[name]]))
    ]
    if unlike:
        raise UserError(
            f"{run}: {len(unlike)} of its shared tensors, such as {min(unlike)}, are not the "
            f"backbone's, so it has no pack; make a run that shares its blocks with `{SHARED_RUN}`"
        )


def _bits(tensor: Tensor) -> Tensor:
    """As bytes, because 0 and -0 are equal numbers."""
    return tensor.contiguous().flatten().view(torch.uint8)
