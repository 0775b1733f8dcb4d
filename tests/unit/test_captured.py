"""Captured output: the first lines and the last ones, whole, in order, in bounded space."""

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.captured import (
    GAP_SOURCE,
    HEAD_CHARACTERS_MAX,
    LINE_CHARACTERS_MAX,
    LINE_COST,
    TAIL_CHARACTERS_MAX,
    CapturedOutput,
)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50), max_size=40))
def test_what_is_printed_in_pieces_comes_back_as_its_lines(pieces: list[str]) -> None:
    output = CapturedOutput()
    for number, piece in enumerate(pieces):
        output.write("stdout", piece, number)
    expected = "".join(pieces).split("\n")
    if not expected[-1]:
        expected.pop()
    assert [line.text for line in output.lines(0)] == expected
    assert output.dropped == 0


@given(st.lists(st.integers(0, 3 * LINE_CHARACTERS_MAX), max_size=60))
def test_the_first_and_the_last_lines_are_kept_and_the_rest_is_counted(lengths: list[int]) -> None:
    output = CapturedOutput()
    for number, length in enumerate(lengths):
        output.add("stdout", f"{number:04}".ljust(length, "x"), number)
    lines = output.lines(0)
    kept = [line for line in lines if line.source != GAP_SOURCE]
    numbers = [int(line.text[:4]) for line in kept]
    assert numbers == sorted(set(numbers))
    assert len(kept) + output.dropped == len(lengths)
    if lengths:
        assert numbers[-1] == len(lengths) - 1
    if output.dropped:
        gap = next(place for place, number in enumerate(numbers) if number != place)
        assert lines[gap].text == f"({output.dropped:,} lines were not kept)"
        assert numbers[gap:] == list(range(len(lengths) - len(numbers) + gap, len(lengths)))
    cost = sum(len(line.text) + LINE_COST for line in kept)
    assert cost <= HEAD_CHARACTERS_MAX + TAIL_CHARACTERS_MAX
    assert all(len(line.text) <= LINE_CHARACTERS_MAX for line in kept)


def test_a_line_without_end_does_not_grow_for_ever() -> None:
    output = CapturedOutput()
    for _ in range(1_000):
        output.write("stdout", "x" * 1_000, 0)
    assert sum(len(line.text) for line in output.lines(0)) <= HEAD_CHARACTERS_MAX + TAIL_CHARACTERS_MAX
    assert output.dropped > 0


def test_what_no_database_stores_is_replaced() -> None:
    output = CapturedOutput()
    output.add("stdout", "a\0b\ud800", 0)
    assert output.lines(0)[0].text == "a\N{SYMBOL FOR NULL}b\\ud800"


@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 30)), max_size=6))
def test_many_lines_in_one_write_are_kept_as_if_each_was_written_by_itself(
    writes: list[tuple[int, int]],
) -> None:
    together, one_by_one = CapturedOutput(), CapturedOutput()
    for count, length in writes:
        lines = [f"{number:x}".ljust(length, ".") for number in range(count)]
        together.write("stdout", "".join(f"{line}\n" for line in lines), 0)
        for line in lines:
            one_by_one.add("stdout", line, 0)
    assert together.lines(0) == one_by_one.lines(0)
    assert together.dropped == one_by_one.dropped


def test_a_very_long_line_is_cut_into_pieces_that_are_whole() -> None:
    output = CapturedOutput()
    text = "".join(f"{number:07} " for number in range(6_000))  # 48,000 characters
    output.write("stdout", text, 0)
    assert "".join(line.text for line in output.lines(0)) == text
