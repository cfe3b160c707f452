"""A data set: its points, their labels, and the ways to make one of data of one's own."""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError, counted, dimensions
from .arrays import Arrays, check_arrays, read_loader
from .transforms import Normalisation, Raw

if TYPE_CHECKING:
    import torch

# Used where a Dataset of one's own is made and nothing is said.
NAME, NORMALISE = "data", "none"


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """
    The points of a training or of a test set.

    Parameters
    ----------
    x
        float32 `[N, D]`, as the network takes them; D of an image runs over channel, row, column.
    y
        int64 `[N]`, the classes, from 0, or -1 for points without a label; of a regression the targets, float32 `[N]` or `[N,
        K]`.
    raw
        The numbers before the normalisation, uint8 or float32 `[N, D]`; None if they are not kept.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"
    raw: "torch.Tensor | None" = None

    def __repr__(self) -> str:
        return f"Points({counted(len(self.y), 'point')} of {counted(self.x.shape[1], 'input')})"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """
    A data set, ready to measure on, and, with training points and classes, to train on.

    Make one with `from_arrays`, `from_loader`, `from_folder` or `from_file`, or take a known one with `load_dataset`.

    Parameters
    ----------
    name
        As in `load_dataset`, or any other.
    train, test
        The two sets of points; `train` has none where there are none.
    classes
        Number of classes, C; 0 for a regression, and for data without labels whose classes nobody gave.
    shape
        Shape of a point as the model takes it, such as (channels, height, width), after the crop: `x.view(-1, *dataset.shape)`.
    normalise
        The normalisation of the points: `sphere`, `none` or MEAN/STD, see `renormalised`.
    class_names
        By class; empty if they have no names.
    notes
        Decisions made in reading the data that the reader should know, a line each.
    files
        Where the test points of a folder of images come from, a path each; empty for other data.
    """

    name: str
    train: Points
    test: Points
    classes: int
    shape: tuple[int, ...]
    normalise: str = NORMALISE
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __repr__(self) -> str:
        points = f"{len(self.train.y):,} train and {len(self.test.y):,} test points"
        kind = f"{self.classes} classes" if self.classes else "regression" if self.is_regression else "no labels"
        return f"Dataset({self.name}, {points}, {dimensions(self.shape)}, {kind}, {self.normalise})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The (channels, height, width) of a point; InvalidInputError if the points are no images."""
        if len(self.shape) != 3:
            raise InvalidInputError(
                f"the points of {self.name} must be images [channels, height, width] for this; "
                f"they are [{dimensions(self.shape)}]"
            )
        channels, height, width = self.shape
        return channels, height, width

    @property
    def has_labels(self) -> bool:
        """Whether each test point has a class."""
        return not self.is_regression and bool((self.test.y >= 0).all())

    @property
    def is_regression(self) -> bool:
        """Whether the test points have floats for labels, the targets of a regression."""
        return self.test.y.is_floating_point()

    def renormalised(self, how: str) -> "Dataset":
        """
        Return the same data, normalised in another way from the same raw numbers.

        Parameters
        ----------
        how
            `none`: pixels that came as uint8 divided by 255, so that they are in [0, 1], and floats as they came. `MEAN/STD`:
            then the mean subtracted and divided by the deviation, such as `0.1307/0.3081`, or, with one number per channel,
            `0.4914,0.4822,0.4465/0.247,0.2435,0.2616`. `sphere`: each point brought to zero mean and unit variance over its own
            numbers, so that its norm is the square root of their number (paper, A.5).

        Raises
        ------
        InvalidInputError
            It is none of these, does not go with the shape, or the raw numbers were not kept.
        """
        chosen = Normalisation.parse(how)
        parts = []
        for points in (self.train, self.test):
            raw = points.x if points.raw is None and self.normalise == "none" else points.raw
            if raw is None:
                raise InvalidInputError(
                    f"normalise must be {self.normalise} for {self.name}, whose raw numbers were not kept; got {how!r}"
                )
            parts.append(_normalised(raw.detach().cpu().numpy(), points.y, chosen, self.shape))
        return replace(self, train=parts[0], test=parts[1], normalise=chosen.text)

    def without_raw(self) -> "Dataset":
        """Return the same data without the raw numbers, which take memory; they cannot be normalised in another way then."""
        train, test = (replace(points, raw=None) for points in (self.train, self.test))
        return replace(self, train=train, test=test)

    @classmethod
    def from_arrays(
        cls,
        x_test: Any,
        y_test: Any = None,
        x_train: Any = None,
        y_train: Any = None,
        *,
        name: str = NAME,
        classes: int | None = None,
        normalise: str = NORMALISE,
    ) -> "Dataset":
        """
        Make a data set of tensors or arrays.

        Parameters
        ----------
        x_test, x_train
            Points `[N, ...]`, which are copied. Floats of any precision become float32. Pixels as uint8 become [0, 1], of images
            `[N, channels, height, width]`; `[N, height, width]` is taken as one channel, and `[N, height, width, channels]`,
            where it cannot be mistaken, is transposed, which `notes` says. Points to measure on are `x_test`; none need be there
            to train on.
        y_test, y_train
            Classes, whole numbers or booleans `[N]` or `[N, 1]`, from 0. Floats are targets of a regression, `[N]` or `[N, K]`,
            even if they are whole numbers. None: no labels.
        name
            Name of the data.
        classes
            Number of classes; the largest label plus 1 when None.
        normalise
            See `renormalised`.

        Raises
        ------
        InvalidInputError
            A number is nan or infinite, a label is out of range, or the arrays do not go together.

        Examples
        --------
        >>> import numpy as np
        >>> Dataset.from_arrays(np.zeros((5, 3, 8, 8), dtype=np.uint8), [0, 1, 2, 1, 0])
        Dataset(data, 0 train and 5 test points, 3 x 8 x 8, 3 classes, none)
        """
        return make_dataset(check_arrays(x_test, y_test, x_train, y_train, name=name, classes=classes), normalise)

    @classmethod
    def from_loader(
        cls,
        loader: Iterable[Any],
        train_loader: Iterable[Any] | None = None,
        *,
        name: str = NAME,
        classes: int | None = None,
        normalise: str = NORMALISE,
    ) -> "Dataset":
        """
        Make a data set of the batches of a `DataLoader`, transformed as they come, in its order.

        A loader with `drop_last` gives fewer points than its data have.

        Parameters
        ----------
        loader, train_loader
            Iterables of batches: points `[n, ...]`, pairs (points, labels), or dictionaries with points under `pixel_values`,
            `x`, `input`, `inputs`, `image` or `images` and labels under `labels`, `label`, `y`, `target` or `targets`. The first
            has the points to measure on, the second those to train on.
        name, classes, normalise
            As in `from_arrays`.

        Raises
        ------
        InvalidInputError
            As in `from_arrays`, or a batch is none of these, or does not go with those before it.
        """
        Normalisation.parse(normalise)
        x, y = read_loader("loader", loader)
        train_x, train_y = (None, None) if train_loader is None else read_loader("train_loader", train_loader)
        return make_dataset(check_arrays(x, y, train_x, train_y, name=name, classes=classes), normalise)

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        size: int | None = None,
        name: str | None = None,
        normalise: str = NORMALISE,
    ) -> "Dataset":
        """
        Make a data set of a folder of images: PNG, JPEG, BMP, PPM, TIFF or WebP.

        They lie in `test/CLASS/` and `train/CLASS/` (`val/` is taken where there is no `test/`); or in `CLASS/`, and all are
        test points; or in the folder itself, and have no labels. The classes are the names of the folders of both sets, in the
        order of their characters, as torchvision's `ImageFolder` has them: "10" comes before "2". The images of a class may lie
        in folders below it, and are in the order of their paths. Hidden files are passed over.

        All images become grey, of one channel, if all are; otherwise all become RGB, and grey ones get three equal channels. An
        opaque alpha channel is left out. The orientation that cameras note in JPEG files is ignored, as `ImageFolder` does.

        Parameters
        ----------
        path
            The folder.
        size
            Images of other sizes are cut to their centre square and scaled to `size` x `size`, bilinearly. None: all images must
            be of one size.
        name
            The folder's when None.
        normalise
            As in `from_arrays`.

        Raises
        ------
        DataError
            There are no images, one cannot be read, is transparent or of more than 8 bits a channel, or sizes differ. The message
            names the file.
        InvalidInputError
            `size` or `normalise` is none.
        """
        from .folders import read_folder

        Normalisation.parse(normalise)
        return make_dataset(read_folder(Path(path), size=size, name=name), normalise)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        classes: int | None = None,
        normalise: str = NORMALISE,
    ) -> "Dataset":
        """
        Make a data set of an `.npz` file, as `numpy.savez` writes it; nothing in it is unpickled.

        Parameters
        ----------
        path
            The file, with `x_test`, `y_test`, `x_train` and `y_train`, or the test set alone as `x` and `y`. What each may be
            says `from_arrays`; all but `x_test` or `x` may be left out.
        name
            The file's, without its ending, when None.
        classes, normalise
            As in `from_arrays`.

        Raises
        ------
        DataError
            The file is missing, damaged, or holds something else.
        InvalidInputError
            `name`, `classes` or `normalise` is none.
        """
        from .archives import read_archive

        Normalisation.parse(normalise)
        return make_dataset(read_archive(Path(path), name=name, classes=classes), normalise)


def make_dataset(arrays: Arrays, normalise: str) -> Dataset:
    """Return the data set that the arrays hold, normalised."""
    # Listing and fetching data sets import this module too, and need no torch.
    import torch

    chosen = Normalisation.parse(normalise)
    inputs = math.prod(arrays.shape)
    train, test = (
        _normalised(part.x.reshape(len(part.x), inputs), torch.from_numpy(part.y), chosen, arrays.shape)
        for part in (arrays.train, arrays.test)
    )
    about = {"class_names": arrays.class_names, "notes": arrays.notes, "files": arrays.files}
    return Dataset(arrays.name, train, test, arrays.classes, arrays.shape, chosen.text, **about)


def _normalised(raw: Raw, y: "torch.Tensor", normalisation: Normalisation, shape: tuple[int, ...]) -> Points:
    """Return points from their raw numbers `[N, D]`."""
    import torch

    x = normalisation.apply(raw, shape)
    if not np.isfinite(x).all():
        point = int(np.isfinite(x).all(axis=1).argmin())
        raise InvalidInputError(
            f"normalise must keep the points finite; {normalisation.text} makes point {point} overflow float32"
        )
    return Points(torch.from_numpy(x), y, torch.from_numpy(raw))
