"""Which networks of timm and torchvision can be taken apart, and how much of each can be skipped.

    nice python benchmarks/coverage.py --out coverage.csv --page docs/coverage.md

Every architecture of timm, pretrained or not, and every classification network of torchvision is
traced on the meta device: no weights, no memory. One line a network is appended to the CSV file;
networks that are in it are left out, so that an interrupted run goes on. `--only` takes a pattern
such as `vit*` or `torchvision:*`, `--page` writes the table, `--again` measures those once more
that were refused or have little to skip. A name of timm's pretrained weights counts as its
architecture does.
"""

import argparse
import csv
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import pairwise
from operator import ne
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torchvision
from timm.models import model_entrypoint
from torch import nn

from nettailor.core.backbone import backbone_of, node_specs
from nettailor.core.chain import Chain, chain_of, tangles_of
from nettailor.core.errors import UserError
from nettailor.core.families import bare_network

ENOUGH = 0.3  # of the multiply-adds in blocks that can be skipped
TOLD = 0.05  # of the multiply-adds: less is not worth a word


class Row(NamedTuple):
    """What became of a network: its blocks, or why it was refused or has little to skip."""

    name: str
    module: str
    pretrained: int
    blocks: int
    skippable: int
    share: float
    seconds: float
    refusal: str
    little: str = ""


def names() -> list[str]:
    """All architectures, torchvision's as `torchvision:NAME`.

    timm's: from each module in turn, and those of many weights first.
    """
    found = torchvision.models.list_models(module=torchvision.models)
    weights = Counter(name.split(".")[0] for name in timm.list_pretrained())
    turn: Counter[str] = Counter()
    rank = {}
    for name in sorted(timm.list_models(), key=lambda name: (-weights[name], name)):
        module = model_entrypoint(name).__module__
        rank[name] = not weights[name], turn[module]
        turn[module] += 1
    of_torchvision = (f"torchvision:{name}" for name in found)
    return [*sorted(rank, key=rank.__getitem__), *of_torchvision]


def measure(name: str) -> Row:
    """Takes a network apart on the meta device."""
    started = time.process_time()
    if name.startswith("torchvision:"):
        builder = torchvision.models.get_model_builder(name.removeprefix("torchvision:"))
        module = f"torchvision.{builder.__module__.rsplit('.', 1)[-1]}"
        pretrained = 1
    else:
        module = model_entrypoint(name).__module__.rsplit(".", 1)[-1]
        pretrained = len(timm.list_pretrained(f"{name}.*"))
    counts, share, refusal, little = (0, 0), 0.0, "", ""
    try:
        with torch.device("meta"):
            network = bare_network(name, 10)
        chain = chain_of(network)
        counts = len(chain.blocks), sum(chain.skippable)
        share = sum(
            flops for flops, skips in zip(chain.flops, chain.skippable, strict=True) if skips
        ) / max(chain.total, 1)
        if share < ENOUGH:
            little = why_little(network, chain)
        node_specs(backbone_of(network))  # what a student needs; the network is used up
    except UserError as error:
        refusal, counts, share, little = str(error), (0, 0), 0.0, ""
    except Exception as error:  # a network that cannot even be made
        refusal = f"! {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds = round(time.process_time() - started, 1)
    return Row(name, module, pretrained, *counts, round(share, 3), seconds, refusal, little)


def why_little(network: nn.Module, chain: Chain) -> str:
    """Where a network's multiply-adds are that cannot be skipped."""
    wider = changing = 0
    for flops, (one, other) in zip(chain.flops, pairwise(chain.shapes), strict=True):
        grows = [after > before for before, after in zip(one, other, strict=False)]
        if len(one) == len(other) and sum(grows) == 1 == sum(map(ne, one, other)):
            wider += flops
        elif one != other:
            changing += flops
    tangled = [
        one
        for one in tangles_of(network, chain.example)
        if one.sums > 1 and one.flops > TOLD * chain.total
    ]
    places = {
        "in blocks that add channels": wider,
        "in blocks that change the shape": changing,
        "outside the blocks": chain.total - sum(chain.flops),
    }
    words = [
        f"{percent(flops, chain.total)} {where}"
        for where, flops in places.items()
        if flops > TOLD * chain.total
    ]
    if tangled:
        most = max(tangled, key=lambda one: one.flops)
        share = percent(sum(one.flops for one in tangled), chain.total)
        words.append(f"several values at once in {share}, as from {most.first} to {most.last}")
    return "; ".join(words)


def read(path: Path) -> dict[str, Row]:
    """The rows of a CSV file, the last of each network."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {
            line[0]: Row(
                line[0], line[1], int(line[2]), int(line[3]), int(line[4]), float(line[5]),
                float(line[6]), *line[7:],
            )
            for line in csv.reader(file)
        }  # fmt: skip


def percent(part: float, whole: float) -> str:
    """A share in words."""
    return f"{100 * part / max(whole, 1):.1f} %"


def summary(rows: Iterable[Row], by_name: bool) -> str:
    """How many of some networks are accepted, and how many with enough to skip."""
    weights = [(row, row.pretrained if by_name else 1) for row in rows]
    total = sum(weight for _, weight in weights)
    accepted = sum(weight for row, weight in weights if not row.refusal)
    enough = sum(weight for row, weight in weights if row.share >= ENOUGH)
    return (
        f"{total:,} | {accepted:,} ({percent(accepted, total)}) | "
        f"{enough:,} ({percent(enough, total)})"
    )


def page(rows: dict[str, Row]) -> str:
    """The table as Markdown."""
    of_timm = [row for name, row in rows.items() if ":" not in name]
    of_torchvision = [row for name, row in rows.items() if ":" in name]
    lines = [
        "# Networks that can be taken apart",
        "",
        f"Made by `benchmarks/coverage.py` with timm {timm.__version__} and torchvision "
        f"{torchvision.__version__}. Accepted: a chain of at least two blocks. To skip: the share "
        "of the multiply-adds in blocks whose input and output have one shape, in whose place the "
        "identity can stand. A network counts once, a name of pretrained weights as its "
        "architecture. Measured at the size of the weights.",
        "",
        "",
        "| | number | accepted | with at least 30 % to skip |",
        "|---|---|---|---|",
        f"| timm, architectures | {summary(of_timm, False)} |",
        f"| timm, names of pretrained weights | {summary(of_timm, True)} |",
        f"| torchvision, classification | {summary(of_torchvision, False)} |",
        "",
        "## By module",
        "",
        "| module | architectures | accepted | blocks | to skip | refused, and why |",
        "|---|---|---|---|---|---|",
    ]
    missing = len(set(names()) - rows.keys())
    if missing:
        lines[3] = f"\n{missing:,} networks are not measured yet."
    modules = defaultdict(list)
    for row in rows.values():
        modules[row.module].append(row)
    for module, members in sorted(modules.items()):
        taken = [row for row in members if not row.refusal]
        blocks = sorted(row.blocks for row in taken)
        shares = sorted(row.share for row in taken)
        reasons = defaultdict(list)
        for row in members:
            if row.refusal:
                reasons[row.refusal.replace("|", "\\|")].append(row.name)
        why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        span = f"{blocks[0]}–{blocks[-1]}" if taken else "–"
        middle = f"{shares[len(shares) // 2]:.0%}" if taken else "–"
        lines.append(f"| {module} | {len(members)} | {len(taken)} | {span} | {middle} | {why} |")
    lines += [
        "",
        "## Little to skip",
        "",
        f"Networks with less than {ENOUGH:.0%}, by module: their number, their shares and, of one, "
        "where the rest of the multiply-adds is. In the place of a block that adds channels the "
        "identity can stand with zeros for these, which is not counted.",
        "",
    ]
    for module, members in sorted(modules.items()):
        few = sorted((row.share, row.name, row.little) for row in members if row.little)
        if few:
            span = f"{few[0][0]:.0%} to {few[-1][0]:.0%}" if len(few) > 1 else f"{few[0][0]:.0%}"
            lines.append(f"- **{module}**: {len(few)}, {span}. {few[0][1]}: {few[0][2]}")
    lines += ["", "## All", "", "Blocks, and the share to skip.", ""]
    for module, members in sorted(modules.items()):
        listed = ", ".join(
            f"{row.name} –" if row.refusal else f"{row.name} {row.blocks} {row.share:.0%}"
            for row in sorted(members)
        )
        lines.append(f"- **{module}**: {listed}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("coverage.csv"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    known = read(options.out)
    with options.out.open("a", newline="") as file:
        writer = csv.writer(file)
        for name in names():
            again = options.again and name in known and known[name].share < ENOUGH
            if not fnmatch(name, options.only) or (name in known and not again):
                continue
            row = measure(name)
            writer.writerow(row)
            file.flush()
            print(*row, file=sys.stderr)
    if options.page:
        options.page.write_text(page(read(options.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
