"""A summary in plain language: each sentence is made from numbers, and none goes without its interval."""

from collections.abc import Iterator, Sequence

from smoothout.intervals import mean_interval
from smoothout.report.arms import ArmFound, interval
from smoothout.report.record import ArmShown, Interval, MeasureShown, Sentence, Verdict
from smoothout.report.sources import distinct

#: What measures say, in the order of the sentences. One without an interval has no verdict, and is not passed over.
VERDICTS = {
    "flatter": "flatter",
    "sharper": "sharper",
    "not told apart": "not told apart",
    "lower": "lower, but without an interval,",
    "higher": "higher, but without an interval,",
    "no interval is known": "not finite",
}
#: What a kind of measure asks.
QUESTIONS = {
    "average": "on average",
    "worst": "in the worst case",
    "curvature": "by curvature",
}


def summary(
    arms: Sequence[ArmShown], found: Sequence[ArmFound], measures: Sequence[MeasureShown]
) -> tuple[Sentence, ...]:
    """Which arm is ahead, what each gains, whether it is flatter, what it costs, and what is missing."""
    sentences = [
        *(Sentence("warning", each) for each in _warnings(arms)),
        *(Sentence("accuracy", each) for each in (*_ahead(arms, found), *_differences(arms))),
        *_sharpness(arms, measures),
        *(Sentence("cost", each) for each in _costs(arms)),
    ]
    return tuple(sentences)


# -- what is missing ---------------------------------------------------------------------------------------


def _warnings(arms: Sequence[ArmShown]) -> Iterator[str]:
    for arm in arms:
        unfinished = [run for run in arm.runs if run.state != "finished"]
        if unfinished:
            notes = "; ".join(f"seed {run.seed} {run.note}" for run in unfinished)
            done = len(arm.runs) - len(unfinished)
            yield f"{arm.name}: {done} of {_runs(len(arm.runs))} finished ({notes}). Its numbers are of those alone."


# -- accuracy ----------------------------------------------------------------------------------------------


def _ahead(arms: Sequence[ArmShown], found: Sequence[ArmFound]) -> Iterator[str]:
    """Which arm has the highest accuracy, and whether it is certain that it has."""
    order = sorted((arm for arm in arms if arm.test.mean is not None), key=lambda arm: -(arm.test.mean or 0))
    if not order:
        yield "No run is finished, so nothing can be said yet about accuracy."
        return
    best = order[0]
    text = f"{best.name} has the highest test accuracy after the last epoch: {percent(best.test)}"
    if len(order) == 1:
        yield f"{text}."
        return
    second = order[1]
    gap = _gap(best.name, second.name, found)
    yield f"{text}. Next is {second.name} with {percent(second.test)}; {_lead(gap, len(order))}"


def _gap(one: str, other: str, found: Sequence[ArmFound]) -> Interval:
    """Difference in test accuracy, paired by seed."""
    runs = {arm.name: arm.finished for arm in found}
    seeds = sorted(runs[one].keys() & runs[other].keys())
    gaps = [runs[one][seed].test_accuracy_last - runs[other][seed].test_accuracy_last for seed in seeds]
    return interval(mean_interval(gaps))


def _lead(gap: Interval, arms: int) -> str:
    if gap.low is None:
        return f"they share {_seeds(gap.count)}, too few to say whether that is more than chance."
    sure = "certain" if gap.certain else "not certain"
    chosen = f" (the highest of {arms} was picked after the fact, which this does not allow for)" if arms > 2 else ""
    return f"the lead is {points(gap)}, {sure}{chosen}."


def _differences(arms: Sequence[ArmShown]) -> Iterator[str]:
    for arm in arms:
        gap = arm.difference
        if gap is None or gap.mean is None:
            continue
        if gap.low is None:
            yield (
                f"{arm.name} differs from {arm.against} by {gap.mean:+.2f} points of test accuracy at the one seed "
                f"that both finished; one seed says nothing of chance."
            )
        elif gap.certain:
            verb = "gains" if gap.mean > 0 else "loses"
            where = "over" if gap.mean > 0 else "against"
            yield f"{arm.name} {verb} {points(gap, sign=False)} of test accuracy {where} {arm.against}: certain."
        else:
            yield (
                f"{arm.name} against {arm.against}: no difference in test accuracy is certain, {points(gap)}"
                f"{', of too few seeds' if gap.count < 3 else ''}."
            )


def points(gap: Interval, *, sign: bool = True) -> str:
    """A difference with its interval.

    Example:
        >>> points(Interval(-1.5, -2.0, -1.0, 5)), points(Interval(-1.5, -2.0, -1.0, 5), sign=False)
        ('-1.50 points (95 % interval -2.00 to -1.00, 5 seeds)', '1.50 points (95 % interval 1.00 to 2.00, 5 seeds)')
    """
    assert gap.mean is not None
    assert gap.low is not None
    assert gap.high is not None
    mean, low, high, form = gap.mean, gap.low, gap.high, "+.2f"
    if not sign:
        form = ".2f"
        if mean < 0:
            mean, low, high = -mean, -high, -low
    return f"{mean:{form}} points (95 % interval {low:{form}} to {high:{form}}, {_seeds(gap.count)})"


def percent(value: Interval) -> str:
    """An accuracy with its interval.

    Example:
        >>> percent(Interval(76.5, 75.9, 77.1, 5)), percent(Interval(76.5, None, None, 1))
        ('76.50 % (75.90 to 77.10, 5 seeds)', '76.50 % (one seed, so no interval)')
    """
    assert value.mean is not None
    if value.low is None or value.high is None:
        return f"{value.mean:.2f} % (one seed, so no interval)"
    return f"{value.mean:.2f} % ({value.low:.2f} to {value.high:.2f}, {_seeds(value.count)})"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


# -- sharpness ---------------------------------------------------------------------------------------------


def _sharpness(arms: Sequence[ArmShown], measures: Sequence[MeasureShown]) -> Iterator[Sentence]:
    """How sharp each arm's minima are against those of the arm that it is compared with, by kinds of measure."""
    if not measures:
        yield Sentence("sharpness", "Sharpness was not measured, so whether any arm is flatter is not known.")
        return
    for arm in arms:
        told = [(each, verdict) for each in measures for verdict in each.verdicts if verdict.arm == arm.name]
        kinds = {kind: [(each, v) for each, v in told if each.kind == kind] for kind in QUESTIONS}
        parts = [f"{QUESTIONS[kind]} {_overall(some)}" for kind, some in kinds.items() if some]
        if parts:
            yield Sentence(
                "sharpness",
                f"{arm.name} against {arm.against} ({_known(arm, measures)}): {'; '.join(parts)}.",
                tuple(f"{QUESTIONS[kind]}: {_evidence(some)}" for kind, some in kinds.items() if some),
            )


def _known(arm: ArmShown, measures: Sequence[MeasureShown]) -> str:
    """Of which seeds an arm's minima were measured, and the strength that it was trained with."""
    seeds = sorted(
        {seed for each in measures for value in each.values if value.arm == arm.name for seed in value.seeds}
    )
    known = f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    strength = arm.settings.get("strength", "0")
    by = " by filter" if arm.settings.get("scale") == "filter" else ""
    return known if strength == "0" else f"{known}; trained with strength {strength}{by}"


def _evidence(told: Sequence[tuple[MeasureShown, Verdict]]) -> str:
    """What the measures of one kind say: differences, and their intervals where they have one."""
    curves = distinct(each.curve or short(each) for each, _ in told)
    return "; ".join(_by_curve(curve, [(e, v) for e, v in told if (e.curve or short(e)) == curve]) for curve in curves)


def _overall(told: Sequence[tuple[MeasureShown, Verdict]]) -> str:
    """What measures of one kind say together."""
    words = [word for word in VERDICTS if any(_word(verdict) == word for _, verdict in told)]
    return ", ".join(_where(told, word) for word in words)


def _where(told: Sequence[tuple[MeasureShown, Verdict]], word: str) -> str:
    """By which measures minima are flatter, or sharper."""
    some = [each for each, verdict in told if _word(verdict) == word]
    parts = []
    for curve in distinct(each.curve for each in some):
        if curve is None:
            parts += [f"by the {short(each)}" for each in some if each.curve is None]
        else:
            strengths = [each.strength for each in some if each.curve == curve and each.strength is not None]
            parts.append(f"under {_scale(curve)} of strength {_span(strengths)}")
    return f"{VERDICTS[word]} {_and(parts)}"


def _and(parts: Sequence[str]) -> str:
    """A list in words.

    Example:
        >>> _and(["a"]), _and(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _scale(curve: str) -> str:
    """A curve of noise in a word or two.

    Example:
        >>> _scale("noise, uniform, scale none, train samples"), _scale("noise, uniform, scale filter, test samples")
        ('noise', 'noise by filter on test samples')
    """
    scale, samples = curve.split(", scale ")[1].split(", ")[:2]
    kind = "noise" if scale == "none" else f"noise by {scale}"
    return kind if samples == "train samples" else f"{kind} on {samples}"


def _span(strengths: Sequence[float]) -> str:
    """Strengths from the lowest to the highest."""
    return f"{strengths[0]:g}" if len(strengths) == 1 else f"{min(strengths):g} to {max(strengths):g}"


def _by_curve(curve: str, told: Sequence[tuple[MeasureShown, Verdict]]) -> str:
    """One measure, or a curve of noise: its strengths by what they say, and the interval at the largest of each."""
    parts = []
    for word in distinct(_word(verdict) for _, verdict in told):
        some = [(each, verdict) for each, verdict in told if _word(verdict) == word]
        _, verdict = some[-1]
        strengths = [f"{one.strength:g}" for one, _ in some if one.strength is not None]
        at = f" at strength {', '.join(strengths)}" if strengths else ""
        last = f"at {strengths[-1]}: " if len(strengths) > 1 else ""
        told_of = f"{word}, no interval" if word in ("higher", "lower") else word
        parts.append(f"{told_of}{at} ({last}{_gap_of(verdict)})")
    return f"{curve}: {', '.join(parts)}"


def _word(verdict: Verdict) -> str:
    """Flatter, sharper, not told apart; higher or lower where there is no interval."""
    if verdict.difference is None:
        return "no interval is known"
    if verdict.low is None:
        return "higher" if verdict.difference > 0 else "lower"
    if verdict.sharper is None:
        return "not told apart"
    return "sharper" if verdict.sharper else "flatter"


def _gap_of(verdict: Verdict) -> str:
    """A difference with its interval, or without one where none is known."""
    if verdict.difference is None:
        return "not finite"
    if verdict.low is None or verdict.high is None:
        return f"{verdict.difference:+.3g}"
    return f"{verdict.difference:+.3g}, 95 % {verdict.low:+.3g} to {verdict.high:+.3g}"


def short(measure: MeasureShown) -> str:
    """A measure in words, without its unit.

    Example:
        >>> names = "box eps = 0.0005: phi (%)", "ball rho = 0.05: rise per batch of 128", "hessian of a.*: trace"
        >>> [short(MeasureShown(name, "worst", None, None, "train", (), ())) for name in names]
        ['box of half-width 0.0005', 'ball of radius 0.05 per batch of 128', 'trace of the Hessian of a.*']
    """
    name = measure.name.replace(": phi (%)", "").replace(": rise (nats)", "").replace(": rise", "")
    name = name.replace("box eps =", "box of half-width").replace("ball rho =", "ball of radius")
    name = name.replace("adaptive rho =", "adaptive ball of radius")
    block, _, value = name.partition(": ")
    return f"{value} of the {block.replace('hessian', 'Hessian')}" if block.startswith("hessian") else name


# -- cost --------------------------------------------------------------------------------------------------


def _costs(arms: Sequence[ArmShown]) -> Iterator[str]:
    """Passes, updates and time, against the arm that each is compared with."""
    named = {arm.name: arm for arm in arms}
    for arm in arms:
        other = named.get(arm.against or "")
        if arm.updates is None or arm.passes is None or arm.seconds.mean is None:
            continue
        if other is None or other.updates is None or other.passes is None or arm.times is None:
            yield f"{arm.name}: {arm.passes:g} passes over the training samples, {arm.updates:,} updates, {_time(arm)}."
        else:
            passes = _multiple("passes over the training samples", arm.passes / other.passes)
            updates = _multiple("updates", arm.updates / other.updates)
            yield f"{arm.name} against {arm.against}: {passes}, {updates}, {_ratio(arm.times)}."


def _time(arm: ArmShown) -> str:
    reach = "" if arm.seconds.low is None else f" (95 % interval {arm.seconds.low:.3g} to {arm.seconds.high:.3g})"
    return f"{arm.seconds.mean:.3g} s a run{reach}"


def _multiple(what: str, ratio: float) -> str:
    """A ratio in words.

    Example:
        >>> _multiple("updates", 1.0), _multiple("updates", 5.0)
        ('as many updates', '5 times the updates')
    """
    return f"as many {what}" if ratio == 1 else f"{ratio:.3g} times the {what}"


def _ratio(times: Interval) -> str:
    """How long a run takes; the interval is of the mean logarithm, paired by seed."""
    if times.mean is None:
        return "no seed in common to compare times by"
    if times.low is None or times.high is None:
        return f"{times.mean:.2f} times the time at one seed"
    certain = times.count >= 3 and (times.low > 1 or times.high < 1)
    reach = f"95 % interval {times.low:.2f} to {times.high:.2f}, {_seeds(times.count)}"
    return f"{times.mean:.2f} times the time ({reach}), {'certain' if certain else 'not certain'}"
