"""What a person sees while `bas finetune` runs: as `bas train-head`, and how far the validation matches are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..extract.run import RowsDone
from ..heads.training.epochs import Reporter
from ..heads.training.train_view import TrainingView
from .devices import is_first_process


@contextmanager
def finetune_view() -> Iterator[tuple[Reporter, Callable[[RowsDone], None]]]:
    """A progress bar on stderr and a line per epoch, in a `with`: what hears of the run, and of validation's rows.

    Of several processes one shows anything.
    """
    if not is_first_process():
        yield Reporter(), lambda _: None
        return
    view = TrainingView("opening videos")

    def rows(done: RowsDone) -> None:
        view.note(f"validating: {done.match_id}, {100 * done.rows_done / done.num_rows:.0f} % of its rows")

    with view as report:
        yield report, rows
