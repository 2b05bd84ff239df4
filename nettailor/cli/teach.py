"""`python -m nettailor.teach`: fine-tune a pretrained network on the task."""

from nettailor.cli.door import Training

main = Training(
    "teach",
    "Fine-tune a pretrained network on a task: the teacher of all that follows.",
    sections=("teacher",),
)
