"""``python -m smoothout COMMAND``, as launchers such as torchrun start it."""

import sys

from smoothout.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
