"""Which networks of timm and torchvision can be taken apart, and how much of each can be skipped.

    nice python benchmarks/coverage.py --out coverage.csv --page docs/coverage.md

Every architecture of timm, pretrained or not, and every classification network of torchvision is
traced on the meta device: no weights, no memory. One line a network is appended to the CSV file;
networks that are in it are left out, so that an interrupted run goes on. `--only` takes a pattern
such as `vit*` or `torchvision:*`, `--page` writes the table, `--refused` tries those again that
were refused. A name of timm's pretrained weights counts as its architecture does.
"""

import argparse
import csv
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import timm
import torchvision
from accelerate import init_empty_weights
from timm.models import model_entrypoint

from nettailor.core.chain import chain_of
from nettailor.core.errors import UserError
from nettailor.core.families import bare_network

ENOUGH = 0.3  # of the multiply-adds in blocks that can be skipped


class Row(NamedTuple):
    """What became of a network: its blocks, or why it was refused."""

    name: str
    module: str
    pretrained: int
    blocks: int
    skippable: int
    share: float
    seconds: float
    refusal: str


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
    counts, share, refusal = (0, 0), 0.0, ""
    try:
        try:
            with init_empty_weights():
                network = bare_network(name, 10)
        except (RuntimeError, NotImplementedError):  # it computes with its weights
            network = bare_network(name, 10)
        chain = chain_of(network)
        counts = len(chain.blocks), sum(chain.skippable)
        share = sum(
            flops for flops, skips in zip(chain.flops, chain.skippable, strict=True) if skips
        ) / max(chain.total, 1)
    except UserError as error:
        refusal = str(error)
    except Exception as error:  # a network that cannot even be made
        refusal = f"! {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds = round(time.process_time() - started, 1)
    return Row(name, module, pretrained, *counts, round(share, 3), seconds, refusal)


def read(path: Path) -> dict[str, Row]:
    """The rows of a CSV file, the last of each network."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {
            line[0]: Row(
                line[0], line[1], int(line[2]), int(line[3]), int(line[4]), float(line[5]),
                float(line[6]), line[7],
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
        "architecture.",
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
    parser.add_argument("--refused", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    known = read(options.out)
    with options.out.open("a", newline="") as file:
        writer = csv.writer(file)
        for name in names():
            again = options.refused and name in known and known[name].refusal
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
