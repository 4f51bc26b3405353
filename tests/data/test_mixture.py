"""Mixtures: shares kept exactly in the long run and evenly on the way, every example met, nothing mixed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import asked, trace

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import MixtureDataModule, SpaREDataModule, TraceDataModule
from spatial_lightning.records import write_records

Make = Callable[..., MixtureDataModule]


@pytest.fixture
def make(tiny: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> Make:
    """A mixture of 12 pictures with three questions each and of four traces."""

    def module(**options: Any) -> MixtureDataModule:
        write_records(tmp_path / "a.jsonl", [asked(f"a{i}", pictures[i % 3 : i % 3 + 1], 3) for i in range(12)])
        write_records(tmp_path / "b.jsonl", [trace(f"b{i}", pictures[i % 3 : i % 3 + 1], ()) for i in range(4)])
        kinds = {"questions": (SpaREDataModule, "a"), "chats": (TraceDataModule, "b")}
        parts: Any = {
            name: cls(tiny.processor, train=tmp_path / f"{stem}.jsonl", val=tmp_path / f"{stem}.jsonl", val_examples=2)
            for name, (cls, stem) in kinds.items()
        }
        if parts["chats"].include_rejected:
            parts["chats"].include_rejected = False
        data = MixtureDataModule(tiny.processor, corpora=parts, **{"batch_size": 4, **options})
        data.setup("fit")
        return data

    return module


def met(data: MixtureDataModule, epoch: int) -> list[str]:
    return [data.records["train"][index].corpus for index in data.order(epoch).tolist()]


def test_without_weights_every_example_is_met_once(make: Make) -> None:
    data = make()
    examples = len(data.records["train"])
    assert data.examples_per_epoch == examples
    for epoch in range(3):
        assert sorted(data.order(epoch).tolist()) == list(range(examples))
    assert data.order(0).tolist() != data.order(1).tolist()
    assert data.order(1).tolist() == make().order(1).tolist()


@pytest.mark.parametrize("exhaustion", ["first", "all"])
def test_shares_are_exact_and_even(make: Make, exhaustion: Any) -> None:
    data = make(weights={"questions": 1.0, "chats": 3.0}, exhaustion=exhaustion)
    chats = len(data.corpora["chats"].records["train"])
    questions = len(data.corpora["questions"].records["train"])
    assert data.examples_per_epoch == (chats * 4 // 3 if exhaustion == "first" else questions * 4)
    counts = Counter(name for epoch in range(12) for name in met(data, epoch))
    assert counts["chats"] == pytest.approx(0.75 * sum(counts.values()), abs=1)
    order = [name for epoch in range(12) for name in met(data, epoch)]
    for start in range(0, len(order) - 16, 4):
        assert abs(order[start : start + 16].count("questions") - 4) <= 3
    every = [index for epoch in range(12) for index in data.order(epoch).tolist()]
    seen = Counter(index for index in every if data.records["train"][index].corpus == "chats")
    assert max(seen.values()) - min(seen.values()) <= 1, "an example comes again when all of its corpus have come"


def test_temperature_evens_sizes_out(make: Make) -> None:
    shares = [make(temperature=value).shares["chats"] for value in (1.0, 2.0, 1e9)]
    assert all(low < high for low, high in pairwise(shares))
    assert shares[-1] == pytest.approx(0.5)


def test_tokens_are_shared_as_asked(make: Make) -> None:
    data = make(weights={"questions": 1.0, "chats": 1.0}, by="tokens", exhaustion="all")
    tokens = Counter[str]()
    for epoch in range(6):
        for index in data.order(epoch).tolist():
            record = data.records["train"][index]
            tree = data.tree(record, epoch=epoch)
            assert tree is not None
            tokens[record.corpus] += tree.trained_tokens
    assert tokens["chats"] / sum(tokens.values()) == pytest.approx(0.5, abs=0.05)


def test_steps_mix_and_validation_takes_some_of_each(make: Make, tiny: Backbone) -> None:
    data = make(batch_size=6)
    steps = list(data.train_dataloader())
    assert len(steps) == data.steps_per_epoch
    names = [{identity.split("/")[0] for identity in row.tree_ids} for step in steps for row in step]
    assert {"questions", "chats"} in names
    assert torch.isfinite(tiny.logps(steps[0][0])).all()
    held_out = [identity for step in data.val_dataloader() for row in step for identity in row.tree_ids]
    assert Counter(identity.split("/")[0] for identity in held_out) == {"questions": 2, "chats": 2}
    assert data.steps_per_epoch == len(data.share(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"questions": 1.0}}, "needs one for each of questions, chats"),
        ({"weights": {"questions": 1.0, "chats": 0.0}}, "each must be above 0"),
        ({"by": "words"}, "data.by is 'words'; allowed: examples, tokens"),
        ({"exhaustion": "never"}, "allowed: first, all"),
        ({"temperature": 0.0}, "it must be above 0"),
    ],
)
def test_impossible_mixtures_are_refused(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
