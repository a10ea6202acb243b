"""What pyproject.toml allows, as files for pip; and how an installation differs from it.

.ci/core and .ci/run call this. It needs ``packaging``, and ``tomli`` before Python 3.11.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent

NOT_PINNED = re.compile(r"pip|torch|torchvision|triton|(nvidia|cuda)-.*")
"""pip comes with Python; torch is chosen for a machine's processors, and what follows with it."""

HEADER = """\
# The versions that everything is tested with. torch and what comes with it are left out.
# Made from `pip freeze --all` of fresh environments with ".[docs,test]": Python 3.11 and, where it differs,
# 3.10:
#   python .ci/requirements.py pins FREEZE_3.11 FREEZE_3.10 > constraints.txt
"""


def declared(pyproject: Mapping[str, Any]) -> Iterator[Requirement]:
    """Yield what the package and its tests require."""
    project = pyproject["project"]
    for text in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        yield Requirement(text)


def lower_bound(requirement: Requirement) -> str | None:
    """Return the lowest version that is allowed, None where there is no lower bound."""
    bounds = [each.version for each in requirement.specifier if each.operator == ">="]
    return bounds[0] if bounds else None


def oldest(requirements: Iterable[Requirement]) -> Iterator[str]:
    """Yield constraints: each requirement at the lowest version that is allowed."""
    for requirement in requirements:
        if (version := lower_bound(requirement)) is not None:
            yield f"{requirement.name}=={version}"


def unbounded(requirements: Iterable[Requirement]) -> Iterator[str]:
    """Yield the requirements without their upper bounds."""
    for requirement in requirements:
        lower = [str(each) for each in requirement.specifier if each.operator == ">="]
        requirement.specifier = SpecifierSet(",".join(lower))
        yield str(requirement)


def excluded(requirements: Iterable[Requirement], installed: Mapping[str, str]) -> Iterator[str]:
    """Yield the installed versions that the bounds exclude."""
    for requirement in requirements:
        version = installed.get(canonicalize_name(requirement.name))
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version} (allowed: {requirement.specifier})"


def pins(lines: Iterable[str]) -> dict[str, str]:
    """Return names and versions of ``pip freeze``, or of constraints that hold for this Python."""
    found: dict[str, str] = {}
    for line in lines:
        text = line.partition("#")[0].strip()
        if "==" not in text:  # "name @ file:...": this package
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            found[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    return {name: version for name, version in found.items() if not NOT_PINNED.fullmatch(name)}


def constraints(frozen: Mapping[str, str], frozen_310: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of constraints.txt from what is installed on Python 3.11 and on 3.10."""
    for name in sorted({*frozen, *frozen_310}):
        newer, older = frozen.get(name), frozen_310.get(name)
        if newer is None or older is None or newer == older:
            yield f"{name}=={newer or older}"
        else:
            yield f'{name}=={older} ; python_version < "3.11"'
            yield f'{name}=={newer} ; python_version >= "3.11"'


def unpinned(pinned: Mapping[str, str], installed: Mapping[str, str], ours: str) -> Iterator[str]:
    """Yield what is installed without being pinned, or in another version."""
    for name, version in sorted(installed.items()):
        if name == canonicalize_name(ours) or NOT_PINNED.fullmatch(name):
            continue
        if pinned.get(name) != version:
            yield f"{name} {version} (constraints.txt: {pinned.get(name)})"


def main(argv: list[str] | None = None) -> int:
    """Print the lines asked for; exit with 1 where ``unpinned`` finds any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["oldest", "unbounded", "excluded", "unpinned", "pins"])
    parser.add_argument("freeze", nargs="*", type=Path, help="files of pip freeze on Python 3.11 and 3.10")
    args = parser.parse_args(argv)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = {canonicalize_name(each.name): each.version for each in distributions()}
    if args.what == "oldest":
        lines = list(oldest(declared(pyproject)))
    elif args.what == "unbounded":
        lines = list(unbounded(declared(pyproject)))
    elif args.what == "excluded":
        lines = list(excluded(declared(pyproject), installed))
    elif args.what == "unpinned":
        pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
        lines = list(unpinned(pinned, installed, pyproject["project"]["name"]))
    else:
        frozen, frozen_310 = (pins(path.read_text(encoding="utf-8").splitlines()) for path in args.freeze)
        lines = [HEADER.rstrip(), *constraints(frozen, frozen_310)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return int(args.what == "unpinned" and bool(lines))


if __name__ == "__main__":
    sys.exit(main())
