"""Many tasks in memory on one set of blocks: a pretrained backbone once, and a pack a task."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from nettailor.core.architecture import Architecture, StudentStructure
from nettailor.core.backbone import meta_copy
from nettailor.core.classification import fresh_classifier
from nettailor.core.device import place
from nettailor.core.errors import UserError, nearest
from nettailor.network import student_wiring
from nettailor.packs import (
    PACK_FILE,
    PackedBackbone,
    backbone_shapes,
    check_backbone,
    load_backbone,
    own_tensors,
    packs_in,
    read_backbone,
    read_own_tensors,
    read_pack,
    shared_names,
    sharing_structure,
)
from nettailor.student.network import Student
from nettailor.student.path_weights import PathWeights


class TaskNetwork(nn.Module):
    """The network of one task, whose pretrained blocks are those of all others.

    network: the student, in eval mode. architecture: its classes, preprocessing and so on.
    """

    def __init__(self, network: Student, architecture: Architecture) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float32 (B, 3, S, S), on any device -> logits (B, classes).

        Raises UserError for another shape or type.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.float32:
            raise UserError(
                f"images are {images.dtype} {tuple(images.shape)}, expected float32 (B, 3, S, S): "
                "prepare them with eval_transform(architecture.preprocessing)"
            )
        device = self.network.path_weights.logits.device
        images = images.to(device=device, memory_format=torch.channels_last)
        logits: Tensor = self.network(images).logits
        return logits


class Library:
    """The tasks of a library folder.

        library = Library("library")
        logits = library["digits"](images)

    Nothing but JSON is read before a task is first used; from then on the task is a dictionary
    look-up away, and its pretrained blocks are the very tensors of all other tasks. Blocks that no
    loaded task uses are not in memory.
    """

    def __init__(self, folder: Path | str) -> None:
        """Raises UserError where the folder holds no library, or a damaged one."""
        self._folder = Path(folder)
        self._device = torch.device("cpu")
        self._backbone = read_backbone(self._folder)
        self._packs = packs_in(self._folder)
        self._loaded: dict[str, TaskNetwork] = {}
        self._shared: _Shared | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks, in order."""
        return tuple(sorted(self._packs))

    def __getitem__(self, task: str) -> TaskNetwork:
        """The task's network: images (B, 3, S, S) -> logits (B, classes).

        Raises:
            UserError: there is no such task, or its files are damaged or of another backbone.
        """
        if task not in self._packs:
            known = ", ".join(self.tasks) or "none"
            raise UserError(
                f"{self._folder}: no task {task!r}{nearest(task, self._packs)}; there is {known}"
            )
        if task not in self._loaded:
            self._loaded[task] = self._load(self._packs[task])
        return self._loaded[task]

    def to(self, device: torch.device | str) -> "Library":
        """Work on a device from now on.

        What is in memory is let go of, and read again on its next use; networks that were handed
        out stay as they are.
        """
        self._device = torch.device(device)
        self._loaded.clear()
        self._shared = None
        return self

    def _load(self, folder: Path) -> TaskNetwork:
        pack = read_pack(folder)
        check_backbone(pack.architecture, folder, self._backbone, self._folder)
        if self._shared is None:
            self._shared = _Shared(self._folder, self._backbone, self._device)
        architecture, file = pack.architecture, folder / PACK_FILE
        structure = sharing_structure(architecture, file)
        student = self._shared.student(structure, len(architecture.classes), file)
        own = read_own_tensors(folder, pack, like=own_tensors(student))
        student.load_state_dict(own, strict=False, assign=True)
        return TaskNetwork(place(student, self._device), architecture)


class _Shared:
    """The tensors of a backbone that some network is made of."""

    def __init__(self, library: Path, entry: PackedBackbone, device: torch.device) -> None:
        """Reads no weights yet. Raises UserError for an unknown backbone."""
        self._library, self._entry, self._device = library, entry, device
        self._held: dict[str, Tensor] = {}
        self._chain = backbone_shapes(library, entry)

    def student(self, structure: StudentStructure, classes: int, source: Path) -> Student:
        """A student in eval mode on the shared tensors; what it owns is on the meta device.

        Raises UserError, which names the source, where the structure makes none.
        """
        wiring = student_wiring(structure, len(self._chain.blocks), source)
        with torch.device("meta"):
            chain = meta_copy(self._chain)
            assert isinstance(chain.classifier, nn.Linear)
            chain.classifier = fresh_classifier(chain.classifier.in_features, classes)
            student = Student(
                chain,
                wiring=wiring,
                batch_norm=structure.batch_norm,
                adapters=structure.adapters,
                shared=True,
            )
        student.path_weights = PathWeights(wiring)
        names = shared_names(student)
        tensors = self._tensors(names.values())
        for name, shared in names.items():
            owner, _, leaf = name.rpartition(".")
            setattr(student.get_submodule(owner), leaf, tensors[shared])
        return student.eval()

    def _tensors(self, names: Collection[str]) -> dict[str, Tensor]:
        """Tensors of the chain by name, on the device: the same ones at every call."""
        missing = [name for name in names if name not in self._held]
        if missing:
            chain = load_backbone(self._library, self._entry)
            place(chain.requires_grad_(False).eval(), self._device)
            whole = dict(chain.named_parameters()) | dict(chain.named_buffers())
            self._held |= {name: whole[name] for name in missing}
        return self._held
