"""The yaml files of corpora: each names a reader and all of its options with their defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from spatial_lightning.data import corpora
from spatial_lightning.data.corpora import CorpusReader

FILES = sorted((Path(__file__).resolve().parents[3] / "conf" / "corpus").glob("*.yaml"))


def test_every_reader_has_a_file() -> None:
    """Of a corpus, or of a benchmark, which nobody trains on."""
    assert FILES
    benchmarks = [OmegaConf.load(path).get("reader") for path in FILES[0].parents[1].glob("benchmark/*.yaml")]
    configs = [*map(OmegaConf.load, FILES), *(reader for reader in benchmarks if reader is not None)]
    targets = {config["_target_"].rpartition(".")[2] for config in configs}  # type: ignore[index]
    exported = {getattr(corpora, name) for name in corpora.__all__}
    readers = {kind.__name__ for kind in exported if issubclass(kind, CorpusReader) and kind is not CorpusReader}
    assert targets == readers


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_hold_the_options_and_defaults_of_their_reader(path: Path) -> None:
    head, comment, *_ = path.read_text().splitlines()
    assert head == "# @package data.reader"
    assert comment.startswith("# ")
    config = OmegaConf.load(path)
    reader = get_class(config.pop("_target_"))
    assert issubclass(reader, CorpusReader)
    assert OmegaConf.is_missing(config, "path")
    config["path"] = "somewhere"
    given = OmegaConf.to_container(config)
    assert isinstance(given, dict)
    assert given.keys() == {field.name for field in fields(reader)}
    built = instantiate(config, _target_=f"{reader.__module__}.{reader.__qualname__}", _convert_="all")
    default = reader(path="somewhere")
    for name, value in given.items():
        wanted = getattr(default, name)
        assert value == (list(wanted) if isinstance(wanted, tuple) else wanted), name
    assert isinstance(built, reader)
