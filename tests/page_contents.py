"""What the page's scripts read, put together again as they do it."""

import json
import re
from typing import Any


def data_of(page: str) -> dict[str, Any]:
    """Return the page's data: columns in their places, each run with what is read of it late."""
    data = json.loads(_script(page, "data"))
    for run, line in zip(data["runs"], _script(page, "details").split("\n"), strict=bool(data["runs"])):
        run |= json.loads(line)
        run["evaluations"] = data["pool"][run["evaluations"]]
        run["curve"] = {key: data["pool"][number] for key, number in run["curve"].items()}
    return data


def _script(page: str, name: str) -> str:
    # A browser ends it at the first `</script`.
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script', page, re.DOTALL)
    assert found is not None
    return found[1]
