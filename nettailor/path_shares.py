"""What each path costs as a share of the whole backbone: operations, parameters or time."""

from pathlib import Path as FilePath

from nettailor.core.backbone import create_backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.kept_rounds import KeptRounds
from nettailor.session import Session
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.latency_table import LatencyTable, measure_paths
from nettailor.student.network import Student


class PathCosts:
    """The shares that a run goes by, of `student.cost`, which is in its budget's unit.

    Times are measured once and kept in a file of the run: one that goes on must not see others.
    Until there is a run, and for those of other budgets, they are kept beside all runs of the task.
    """

    def __init__(self, session: Session, table: FilePath, *, fresh: bool) -> None:
        """Nothing is measured yet.

        Args:
            session: of the run.
            table: where the run keeps its times.
            fresh: what was measured before does not count, the run begins anew.
        """
        config = session.config
        self._session, self._file, self._fresh = session, table, fresh
        self._unit = config.student.cost
        self._chain = place(
            create_backbone(config.backbone, len(session.task.classes), config.image_size),
            session.accelerator.device,
        )
        self._times: LatencyTable | None = None
        if self._unit == "latency" and table.exists() and not fresh:
            self._times = _read(table)

    def kept_times(self) -> KeptRounds:
        """Where times are kept beside all runs of the task."""
        return KeptRounds(self._session.places.times, fresh=self._fresh)

    def shares(self, student: Student) -> PathShares:
        """Of a student's paths; of a whole one where times are still to be measured."""
        size = self._session.config.image_size
        if self._unit != "latency":
            return shares_of(student, self._chain, size, self._unit)
        if self._times is None:
            screen, batch = self._session.screen, self._session.config.budget.batch
            screen.say(f"timing {len(student.wiring.paths)} paths one by one, {batch} images each")
            with screen.counting("timing paths") as tell:
                self._times = measure_paths(
                    student,
                    self._chain,
                    size,
                    self._session.accelerator.device,
                    batch=batch,
                    keep=self.kept_times(),
                    tell=tell,
                )
        times = self._times
        try:
            paths = [times.paths[path.key] / times.whole for path in student.wiring.paths]
        except KeyError as error:
            raise UserError(
                f"{self._file}: lacks the path {error.args[0]}; give --overwrite to tailor again"
            ) from error
        return PathShares(paths, times.stem / times.whole, times.whole)

    def keep(self, student: Student) -> None:
        """Write the times, where time is what counts, into the run's file.

        Args:
            student: a whole one, for times that are still to be measured.
        """
        if self._unit == "latency" and not self._file.exists():
            self.shares(student)
            assert self._times is not None, "they were measured just now"
            write_json(self._file, self._times._asdict())


def _read(table: FilePath) -> LatencyTable:
    content = read_json(table)
    try:
        paths = {str(key): float(value) for key, value in content["paths"].items()}
        times = LatencyTable(paths, float(content["stem"]), float(content["whole"]))
        if not times.whole > 0:
            raise ValueError("no time at all")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{table}: is damaged; give --overwrite to tailor again") from error
    return times
