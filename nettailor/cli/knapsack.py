"""`python -m nettailor.knapsack`: remove channels under a hard budget."""

from nettailor.cli.door import COMMON, Training

main = Training(
    "knapsack",
    "Remove channels of the fine-tuned teacher, or of a tailored network, by a knapsack under a "
    "hard budget of FLOPs, parameters or milliseconds, and fine-tune what is left with the whole "
    "network's logits as extra targets.",
    common=(*COMMON, "student.optimizer", "prune.epochs", "prune.lr"),
    sections=("budget", "knapsack"),
)
