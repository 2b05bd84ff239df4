"""Each lever of the improved method switched alone, at one budget.

    python benchmarks/ablation.py --seeds 0 1 2

Every row tailors with the same data, teachers, schedule and budget; accuracies are of validation,
as the student ended and after fine-tuning, mean ± standard deviation over the seeds. Finished
runs are not trained again. Writes `ablation.md` into the folder `--out`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from same_teacher import share_teacher

from nettailor.commands.tailor import tailor
from nettailor.commands.teach import ready_teacher
from nettailor.core.console import Screen
from nettailor.core.files import read_json, write_text
from nettailor.core.settings import read_settings, set_key, validate
from nettailor.hand_over import CANDIDATES_FILE
from nettailor.session import start_session

LEVERS: dict[str, Mapping[str, Any]] = {
    "as it is": {},
    "no exits": {"student.exits": False},
    "no identities": {"student.identities": False},
    "no distillation": {"student.distill": 0.0},
}


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--max-flops", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--levers", nargs="+", choices=LEVERS, default=list(LEVERS))
    parser.add_argument("--out", default="runs")
    arguments = parser.parse_args()
    rows: dict[str, list[Mapping[str, Any]]] = {lever: [] for lever in arguments.levers}
    with Screen() as screen:
        for seed in arguments.seeds:
            for lever in arguments.levers:
                screen.say(f"seed {seed}: {lever}")
                rows[lever].append(_cut(arguments, lever, seed, screen))
    lines = [
        f"| at most {arguments.max_flops:g} of the FLOPs | before fine-tuning % | "
        "fine-tuned % | FLOPs | params |",
        "|---|---|---|---|---|",
    ]
    for lever, cuts in rows.items():
        columns = (("before_finetuning", ".2f"), ("finetuned", ".2f"), ("flops", ".3f"))
        cells = [_spread([cut[name] for cut in cuts], form) for name, form in columns]
        cells.append(_spread([cut["params"] for cut in cuts], ".3f"))
        lines.append(f"| {lever} | {' | '.join(cells)} |")
    write_text(Path(arguments.out) / "ablation.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _cut(arguments: argparse.Namespace, lever: str, seed: int, screen: Screen) -> Mapping[str, Any]:
    """The figures of what a run kept, its costs over the teacher's."""
    settings = read_settings(arguments.config)
    out = Path(arguments.out)
    keys = {"data_dir": arguments.data_dir, "seed": seed, "out": str(out), "workers": 0}
    for key, value in keys.items():
        set_key(settings, key, value)
    teacher = ready_teacher(start_session(validate(settings), screen))
    whole = teacher.figures
    for key, value in {"budget.max_flops": arguments.max_flops, **LEVERS[lever]}.items():
        set_key(settings, key, value)
    set_key(settings, "out", str(out / lever.replace(": ", "-").replace(" ", "-")))
    session = start_session(validate(settings), screen)
    share_teacher(teacher.folder, session)
    rows = read_json(tailor(session, overwrite=False).path / CANDIDATES_FILE)
    (row,) = (row for row in rows if row["verdict"] == "kept")
    return {
        **row,
        "flops": row["flops"] / whole["flops"],
        "params": row["params"] / whole["params"]["total"],
    }


def _spread(values: list[float], form: str) -> str:
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
