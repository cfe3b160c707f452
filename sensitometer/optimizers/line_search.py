"""The line search of L-BFGS: a step that satisfies the strong Wolfe conditions."""

import math
from collections.abc import Generator
from dataclasses import dataclass

# Nocedal and Wright, 3.1: the shares of the slope that the decrease must reach, and that the new slope must not exceed.
SUFFICIENT_DECREASE = 1e-4
CURVATURE = 0.9
MOST_TRIALS = 25


@dataclass(frozen=True)
class _Trial:
    """A step, and the loss and its slope along the direction there."""

    step: float
    value: float
    slope: float


Answer = tuple[float, float]


def strong_wolfe(value: float, slope: float, step: float, curvature: float = CURVATURE) -> Generator[float, Answer, bool]:
    r"""
    Search along a direction of descent (Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 3.5 and 3.6).

    From `value` $f(0)$, `slope` $f'(0) < 0$ and the first `step` to try, it yields steps $a$, and is sent the pair
    $(f(a), f'(a))$ for each. It ends at a step that satisfies $f(a) \le f(0) + c_1 a f'(0)$ and $|f'(a)| \le c_2 |f'(0)|$, where
    $c_2$ is `curvature`. It returns whether the loss at the last step that was yielded satisfies the first condition. The second
    is given up after MOST_TRIALS trials or where rounding hides the loss's changes.
    """
    start = previous = _Trial(0.0, value, slope)
    for trials in range(MOST_TRIALS):
        trial = _Trial(step, *(yield step))
        if _too_high(trial, start) or (trials > 0 and trial.value >= previous.value):
            return (yield from _zoom(previous, trial, start, curvature, MOST_TRIALS - 1 - trials))
        if abs(trial.slope) <= -curvature * slope:
            return True
        if trial.slope >= 0:
            return (yield from _zoom(trial, previous, start, curvature, MOST_TRIALS - 1 - trials))
        # Between just beyond the trial and ten times as far.
        step = _minimiser(previous, trial, trial.step + 0.01 * (trial.step - previous.step), 10 * trial.step)
        previous = trial
    return True


def _zoom(low: _Trial, high: _Trial, start: _Trial, curvature: float, trials: int) -> Generator[float, Answer, bool]:
    """Search between two steps, of which `low` has the lower loss and satisfies the first condition."""
    last = None
    for _ in range(trials):
        width = high.step - low.step
        if abs(width) <= 1e-9 * max(low.step, high.step):
            break
        ends = sorted((low.step + 0.1 * width, low.step + 0.9 * width))
        step = _minimiser(low, high, *ends)
        last = _Trial(step, *(yield step))
        if _too_high(last, start) or last.value >= low.value:
            high = last
            continue
        if abs(last.slope) <= -curvature * start.slope:
            return True
        if last.slope * width >= 0:
            high = low
        low = last
    if low.step == 0:
        return False
    if last is not low:
        yield low.step  # back to the best step: the caller takes the last one yielded
    return True


def _too_high(trial: _Trial, start: _Trial) -> bool:
    # A loss that is not a number compares as false.
    return not trial.value <= start.value + SUFFICIENT_DECREASE * trial.step * start.slope


def _minimiser(a: _Trial, b: _Trial, least: float, most: float) -> float:
    """Return the minimiser of the cubic through two trials (Nocedal and Wright, 3.59) within bounds; else their middle."""
    if not (math.isfinite(b.value) and math.isfinite(b.slope)):
        return least + (most - least) / 8 if a.step < b.step else most - (most - least) / 8
    d = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    square = d * d - a.slope * b.slope
    if not 0 <= square < math.inf:  # no minimum, or a slope at `a` that is not a number
        return (least + most) / 2
    root = math.copysign(math.sqrt(square), b.step - a.step)
    under = b.slope - a.slope + 2 * root
    if under == 0:
        return (least + most) / 2
    step = b.step - (b.step - a.step) * (b.slope + root - d) / under
    return min(max(step, least), most)
