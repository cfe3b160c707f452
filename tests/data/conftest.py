"""Small data sets in the real formats, and a local mirror to fetch them from."""

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from sensitometer.data import sources
from sensitometer.data.sources import DataFile, Download, Source, Split


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + array.tobytes()


def record_bytes(images, labels, label_bytes):
    """CIFAR records; the superclass, where there is one, is 7, which no small data set has as a class."""
    return b"".join(b"\7" * (label_bytes - 1) + bytes([y]) + x.tobytes() for x, y in zip(images, labels, strict=True))


def tar_bytes(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


@dataclass
class Mini:
    """A small data set under a real one's name: what is in it, and the bytes of its files."""

    source: Source
    root: Path
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    contents: dict[str, bytes]
    published: dict[str, bytes] = field(default_factory=dict)

    @property
    def folder(self):
        return self.root / self.source.name

    def write(self):
        for name, content in self.contents.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)


def _points(generator, count, shape, classes):
    images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, (np.arange(count) % classes).astype(np.uint8)


def _mini_mnist(root):
    generator = np.random.default_rng(1)
    train, test = _points(generator, 12, (1, 6, 5), 3), _points(generator, 7, (1, 6, 5), 3)
    files = {}
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        files[DataFile(f"{prefix}-images-idx3-ubyte.gz", "images", len(images))] = gzip.compress(idx_bytes(images[:, 0]), mtime=0)
        files[DataFile(f"{prefix}-labels-idx1-ubyte.gz", "labels", len(labels))] = gzip.compress(idx_bytes(labels), mtime=0)
    names = list(files)
    contents = {file.name: content for file, content in files.items()}
    source = Source("mnist", 3, (1, 6, 5), Split((names[0], names[1]), 10), Split((names[2], names[3]), 7))
    downloads = tuple(_download(file.name, content, (file,)) for file, content in files.items())
    used = train[0][:10], train[1][:10]
    return Mini(replace(source, downloads=downloads), root, used, test, contents, dict(contents))


def _mini_cifar(root, name, label_bytes):
    generator = np.random.default_rng(2)
    train, test = _points(generator, 12, (3, 4, 4), 3), _points(generator, 6, (3, 4, 4), 3)
    files = (
        DataFile("bin/train_1.bin", "records", 6),
        DataFile("bin/train_2.bin", "records", 6),
        DataFile("bin/test.bin", "records", 6),
    )
    blocks = ((train[0][:6], train[1][:6]), (train[0][6:], train[1][6:]), test)
    contents = {file.name: record_bytes(*block, label_bytes) for file, block in zip(files, blocks, strict=True)}
    archive = tar_bytes([("bin/readme.html", b"not wanted"), ("../escaped", b"not wanted"), *contents.items()])
    source = Source(name, 3, (3, 4, 4), Split(files[:2], 12), Split(files[2:], 6), label_bytes=label_bytes)
    source = replace(source, downloads=(_download(f"{name}.tar.gz", archive, files),))
    return Mini(source, root, train, test, contents, {f"{name}.tar.gz": archive})


def _download(name, content, files):
    return Download(name, len(content), hashlib.sha256(content).hexdigest(), files)


MAKE = {
    "mnist": _mini_mnist,
    "cifar10": lambda root: _mini_cifar(root, "cifar10", 1),
    "cifar100": lambda root: _mini_cifar(root, "cifar100", 2),
}


@pytest.fixture
def make_mini(tmp_path, monkeypatch) -> Callable[[str], Mini]:
    """Make a small data set take a real one's place; its files are not written yet."""

    def make(name):
        mini = MAKE[name](tmp_path / "data")
        monkeypatch.setitem(sources.SOURCES, name, mini.source)
        return mini

    return make


@pytest.fixture
def pack() -> Callable[[list[tuple[str, bytes | None]]], bytes]:
    """Pack (name, content) pairs into the bytes of a .tar.gz; content None makes a symbolic link."""
    return tar_bytes


@pytest.fixture(params=list(MAKE))
def any_mini(request, make_mini) -> Mini:
    return make_mini(request.param)


@pytest.fixture
def mnist(make_mini) -> Mini:
    mini = make_mini("mnist")
    mini.write()
    return mini


@pytest.fixture
def cifar10(make_mini) -> Mini:
    mini = make_mini("cifar10")
    mini.write()
    return mini


def drip(handler):
    """Send a byte now and then, until nobody takes it."""
    with contextlib.suppress(OSError):
        for _ in range(300):
            handler.wfile.write(b"x")
            time.sleep(0.02)


@dataclass
class Mirror:
    """A web server on this machine. `faults` holds, for a file, what goes wrong on the first, the second, ... request for it."""

    url: str
    contents: dict[str, bytes]
    faults: dict[str, list[str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0  # bytes to a request that asked for an endless answer

    def serve(self, mini, monkeypatch, *, mirrors=None):
        self.contents = mini.published
        mini.source = replace(mini.source, mirrors=mirrors or (self.url,))
        monkeypatch.setitem(sources.SOURCES, mini.source.name, mini.source)

    def answer(self, handler):
        name = handler.path.removeprefix("/files/")
        self.requests.append(name)
        content = self.contents[name]
        fault = self.faults[name].pop(0) if self.faults.get(name) else "none"
        if fault == "slow headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            return drip(handler)
        handler.send_response(404 if fault == "missing" else 200)
        if fault == "packed":
            content = gzip.compress(bytes(10**7))
            handler.send_header("Content-Encoding", "gzip")
        if fault not in ("endless", "slow"):
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if fault == "slow":
            return drip(handler)
        if fault == "endless":
            with contextlib.suppress(OSError):
                while self.sent < 10**8:
                    self.sent += handler.wfile.write(bytes(2**16))
            return None
        handler.wfile.write({"truncated": content[:-9], "altered": content[:-1] + b"?"}.get(fault, content))
        return None


@pytest.fixture
def mirror(monkeypatch) -> Iterator[Mirror]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            mirror.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror = Mirror(f"http://127.0.0.1:{server.server_port}/files/", {})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield mirror
    server.shutdown()
    thread.join()
    server.server_close()
