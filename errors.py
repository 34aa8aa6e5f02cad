"""The one error that a user can cause."""

from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """Input that cannot be used. The command line prints it and exits with code 2.

    Args:
        what: what is wrong, with the file or option it is about.
        got: what was found.
        wanted: what would have been right.
        cure: what to do, as a command or an option where there is one.
    """

    def __init__(self, what: str, *, got: object = None, wanted: object = None, cure: str = "") -> None:
        self.what, self.got, self.wanted, self.cure = what, got, wanted, cure
        lines = [what]
        lines += [f"  got:    {got}"] if got is not None else []
        lines += [f"  wanted: {wanted}"] if wanted is not None else []
        lines += [f"  cure:   {cure}"] if cure else []
        super().__init__("\n".join(lines))


def named_values(names: Iterable[str], values: Mapping[str, object]) -> str:
    """`width=398, hop=25`: some of the values by name, for what was got and wanted."""
    return ", ".join(f"{name}={values[name]}" for name in names)
