"""`python -m nettailor.teach`: fine-tune a pretrained network on the task."""

from nettailor.core.flags import run_command
from nettailor.door import Training

main = Training(
    "teach",
    "Fine-tune a pretrained network on a task: the teacher of all that follows.",
    sections=("teacher",),
)

if __name__ == "__main__":
    run_command(main)
