"""Measures a model while it trains, from within anybody's training loop, and leaves no trace in it."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..errors import InvalidInputError, UnseenError, check_whole_number, counted
from ..measures import jacobian_norm, local_complexity, transitions
from ..models.adapting import unwrapped
from ..networks import MLPStack
from ..paths import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Points of a path along which transitions are sampled, where they cannot be counted exactly.
SAMPLES = 2**14
# Points on which a model is tried at the beginning.
TRIED = 2
# The columns that are measured, in the order of the panels of `plot`.
QUANTITIES = ("jacobian_norm", "local_complexity", "transitions")


class Monitor:
    """
    Records how sensitive a model is while it trains: call it after each optimizer step.

    Every `every` steps it measures the model in evaluation mode at the same points: the mean Jacobian norm, the mean local
    complexity, and the transitions along a path. Mode, gradients, buffers and torch's random state are as before afterwards, and
    autocast does not reach the measures: a monitored training ends with the same weights as one that is not monitored.

    Parameters
    ----------
    model
        The model in training: an `MLP`, or any module or callable that maps points `[n, ...]` to logits `[n, C]`. A compiled or
        data-parallel module is measured as the module inside. A callable that is no module must itself switch to evaluation mode.
    x
        The points `[N, ...]`, as the model takes them; they are copied, and follow the model to its device. 100 test points are
        enough for a mean within some percent.
    every
        The number of steps from one record to the next. A record is made at the first step that reaches a multiple of it.
    path
        A `Polyline` or an `Ellipse` of such points, along which transitions are counted: exactly, if the model is piecewise
        linear, else at 16,384 samples. Which of the two is decided once, now. None: none are.
    of, output
        As in `jacobian_norm`: `probabilities`, `logits`, `sigmoid`, or `outputs`, such as those of a regression;
        and the name or the place of the output, of a model that returns several.

    Attributes
    ----------
    method
        `exact` or `sampled`, of the transitions; None without a path.
    reasons
        Quantities measured otherwise, and why: `transitions` if they are sampled, `local_complexity` if the model has no
        activation whose boundaries are known. The latter is not recorded then, and a warning says so.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> import torch
    >>> import sensitometer as sm
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(200, 8), torch.randint(3, (200,))
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(32, 3))
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    >>> monitor = sm.Monitor(model, x[:50], every=20, path=sm.paths.Polyline(x[:3]))
    >>> for step in range(1, 101):
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.cross_entropy(model(x), y).backward()
    ...     optimizer.step()
    ...     monitor(step)
    >>> monitor.frame()["step"].tolist()
    [20, 40, 60, 80, 100]
    """

    def __init__(
        self,
        model: Callable[..., Any],
        x: Tensor,
        *,
        every: int = 100,
        path: Path | None = None,
        of: str = "probabilities",
        output: str | int | None = None,
    ) -> None:
        model = unwrapped(model)
        if isinstance(model, MLPStack):
            raise InvalidInputError("model must be one network; got an MLPStack: monitor its networks one by one, stack[i]")
        if path is not None and not isinstance(path, Path):
            raise InvalidInputError(f"path must be a Polyline, an Ellipse or None; got {type(path).__name__}")
        if not isinstance(x, Tensor):
            raise InvalidInputError(f"x must be a tensor of points [N, ...]; got {type(x).__name__}")
        self.every = check_whole_number("every", every)
        self.reasons: dict[str, str] = {}
        self.method: str | None = None if path is None else "exact"
        self._model, self._x, self._path, self._of = model, x.detach().clone(), path, of
        self._output = output
        self._records: list[dict[str, float]] = []
        self._step = self._due = -1
        self._first_call, self._last_call, self._inside = math.nan, math.nan, 0.0
        with _undisturbed(self._model, self._x):
            self._try()

    def _try(self) -> None:
        """Find what can be measured, or raise InvalidInputError."""
        x = self._points()[:TRIED]
        jacobian_norm(self._model, x, of=self._of, output=self._output)
        try:
            local_complexity(self._model, x, output=self._output)
        except UnseenError as error:
            self.reasons["local_complexity"] = str(error)
            warnings.warn(f"local complexity is not recorded: {error}", stacklevel=3)
        if self._path is not None:
            try:
                transitions(self._model, self._path)
            except InvalidInputError as error:
                self.method, self.reasons["transitions"] = "sampled", str(error)
                transitions(self._model, self._path, method="sampled", samples=2)

    def __call__(self, step: int | None = None) -> None:
        """
        Take note of an optimizer step, and measure the model if a record is due.

        Parameters
        ----------
        step
            The number of steps done, rising from call to call. Call it with 0 before the first step to record the model as it
            was initialised. None: one more than before, from 1.

        Raises
        ------
        InvalidInputError
            `step` is no whole number, or not above the last one.
        """
        start = time.perf_counter()
        if math.isnan(self._first_call):
            self._first_call = start
        before = self._step
        step = max(before, 0) + 1 if step is None else check_whole_number("step", step, least=0)
        if step <= before:
            raise InvalidInputError(f"step must rise from call to call; got {step} after {before}: count on across epochs")
        self._step = step
        if self._due < 0:
            self._due = -(-step // self.every) * self.every
        if step >= self._due:
            self._due = (step // self.every + 1) * self.every
            if torch.cuda.is_available() and self._points().is_cuda:
                # The training's own work that is still under way is not the monitor's.
                torch.cuda.synchronize()
                start = time.perf_counter()
            with _undisturbed(self._model, self._x):
                record = self._measured()
            self._records.append({"step": step, **record, "seconds": time.perf_counter() - start})
        self._last_call = time.perf_counter()
        self._inside += self._last_call - start

    def _points(self) -> Tensor:
        """Return the points on the model's device."""
        tensor = next(_numbers(self._model), self._x)
        self._x = self._x.to(tensor.device)
        return self._x

    def _measured(self) -> dict[str, float]:
        """Return the columns of a record; nan, all of them, where the training has diverged."""
        norms, count = None, math.nan
        complexities: Tensor | None = None
        if all(bool(tensor.isfinite().all()) for tensor in _numbers(self._model)):
            with warnings.catch_warnings():
                # The beginning said that a copy is measured.
                warnings.filterwarnings("ignore", "the model is measured in a float32 copy")
                norms = jacobian_norm(self._model, self._points(), of=self._of, output=self._output)
            if norms.isfinite().all():
                if "local_complexity" not in self.reasons:
                    complexities = local_complexity(self._model, self._points(), output=self._output)
                if self._path is not None and self.method is not None:
                    count = int(transitions(self._model, self._path, method=self.method, samples=SAMPLES).total)
        columns = _mean("jacobian_norm", norms)
        if "local_complexity" not in self.reasons:
            columns |= _mean("local_complexity", complexities)
        return columns if self._path is None else columns | {"transitions": count}

    @property
    def share(self) -> float:
        """The share of the loop's time that the monitor took, from the first call to the last; nan before there are two."""
        elapsed = self._last_call - self._first_call
        return self._inside / elapsed if elapsed > self._inside > 0 else math.nan

    def frame(self) -> pd.DataFrame:
        """
        Return one row per record.

        Its columns are `step`; `jacobian_norm` and `local_complexity`, means over the points, with their standard errors
        `jacobian_norm_sem` and `local_complexity_sem`; `transitions`, if there is a path; and the `seconds` that the record took.
        The measures are nan where the training has diverged.
        """
        names = ["jacobian_norm", "jacobian_norm_sem"]
        if "local_complexity" not in self.reasons:
            names += ["local_complexity", "local_complexity_sem"]
        names += [] if self._path is None else ["transitions"]
        columns = {"step": "int64"} | dict.fromkeys([*names, "seconds"], "float64")
        return pd.DataFrame(self._records, columns=list(columns)).astype(columns)

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "list[Axes]":
        """
        Draw each quantity against the step, with a band of one standard error; one axes per quantity, which are returned.

        Parameters
        ----------
        axes
            One for each quantity recorded, in the order of the frame; None: a new figure.

        Raises
        ------
        InvalidInputError
            There are no records yet, or other axes than quantities.
        """
        from .. import plot

        frame = self.frame()
        if frame.empty:
            raise InvalidInputError(f"there is no record to plot yet: the first comes {self.every} steps after the beginning")
        details = {
            "jacobian_norm": f"mean over {counted(len(self._x), 'point')}, ± one standard error",
            "local_complexity": f"mean over {counted(len(self._x), 'point')}, ± one standard error",
            "transitions": "exact" if self.method == "exact" else f"at {SAMPLES:,} samples",
        }
        return plot.records(frame, {name: details[name] for name in QUANTITIES if name in frame}, axes=axes)

    def __repr__(self) -> str:
        share = "" if math.isnan(self.share) else f", {self.share:.0%} of the time"
        records = counted(len(self._records), "record")
        return f"Monitor({counted(len(self._x), 'point')}, every {counted(self.every, 'step')}, {records}{share})"


def _mean(name: str, values: Tensor | None) -> dict[str, float]:
    """Return the mean over points and its standard error, by the names of their columns; nan where there are no values."""
    if values is None:
        return {name: math.nan, f"{name}_sem": math.nan}
    values = values.double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {name: float(values.mean()), f"{name}_sem": error}


def _numbers(model: Any) -> Iterator[Tensor]:
    """Yield the floating-point parameters and buffers of a module; nothing of another callable."""
    tensors = chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else ()
    return (tensor for tensor in tensors if tensor.is_floating_point())


@contextlib.contextmanager
def _undisturbed(model: Any, x: Tensor) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards have each module's mode, its buffers and the random state as before."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {x.device, *(tensor.device for tensor in _numbers(model))}
    cuda = sorted({device.index for device in devices if device.type == "cuda"})
    with contextlib.ExitStack() as stack, torch.random.fork_rng(cuda), torch.inference_mode(False):
        for name in {device.type for device in devices}:
            stack.enter_context(torch.autocast(name, enabled=False))
        try:
            _set_mode(model, modes, False)
            yield
        finally:
            _set_mode(model, modes[:1], True)
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            with torch.no_grad():
                for module, name, buffer, values in buffers:
                    module._buffers[name] = buffer
                    if not torch.equal(buffer, values):
                        buffer.copy_(values)


def _set_mode(model: Any, modes: Sequence[bool], training: bool) -> None:
    """Put a model into a mode if any of `modes` is training; by its method, which a module may have made do more than that."""
    if any(modes):
        # An exported module keeps the mode in which it was exported.
        with contextlib.suppress(NotImplementedError):
            model.train(training)
