import io
import math

import pytest

from sensitometer.survey.execution.wire import receive, send


def test_messages_come_back_as_they_were_sent_one_after_another():
    messages = [{"rows": [{"id": "ä", "loss": math.inf, "weights": 2**40, "error": None}]}, {}, {"seconds": 0.5}]
    stream = io.BytesIO()
    for message in messages:
        send(stream, message)
    stream.seek(0)
    assert [receive(stream) for _ in messages] == messages
    with pytest.raises(EOFError):
        receive(stream)


def test_what_is_no_number_comes_back():
    stream = io.BytesIO()
    send(stream, math.nan)
    stream.seek(0)
    assert math.isnan(receive(stream))


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 12])
def test_a_message_that_breaks_off_is_none(cut):
    stream = io.BytesIO()
    send(stream, "a message of some length")
    with pytest.raises(EOFError):
        receive(io.BytesIO(stream.getvalue()[:cut]))
