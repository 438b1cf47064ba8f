"""The page of a report: words and tables by a template, figures by a script, all in one file."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from smoothout.report.record import ArmShown, Group, Interval, MeasureShown, Report, to_json
from smoothout.results.files import write_text

#: Kinds of sentences, in the order of the summary, and their headings.
KINDS = (
    ("warning", "Not finished"),
    ("accuracy", "Which arm won, and is that certain?"),
    ("sharpness", "Is it flatter?"),
    ("cost", "At what cost?"),
)


def write(report: Report, path: Path) -> Path:
    """Write the page; a reader finds the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(report))
    return path


def render(report: Report) -> str:
    """The page as text: HTML with its style, scripts and data inside."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= _FUNCTIONS
    running = sum(run.state == "running" for group in report.groups for arm in group.arms for run in arm.runs)
    return environment.from_string(_asset("page.html")).render(
        report=report,
        title=_title(report),
        kinds=KINDS,
        running=f"{running} run{' was' if running == 1 else 's were'}" if running else "",
        # Nothing in the data can end the block: "<" stands there as an escape of JSON.
        data=Markup(to_json(report).replace("<", "\\u003c")),
        css=Markup(_asset("page.css")),
        javascript=Markup(_asset("page.js")),
        plotly=Markup(get_plotlyjs()),
    )


def _asset(name: str) -> str:
    return files("smoothout.report.page").joinpath(name).read_text(encoding="utf-8")


def _title(report: Report) -> str:
    return "smoothout report: " + "; ".join(group.title for group in report.groups)


# -- what the template calls -------------------------------------------------------------------------------


def _interval(value: Interval | None, form: str = ".2f") -> tuple[str, str]:
    """Mean, and interval in brackets."""
    if value is None or value.mean is None:
        return "", ""
    reach = "" if value.low is None or value.high is None else f"({value.low:{form}} to {value.high:{form}})"
    return f"{value.mean:{form}}", reach


def _signed(value: Interval | None) -> tuple[str, str]:
    return _interval(value, "+.2f")


def _runs(arm: ArmShown) -> str:
    finished = sum(run.state == "finished" for run in arm.runs)
    return str(finished) if finished == len(arm.runs) else f"{finished} of {len(arm.runs)}"


def _differing(group: Group) -> list[str]:
    return list(group.arms[0].settings)


def _measured(measure: MeasureShown, arm: str) -> str:
    for value in measure.values:
        if value.arm == arm:
            number = "not finite" if value.value is None else f"{value.value:.4g}"
            reach = "" if value.low is None or value.high is None else f" ({value.low:.4g} to {value.high:.4g})"
            verdict = next((f" [{each.words}]" for each in measure.verdicts if each.arm == arm), "")
            return f"{number}{reach}{' (!)' if value.doubts else ''}{verdict}"
    return "not measured"


def _one_seed(group: Group) -> bool:
    """Whether sharpness was measured, of one seed an arm."""
    counts = [len(value.seeds) for measure in group.measures for value in measure.values]
    return bool(counts) and max(counts) == 1


def _measured_arms(group: Group) -> str:
    """Of which arms, and seeds, sharpness was measured."""
    seeds = {
        arm.name: sorted({s for each in group.measures for v in each.values if v.arm == arm.name for s in v.seeds})
        for arm in group.arms
    }
    known = [f"{name} (seed {', '.join(map(str, found))})" for name, found in seeds.items() if found]
    missing = [name for name, found in seeds.items() if not found]
    return ", ".join(known) + (f". Not measured: {', '.join(missing)}" if missing else "")


def _doubts(group: Group) -> list[str]:
    found = (
        f"{measure.name}, {value.arm}: {doubt}"
        for measure in group.measures
        for value in measure.values
        for doubt in value.doubts
    )
    return list(dict.fromkeys(found))


def _notes(group: Group) -> list[str]:
    """What landscapes say of themselves, each once."""
    found = [
        f"Axes: {plane.axes[0].removeprefix('along axis 1 (').removesuffix(')')}. {'. '.join(plane.notes)}."
        for plane in group.planes
    ]
    return list(dict.fromkeys(found))


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _first_path(group: Group) -> str:
    """Where measures of a group are found: its comparison's folder, or its first run's."""
    return next((origin.path for origin in group.origins), group.arms[0].runs[0].path)


_FUNCTIONS: dict[str, Any] = {
    "interval": _interval,
    "signed": _signed,
    "runs": _runs,
    "differing": _differing,
    "measured": _measured,
    "doubts": _doubts,
    "one_seed": _one_seed,
    "measured_arms": _measured_arms,
    "listed": _listed,
    "notes": _notes,
    "first_path": _first_path,
}
