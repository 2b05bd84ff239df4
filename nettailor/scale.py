"""`python -m nettailor.scale`: train other sizes of an EfficientNet by compound scaling."""

from nettailor.cli.scale import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
