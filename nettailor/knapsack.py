"""`python -m nettailor.knapsack`: remove channels under a hard budget."""

from nettailor.cli.knapsack import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
