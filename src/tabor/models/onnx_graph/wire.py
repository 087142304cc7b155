"""A walk over the bytes of a protobuf message before its parser sees them.

Two bytes of a message can become hundreds in memory: an empty node costs as much as a full one.  So the fields are
counted first, without building anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tabor.errors import ModelError

MOST_FIELDS = 500_000
"""Of all messages in a file; a network of 10,000 nodes has nearly as many."""

DEEPEST = 16
"""Messages within messages; a plain graph has 8."""

LONGEST_VARINT = 10

_FIXED = {1: 8, 5: 4}
"""Bytes of the wire types that have a fixed size."""

_VARINT, _LENGTH = 0, 2

_HEAD_FIELDS = {0x10, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72}
"""Tags that may follow the version of the format: the fields of a ModelProto."""

_IR_VERSIONS = range(3, 32)
"""Of the format; 3 is of 2017."""


def looks_like_onnx(head: bytes) -> bool:
    """Returns whether a file begins like an ONNX model: its version, then another field of a model."""
    return len(head) > 3 and head[0] == 0x08 and head[1] in _IR_VERSIONS and head[2] in _HEAD_FIELDS


def check_fields(data: bytes, descriptor: Any) -> None:
    """Refuses a message that would take far more memory than its bytes.

    Args:
        data: the message.
        descriptor: the protobuf descriptor of its type, which says what fields are messages themselves.

    Raises:
        ModelError: too many fields, messages too deep in one another, or no whole message.
    """
    left = MOST_FIELDS
    pending = [(memoryview(data), descriptor, 0)]
    while pending:
        message, kind, depth = pending.pop()
        if depth > DEEPEST:
            raise ModelError(f"its messages lie more than {DEEPEST} deep in one another")
        for number, content in _fields(message):
            left -= 1
            if left < 0:
                raise ModelError(f"it holds more than {MOST_FIELDS:,} fields, which no network needs")
            inner = kind.fields_by_number.get(number)
            if content is not None and inner is not None and inner.message_type is not None:
                pending.append((content, inner.message_type, depth + 1))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """The fields' numbers and, of those that have a length, their contents."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        wire, content = tag & 7, None
        if wire == _VARINT:
            _, place = _varint(message, place)
        elif wire == _LENGTH:
            length, place = _varint(message, place)
            content = message[place : place + length]
            place += length
        elif wire in _FIXED:
            place += _FIXED[wire]
        else:
            raise ModelError("it is damaged: a field of no known type")
        if place > end:
            raise ModelError("it is cut off or damaged: a field reaches beyond its end")
        yield tag >> 3, content


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    if place < len(message) and message[place] < 0x80:  # nearly all are one byte
        return message[place], place + 1
    value = 0
    for shift, byte in enumerate(message[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    raise ModelError("it is cut off or damaged: a number without end")
