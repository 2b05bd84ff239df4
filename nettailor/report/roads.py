"""What each road to a network costs: its training, with that of all that it begins with."""

from collections.abc import Sequence

from nettailor.core.run_folder import Kind
from nettailor.report.methods import Figure, Method
from nettailor.report.runs import Run
from nettailor.report.tables import Column

# the roads that begin with a fine-tuned teacher; the other networks are only measured beside one
_FROM_TEACHER: frozenset[Kind] = frozenset({"tailored", "knapsack"})
_GROUP = "training, s"  # of columns


def steps(run: Run) -> dict[str, float]:
    """Seconds of training of each step of a run's road, its own at last."""
    before: dict[str, float] = {}
    if run.summary.kind in _FROM_TEACHER:
        before["teacher's"] = run.teacher.seconds.train
    if run.summary.knapsack and run.summary.knapsack.of.kind == "tailored":
        before["tailored network's"] = run.summary.knapsack.of.train_seconds
    if run.summary.searched:
        before["other trials'"] = run.summary.searched.other_trials_seconds
    return {**before, "own": run.summary.seconds.train}


def road_columns(methods: Sequence[Method]) -> list[Column]:
    """Seconds of each step that any method's road has, and of all together."""
    runs = [run for method in methods for run in method.runs]
    # each road ends with its own step, and so does the table
    names = list(dict.fromkeys(name for run in runs for name in reversed(steps(run))))[::-1]
    return [
        *(Column(f"road_{_plain(name)}_s", _GROUP, name, _seconds_of(name), 0) for name in names),
        Column("road_s", _GROUP, "in all", lambda run: sum(steps(run).values()), 0),
    ]


def _plain(step: str) -> str:
    """A step's name without `'s` and spaces."""
    return step.partition("'")[0].replace(" ", "_")


def _seconds_of(step: str) -> Figure:
    return lambda run: steps(run).get(step)
