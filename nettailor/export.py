"""`python -m nettailor.export`: a run's network as files that need nothing of this project."""

from nettailor.cli.export import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
