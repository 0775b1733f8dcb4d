from __future__ import annotations

import dataclasses
import enum
import json
import math
import string
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.config import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX
from synergymesh.domain.payload import INTEGER_MAX, INTEGER_MIN, decode, encode
from synergymesh.errors import InvalidPayload

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.sampled_from(
    [
        "",
        "0",
        "12",
        "true",
        "null",
        '0":',
        '{"1":2}',
        "\\",
        '\\"',
        "[[[",
        "]]",
        "1" * 30,
        "\\u0000",
        "é\u2028\U0001f600",
        "item1",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | texts
    | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=30
)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def refused(value: object, **kwargs: Any) -> str:
    with pytest.raises(InvalidPayload) as caught:
        encode(value, field="result", **kwargs)
    assert caught.value.field == "result"
    assert caught.value.code == "invalid_payload"
    return str(caught.value)


@settings(max_examples=80, deadline=None)
@given(json_values)
def test_what_is_json_comes_back_as_it_was(value: Any) -> None:
    raw = encode(value, field="result")
    assert decode(raw) == value
    assert json.loads(raw) == value
    assert repr(decode(raw)) == repr(value)  # 1, 1.0 and True are equal


REFUSED: list[Any] = [
    *(math.nan, -math.inf, "a\0", "\ud800", 2**63, -(2**63) - 1, 10**5000),
    *({1}, b"x", object(), nested(101)),
    *({1: 1}, {True: 1}, {None: 1}, {1.5: 1}, {1e22: 1}, {(1, 2): 1}, {"\0": 1}, {"\udfff": 1}),
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(REFUSED), json_values, st.lists(st.sampled_from(["list", "dict", "tuple"]), max_size=3))
def test_what_is_refused_is_refused_wherever_it_stands(bad: Any, good: Any, places: list[str]) -> None:
    value = bad
    for place in places:
        value = {"list": [good, value], "dict": {"good": good, "bad": value}, "tuple": (value, good)}[place]
    refused(value)


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: type(bad).__name__)
def test_what_is_refused_is_refused_alone(bad: Any) -> None:
    refused(bad)


def test_the_message_names_the_place() -> None:
    value = {"items": [0, 1, 2, {"when": {1, 2}}]}
    assert refused(value) == "result.items[3].when is a set, which is not JSON. Give a list."
    assert refused({"a b": math.nan}) == "result['a b'] is nan, which JSON does not have. Give None."
    assert "result.a has the key 1 (int)" in refused({"a": {1: 2}})
    assert "result[1] has a lone surrogate (\\udc80)" in refused(["", "\udc80"])
    assert "result.x has a NUL" in refused({"x": "\0"})
    assert "result[0] is an integer of more than 64 bits" in refused([2**63])


def test_a_place_with_a_broken_key_can_be_shown() -> None:
    message = refused({"\ud800": 1})
    message.encode()


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,)])
def test_nesting_is_allowed_to_its_limit_and_not_one_deeper(wrap: Any) -> None:
    value: Any = wrap(1)
    for _ in range(PAYLOAD_DEPTH_MAX - 1):
        value = wrap(value)
    encode(value, field="result")
    assert "nested deeper than 100 levels" in refused(wrap(value))


def test_brackets_in_texts_do_not_count_as_nesting() -> None:
    for text in ("[" * 500, "]" * 500, '\\"[' * 200, "{\\" * 200):
        assert decode(encode([text, {text: [text]}], field="result")) == [text, {text: [text]}]
    deep: Any = []
    for _ in range(PAYLOAD_DEPTH_MAX):
        deep = ["]]]", '"]\\', deep]
    assert "nested deeper" in refused(deep)


def test_a_value_so_deep_that_recursion_would_fail_is_refused() -> None:
    assert "nested deeper than 100 levels" in refused(nested(100_000))


def test_many_shallow_lists_are_not_deep() -> None:
    value = [[[]] for _ in range(1000)]
    assert decode(encode(value, field="result")) == value


def test_a_circle_is_refused() -> None:
    circle: dict[str, Any] = {"a": []}
    circle["a"].append(circle)
    assert "contains itself at result.a[0]" in refused(circle)


def test_the_same_list_twice_is_no_circle() -> None:
    shared = [1]
    assert decode(encode([shared, shared], field="result")) == [[1], [1]]


def test_the_limit_of_bytes_is_exact_and_the_message_has_both_numbers() -> None:
    assert len(encode("x" * (PAYLOAD_BYTES_MAX - 2), field="result")) == PAYLOAD_BYTES_MAX
    message = refused("x" * (PAYLOAD_BYTES_MAX - 1))
    assert "1,000,001 bytes" in message
    assert "limit is 1,000,000" in message
    assert "reference" in message
    assert "11 bytes" in refused("é" * 4 + "x", limit=10)
    assert "11 bytes" in refused("x" * 9, limit=10)
    assert encode("x" * 8, field="result", limit=10) == b'"xxxxxxxx"'


def test_integers_of_64_bits_pass_and_one_more_does_not() -> None:
    for edge in (INTEGER_MIN, INTEGER_MAX):
        assert decode(encode([edge], field="result")) == [edge]
        assert decode(encode(edge, field="result")) == edge
    refused(INTEGER_MAX + 1)
    refused({"a": INTEGER_MIN - 1})


def test_dataclasses_models_structs_and_enums_become_objects_and_texts() -> None:
    class Colour(enum.Enum):
        RED = "red"

    class Level(enum.IntEnum):
        HIGH = 3

    class Model(pydantic.BaseModel):
        when: datetime
        name: str = pydantic.Field(alias="Name")

    class Struct(msgspec.Struct, rename="camel", tag="s"):
        first_name: str
        inner: Any = None

    @dataclasses.dataclass
    class Order:
        when: datetime
        lines: tuple[int, ...]
        model: Any

    moment = datetime(2024, 5, 6, tzinfo=UTC)
    value = {
        "order": Order(moment, (1, 2), Model(when=moment, Name="n")),
        "struct": Struct("x", inner=[Colour.RED, Level.HIGH]),
        "texts": [date(2024, 1, 2), uuid.UUID(int=5), Decimal("1.10"), Colour.RED],
        "point": namedtuple("Point", "x y")(1, 2),
        "ordered": OrderedDict(a=1),
    }
    assert decode(encode(value, field="result")) == {
        "order": {
            "when": "2024-05-06T00:00:00+00:00",
            "lines": [1, 2],
            "model": {"when": "2024-05-06T00:00:00Z", "Name": "n"},
        },
        "struct": {"type": "s", "firstName": "x", "inner": ["red", 3]},
        "texts": ["2024-01-02", "00000000-0000-0000-0000-000000000005", "1.10", "red"],
        "point": [1, 2],
        "ordered": {"a": 1},
    }


def test_the_place_inside_a_dataclass_is_named() -> None:
    @dataclasses.dataclass
    class Order:
        lines: Any

    assert refused([Order(lines={"a": b"x"})]).startswith("result[0].lines.a is a bytes, which is not JSON.")


def test_an_object_whose_dump_fails_is_refused_with_its_error() -> None:
    class Broken:
        def model_dump(self, **_: Any) -> Any:
            raise RuntimeError("no")

    assert refused([Broken()]) == "result[0] cannot be turned into JSON: RuntimeError: no"


def test_an_object_whose_dump_never_ends_is_refused() -> None:
    class Endless:
        def model_dump(self, **_: Any) -> Any:
            return Endless()

    assert "which is not JSON" in refused(Endless())


@pytest.mark.parametrize("raw", [b"", b"{", b"nul", b"[1,]", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_not_decoded(raw: bytes) -> None:
    with pytest.raises(InvalidPayload, match="not JSON"):
        decode(raw)


@settings(max_examples=80, deadline=None)
@given(st.text(string.printable, max_size=80))
def test_short_texts_are_encoded_as_the_standard_library_does(text: str) -> None:
    assert encode(text, field="result") == json.dumps(text, ensure_ascii=False).encode()
