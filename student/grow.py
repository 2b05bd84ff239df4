"""A student grown out of a pretrained chain, and what its paths cost."""

from typing import Literal

from nettailor.core.backbone import Chain, node_specs, proxy_shape
from nettailor.core.cost import Cost, chain_costs, module_flops, parameters
from student.network import BatchNormPolicy, Student
from student.wiring import Wiring, full_wiring


def grow(chain: Chain, *, skips: int | Literal["dense"], batch_norm: BatchNormPolicy) -> Student:
    """A student with every block and `skips` proxies into each node; takes over the chain."""
    return build(chain, full_wiring(len(chain.blocks), skips), batch_norm=batch_norm)


def build(chain: Chain, wiring: Wiring, *, batch_norm: BatchNormPolicy) -> Student:
    """A student with the given paths; takes over the chain, whose other blocks are dropped."""
    shapes = tuple(proxy_shape(chain, block) for block in range(1, len(chain.blocks) + 1))
    return Student(chain, node_specs(chain), wiring, shapes=shapes, batch_norm=batch_norm)


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
    channels = [spec.channels for spec in node_specs(chain)]
    result = []
    for path in student.wiring.paths:
        if path.kind == "block":
            result.append(costs.blocks[path.target - 1])
            continue
        proxy = student.proxies[path.key]
        # a proxy pools first, so its convolutions run at the target's resolution
        side = -(-image_size // student.strides[path.target])
        flops = module_flops(proxy, (channels[path.source], side, side))
        result.append(Cost(flops, parameters(proxy)))
    return tuple(result), costs.total
