"""JSON: every scalar of every message at its path, by Python's own decoder: for `conformance.py`."""

import json
import re
from datetime import datetime, timezone

from harness import Run

# So many columns are declared at most.
COLUMNS_MAX = 600


class Twice(ValueError):
    pass


def pairs(found):
    keys = [key for key, _ in found]
    if len(set(keys)) < len(keys):
        raise Twice
    return dict(found)


def refuse(word):
    raise ValueError(word)


def parsed(body):
    """The value, or None where it is no JSON, or has a key twice."""
    try:
        return (json.loads(body.decode(), object_pairs_hook=pairs, parse_constant=refuse),)
    except (ValueError, UnicodeDecodeError):
        return None


def leaves(value, path=()):
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, path + (key,))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:4]):
            yield from leaves(inner, path + (index,))


def kind(values):
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {str}:
        return "utf8"
    if kinds == {int}:
        most, least = max(v for v in values if v is not None), min(v for v in values if v is not None)
        if -(2**63) <= least and most < 2**63:
            return "int64"
        return "uint64" if least >= 0 and most < 2**64 else None
    return "float64" if kinds and kinds <= {int, float} else None


def written(path):
    def step(part):
        if isinstance(part, int):
            return f"[{part}]"
        quote = '"' if "'" in part else "'"
        return f"[{quote}{part}{quote}]"

    return "$" + "".join(step(part) for part in path)


RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)$")


def moment(value):
    """A time as RFC 3339 has it, to the microsecond; None where it is none."""
    if not RFC3339.match(value):
        return None
    try:
        value = re.sub(r"(\.\d{6})\d+", r"\1", value)
        return datetime.fromisoformat(value).astimezone(timezone.utc)
    except ValueError:
        return None


def json_set(table, name, messages, times=False):
    values = [parsed(body) for _, body in messages]
    seen, through = {}, {}
    for value in values:
        for path, leaf in leaves(value[0]) if value else ():
            if isinstance(leaf, (dict, list)):
                through.setdefault(path, set()).add(type(leaf))
            else:
                seen.setdefault(path, []).append(leaf)
    columns, where = {}, {}
    for path in sorted(seen, key=str):
        # A path that is sometimes a value and sometimes leads on has no type; nor has what is below it.
        above = [path[:end] for end in range(len(path) + 1)]
        mixed = any(p in through and (len(through[p]) > 1 or any(v is not None for v in seen.get(p, []))) for p in above)
        type_ = kind(seen[path])
        has_both = any(isinstance(part, str) and "'" in part and '"' in part for part in path)
        if mixed or type_ is None or has_both or len(columns) >= COLUMNS_MAX:
            continue
        is_time = times and type_ == "utf8" and sum(moment(v) is not None for v in seen[path] if v) * 5 > 4 * len(seen[path])
        column = f"c{len(columns)}"
        columns[column] = json.dumps(written(path)).join(
            ['{ type = "timestamp", unit = "rfc3339", path = ' if is_time else f'{{ type = "{type_}", path = ', " }"]
        )
        where[column] = (path, is_time)

    def found(value, path):
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def row(value):
        values = {}
        for column, (path, is_time) in where.items():
            leaf = found(value, path)
            if is_time and leaf is not None:
                leaf = moment(leaf)
                if leaf is None:
                    return None
            values[column] = leaf
        return [values]

    expected = [None if value is None else row(value[0]) for value in values]
    table.judge(name, Run(messages, 'format = "json"\nmax_bytes = "4MiB"', columns), expected)
