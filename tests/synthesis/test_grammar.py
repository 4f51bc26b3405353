"""What is said is read back unchanged; what nobody can read is left out without complaint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.records import DESCRIPTION, REASONING
from spatial_lightning.synthesis.grammar import parse_response, parse_statement, segments
from spatial_lightning.synthesis.statements import (
    DIMENSIONS,
    POLE_AXIS,
    Also,
    Coordinate,
    Final,
    Length,
    Offset,
    Relation,
    Root,
    Seen,
    say,
)

tenths = st.integers(0, 9999).map(lambda n: n / 10)
percents = st.integers(0, 100).map(float)
names = st.builds(
    lambda words, shape: " ".join([*words, shape]),
    st.lists(st.sampled_from(["large", "small", "red", "cyan", "orange", "metal", "rubber"]), max_size=3, unique=True),
    st.sampled_from(["cube", "sphere", "cylinder", "cone"]),
)
poles = st.sampled_from(sorted(POLE_AXIS))
terms = st.lists(st.tuples(tenths, tenths), min_size=1, max_size=4)
statements = st.one_of(
    st.builds(Seen, names, st.just(("large", "metal")), percents, percents, tenths),
    st.builds(Also, st.lists(names, min_size=1, max_size=4).map(tuple)),
    st.builds(Coordinate, names, st.sampled_from([*DIMENSIONS, "left", "right", "above", "below"]), tenths),
    st.builds(Offset, names, poles, names, tenths),
    st.builds(Relation, names, poles, names),
    st.builds(
        lambda pairs, total, root: Root(tuple(t for t, _ in pairs), tuple(s for _, s in pairs), total, root),
        terms,
        tenths,
        tenths,
    ),
    st.builds(Length, tenths),
    st.builds(Final, st.sampled_from(["yes", "left", "red cube", "2.4 meters"])),
)


@given(statements)
def test_said_and_read_back(statement) -> None:
    assert parse_statement(say(statement)) == statement


@given(st.lists(statements, min_size=1, max_size=6), st.lists(statements, min_size=1, max_size=6))
def test_responses_are_read_back(described, reasoned) -> None:
    described = [s for s in described if isinstance(s, Seen | Also)]
    reasoned = [s for s in reasoned if not isinstance(s, Final)]
    steps = " ".join(f"Step {n}: {say(s)}." for n, s in enumerate(reasoned, start=1))
    text = f"<description>{' '.join(say(s) + '.' for s in described)}</description><reasoning>{steps}"
    parsed = parse_response(f"{text} In Conclusion, all is said. The final answer is yes.</reasoning>")
    assert parsed.description == tuple(described)
    assert parsed.reasoning == tuple(reasoned)
    assert parsed.steps == tuple(range(1, len(reasoned) + 1))
    assert parsed.final == "yes"
    assert parsed.description_sentences == len(described)
    assert parsed.reasoning_sentences == len(reasoned) + 2


def test_hedges_are_heard_wherever_they_stand() -> None:
    certain = parse_statement("The red cube is 1.2 meters left of center")
    for text in (
        "The red cube is about 1.2 meters left of center",
        "Probably, the red cube is 1.2 meters left of center",
        "Possibly the red cube is 1.2 meters left of center",
        "the red cube is 1.2 meters LEFT OF center approximately",
    ):
        hedged = parse_statement(text)
        assert isinstance(hedged, Coordinate)
        assert hedged.hedged
        assert (hedged.name, hedged.pole, hedged.value) == ("red cube", "left", 1.2)
    assert isinstance(certain, Coordinate)
    assert not certain.hedged


def test_units_are_converted() -> None:
    assert parse_statement("the distance is 90 cm") == Length(pytest.approx(0.9))
    assert parse_statement("the distance is 3 feet") == Length(pytest.approx(0.9144))


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("<description>A.</description><reasoning>B.</reasoning>", "<description>A.</description>"),
        ("### Description\nA.\n### Step 1\nB.", "### Description\nA.\n"),
        ("no structure at all", ""),
        ("<description>cut short", ""),
        ("<description>only this</description>", "<description>only this</description>"),
    ],
)
def test_segments(text: str, description: str) -> None:
    spans = {segment.name: text[segment.start : segment.end] for segment in segments(text)}
    assert spans.get(DESCRIPTION, "") == description
    assert spans.get(REASONING, "") == text[len(description) :]


@given(st.text(max_size=300))
def test_segments_tile_any_text(text: str) -> None:
    assert "".join(text[s.start : s.end] for s in segments(text)) == text
    parse_response(text)
