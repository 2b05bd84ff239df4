"""`summary.json` as it is read back: every figure checked before anything is drawn from it."""

from pathlib import Path
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nettailor.core.compound_scaling import PUBLISHED
from nettailor.core.errors import UserError
from nettailor.core.printable import printable
from nettailor.core.run_folder import SUMMARY_FILE, Kind
from nettailor.core.side_sections import ROUND_TO
from nettailor.student.wiring import Kind as PathKind
from nettailor.student.wiring import Wiring

Percent = Annotated[float, Field(ge=0, le=100)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Value = TypeVar("Value")
Channels = tuple[tuple[AtLeastOne, Annotated[float, Field(gt=0, le=1)]], ...]  # left, by block
Paths = tuple[tuple[int, int, PathKind, Annotated[float, Field(ge=0, le=1.0001)]], ...]


class _Read(BaseModel):
    """Strict: no silent conversion, no NaN or infinity. Keys that nothing reads may be there."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _BySplit(_Read, Generic[Value]):
    """A figure of each split; the test may not have been read."""

    train: Value
    val: Value
    test: Value | None


Percents = _BySplit[Percent]


class Parameters(_Read):
    """Numbers of parameters; the task's own are those not shared with other tasks."""

    total: AtLeastOne
    universal: Count
    task: Count


class Blocks(_Read):
    """How many pretrained blocks and proxies the network has."""

    universal: Count
    proxy: Count


class Timing(_Read):
    """Milliseconds of a forward pass: the median, and the range of the middle half."""

    median: Positive
    iqr: NonNegative


class _ByBatch(_Read, Generic[Value]):
    """A figure of a forward pass at batch 1 and batch 64."""

    single: Value = Field(alias="1")
    batch: Value = Field(alias="64")


class Seconds(_Read):
    """Time of training, and of the whole test split with reading its images."""

    train: NonNegative
    test_inference: NonNegative | None


class Eliminated(_Read):
    """What was cut off the top, and what was put in its place."""

    unit: Literal["stages", "blocks"]
    top: AtLeastOne
    kept_blocks: Count
    replacement: bool
    trainable: Literal["all", "head"]

    @property
    def label(self) -> str:
        """Such as `elim 2`, `elim 3 blocks conv head`."""
        unit = " blocks" if self.unit == "blocks" else ""
        conv, head = " conv" * self.replacement, " head" * (self.trainable == "head")
        return f"elim {self.top}{unit}{conv}{head}"


class Budget(_Read):
    """The most that a cut may cost: a share of FLOPs or parameters, or ms for a batch."""

    cost: Literal["flops", "params", "latency_ms"]
    most: Positive
    batch: AtLeastOne | None

    @property
    def label(self) -> str:
        """Such as `FLOPs ≤ 0.3`, `latency ≤ 5 ms, batch 64`."""
        words = {"flops": "FLOPs ≤ {}", "params": "params ≤ {}", "latency_ms": "latency ≤ {} ms"}
        limit = words[self.cost].format(f"{self.most:g}")
        return limit if self.batch in (None, 1) else f"{limit}, batch {self.batch}"


class Tailored(_Read):
    """How a student was tailored and cut, and the paths it kept, each with its weight α."""

    finetune: Literal["task", "all"]
    gamma: NonNegative
    cut: Literal["route", "rank"]
    budget: Budget | None
    depth: str
    image_size: AtLeastOne | None = None  # summaries of before lack it
    channels: Channels = ()
    paths: Paths

    @property
    def label(self) -> str:
        """Such as `tailored all, γ 0.3, FLOPs ≤ 0.3, by rank`."""
        budget = f", {self.budget.label}" if self.budget else ""
        rank = ", by rank" if self.cut == "rank" else ""
        return f"tailored {self.finetune}, γ {self.gamma:g}{budget}{rank}"


class MadeNarrower(_Read):
    """The run whose network was made narrower: a name only where it is not the teacher."""

    kind: Literal["teacher", "tailored"]
    name: str
    train_seconds: NonNegative


class Knapsack(_Read):
    """Which network lost channels, to which share of its cost; paths: of a tailored one."""

    of: MadeNarrower
    budget: Budget
    round_to: AtLeastOne
    image_size: AtLeastOne | None = None  # summaries of before lack it
    channels: Channels = ()
    paths: Paths | None

    @property
    def label(self) -> str:
        """What lost channels, how many, and where it departs from the defaults."""
        words = {
            "knapsack": self.of.kind == "teacher",
            f"knapsack of tailored {self.of.name}": self.of.kind == "tailored",
            self.budget.label: True,
            "any width" if self.round_to == 1 else f"by {self.round_to}": self.round_to != ROUND_TO,
        }
        return ", ".join(word for word, applies in words.items() if applies)


class Scaled(_Read):
    """What φ made of a family's base, and whether it started from published weights.

    coefficients: of depth, width and resolution. image_size: side of the input in pixels.
    """

    phi: float
    coefficients: tuple[Positive, Positive, Positive]
    image_size: AtLeastOne
    pretrained: bool

    @property
    def label(self) -> str:
        """φ, and what is not as published."""
        label = f"scaled φ {self.phi:g}"
        if self.coefficients != PUBLISHED:
            label += f" by {', '.join(f'{factor:g}' for factor in self.coefficients)}"
        return label if self.pretrained else f"{label}, from scratch"


class Searched(_Read):
    """Which network of which study was trained to the end.

    study: name of its folder in `search/`, beside the kinds of runs. network: tells it from all
    others. other_trials_seconds: of training that went into the networks that were given up.
    """

    study: str = Field(pattern=r"^[^/\\.][^/\\]*$")
    trial: Count
    network: str
    other_trials_seconds: NonNegative

    @property
    def label(self) -> str:
        """Tells one network of a study from all others."""
        return f"searched {self.trial}-{self.network}"


class Figures(_Read):
    """The figures that others are compared with: what is read of a run's teacher."""

    kind: Kind
    backbone: str
    seed: Count
    accuracy: Percents
    accuracy_error: Percents | None = None  # summaries of before lack it
    params: Parameters
    flops: AtLeastOne
    latency_ms: dict[str, _ByBatch[Timing]] = Field(min_length=1)
    bytes: AtLeastOne
    seconds: Seconds


class Summary(Figures):
    """The figures of one finished run."""

    dataset: str
    image_size: AtLeastOne
    classes: tuple[str, ...] = Field(min_length=2)
    macro_f1: Percents
    loss: _BySplit[NonNegative]
    layers: Count
    blocks: Blocks
    stages: tuple[Count, ...] = Field(min_length=1)
    peak_memory: _ByBatch[Count]  # bytes alive at its worst moment
    eliminated: Eliminated | None
    tailored: Tailored | None
    # summaries of before there were these roads lack them
    scaled: Scaled | None = None
    knapsack: Knapsack | None = None
    searched: Searched | None = None
    teacher: Figures | None
    versions: dict[str, str]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """What the kind of a run promises is there."""
        for kind in ("eliminated", "tailored", "scaled", "knapsack", "searched"):
            part = getattr(self, kind)
            if (self.kind == kind) != (part is not None):
                raise ValueError(f"kind is {self.kind!r}, but {kind} is {part!r}")
        if (self.kind == "teacher") != (self.teacher is None):
            raise ValueError(f"kind is {self.kind!r}, so its teacher must be there or be null")
        if self.teacher is not None:
            if self.teacher.kind != "teacher":
                raise ValueError(f"its teacher is a run of kind {self.teacher.kind!r}")
            if self.device not in self.teacher.latency_ms:
                raise ValueError(f"its teacher's latency was not measured on {self.device}")
        if self.eliminated and self.eliminated.kept_blocks > len(self.stages):
            raise ValueError("eliminated.kept_blocks is above the number of blocks")
        if self.paths is not None:
            rows = [path[:3] for path in self.paths]
            if not Wiring.from_json(len(self.stages) + 1, rows).incoming[-1]:
                raise ValueError("the paths have neither head nor exit")
        return self

    @property
    def label(self) -> str:
        """The short name of what the run did, without backbone and seed."""
        part = self.tailored or self.eliminated or self.scaled or self.knapsack or self.searched
        if part is None:
            return {"head-only": "head only", "scratch": "from scratch"}.get(self.kind, self.kind)
        budget = getattr(part, "budget", None)
        timed = budget is not None and budget.cost == "latency_ms" and self.device != "cpu"
        return printable(f"{part.label}, {self.device}" if timed else part.label)

    @property
    def input_size(self) -> int:
        """Side of the network's own input in pixels; `image_size` is the task's."""
        own = self.scaled or self.tailored or self.knapsack
        return (own and own.image_size) or self.image_size

    @property
    def paths(self) -> Paths | None:
        """The paths of a network that was tailored; None for others."""
        part = self.tailored or self.knapsack
        return part.paths if part else None

    @property
    def channels(self) -> dict[int, float]:
        """By number of a block that lost channels, which part is left."""
        return dict(part.channels) if (part := self.tailored or self.knapsack) else {}

    @property
    def device(self) -> str:
        """Where latency was measured."""
        return next(iter(self.latency_ms))


def read_summary(folder: Path) -> Summary:
    """The figures of a finished run; raises UserError that names the first fault."""
    try:
        return Summary.model_validate_json((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{SUMMARY_FILE} cannot be read") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{SUMMARY_FILE}: {place + ': ' if place else ''}{reason}") from error
