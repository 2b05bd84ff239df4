"""Networks on disk: `architecture.json` and `model.safetensors` in, a network out, and back."""

from pathlib import Path

import torch

from nettailor.core.architecture import (
    ARCHITECTURE_FILE,
    WEIGHTS_FILE,
    Architecture,
    NarrowedStructure,
    StudentStructure,
    read_architecture,
    write_architecture,
)
from nettailor.core.backbone import Backbone, backbone_of, create_backbone
from nettailor.core.compound_scaling import make_scaled
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import load_exactly, read_weights, require_exactly, write_weights
from nettailor.core.printable import some
from nettailor.core.run_folder import SUMMARY_FILE
from nettailor.core.run_settings import CONFIG_FILE
from nettailor.core.timm_names import to_chain
from nettailor.core.vocabulary import searched_chain
from nettailor.prune.eliminate import eliminate
from nettailor.prune.narrow import resize, widths
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring


def save_network(folder: Path, network: Backbone | Student, architecture: Architecture) -> Path:
    """Write a network into a run folder; returns the path of its weights.

    `architecture.student` is filled in from a student itself.
    """
    if isinstance(network, Student):
        structure = StudentStructure(
            paths=network.wiring.paths,
            batch_norm=network.batch_norm,
            adapters=len(network.adapters) > 0,
            finetune="all" if network.finetunes_all else "task",
        )
        architecture = architecture.model_copy(update={"student": structure})
    write_weights(folder / WEIGHTS_FILE, network)
    write_architecture(folder, architecture)
    return folder / WEIGHTS_FILE


def narrowed_structure(wide: Backbone | Student, network: Backbone | Student) -> NarrowedStructure:
    """What makes a network narrower than one of full width with the same layers."""
    before, now = widths(wide), widths(network)
    layers = {name: left for name, left in now.items() if left != before[name]}
    nodes = None
    if isinstance(network, Student):
        nodes = tuple(spec.channels for spec in network.specs)
    return NarrowedStructure(layers=layers, nodes=nodes)


def find_run(given: Path) -> Path:
    """The folder of a network: the one given, or the only run inside it.

    Raises UserError where there is none, or where several could be meant.
    """
    begun, finished = ((given / file).is_file() for file in (CONFIG_FILE, SUMMARY_FILE))
    if (begun and finished) or (not begun and (given / ARCHITECTURE_FILE).is_file()):
        return given
    if begun:
        raise UserError(
            f"--run {given}: is not finished; give the command that began it once more, and it "
            "goes on where it stopped"
        )
    inside = sorted(path.parent for path in given.glob(f"*/{ARCHITECTURE_FILE}"))
    if len(inside) != 1:
        found = f"holds {len(inside)} runs" if inside else "holds no network"
        names = f": {some(folder.name for folder in inside)}" if inside else ""
        raise UserError(f"--run {given}: {found}{names}; give the folder of one finished run")
    return find_run(inside[0])


def load_network(folder: Path) -> tuple[Backbone | Student, Architecture]:
    """Rebuild a network, on the CPU, channels last, in eval mode; nothing is unpickled.

    The weights of a whole backbone may bear timm's names, as exported ones do.

    Raises:
        UserError: a file is missing, damaged, or of another network.
    """
    architecture = read_architecture(folder)
    file, weights = folder / ARCHITECTURE_FILE, folder / WEIGHTS_FILE
    with torch.device("meta"):  # a damaged file may ask for a network of any size
        shapes = _bare(architecture, file).state_dict()
    tensors = read_weights(weights)
    if architecture.kind is None and tensors.keys() != shapes.keys():
        tensors = to_chain(architecture.backbone, tensors, architecture.preprocessing.image_size)
    require_exactly(shapes, tensors, weights)
    network = _bare(architecture, file)
    load_exactly(network, tensors, weights)
    return place(network, torch.device("cpu")).eval(), architecture


def _bare(architecture: Architecture, file: Path) -> Backbone | Student:
    """The network with random weights; UserError where `file` describes none."""
    network = _full_width(architecture, file)
    if architecture.narrowed is not None:
        left = architecture.narrowed
        try:
            resize(network, left.layers, left.nodes, architecture.preprocessing.image_size)
        except ValueError as error:
            raise UserError(f"{file}: narrowed: {error}") from error
    return network


def _full_width(architecture: Architecture, file: Path) -> Backbone | Student:
    """The network with all of its channels; UserError as in `_bare`."""
    backbone, classes = architecture.backbone, len(architecture.classes)
    scaled = architecture.scaled
    if architecture.searched is not None:
        return searched_chain(architecture.searched, classes)
    try:
        if scaled is not None:
            return backbone_of(
                make_scaled(backbone, classes, depth=scaled.depth, width=scaled.width)
            )
        chain = create_backbone(backbone, classes, architecture.preprocessing.image_size)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if architecture.eliminated is not None:
        left = architecture.eliminated
        try:
            return eliminate(chain, left.blocks, replacement=left.replacement)
        except ValueError as error:
            raise UserError(f"{file}: eliminated.blocks: {error}") from error
    structure = architecture.student
    if structure is None:
        return chain
    wiring = student_wiring(structure, len(chain.blocks), file)
    return Student(
        chain,
        wiring=wiring,
        batch_norm=structure.batch_norm,
        adapters=structure.adapters,
        shared=structure.finetune == "task",
    )


def student_wiring(structure: StudentStructure, blocks: int, file: Path) -> Wiring:
    """The wiring of a student of a backbone with so many blocks.

    Raises UserError, which names the file, for paths that make no student of it.
    """
    try:
        wiring = Wiring.from_json(blocks + 1, structure.paths)
        _require_connected(wiring)
    except ValueError as error:
        raise UserError(f"{file}: student.paths make no student: {error}") from error
    return wiring


def _require_connected(wiring: Wiring) -> None:
    """Raise ValueError unless every path starts at a node that is fed, and the last node is."""
    fed = {0, *(path.target for path in wiring.paths)}
    for path in wiring.paths:
        if path.source not in fed:
            raise ValueError(f"{path.key} starts at node {path.source}, where no path leads")
    if wiring.depth not in fed:
        raise ValueError("no path leads to the logits")
