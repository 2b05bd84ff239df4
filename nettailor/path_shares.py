"""What each path costs as a share of the whole backbone: operations, parameters or time."""

from pathlib import Path as FilePath

from nettailor.core.backbone import create_backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.resize import at_side
from nettailor.session import Session
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.latency_table import LatencyTable, measure_paths
from nettailor.student.network import Student


class PathCosts:
    """The shares that a run goes by, of `student.cost`, which is in its budget's unit.

    Times are measured once and kept in a file of the run: one that goes on must not see others.
    Until there is a run, and for those of other budgets, they are kept beside all runs of the task.

    chain: the whole backbone, on the device, without its weights.
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
        self.chain = place(
            create_backbone(config.backbone, len(session.task.classes), config.image_size),
            session.accelerator.device,
        )
        self._times: dict[int | None, LatencyTable] = {}  # by the side of the student's images

    def kept_times(self) -> KeptRounds:
        """Where times are kept beside all runs of the task."""
        return KeptRounds(self._session.places.times, fresh=self._fresh)

    def shares(self, student: Student) -> PathShares:
        """Of a student's paths at its side; of a whole one where times are still to be measured."""
        if self._unit != "latency":
            return shares_of(student, self.chain, self._session.config.image_size, self._unit)
        times, whole = self._timed(student, student.side), self._timed(student, None).whole
        try:
            paths = [times.paths[path.key] / whole for path in student.wiring.paths]
        except KeyError as error:
            raise UserError(
                f"{self._place(student.side)}: lacks the path {error.args[0]}; give --overwrite to "
                "tailor again"
            ) from error
        return PathShares(paths, times.stem / whole, whole)

    def _timed(self, student: Student, side: int | None) -> LatencyTable:
        """The times at a side: known, read, or measured now."""
        file, size = self._place(side), side or self._session.config.image_size
        if side not in self._times and file.exists() and not self._fresh:
            self._times[side] = _read(file)
        if side not in self._times:
            screen, batch = self._session.screen, self._session.config.budget.batch
            paths = f"{len(student.wiring.paths)} paths one by one, {batch} images each"
            screen.say(f"timing {paths}" + ("" if side is None else f" of {side} px"))
            with screen.counting("timing paths") as tell:
                self._times[side] = measure_paths(
                    student, self.chain, size, self._session.accelerator.device, batch=batch,
                    keep=self.kept_times(), tell=tell,
                )  # fmt: skip
        return self._times[side]

    def _place(self, side: int | None) -> FilePath:
        return self._file.with_name(f"{at_side(self._file.stem, side)}.json")

    def keep(self, student: Student) -> None:
        """Write the times, where time is what counts, into the run's files.

        Args:
            student: a whole one, for times that are still to be measured.
        """
        for side in dict.fromkeys((None, student.side)) if self._unit == "latency" else ():
            if not self._place(side).exists():
                write_json(self._place(side), self._timed(student, side)._asdict())


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
