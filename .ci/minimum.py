"""Print the oldest releases that pyproject.toml declares, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+).*")


def main() -> None:
    """Print a line for each dependency, of the project and of its extras."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        if requirement.startswith(f"{project['name']}["):  # extras that hold others
            continue
        if (found := REQUIREMENT.fullmatch(requirement)) is None:
            raise SystemExit(f"{PYPROJECT} requires {requirement!r}; expected name>=version, so that it has an oldest")
        print(f"{found[1]}=={found[2]}")


if __name__ == "__main__":
    main()
