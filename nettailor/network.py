"""Networks on disk: `architecture.json` and `model.safetensors` in, a network out, and back."""

from pathlib import Path

from torch import nn

from nettailor.core.architecture import (
    WEIGHTS_FILE,
    Architecture,
    StudentStructure,
    read_architecture,
    write_architecture,
)
from nettailor.core.backbone import Chain, create_chain
from nettailor.core.errors import UserError
from nettailor.core.files import load_exactly, read_weights, write_weights
from student.grow import build
from student.network import Student
from student.wiring import Wiring


def save_network(folder: Path, network: Chain | Student, architecture: Architecture) -> Path:
    """Write a network into a run folder; returns the path of its weights.

    `architecture.student` is filled in from a student itself.
    """
    if isinstance(network, Student):
        structure = StudentStructure(
            paths=network.wiring.paths,
            batch_norm=network.batch_norm,
            finetune="all" if network.finetunes_all else "task",
        )
        architecture = architecture.model_copy(update={"student": structure})
    write_weights(folder / WEIGHTS_FILE, network)
    write_architecture(folder, architecture)
    return folder / WEIGHTS_FILE


def load_network(folder: Path) -> tuple[Chain | Student, Architecture]:
    """Rebuild a network, on the CPU, in eval mode; nothing is unpickled.

    Raises:
        UserError: a file is missing, damaged, or of another network.
    """
    architecture = read_architecture(folder)
    chain = create_chain(architecture.backbone, len(architecture.classes))
    network: Chain | Student = chain
    if architecture.student is not None:
        structure = architecture.student
        try:
            wiring = Wiring.from_json(len(chain.blocks), structure.paths)
        except ValueError as error:
            raise UserError(f"{folder}: the paths make no student: {error}") from error
        network = build(chain, wiring, batch_norm=structure.batch_norm)
        if structure.finetune == "all":
            network.finetune_all()
    assert isinstance(network, nn.Module)
    load_exactly(network, read_weights(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    return network.eval(), architecture
