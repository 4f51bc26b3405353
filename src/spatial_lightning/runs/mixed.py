"""The corpora of a run: one, or several that are mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from spatial_lightning.backbones.processor import Processor
from spatial_lightning.data import TreeDataModule
from spatial_lightning.records import Question
from spatial_lightning.runs.build import build, plain
from spatial_lightning.runs.corpora import prepare
from spatial_lightning.runs.corpus_files import CorpusFiles

ENCODING = ("segment_context", "shuffle_segments")
"""Keys of an objective that say how responses become tokens."""


@dataclass(frozen=True, slots=True)
class MixedFiles:
    """Several corpora as a run sees them: what :class:`CorpusFiles` says of one, of all of them."""

    corpora: Mapping[str, CorpusFiles]

    @property
    def name(self) -> str:
        """Names of all."""
        return " + ".join(files.name for files in self.corpora.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all, with the corpus they are about."""
        return tuple(f"{name}: {note}" for name, files in self.corpora.items() for note in files.notes)

    def questions(self, split: Literal["train", "val"]) -> list[tuple[tuple[Path, ...], Question]]:
        """Questions of all, those of each corpus as kinds of their own."""
        return [
            (images, replace(question, id=f"{name}/{question.id}", kind=f"{name}: {question.kind}"))
            for name, files in self.corpora.items()
            for images, question in files.questions(split)
        ]

    def digest(self) -> str:
        """Content hash of all."""
        digest = hashlib.blake2b(digest_size=16)
        for name, files in self.corpora.items():
            digest.update(f"{name}={files.digest()};".encode())
        return digest.hexdigest()


def corpora_of(config: DictConfig) -> dict[str, DictConfig]:
    """The parts of ``data`` that name a corpus and how it is read, by name; a corpus that is not mixed has the empty name."""
    if _is_mixture(config):
        return {str(name): node for name, node in config.data.corpora.items()}
    return {"": config.data}


def kinds_of(config: DictConfig) -> set[str]:
    """What kinds of records the data of a run are: ``questions``, ``preferences``, ``traces``."""
    return {str(node.corpus.kind) for node in corpora_of(config).values()}


def prepare_data(config: DictConfig, cache: Path, *, say: Callable[[str], None]) -> CorpusFiles | MixedFiles:
    """The corpus or the corpora that a configuration names, made or indexed first where the cache does not hold them."""
    files = {name: prepare(build(node.corpus), cache, say=say) for name, node in corpora_of(config).items()}
    return MixedFiles(files) if _is_mixture(config) else files[""]


def build_data(config: DictConfig, processor: Processor, files: CorpusFiles | MixedFiles) -> TreeDataModule[Any]:
    """The DataModule over the files of a run, encoding as the objective asks."""
    objective = plain(config.objective)
    encoding = {key: objective[key] for key in ENCODING if key in objective}
    if isinstance(files, CorpusFiles):
        return build(config.data.module, processor=processor, train=files.train, val=files.val, **encoding)
    parts = {
        name: build(config.data.corpora[name].module, processor=processor, train=own.train, val=own.val, **encoding)
        for name, own in files.corpora.items()
    }
    return build(config.data.module, processor=processor, corpora=parts)


def module_settings(config: DictConfig) -> dict[str, Any]:
    """Settings of the DataModule, and of those that it mixes."""
    settings = plain(config.data.module)
    if _is_mixture(config):
        settings["corpora"] = {name: plain(node.module) for name, node in corpora_of(config).items()}
    return settings


def _is_mixture(config: DictConfig) -> bool:
    return "corpora" in config.data
