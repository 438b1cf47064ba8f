"""make browser: which browser it takes, and what it says where there is none."""

from pathlib import Path

import find_chromium
import pytest
from find_chromium import NoBrowserError, choose, find, recorded, why_not_apt
from opened_page import chosen

VERSION = "echo Chromium 1.0"


@pytest.fixture
def record(tmp_path):
    return tmp_path / "venv" / "chromium"


@pytest.fixture
def program(tmp_path):
    """Writes a shell script into a folder of its own and returns its path."""

    def write(folder, name, script=VERSION):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


def on(*paths):
    return {"PATH": ":".join(path.rpartition("/")[0] for path in paths) or "/nowhere"}


def test_a_given_one_wins(program, record):
    given, other = program("given", "own"), program("bin", "chromium")
    assert find({**on(other), "CHROMIUM": given}, record) == given
    assert find({**on(given), "CHROMIUM": "own"}, record) == given


@pytest.mark.parametrize("given", ["absent", "/absent", "broken"])
def test_a_given_one_must_run(program, record, given):
    paths = on(program("bin", "chromium"), program("bin", "broken", "exit 1"))
    with pytest.raises(NoBrowserError, match=f"CHROMIUM={given} does not run: give the path of Chromium or Chrome"):
        choose({**paths, "CHROMIUM": given}, record, user=0, system="debian")
    assert not record.exists()


def test_names_in_order_and_those_that_run(program, record):
    last, first = program("a", "chrome"), program("b", "chromium-browser")
    assert find(on(last, first), record) == first
    assert find(on(last, program("b", "chromium-browser", "exit 1")), record) == last
    assert find(on(), record) is None


def test_what_is_chosen_is_recorded_and_stays(program, record):
    first, later = program("a", "chrome"), program("b", "chromium")
    assert choose(on(first), record, user=1000, system="debian") == first
    assert recorded(record) == first
    assert find(on(later), record) == first
    program("a", "chrome", "exit 1")
    with pytest.raises(NoBrowserError, match=f"{first}, recorded in {record}, does not run: run 'make browser' again"):
        recorded(record)
    assert choose(on(later), record, user=1000, system="debian") == recorded(record) == later


def test_nothing_recorded_names_the_chore(record):
    with pytest.raises(NoBrowserError, match="run 'make browser'"):
        recorded(record)


@pytest.mark.parametrize(
    "user, system, why", [(1000, "debian", "that needs root"), (0, "ubuntu", "the system is ubuntu, not debian")]
)
def test_nothing_found_says_what_to_do(record, user, system, why):
    assert why_not_apt(user, system).endswith(why)
    with pytest.raises(NoBrowserError) as told:
        choose(on(), record, user=user, system=system)
    for part in (*find_chromium.NAMES, str(record), why, "make browser CHROMIUM=/path/to/chromium"):
        assert part in str(told.value)
    assert not record.exists()


# Writes down what it was called with; install leaves a browser behind.
APT = """cd "${0%/*}"; echo "$DEBIAN_FRONTEND $*" >> calls
case "$*" in *install*) echo "#!/bin/sh" > chromium; /bin/chmod +x chromium;; esac"""


def test_root_on_debian_installs(program, record):
    apt = Path(program("bin", "apt-get", APT))
    assert choose(on(str(apt)), record, user=0, system="debian") == str(apt.parent / "chromium") == recorded(record)
    update, install = apt.with_name("calls").read_text().splitlines()
    assert update == "noninteractive --quiet update"
    assert install == "noninteractive --quiet install --yes --no-install-recommends chromium"
    choose(on(str(apt)), record, user=0, system="debian")
    assert len(apt.with_name("calls").read_text().splitlines()) == 2


def test_apt_may_fail(program, record):
    with pytest.raises(NoBrowserError, match=r"'apt-get update' failed \(100\): install chromium, or give one by CHR"):
        choose(on(program("bin", "apt-get", "exit 100")), record, user=0, system="debian")
    with pytest.raises(NoBrowserError, match="'apt-get update' failed .*No such file"):
        choose(on(), record, user=0, system="debian")
    with pytest.raises(NoBrowserError, match="apt installed none of them"):
        choose(on(program("bin", "apt-get", "exit 0")), record, user=0, system="debian")


@pytest.mark.parametrize("value", [None, "", "false", "true", "1"])
def test_a_missing_browser_fails_under_ci_alone(program, record, value):
    environ = {} if value is None else {"CI": value}
    end = pytest.fail if value in {"true", "1"} else pytest.skip
    with pytest.raises(end.Exception, match="run 'make browser'"):
        chosen(environ, record)
    record.parent.mkdir()
    record.write_text("/gone\n")
    with pytest.raises(end.Exception, match="/gone, recorded in .*, does not run: run 'make browser' again"):
        chosen(environ, record)
    record.write_text(program("bin", "chromium"))
    assert chosen(environ, record) == record.read_text()
