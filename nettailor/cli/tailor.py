"""`python -m nettailor.tailor`: grow a student, shrink it, keep the leanest that holds."""

from nettailor.cli.door import COMMON, DRY_RUN, Training, require_a_way_to_cut
from nettailor.core.config import RunConfig
from nettailor.core.errors import UserError
from nettailor.core.flags import CommandFlags
from nettailor.share import read_share
from nettailor.time_limit import read_time


def _check(config: RunConfig, flags: CommandFlags) -> None:
    require_a_way_to_cut(config)
    if flags.own["pick"] and flags.overwrite:
        raise UserError("--overwrite: a pick discards nothing; leave one of the two out")
    if flags.own["pick"] and flags.own["dry_run"]:
        raise UserError("--dry-run: says nothing of a pick; leave one of the two out")
    if flags.own["time"] and config.prune.by == "rank":
        raise UserError("settings: prune.by = 'rank': --time needs prune.by: route")


main = Training(
    "tailor",
    "Tailor a pretrained network to a task: train a student that is made of its blocks "
    "and shrinks as it trains, fine-tune what is left, and keep a lean network within "
    "tolerance of the teacher, or the best one within a budget.",
    own={
        "--time": {
            "metavar": "TIME",
            "type": read_time,
            "help": "aim to end within so long, such as 30m: with fewer epochs",
        },
        "--pick": {
            "metavar": "COST=SHARE",
            "type": read_share,
            "help": "fine-tune another point of the finished run's front: of at most this share of "
            "the backbone's cost, such as flops=0.25 or params=0.1",
        },
        **DRY_RUN,
    },
    common=(*COMMON, "student.gamma", "budget.max_flops", "prune.finetune"),
    sections=("student", "budget", "prune"),
    check=_check,
)
