"""The backbone: any vision-language model of transformers, called with packed token trees."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationConfig

from spatial_lightning.backbones.attention import TREE_ATTENTION, plan_attention, require_shareable
from spatial_lightning.backbones.head import Readout, read_out
from spatial_lightning.backbones.loading import architecture, load_model
from spatial_lightning.backbones.processor import BackboneError, Processor
from spatial_lightning.tree import Prompt, TreeBatch

Engine = Literal["shared", "separate"]
TOWERS = ("vision", "projector", "language")
_KNOWN_TOWERS: dict[str, tuple[str, ...]] = {
    "projector": ("visual.merger", "visual.deepstack_merger_list", "connector", "multi_modal_projector"),
    "vision": ("visual", "vision_tower", "vision_model"),
    "language": ("language_model", "text_model", "lm_head"),
}

log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A vision-language model with its processor, cut in towers, that turns packed trees into log-probabilities.

    Args:
        path: a Hugging Face model directory or hub id.
        engine: ``shared`` runs a packed row of trees once; ``separate`` runs every root-to-leaf path through the stock
            forward of transformers (the reference, and the fallback).
        weights: ``pretrained``, or ``random`` for the architecture of ``path`` with fresh weights.
        overrides: changes to the model configuration by dotted name, for ``weights: random`` only.
        dtype: parameter type.
        towers: module paths of the vision, projector and language tower; None finds them by their usual names.
        min_pixels, max_pixels: bounds on the resized image area in pixels; None keeps the model's own.
        paths_per_forward: paths that the separate engine pads together in one forward.
        attention: attention of transformers for the separate engine and for generation.

    Raises:
        BackboneError: a part of the model directory is missing or does not fit.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        engine: Engine = "shared",
        weights: Literal["pretrained", "random"] = "pretrained",
        overrides: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        towers: Mapping[str, Sequence[str]] | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        paths_per_forward: int = 16,
        attention: str = "sdpa",
    ) -> None:
        super().__init__()
        if engine not in ("shared", "separate"):
            raise BackboneError(f"engine is {engine!r}; allowed: shared, separate")
        self.path = str(path)
        self.processor = Processor(path, min_pixels=min_pixels, max_pixels=max_pixels)
        self.paths_per_forward = paths_per_forward
        self.attention = attention
        self.model = load_model(self.path, weights, overrides or {}, getattr(torch, dtype), attention)
        self.engine = engine
        if engine == "shared":
            require_shareable(self.decoder.config)
            # Set for good and not per call: a recomputed forward (checkpointing) must find the same function.
            self.decoder.config._attn_implementation = TREE_ATTENTION
        self.tower_modules = self._find_towers(towers or _KNOWN_TOWERS)

    # ------------------------------------------------------------------ structure

    @property
    def decoder(self) -> Any:
        """The language tower's stack of layers, without the head."""
        return self.model.model.get_decoder()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def tower_parameters(self, tower: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of one tower (``vision``, ``projector`` or ``language``)."""
        for name, parameter in self.model.named_parameters():
            if self.tower_of(name) == tower:
                yield name, parameter

    def tower_of(self, name: str) -> str:
        """The tower that a parameter or module belongs to; the longest matching module path decides."""
        matches = [
            (len(prefix), tower)
            for tower, prefixes in self.tower_modules.items()
            for prefix in prefixes
            if name == prefix or name.startswith(prefix + ".")
        ]
        if not matches:
            raise BackboneError(
                f"{name} of {self.path} belongs to no tower; name its module in backbone.towers ({', '.join(TOWERS)})"
            )
        return max(matches)[1]

    def _find_towers(self, rules: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        modules = {name for name, _ in self.model.named_modules()} | {name for name, _ in self.model.named_parameters()}
        found: dict[str, tuple[str, ...]] = {}
        for tower in TOWERS:
            wanted = rules.get(tower, ())
            matches = tuple(m for rule in wanted for m in (rule, f"model.{rule}") if m in modules)
            if not matches:
                raise BackboneError(
                    f"no module of {self.path} matches the {tower} tower (looked for {', '.join(wanted) or 'nothing'}); "
                    f"set backbone.towers.{tower} to module paths of the model"
                )
            found[tower] = matches
        self.tower_modules = found
        for name, _ in self.model.named_parameters():
            self.tower_of(name)
        return found

    def fingerprint(self) -> str:
        """Content hash of weights, architecture and processor: equal exactly when log-probabilities are."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.processor.fingerprint().encode())
        digest.update(json.dumps(architecture(self.model.config.to_dict()), sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def frozen_copy(self) -> Backbone:
        """An independent copy of the weights as they are, in eval mode and without gradient: the reference policy."""
        twin = copy.deepcopy(self)
        twin.requires_grad_(False)
        twin.eval()
        return twin

    def save_pretrained(self, folder: Path) -> None:
        """Write an ordinary Hugging Face directory: weights, config, tokenizer, template and image processor."""
        with self._attention(self.attention):
            self.model.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)
        self.processor.image_processor.save_pretrained(folder)

    # ------------------------------------------------------------------ log-probabilities

    def logps(self, batch: TreeBatch) -> Float[Tensor, " targets"]:
        """Log-probability (nats, float32) of every trained token given its path, in the order of ``batch.targets``."""
        return self.read(batch).logps

    def read(self, batch: TreeBatch, *, statistics: bool = False) -> Readout:
        """Log-probabilities as :meth:`logps` and, on request, entropy and top-1 agreement at the same positions."""
        hidden = self._separate_hidden(batch) if self.engine == "separate" else self._shared_hidden(batch)
        return read_out(self.model.get_output_embeddings(), hidden, batch.ids[batch.targets], statistics=statistics)

    def _shared_hidden(self, batch: TreeBatch) -> Float[Tensor, "targets hidden"]:
        """Hidden states at the positions that predict the trained tokens."""
        output = self.model.model(
            input_ids=batch.ids.unsqueeze(0),
            position_ids=batch.positions.unsqueeze(1) if batch.positions.shape[0] > 1 else batch.positions,
            use_cache=False,
            tree_plan=plan_attention(batch).to(batch.ids.device),
            **batch.images,
        )
        return output.last_hidden_state.squeeze(0)[batch.predictors]

    def _separate_hidden(self, batch: TreeBatch) -> Float[Tensor, "targets hidden"]:
        """The same from every path alone; a token that several paths share is taken from the first of them."""
        paths = [batch.path(leaf) for leaf in batch.leaves()]
        is_target = torch.zeros(batch.tokens, dtype=torch.bool)
        is_target[batch.targets.cpu()] = True
        covered: set[int] = set()
        places, pieces = [], []
        for start in range(0, len(paths), self.paths_per_forward):
            chunk = paths[start : start + self.paths_per_forward]
            rows = [torch.cat([torch.tensor(batch.node(node)) for node in path]) for path in chunk]
            prompts = [Prompt(batch.ids.cpu()[row], ()) for row in rows]
            images = batch.images_of([node for path in chunk for node in path])
            hidden = self.model.model(**self._padded(prompts, images, side="right"), use_cache=False).last_hidden_state
            for index, (path, row) in enumerate(zip(chunk, rows, strict=True)):
                new = torch.tensor([node not in covered for node in path for _ in batch.node(node)])
                covered.update(path)
                own = (is_target[row] & new).nonzero().flatten()
                places.append(row[own])
                pieces.append(hidden[index, own - 1])
        order = torch.cat(places).argsort()
        return torch.cat(pieces)[order]

    # ------------------------------------------------------------------ generation

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int = 64) -> list[str]:
        """Greedy answers, one a prompt, in the order given; prompts of similar length are padded together."""
        answers = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: prompts[index].ids.numel())
        tokenizer = self.processor.tokenizer
        training = self.training
        self.eval()
        try:
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                inputs = self._padded([prompts[i] for i in chosen], None, side="left")
                with self._attention(self.attention), self._plain_generation():
                    output = self.model.generate(
                        **inputs,
                        max_new_tokens=max_new_tokens,
                        do_sample=False,
                        eos_token_id=self._end_ids,
                        pad_token_id=self._pad_id,
                    )
                new = output[:, inputs["input_ids"].shape[1] :]
                for index, text in zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                    answers[index] = text.strip()
        finally:
            self.train(training)
        return answers

    @property
    def _end_ids(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's own and the end-of-turn marker that training teaches."""
        tokenizer = self.processor.tokenizer
        ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(self.processor.frame(0).answer_end)}
        return sorted(end for end in ends if end is not None)

    @property
    def _pad_id(self) -> int:
        tokenizer = self.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def _padded(
        self, prompts: Sequence[Prompt], images: Mapping[str, Tensor] | None, *, side: Literal["left", "right"]
    ) -> dict[str, Tensor]:
        """Stock model inputs: ids, mask and per-token types padded by one rule, images in token order."""
        if images is None:
            features = [image for prompt in prompts for image in prompt.images]
            names = sorted(features[0].tensors) if features else []
            images = {name: torch.cat([feature.tensors[name] for feature in features]) for name in names}
        ids = nn.utils.rnn.pad_sequence(
            [prompt.ids for prompt in prompts], batch_first=True, padding_value=self._pad_id, padding_side=side
        )
        mask = nn.utils.rnn.pad_sequence(
            [torch.ones_like(prompt.ids) for prompt in prompts], batch_first=True, padding_side=side
        )
        inputs = {"input_ids": ids, "attention_mask": mask, **images}
        if images:
            inputs["mm_token_type_ids"] = (ids == self.processor.image_token_id).int() * mask.int()
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @contextmanager
    def _plain_generation(self) -> Iterator[None]:
        """Leave out the sampling defaults of the model directory, some of which (repetition penalty) bend greedy answers."""
        before = self.model.generation_config
        self.model.generation_config = GenerationConfig()
        try:
            yield
        finally:
            self.model.generation_config = before

    @contextmanager
    def running(self, engine: Engine) -> Iterator[None]:
        """Use another engine within the block, backward passes included; for comparisons."""
        if engine == "shared":
            require_shareable(self.decoder.config)
        before, self.engine = self.engine, engine
        try:
            with self._attention(TREE_ATTENTION if engine == "shared" else self.attention):
                yield
        finally:
            self.engine = before

    @contextmanager
    def _attention(self, name: str) -> Iterator[None]:
        """Use another attention function in the language tower for the duration of a call."""
        config = self.decoder.config
        before = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = before
