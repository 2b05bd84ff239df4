"""Tailored networks beside fixed top removal that was given every chance.

    python benchmarks/frontier.py --seeds 0 1 2
    python benchmarks/frontier.py --config fashion-mnist --data-dir DIR --seeds 0 1 2

The yardstick, for every number of stages cut off the top:

- fine-tuned by its best learning rate out of `RATES`, chosen on the validation split of the first
  seed, for as many epochs as the tailored network's whole way took: teacher, student, fine-tuning
  (cuts that were tried and given up, and the weighing of paths, are not counted);
- once more cut from the teacher itself and fine-tuned as the tailored network is, with the same
  losses and schedule, for the epochs that the teacher leaves of the whole way: what then differs is
  the choice of blocks.

`--finetune task` compares with eliminated networks whose blocks are frozen, which share them too.
`--budgets params=0.0125` adds the network that is tailored to at most that share of the backbone's
parameters. `--channels flops=0.7 params=0.5` adds each tailored network narrowed by the knapsack to
at most 0.7 of its FLOPs, and to half of its parameters; `prune.epochs` come once more on top of the
whole way that the rivals are given.
Everything trains on the same splits, augmentation and seeds; what is finished is not trained again.
Writes `frontier.md`, `frontier.csv` and `frontier.png` into `frontier-<config>-<mode>/` of `--out`.
"""

import argparse
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure
from same_teacher import share_teacher
from torch import nn

from nettailor.commands.eliminate import eliminated_runs, train_beside_teacher
from nettailor.commands.knapsack import knapsack
from nettailor.commands.tailor import LATENCY_FILE, tailor
from nettailor.commands.teach import ready_teacher, teacher_folder
from nettailor.core.config import RunConfig, as_settings, recorded
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import write_atomically, write_text
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import RunFolder
from nettailor.core.settings import read_settings, set_key, validate
from nettailor.front import Seconds
from nettailor.hand_over import hand_over_alone
from nettailor.network import load_network
from nettailor.path_shares import PathCosts
from nettailor.prune.eliminate import kept_blocks, units
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.session import Session, start_session
from nettailor.share import Share, read_share
from nettailor.student.wiring import Path as Way
from nettailor.tailoring import Tailoring

RATES = (0.02, 0.05, 0.1)
COLUMNS = ("val", "test", "flops", "params", "latency")
TAILORED = "tailored"  # begins the names of all that are, narrowed ones too
CHANNELS = ", channels "
TOLERANCE = 0.5  # points below the teacher on test that a tailored network may be


class Entry(NamedTuple):
    """One network of one seed.

    flops, params, latency: over those of its teacher; params are the task's own in `task` mode.
    """

    method: str
    seed: int
    val: float
    test: float
    flops: float
    params: float
    latency: float


def main() -> None:
    """Train what is missing, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--finetune", choices=("all", "task"), default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tops", type=int, nargs="+", help="stages off the top (default: all)")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument(
        "--budgets",
        type=_share,
        nargs="+",
        default=[],
        metavar="params=0.1",
        help="shares of the backbone's FLOPs or parameters to tailor to as well",
    )
    parser.add_argument(
        "--channels",
        type=_share,
        nargs="+",
        default=[],
        metavar="flops=0.7",
        help="shares of the tailored network's FLOPs or parameters to narrow it to",
    )
    parser.add_argument("--out", default="runs")
    arguments = parser.parse_args()
    if arguments.channels and arguments.finetune == "task":
        parser.error("--channels: blocks that other tasks share keep all of theirs")
    settings = read_settings(arguments.config)
    for key, value in (
        ("data_dir", arguments.data_dir),
        ("out", arguments.out),
        ("prune.finetune", arguments.finetune),
        ("workers", 0),
    ):
        set_key(settings, key, value)
    config = validate(settings)
    with Screen() as screen:
        images = len(start_session(config, screen).task.test)
        entries = list(_entries(config, screen, arguments))
    out = Path(arguments.out) / f"frontier-{Path(arguments.config).stem}-{arguments.finetune}"
    _write(out, entries, images)


def _entries(config: RunConfig, screen: Screen, arguments: argparse.Namespace) -> Iterator[Entry]:
    best: dict[int, float] = {}
    whole = config.teacher.epochs + config.student.epochs + config.prune.epochs
    for seed in arguments.seeds:
        session = start_session(_with(config, seed=seed), screen)
        runs = {"teacher": ready_teacher(session).folder}
        runs |= _tailored(session, arguments.budgets, arguments.channels)
        for top in arguments.tops or range(1, units(session.stages, "stages")):
            if top not in best:
                tried = {rate: _eliminated(session, top, rate, whole) for rate in arguments.rates}
                scores = {
                    rate: run.read_summary()["accuracy"]["val"] for rate, run in tried.items()
                }
                best[top] = max(scores, key=lambda rate: scores[rate])
                screen.say(f"elim {top}: validation by learning rate {scores}")
            runs[f"elim {top}"] = _eliminated(session, top, best[top], whole)
            rest = whole - config.teacher.epochs
            runs[f"elim {top}, distilled"] = _distilled(session, top, rest)
        yield from _measured(session, runs)


def _share(text: str) -> Share:
    """A share of a cost, in argparse's manner."""
    try:
        return read_share(text, "found")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _tailored(
    session: Session, budgets: Sequence[Share], channels: Sequence[Share]
) -> dict[str, RunFolder]:
    """The leanest within tolerance, those within budgets, and what the channels leave of each."""
    configs = {TAILORED: session.config}
    for budget in budgets:
        limited = _with(session.config, budget={f"max_{budget.unit}": budget.most})
        configs[f"{TAILORED} to {budget.unit}={budget.most:g}"] = limited
    runs = {}
    for name, config in configs.items():
        runs[name] = tailor(start_session(config, session.screen), overwrite=False)
        for choice in channels:
            limit = {f"max_{choice.unit}": choice.most}
            narrower = _with(config, knapsack__of=str(runs[name].path), budget=limit)
            there = start_session(narrower, session.screen)
            run = knapsack(there, overwrite=False)
            runs[f"{name}{CHANNELS}{choice.unit}={choice.most:g}"] = run
    return runs


def _with(config: RunConfig, **changes: object) -> RunConfig:
    settings = as_settings(config)
    for key, value in changes.items():
        set_key(settings, key.replace("__", "."), value)
    return validate(settings)


def _eliminated(session: Session, top: int, rate: float, epochs: int) -> RunFolder:
    """Fixed removal at a learning rate, in an `out` of its own that has the same teacher."""
    config = session.config
    out = Path(config.out) / f"lr{rate:g}"
    other = _with(
        config,
        out=str(out),
        eliminate__lr=rate,
        eliminate__epochs=epochs,
        eliminate__top=[top],
        eliminate__references=[],
        eliminate__trainable="all" if config.prune.finetune == "all" else "head",
    )
    there = start_session(other, session.screen)
    share_teacher(teacher_folder(session), there)
    (run,) = eliminated_runs(there)
    return train_beside_teacher(there, run, overwrite=False)


def _distilled(session: Session, top: int, epochs: int) -> RunFolder:
    """The blocks that fixed removal keeps, cut from the untrained student and tailored further.

    Its head is the exit there, at most 256 channels wide.
    """
    out = Path(session.config.out) / "distilled"
    config = _with(session.config, out=str(out), prune__epochs=epochs)
    there = start_session(config, session.screen)
    share_teacher(teacher_folder(session), there)
    folder = RunFolder(there.folder("tailored", config.prune.finetune, f"stages{top}"))
    folder.open(recorded(there.config, "student", "prune"), overwrite=False)
    if folder.finished:
        return folder
    teacher = ready_teacher(there)
    costs = PathCosts(there, folder.path / LATENCY_FILE, fresh=False)
    work = Tailoring(there, folder, teacher.network, costs)
    student = work.grown()
    kept = kept_blocks(session.stages, "stages", top)
    route = [Way(node - 1, node, "block") for node in range(1, kept + 1)]
    route.append(Way(kept, student.wiring.depth, "exit"))
    plan = PrunePlan.keeping(f"elim-{top}", student.wiring, route)
    candidate = work.cut_and_finetune(student, plan)
    hand_over_alone(work, folder, candidate, teacher, Seconds(0, 0).plus(candidate.fitted))
    return folder


def _measured(session: Session, runs: Mapping[str, RunFolder]) -> Iterator[Entry]:
    """Every run's figures; latency at batch 1 is of the folded networks, all in turn, now."""
    device = session.accelerator.device
    networks: dict[str, nn.Module] = {
        name: place(fold(load_network(run.path)[0]), device) for name, run in runs.items()
    }
    times = measure_latency(
        networks, session.config.image_size, device, batches=(1,), seconds=5.0 * len(networks)
    )
    summaries = {name: run.read_summary() for name, run in runs.items()}
    whole = summaries["teacher"]
    for name, summary in summaries.items():
        yield Entry(
            name,
            session.config.seed,
            summary["accuracy"]["val"],
            summary["accuracy"]["test"],
            summary["flops"] / whole["flops"],
            summary["params"]["total" if session.config.prune.finetune == "all" else "task"]
            / whole["params"]["total"],
            times[name]["1"]["median"] / times["teacher"]["1"]["median"],
        )


def _write(out: Path, entries: Sequence[Entry], test_images: int) -> None:
    """The table of means, the ratios, and the picture."""
    methods = list(dict.fromkeys(entry.method for entry in entries))
    by_method = {name: [one for one in entries if one.method == name] for name in methods}
    lines = [
        "| network | validation % | test % | FLOPs | params | latency, batch 1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in by_method.items():
        cells = [_spread([getattr(one, column) for one in group], column) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_ratios(by_method, test_images)]
    write_text(out / "frontier.md", "\n".join(lines) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Entry._fields)
    writer.writerows(entries)
    write_text(out / "frontier.csv", text.getvalue())
    write_atomically(out / "frontier.png", partial(_picture(by_method).savefig, format="png"))
    print("\n".join(lines))


def _spread(values: Sequence[float], column: str) -> str:
    form = ".2f" if column in ("val", "test") else ".3f"
    spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{spread}"


def _ratios(by_method: Mapping[str, Sequence[Entry]], test_images: int) -> Iterator[str]:
    """Each tailored network over the leanest eliminated one that is at least as accurate.

    "At least" is within a standard error of the tailored network's test accuracy; the eliminated
    networks are taken by their mean over the seeds. The whole network counts as elim 0.
    """
    tailored = [
        one for name, group in by_method.items() if name.startswith(TAILORED) for one in group
    ]
    teachers = {one.seed: one.test for one in by_method["teacher"]}
    for one in tailored:
        if one.test < teachers[one.seed] - TOLERANCE:
            yield (
                f"{one.method}, seed {one.seed}: {one.test:.2f} % is more than {TOLERANCE} points "
                f"below its teacher ({teachers[one.seed]:.2f} %)"
            )
            continue
        share = min(max(one.test / 100, 1 / test_images), 1 - 1 / test_images)
        error = 100 * math.sqrt(share * (1 - share) / test_images)
        for kind in ("", ", distilled"):
            rivals = {
                name: group
                for name, group in by_method.items()
                if name == "teacher"
                or (name.startswith("elim") and name.endswith(", distilled") == bool(kind))
            }
            able = {
                name: group
                for name, group in rivals.items()
                if fmean(rival.test for rival in group) >= one.test - error
            } or {"teacher": by_method["teacher"]}
            name = min(able, key=lambda name: fmean(rival.flops for rival in able[name]))
            ratios = [
                getattr(one, column) / fmean(getattr(rival, column) for rival in able[name])
                for column in ("flops", "params", "latency")
            ]
            yield (
                f"{one.method}, seed {one.seed}: {one.test:.2f} % beside {name} "
                f"({fmean(rival.test for rival in able[name]):.2f} %): FLOPs {ratios[0]:.2f}, "
                f"params {ratios[1]:.2f}, latency {ratios[2]:.2f}  "
            )


def _picture(by_method: Mapping[str, Sequence[Entry]]) -> Figure:
    """Test accuracy against FLOPs and against latency: a mark a seed, a line through means."""
    figure = Figure(figsize=(10, 4.4), dpi=110)
    cuts = [name for name in by_method if name.startswith("elim")]
    plain = [name for name in cuts if not name.endswith("distilled")]
    tailored = [name for name in by_method if name.startswith(TAILORED)]
    narrowed = [name for name in tailored if CHANNELS in name]
    families = {
        "fixed removal, best learning rate": (plain, "#0072b2", "s"),
        "fixed removal, distilled": ([name for name in cuts if name not in plain], "#e69f00", "^"),
        "tailored": ([name for name in tailored if name not in narrowed], "#d55e00", "o"),
        "tailored, channels too": (narrowed, "#cc79a7", "v"),
        "teacher": (["teacher"], "#555555", "D"),
    }  # fmt: skip
    for position, (column, label) in enumerate(
        (("flops", "FLOPs over the whole network's"), ("latency", "latency over the whole's"))
    ):
        axes = figure.add_subplot(1, 2, position + 1)
        for name, (methods, colour, mark) in families.items():
            means = []
            for method in methods:
                group = by_method[method]
                xs = [getattr(one, column) for one in group]
                ys = [one.test for one in group]
                axes.scatter(xs, ys, color=colour, marker=mark, s=18, alpha=0.5, linewidths=0)
                means.append((fmean(xs), fmean(ys)))
            if means:
                means.sort()
                axes.plot(
                    *zip(*means, strict=True), color=colour, marker=mark, label=name, linewidth=1
                )
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy, %")
        axes.set_xlim(0, None)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="lower center", ncols=4)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return figure


if __name__ == "__main__":
    main()
