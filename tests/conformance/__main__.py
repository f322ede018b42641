"""`python -m tests.conformance --write` writes docs/conformance.md."""

import logging
import sys

from .engines import PAGE, render, see


def main() -> int:
    """Write the page, or say how to ask for it."""
    if sys.argv[1:] != ["--write"]:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    logging.disable()  # the official interceptors and grpc log what goes wrong
    PAGE.write_text(render(see()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
