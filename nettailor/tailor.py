"""`python -m nettailor.tailor`: grow a student, train it, cut it, keep the leanest that holds."""

from nettailor.cli.tailor import main
from nettailor.core.flags import run_command

if __name__ == "__main__":
    run_command(main)
