"""`python -m nettailor.search`: search for small networks without pretrained weights."""

from nettailor.cli.search import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
