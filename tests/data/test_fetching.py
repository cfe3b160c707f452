import dataclasses
import gzip
import hashlib
import re
import socket
import time

import numpy as np
import pytest

from sensitometer.data import load_dataset
from sensitometer.data.fetching import fetch_dataset
from sensitometer.data.sources import SOURCES
from sensitometer.errors import DataError, InvalidInputError

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fails(expected):
    """The error's one line, which has to match the regular expression."""
    return pytest.raises(DataError, match=rf"\A[^\n]*{expected}[^\n]*\Z")


@pytest.fixture
def dead_mirror():
    """An address on this machine where nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}/files/"


def test_fetch_brings_a_data_set_that_loads(any_mini, mirror, monkeypatch, capfd):
    mirror.serve(any_mini, monkeypatch)
    fetched = fetch_dataset(any_mini.source.name, root=any_mini.root)
    assert fetched.folder == any_mini.folder
    assert fetched.downloaded == tuple(any_mini.published)
    assert files_below(any_mini.root.parent) == {f"data/{any_mini.source.name}/{name}" for name in any_mini.contents}
    for name, content in any_mini.contents.items():
        assert (any_mini.folder / name).read_bytes() == content
    dataset = load_dataset(any_mini.source.name, root=any_mini.root)
    np.testing.assert_array_equal(dataset.train.y.numpy(), any_mini.train[1])
    assert capfd.readouterr() == ("", "")


def test_files_have_the_usual_permissions(any_mini, mirror, monkeypatch, tmp_path):
    mirror.serve(any_mini, monkeypatch)
    fetch_dataset(any_mini.source.name, root=any_mini.root)
    (tmp_path / "usual").touch()
    for name in any_mini.contents:
        assert (any_mini.folder / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_sound_data_set_is_left_alone(any_mini, mirror, monkeypatch):
    any_mini.write()
    mirror.serve(any_mini, monkeypatch)
    assert fetch_dataset(any_mini.source.name, root=any_mini.root).downloaded == ()
    assert mirror.requests == []


def test_unpacked_files_are_sound_too(mnist, mirror, monkeypatch):
    mirror.serve(mnist, monkeypatch)
    (mnist.folder / TRAIN_IMAGES).unlink()
    (mnist.folder / TRAIN_IMAGES.removesuffix(".gz")).write_bytes(gzip.decompress(mnist.contents[TRAIN_IMAGES]))
    assert fetch_dataset("mnist", root=mnist.root).downloaded == ()


def test_only_what_is_missing_or_damaged_is_downloaded(mnist, mirror, monkeypatch):
    mirror.serve(mnist, monkeypatch)
    (mnist.folder / TRAIN_IMAGES).unlink()
    (mnist.folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    fetched = fetch_dataset("mnist", root=mnist.root)
    assert fetched.downloaded == (TRAIN_IMAGES, "t10k-labels-idx1-ubyte.gz")
    assert mirror.requests == list(fetched.downloaded)
    assert load_dataset("mnist", root=mnist.root).test.y.tolist() == mnist.test[1].tolist()


def test_damaged_unpacked_file_gives_way_to_the_published_one(mnist, mirror, monkeypatch):
    mirror.serve(mnist, monkeypatch)
    (mnist.folder / TRAIN_IMAGES).unlink()
    (mnist.folder / TRAIN_IMAGES.removesuffix(".gz")).write_bytes(b"damaged")
    assert fetch_dataset("mnist", root=mnist.root).downloaded == (TRAIN_IMAGES,)
    load_dataset("mnist", root=mnist.root)


def test_second_mirror_serves_when_the_first_is_dead(any_mini, mirror, dead_mirror, monkeypatch):
    mirror.serve(any_mini, monkeypatch, mirrors=(dead_mirror, mirror.url))
    assert fetch_dataset(any_mini.source.name, root=any_mini.root).downloaded == tuple(any_mini.published)


@pytest.mark.parametrize("fault", ["truncated", "altered", "missing"])
def test_failed_transfer_is_tried_again(any_mini, mirror, monkeypatch, fault):
    mirror.serve(any_mini, monkeypatch)
    first = next(iter(any_mini.published))
    mirror.faults[first] = [fault]
    assert fetch_dataset(any_mini.source.name, root=any_mini.root).downloaded == tuple(any_mini.published)
    assert mirror.requests[:2] == [first, first]
    load_dataset(any_mini.source.name, root=any_mini.root)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("truncated", "(IncompleteRead|ProtocolError|wrong SHA-256)"), ("altered", "wrong SHA-256"), ("missing", "HTTP 404")],
)
def test_nothing_is_left_when_no_transfer_succeeds(any_mini, mirror, monkeypatch, capfd, fault, reason):
    mirror.serve(any_mini, monkeypatch)
    first = next(iter(any_mini.published))
    mirror.faults[first] = [fault] * 9
    with fails(rf"{first} of {any_mini.source.name} could not be fetched from 127\.0\.0\.1:\d+ \({reason}\); "):
        fetch_dataset(any_mini.source.name, root=any_mini.root)
    assert files_below(any_mini.root) == set()
    assert list(any_mini.folder.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("endless", r"sent more than [\d,]+ bytes"),
        ("packed", r"(sent more than [\d,]+ bytes|wrong SHA-256)"),
        ("slow", r"no progress in 0\.5 s"),
        ("slow headers", r"(no progress in 0\.5 s|ReadTimeout)"),
    ],
)
def test_servers_that_send_too_much_or_too_slowly_are_given_up(make_mini, mirror, monkeypatch, fault, reason):
    monkeypatch.setattr("sensitometer.data.fetching.PATIENCE_SECONDS", 0.5)
    mnist = make_mini("mnist")
    mirror.serve(mnist, monkeypatch)
    mirror.faults[TRAIN_IMAGES] = [fault] * 2
    begun = time.monotonic()
    with fails(rf"{TRAIN_IMAGES} of mnist could not be fetched from 127\.0\.0\.1:\d+ \({reason}\); "):
        fetch_dataset("mnist", root=mnist.root)
    assert time.monotonic() - begun < 5
    assert files_below(mnist.root) == set()
    # The sockets hold this, at most.
    assert mirror.sent < 2 * 10**7


def test_mirrors_that_are_safe_from_others_come_first():
    for source in SOURCES.values():
        safe = [mirror.startswith("https://") for mirror in source.mirrors]
        assert safe == sorted(safe, reverse=True)


def test_what_came_before_the_failure_is_kept(make_mini, mirror, monkeypatch):
    mnist = make_mini("mnist")
    mirror.serve(mnist, monkeypatch)
    mirror.faults["t10k-images-idx3-ubyte.gz"] = ["missing"] * 2
    with fails("t10k-images-idx3-ubyte.gz of mnist could not be fetched"):
        fetch_dataset("mnist", root=mnist.root)
    assert files_below(mnist.folder) == {TRAIN_IMAGES, "train-labels-idx1-ubyte.gz"}
    assert fetch_dataset("mnist", root=mnist.root).downloaded == ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


def test_unreachable_network_names_the_mirrors_and_the_remedy(make_mini, mirror, dead_mirror, monkeypatch):
    mnist = make_mini("mnist")
    other = dead_mirror.replace("127.0.0.1", "localhost")
    mirror.serve(mnist, monkeypatch, mirrors=(dead_mirror, other))
    hosts = ", ".join(rf"{host}:\d+ \(ConnectionError\)" for host in (r"127\.0\.0\.1", "localhost"))
    remedy = re.escape(
        f"; put it at {mnist.folder / TRAIN_IMAGES} by hand, "
        "or set $SENSITOMETER_DATA to a folder whose mnist/ holds the data set"
    )
    with fails(f"{TRAIN_IMAGES} of mnist could not be fetched from {hosts}{remedy}"):
        fetch_dataset("mnist", root=mnist.root)


def test_remedy_for_an_archive_is_to_unpack_it(make_mini, mirror, dead_mirror, monkeypatch):
    cifar10 = make_mini("cifar10")
    mirror.serve(cifar10, monkeypatch, mirrors=(dead_mirror,))
    with fails(f"cifar10.tar.gz of cifar10 .*; unpack it in {re.escape(str(cifar10.folder))} by hand"):
        fetch_dataset("cifar10", root=cifar10.root)


def republish(mini, mirror, monkeypatch, archive):
    """Publish another archive, with its own checksum."""
    name = mini.source.downloads[0].name
    mini.published = {name: archive}
    sha256 = hashlib.sha256(archive).hexdigest()
    mini.source = dataclasses.replace(mini.source, downloads=(dataclasses.replace(mini.source.downloads[0], sha256=sha256),))
    mirror.serve(mini, monkeypatch)


def test_archive_that_lacks_a_file_is_refused(make_mini, mirror, monkeypatch, pack):
    cifar10 = make_mini("cifar10")
    republish(cifar10, mirror, monkeypatch, pack([("bin/test.bin", b"")]))
    with fails("cifar10.tar.gz cannot be unpacked: it does not hold bin/train_1.bin"):
        fetch_dataset("cifar10", root=cifar10.root)
    assert files_below(cifar10.root) == set()


def test_link_in_place_of_a_file_is_refused(make_mini, mirror, monkeypatch, pack):
    cifar10 = make_mini("cifar10")
    republish(cifar10, mirror, monkeypatch, pack([("bin/train_1.bin", None)]))
    with fails("cifar10.tar.gz cannot be unpacked: bin/train_1.bin is not a plain file"):
        fetch_dataset("cifar10", root=cifar10.root)
    assert files_below(cifar10.root) == set()


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_archive_that_ends_early_is_refused(make_mini, mirror, monkeypatch, keep):
    cifar10 = make_mini("cifar10")
    archive = cifar10.published["cifar10.tar.gz"]
    republish(cifar10, mirror, monkeypatch, archive[: int(keep * len(archive))])
    with fails("cifar10.tar.gz cannot be unpacked: "):
        fetch_dataset("cifar10", root=cifar10.root)
    assert files_below(cifar10.root) <= {"cifar10/bin/train_1.bin", "cifar10/bin/train_2.bin"}


def test_published_file_of_the_wrong_structure_is_reported(make_mini, mirror, monkeypatch, pack):
    cifar10 = make_mini("cifar10")
    republish(cifar10, mirror, monkeypatch, pack([(name, content[1:]) for name, content in cifar10.contents.items()]))
    with fails("train_1.bin holds 293 bytes; expected 294"):
        fetch_dataset("cifar10", root=cifar10.root)


def test_folder_that_cannot_be_made_is_one_line(make_mini, mirror, monkeypatch):
    mnist = make_mini("mnist")
    mirror.serve(mnist, monkeypatch)
    mnist.root.write_text("a file where the folder should be")
    with fails(f"{TRAIN_IMAGES} could not be written to {re.escape(str(mnist.folder))}: Not a directory"):
        fetch_dataset("mnist", root=mnist.root)


def test_folder_in_place_of_a_file_is_one_line(make_mini, mirror, monkeypatch):
    mnist = make_mini("mnist")
    mirror.serve(mnist, monkeypatch)
    (mnist.folder / TRAIN_IMAGES).mkdir(parents=True)
    with fails(f"{TRAIN_IMAGES} could not be written to {re.escape(str(mnist.folder))}: Is a directory"):
        fetch_dataset("mnist", root=mnist.root)


def test_interruption_leaves_nothing(make_mini, mirror, monkeypatch):
    mnist = make_mini("mnist")
    mirror.serve(mnist, monkeypatch)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_dataset("mnist", root=mnist.root)
    assert list(mnist.folder.iterdir()) == []


def test_progress_is_drawn_when_asked_for(make_mini, mirror, monkeypatch, capfd):
    mnist = make_mini("mnist")
    mirror.serve(mnist, monkeypatch)
    fetch_dataset("mnist", root=mnist.root, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert all(name in err for name in mnist.published)


def test_root_may_come_from_the_variable(mnist, mirror, monkeypatch):
    mirror.serve(mnist, monkeypatch)
    monkeypatch.setenv("SENSITOMETER_DATA", str(mnist.root))
    assert fetch_dataset("mnist").folder == mnist.folder


def test_digits_need_no_download(tmp_path):
    assert fetch_dataset("digits", root=tmp_path / "data").downloaded == ()
    assert not (tmp_path / "data").exists()


def test_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(InvalidInputError, match="one of digits, mnist, fashion-mnist, cifar10, cifar100; got 'imagenet'"):
        fetch_dataset("imagenet")
