"""Downloads a data set from its mirrors, checks it, and puts it in its folder only when it is whole."""

import gzip
import hashlib
import os
import queue
import shutil
import tarfile
import tempfile
import threading
import zlib
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from ..errors import DataError
from ..files import replacing
from .locations import ROOT_VARIABLE, data_root
from .readers import read_file
from .sources import DataFile, Download, Source, find_source

# Times that the list of mirrors is gone through: a transfer that broke off is tried again, first elsewhere.
_ROUNDS = 2
# A server must answer, and send a block of so many bytes, within this time: at least 1 kB a second.
PATIENCE_SECONDS = 60.0
BLOCK = 2**16


class _TransferError(Exception):
    """A server sent something else than the file, or nothing; the message says what."""


class Fetched(NamedTuple):
    """The result of `fetch_dataset`."""

    folder: Path | None  # where the data set is now; None for a data set that is part of a library
    downloaded: tuple[str, ...]  # the files that were downloaded; none when the data set was there already, and sound


def fetch_dataset(name: str, *, root: str | os.PathLike[str] | None = None, progress: bool = False) -> Fetched:
    """
    Download what is missing or damaged of a data set, check it, and unpack it.

    Files come from the first mirror that answers, are checked by SHA-256, and appear under their names only when they are
    whole: interrupted at any moment, it leaves nothing half done, and called again, it goes on with the next file.

    Parameters
    ----------
    name
        One of `dataset_names()`. `digits` is part of scikit-learn: nothing is downloaded.
    root
        The folder that holds the data sets' folders; by default `$SENSITOMETER_DATA`, else the user's cache folder.
    progress
        Draw a progress bar for each download on the standard error.

    Raises
    ------
    InvalidInputError
        The name is unknown.
    DataError
        No mirror gave a file that has the right checksum, or the folder cannot be written to.
    """
    source = find_source(name)
    if not source.downloads:
        return Fetched(None, ())
    folder = data_root(root) / name
    wanted = [download for download in source.downloads if _fault(source, download, folder)]
    for download in wanted:
        try:
            _fetch(source, download, folder, progress)
        except OSError as error:
            raise DataError(f"{download.name} could not be written to {folder}: {error.strerror or error}") from error
        fault = _fault(source, download, folder)
        if fault:
            raise fault
    return Fetched(folder, tuple(download.name for download in wanted))


def _fault(source: Source, download: Download, folder: Path) -> DataError | None:
    """Return the first fault of the files that `download` brings to `folder`; None if they are there and can be read."""
    try:
        for file in download.files:
            read_file(source, file, folder)
    except DataError as error:
        return error
    return None


def _fetch(source: Source, download: Download, folder: Path, progress: bool) -> None:
    """Download into a temporary folder beside the final names, so that a file gets its name in one step, when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as staging:
        downloaded = _download(source, download, Path(staging), folder, progress)
        if download.is_archive:
            _unpack(downloaded, download.files, folder)
        else:
            with downloaded.open("rb") as stream:
                _install(stream, folder / download.name)


def _download(source: Source, download: Download, staging: Path, folder: Path, progress: bool) -> Path:
    """Return the path in `staging` of the download, from the first mirror that gives it with the right checksum."""
    reasons: dict[str, str] = {}
    for mirror in source.mirrors * _ROUNDS:
        host = urlsplit(mirror).netloc
        try:
            return _download_from(mirror, download, staging, progress)
        except requests.HTTPError as error:
            reasons[host] = f"HTTP {error.response.status_code}"
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reasons[host] = type(error).__name__
        except _TransferError as error:
            reasons[host] = str(error)
    tried = ", ".join(f"{host} ({reason})" for host, reason in reasons.items())
    remedy = f"unpack it in {folder}" if download.is_archive else f"put it at {folder / download.name}"
    raise DataError(
        f"{download.name} of {source.name} could not be fetched from {tried}; {remedy} by hand, "
        f"or set ${ROOT_VARIABLE} to a folder whose {source.name}/ holds the data set"
    )


def _download_from(mirror: str, download: Download, staging: Path, progress: bool) -> Path:
    """Return the path of the download; it is waited for while blocks of it come, and no more than its size is taken."""
    target = staging / download.name
    received: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    stopped = threading.Event()
    # In a thread, because a server that sends a byte now and then is never silent for long.
    arguments = (mirror + download.name, download.size, target, received, stopped)
    threading.Thread(target=_transfer, args=arguments, daemon=True).start()
    with tqdm(total=download.size, desc=download.name, unit="B", unit_scale=True, leave=False, disable=not progress) as bar:
        try:
            while answer := received.get(timeout=PATIENCE_SECONDS):
                if isinstance(answer, Exception):
                    raise answer
                bar.update(answer)
        except queue.Empty:
            raise _TransferError(f"no progress in {PATIENCE_SECONDS:g} s") from None
        finally:
            stopped.set()
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != download.sha256:
            raise _TransferError("wrong SHA-256")
    return target


def _transfer(
    url: str, size: int, target: Path, received: "queue.SimpleQueue[int | Exception]", stopped: threading.Event
) -> None:
    """Write what a server sends, and tell the bytes of each block; 0 at the end, or the exception that ended it."""
    try:
        # As it is: a server that packs it once more would have it unpacked twice, to whatever size.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=PATIENCE_SECONDS, headers=headers) as response, target.open("wb") as file:
            response.raise_for_status()
            count = 0
            while not stopped.is_set() and (block := response.raw.read(BLOCK, decode_content=False)):
                count += len(block)
                if count > size:
                    raise _TransferError(f"sent more than {size:,} bytes")
                file.write(block)
                received.put(len(block))
        received.put(0)
    except Exception as error:  # noqa: BLE001  raised again where the blocks are counted
        received.put(error)


def _unpack(archive: Path, files: tuple[DataFile, ...], folder: Path) -> None:
    """Take `files` out of a `.tar.gz`, and nothing else: the paths written to are ours, whatever the archive's say."""
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for file in files:
                member = tar.getmember(file.name)
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise tarfile.TarError(f"{file.name} is not a plain file")
                _install(stream, folder / file.name)
    except KeyError as error:
        raise DataError(f"{archive.name} cannot be unpacked: it does not hold {file.name}") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error}") from error


def _install(stream: IO[bytes], target: Path) -> None:
    """Write `stream` in full, then give it its name in one step; as a copy, it has the user's usual permissions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as whole, whole.open("wb") as copy:
        shutil.copyfileobj(stream, copy)
