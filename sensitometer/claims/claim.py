"""One claim of the paper, tested on one survey: a statistic with an interval, a threshold, and the verdict that follows."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
NOT_ENOUGH_DATA = "not enough data"

# Three networks are in perfect order by chance one time in six, and the resamples of perfect order have no width; four pairs fall
# to one side one time in eight, and Wilson's interval is then beyond a half. With ten pairs nine must, one time in fifty.
FEWEST_CONFIGURATIONS = 10


@dataclass(frozen=True)
class Claim:
    """
    One claim of the paper, tested on one survey.

    Parameters
    ----------
    number
        The number of the claim, 1 to 6, in the order of docs/definitions.md.
    subject
        The data set or the factor that this is about; empty for the claim as a whole.
    quantity
        The quantity that is tested: a column of the survey, or `boundaries`; empty where there is nothing to test.
    statement
        The claim, in a line.
    statistic
        Name of what was computed.
    value, low, high
        The statistic and the ends of its 95% interval; nan where they are undefined.
    method
        How the interval was made.
    threshold, side
        The claim says that the statistic is `above` or `below` the threshold; nan where nothing is computed.
    unit, count, configurations
        How many `networks` or `pairs` the statistic is over, and how many independent configurations they come from.
    seeds
        The seeds are independent instead, since they alone choose the points at which networks are measured: then
        `configurations` is their number.
    detail
        The other numbers behind the statistic.
    obstacle
        Why the claim cannot be tested whatever the interval; empty if it can be.
    """

    number: int
    subject: str
    quantity: str
    statement: str
    statistic: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    threshold: float = math.nan
    side: Literal["above", "below"] = "above"
    unit: str = ""
    count: int = 0
    configurations: int = 0
    seeds: bool = False
    detail: str = ""
    obstacle: str = ""

    @property
    def verdict(self) -> str:
        """
        `holds`, `does not hold` or `not enough data`.

        The first two only if the whole interval is on the one or the other side of the threshold, and from enough configurations.
        """
        if self.obstacle or self.configurations < FEWEST_CONFIGURATIONS:
            return NOT_ENOUGH_DATA
        above, below = self.low > self.threshold, self.high < self.threshold
        if not (above or below):
            return NOT_ENOUGH_DATA
        return HOLDS if above == (self.side == "above") else DOES_NOT_HOLD

    @property
    def reason(self) -> str:
        """The basis of the verdict, in a line; for `not enough data`, what is missing."""
        if self.obstacle:
            return self.obstacle
        clusters = "seeds" if self.seeds else "configurations"
        counted = _counted(self.count, self.unit)
        # Each network having its own seed goes without saying.
        if not (self.seeds and self.configurations == self.count):
            counted = f"{counted} of {_counted(self.configurations, clusters)}"
        if self.detail:
            counted = f"{counted}; {self.detail}"
        if self.configurations < FEWEST_CONFIGURATIONS:
            return f"{counted}; needs {FEWEST_CONFIGURATIONS} {clusters}"
        if not math.isfinite(self.low):
            return f"{counted}; undefined, since one of the quantities is the same for all"
        if self.verdict == NOT_ENOUGH_DATA:
            return f"{counted}; the interval includes the threshold"
        return counted

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, the verdict and the reason by name, as JSON takes them: None in place of nan."""
        fields = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(self).items()}
        # The reason has both.
        del fields["detail"], fields["obstacle"], fields["seeds"]
        return {"claim": fields.pop("number"), **fields, "verdict": self.verdict, "reason": self.reason}


def _counted(count: int, things: str) -> str:
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"
