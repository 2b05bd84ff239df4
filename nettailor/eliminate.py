"""`python -m nettailor.eliminate`: fixed removal of the top, the yardstick."""

from nettailor.cli.eliminate import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
