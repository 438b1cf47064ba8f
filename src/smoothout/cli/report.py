"""``smoothout report``."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from smoothout import _checks
from smoothout.cli.arguments import parse
from smoothout.report import page, paper, report

DESCRIPTION = "Turn runs and comparisons into one page to open in a browser, or into figures for a paper."
PAGE = "html"
FORMATS = (PAGE, *paper.FORMATS)


@dataclass(frozen=True)
class Arguments:
    """What to report on, and in which form."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs and comparisons; measures of sharpness and landscapes inside them belong to the report, and
    others may be named, too."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The page's file, or the folder of the figures [None: report.html, or figures, in the first folder]."""
    format: str = PAGE
    """html for the page, or some of pdf, png and svg for figures, with commas."""
    columns: Literal[1, 2] = 1
    """Figures: as wide as one column of a paper, or as two."""
    against: str | None = None
    """The arm that all are compared with [None: as comparisons say]."""

    def __post_init__(self) -> None:
        if not self.folders:
            raise ValueError("no folder is named; expected some of runs or comparisons, such as runs/NAME.")
        for name in self.formats:
            _checks.known("a format", name, FORMATS)
        if PAGE in self.formats and len(self.formats) > 1:
            raise ValueError(
                f"format is {self.format!r}; expected html, whose output is a file, or some of pdf, png and svg, whose "
                f"output is a folder. Ask for one, then for the others."
            )

    @property
    def formats(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.format.split(",") if name.strip())) or (PAGE,)


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    chosen = parse(Arguments, arguments, "report", DESCRIPTION)
    first = chosen.folders[0] if chosen.folders[0].is_dir() else chosen.folders[0].parent
    made = report.make(chosen.folders, shlex.join(["smoothout", "report", *arguments]), chosen.against)
    for reason in made.left_out:
        print(f"(!) {reason}")
    if PAGE in chosen.formats:
        written = [page.write(made, chosen.output or first / "report.html")]
    else:
        written = paper.write(made, chosen.output or first / "figures", chosen.formats, chosen.columns)
    for path in written:
        print(f"written: {path}")
    return 0
