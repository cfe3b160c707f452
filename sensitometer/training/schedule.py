"""The training settings that the networks of a survey share."""

from dataclasses import dataclass

from ..errors import InvalidInputError, check_whole_number


@dataclass(frozen=True)
class Schedule:
    """
    The training settings that the networks of a survey share.

    Parameters
    ----------
    decay_every_epochs
        Epochs after which the learning rate is multiplied by 0.1, again and again (paper, A.5); None: never.
    stop_at_accuracy
        The train accuracy at which a network stops, checked every fifth epoch; None: never. This is ours: the paper trained for
        a fixed number of steps.
    checkpoint_steps
        The step after which weights are kept: a network that diverges later has these (paper, A.5.5: "if training did not
        complete, a checkpoint at step 2^18 was used instead"). None: it has diverged. It does not concern L-BFGS.
    """

    decay_every_epochs: int | None = 500
    stop_at_accuracy: float | None = None
    checkpoint_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("decay_every_epochs", "checkpoint_steps"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_whole_number(name, getattr(self, name)))
        stop = self.stop_at_accuracy
        if stop is not None and (isinstance(stop, bool) or not isinstance(stop, int | float) or not 0 < stop <= 1):
            raise InvalidInputError(f"stop_at_accuracy must be a number above 0 and at most 1; got {stop!r}")
