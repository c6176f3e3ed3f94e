"""The one base of every record: frozen, tagged, strict about unknown keys.

This file knows JSON and nothing of what the records mean.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headway.records.errors import RecordError

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="record", tag=True):
    """A frozen data object with a JSON form; its class name travels in the key ``record``."""


def to_json(record: object) -> bytes:
    """The JSON form of a record, one line, UTF-8."""
    return msgspec.json.encode(record)


def from_json(text: bytes | str, kind: type[T], where: str = "record") -> T:
    """A record of type ``kind`` from its JSON form.

    Raises:
        RecordError: the text is not JSON, or does not fit ``kind``; the message names the place.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{where}: must be a valid {kind_name(kind)}; got: {error}. Was the file edited by hand?") from error


def to_plain(record: object) -> object:
    """Plain dictionaries, lists, strings and numbers: what ``--json`` prints."""
    return msgspec.to_builtins(record)


def kind_name(kind: object) -> str:
    """The name of a record type, or of a union of them, for messages."""
    return getattr(kind, "__name__", "record")
