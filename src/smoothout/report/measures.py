"""Measures of sharpness, side by side for all arms, with what their differences say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from smoothout.report.arms import ArmFound
from smoothout.report.record import MeasureShown, Value, Verdict, number
from smoothout.report.sources import Found, distinct, place
from smoothout.results.compared import Compared, compare, difference
from smoothout.results.sharpness import HessianSharpness, Measure, Measured, NoiseSharpness, Number, Spectrum


@dataclass(frozen=True)
class _Placed:
    """A measure, and whose it is."""

    arm: str
    seed: int
    checkpoint: str
    measured: Measured


def show(arms: Sequence[ArmFound], found: Found) -> tuple[MeasureShown, ...]:
    """Every number of every measure, curves of noise first; what belongs to no run is named as left out."""
    placed = list(_placed(arms, found))
    shown: list[MeasureShown] = []
    for key in distinct(_key(each) for each in placed):
        records: dict[str, dict[int, Measure]] = {}
        for each in placed:
            if _key(each) == key:
                records.setdefault(each.arm, {})[each.seed] = each.measured.record
        shown += _shown(key, records, arms)
    # Files keep measures as they were finished, by processes beside each other; a curve rises in its strengths.
    return tuple(sorted(shown, key=lambda each: (each.curve is None, each.curve or "", each.strength or 0.0)))


def _key(each: _Placed) -> tuple[str, str, str, str]:
    """What measures must share to be compared."""
    measured = each.measured
    return measured.call, measured.split, str(measured.record.center.samples), each.checkpoint


def _placed(arms: Sequence[ArmFound], found: Found) -> Iterator[_Placed]:
    names = {run.path: arm.name for arm in arms for run in arm.runs}
    for measured in found.sharpness:
        at = place(found, measured.checkpoint, measured.weights)
        if isinstance(at, str):
            found.leave_out(f"A measure is left out: {at}.")
        elif at[0].path in names:
            yield _Placed(names[at[0].path], at[0].seed, at[1], measured)


def _shown(
    key: tuple[str, str, str, str], records: Mapping[str, Mapping[int, Measure]], arms: Sequence[ArmFound]
) -> Iterator[MeasureShown]:
    """The numbers of one call."""
    _, split, samples, checkpoint = key
    first = next(iter(next(iter(records.values())).values()))
    noise = first if isinstance(first, NoiseSharpness) else None
    where = "" if checkpoint == "best" else f", checkpoint {checkpoint}"
    for index, title in enumerate(each.name for each in first.numbers):
        numbers = {
            arm.name: {seed: record.numbers[index] for seed, record in sorted(records[arm.name].items())}
            for arm in arms
            if arm.name in records
        }
        kind = _kind(first, title)
        compared = {name: compare(list(by_seed.values())) for name, by_seed in numbers.items()}
        yield MeasureShown(
            name=title + where,
            kind=kind,
            strength=noise.strength if noise else None,
            curve=f"noise, {noise.distribution}, scale {noise.scale}, {split} samples{where}" if noise else None,
            split=f"{split}, {int(samples):,} samples",
            values=tuple(_value(name, numbers[name], each) for name, each in compared.items()),
            verdicts=tuple(_verdicts(arms, compared, numbers)) if kind != "other" else (),
        )


def _kind(record: Measure, title: str) -> str:
    if isinstance(record, NoiseSharpness | Spectrum) or title.endswith("trace"):
        return "average"
    if isinstance(record, HessianSharpness):
        return "curvature" if title.endswith("largest eigenvalue") else "other"
    return "worst"


def _value(arm: str, numbers: Mapping[int, Number], each: Compared) -> Value:
    reach = difference(each, Compared(0.0, 0.0, ())).half_width
    return Value(
        arm=arm,
        value=number(each.value),
        error=number(each.error),
        low=number(each.value - reach),
        high=number(each.value + reach),
        seeds=tuple(numbers),
        doubts=each.doubts,
    )


def _verdicts(
    arms: Sequence[ArmFound], compared: Mapping[str, Compared], numbers: Mapping[str, Mapping[int, Number]]
) -> Iterator[Verdict]:
    for arm in arms:
        if arm.against is None or arm.name not in compared or arm.against not in compared:
            continue
        found = difference(compared[arm.name], compared[arm.against])
        known = math.isfinite(found.low) and math.isfinite(found.high)
        apart = (found.low > 0 or found.high < 0) if known else None
        one = max(len(numbers[arm.name]), len(numbers[arm.against])) == 1
        yield Verdict(
            arm=arm.name,
            against=arm.against,
            sharper=found.mean > 0 if apart else None,
            difference=number(found.mean),
            low=number(found.low),
            high=number(found.high),
            words=_words(found.mean > 0, apart, one),
        )


def _words(above: bool, apart: bool | None, one: bool) -> str:
    if apart is None:
        return "no interval is known"
    if not apart:
        return "not told apart"
    return f"{'sharper' if above else 'flatter'}{', these two minima' if one else ''}"
