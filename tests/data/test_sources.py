import re

import pytest

from sensitometer.data.sources import SOURCES, dataset_names, find_source
from sensitometer.errors import InvalidInputError


def test_names():
    assert dataset_names() == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")
    assert all(find_source(name).name == name for name in dataset_names())


@pytest.mark.parametrize("name", ["MNIST", "", "imagenet", None, ["mnist"]])
def test_unknown_name_is_refused_with_the_names_there_are(name):
    with pytest.raises(InvalidInputError, match=r"one of digits, mnist, fashion-mnist, cifar10, cifar100; got"):
        find_source(name)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_downloads_bring_every_file_once_and_can_be_checked(source):
    files = [file for split in (source.train, source.test) for file in split.files]
    assert sorted(file.name for download in source.downloads for file in download.files) == sorted(file.name for file in files)
    assert all(re.fullmatch("[0-9a-f]{64}", download.sha256) for download in source.downloads)
    assert all(mirror.endswith("/") for mirror in source.mirrors)
    assert len(source.mirrors) == (2 if files else 0)


@pytest.mark.parametrize("source", [s for s in SOURCES.values() if s.train.files], ids=lambda source: source.name)
def test_counts_are_the_papers(source):
    assert (source.train.points, source.test.points) == (50_000, 10_000)
    for split, shipped in ((source.train, 60_000 if "mnist" in source.name else 50_000), (source.test, 10_000)):
        for kinds in ({"images", "records"}, {"labels", "records"}):
            assert sum(file.points for file in split.files if file.holds in kinds) == shipped
