r"""Forms in which models write quantities: conclusions, clock faces, signs, thousands, marks, compounds, JSON and TeX."""

from __future__ import annotations

import time

import pytest

from spatial_lightning.evaluation.parsing import parse_quantity
from spatial_lightning.evaluation.units import Kind


def value(text: str, kind: Kind = "length") -> float | None:
    quantity = parse_quantity(text, kind)
    return None if quantity is None else quantity.value


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("The door is about 2.1 m, so the distance is 4 m.", 4),
        ("The door is 2.1 m and there are two of them. So it is 4.2 m.", 4.2),
        ("The door is 2.1 m.\nSo about 4 m.", 4),
        ("about a meter or so, with a door of 2 m", 1),
        ("It is 1 m or so. The door is 2 m.", 1),
        ("It is so wide: 2 m, and the door 1 m", 2),
        ("The door is 2 m tall.\nDistance: 4 m", 4),
        ("The door is 2 m tall.\n\nHeight: 4 m", 4),
        ("The door is 2 m tall.\n**Estimated distance:** 4 m", 4),
        ("The door is 2 m tall.\n- Estimated distance between them: about 4 m\n", 4),
        ("Height: 4 m\nThe door is 2 m tall.", 4),
        ("Height: 4 m\nWidth: 2 m", 4),
        ("It is 2 m away, so that a chair of 1 m fits.", 2),
        ("The door is 2 m, so that makes 4 m.", 4),
        ("1.2 m + 0.8 m = 2.0 m", 2),
        ("3.2 m - 1.2 m = 2 m", 2),
        ("2 * 3 m = 6 m", 6),
        ("1 m + 2 m = 3 m\nDistance: 3.1 m", 3.1),
        ("1 m = 3.28 feet", 1),
        ("1 meter = 3.28 feet, so 3.2 meters", 3.2),
        ("About 4 m.\n\nThe door is 2 m, so the scale is 1 m in 100 px, and 1 m + 2 m = 3 m.", 4),
        ("It is 4 m.\n\nHere's how: the door is 1 m, so the sum is 1 m + 2 m = 3 m.", 4),
        ("It is 4 m.\n\n**Reasoning:** a door is 2 m.\nHeight: 2 m", 4),
        ("It is 4 m: 300 px / 100 px = 3, and the door is 2 m.", 4),
    ],
)
def test_a_conclusion_counts(text, metres):
    assert value(text) == pytest.approx(metres)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2:00", 2),
        ("10:00", 10),
        ("**2:00**.", 2),
        ("2:00 position", 2),
        ("It is in the 2:00 direction from Region 1.", 2),
        ("2:30 o'clock", 2.5),
        ("11:00 to 1:00", 12),
        ("10 oʼclock", 10),
        ("clock position 3", 3),
        ("The clock position is 11.", 11),
        ("clock direction: 3 o'clock", 3),
        ("clock position 2 to 3 o'clock", 2.5),
    ],
)
def test_clock_faces(text, hour):
    for kind in ("clock", None):
        quantity = parse_quantity(text, kind)
        assert quantity is not None
        assert (quantity.kind, quantity.value) == ("clock", hour)
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("It is at 2:00.", 2),
        ("12:30", 12.5),
        ("at 2:00 pm", None),
        ("16:09", None),
        ("4:3", None),
        ("1:75", None),
        ("from the o'clock position 2 meters away", None),
        ("the clock position 2 m away", None),
    ],
)
def test_times_where_a_direction_is_asked_for(text, hour):
    assert value(text, "clock") == hour
    quantity = parse_quantity(text)
    assert quantity is None or quantity.kind == "length"


@pytest.mark.parametrize(
    ("text", "degrees"),
    [
        (r"$45^\circ$", 45),
        (r"30^{\circ}", 30),
        (r"$30\degree$", 30),
        ("45º", 45),
        ("30˚", 30),
        ("about 60 ° to the left", 60),
        (r"\SI{45}{\degree}", 45),
        ("45 度", 45),
        (r"20^\circ C", None),
        ("20 ˚C", None),
        ("-30 degrees", 30),
    ],
)
def test_degrees(text, degrees):
    assert value(text, "angle") == degrees
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("1 000 m", 1000),
        ("1\u202f000 m", 1000),
        ("1&nbsp;000 m", 1000),
        ("1 500 mm", 1.5),
        ("12 345,5 mm", 12.3455),
        ("1'500 mm", 1.5),
        ("1’500 mm", 1.5),
        ("Region 1 300 cm away", 3),
        ("between 1 000 and 2 000 m", 1500),
        ("1.5 × 10^2 cm", 1.5),
        ("1.5 × 10² cm", 1.5),
        (r"$1.5 \times 10^{2}$ cm", 1.5),
        ("1.5 x 10⁻² m", 0.015),
        ("10^2 cm", 1),
        ("2±0.1 m", 2),
        ("2 ± 0.1 m", 2),
        (r"$2 \pm 0.1$ m", 2),
        ("2 m ± 0.1 m", 2),
        ("2 ~ 3 m", 2.5),
        ("2~3 m", 2.5),
        ("2 m ~ 3 m", 2.5),
        ("~3 m", 3),
        ("Region 1 ~3 m away", 3),
        ("2,5 mètres", 2.5),
        ("2,5 metros", 2.5),
        ("150 centímetros", 1.5),
        ("2.5 米", 2.5),
        ("大约2.5米远", 2.5),
        ("150 厘米", 1.5),
        ("3 平方米", None),
        ("3 米/秒", None),
    ],
)
def test_numbers_with_signs(text, metres):
    assert value(text) == (None if metres is None else pytest.approx(metres))


@pytest.mark.parametrize(
    ("text", "inches"),
    [
        ("The man's 6'2\" tall", 74),
        ("Region 1's height is 5'", 60),
        ("Region 1's height is 5', Region 2's is 6'", 60),
        ("region 2's cup", None),
        ("the sign 'Region 2' here", None),
        ('the sign "12" here', None),
        ("5'-11\"", 71),
        ("5' - 11\"", 71),
        ("5'-6'", 66),
        ("5'x6'", 60),
        ("5 ft. 11 in.", 71),
        ("5 ft. 11 people", 60),
        ("It is 5'. 11 people", 60),
        ("5-foot-11", 71),
        ("a 6-foot-2 man", 74),
        ("3 feet 4 and 1/2 inches", 40.5),
        ("3ft6in", 42),
        ("1-3/4 inches", 1.75),
        ("1/2-3/4 inches", 0.625),
        ("1 and 1/2 feet", 18),
        ("two-and-a-half feet", 30),
        ("10 in to 12 in", 11),
        ("10 in - 12 in", 11),
        ("12 in and 3 ft", 12),
        ("42 in from the wall", 42),
        ("42 in above the floor", 42),
        ("42 in (107 cm)", 42),
        ("42 in (about 107 cm)", 42),
        ("there are 2 in the picture", None),
        ("there are 2 in front of it", None),
        ("a foot", 12),
        ("A foot.", 12),
        ("a yard", 36),
        ("on a foot", None),
    ],
)
def test_feet_and_inches(text, inches):
    assert value(text) == (None if inches is None else pytest.approx(inches * 0.0254))


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("point five meters", 0.5),
        ("It is about point two five meters.", 0.25),
        ("from that point five meters away", 5),
        ("1m20cm", 1.2),
        ("[2.5] meters", 2.5),
        ("The distance is [2.5] m", 2.5),
        ("Region [1] meters", None),
        (r"\SI{2}{m}", 2),
        (r"$\qty{2}{\meter}$", 2),
        (r"\SI{30}{\centi\meter}", 0.3),
        ('{"distance": 2.5, "unit": "m"}', 2.5),
        ('{"unit": "cm", "value": 250}', 2.5),
        ('```json\n{\n  "distance": 2.5,\n  "unit": "feet"\n}\n```', 0.762),
        ('{"distance": 2.5, "unit": "pixels"}', None),
        ('{"distance": 2.5}', None),
        ('{"distance": "2.5 m"}', 2.5),
        ("{1: 2, 'unit'}", None),
    ],
)
def test_words_brackets_and_markup(text, metres):
    assert value(text) == (None if metres is None else pytest.approx(metres))


@pytest.mark.parametrize(
    "piece",
    ["1 000 ", "1'", '1" ', "'a ", "1+", "1+1=", "1 - 1 ", "{", '{"a": 1} ', "\n", "\nHeight: ", ", so the ", "So ",
     "1:00 ", "clock position ",
     "10^", "1×10^2", "± 1", "1~", "1m1", "1-", "1 and ", "point ", "point five ", "a foot ", "\\SI{", "[1] m ", "is [", "3 m ",
     "1 in and ", "1 in ", "米1", "one and a half ", "1 m + ", "½", "x", "1.1.", "a hundred and "],
)  # fmt: skip
@pytest.mark.parametrize("kind", [None, "clock"])
def test_enormous_answers_take_no_time(piece, kind):
    text = piece * (1_000_000 // len(piece))
    seconds = []
    for _ in range(2):  # the better of two: the machine may be busy
        start = time.process_time()
        parse_quantity(text, kind)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3
