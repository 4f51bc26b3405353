"""The run-level configuration: its schema, and errors that name the closest thing that would have worked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

PROJECT = Path(__file__).resolve().parents[3]
CONF = PROJECT / "conf"
AUTO = "auto"
"""What ``resume`` is set to for going on from the run's own newest checkpoint."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what was given, what is allowed and what to change."""


@dataclass
class EarlyStopping:
    """When training ends before its last step: no better value of a metric in so many validations.

    Attributes:
        monitor: a metric that validation logs, e.g. ``val/loss``.
        mode: whether ``min`` or ``max`` of it is good.
        patience: validations in a row without a better value, >= 1; null goes on to the last step.
        min_delta: by how much a value must be better to count, >= 0.
    """

    monitor: str = "val/loss"
    mode: str = "min"
    patience: int | None = None
    min_delta: float = 0.0


@dataclass
class RunConfig:
    """Run-level keys of ``train.py``; a key that is not here is refused.

    Attributes:
        name: names the run directory and the run; experiments set it to their own file name.
        seed: seeds weights, order of examples and everything else that is random.
        warm_start: where training starts: null (the backbone's own weights), an experiment's name, or a run directory.
        resume: a checkpoint folder or run directory to go on from; ``auto`` takes the newest checkpoint in the directory of
            the run itself, if there is one and it fits; null starts anew. Jobs of a multirun take ``auto``.
        redo: do anew what has finished or begun in the directory of the run already.
        isolate: run each job of a multirun in a process of its own, so that a crash ends that job only.
        early_stopping: end when validation no longer improves, ``early_stopping.patience=3``.
        outputs: folder of all run directories.
        cache: folder of scenes, corpora and reference log-probabilities, shared by all runs.
        inspect: ``data`` shows the corpus as the model sees it, and trains nothing; null trains.
        export: also write the trained backbone as a Hugging Face directory to this path.
    """

    name: str = "default"
    seed: int = 0
    warm_start: str | None = None
    resume: str | None = None
    redo: bool = False
    isolate: bool = False
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    outputs: str = "outputs"
    cache: str = "cache"
    inspect: str | None = None
    export: str | None = None
    backbone: Any = field(default_factory=dict)
    towers: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    objective: Any = field(default_factory=dict)
    reference: Any = field(default_factory=dict)
    optimization: Any = field(default_factory=dict)
    trainer: Any = field(default_factory=dict)
    evaluation: Any = field(default_factory=dict)
    logger: Any = field(default_factory=dict)


@dataclass
class EvaluateConfig:
    """Keys of ``evaluate.py``; a key that is not here is refused.

    Attributes:
        checkpoint: a training run (its newest checkpoint), one of its checkpoint folders, or an exported Hugging Face
            directory; null takes ``backbone`` as it comes.
        backbone: with a checkpoint, what it is expected to be of; null takes the checkpoint's own.
        benchmark: what is asked, from ``conf/benchmark``.
        judge: asked about answers that rules cannot read, from ``conf/judge``; null leaves them unreadable.
        judge_always: ask it about every answer.
        predictions: a file of answers to score in place of a model's.
        run: the run directory, new or to go on in; null makes one or goes on in an unfinished one of the same content.
        engine: ``transformers``, or ``vllm`` where it is installed.
        system: system turn; null takes the one that the checkpoint was trained with, "" none.
        limit: ask at most so many questions, evenly spaced; null asks all.
        max_new_tokens: longest answer in tokens.
        batch_size: answers generated together, and written together.
        share: read what questions about the same images have in common once, where the architecture allows it.
        device: ``auto`` takes a GPU where there is one.
        placeholders: draw a picture with its name for each that is missing, to try a benchmark without its pictures.
        max_bad_fraction: share in [0, 1] of unusable rows, of the benchmark or of ``predictions``, above which it stops.
    """

    checkpoint: str | None = None
    backbone: Any = None
    benchmark: Any = None
    judge: Any = None
    judge_always: bool = False
    predictions: str | None = None
    run: str | None = None
    engine: str = "transformers"
    system: str | None = None
    limit: int | None = None
    max_new_tokens: int = 192
    batch_size: int = 64
    share: bool = True
    device: str = "auto"
    placeholders: bool = False
    max_bad_fraction: float = 0.0
    seed: int = 0
    outputs: str = "outputs"
    cache: str = "cache"
    logger: Any = field(default_factory=dict)


@dataclass
class SynthesizeConfig:
    """Keys of ``synthesize.py``; a key that is not here is refused.

    Attributes:
        checkpoint: the policy: a training run, one of its checkpoint folders, or an exported Hugging Face directory; null
            takes ``backbone`` as it comes.
        backbone: with a checkpoint, what it is expected to be of; null takes the checkpoint's own.
        data: the preference pairs whose questions are asked; their scenes say which response is better.
        run: directory of the pairs, new or to go on in; null makes one or goes on in an unfinished one of the same content.
        responses: drawn for each question, at least 2.
        temperature: at which they are drawn, above 0.
        system, max_new_tokens, batch_size, share, device: as for ``evaluate.py``.
        seed: of the drawing.
    """

    checkpoint: str | None = None
    backbone: Any = None
    data: Any = field(default_factory=dict)
    run: str | None = None
    responses: int = 8
    temperature: float = 0.9
    system: str | None = None
    max_new_tokens: int = 256
    batch_size: int = 64
    share: bool = True
    device: str = "auto"
    seed: int = 0
    outputs: str = "outputs"
    cache: str = "cache"


_KINDS = {"Float": "a number", "Integer": "a whole number", "bool": "true or false", "String": "text"}
SCHEMAS = {"train": RunConfig, "evaluate": EvaluateConfig, "synthesize": SynthesizeConfig}


def register() -> None:
    """Make the schemas known to Hydra under the names that ``conf/train.yaml`` and the like list first."""
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name="run_schema" if name == "train" else f"{name}_schema", node=schema)


def compose_run(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """Compose a configuration as the command line would.

    Raises:
        ConfigError: an unknown group, option or key; the message names the closest ones.
    """
    register()
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = compose(config_name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: backbone=null
            raise ConfigError(explain(error, overrides, config_name)) from error
    schema = SCHEMAS.get(config_name)
    if schema is not None:
        require_known(map(str, config), schema.__dataclass_fields__, "key")
    return config


def check_command_line(arguments: Sequence[str], config_name: str = "train") -> None:
    """Compose once before Hydra starts, so that a mistyped name fails with the closest ones and leaves nothing behind.

    Raises:
        ConfigError: see :func:`compose_run`.
    """
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    single = [override for override in overrides if not is_sweep(override) and not _is_hydra(override)]
    compose_run(single, config_name)
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+~")
        if is_sweep(override) and (CONF / group).is_dir() and "(" not in value:
            for option in value.split(","):
                require_option(group, option)


def explain(error: Exception, overrides: Sequence[str], config_name: str = "train") -> str:
    """The error in words, with the closest names that exist, or what kind of value a key takes."""
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+~")
        if (CONF / group).is_dir() and not _options(group) & {value}:
            return _unknown(f"{group} {value!r}", value, _options(group))
    message = str(error).split("\n")[0]
    absent = re.search(r"Could not override '([^'@]+)", str(error))
    if absent and (CONF / absent[1]).is_dir():
        return f"{absent[1]} is not there yet, it has to be added: +{absent[1]}=..., with a plus"
    if twice := re.search(r"Multiple values for ([\w/]+)", str(error)):
        return f"{twice[1]} is there already: {twice[1]}=..., without the plus"
    if re.search(r"no viable alternative|mismatched input|extraneous input|token recognition error", message):
        return f"{message}: put a value with spaces, brackets or braces in quotes of its own, 'key=\"VALUE\"'"
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if isinstance(cause, ValidationError):
        wanted = re.search(r"(?:could not be converted to|is not a valid) (\w+)", str(cause))
        kind = _KINDS.get(wanted[1] if wanted else "", "a value of another kind")
        return f"{message.removeprefix('Error merging override ')}: that key takes {kind}"
    missing = re.search(r"Key '([^']+)' (?:is not in struct|not in '|is not in)", str(error))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if missing is None or missing.group(1) == key.split(".")[-1] or missing.group(1) in key.split("."):
            known = set(_known_keys(config_name, overrides))
            if key not in known and not (CONF / key).is_dir():
                return _unknown(f"key {key!r}", key, known)
    return message


def require_known(given: Iterable[str], allowed: Iterable[str], what: str) -> None:
    """Refuse names that are not allowed, naming the closest.

    Raises:
        ConfigError: a name is not among the allowed ones.
    """
    allowed = set(allowed)
    for name in given:
        if name not in allowed:
            raise ConfigError(_unknown(f"{what} {name!r}", name, allowed))


def resolve_path(path: str | Path) -> Path:
    """A path as given if absolute, else below the project root, whatever folder the shell is in."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else PROJECT / path


def require_option(group: str, option: str) -> None:
    """Refuse an option that a group of the configuration does not have; a name that is no group has any.

    Raises:
        ConfigError: the message names the closest options.
    """
    if (CONF / group).is_dir() and option not in _options(group):
        raise ConfigError(_unknown(f"{group} {option!r}", option, _options(group)))


def _unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=3, cutoff=0.5)
    close += [option for option in allowed if option.split(".")[-1] == name.split(".")[-1] and option not in close][:2]
    if close:
        return f"there is no {what}; did you mean {', '.join(close)}?"
    return f"there is no {what}; allowed: {', '.join(allowed[:40])}"


def _options(group: str) -> set[str]:
    return {path.stem for path in (CONF / group).glob("*.yaml")}


def _known_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Dotted keys of the configuration with the groups as chosen."""
    groups = [override for override in overrides if (CONF / override.partition("=")[0].lstrip("+~")).is_dir()]
    config = compose(config_name, overrides=groups)
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.append(prefix + str(key))
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return keys


def is_sweep(override: str) -> bool:
    """Whether Hydra would take the value for a list of values to run one after the other."""
    value = override.partition("=")[2]
    return bool(re.match(r"^(glob|range|choice|interval)\(", value)) or (
        "," in value and not value.startswith(("[", "{", "'", '"'))
    )


def _is_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith("hydra")
