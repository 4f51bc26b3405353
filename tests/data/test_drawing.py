"""Which questions of a picture are drawn: deterministic, without repetition, rare kinds more often on request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import SpaREDataModule
from spatial_lightning.data.drawing import QuestionDraw, balancing_weights
from spatial_lightning.records import ImageQuestions, Question, write_records


def record(identity: str = "a", pictures: tuple[Path, ...] = ()) -> ImageQuestions:
    """Nine questions of a usual kind and one of a rare one."""
    kinds = ["usual"] * 9 + ["rare"]
    questions = [Question(f"{identity}{i}", f"Is it {i}?", "yes", kind) for i, kind in enumerate(kinds)]
    return ImageQuestions(identity, pictures, tuple(questions))


def drawn(draw: QuestionDraw, epochs: int = 400) -> Counter[str]:
    return Counter(question.kind for epoch in range(epochs) for question in draw(record(), epoch))


def test_draws_are_the_same_every_time_and_without_repetition() -> None:
    draw = QuestionDraw(4, seed=1)
    for epoch in (0, 1, None):
        ids = [question.id for question in draw(record(), epoch)]
        assert ids == sorted(set(ids))
        assert ids == [question.id for question in draw(record(), epoch)]
    assert draw(record(), 0) != draw(record(), 1)
    assert QuestionDraw(None, 0)(record(), 0) == list(record().questions) == QuestionDraw(10, 0)(record(), 0)


def test_weights_follow_the_counts() -> None:
    assert balancing_weights(record().questions, 1.0) == {"usual": 1.0, "rare": 9.0}
    assert balancing_weights(record().questions, 0.5) == {"usual": 1.0, "rare": 3.0}
    assert balancing_weights([], 1.0) == {}


def test_rare_kinds_are_drawn_more_often() -> None:
    plain, soft, even = (
        drawn(QuestionDraw(1, 0, balancing_weights(record().questions, power)))["rare"] / 400 for power in (0, 0.5, 1)
    )
    assert plain == pytest.approx(0.1, abs=0.04)
    assert soft == pytest.approx(0.25, abs=0.06)
    assert even == pytest.approx(0.5, abs=0.07)


def test_balance_is_a_setting_of_the_data(tiny: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_records(path, [record(f"r{i}", pictures[:1]) for i in range(4)])

    def module(**options: Any) -> SpaREDataModule:
        data = SpaREDataModule(tiny.processor, train=path, val=path, questions_per_image=1, **options)
        data.setup("fit")
        return data

    kinds = {}
    for balance in ("none", "kinds"):
        data = module(balance=balance)
        records = list(data.records["train"])
        trees = [data.texts(one, epoch=epoch) for one in records for epoch in range(60)]
        kinds[balance] = sum("Is it 9?" in text for (text,) in trees)
        assert data.tree(records[0], epoch=0) is not None
    assert kinds["kinds"] > 2 * kinds["none"]
    with pytest.raises(ValueError, match="allowed: none, soft, kinds"):
        module(balance="rare")
    with pytest.raises(ValueError, match="at least 1, or null"):
        SpaREDataModule(tiny.processor, train=path, val=path, questions_per_image=0)
