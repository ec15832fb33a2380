"""Constants at the top level of a script, given other values."""

from __future__ import annotations

import re
from collections.abc import Mapping


def changed(source: str, values: Mapping[str, str]) -> str:
    """Return *source* with other *values* of its constants, in both profiles where it has two.

    Raises:
        LookupError: there is no such constant on a line of its own.
    """
    for name, value in values.items():
        source, count = re.subn(rf"(?m)^{name} = .*?(?=  #|$)", f"{name} = {value}", source)
        if count != 1:
            raise LookupError(f"the script has {count} lines that begin with '{name} ='")
    return source
