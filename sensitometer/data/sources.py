"""The data sets: their files, shapes, counts, classes, and where its authors' files can be had, with their SHA-256."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class DataFile:
    """
    One file of a data set.

    Parameters
    ----------
    name
        Path below the data set's folder. A name in `.gz` may also be there without it, unpacked.
    holds
        `images` or `labels` for an IDX file; `records`, a label and an image in turn, for a CIFAR binary file.
    points
        How many images, labels or records are in it.
    """

    name: str
    holds: Literal["images", "labels", "records"]
    points: int

    @property
    def names(self) -> tuple[str, ...]:
        """Where the file may be below the data set's folder: as it is published first, then unpacked."""
        return self.name, self.name.removesuffix(".gz")


@dataclass(frozen=True, slots=True)
class Split:
    """The files of a training or test set in the order of their points, of which the first `points` are used."""

    files: tuple[DataFile, ...]
    points: int


@dataclass(frozen=True, slots=True)
class Download:
    """
    One file to download.

    Parameters
    ----------
    name
        File name, below each mirror.
    size
        Bytes.
    sha256
        Checksum, 64 hexadecimal digits.
    files
        The files of the data set that it brings: itself, or, for a `.tar.gz`, the members that are unpacked.
    """

    name: str
    size: int
    sha256: str
    files: tuple[DataFile, ...]

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return self.name.endswith(".tar.gz")


@dataclass(frozen=True, slots=True)
class Source:
    """
    One data set.

    Parameters
    ----------
    name
        As in `load_dataset`; also its folder's name.
    classes
        Number of classes; the labels are 0 to `classes - 1`, and each occurs.
    image_shape
        (channels, height, width).
    train, test
        The two sets; those of a data set that is part of a library have no files.
    downloads
        The files that `fetch_dataset` downloads; nothing for a data set that is part of a library.
    mirrors
        Addresses that each hold every download, tried in this order; each ends in a slash.
    label_bytes
        Bytes before each image in a CIFAR record; the last is the label.
    """

    name: str
    classes: int
    image_shape: tuple[int, int, int]
    train: Split
    test: Split
    downloads: tuple[Download, ...] = ()
    mirrors: tuple[str, ...] = ()
    label_bytes: int = 1


# The four files of MNIST, whose names Fashion-MNIST took over.
_TRAIN_IMAGES = DataFile("train-images-idx3-ubyte.gz", "images", 60_000)
_TRAIN_LABELS = DataFile("train-labels-idx1-ubyte.gz", "labels", 60_000)
_TEST_IMAGES = DataFile("t10k-images-idx3-ubyte.gz", "images", 10_000)
_TEST_LABELS = DataFile("t10k-labels-idx1-ubyte.gz", "labels", 10_000)


def _mnist_like(name: str, published: Iterable[tuple[DataFile, int, str]], mirrors: tuple[str, ...]) -> Source:
    """Describe a data set that comes as MNIST does, from (file, bytes, SHA-256) of its four files."""
    return Source(
        name=name,
        classes=10,
        image_shape=(1, 28, 28),
        # 60,000 are shipped and the paper trained on 50,000 (A.5). Which ones it does not say: the first, as we read it.
        train=Split((_TRAIN_IMAGES, _TRAIN_LABELS), 50_000),
        test=Split((_TEST_IMAGES, _TEST_LABELS), 10_000),
        downloads=tuple(Download(file.name, size, sha256, (file,)) for file, size, sha256 in published),
        mirrors=mirrors,
    )


def _cifar(
    name: str, classes: int, label_bytes: int, train: tuple[DataFile, ...], test: DataFile, archive: tuple[str, int, str]
) -> Source:
    """Describe CIFAR10 or CIFAR100 from its files and its archive's (name, bytes, SHA-256)."""
    return Source(
        name=name,
        classes=classes,
        image_shape=(3, 32, 32),
        train=Split(train, 50_000),
        test=Split((test,), 10_000),
        downloads=(Download(*archive, (*train, test)),),
        # The authors' site at its old address, which forwards, and at its new one.
        mirrors=("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        label_bytes=label_bytes,
    )


# Sizes and SHA-256 sums are those that TensorFlow Datasets recorded for the authors' files and checks each download against:
# github.com/tensorflow/datasets, tensorflow_datasets/url_checksums/{mnist,fashion_mnist,cifar10,cifar100}.txt.
_SOURCES = (
    # Part of scikit-learn: the test set of the UCI Optical Recognition of Handwritten Digits.
    Source(name="digits", classes=10, image_shape=(1, 8, 8), train=Split((), 1_297), test=Split((), 500)),
    _mnist_like(
        "mnist",
        (
            (_TRAIN_IMAGES, 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (_TRAIN_LABELS, 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (_TEST_IMAGES, 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (_TEST_LABELS, 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        # The authors' own site, yann.lecun.com, refuses most downloads; these two keep its files.
        ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    ),
    _mnist_like(
        "fashion-mnist",
        (
            (_TRAIN_IMAGES, 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (_TRAIN_LABELS, 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (_TEST_IMAGES, 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (_TEST_LABELS, 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    _cifar(
        "cifar10",
        classes=10,
        label_bytes=1,
        train=tuple(DataFile(f"cifar-10-batches-bin/data_batch_{i}.bin", "records", 10_000) for i in range(1, 6)),
        test=DataFile("cifar-10-batches-bin/test_batch.bin", "records", 10_000),
        archive=("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    ),
    _cifar(
        "cifar100",
        classes=100,
        label_bytes=2,  # the superclass, then the class
        train=(DataFile("cifar-100-binary/train.bin", "records", 50_000),),
        test=DataFile("cifar-100-binary/test.bin", "records", 10_000),
        archive=("cifar-100-binary.tar.gz", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
    ),
)
SOURCES = {source.name: source for source in _SOURCES}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load_dataset` and `fetch_dataset` take."""
    return tuple(SOURCES)


def find_source(name: str) -> Source:
    """Return what is known of the data set `name`; raise `InvalidInputError` for any other name."""
    if not isinstance(name, str) or name not in SOURCES:
        raise InvalidInputError(f"the data set must be one of {', '.join(SOURCES)}; got {name!r}")
    return SOURCES[name]
