"""The paths that a student grows out of a backbone."""

from collections.abc import Sequence
from typing import Literal

from nettailor.core.backbone import Backbone
from nettailor.core.layout import NodeSpec
from nettailor.student.wiring import Wiring, full_wiring


def grown_wiring(
    chain: Backbone,
    specs: Sequence[NodeSpec],
    skips: int | Literal["dense"],
    *,
    identities: bool,
    exits: bool,
) -> Wiring:
    """Every block, and what may stand in for it.

    specs: of the nodes; see `Student` for the other arguments.
    """
    blocks = range(1, len(chain.blocks) + 1)
    wiring = full_wiring(
        len(chain.blocks),
        skips,
        identities=[
            node
            for node in blocks
            if identities
            and specs[node - 1].channels <= specs[node].channels
            and specs[node - 1].leads_to(specs[node])
        ],
        exits=[
            node
            for node, after in zip(blocks, [*chain.stages[1:], None], strict=True)
            if exits and after != chain.stages[node - 1]
        ],
    )
    proxies = wiring.of_kind("proxy")
    return wiring.without(
        path for path in proxies if not specs[path.source].leads_to(specs[path.target])
    )
