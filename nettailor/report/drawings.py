"""A method's network drawn from its summary: what was kept, and outlines of what was removed."""

from matplotlib.figure import Figure

from nettailor.report.runs import Run
from nettailor.student.drawing import architecture
from nettailor.student.wiring import Path, Wiring, full_wiring


def drawing(run: Run) -> Figure:
    """The network of a run; a plain backbone has all of its blocks at full weight."""
    summary = run.summary
    stages = summary.stages
    rows = summary.paths
    if rows is not None:
        weights = {
            Path(source, target, kind): min(alpha, 1.0) for source, target, kind, alpha in rows
        }
        wiring = Wiring.from_json(len(stages) + 1, [row[:3] for row in rows])
        alpha = [weights[path] for path in wiring.paths]
        return architecture(wiring, alpha, stages=stages, ghosts=True)
    kept = summary.eliminated.kept_blocks if summary.eliminated else len(stages)
    wiring = full_wiring(kept, 0)
    return architecture(
        wiring,
        [1.0] * len(wiring.paths),
        stages=stages,
        ghosts=True,
        replacement=summary.eliminated is not None and summary.eliminated.replacement,
    )
