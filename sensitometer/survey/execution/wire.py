"""How a run and its workers talk: messages of MessagePack, each after its length. Unlike JSON that has infinity and nan."""

from typing import IO, Any

import msgspec

LENGTH = 4


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message; BrokenPipeError if nobody reads."""
    content = msgspec.msgpack.encode(message)
    stream.write(len(content).to_bytes(LENGTH, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Return the next message; EOFError if the other side has ended, even within a message."""
    return msgspec.msgpack.decode(_read(stream, int.from_bytes(_read(stream, LENGTH), "big")))


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content
