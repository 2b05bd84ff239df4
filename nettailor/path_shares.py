"""What each path costs as a share of the whole backbone: operations, parameters or time."""

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Literal, NamedTuple

import torch

from nettailor.core.backbone import Chain
from nettailor.core.cost import chain_costs
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from student.grow import path_costs
from student.latency_table import measure_paths
from student.network import Student
from student.wiring import Path


class PathShares(NamedTuple):
    """Shares of the whole backbone's cost.

    paths: of each path, in the wiring's order. fixed: of the stem. whole: the backbone's cost, in
    multiply-adds, parameters or milliseconds.
    """

    paths: list[float]
    fixed: float
    whole: float

    def of(self, student: Student, route: Iterable[Path]) -> float:
        """The share of a network that keeps only these paths of a student."""
        share = dict(zip(student.wiring.paths, self.paths, strict=True))
        return self.fixed + sum(share[path] for path in route)


def shares_of(
    student: Student, chain: Chain, image_size: int, unit: Literal["flops", "params"]
) -> PathShares:
    """Shares of the multiply-adds or of the parameters, counted."""
    costs, total = path_costs(student, chain, image_size)
    column = 0 if unit == "flops" else 1
    stem = chain_costs(chain, image_size).stem
    whole = total[column]
    return PathShares([cost[column] / whole for cost in costs], stem[column] / whole, whole)


def measured_shares(
    table: FilePath,
    student: Student,
    chain: Chain,
    image_size: int,
    device: torch.device,
    *,
    batch: int,
) -> PathShares:
    """Shares of the time of a forward pass, measured once and kept in a file.

    Args:
        table: the file; a run that goes on must not see other times than it began with.
        student: grown, every path alive when the file is not there yet.
    """
    keys = [path.key for path in student.wiring.paths]
    if not table.exists():
        times = measure_paths(student, chain, image_size, device, batch=batch)
        paths = dict(zip(keys, times.paths, strict=True))
        write_json(table, {"paths": paths, "stem": times.stem, "whole": times.whole})
    content = read_json(table)
    try:
        whole = float(content["whole"])
        return PathShares(
            [content["paths"][key] / whole for key in keys], content["stem"] / whole, whole
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{table}: is damaged; give --overwrite to tailor again") from error
