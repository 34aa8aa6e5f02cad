"""What a reduction is, for people."""

from collections.abc import Mapping
from typing import Any

from .reduction import Reduction


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


def decoding(reduction: Reduction) -> str:
    """How stored rows become numbers, and those full rows again, for users of other programs."""
    steps = "row * scale + offset" if reduction.levels else "row"
    if reduction.components is None:
        return f"full rows, nearly: {steps}"
    return f"what heads see: {steps}; full rows, nearly: ({steps}) @ components + mean"
