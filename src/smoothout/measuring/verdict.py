"""What the numbers of a diagnosis mean, in words: rules of this project, each with its reason and its doubt."""

import dataclasses
import math
from collections.abc import Sequence

from smoothout.results.diagnosis import Effect, Facts, Verdict
from smoothout.results.scan import Scan

#: Points that a change must bring on the hold-out to be worth advice.
WORTH = 0.5
#: Points between train and hold-out accuracy below which there is nothing for noise to close.
GAP = 2.0


def verdicts(
    facts: Facts, scans: Sequence[Scan], effects: Sequence[Effect], *, trial_updates: int, displaced: bool = False
) -> tuple[Verdict, ...]:
    """The advice, in the order in which to follow it; never empty.

    Args:
        facts: Of the run.
        scans: Of its last weights.
        effects: Of the trials.
        trial_updates: Of a trial as the run is.
        displaced: Whether the run has noise already, or what goes in its place.
    """
    found = [
        *_updates(facts, trial_updates, [effect for effect in effects if effect.kind == "updates"]),
        *_tuning([effect for effect in effects if effect.kind == "tuning"]),
    ]
    found += _own_noise([effect for effect in effects if effect.kind == "clean"])
    if not displaced:
        found += _noise(facts, scans, [effect for effect in effects if effect.kind == "noise"])
    if not found and not effects:
        found.append(
            Verdict(
                "nothing can be said without trials: leave --no-trials out",
                "the run has noise already, or what goes in its place, and no change was tried in training",
                "the facts above stand for themselves",
            )
        )
    elif not found:
        found.append(
            Verdict(
                "nothing that was tried helps: leave these settings as they are",
                f"no change brought {WORTH:g} points on the hold-out",
                "steps were single, and of few seeds; other architectures, data or longer training were not tried",
            )
        )
    if effects and trial_updates < facts.planned:
        short = f"; trials made {trial_updates} of the run's {facts.planned} updates, and longer ones may differ"
        found = [dataclasses.replace(verdict, doubt=verdict.doubt + short) for verdict in found]
    return tuple(found)


def helps(effect: Effect) -> bool:
    """Whether a change brings enough, and more than chance would: Student's t, one-sided, at 5 %."""
    from scipy.stats import t

    difference = effect.difference
    if difference.count < 2:
        return False  # a single seed says nothing
    one_sided, two_sided = (float(t.ppf(share, difference.count - 1)) for share in (0.95, 0.975))
    return difference.mean >= WORTH and difference.mean > difference.half_width * one_sided / two_sided


def said(effect: Effect) -> str:
    """A difference in words."""
    difference = effect.difference
    if difference.count == 0:
        return f"{effect.name}: every run failed"
    return f"{effect.name} {difference.mean:+.2f} points ({difference.low:+.2f} to {difference.high:+.2f})"


def _seeds(effects: Sequence[Effect]) -> str:
    return f"{min(effect.difference.count for effect in effects)} seeds; 95 % intervals are beside each difference"


def _updates(facts: Facts, trial_updates: int, effects: Sequence[Effect]) -> list[Verdict]:
    """Whether the run was too short."""
    better = [effect for effect in effects if helps(effect)]
    if not better:
        return []
    if trial_updates < facts.planned:
        return [
            Verdict(
                "whether the run has too few updates was not tried: leave --epochs out",
                f"trials of {trial_updates} updates gain from twice as many ({'; '.join(map(said, better))}), and the "
                f"run makes {facts.planned}",
                _seeds(better),
            )
        ]
    ratio = facts.samples_per_update / facts.at_end.value
    beyond = (
        f"; the batch is {ratio:.2g} times the gradient noise scale at the end, so that smaller batches would make as "
        f"much of each sample"
        if ratio > 1
        else ""
    )
    return [
        Verdict(
            "too few updates: train longer or use regime adaptation",
            f"{'; '.join(map(said, better))}, after {trial_updates} updates{beyond}",
            f"{_seeds(better)}; a small batch with the same number of samples may be cheaper",
        )
    ]


def _tuning(effects: Sequence[Effect]) -> list[Verdict]:
    """Whether the baseline was not tuned."""
    better = sorted((effect for effect in effects if helps(effect)), key=lambda effect: -effect.difference.mean)
    if not better:
        return []
    return [
        Verdict(
            "tune learning rate, warm-up and weight decay first",
            "; ".join(map(said, better)),
            f"{_seeds(better)}; the best of {len(effects)} steps was picked, so that its gain is rather less; more "
            f"steps the same way may bring more",
        )
    ]


def _own_noise(effects: Sequence[Effect]) -> list[Verdict]:
    """Whether the noise that a run has does it good."""
    found = []
    for effect in effects:
        if helps(effect):
            advice = "the noise of this run hurts: train with less, or none"
        elif effect.difference.high < 0:
            advice = "the noise of this run helps: keep it"
        else:
            continue
        doubt = f"{_seeds(effects)}; other strengths were not tried: smoothout tune does"
        found.append(Verdict(advice, said(effect), doubt))
    return found


def _noise(facts: Facts, scans: Sequence[Scan], effects: Sequence[Effect]) -> list[Verdict]:
    """Whether noise is worth a try, and how much."""
    helped = any(map(helps, effects))
    lost = bool(effects) and not any(effect.difference.mean >= 0 for effect in effects)  # nan where every run failed
    if facts.gap < GAP and not helped and not lost:
        return [
            Verdict(
                "noise is not what this run lacks",
                f"train and hold-out accuracy are {facts.gap:.2f} points apart ({facts.train_accuracy:.2f} and "
                f"{facts.holdout_accuracy:.2f} %): there is no gap for it to close",
                "a longer run, or a larger network, may overfit and then be helped",
            )
        ]
    harmful = {effect.scale for effect in effects if effect.difference.high < 0}
    found = [scan for scan in scans if not math.isnan(scan.low) and scan.scale not in harmful]
    ranges = [f"{scan.low:.2g} to {scan.high:.2g} (scale {scan.scale})" for scan in found]
    if lost:
        certain = not any(effect.difference.high >= 0 for effect in effects)
        return [
            Verdict(
                f"noise {'hurts' if certain else 'does not help'} in runs like this one",
                "; ".join(map(said, effects)),
                f"{_seeds(effects)}; one strength of each scale was tried, and noise needs updates: ask again after "
                f"what stands above this",
            )
        ]
    if not ranges:
        return [
            Verdict(
                "whether noise helps was not tried: find a range of strengths with `smoothout scan --strengths`",
                f"train and hold-out accuracy are {facts.gap:.2f} points apart, and no range was found: "
                f"{'; '.join(f'scale {scan.scale}: {scan.reason}' for scan in scans)}",
                "the range that is looked for is a rule of thumb",
            )
        ]
    gap = f"train and hold-out accuracy are {facts.gap:.2f} points apart"
    if not effects:
        return [
            Verdict(
                f"noise, weight decay or more updates may close the gap: leave --no-trials out, or try strengths "
                f"{' or '.join(ranges)}",
                gap,
                "which of them is not told apart without trials; the range is a rule of thumb",
            )
        ]
    return [
        Verdict(
            f"noise {'helps' if helped else 'may help'}: try strengths {' or '.join(ranges)}",
            f"{gap}; tried: {'; '.join(map(said, effects))}",
            f"a gap can also be closed by weight decay, augmentation or data; the range is a rule of thumb; "
            f"{_seeds(effects)}",
        )
    ]
