"""How the package is built, in numbers: rooms, imports between modules, circles, private accesses, lines.

    python benchmarks/house.py [PATH] [--details] [--tests]

PATH is a checkout of the project, or its package; without it, the checkout that this file lies in. Nothing is imported
and nothing but Python is needed: files are parsed. With --tests, the quick lane of the tests (``pytest`` as it is
configured) is run and timed.

room
    A folder of the package, or a module that lies directly in it.
floor
    A line of the map in CONTRIBUTING.md, from the lowest up. Every room stands on one.
arrow
    One module imports another, anywhere in its text: also within a function, or for types only. What the door
    (``__init__.pyi``) lists are its arrows.
upwards, sideways
    An arrow to a room on a higher floor, or to another one on the same floor. The door is above all floors.
circle
    A largest set of modules that all can be reached from each other.
private access
    ``value._name``, or ``from module import _name``, where the module itself defines no such name, but another one of
    the package does. Names that none of them defines belong to other packages, and are counted apart.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "norbert_store"
MAP_TITLE = "## The house"


@dataclass
class House:
    """What is found in a package.

    Attributes
    ----------
    modules : dict of str to Path
        By dotted name below the package, "" for the door.
    floors : dict of str to int
        Of each room on the map, 0 for the lowest.
    arrows : set of (str, str)
        Importing and imported module.
    accesses, foreign_accesses : list of str
        A line for each private access across modules, and to other packages.
    """

    modules: dict[str, Path]
    floors: dict[str, int]
    arrows: set[tuple[str, str]] = field(default_factory=set)
    accesses: list[str] = field(default_factory=list)
    foreign_accesses: list[str] = field(default_factory=list)

    @property
    def rooms(self) -> set[str]:
        """All rooms but the door."""
        return {room_of(module) for module in self.modules} - {""}

    @property
    def lines(self) -> int:
        """Lines of all modules."""
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in self.modules.values())

    @property
    def off_the_map(self) -> list[str]:
        """Rooms that the map doesn't have, and those that it has and that aren't there."""
        return sorted(self.rooms ^ set(self.floors))

    @property
    def upwards(self) -> list[tuple[str, str]]:
        """Arrows from a lower floor to a higher one."""
        return sorted(arrow for arrow in self.arrows if self._rise(arrow) > 0)

    @property
    def sideways(self) -> list[tuple[str, str]]:
        """Arrows between two rooms of one floor."""
        return sorted(arrow for arrow in self.arrows if self._rise(arrow) == 0 and len({*map(room_of, arrow)}) == 2)

    def _rise(self, arrow: tuple[str, str]) -> int:
        """How many floors an arrow leads up; downwards where a room isn't on the map."""
        floors = {**self.floors, "": len(self.floors)}
        start, end = (floors.get(room_of(module)) for module in arrow)
        return -1 if start is None or end is None else end - start

    @property
    def circles(self) -> list[list[str]]:
        """Sets of modules that import each other, directly or not."""
        reached = {module: self._reached_from(module) for module in self.modules}
        circles = {
            frozenset(other for other in reached[module] if module in reached[other])
            for module in self.modules
            if module in reached[module]
        }
        return sorted(sorted(circle) for circle in circles)

    def _reached_from(self, module: str) -> set[str]:
        """All modules that a module imports, and that those import, and so on."""
        reached: set[str] = set()
        waiting = {module}
        while waiting:
            waiting = {imported for importer, imported in self.arrows if importer in waiting} - reached
            reached |= waiting
        return reached


def read_house(path: Path) -> House:
    """Parse a checkout, or a package.

    Raises
    ------
    FileNotFoundError
        If there is no package.
    """
    package = path if (path / "__init__.py").is_file() else path / PACKAGE
    if not (package / "__init__.py").is_file():
        raise FileNotFoundError(f"{path} is neither the package {PACKAGE} nor a folder that holds it")
    modules = {module_name(file.relative_to(package)): file for file in sorted(package.rglob("*.py"))}
    house = House(modules, read_map(package.parent / "CONTRIBUTING.md"))
    trees = {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in modules.items()}
    defined = {module: set(definitions(tree)) for module, tree in trees.items()}
    everywhere = set().union(*defined.values())
    for module, tree in trees.items():
        house.arrows |= {(module, imported) for imported in imports(tree, module, modules)} - {(module, module)}
        for name, text in private_accesses(tree, modules):
            if name not in defined[module]:
                kind = house.accesses if name in everywhere else house.foreign_accesses
                kind.append(f"{modules[module].relative_to(package)}:{text}")
    stub = package / "__init__.pyi"
    if stub.is_file():
        listed = imports(ast.parse(stub.read_text(encoding="utf-8")), "", modules)
        house.arrows |= {("", imported) for imported in listed if imported}
    return house


def module_name(file: Path) -> str:
    """Dotted name of a file below the package; "" for the package itself."""
    return ".".join(part for part in file.with_suffix("").parts if part != "__init__")


def room_of(module: str) -> str:
    """The folder that a module lies in, or the module itself."""
    return module.split(".")[0]


def read_map(file: Path) -> dict[str, int]:
    """Read the floor of each room from the indented block below the title.

    A remark follows the names after two spaces or more, in the same column in every line; a line without names goes on
    with the remark of the line before.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    block = text.partition(f"{MAP_TITLE}\n")[2].partition("\n## ")[0]
    rows = [line for line in block.splitlines() if line.startswith("    ")]
    if not rows:
        return {}
    names = re.match(r" +\S.*?  +", rows[0])
    floors = [row[: names.end() if names else None].split() for row in rows]
    return {room.rstrip("/"): i for i, rooms in enumerate(filter(None, floors)) for room in rooms}


# ---- imports


def imports(tree: ast.Module, module: str, modules: Mapping[str, Path]) -> set[str]:
    """All modules of the package that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {below_package(alias.name, modules) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = origin_of(node, module, modules)
            for alias in node.names:
                name = f"{origin}.{alias.name}" if origin else None
                found.add(below_package(name if name and is_module(name, modules) else origin, modules))
    return {name for name in found if name is not None}


def origin_of(node: ast.ImportFrom, module: str, modules: Mapping[str, Path]) -> str:
    """The dotted name that something is imported from."""
    if not node.level:
        return node.module or ""
    parts = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    up = node.level - (modules[module].name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def is_module(name: str, modules: Mapping[str, Path]) -> bool:
    """Whether a dotted name is that of a module of the package."""
    return below_package(name, modules) is not None


def below_package(name: str, modules: Mapping[str, Path]) -> str | None:
    """Take the package's own name off a dotted one; None if it is no module of the package."""
    top, _, below = name.partition(".")
    return below if top == PACKAGE and below in modules else None


# ---- private accesses


def private_accesses(tree: ast.Module, modules: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """All private names that a module takes from something, each with its line and what stands there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if is_private(alias.name) and not is_module(f"{node.module}.{alias.name}", modules):
                    yield alias.name, f"{node.lineno}: from {node.module} import {alias.name}"


def definitions(tree: ast.Module) -> Iterator[str]:
    """Names of functions, classes, variables and attributes of ``self`` that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore, those of Python's own protocols left out."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def is_self(node: ast.expr) -> bool:
    """Whether an expression is what methods call their own object or class."""
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


# ---- the command


def print_house(house: House, details: bool) -> None:
    """Print a line for each number; with details, what is behind those that should be 0."""
    for what, found in (
        ("rooms", len(house.rooms)),
        ("floors", len(set(house.floors.values()))),
        ("files", len(house.modules)),
        ("lines", house.lines),
        ("arrows between modules", len(house.arrows)),
        ("arrows between rooms", len({(room_of(a), room_of(b)) for a, b in house.arrows if room_of(a) != room_of(b)})),
        ("private, other packages", len(house.foreign_accesses)),
    ):
        print(f"{what:<26}{found:>8,}")
    for what, lines in findings(house).items():
        print(f"{what:<26}{len(lines):>8,}")
        for line in lines if details else ():
            print(f"    {line}")


def findings(house: House) -> dict[str, list[str]]:
    """All that should be empty."""
    return {
        "rooms off the map": house.off_the_map,
        "arrows upwards": [f"{importer} -> {imported or 'the door'}" for importer, imported in house.upwards],
        "arrows sideways": [f"{importer} -> {imported}" for importer, imported in house.sideways],
        "circles": [", ".join(circle) for circle in house.circles],
        "private accesses": house.accesses,
    }


def quick_lane_seconds(checkout: Path) -> float:
    """Run the tests as they are configured; return how long they took.

    Raises
    ------
    subprocess.CalledProcessError
        If a test fails.
    """
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "pytest"], cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    """Parse the arguments, and print what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--details", action="store_true", help="print what is behind the numbers that should be 0")
    parser.add_argument("--tests", action="store_true", help="run the quick lane of the tests, and print its seconds")
    arguments = parser.parse_args()
    print_house(read_house(arguments.path), arguments.details)
    if arguments.tests:
        checkout = arguments.path.parent if (arguments.path / "__init__.py").is_file() else arguments.path
        print(f"{'seconds of the quick lane':<26}{quick_lane_seconds(checkout):>8.0f}")


if __name__ == "__main__":
    main()
