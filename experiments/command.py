"""What the commands of all experiments share: how many processes, and how long."""

import argparse
import signal
from types import FrameType


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the options, --jobs and --minutes among them; ends the process when the minutes are over."""
    parser.add_argument("--jobs", type=int, default=2, help="processes that train at the same time")
    parser.add_argument("--minutes", type=float, default=120, help="then it stops, and the same command goes on")
    given = parser.parse_args()

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(f"{given.minutes:g} minutes are over; what is finished is kept, and the same command goes on.")

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 60 * given.minutes)
    return given
