"""`python -m nettailor.teach`: fine-tune a pretrained network on the task."""

from nettailor.cli.teach import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
