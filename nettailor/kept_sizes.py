"""The networks of the sizes that a student passed, and of those with fewer channels, on disk."""

from pathlib import Path

import torch

from nettailor.core.architecture import Architecture, NarrowedStructure, read_architecture
from nettailor.core.device import place
from nettailor.front import FRONT_FILE, SIZES_FOLDER, Front, Point, Seconds, read_front, write_front
from nettailor.network import load_network, save_network
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring


class KeptSizes:
    """The networks of a run by the names of their points in its `front.json`."""

    def __init__(self, run: Path, student: Wiring, device: torch.device) -> None:
        """
        Args:
            run: its folder.
            student: the paths of its student before any goes.
            device: of the networks that are read.
        """
        self._run, self._student, self._device = run, student, device
        self._folder = run / SIZES_FOLDER

    def __contains__(self, name: object) -> bool:
        return any(one.name == name for one in self.front.points)

    @property
    def front(self) -> Front:
        """As it is written down."""
        return read_front(self._run, self._student)

    def read(self, name: str, side: int | None) -> Student:
        """A network, on the device; side: in pixels, of the images that it computes with."""
        network, _ = load_network(self._folder / name)
        assert isinstance(network, Student), "sizes are those of a student"
        network.side = side
        return place(network, self._device)

    def narrowed(self, name: str) -> NarrowedStructure | None:
        """What makes a network narrower than its backbone is."""
        return read_architecture(self._folder / name).narrowed

    def write(self, point: Point, network: Student, architecture: Architecture) -> None:
        """A network and its point among the others."""
        others = self.front.points if (self._run / FRONT_FILE).exists() else []
        save_network(self._folder / point.name, network, architecture)
        points = [*(one for one in others if one.name != point.name), point]
        points.sort(key=lambda one: one.cost)
        write_front(self._run, Front(points, Seconds(0, 0)))
