"""`python -m nettailor.teach`: fine-tune a pretrained network on the task."""

from nettailor.cli.door import COMMON, Training

main = Training(
    "teach",
    "Fine-tune a pretrained network on a task: the teacher of all that follows.",
    common=(*COMMON, "metric", "balance", "weight_decay", "label_smoothing", "schedule"),
    sections=("teacher",),
)
