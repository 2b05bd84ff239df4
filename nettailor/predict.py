"""`python -m nettailor.predict`: name what is on images, by a tailored or an untouched network."""

from nettailor.cli.predict import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
