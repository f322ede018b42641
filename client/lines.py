"""Log lines, read back: `key=value` pairs after a time, or JSON."""

import json
import re

PAIR = re.compile(r' ([\w.-]+)=("(?:[^"\\]|\\.)*"|[^ "]*)')
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")


def fields(line: str) -> dict[str, str]:
    """Return the keys and values of a line; ValueError if it is not one."""
    if line.startswith("{"):
        return {key: str(value) for key, value in json.loads(line).items()}
    time = TIME.match(line)
    if time is None:
        raise ValueError(f"no log line: {line!r}")
    found: dict[str, str] = {}
    position = time.end()
    while position < len(line):
        pair = PAIR.match(line, position)
        if pair is None:
            raise ValueError(f"no log line: {line!r} at {position}")
        key, value = pair.groups()
        found[key] = json.loads(value) if value.startswith('"') else value
        position = pair.end()
    return found
