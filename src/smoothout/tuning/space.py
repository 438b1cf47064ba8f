"""What is searched over: ranges of settings."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from smoothout import _checks
from smoothout.train import methods
from smoothout.train.config import Settings
from smoothout.train.regime import DEFAULTS


class Trial(Protocol):
    """What is asked of an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of some values."""


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high; spread evenly over their logarithms unless they are whole."""

    low: float
    high: float
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (not self.whole and self.low <= 0):
            raise ValueError(f"the range is {self.low}:{self.high}; expected 0 < low < high, such as 0.001:0.1.")

    def suggest(self, trial: Trial, name: str) -> float:
        """A value for a trial."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high))
        return trial.suggest_float(name, self.low, self.high, log=True)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """Some values."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, name: str) -> Any:
        """A value for a trial."""
        return trial.suggest_categorical(name, self.values)

    def __contains__(self, value: object) -> bool:
        return value in self.values


Range = Interval | Choice

#: Of settings whose range does not depend on others.
RANGES: Mapping[str, Range] = {
    "weight_decay": Interval(1e-5, 1e-1),
    "warmup_steps": Interval(0, 100, whole=True),
    "scale": Choice(("none", "filter")),
    "noise_schedule": Choice(("constant", "anneal", "tanh")),
    "auto_target": Interval(0.02, 1.0),
    "clean_share": Choice((0.25, 0.5, 0.75)),
    "average_decay": Choice((0.9, 0.95, 0.98, 0.99, 0.995, 0.999)),
    "average_start": Choice((0.5, 0.6, 0.75, 0.9)),
    "momentum": Choice((0.0, 0.5, 0.8, 0.9, 0.95, 0.98)),
    "label_smoothing": Choice((0.0, 0.05, 0.1, 0.2)),
}
_STRENGTHS = {"none": Interval(1e-3, 0.3), "weight": Interval(0.02, 2.0), "filter": Interval(0.02, 1.0)}
_RHOS = {"momentum_sam": Interval(0.03, 3.0), "sam": Interval(0.01, 1.0), "asam": Interval(0.1, 5.0)}
_RATE_AROUND = 10.0  # times and divided by the given rate
#: Settings of the noise; an arm without noise has none of them.
OF_NOISE = ("strength", "scale", "noise_schedule", "auto_target", "clean_share")
_WORDS = ("scale", "noise_schedule")  # whose values are no numbers
KNOWN = ("lr", "strength", "rho", *RANGES)
_OF_SCALE = {f"strength.{scale}": "strength" for scale in _STRENGTHS}


@dataclass(frozen=True)
class Space:
    """Settings that are searched over.

    Attributes:
        names: Of the settings.
        given: Ranges that replace the usual ones; "strength.filter" is that of one scale.
    """

    names: tuple[str, ...]
    given: Mapping[str, Range]

    def __post_init__(self) -> None:
        for name in self.names:
            _checks.known("what is searched over", name, KNOWN)
        for name, values in self.given.items():
            _checks.known("what has a range", name, (*KNOWN, *_OF_SCALE))
            if isinstance(values, Interval) and name in _WORDS:
                raise ValueError(f"{name} has the range {values.low:g}:{values.high:g}; expected words with commas.")
            if _OF_SCALE.get(name, name) not in self.names:
                raise ValueError(f"{name} has a range and is not searched over. Add it to --over, or leave it out.")
        if "strength" in self.given and "scale" in self.names:
            raise ValueError(
                "strength has one range and scale is searched over, each of which has strengths of its own. Give "
                "--range strength.none=LOW:HIGH strength.filter=LOW:HIGH."
            )

    def suggest(self, trial: Trial, settings: Settings) -> Settings:
        """The settings of a trial."""
        names = sorted(self.names, key=lambda name: name == "strength")  # after the scale, on which its range depends
        for name in names:
            label, found = self.range(name, settings)
            settings = settings.replace(**{name: found.suggest(trial, label)})
        return settings

    def range(self, name: str, settings: Settings) -> tuple[str, Range]:
        """The range of a setting, and the name under which it is searched: a strength means another for each scale."""
        scale = methods.noise_of(settings).scale
        label = f"strength ({scale})" if name == "strength" and "scale" in self.names else name
        for key in (f"{name}.{scale}", name):
            if key in self.given:
                return label, self.given[key]
        if name == "lr":
            rate = DEFAULTS["lr"] if settings.optimization.lr is None else settings.optimization.lr
            return label, Interval(rate / _RATE_AROUND, rate * _RATE_AROUND)
        if name == "rho":
            return label, _RHOS[_with_rho(settings)]
        return label, _strengths(settings) if name == "strength" else RANGES[name]

    def start(self, settings: Settings) -> dict[str, Any]:
        """The given settings as a trial, as far as they are in range."""
        found = {}
        for name in self.names:
            label, values = self.range(name, settings)
            value = settings.flat()[name]
            if value is None:
                value = DEFAULTS.get(name, methods.default(name, settings.rival.method))
            if name == "strength" and value == 0 and isinstance(values, Interval):
                value = math.sqrt(values.low * values.high)  # no strength was given: the middle
            if value in values:
                found[label] = value
        return found


def _with_rho(settings: Settings) -> str:
    method = settings.rival.method
    if method not in _RHOS:
        raise ValueError(
            f"rho is searched over and the method {method}, which has none. Give --method sam, or the like."
        )
    return method


def _strengths(settings: Settings) -> Interval:
    """The usual strengths of a scale; a schedule that rises far starts lower."""
    noise = methods.noise_of(settings)
    usual = _STRENGTHS[noise.scale]
    most = 1 + noise.cosine_gain if noise.noise_schedule == "cosine" else 1.0
    return Interval(usual.low / most, usual.high / most)


def parse_ranges(texts: Iterable[str]) -> dict[str, Range]:
    """Read ranges such as "lr=0.01:1" and choices such as "scale=none,filter".

    Example:
        >>> parse_ranges(["lr=0.01:1", "scale=none,filter"])
        {'lr': Interval(low=0.01, high=1.0, whole=False), 'scale': Choice(values=('none', 'filter'))}

    Raises:
        ValueError: For a text of another form.
    """
    found: dict[str, Range] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or not values:
            raise ValueError(f"the range is {text!r}; expected NAME=LOW:HIGH or NAME=VALUE,VALUE, such as lr=0.01:1.")
        try:
            found[name] = _parse(name, values)
        except ValueError as error:
            raise ValueError(f"in {text!r}: {error}") from error
    return found


def _parse(name: str, values: str) -> Range:
    if ":" not in values:
        return Choice(tuple(_value(each) for each in values.split(",")))
    try:
        low, high = map(float, values.split(":"))
    except ValueError as error:
        raise ValueError(f"{values!r} is no range; expected LOW:HIGH, such as 0.01:1.") from error
    return Interval(low, high, whole=name == "warmup_steps")


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
