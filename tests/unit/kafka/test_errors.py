"""Kafka's error codes: the numbers, and a code for every error of ours."""

from __future__ import annotations

import inspect

import pytest
from kio.schema.errors import ErrorCode as KioErrorCode

from isthmus import errors
from isthmus.kafka.errors import CODES, RETRIABLE, ErrorCode, RequestUnsupported, code_of

OURS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.IsthmusError)
]


def test_codes_and_what_is_retriable_are_kafkas() -> None:
    theirs = {one.name.upper(): (one.value, one.retriable) for one in KioErrorCode}
    assert {one.name: (one.value, one in RETRIABLE) for one in ErrorCode} == theirs


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_a_code(kind: type[errors.IsthmusError]) -> None:
    assert code_of(kind("why")) in ErrorCode
    if kind is not errors.IsthmusError and not issubclass(kind, errors.ConfigError):
        assert code_of(kind("why")) is not ErrorCode.UNKNOWN_SERVER_ERROR


def test_the_nearest_class_decides() -> None:
    assert code_of(errors.OutOfOrderSequence("gap")) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert code_of(errors.NoSpace("full")) == ErrorCode.KAFKA_STORAGE_ERROR
    assert code_of(RequestUnsupported(18, 9, 1)) == ErrorCode.UNSUPPORTED_VERSION
    assert set(CODES) <= set(OURS)
