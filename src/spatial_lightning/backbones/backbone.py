"""The backbone: any vision-language model of transformers, called with packed token trees."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spatial_lightning.backbones import adapters
from spatial_lightning.backbones.attention import (
    TREE_ATTENTION,
    AttentionPlan,
    SequencePlan,
    plan_attention,
    plan_sequences,
    require_shareable,
)
from spatial_lightning.backbones.blocks import blocks_of
from spatial_lightning.backbones.composing import save_processor
from spatial_lightning.backbones.generation import generate, plain_generation
from spatial_lightning.backbones.head import Readout, read_out
from spatial_lightning.backbones.inputs import image_inputs
from spatial_lightning.backbones.kernels import kernel_for
from spatial_lightning.backbones.loading import architecture, load_model, use_liger_layers
from spatial_lightning.backbones.prefixes import can_share_prefixes, generate_behind_prefixes
from spatial_lightning.backbones.processor import BackboneError, Processor
from spatial_lightning.backbones.separate import separate_hidden
from spatial_lightning.backbones.structure import KNOWN_TOWERS, find_dead, find_towers, logit_softcap, owner
from spatial_lightning.backbones.structure import TOWERS as TOWERS
from spatial_lightning.backbones.windows import WINDOW_ATTENTION, windowed_configs
from spatial_lightning.tree import Prompt, TreeBatch

Engine = Literal["shared", "separate"]
Guide = Callable[[Tensor], Tensor]

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
        dead: modules that never get a gradient (e.g. layers behind the one whose features are used), by path; a list's
            entries may be counted from its end. They are frozen whatever the tower plan says.
        min_pixels, max_pixels: bounds on the resized image area in pixels; None keeps the model's own.
        image_settings: other settings of the image processor.
        paths_per_forward: paths that the separate engine pads together in one forward.
        attention: attention of transformers for the separate engine and for generation.
        check: what a run does where engines disagree on a small tree at its start: ``refuse`` to go on, ``fallback`` to the
            separate engine, or ``off``, not to compare.
        quantization: ``nf4`` holds the language tower's linear layers, the head left out, in four bits (arXiv:2305.14314).
        liger: use the layers of liger-kernel; CUDA only.

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
        dead: Sequence[str] = (),
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        image_settings: Mapping[str, Any] | None = None,
        paths_per_forward: int = 16,
        attention: str = "sdpa",
        check: Literal["refuse", "fallback", "off"] = "refuse",
        quantization: Literal["nf4"] | None = None,
        liger: bool = False,
    ) -> None:
        super().__init__()
        if engine not in ("shared", "separate"):
            raise BackboneError(f"engine is {engine!r}; allowed: shared, separate")
        if check not in ("refuse", "fallback", "off"):
            raise BackboneError(f"backbone.check is {check!r}; allowed: refuse, fallback, off")
        self.path = str(path)
        self.processor = Processor(path, min_pixels=min_pixels, max_pixels=max_pixels, image_settings=image_settings)
        self.paths_per_forward = paths_per_forward
        rules = towers or KNOWN_TOWERS
        self.model = load_model(
            self.path,
            weights,
            overrides or {},
            getattr(torch, dtype),
            attention,
            quantization=quantization,
            language=rules.get("language", ()),
        )
        if liger:
            use_liger_layers(self.model)
        self.attention: str = self.decoder.config._attn_implementation
        self._windowed = [(config, config._attn_implementation) for config in windowed_configs(self.model)]
        self.check = check
        try:
            self.use(engine)
        except BackboneError as error:
            if check != "fallback":
                raise
            log.warning("%s: falling back to it", error)
            self.use("separate")
        self.tower_modules = find_towers(self.model, rules, self.path)
        self.dead = find_dead(self.model, dead, self.path)
        self.softcap = logit_softcap(self.model, self.path)
        self.adapters: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {}
        self._adapters_on = True

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
        return owner(self.tower_modules, name, self.path)

    def is_dead(self, name: str) -> bool:
        """Whether a parameter lies in a module that never gets a gradient."""
        return any(name == module or name.startswith(module + ".") for module in self.dead)

    def fingerprint(self) -> str:
        """Content hash of weights, architecture and processor: equal exactly when log-probabilities are.

        With adapters switched off it is that of the weights beneath them.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.processor.fingerprint().encode())
        digest.update(json.dumps(architecture(self.model.config.to_dict()), sort_keys=True, default=str).encode())
        if self.adapters and self._adapters_on:
            digest.update(json.dumps(self.adapters, sort_keys=True).encode())
        state = {adapters.plain_name(name): tensor for name, tensor in self.model.state_dict().items()}
        for name, tensor in sorted(state.items()):
            if adapters.is_adapter(name) and not self._adapters_on:
                continue
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
        """Write an ordinary Hugging Face directory: weights, config, tokenizer, template and image processor.

        Adapters are merged and quantised weights written in full in what is saved; the backbone stays as it is. What is
        saved generates as :meth:`generate` does: greedily, to the end of the turn.
        """
        with self._stock_attention(), plain_generation(self.model, self.processor):
            plain = self.model
            if self.adapters or any(map(adapters.is_quantized, self.model.parameters())):
                plain = adapters.plain_twin(self.model)
            plain.save_pretrained(folder)
        save_processor(self.processor.composed, folder)

    # ------------------------------------------------------------------ adapters

    def adapt(self, tower: str, modules: tuple[str, ...], settings: dict[str, Any]) -> None:
        """Give a tower an adapter in linear modules; none for no modules, and nothing to do for one that it has.

        Raises:
            BackboneError: the tower has an adapter in other modules or of other settings.
        """
        wanted = (modules, settings) if modules else None
        present = self.adapters.get(tower)
        if present is not None and present != wanted:
            raise BackboneError(
                f"the {tower} tower of {self.path} already has adapters, in other modules or of other settings: merge them first"
            )
        if wanted is not None and present is None:
            adapters.attach(self.model, tower, modules, **settings)
            self.adapters[tower] = wanted

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of all adapters."""
        return ((name, value) for name, value in self.model.named_parameters() if adapters.is_adapter(name))

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """Be the policy beneath the adapters for the duration of a block."""
        before, self._adapters_on = self._adapters_on, False
        try:
            with adapters.switched_off(self.model):
                yield
        finally:
            self._adapters_on = before

    def merge_adapters(self) -> None:
        """Make the adapters a part of the weights, for good; log-probabilities stay.

        Raises:
            BackboneError: the weights are quantised.
        """
        adapters.merge(self.model)
        self.adapters.clear()

    # ------------------------------------------------------------------ log-probabilities

    def logps(self, batch: TreeBatch) -> Float[Tensor, " targets"]:
        """Log-probability (nats, float32) of every trained token given its path, in the order of ``batch.targets``."""
        return self.read(batch).logps

    def read(self, batch: TreeBatch, *, statistics: bool = False, states: Int[Tensor, " n"] | None = None) -> Readout:
        """Log-probabilities as :meth:`logps` and, on request, more from the same forward pass.

        Args:
            statistics: also entropy and top-1 agreement at the same positions.
            states: row indices of tokens whose last hidden states are wanted too, behind the tower's last norm.
        """
        rows = batch.predictors if states is None else torch.cat([batch.predictors, states])
        hidden = separate_hidden(self, batch, rows) if self.engine == "separate" else self._shared_hidden(batch, rows)
        head, targets = self.model.get_output_embeddings(), batch.ids[batch.targets]
        readout = read_out(head, hidden[: targets.numel()], targets, softcap=self.softcap, statistics=statistics)
        return readout if states is None else readout._replace(states=hidden[targets.numel() :])

    def _shared_hidden(self, batch: TreeBatch, rows: Int[Tensor, " n"]) -> Float[Tensor, "n hidden"]:
        """Last hidden states at some positions of the row."""
        output = self.model.model(
            input_ids=batch.ids.unsqueeze(0),
            position_ids=batch.positions.unsqueeze(1) if batch.positions.shape[0] > 1 else batch.positions,
            use_cache=False,
            tree_plan=self._plan(batch).to(batch.ids.device),
            **image_inputs(batch.images),
        )
        return output.last_hidden_state.squeeze(0)[rows]

    def _plan(self, batch: TreeBatch) -> AttentionPlan | SequencePlan:
        """Sequences for a kernel that takes them; masks where there is none, or something that no such kernel does."""
        blocks = blocks_of(self.model.config.model_type, batch, self.processor.image_token_id)
        config, device = self.decoder.config, self.device
        dtype = self.model.dtype
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        special = (
            blocks is not None
            or getattr(config, "attn_logit_softcapping", None)
            or getattr(config, "attention_dropout", 0)
        )
        kernel = None if special else kernel_for(device, dtype, width)
        return plan_attention(batch, blocks) if kernel is None else plan_sequences(batch, kernel)

    # ------------------------------------------------------------------ generation

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        batch_size: int = 64,
        guide: Guide | None = None,
        share: bool = False,
        temperature: float = 0.0,
    ) -> list[str]:
        """Answers, one a prompt, in the order given; prompts of similar length are padded together.

        Args:
            guide: from last hidden states to what is added to the logits there.
            share: read what prompts about the same images have in common once a batch, where the architecture allows it
                (:func:`can_share_prefixes`); the answers are the same to rounding.
            temperature: above 0, tokens are drawn from the whole distribution at this temperature, by torch's own random
                numbers; 0 takes the likeliest.

        Raises:
            BackboneError: a guide for a model that bounds its logits, which would bend what is added.
        """
        training = self.training
        self.eval()
        try:
            with self._stock_attention(), self._guided(guide):
                sharing = share and can_share_prefixes(self.model.config.model_type, self.decoder.config)
                way = generate_behind_prefixes if sharing else generate
                options = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "temperature": temperature}
                return way(self.model, self.processor, prompts, **options)
        finally:
            self.train(training)

    @contextmanager
    def _guided(self, guide: Guide | None) -> Iterator[None]:
        """Add to the logits for the duration of a call."""
        if guide is None:
            yield
            return
        if self.softcap is not None:
            raise BackboneError(f"{self.path} bounds its logits: answers of it cannot be guided")
        head = self.model.get_output_embeddings()
        handle = head.register_forward_hook(lambda _, states, logits: logits + guide(states[0]).to(logits.dtype))
        try:
            yield
        finally:
            handle.remove()

    def use(self, engine: Engine) -> None:
        """Switch to an engine for good.

        Raises:
            BackboneError: the language tower cannot share.
        """
        if engine == "shared":
            require_shareable(self.decoder.config)
        self.engine: Engine = engine
        # Not set per call: a recomputed forward (checkpointing) must find the same function.
        self._set_attention(engine)

    @contextmanager
    def running(self, engine: Engine) -> Iterator[None]:
        """Use another engine within the block, backward passes included; for comparisons."""
        if engine == "shared":
            require_shareable(self.decoder.config)
        before, self.engine = self.engine, engine
        self._set_attention(engine)
        try:
            yield
        finally:
            self.engine = before
            self._set_attention(before)

    @contextmanager
    def _stock_attention(self) -> Iterator[None]:
        """Attend as transformers does for the duration of a call."""
        self._set_attention("separate")
        try:
            yield
        finally:
            self._set_attention(self.engine)

    def _set_attention(self, engine: Engine) -> None:
        shared = engine == "shared"
        self.decoder.config._attn_implementation = TREE_ATTENTION if shared else self.attention
        for config, stock in self._windowed:
            config._attn_implementation = WINDOW_ATTENTION if shared else stock
