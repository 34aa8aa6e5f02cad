"""What the user can ask of `bas label`. Imports nothing that takes long."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What is asked for beside the sources."""

    classes: tuple[str, ...] = ()
    """A,B,...: names of the classes to mark; default: those of the labels that are there."""
    person: str = ""
    """Who labels, kept with every spot; default: your name on this machine."""
    own_file: bool = False
    """Label into a file of your own (Labels-ball.NAME.json), blind to what others marked, to see how far you agree."""
    train_after: int = 0
    """Train after this many changes; 0: by the button alone."""
