"""What the user can ask of `bas label`. Imports nothing that takes long."""

from dataclasses import dataclass

from ..errors import InputError


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

    def __post_init__(self) -> None:
        if self.train_after < 0:
            raise InputError("--train-after is not usable", got=self.train_after, wanted="0 (by the button) or more")
        is_plain = all(letter.isprintable() and letter not in '/\\:*?"<>|' for letter in self.person)
        if not is_plain or len(self.person) > 60 or self.person.strip(". ") != self.person:
            wanted = "at most 60 letters, none that a file name cannot have, no dot or blank at the ends"
            raise InputError("--person is not usable", got=repr(self.person)[:80], wanted=wanted)
