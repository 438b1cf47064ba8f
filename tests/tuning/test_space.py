"""What is searched over."""

import optuna
import pytest

from smoothout.train.config import Settings
from smoothout.tuning.space import KNOWN, Choice, Interval, Space, parse_ranges

METHOD = {"rho": "sam", "average_decay": "ema", "average_start": "swa"}


def fixed(**values):
    return optuna.trial.FixedTrial(values)


@pytest.mark.parametrize("name", KNOWN)
def test_everything_that_is_known_can_be_searched(name):
    settings = Settings().replace(method=METHOD.get(name, "smoothout"))
    space = Space((name,), {})
    label, values = space.range(name, settings)
    value = values.values[-1] if isinstance(values, Choice) else (values.high if values.whole else values.low * 1.5)
    assert space.suggest(fixed(**{label: value}), settings) == settings.replace(**{name: value})


def test_a_strength_means_another_for_each_scale():
    space = Space(("strength", "scale"), {})
    found = space.suggest(fixed(**{"scale": "filter", "strength (filter)": 0.3}), Settings())
    assert (found.noise.scale, found.noise.strength) == ("filter", 0.3)
    assert (
        space.range("strength", Settings())[1].high
        < space.range("strength", Settings().replace(scale="filter"))[1].high
    )


def test_a_rising_schedule_starts_lower():
    plain = Space(("strength",), {}).range("strength", Settings().replace(scale="filter"))[1]
    lpf = Space(("strength",), {}).range("strength", Settings().replace(method="lpf", strength=0.1))[1]
    assert lpf.high * 16 == pytest.approx(plain.high)


def test_rates_are_around_the_given_one():
    _, values = Space(("lr",), {}).range("lr", Settings().replace(lr=0.3))
    assert (values.low, values.high) == pytest.approx((0.03, 3.0))


def test_the_search_starts_from_what_is_given():
    settings = Settings().replace(strength=0.02, weight_decay=1e-3)
    assert Space(("lr", "weight_decay", "strength"), {}).start(settings) == {
        "lr": 0.05,
        "weight_decay": 1e-3,
        "strength": 0.02,
    }


def test_without_a_given_strength_the_search_starts_in_the_middle():
    assert Space(("strength",), {}).start(Settings()) == {"strength": pytest.approx((1e-3 * 0.3) ** 0.5)}
    given = Space(("strength",), {"strength": Interval(0.01, 0.04)})
    assert given.start(Settings()) == {"strength": pytest.approx(0.02)}


@pytest.mark.parametrize(
    "method, name, value",
    [
        ("sam", "rho", 0.05),
        ("asam", "rho", 0.5),
        ("momentum_sam", "rho", 0.3),
        ("ema", "average_decay", 0.99),
        ("swa", "average_start", 0.75),
    ],
)
def test_a_methods_own_setting_starts_at_its_default(method, name, value):
    assert Space((name,), {}).start(Settings().replace(method=method)) == {name: value}


def test_words_have_no_interval():
    with pytest.raises(ValueError, match="scale has the range 0.1:0.5; expected words with commas"):
        Space(("scale",), parse_ranges(["scale=0.1:0.5"]))


def test_a_range_for_each_scale():
    space = Space(("strength", "scale"), parse_ranges(["strength.none=0.01:0.05", "strength.filter=0.1:0.5"]))
    assert space.range("strength", Settings()) == ("strength (none)", Interval(0.01, 0.05))
    assert space.range("strength", Settings().replace(scale="filter")) == ("strength (filter)", Interval(0.1, 0.5))
    with pytest.raises(ValueError, match="strength has one range and scale is searched over.*strength.none=LOW:HIGH"):
        Space(("strength", "scale"), parse_ranges(["strength=0.01:0.05"]))


def test_ranges_as_text():
    assert parse_ranges(["lr=0.01:1", "warmup_steps=0:50", "scale=none,filter", "momentum=0.9,0.95"]) == {
        "lr": Interval(0.01, 1.0),
        "warmup_steps": Interval(0, 50, whole=True),
        "scale": Choice(("none", "filter")),
        "momentum": Choice((0.9, 0.95)),
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("lr", "the range is 'lr'; expected NAME=LOW:HIGH"),
        ("lr=a:b", "in 'lr=a:b': 'a:b' is no range; expected LOW:HIGH"),
        ("lr=1:0.1", "in 'lr=1:0.1': the range is 1.0:0.1; expected 0 < low < high"),
        ("lr=0:1", "expected 0 < low < high"),
    ],
)
def test_ranges_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        parse_ranges([text])


def test_unknown_names():
    with pytest.raises(ValueError, match="what is searched over is 'depth'; expected one of auto_target"):
        Space(("depth",), {})
    with pytest.raises(ValueError, match="lr has a range and is not searched over. Add it to --over"):
        Space(("strength",), {"lr": Interval(0.1, 1)})
    with pytest.raises(ValueError, match="rho is searched over and the method smoothout, which has none"):
        Space(("rho",), {}).range("rho", Settings())
