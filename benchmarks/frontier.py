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
Writes `frontier.md` and `frontier.csv` into `frontier-<config>-<mode>/` of `--out`.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from same_teacher import share_teacher
from torch import nn

from nettailor.commands.eliminate import eliminated_runs, train_beside_teacher
from nettailor.commands.knapsack import knapsack
from nettailor.commands.tailor import LATENCY_FILE, tailor
from nettailor.commands.teach import ready_teacher, teacher_folder
from nettailor.core.config import RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.files import write_text
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import RunFolder
from nettailor.core.sections import AUTO_EPOCHS
from nettailor.core.settings import changed, read_settings, validate
from nettailor.front import Seconds
from nettailor.hand_over import hand_over
from nettailor.network import load_network
from nettailor.path_shares import PathCosts
from nettailor.prune.eliminate import kept_blocks, units
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.session import Session, start_session
from nettailor.share import Share, read_share
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way
from nettailor.tailoring import Tailoring

RATES = (0.0005, 0.001, 0.002)
COLUMNS = ("val", "test", "flops", "params", "latency")
TAILORED = "tailored"  # begins the names of all that are, narrowed ones too
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
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--finetune", choices=("all", "task"), default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tops", type=int, nargs="+", help="stages off the top (default: all)")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument(
        "--budgets",
        type=read_share,
        nargs="+",
        default=[],
        metavar="params=0.1",
        help="shares of the backbone's FLOPs or parameters to tailor to as well",
    )
    parser.add_argument(
        "--channels",
        type=read_share,
        nargs="+",
        default=[],
        metavar="flops=0.7",
        help="shares of the tailored network's FLOPs or parameters to narrow it to",
    )
    parser.add_argument("--out", default="runs")
    arguments = parser.parse_args()
    if arguments.channels and arguments.finetune == "task":
        parser.error("--channels: blocks that other tasks share keep all of theirs")
    config = changed(
        validate(read_settings(arguments.config)),
        data_dir=arguments.data_dir,
        out=arguments.out,
        prune__finetune=arguments.finetune,
        teacher__epochs=AUTO_EPOCHS,
        workers=0,
    )
    with Screen() as screen:
        images = len(start_session(config, screen).task.test)
        entries = list(_entries(config, screen, arguments))
    out = Path(arguments.out) / f"frontier-{Path(arguments.config).stem}-{arguments.finetune}"
    _write(out, entries, images)


def _entries(config: RunConfig, screen: Screen, arguments: argparse.Namespace) -> Iterator[Entry]:
    best: dict[int, float] = {}
    whole = AUTO_EPOCHS + config.student.epochs + config.prune.epochs
    for seed in arguments.seeds:
        session = start_session(changed(config, seed=seed), screen)
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
            runs[f"elim {top}, distilled"] = _distilled(session, top, whole - AUTO_EPOCHS)
        yield from _measured(session, runs)


def _tailored(
    session: Session, budgets: Sequence[Share], channels: Sequence[Share]
) -> dict[str, RunFolder]:
    """The leanest within tolerance, those within budgets, and what the channels leave of each."""
    configs = {TAILORED: session.config}
    for budget in budgets:
        limited = changed(session.config, budget={f"max_{budget.unit}": budget.most})
        configs[f"{TAILORED} to {budget.unit}={budget.most:g}"] = limited
    runs = {}
    for name, config in configs.items():
        runs[name] = tailor(start_session(config, session.screen), overwrite=False)
        for choice in channels:
            limit = {f"max_{choice.unit}": choice.most}
            narrower = changed(config, knapsack__of=str(runs[name].path), budget=limit)
            there = start_session(narrower, session.screen)
            run = knapsack(there, overwrite=False)
            runs[f"{name}, channels {choice.unit}={choice.most:g}"] = run
    return runs


def _eliminated(session: Session, top: int, rate: float, epochs: int) -> RunFolder:
    """Fixed removal at a learning rate, in an `out` of its own that has the same teacher."""
    config = session.config
    out = Path(config.out) / f"lr{rate:g}"
    other = changed(
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


class Untrained(Tailoring):
    """Fine-tunes what is left of the student that was not trained."""

    def start(self, plan: PrunePlan) -> Student:
        """See `Tailoring`."""
        network = remove(self.grown(), plan)
        self.reestimate(network)
        return network


def _distilled(session: Session, top: int, epochs: int) -> RunFolder:
    """The blocks that fixed removal keeps, cut from the untrained student and tailored further.

    Its head is the exit there, at most 256 channels wide.
    """
    out = Path(session.config.out) / "distilled"
    config = changed(session.config, out=str(out), prune__epochs=epochs)
    there = start_session(config, session.screen)
    share_teacher(teacher_folder(session), there)
    folder = RunFolder(there.places.run("tailored", config.prune.finetune, f"stages{top}"))
    folder.open(recorded(there.config, "student", "prune"), overwrite=False)
    if folder.finished:
        return folder
    teacher = ready_teacher(there)
    costs = PathCosts(there, folder.path / LATENCY_FILE, fresh=False)
    work = Untrained(there, folder, teacher.network, costs)
    student = work.grown()
    kept = kept_blocks(session.stages, "stages", top)
    route = [Way(node - 1, node, "block") for node in range(1, kept + 1)]
    route.append(Way(kept, student.wiring.depth, "exit"))
    plan = PrunePlan.keeping(f"elim-{top}", student.wiring, route)
    candidate = work.finetune(plan)
    hand_over(work, [candidate], teacher, Seconds(0, 0), kind="picked")
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
    """The table of means, and the ratios."""
    frame = pd.DataFrame(entries)
    lines = [
        "| network | validation % | test % | FLOPs | params | latency, batch 1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in frame.groupby("method", sort=False):
        cells = [_spread(group[column], column) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_ratios(frame, test_images)]
    write_text(out / "frontier.md", "\n".join(lines) + "\n")
    write_text(out / "frontier.csv", frame.to_csv(index=False, lineterminator="\n"))
    print("\n".join(lines))


def _spread(values: pd.Series, column: str) -> str:
    form = ".2f" if column in ("val", "test") else ".3f"
    spread = f" ± {values.std():{form}}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{spread}"


def _ratios(frame: pd.DataFrame, test_images: int) -> Iterator[str]:
    """Each tailored network over the leanest eliminated one that is at least as accurate.

    "At least" is within a standard error of the tailored network's test accuracy; the eliminated
    networks are taken by their mean over the seeds. The whole network counts as elim 0.
    """
    means = frame.groupby("method", sort=False)[list(COLUMNS)].mean()
    distilled = means.index.str.endswith(", distilled")
    tailored = means.index.str.startswith(TAILORED)
    teachers = frame[frame["method"] == "teacher"].set_index("seed")["test"]
    of_tailored = frame[frame["method"].str.startswith(TAILORED)]
    for one in of_tailored.sort_values("method", kind="stable").itertuples():
        if one.test < teachers[one.seed] - TOLERANCE:
            yield (
                f"{one.method}, seed {one.seed}: {one.test:.2f} % is more than {TOLERANCE} points "
                f"below its teacher ({teachers[one.seed]:.2f} %)"
            )
            continue
        share = min(max(one.test / 100, 1 / test_images), 1 - 1 / test_images)
        error = 100 * math.sqrt(share * (1 - share) / test_images)
        for own in (~distilled, distilled):
            rivals = means[(own & ~tailored) | (means.index == "teacher")]
            able = rivals[rivals["test"] >= one.test - error]
            name = able["flops"].idxmin() if len(able) else "teacher"
            rival = means.loc[name]
            yield (
                f"{one.method}, seed {one.seed}: {one.test:.2f} % beside {name} "
                f"({rival.test:.2f} %): FLOPs {one.flops / rival.flops:.2f}, "
                f"params {one.params / rival.params:.2f}, "
                f"latency {one.latency / rival.latency:.2f}  "
            )


if __name__ == "__main__":
    main()
