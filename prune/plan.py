"""Deciding what goes by rank, as published: from path weights to a plan; no network is touched."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nettailor.prune.reachability import closure
from nettailor.prune.routes import most_valuable
from nettailor.student.wiring import Kind, Path, Wiring


@dataclass(frozen=True)
class PrunePlan:
    """Which paths stay after a cut.

    Attributes:
        name: of the cut, such as `remove-08` or `route-0.250`.
        before: the paths of the trained student.
        kept: the paths that stay, closed under the three exclusion rules.
        restored: proxies below the threshold that stay because stem and head would part.
        side: of the images, in pixels, which are resized to it; None: as they come.
        wide: name of the cut that has all channels of these paths, where some go as well.
        most: the cost that is left then, a share of the backbone's.
    """

    name: str
    before: Wiring
    kept: Wiring
    restored: tuple[Path, ...] = ()
    side: int | None = None
    wide: str | None = None
    most: float = math.inf

    @classmethod
    def keeping(
        cls, name: str, before: Wiring, paths: Iterable[Path], side: int | None = None
    ) -> "PrunePlan":
        """The cut that leaves these paths, a route say."""
        return cls(name, before, Wiring(before.depth, tuple(paths)), side=side)

    def narrowed(self, most: float) -> "PrunePlan":
        """The same paths with fewer channels, such as `size-0.397-to-0.250`."""
        return replace(self, name=f"{self.name}-to-{most:#.3g}", wide=self.name, most=most)

    def describe(self) -> str:
        """One line: what stays of what was there."""
        of_each: tuple[tuple[Kind, str], ...] = (("block", "blocks"), ("proxy", "proxies"))
        counts = [
            f"{len(self.kept.of_kind(kind))} of {len(self.before.of_kind(kind))} {words}"
            for kind, words in of_each
            if self.before.of_kind(kind)
        ]
        text = f"{' and '.join(counts)} stay"
        if exits := self.kept.of_kind("exit"):
            ends = ", ".join(str(path.source) for path in exits)
            s = "s" * (len(exits) > 1)
            text += f", read by the exit{s} after block{s} {ends}"
        if self.side:
            text += f", of images of {self.side} px"
        if self.wide:
            text += f", with channels for {self.most:#.3g} of the cost"
        if self.restored:
            names = ", ".join(path.key for path in self.restored)
            text += f"; kept against the threshold to join stem and head: {names}"
        return text


def decide(wiring: Wiring, alpha: Sequence[float], *, threshold: float, remove: int) -> PrunePlan:
    """The cut of NetTailor, section 3.4.

    Proxies, identities and exits with α < `threshold` go. Pretrained blocks are ranked by α_ll and
    the `remove` least go (ties: the deepest first). Then everything that is no longer led into or
    read goes, until nothing changes. Where that would part stem and logits, the strongest route
    among what the rank leaves is kept.

    Args:
        wiring: the trained student's paths.
        alpha: their weights, in the same order.
        threshold: in [0, 1).
        remove: from 0 to the number of blocks.

    Raises:
        ValueError: `remove` is out of range, or no path is left from stem to logits.
    """
    blocks = wiring.of_kind("block")
    if not 0 <= remove <= len(blocks):
        raise ValueError(f"cannot remove {remove} of {len(blocks)} blocks")
    weight = dict(zip(wiring.paths, alpha, strict=True))
    ranked = sorted(blocks, key=lambda path: (weight[path], -path.target))
    by_rank = wiring.without(ranked[:remove])
    faint = [
        path
        for path in by_rank.paths
        if path.kind not in ("block", "head") and weight[path] < threshold
    ]
    kept = closure(by_rank.without(faint))
    restored: tuple[Path, ...] = ()
    if not kept.paths:
        # of the greatest product; a float32 softmax can end at 0
        logs = [math.log(max(weight[path], 1e-300)) for path in by_rank.paths]
        route = most_valuable(by_rank, logs)
        restored = tuple(path for path in route.paths if path in set(faint))
        kept = closure(by_rank.without(set(faint) - set(restored)))
    return PrunePlan(f"remove-{remove:02d}", wiring, kept, restored)
