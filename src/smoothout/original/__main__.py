"""``python -m smoothout.original PROGRAM ...``."""

import shlex
import sys
from collections.abc import Sequence

from smoothout.cli.main import main
from smoothout.launch import launched
from smoothout.original.options import PROGRAMS
from smoothout.original.programs import translate


def run(arguments: Sequence[str]) -> int:
    """Translate, say so, and run; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m smoothout.original PROGRAM ...\n\nPROGRAM: {', '.join(PROGRAMS)}")
        print("\nTakes the flags of the original SmoothOut program and runs the command of ours that they mean.")
        print("PROGRAM --help lists its flags; docs/options.md has the whole table.")
        return 0
    try:
        launched().refuse_several(f"smoothout.original {arguments[0]}")
        command = translate(arguments[0], arguments[1:])
    except (ValueError, OSError) as error:
        print(f"smoothout.original: {error}", file=sys.stderr)
        return 2
    for notice in command.notices:
        print(f"notice: {notice}", file=sys.stderr)
    print(f"= smoothout {shlex.join(command.words)}", flush=True)
    return main(command.words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
