"""What an exclusion leaves dead or cut off."""

from nettailor.student.wiring import Wiring


def closure(wiring: Wiring) -> Wiring:
    """Drop paths out of nodes that nothing leads into and into nodes that nothing reads.

    The second and third exclusion rules of the paper (section 3.4), swept until nothing changes.
    The stem's node always counts as led into, the logits as read. Empty when the two are cut
    apart.
    """
    while True:
        dead = [
            path
            for path in wiring.paths
            if (path.source > 0 and not wiring.incoming[path.source])
            or (path.target < wiring.depth and not wiring.outgoing[path.target])
        ]
        if not dead:
            return wiring
        wiring = wiring.without(dead)
