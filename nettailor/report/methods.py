"""Runs that differ in their seed only are one method, with a mean and a spread."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from nettailor.core.compound_scaling import PUBLISHED
from nettailor.core.config import EXECUTION_KEYS, STAGES
from nettailor.core.errors import UserError
from nettailor.core.faults import shown
from nettailor.core.printable import printable
from nettailor.core.run_folder import KINDS, Kind
from nettailor.core.side_sections import ROUND_TO
from nettailor.report.measures import latency_unrest
from nettailor.report.runs import Run
from nettailor.report.summary import Budget, Figures, Knapsack, Scaled, Summary, Tailored

Figure = Callable[[Run], float | None]

# what a run was asked for beside itself, or anew in each run of a method; runs of other data are
# refused, and its spelling says nothing
_NO_SETTING = {
    "seed", "data", "eliminate.top", "eliminate.references", "knapsack.of", "search.trials",
    *EXECUTION_KEYS,
}  # fmt: skip
_OWN_SECTIONS = tuple(f"{stage}." for stage in STAGES)  # each kind trains by its own
_UNREST = 0.3  # middle half of a latency over its median, above which the machine was busy


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation; None where there is one seed only."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """The spread of the values that are there; None when none is."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, eq=False)
class Method:
    """One way to a network: its runs by rising seed, at least one."""

    label: str
    runs: tuple[Run, ...]

    @property
    def example(self) -> Summary:
        """The summary of the first seed's run, for what all seeds share."""
        return self.runs[0].summary

    @property
    def kind(self) -> Kind:
        """What the method is one of."""
        return self.example.kind

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs, rising."""
        return tuple(run.summary.seed for run in self.runs)

    def spread(self, figure: Figure) -> Spread | None:
        """A figure over the seeds."""
        return Spread.of(figure(run) for run in self.runs)

    def mean(self, figure: Figure) -> float | None:
        """Mean of a figure over the seeds; None when no run has it."""
        spread = self.spread(figure)
        return None if spread is None else spread.mean


def label_of(summary: Summary) -> str:
    """The short name of what a run did, without backbone and seed."""
    if summary.tailored:
        return ", ".join(
            [f"tailored {summary.tailored.finetune}", *_aims(summary.tailored, summary.device)]
        )
    if summary.eliminated:
        cut = summary.eliminated
        words = [f"elim {cut.top}"]
        words += ["blocks"] if cut.unit == "blocks" else []
        words += ["conv"] if cut.replacement else []
        words += ["head"] if cut.trainable == "head" else []
        return " ".join(words)
    if summary.scaled:
        return _scaling(summary.scaled)
    if summary.knapsack:
        return ", ".join(_knapsack(summary.knapsack, summary.device))
    if summary.searched:
        return f"searched {summary.searched.trial}-{summary.searched.network}"
    return {"head-only": "head only", "scratch": "from scratch"}.get(summary.kind, summary.kind)


def _aims(tailored: Tailored, device: str) -> Iterator[str]:
    """What a student was trained with and cut to."""
    yield f"γ {tailored.gamma:g}"
    if tailored.budget:
        yield from _limits(tailored.budget, device)
    if tailored.cut == "rank":
        yield "by rank"


def _scaling(scaled: Scaled) -> str:
    """φ, and what is not as published."""
    label = f"scaled φ {scaled.phi:g}"
    if scaled.coefficients != PUBLISHED:
        label += f" by {', '.join(f'{factor:g}' for factor in scaled.coefficients)}"
    return label if scaled.pretrained else f"{label}, from scratch"


def _limits(budget: Budget, device: str) -> Iterator[str]:
    words = {"flops": "FLOPs ≤ {}", "params": "params ≤ {}", "latency_ms": "latency ≤ {} ms"}
    yield words[budget.cost].format(f"{budget.most:g}")
    if budget.batch not in (None, 1):
        yield f"batch {budget.batch}"
    if budget.cost == "latency_ms" and device != "cpu":
        yield device


def _knapsack(how: Knapsack, device: str) -> Iterator[str]:
    """What lost channels, how many, and where it departs from the defaults."""
    yield "knapsack" if how.of.kind == "teacher" else f"knapsack of tailored {how.of.name}"
    yield from _limits(how.budget, device)
    if how.solver == "greedy":
        yield "greedy"
    if how.round_to != ROUND_TO:
        yield "any width" if how.round_to == 1 else f"by {how.round_to}"
    if not how.distill:
        yield "no distillation"
    if how.mimic:
        yield "inner distillation"


def _place(summary: Summary) -> tuple[object, ...]:
    """Where a method stands in tables: by backbone, kind and what it did."""
    detail: tuple[object, ...] = ()
    if summary.tailored:
        how, budget = summary.tailored, summary.tailored.budget
        limit = ("", 0.0, 1) if budget is None else (budget.cost, budget.most, budget.batch or 1)
        detail = (how.finetune == "all", how.cut == "rank", how.gamma, *limit)
    if summary.eliminated:
        cut = summary.eliminated
        detail = (cut.unit == "blocks", cut.replacement, cut.trainable == "head", cut.top)
    if summary.scaled:
        scaled = summary.scaled
        detail = (scaled.coefficients, scaled.pretrained, scaled.phi)
    if summary.knapsack:
        narrowed = summary.knapsack
        detail = (narrowed.of.kind, narrowed.of.name, narrowed.budget.cost, narrowed.budget.most)
    if summary.searched:
        detail = (summary.seed, summary.searched.trial)
    return (summary.backbone, KINDS.index(summary.kind), *detail)


def group(runs: Sequence[Run]) -> list[Method]:
    """The methods in the order of tables; the backbone is named only where there are several.

    Raises UserError for two runs of the same method and seed.
    """
    several = len({run.summary.backbone for run in runs}) > 1
    groups: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: _place(run.summary)):
        prefix = f"{printable(run.summary.backbone)} " if several else ""
        members = groups.setdefault(prefix + label_of(run.summary), {})
        same = members.setdefault(run.summary.seed, run)
        if same is not run:
            raise UserError(
                f"{same.folder} and {run.folder} are both {label_of(run.summary)!r} of seed "
                f"{run.summary.seed}; give the folders to compare, one of these"
            )
    return [
        Method(label, tuple(members[seed] for seed in sorted(members)))
        for label, members in groups.items()
    ]


def notes(methods: Sequence[Method]) -> list[str]:
    """What a reader should know before comparing.

    Unequal seeds, settings, teachers, devices and versions, and latency that cannot be trusted.
    """
    found = []
    numbers = Counter(method.seeds for method in methods)
    usual = max(numbers, key=lambda seeds: (numbers[seeds], len(seeds)))
    unlike = [method for method in methods if method.seeds != usual]
    if unlike:
        listed = "; ".join(f"{method.label}: {_listed(method.seeds)}" for method in unlike)
        found.append(f"The methods have different seeds. Most have {_listed(usual)}; {listed}.")
    for method in methods:
        keys = _unequal_settings(method)
        if keys:
            found.append(f"The runs of {method.label} differ in {', '.join(keys)}.")
    found += _unlike_settings(methods)
    runs = [run for method in methods for run in method.runs]
    found += _stale_teachers(runs)
    devices = sorted({run.summary.device for run in runs})
    if len(devices) > 1:
        found.append(
            f"Latency was measured on {' and '.join(devices)}: compare it by the ratio to the "
            "teacher measured in turn on the same device."
        )
    restless = sum(latency_unrest(run) > _UNREST for run in runs)
    if restless:
        found.append(
            f"In {restless} of {len(runs)} runs the middle half of the latency at batch 1, of the "
            f"network or of its teacher, is above {_UNREST} of the median: it was measured on a "
            "busy machine, and its ratios are not to be trusted."
        )
    unequal = [
        f"{name} {', '.join(sorted(values))}"
        for name, values in _versions(runs).items()
        if len(values) > 1
    ]
    if unequal:
        found.append(f"The runs were made with several versions: {'; '.join(unequal)}.")
    return found


def _listed(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _unequal_settings(method: Method) -> list[str]:
    first = method.runs[0].settings
    return sorted(
        key
        for key in {key for run in method.runs for key in run.settings} - _NO_SETTING
        if any(run.settings.get(key) != first.get(key) for run in method.runs)
    )


def _unlike_settings(methods: Sequence[Method]) -> list[str]:
    """A note on the settings of all kinds in which the methods differ; each by its first run,
    since runs that differ within a method have a note of their own."""
    values: dict[str, dict[str, str]] = {}
    for method in methods:
        for key, value in method.runs[0].settings.items():
            no_weights = key == "weights" and method.kind in ("scratch", "searched")
            if key in _NO_SETTING | {"backbone"} or key.startswith(_OWN_SECTIONS) or no_weights:
                continue
            values.setdefault(key, {})[method.label] = shown(value)
    differing = []
    for key, by_label in sorted(values.items()):
        (usual, _), *others = Counter(by_label.values()).most_common()
        if others:
            rare = [
                f"{value} ({'; '.join(label for label, its in by_label.items() if its == value)})"
                for value, _ in others
            ]
            differing.append(f"{key} is {', '.join([*rare, f'{usual} in the others'])}")
    return [f"The methods differ in settings: {'; '.join(differing)}."] if differing else []


def _stale_teachers(runs: Sequence[Run]) -> list[str]:
    """A note on the runs made beside another teacher than the one that is compared."""
    teachers = {
        (run.summary.backbone, run.summary.seed): _identity(run.summary)
        for run in runs
        if run.summary.kind == "teacher"
    }
    stale = []
    for run in runs:
        kept = _identity(run.teacher)
        if teachers.get((run.summary.backbone, run.summary.seed), kept) != kept:
            stale.append(printable(str(run.folder)))
    if not stale:
        return []
    return [
        "These runs were made beside another teacher of their seed than the one compared here; "
        f"train them again with --overwrite: {', '.join(stale)}."
    ]


def _identity(teacher: Figures) -> tuple[object, ...]:
    """What two trainings of a teacher hardly share."""
    return teacher.accuracy.val, teacher.accuracy.test, teacher.flops, teacher.params


def _versions(runs: Sequence[Run]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.summary.versions.items():
            found.setdefault(name, set()).add(version)
    return found


def versions_in_words(methods: Sequence[Method]) -> str:
    """Such as `python 3.11.7, torch 2.15.0`; all that were used, where there were several."""
    found = _versions([run for method in methods for run in method.runs])
    return ", ".join(f"{name} {' / '.join(sorted(values))}" for name, values in found.items())
