"""Tailored networks beside rivals that had every chance: blocks cut off the top, one lever alone.

    python benchmarks/frontier.py --images TRASHNET FLOWERS --size 64 --out runs/frontier

For each folder (`digits`: scikit-learn's) and seed images are drawn to train, validate and test on,
and tf_efficientnet_lite0 is fine-tuned as the teacher. `nt.tailor` goes on from it, within
tolerance and to `--budgets` of its FLOPs. Rivals, each at `--size` pixels and at the lower sides
that `nt.tailor` tries:

- first 5: fixed removal of the stages behind block 5, a fresh head; `whole`: nothing is removed, so
  the resolution alone does it. From the ImageNet weights, for as many epochs as the whole way to a
  budget, teacher included, at the best of `--rates` on the validation images of the first seed;
- the same, distilled: cut from the teacher, with what a tailored network is fine-tuned by, for the
  epochs that the teacher leaves of the whole way;
- channels: the teacher with as many channels as cost a share of it, fine-tuned likewise.

"blocks alone" is `nt.tailor` without channels and resolution. Each training ends with its last
epoch; the test is read once, at the end. Latency is ONNX Runtime's at batch 1, one thread, all
networks of a seed in turn. Finished seeds are read from `--out`. `--distilled-alone` leaves out the
rivals from the ImageNet weights, which take most of the hours.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import mean, median

import torch
from first_blocks import shorter
from front_picture import draw
from seeds import Rows, each_set, of_each_seed, print_sets, sets_parser
from selection import Measured
from small_images import loaders
from torch import nn

import nettailor as nt
from nettailor.core.cost import module_flops
from nettailor.core.latency import sample, time_in_turn
from nettailor.core.scores import classify
from nettailor.deploy.onnx_file import load_onnx, to_onnx
from nettailor.fitting import accelerator_for
from nettailor.prune.eliminate import kept_blocks
from nettailor.prune.fold import fold
from nettailor.prune.plain import Resized
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.resolutions import sides
from nettailor.resolve import EPOCHS_TO_A_BUDGET
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

CPU = torch.device("cpu")
CHANNELS = (0.5, 0.3)  # of the teacher's FLOPs at the side


def first(wiring: Wiring, kept: int, side: int | None) -> PrunePlan:
    """The first blocks under the exit there, or all of them under the pretrained head."""
    route = [Way(node - 1, node, "block") for node in range(1, kept + 1)]
    end = Way(kept, wiring.depth, "exit" if kept < len(wiring.of_kind("block")) else "head")
    return PrunePlan.keeping(f"first-{kept}", wiring, [*route, end], side)


class Rivals(Measured):
    """The networks of one seed, those that stand beside the tailored ones included."""

    def __init__(self, given: argparse.Namespace, seed: int, rates: Mapping[str, float]) -> None:
        """rates: by name, of the rivals whose best learning rate is known."""
        super().__init__(given, seed)
        self._given, self._rates = given, rates
        self._plain = list[tuple[nn.Module, int]]()
        self._begins = deepcopy(self.teacher)
        self._whole_way = given.epochs + sum(EPOCHS_TO_A_BUDGET)
        at = sides(self.teacher, self.size, "flops", ("blocks", "resolution"))
        self.sides = [one or self.size for one in reversed(at)]
        stages = self.teacher.stages
        tops = range(stages[-1] - stages[0] - 1, 1, -1)
        self.kept = [kept_blocks(stages, "stages", top) for top in tops] + [len(stages)]

    def add(self, name: str, network: nn.Module, seconds: float) -> None:
        """A row of a network as it stands, and the network as it is used."""
        plain = fold(network) if isinstance(network, (nt.Backbone, nt.Student)) else network
        side = self.size
        if isinstance(plain, nn.Sequential) and isinstance(plain[0], Resized):
            side, plain = plain[0].side, plain[1:]  # it is given images of that side
        self._add(name, {split: self.scores(network, split).accuracy for split in self.splits},
                  seconds, plain, side)  # fmt: skip

    def _add(
        self, name: str, scores: Mapping[str, float], seconds: float, plain: nn.Module, side: int
    ) -> None:
        flops = module_flops(plain, (3, side, side))
        params = sum(one.numel() for one in plain.parameters())
        row = {"network": name, **scores, "flops": flops, "params": params, "seconds": seconds}
        self._plain.append((plain, side))
        tested = len(self.splits["test"].dataset)  # type: ignore[arg-type]
        self.rows.append(row | {"side": side, "tested": tested})
        print(self.rows[-1], flush=True)

    def plain(self) -> None:
        """Networks as others make them small, at their best learning rate."""
        for side in self.sides:
            (train, val, test), _ = loaders(
                self._given.images, self._given.counts, size=side, batch=64, seed=self.seed
            )
            how = self.how | {"train_loader": train, "val_loader": val, "judge": None}
            for kept in self.kept:
                name = self._named(kept, side)
                known = self._rates.get(name)
                best = -1.0
                for lr in [known] if known else self._given.rates:
                    one = deepcopy(self._begins)
                    if kept < len(one.blocks):
                        one = shorter(one, kept, self.seed)
                    started = time.process_time()
                    scores = nt.fit(
                        one, nt.CrossEntropy(), epochs=self._whole_way, lr=lr, **how
                    ).scores
                    seconds = time.process_time() - started
                    print(name, lr, scores.accuracy, flush=True)
                    if scores.accuracy > best:
                        best, found = scores.accuracy, (one, lr, seconds)
                network, lr, seconds = found
                tested = classify(network, test, accelerator_for("auto")).scores()
                reached = {"val": best, "test": tested.accuracy}
                self._add(name, reached, seconds, fold(network), side)
                self.rows[-1]["lr"] = lr

    def distilled(self) -> None:
        """The same networks cut from the teacher, and those that channels alone make small."""
        wiring = self.grown().wiring
        for side in self.sides:
            at, epochs = (None if side == self.size else side), sum(EPOCHS_TO_A_BUDGET)
            for kept in self.kept:
                cut = remove(self.grown(), first(wiring, kept, at))
                if (kept, at) != (self.kept[-1], None):
                    self.finish(f"{self._named(kept, side)}, distilled", cut, 0, epochs)
            for most in CHANNELS:
                narrow = nt.narrow(cut, self.how["train_loader"], max_flops=most, seed=self.seed)
                self.finish(f"channels {most:g}, {side} px", narrow, 0, epochs)

    def tailored(self) -> None:
        """Networks that are tailored from the teacher."""
        how = {key: self.how[key] for key in ("train_loader", "val_loader", "seed", "verbose")}
        tailor = partial(nt.tailor, self.teacher, teacher_epochs=0, **how)
        asked = {"tailored": tailor, "blocks alone": partial(tailor, levers=("blocks",))}
        asked |= {
            f"tailored to {one:g}": partial(tailor, max_flops=one) for one in self._given.budgets
        }
        for name, make in asked.items():
            started = time.process_time()
            self.add(name, make(), time.process_time() - started)

    def timed(self) -> None:
        """Note what a pass of each takes, and costs over the teacher's."""
        sessions, images = {}, {}
        for number, (plain, side) in enumerate(self._plain):
            sessions[str(number)] = load_onnx(to_onnx(plain, side, {}), threads=1)
            images[str(number)] = sample(1, 3, side, CPU)
        times = time_in_turn(sessions, images, CPU, seconds=1.0 * len(sessions))
        of_teacher = {key: self.rows[0][key] for key in ("flops", "params")}
        for number, row in enumerate(self.rows):
            row["latency"] = median(times[str(number)]) / median(times["0"])
            row |= {key: row[key] / whole for key, whole in of_teacher.items()}

    def _named(self, kept: int, side: int) -> str:
        what = "whole" if kept == self.kept[-1] else f"first {kept}"
        return f"{what}, {side} px"


def rows_of(
    train: Callable[[Rivals], None],
    given: argparse.Namespace,
    rates: Mapping[str, float],
    seed: int,
) -> Rows:
    """A row for the teacher, and for each network that is trained beside it.

    train: a method of `Rivals`. rates: known learning rates by name.
    """
    one = Rivals(given, seed, rates)
    one.teach()
    train(one)
    one.timed()
    return one.rows


def plain(given: argparse.Namespace, name: str, seed: int) -> Rows:
    """Of rivals without the teacher; the learning rates are those of the first seed."""
    rates = dict[str, float]()
    if seed != given.seeds[0]:
        alone = argparse.Namespace(**{**vars(given), "seeds": given.seeds[:1]})
        (rows,) = of_each_seed(alone, name, partial(plain, alone, name))
        rates = {row["network"]: row["lr"] for row in rows if "lr" in row}
    return rows_of(Rivals.plain, given, rates, seed)


KEYS = ("flops", "params")  # rows have latencies too, which count where the machine was idle


def ratios(name: str, seeds: Sequence[Rows]) -> Iterator[str]:
    """Each tailored network over the leanest rival that is as accurate in the mean of the seeds.

    As accurate is within a standard error of the tailored network's accuracy.

    Args:
        name: of the set.
        seeds: the rows of each.
    """
    of = {
        rows[0]["network"]: {key: mean(row[key] for row in rows) for key in ("test", *KEYS)}
        for rows in zip(*seeds, strict=True)
    }
    images = sum(rows[0]["tested"] for rows in seeds)
    own = f"{seeds[0][0]['side']} px"
    fixed = {one for one in of if one.startswith(("first", "whole"))} | {"teacher"}
    alone = fixed | {one for one in of if one.startswith(("channels", "blocks alone"))}
    at_own = {one for one in fixed if own in one or one == "teacher"}
    for one in (key for key in of if key.startswith("tailored")):
        share = of[one]["test"] / 100
        error = 100 * (share * (1 - share) / images) ** 0.5
        cells = []
        for group in (at_own, fixed, alone):
            able = [key for key in group if of[key]["test"] >= of[one]["test"] - error]
            rival = min(able, key=lambda key: of[key]["flops"]) if able else "teacher"
            over = " / ".join(f"{of[one][key] / of[rival][key]:.2f}" for key in KEYS)
            cells.append(f"{over} of {rival}" + " (less accurate)" * (not able))
        below = of["teacher"]["test"] - of[one]["test"]
        yield f"| {name}, {one} | {below:+.1f} ± {error:.1f} | {' | '.join(cells)} |"


def main() -> None:
    """Measure every seed, print the tables."""
    parser, sets, lines = sets_parser(__doc__), dict[str, list[Rows]](), list[str]()
    parser.set_defaults(shared=False, epochs=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.15, 0.08])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.002, 0.004, 0.008])
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--picture", type=Path, help="an SVG file to draw the fronts into")
    parser.add_argument("--distilled-alone", action="store_true")
    asked = parser.parse_args()
    picture, distilled_alone = asked.picture, asked.distilled_alone
    del asked.picture, asked.distilled_alone  # rows are the same with them and without
    for name, given in each_set(asked):
        file = f"{name}-plain"
        kinds = [
            of_each_seed(given, f"{name}-tailored", partial(rows_of, Rivals.tailored, given, {})),
            of_each_seed(given, f"{name}-distilled", partial(rows_of, Rivals.distilled, given, {})),
        ]
        if not distilled_alone:
            kinds.append(of_each_seed(given, file, partial(plain, given, file)))
        sets[name] = [
            [*ours, *(row for rows in others for row in rows[1:])]
            for ours, *others in zip(*kinds, strict=True)
        ]
        lines += ratios(name, sets[name])
    print_sets(sets)
    if picture:
        draw(sets, picture)
    print(
        "\n| set, network | points below its teacher | over fixed removal at full size "
        "| over fixed removal at any | over any one lever |\n|---|---|---|---|---|"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
