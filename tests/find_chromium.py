"""Finds or installs the browser that tests open pages in, and writes down where it is: make browser [CHROMIUM=path]."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ROOT = Path(__file__).parents[1]
RECORD = ROOT / ".venv" / "chromium"


class NoBrowserError(Exception):
    """Says what was looked for and what to do."""


def runs(path):
    """Whether the file starts as a browser; Ubuntu's chromium-browser, say, may only tell you to install a snap."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def recorded(record=RECORD):
    """The path that make browser wrote, where there still is a browser."""
    if not record.is_file():
        raise NoBrowserError("no browser was chosen for tests of pages: run 'make browser'")
    path = record.read_text().strip()
    if not runs(path):
        raise NoBrowserError(f"{path}, recorded in {record}, does not run: run 'make browser' again")
    return path


def find(environ, record=RECORD):
    """The path in CHROMIUM, which must run; else the recorded one; else the first on PATH that runs; else None."""
    given = environ.get("CHROMIUM")
    if given:
        path = shutil.which(given, path=environ.get("PATH"))
        if path is None or not runs(path):
            raise NoBrowserError(f"CHROMIUM={given} does not run: give the path of Chromium or Chrome")
        return str(Path(path).absolute())
    try:
        return recorded(record)
    except NoBrowserError:
        found = (shutil.which(name, path=environ.get("PATH")) for name in NAMES)
        return next((path for path in found if path and runs(path)), None)


def why_not_apt(user, system):
    """Why apt is not asked for a browser; an empty text where it is. Ubuntu's package is a snap in disguise."""
    if system != "debian":
        return f"apt was not asked: the system is {system}, not debian"
    return "" if user == 0 else "apt was not asked: that needs root"


def install(environ):
    """Installs Debian's Chromium."""
    environ = {**environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in ("update", "install --yes --no-install-recommends chromium"):
        try:
            done = subprocess.run(["apt-get", "--quiet", *words.split()], env=environ, check=False).returncode
        except OSError as error:
            done = error
        if done != 0:
            raise NoBrowserError(f"'apt-get {words}' failed ({done}): install chromium, or give one by CHROMIUM=path")


def choose(environ, record=RECORD, *, user, system):
    """Finds a browser, else installs one where that can be done, and records its path."""
    path = find(environ, record)
    why = why_not_apt(user, system)
    if path is None and not why:
        install(environ)
        path = find(environ, record)
    if path is None:
        looked = f"no browser that runs: looked in {record} and on PATH for {', '.join(NAMES)}"
        todo = "Install Chromium or Chrome, or give its path: make browser CHROMIUM=/path/to/chromium"
        raise NoBrowserError(f"{looked}; {why or 'apt installed none of them'}. {todo}")
    record.parent.mkdir(exist_ok=True)
    record.write_text(f"{path}\n")
    return path


def main():
    try:
        system = platform.freedesktop_os_release()["ID"]
    except OSError:
        system = platform.system()
    try:
        path = choose(os.environ, user=os.geteuid(), system=system)
    except NoBrowserError as error:
        sys.exit(f"make browser: {error}")
    print(f"{path} (written to {RECORD.relative_to(ROOT)})")


if __name__ == "__main__":
    main()
