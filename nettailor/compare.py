"""`python -m nettailor.compare`: every run of a task side by side, as tables and as a page."""

from nettailor.cli.compare import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
