"""Every yaml of conf/corpus builds a reader, says all of its options, and gives them the reader's own defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from spatial_lightning.data.corpora import CorpusReader
from spatial_lightning.data.corpora import __all__ as exported

FILES = sorted((Path(__file__).resolve().parents[3] / "conf" / "corpus").glob("*.yaml"))


def test_there_are_some() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_is_its_reader(file: Path) -> None:
    first, second = file.read_text().splitlines()[:2]
    assert first == "# @package data.reader"
    assert second.startswith("# ")
    assert second.endswith(".")
    config = OmegaConf.load(file)
    reader: Any = get_class(config["_target_"])
    assert issubclass(reader, CorpusReader)
    assert reader.__name__ in exported
    assert OmegaConf.is_missing(config, "path")
    fields = {field.name: field for field in dataclasses.fields(reader)}
    assert set(config) - {"_target_"} == set(fields)
    config["path"] = "corpus.jsonl"
    options = OmegaConf.to_container(config)
    assert isinstance(options, dict)
    del options["_target_"]
    built, plain = reader(**options), reader(path="corpus.jsonl")
    for name in fields:
        given, default = (getattr(one, name) for one in (built, plain))
        assert given == (list(default) if isinstance(default, tuple) and isinstance(given, list) else default), name
