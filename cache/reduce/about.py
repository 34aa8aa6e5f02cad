"""What the record of a reduction says, for people."""

from collections.abc import Mapping
from typing import Any


def told(about: Mapping[str, Any]) -> list[str]:
    """The record of a reduction in lines for people."""
    matches = about.get("matches", [])
    asked = about.get("asked", {})
    lines = [f"fitted on {about.get('rows', 0):,} rows of {len(matches)} matches of the split {asked.get('split')!r}"]
    kept, clipped = about.get("kept_variance", {}), about.get("clipped_share", {})
    if kept:
        lines.append("variance kept: " + ", ".join(f"{share:.2%} of {split}" for split, share in kept.items()))
    if asked.get("quantize"):
        lines.append("values clipped: " + ", ".join(f"{share:.3%} of {split}" for split, share in clipped.items()))
    return lines
