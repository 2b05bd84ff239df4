"""A student grown out of a pretrained chain, and what its paths cost."""

from typing import Literal

from torch import nn

from nettailor.core.backbone import Chain, node_specs, proxy_shape
from nettailor.core.cost import Cost, chain_costs, module_flops, parameters
from nettailor.student.network import BatchNormPolicy, Student
from nettailor.student.wiring import Path, Wiring, full_wiring


def grow(
    chain: Chain,
    *,
    skips: int | Literal["dense"],
    identities: bool,
    exits: bool,
    batch_norm: BatchNormPolicy,
    adapters: bool = False,
) -> Student:
    """A student with every block, and what may stand in for it; takes over the chain.

    Args:
        chain: pretrained, or fine-tuned, with a classifier for this task.
        skips: proxies into each node.
        identities: in the place of every block that does not make its input narrower.
        exits: from the end of every stage, the last one included.
        batch_norm, adapters: see `Student`.
    """
    blocks = range(1, len(chain.blocks) + 1)
    specs = node_specs(chain)
    wiring = full_wiring(
        len(chain.blocks),
        skips,
        identities=[
            node
            for node in blocks
            if identities and specs[node - 1].channels <= specs[node].channels
        ],
        exits=[
            node
            for node, after in zip(blocks, [*chain.stages[1:], None], strict=True)
            if exits and after != chain.stages[node - 1]
        ],
    )
    return build(chain, wiring, batch_norm=batch_norm, adapters=adapters)


def build(
    chain: Chain, wiring: Wiring, *, batch_norm: BatchNormPolicy, adapters: bool = False
) -> Student:
    """A student with the given paths; takes over the chain, whose other blocks are dropped."""
    shapes = tuple(proxy_shape(chain, block) for block in range(1, len(chain.blocks) + 1))
    return Student(
        chain, node_specs(chain), wiring, shapes=shapes, batch_norm=batch_norm, adapters=adapters
    )


def path_costs(student: Student, chain: Chain, image_size: int) -> tuple[tuple[Cost, ...], Cost]:
    """What each path costs on one image, in the wiring's order, and the whole chain's total.

    Args:
        student: grown from a chain of the same backbone.
        chain: the whole pretrained network.
        image_size: side of the input in pixels.

    Raises:
        UserError: the image is too small for the backbone.
    """
    costs = chain_costs(chain, image_size)
    specs = student.specs

    def alone(module: nn.Module, path: Path, node: int) -> Cost:
        side = -(-image_size // specs[node].stride)
        flops = module_flops(module, (specs[path.source].channels, side, side))
        return Cost(flops, parameters(module))

    result = []
    for path in student.wiring.paths:
        if path.kind == "block":
            cost = costs.blocks[path.target - 1]
            if path.key in student.adapters:
                cost = _sum(cost, alone(student.adapters[path.key], path, path.target))
        elif path.kind == "head":
            cost = _sum(costs.neck, costs.classifier)
        elif path.kind == "exit":
            cost = alone(student.heads[path.key], path, path.source)
        elif path.kind == "proxy":
            # a proxy pools first, so its convolutions run at the target's resolution
            cost = alone(student.proxies[path.key], path, path.target)
        else:
            cost = Cost(0, 0)
        result.append(cost)
    return tuple(result), costs.total


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.flops + other.flops, one.parameters + other.parameters)
