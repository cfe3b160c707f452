"""The data sets: their files, shapes, counts, classes, and where its authors' files can be had, with their SHA-256."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ..errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set."""

    name: str  # path below the data set's folder; a name in `.gz` may also be there without it, unpacked
    holds: Literal["images", "labels", "records"]  # of an IDX file; records, a label and an image in turn, of a CIFAR file
    points: int  # images, labels or records in it
    # Where else it may lie, as torchvision or Kaggle has it: paths below the data set's folder, and, from `../`, below the root.
    elsewhere: tuple[str, ...] = ()


class Split(NamedTuple):
    """The files of a training or test set in the order of their points, of which the first `points` are used."""

    files: tuple[DataFile, ...]
    points: int


@dataclass(frozen=True, slots=True)
class Download:
    """One file to download."""

    name: str  # below each mirror
    size: int  # bytes
    sha256: str
    files: tuple[DataFile, ...]  # of the data set: itself, or the members of a `.tar.gz` that are unpacked

    @property
    def is_archive(self) -> bool:
        """Whether it has to be unpacked."""
        return self.name.endswith(".tar.gz")


@dataclass(frozen=True, slots=True)
class Source:
    """One data set; one that is part of a library has no files and no downloads."""

    name: str  # as in `load_dataset`; also its folder's name
    classes: int  # C; the labels are 0 to C - 1, and each occurs
    image_shape: tuple[int, int, int]  # (channels, height, width)
    train: Split
    test: Split
    downloads: tuple[Download, ...] = ()
    mirrors: tuple[str, ...] = ()  # each holds every download, and ends in a slash; tried in this order
    label_bytes: int = 1  # before each image in a CIFAR record; the last is the label
    class_names: tuple[str, ...] = ()  # by label; none where the number says it, or where there are many


def idx_elsewhere(name: str, torchvision: str) -> tuple[str, ...]:
    """
    Return where else the IDX file `name` may lie; `torchvision` is the folder that torchvision makes for the data set.

    Below the root it is looked for in that folder alone: MNIST and Fashion-MNIST have the same names of files.
    """
    stem = name.removesuffix(".gz")
    dotted = stem.replace("-idx", ".idx")
    places = [f"{torchvision}/raw/{stem}", f"../{torchvision}/raw/{stem}", dotted, f"{stem}/{stem}", f"{dotted}/{dotted}"]
    return tuple(f"{place}{ending}" for place in places for ending in (".gz", ""))


def records_elsewhere(name: str, python: str) -> tuple[str, ...]:
    """Return where else the CIFAR file `name` may lie, or the one of the same points for Python, in the folder `python`."""
    file = name.rpartition("/")[2]
    pickled = f"{python}/{file.removesuffix('.bin')}"
    return f"../{name}", file, pickled, f"../{pickled}", file.removesuffix(".bin")


# The four files of MNIST, whose names Fashion-MNIST took over.
_MNIST_FILES = (
    DataFile("train-images-idx3-ubyte.gz", "images", 60_000),
    DataFile("train-labels-idx1-ubyte.gz", "labels", 60_000),
    DataFile("t10k-images-idx3-ubyte.gz", "images", 10_000),
    DataFile("t10k-labels-idx1-ubyte.gz", "labels", 10_000),
)


def _mnist_like(
    name: str,
    torchvision: str,
    *published: tuple[int, str],
    mirrors: tuple[str, ...],
    class_names: tuple[str, ...] = (),
) -> Source:
    """Describe a data set that comes as MNIST does, from torchvision's name and the sizes and SHA-256 of its four files."""
    files = tuple(replace(file, elsewhere=idx_elsewhere(file.name, torchvision)) for file in _MNIST_FILES)
    return Source(
        name=name,
        classes=10,
        image_shape=(1, 28, 28),
        # 60,000 are shipped and the paper trained on 50,000 (A.5). Which ones it does not say: the first, as we read it.
        train=Split(files[:2], 50_000),
        test=Split(files[2:], 10_000),
        downloads=tuple(Download(file.name, *size_and_sum, (file,)) for file, size_and_sum in zip(files, published, strict=True)),
        mirrors=mirrors,
        class_names=class_names,
    )


def _cifar(
    name: str,
    classes: int,
    label_bytes: int,
    archive: tuple[str, int, str],
    python: str,
    *published: DataFile,
    class_names: tuple[str, ...] = (),
) -> Source:
    """
    Describe CIFAR10 or CIFAR100 from its archive's (name, size, SHA-256) and its files, of which the last is the test set.

    The folder `python` has the files of the version for Python.
    """
    files = tuple(replace(file, elsewhere=records_elsewhere(file.name, python)) for file in published)
    return Source(
        name=name,
        classes=classes,
        image_shape=(3, 32, 32),
        train=Split(files[:-1], 50_000),
        test=Split(files[-1:], 10_000),
        downloads=(Download(*archive, files),),
        # The authors' site at its old address, which forwards, and at its new one.
        mirrors=("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
        label_bytes=label_bytes,
        class_names=class_names,
    )


# Sizes and SHA-256 sums are those that TensorFlow Datasets recorded for the authors' files and checks each download against:
# github.com/tensorflow/datasets, tensorflow_datasets/url_checksums/{mnist,fashion_mnist,cifar10,cifar100}.txt.
_SOURCES = (
    # Part of scikit-learn: the test set of the UCI Optical Recognition of Handwritten Digits.
    Source(name="digits", classes=10, image_shape=(1, 8, 8), train=Split((), 1_297), test=Split((), 500)),
    _mnist_like(
        "mnist",
        "MNIST",
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        # The authors' own site, yann.lecun.com, refuses most downloads; these two keep its files.
        mirrors=("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    ),
    _mnist_like(
        "fashion-mnist",
        "FashionMNIST",
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        class_names=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    _cifar(
        "cifar10",
        10,
        1,
        ("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        "cifar-10-batches-py",
        *(DataFile(f"cifar-10-batches-bin/data_batch_{i}.bin", "records", 10_000) for i in range(1, 6)),
        DataFile("cifar-10-batches-bin/test_batch.bin", "records", 10_000),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    _cifar(
        "cifar100",
        100,
        2,  # the superclass, then the class
        ("cifar-100-binary.tar.gz", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
        "cifar-100-python",
        DataFile("cifar-100-binary/train.bin", "records", 50_000),
        DataFile("cifar-100-binary/test.bin", "records", 10_000),
    ),
)
SOURCES = {source.name: source for source in _SOURCES}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load_dataset` and `fetch_dataset` take."""
    return tuple(SOURCES)


def count_classes(dataset: str, specification: Callable[[], str]) -> int:
    """Return the classes of a data set of a survey; those of data of one's own are in the text of the survey's specification."""
    if dataset in SOURCES:
        return SOURCES[dataset].classes
    return int(tomllib.loads(specification())["data"]["classes"])


def find_source(name: str) -> Source:
    """Return the source of the data set `name`; InvalidInputError for any other name."""
    if not isinstance(name, str) or name not in SOURCES:
        raise InvalidInputError(f"the data set must be one of {', '.join(SOURCES)}; got {name!r}")
    return SOURCES[name]
