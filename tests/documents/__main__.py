"""`python -m tests.documents --write` writes the tables of docs/signals.md."""

import logging
import sys

from .signals import PAGE, play, render


def main() -> int:
    """Write the tables, or say how to ask for it."""
    if sys.argv[1:] != ["--write"]:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    logging.disable()  # grpc logs the exception of a handler that is played
    PAGE.write_text(render(play()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
