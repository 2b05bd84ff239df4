"""`python -m nettailor.export`: a run's network as files that need nothing of this project."""

import os
import shlex
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nettailor.cli.door import later
from nettailor.cli.export import Format
from nettailor.core.architecture import (
    WEIGHTS_FILE,
    Architecture,
    write_architecture,
)
from nettailor.core.backbone import Backbone
from nettailor.core.console import Screen
from nettailor.core.cost import parameters
from nettailor.core.errors import UserError
from nettailor.core.files import write_bytes, write_json, write_tensors, write_text
from nettailor.core.latency import measure_latency
from nettailor.core.run_settings import CONFIG_FILE, is_run
from nettailor.core.timm_names import to_timm
from nettailor.deploy.about import describe, read_figures, without_places
from nettailor.deploy.check_images import check_images
from nettailor.deploy.model_card import hub_config, model_card
from nettailor.deploy.pt2_file import load_pt2, to_pt2
from nettailor.deploy.written import Loaded, Written, difference, require_parity, table_of
from nettailor.network import find_run, load_network, save_network
from nettailor.packing import add_to_library
from nettailor.prune.fold import fold
from nettailor.student.network import Student

_CARD, _HUB_CONFIG = "README.md", "config.json"
_INT8_FILE = "model.int8.onnx"
_SECONDS = 1.0  # of measuring a file


class _Export(NamedTuple):
    """A file's content, and the network that it is when read again."""

    content: bytes
    network: nn.Module


def export(
    run: Path,
    to: Path,
    formats: Sequence[Format],
    *,
    int8: bool,
    overwrite: bool,
    screen: Screen,
) -> list[Written]:
    """Write a run's network into a folder, each file only after its outputs were compared.

    Args:
        run: a finished run, or a folder with a network inside one.
        to: gets the files, a model card and `config.json`.
        formats: of the files.
        int8: write ONNX in 8-bit integers, too.
        overwrite: files that are there are replaced.

    Raises:
        UserError: the run is not finished or damaged, the target holds files or cannot be written,
            a package is missing, or the outputs of a file are not the network's; nothing was
            written then.
    """
    _check_target(to, overwrite)
    onnx_file: Any = _onnx_module("onnx_file") if int8 or "onnx" in formats else None
    int8_file: Any = _onnx_module("int8") if int8 else None
    network, architecture = load_network(run)
    architecture = without_places(architecture)
    summary = read_figures(run)
    about = describe(architecture, summary)
    images = check_images(run, architecture, screen)
    if int8 and images.loaders is None:
        raise UserError(
            "--int8 needs the run's training images to calibrate on: call it where the run's "
            "settings find its data, or leave it out"
        )
    size = architecture.preprocessing.image_size
    plain = fold(network)
    if int8 or set(formats) - {"safetensors"}:  # that one is not folded
        require_parity("the folded network", difference(network, Loaded(plain), images.batches))
    made: dict[str, _Export] = {}
    in_floats = onnx_file.to_onnx(plain, size, about) if onnx_file else b""
    if "onnx" in formats:
        made["model.onnx"] = _Export(in_floats, onnx_file.load_onnx(in_floats))
    if "pt2" in formats:
        content = to_pt2(plain, size, about)
        made["model.pt2"] = _Export(content, load_pt2(content))
    if "safetensors" in formats:
        made[WEIGHTS_FILE] = _unfolded(network, architecture)
    parity: dict[str, float] = {}
    for name, one in made.items():
        parity[name] = difference(network, one.network, images.batches)
        require_parity(name, parity[name])
    accuracy: dict[str, float] = {}
    if int8:
        assert images.loaders is not None
        content = int8_file.to_int8(in_floats, images.calibration(), about)
        made[_INT8_FILE] = _Export(content, onnx_file.load_onnx(content))
        readings = {"ONNX Runtime": made[_INT8_FILE].network}
        if find_spec("openvino"):
            readings["OpenVINO"] = _onnx_module("openvino_file").load_openvino(content)
        readings["float"] = network
        accuracy = {name: images.loaders.validate(one).accuracy for name, one in readings.items()}
    networks = {name: one.network for name, one in made.items()}
    seconds = _SECONDS * len(made)
    with screen.counting("timing") as tell:
        times = measure_latency(
            networks, size, torch.device("cpu"), batches=(1,), seconds=seconds, tell=tell
        )
    stored = {name: network if name == WEIGHTS_FILE else plain for name in made}
    written = [
        Written(
            name,
            len(one.content),
            len(one.content) / (4 * parameters(stored[name])),
            parity.get(name),
            times[name]["1"]["median"],
            accuracy if name == _INT8_FILE else None,
        )
        for name, one in made.items()
    ]
    for name, one in made.items():
        write_bytes(to / name, one.content)
    if "safetensors" in formats:
        write_architecture(to, architecture)
    write_json(to / _HUB_CONFIG, hub_config(architecture))
    write_text(to / _CARD, model_card(architecture, about, summary, written, images.what))
    return written


def _check_target(to: Path, overwrite: bool) -> None:
    """Raise UserError where files could not, or must not, be written."""
    if to.exists() and not to.is_dir():
        raise UserError(f"--to {to}: is a file; give a folder")
    if is_run(to / CONFIG_FILE):
        raise UserError(f"--to {to}: holds a run, whose files stay as they are; choose another")
    if to.is_dir() and any(to.iterdir()) and not overwrite:
        raise UserError(
            f"--to {to}: holds files already; give --overwrite to replace those that are written "
            "anew, or another folder"
        )
    folder = next(parent for parent in (to.absolute(), *to.absolute().parents) if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--to {to}: nothing can be written in {folder}; choose another folder")


def _onnx_module(name: str) -> Any:
    try:
        return later(f"nettailor.deploy.{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed, which ONNX needs: run "
            "pip install 'nettailor[onnx]', or export another format"
        ) from error


def _unfolded(network: Backbone | Student, architecture: Architecture) -> _Export:
    """The weights as they were trained, to go on from, and the network read back from them.

    Those of a whole backbone bear timm's names.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = save_network(Path(folder), network, architecture)
        if architecture.kind is None:
            write_tensors(
                file,
                to_timm(
                    architecture.backbone,
                    network.state_dict(),
                    architecture.preprocessing.image_size,
                ),
            )
        return _Export(file.read_bytes(), load_network(Path(folder))[0])


def execute(arguments: Namespace) -> None:
    """Run the command with arguments that were found good."""
    run = find_run(arguments.run)
    with Screen() as screen:
        if arguments.library is not None:
            pack = add_to_library(
                run, arguments.library, arguments.task, overwrite=arguments.overwrite
            )
            flags = shlex.join(["--library", str(arguments.library), "--task", pack.name])
            screen.say(f"task pack: {pack}; try `python -m nettailor.predict {flags} IMAGES`")
            if not arguments.format and not arguments.int8:
                return
        to = run / "export" if arguments.to is None else arguments.to
        written = export(
            run,
            to,
            tuple(dict.fromkeys(arguments.format or ("onnx",))),
            int8=arguments.int8,
            overwrite=arguments.overwrite,
            screen=screen,
        )
        screen.console.print(table_of(written))
        screen.say(f"written to {to}")
