"""``python -m mlsky``."""

import sys

from mlsky.cli import main

if __name__ == "__main__":
    sys.exit(main())
