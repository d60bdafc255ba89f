"""Text of unknown origin: shown so that it can do nothing, and read as JSON within bounds.

A store may come from a stranger. What it says is shown to people in terminals, notebooks, pictures and errors, where
characters that nobody sees could drive the terminal, or turn the rest of a line around.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any, NoReturn

MOST_DEPTH = 32
MOST_VALUES = 2**20
LONGEST_SHOWN = 200
MOST_LISTED = 100

_NESTING = (dict, list)  # as json makes them

# control, format (direction among them), half a surrogate pair, unassigned; separators of lines and paragraphs
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))


def is_seen(letter: str) -> bool:
    """Whether a character shows itself, and does nothing else."""
    return letter.isprintable() or unicodedata.category(letter) not in _UNSEEN


def printable(text: str) -> str:
    r"""Write out what isn't seen, as Python does in a string.

    Examples
    --------
    >>> printable("Žofie – Ticho"), printable("a\x1b[2J")
    ('Žofie – Ticho', 'a\\x1b[2J')
    """
    if text.isprintable():
        return text
    return "".join(letter if is_seen(letter) else repr(letter)[1:-1] for letter in text)


def shown(value: Any, most: int = LONGEST_SHOWN) -> str:
    """Show a value as Python writes it, without what isn't seen, and cut off where it is long.

    Examples
    --------
    >>> shown("x" * 1000, 10), shown({"a": 1})
    ("'xxxxxxxxx...", "{'a': 1}")
    """
    found = _short(value, most)
    return f"{found[:most]}..." if len(found) > most else printable(found)


def listed(names: Iterable[str], most: int = MOST_LISTED) -> str:
    """Write names one after the other, and how many more there are than can be shown.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed(map(str, range(100)), most=2)
    ("'a', 'b', 'c'", "'0', '1', ... 98 more")
    """
    names = list(names)
    more = [f"... {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*map(shown, names[:most]), *more])


def shortened(text: str, most: int = 2 * LONGEST_SHOWN) -> str:
    """Cut a text off where it is long."""
    return text if len(text) <= most else f"{text[:most]}..."


def _short(value: Any, most: int) -> str:
    """Write as much of a value as is asked for: all of it may be long, and what it holds may be many."""
    if isinstance(value, str):
        return repr(value[: most + 1])
    if isinstance(value, int) and value.bit_length() > 4 * most:  # Python refuses to write very long ones
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, list | tuple | set | frozenset):
        ends = {list: "[]", tuple: "()"}.get(type(value), "{}")
        return _joined(iter(value), ends, most, lambda each, left: _short(each, left))
    if isinstance(value, dict):
        return _joined(iter(value.items()), "{}", most, lambda item, left: _item(item, left))
    return repr(value)


def _joined(items: Any, ends: str, most: int, write: Any) -> str:
    parts: list[str] = []
    length = 0
    for item in items:
        parts.append(write(item, most - length))
        length += len(parts[-1]) + 2
        if length > most:
            break
    return f"{ends[0]}{', '.join(parts)}{ends[1]}"


def _item(item: tuple[Any, Any], most: int) -> str:
    return f"{_short(item[0], most)}: {_short(item[1], most)}"


def read_json(data: str | bytes) -> Any:
    """Read JSON of at most `MOST_DEPTH` levels and `MOST_VALUES` values, which can be written again.

    Parameters
    ----------
    data : str or bytes
        UTF-8, if it is bytes.

    Raises
    ------
    ValueError
        If it is no JSON, deeper, or of more values; if a number isn't finite, a text isn't Unicode, or a key stands
        twice in one object.

    Examples
    --------
    >>> read_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    """
    text = data.decode() if isinstance(data, bytes) else data
    # every value but the first stands behind one of these; a look is cheap, and objects take a hundred bytes each
    if text.count(",") + text.count("[") + text.count("{") > MOST_VALUES:
        raise ValueError(f"it may hold more than {MOST_VALUES} values")
    try:
        value = json.loads(text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"it must be of at most {MOST_DEPTH} levels") from None
    if _depth(value) > MOST_DEPTH:
        raise ValueError(f"it must be of at most {MOST_DEPTH} levels")
    if "\\u" in text:  # which may stand for half a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {shown(text, 20)} is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        again, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shown(again)} stands twice")
    return found


def _depth(value: Any) -> int:
    """Count how deep a JSON value is nested."""
    depth, level = 0, [each for each in (value,) if type(each) in _NESTING]
    while level and depth <= MOST_DEPTH:
        depth += 1
        inner = chain.from_iterable(each.values() if type(each) is dict else each for each in level)
        level = [child for child in inner if type(child) in _NESTING]
    return depth
