"""JSON that every reader takes. Python writes NaN and Infinity, which are no JSON; here they are null."""

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """Return nested values as JSON can hold them: a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any, **form: Any) -> str:
    """As `json.dumps`, with null for every number that is not finite."""
    return json.dumps(finite(value), allow_nan=False, **form)
