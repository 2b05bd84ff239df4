"""From a trained student to a smaller one, in Python: the best route, the cut, a network again."""

from itertools import islice
from math import inf
from pathlib import Path

from torch import nn

from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.epochs import LoaderEpochs
from nettailor.core.errors import UserError
from nettailor.fitting import Device, Loader, accelerator_for, seeded, side_of
from nettailor.network import find_run, load_network
from nettailor.prune.fewer_channels import (
    VALUE_BATCHES,
    Network,
    deployed_cost,
    fewest_channels,
    with_fewer_channels,
)
from nettailor.prune.importance import measured_on
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Route, Routes
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.share import budget_of
from nettailor.student.costs import shares_of
from nettailor.student.network import Student


def best_route(
    student: Student,
    teacher: Backbone,
    train_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    batches: int = 8,
    seed: int = 0,
    device: Device = "auto",
) -> PrunePlan:
    """The most valuable route from stem to logits within a budget: what `cut` leaves.

    Each path is worth what the loss falls by when its node takes it alone, see
    `nettailor.prune.importance`; the best sum within the budget is found exactly.

    Args:
        student: trained; it stays as it is.
        teacher: the backbone, whose cost is 1.
        train_loader: (images, labels).
        max_flops, max_params: the budget, one of them or none: a share of the multiply-adds or
            parameters of the backbone.
        batches: how many to weigh paths on.
        seed: of their order.
        device: "auto" takes a GPU where there is one.

    Raises:
        UserError: no route is within the budget; the text says what can be reached. Or no batches.
    """
    unit, most = budget_of(max_flops, max_params)
    if batches < 1:
        raise UserError(f"batches is {batches}: expected at least 1")
    shares = shares_of(student, teacher, side_of(train_loader, seed), unit)
    values = weigh(student, train_loader, batches=batches, seed=seed, device=device)
    route = _best(Routes(student.wiring, values, shares.paths, fixed=shares.fixed), most)
    return PrunePlan.keeping(route.name, student.wiring, route.paths)


def weigh(
    student: Student,
    train_loader: Loader,
    *,
    batches: int = 8,
    seed: int = 0,
    device: Device = "auto",
) -> list[float]:
    """What each path is worth, in the wiring's order; arguments as for `best_route`."""
    accelerator = accelerator_for(device)
    place(student, accelerator.device)
    with seeded(seed, "weighing"):
        looked_at = list(islice(LoaderEpochs(train_loader, seed).epoch(0), batches))
        return measured_on(student, looked_at, accelerator)


def cut(
    student: Student, plan: PrunePlan, train_loader: Loader | None = None, *, seed: int = 0
) -> Student:
    """A copy of the student without the paths that the plan drops.

    Args:
        student: trained; it stays as it is.
        plan: such as `best_route` gives.
        train_loader: running statistics of batch norms are averaged anew over its first 20 batches,
            since a cut changes what later layers see; None: they stay.
        seed: of their order.
    """
    smaller = remove(student, plan)
    if train_loader is not None:
        device = next(student.parameters()).device
        with seeded(seed, "statistics"):
            batches = islice(LoaderEpochs(train_loader, seed).epoch(0), STATISTICS_BATCHES)
            reestimate(smaller, batches, accelerator_for(device.type))
    return smaller


def narrow(
    network: Network,
    train_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> Network:
    """A copy with the channels that the loss would miss most, within a budget.

    Channels are worth a first-order Taylor estimate on 20 batches, see `prune.taylor`, and the best
    sum is found by a knapsack, see `prune.widths`; layers keep a multiple of 8 channels, or all.
    Running statistics of batch norms are averaged anew.

    Args:
        network: a `Backbone`, or a `Student` that stands alone; it stays as it is.
        train_loader: (images, labels).
        max_flops, max_params: the budget, one of them: a share of what the network itself costs.
        seed: of the order of the images.
        device: "auto" takes a GPU where there is one.

    Returns:
        A network of the same kind, on the device, to be trained on: `fit`.

    Raises:
        UserError: its channels cannot be grouped, or the budget is out of reach.
    """
    unit, most = budget_of(max_flops, max_params)
    if isinstance(network, Student) and not network.finetunes_all:
        raise UserError("the student's blocks are shared: expected one that stands alone")
    if most == inf:
        raise UserError("no budget is given: expected max_flops or max_params")
    accelerator, batches = accelerator_for(device), LoaderEpochs(train_loader, seed)
    place(network, accelerator.device)
    size = side_of(train_loader, seed)
    least = fewest_channels(network, size, unit)
    if not least <= most < 1:
        raise UserError(
            f"no choice of channels costs {most:g} of the network's {unit}: give a share from "
            f"{least * 1.005:.3g} to below 1"
        )
    with seeded(seed, "channels"):
        narrowed = with_fewer_channels(
            network, islice(batches.epoch(0), VALUE_BATCHES), accelerator,
            image_size=size, unit=unit, most=most * deployed_cost(network, size, unit),
        )  # fmt: skip
        reestimate(narrowed, islice(batches.epoch(0), STATISTICS_BATCHES), accelerator)
    return narrowed


def load(folder: str | Path) -> nn.Module:
    """A network that a command wrote, on the CPU, in eval mode; nothing is unpickled.

    Args:
        folder: of a finished run, or of an exported network.

    Returns:
        A `Backbone` or `Student`: images (B, 3, S, S) -> `NetOutput`; `fold` makes it plain.

    Raises:
        UserError: a file is missing, damaged, or of another network.
    """
    return load_network(find_run(Path(folder).expanduser()))[0]


def _best(routes: Routes, most: float) -> Route:
    """The best route within a budget; UserError where there is none."""
    route = routes.best(most)
    if route is None:
        leanest, dearest = routes.reach()
        raise UserError(
            f"no route costs {most:g} of the backbone's or less: give a budget from "
            f"{min(1.005 * leanest, dearest):.3g} to {dearest:.3g}"
        )
    return route
