"""Seven kinds of offline RL over a real backbone: oracles, identities, packing, heads, references, resumption."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from fitting import CALM, Watch, fit_rows, trainer
from rated import Branch, Traces, branches_of, imitated, rated_traces, return_of, reward, trees_of
from samples import gradient_error, paths, question, relative, stock_inputs

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder
from spatial_lightning.modules import OfflineRLModule, SFTModule
from spatial_lightning.modules.finetuner import Optimization
from spatial_lightning.modules.method import imitation
from spatial_lightning.modules.mismatched import ForeignActions
from spatial_lightning.modules.offline_rl import METHODS
from spatial_lightning.modules.steps import Steps
from spatial_lightning.modules.value_heads import ValueHeads
from spatial_lightning.records import Step, Trace
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import compose_run
from spatial_lightning.tree import TokenTree, pack

VARIANTS: dict[str, dict[str, Any]] = {
    "filtered_bc": {"kind": "filtered_bc", "tau": 5.0},
    "filtered_bc by trace": {"kind": "filtered_bc", "tau": 6.0, "level": "trace"},
    "rwr": {"kind": "rwr"},
    "awr none": {"kind": "awr", "baseline": "none"},
    "awr dataset": {"kind": "awr", "baseline": "dataset", "gamma": 0.9, "normalise": "sum"},
    "awr step": {"kind": "awr", "baseline": "step"},
    "awr question": {"kind": "awr", "baseline": "question", "max_weight": 1.5},
    "awr value": {"kind": "awr", "baseline": "value"},
    "iql": {"kind": "iql", "gamma": 0.9},
    "ilql": {"kind": "ilql", "gamma": 0.9},
    "step_dpo": {"kind": "step_dpo", "beta": 0.5},
    "kto": {"kind": "kto", "beta": 0.5, "undesirable_weight": 1.2},
}
IMITATING = [name for name in VARIANTS if name not in ("step_dpo", "kto")]
WITH_HEADS = ("awr value", "iql", "ilql")


def make(variant: str, backbone: Backbone, reference: Any = None, **options: Any) -> OfflineRLModule:
    settings = VARIANTS[variant] | options
    towers, optimization = settings.pop("towers", TowerPlan()), settings.pop("optimization", CALM)
    needs = settings["kind"] in ("step_dpo", "kto")
    torch.manual_seed(3)
    tuner = OfflineRLModule(
        backbone,
        towers=towers,
        optimization=optimization,
        reference=reference or ("frozen_copy" if needs else "none"),
        **settings,
    )
    if tuner.heads is not None:  # else all values are 0 at first
        for name, value in tuner.heads.named_parameters():
            if name.endswith("last.weight"):
                torch.nn.init.normal_(value, std=0.2)
    return tuner


@pytest.fixture(scope="module")
def groups(pictures: tuple[Path, ...]) -> list[list[Trace]]:
    return rated_traces(pictures)


@pytest.fixture(scope="module")
def trees(tiny: Backbone, groups: list[list[Trace]]) -> list[TokenTree]:
    return trees_of(tiny, groups)


def fit(tuner: OfflineRLModule, data: Traces, folder: Path, **options: Any) -> Watch:
    watch = Watch()
    trainer(folder, watch, **options).fit(tuner, datamodule=data)
    return watch


# ---------------------------------------------------------------------- against the formulas


def weights_by_hand(variant: str, branches: Sequence[Branch], groups: Sequence[Sequence[Trace]]) -> dict[int, float]:
    options = VARIANTS[variant]
    if options["kind"] == "filtered_bc":
        by_trace = options.get("level") == "trace"

        def rating(branch: Branch) -> float:
            known = [step.rating for step in branch.trace.steps if step.rating is not None]
            return sum(known) / len(known) if by_trace else branch.rating

        return {i: float(rating(b) >= options["tau"]) for i, b in enumerate(branches)}
    settings = {key: options[key] for key in ("gamma", "normalise") if key in options}

    def worth(trace: Trace, t: int) -> float:
        return return_of(trace, t, **settings)

    everything = [(trace, t) for group in groups for trace in group for t in range(len(trace.steps))]
    mean = sum(worth(*place) for place in everything) / len(everything)
    weights = {}
    for i, branch in enumerate(branches):
        same = [worth(trace, t) for trace, t in everything if t == branch.number]
        rivals = [other for other in groups[branch.tree] if other is not branch.trace]
        baseline = {
            "none": 0.0,
            "dataset": mean,
            "step": sum(same) / len(same),
            "question": sum(worth(r, min(branch.number, len(r.steps) - 1)) for r in rivals) / len(rivals)
            if rivals
            else mean,
        }[options.get("baseline", "none")]
        advantage = worth(branch.trace, branch.number) - baseline
        weights[i] = min(math.exp(advantage / 0.5), options.get("max_weight", 20.0))
    return weights


def policy_gradient(backbone: Backbone, loss: Callable[[torch.Tensor], torch.Tensor], batch: Any) -> tuple[float, dict]:
    backbone.zero_grad()
    value = loss(backbone.logps(batch))
    value.backward()
    gradient = {f"backbone.{n}": p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    return float(value.detach()), gradient


@pytest.mark.parametrize("variant", [name for name in IMITATING if name not in WITH_HEADS])
def test_imitation_agrees_with_the_formula(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    batch = pack(trees)
    branches = branches_of(groups, batch)
    weights = weights_by_hand(variant, branches, groups)
    assert len({weights[i] for i, branch in enumerate(branches) if branch.accepted}) > 1
    value, gradient = policy_gradient(policy, lambda logps: imitated(logps, branches, weights), batch)
    watch = fit(make(variant, policy), Traces(groups, [[trees]]), tmp_path)
    metrics = watch.metrics[0]
    assert metrics["train/loss"] == pytest.approx(value, rel=1e-5)
    assert gradient_error(watch.gradients[0], gradient) <= 1e-5
    own = torch.tensor([weights[i] for i, branch in enumerate(branches) if branch.accepted])
    assert metrics["train/weight_mean"] == pytest.approx(float(own.mean()), rel=1e-5)
    assert metrics["train/weight_max"] == pytest.approx(float(own.max()), rel=1e-5)
    assert metrics["train/weight_p50"] == pytest.approx(float(own.quantile(0.5)), rel=1e-5)
    assert metrics["train/kept"] == pytest.approx(float((own > 0).float().mean()))
    assert metrics["train/effective_sample_size"] == pytest.approx(float(own.sum() ** 2 / (own**2).sum()), rel=1e-5)
    assert metrics["train/unrated"] == pytest.approx(1 / 8)
    if "max_weight" in VARIANTS[variant]:
        assert metrics["train/clipped"] == pytest.approx(float((own >= 1.5).float().mean()))
        assert 0 < metrics["train/clipped"] < 1
    if variant in ("rwr", "awr step"):
        at_1 = [return_of(b.trace, 1) for b in branches if b.accepted and b.number == 1]
        assert metrics["train/return_step_1"] == pytest.approx(sum(at_1) / len(at_1), rel=1e-5)


def states_by_hand(stock: Backbone, trees: Sequence[TokenTree]) -> dict[tuple[int, int, int], torch.Tensor]:
    """Last hidden state at every token of every node, by (tree, node, token), from stock forwards of single paths."""
    states: dict[tuple[int, int, int], torch.Tensor] = {}
    for number, tree in enumerate(trees):
        for path in paths(tree):
            with torch.no_grad():
                hidden = stock.model.model(**stock_inputs(stock, tree, path), use_cache=False).last_hidden_state[0]
            places = [(number, node, k) for node in path for k in range(tree.nodes[node].ids.numel())]
            states |= dict(zip(places, hidden.double(), strict=True))
    return states


def head_by_hand(heads: ValueHeads, name: str, state: torch.Tensor) -> torch.Tensor:
    parts = {key: value.double() for key, value in heads.state_dict().items()}
    inner = parts[f"{name}.inner.weight"] @ state + parts[f"{name}.inner.bias"]
    return parts[f"{name}.last.weight"] @ inner.clamp(min=0)


def expectile(error: float, eta: float) -> float:
    return abs(eta - (error < 0)) * error * error


def nodes_of(trees: Sequence[TokenTree]) -> list[tuple[int, int]]:
    """Tree and node of each branch."""
    found = {}
    for number, tree in enumerate(trees):
        for index, node in enumerate(tree.nodes):
            if node.branch >= 0:
                found[number, node.branch] = (number, index)
    return [found[key] for key in sorted(found)]


def before_and_behind(trees: Sequence[TokenTree], place: tuple[int, int]) -> tuple[Any, Any]:
    tree, node = place
    parent = trees[tree].nodes[node].parent
    return (tree, parent, trees[tree].nodes[parent].ids.numel() - 1), (
        tree,
        node,
        trees[tree].nodes[node].ids.numel() - 1,
    )


def follower(branches: Sequence[Branch], i: int) -> int | None:
    own = branches[i]
    return next(
        (j for j, b in enumerate(branches) if b.trace is own.trace and b.number == own.number + 1 and b.accepted), None
    )


def immediate(branch: Branch) -> float:
    return reward(branch.rating) + (branch.last and bool(branch.trace.correct))


def test_iql_agrees_with_the_formula(
    policy: Backbone, separate: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    tuner = make("iql", policy)
    assert isinstance(tuner.heads, ValueHeads)
    heads, batch, places = copy.deepcopy(tuner.heads), pack(trees), nodes_of(trees)
    branches, states = branches_of(groups, batch), states_by_hand(separate, trees)
    accepted = [i for i, branch in enumerate(branches) if branch.accepted]
    v, q, guess = {}, {}, {}
    for i in accepted:
        before, behind = (states[place] for place in before_and_behind(trees, places[i]))
        v[i] = float(head_by_hand(heads, "value", before))
        q[i] = [float(head_by_hand(heads, f"q.{k}", behind)) for k in (0, 1)]
        guess[i] = min(float(head_by_hand(heads, f"targets.{k}", behind)) for k in (0, 1))
    assert len(set(v.values())) == len(accepted) - 1  # two traces start from one state
    value = sum(expectile(guess[i] - v[i], 0.7) for i in accepted) / len(accepted)
    action = 0.0
    for i in accepted:
        after = follower(branches, i)
        wanted = immediate(branches[i]) + (0.9 * v[after] if after is not None else 0.0)
        action += sum((wanted - own) ** 2 for own in q[i]) / len(accepted)
    weights = {i: min(math.exp((guess[i] - v[i]) / 0.5), 20.0) for i in accepted}
    imitating, gradient = policy_gradient(policy, lambda logps: imitated(logps, branches, weights), batch)
    watch = fit(tuner, Traces(groups, [[trees]]), tmp_path)
    metrics = watch.metrics[0]
    assert metrics["train/value_loss"] == pytest.approx(value, rel=1e-4)
    assert metrics["train/q_loss"] == pytest.approx(action, rel=1e-4)
    assert metrics["train/loss"] == pytest.approx(imitating + value + action, rel=1e-4)
    own = {name: g for name, g in watch.gradients[0].items() if name.startswith("backbone.")}
    assert gradient_error(own, gradient) <= 1e-4
    assert {name for name in watch.gradients[0] if not name.startswith("backbone.")} == {
        f"heads.{name}" for name, p in heads.named_parameters() if p.requires_grad
    }


def test_ilql_agrees_with_the_formula(
    policy: Backbone, separate: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    tuner = make("ilql", policy)
    assert isinstance(tuner.heads, ValueHeads)
    heads, batch, places = copy.deepcopy(tuner.heads), pack(trees), nodes_of(trees)
    branches, states = branches_of(groups, batch), states_by_hand(separate, trees)
    tokens: dict[tuple[int, int], tuple[float, list[torch.Tensor], float, int]] = {}
    for i, branch in enumerate(branches):
        if not branch.accepted:
            continue
        tree, node = places[i]
        ids = trees[tree].nodes[node].ids.tolist()
        for k, action in enumerate(ids):
            state = states[before_and_behind(trees, places[i])[0] if k == 0 else (tree, node, k - 1)]
            q = [head_by_hand(heads, f"q.{h}", state) for h in (0, 1)]
            guess = min(float(head_by_hand(heads, f"targets.{h}", state)[action]) for h in (0, 1))
            tokens[i, k] = (float(head_by_hand(heads, "value", state)), q, guess, action)
    value = action_loss = push = 0.0
    for (i, k), (v, q, guess, action) in tokens.items():
        after = follower(branches, i)
        if (i, k + 1) in tokens:
            wanted = tokens[i, k + 1][0]
        else:
            wanted = immediate(branches[i]) + (0.9 * tokens[after, 0][0] if after is not None else 0.0)
        value += expectile(guess - v, 0.7) / len(tokens)
        action_loss += sum((wanted - float(own[action])) ** 2 for own in q) / len(tokens)
        push += sum(float(own.logsumexp(0) - own[action]) for own in q) / len(tokens)
    ones = dict.fromkeys(range(len(branches)), 1.0)
    imitating, gradient = policy_gradient(policy, lambda logps: imitated(logps, branches, ones), batch)
    watch = fit(tuner, Traces(groups, [[trees]]), tmp_path)
    metrics = watch.metrics[0]
    assert metrics["train/value_loss"] == pytest.approx(value, rel=1e-4)
    assert metrics["train/q_loss"] == pytest.approx(action_loss, rel=1e-4)
    assert metrics["train/cql"] == pytest.approx(push, rel=1e-4)
    assert metrics["train/loss"] == pytest.approx(imitating + value + action_loss + 0.1 * push, rel=1e-4)
    own = {name: g for name, g in watch.gradients[0].items() if name.startswith("backbone.")}
    assert gradient_error(own, gradient) <= 1e-4


def test_awr_with_values_agrees_with_the_formula(
    policy: Backbone, separate: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    tuner = make("awr value", policy)
    assert isinstance(tuner.heads, ValueHeads)
    heads, batch, places = copy.deepcopy(tuner.heads), pack(trees), nodes_of(trees)
    branches, states = branches_of(groups, batch), states_by_hand(separate, trees)
    weights, errors = {}, []
    for i, branch in enumerate(branches):
        if branch.accepted:
            state = states[before_and_behind(trees, places[i])[0]]
            errors.append(return_of(branch.trace, branch.number) - float(head_by_hand(heads, "value", state)))
            weights[i] = min(math.exp(errors[-1] / 0.5), 20.0)
    imitating, _ = policy_gradient(policy, lambda logps: imitated(logps, branches, weights), batch)
    square = sum(error * error for error in errors) / len(errors)
    metrics = fit(tuner, Traces(groups, [[trees]]), tmp_path).metrics[0]
    assert metrics["train/value_error"] == pytest.approx(square, rel=1e-4)
    assert metrics["train/loss"] == pytest.approx(imitating + square / 2, rel=1e-4)


def compared(variant: str, branches: Sequence[Branch], policy: torch.Tensor, reference: torch.Tensor, z0: float) -> Any:
    """Step-DPO or KTO by the formula, on sums over branches."""
    options = VARIANTS[variant]
    gains = [policy[b.at].double().sum() - reference[b.at].double().sum() for b in branches]
    losses = []
    for i, b in enumerate(branches):
        if variant == "kto" and not math.isnan(b.rating):
            logit = options["beta"] * (gains[i] - z0) * (1 if b.rating >= 4 else -1)
            losses.append((1 - torch.sigmoid(logit)) * (1.0 if b.rating >= 4 else 1.2))
        if variant == "step_dpo" and not b.accepted:
            w = next(j for j, a in enumerate(branches) if a.accepted and (a.trace, a.number) == (b.trace, b.number))
            if branches[w].rating - b.rating >= 1:
                losses.append(-torch.nn.functional.logsigmoid(options["beta"] * (gains[w] - gains[i])))
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize(("variant", "count"), [("step_dpo", 4), ("kto", 12)])
def test_comparisons_agree_with_the_formula(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str, count: int
) -> None:
    batch = pack(trees)
    branches, start = branches_of(groups, batch), copy.deepcopy(policy)
    moved = copy.deepcopy(policy)
    fit(make(variant, moved), Traces(groups, [[trees]]), tmp_path)
    with torch.no_grad():
        reference = start.logps(batch)
    z0 = 0.0
    if variant == "kto":
        other = ForeignActions([t for g in groups for t in g], policy.processor).row(batch)
        assert other is not None
        with torch.no_grad():
            z0 = max(0.0, float((moved.logps(other) - start.logps(other)).sum()) / other.branches)
        assert z0 > 0
    loss, found = compared(variant, branches, moved.logps(batch), reference, z0)
    assert found == count
    value, gradient = policy_gradient(moved, lambda logps: compared(variant, branches, logps, reference, z0)[0], batch)
    watch = fit(make(variant, policy), Traces(groups, [[trees]] * 2), tmp_path)
    assert watch.metrics[1]["train/loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert watch.metrics[1]["train/loss"] == pytest.approx(value, rel=1e-4)
    assert gradient_error(watch.gradients[1], gradient) <= 1e-4
    if variant == "kto":
        assert watch.metrics[1]["train/z0"] == pytest.approx(z0, rel=1e-3)
        assert watch.metrics[1]["train/desirable"] == pytest.approx(7 / 12)
    else:
        assert watch.metrics[1]["train/paired"] == pytest.approx(4 / 6)


# ---------------------------------------------------------------------- identities


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("filtered_bc", {"tau": 0.0}),
        ("filtered_bc by trace", {"tau": 0.0}),
        ("awr step", {"temperature": math.inf}),
        ("rwr", {"temperature": math.inf}),
        ("ilql", {}),
    ],
)
def test_weights_of_1_are_supervised_training_on_accepted_steps(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str, options: Any
) -> None:
    bare = [[replace(t, steps=tuple(replace(s, rejected=()) for s in t.steps)) for t in group] for group in groups]
    supervised = SFTModule(copy.deepcopy(policy), towers=TowerPlan(), optimization=CALM)
    expected = fit_rows(supervised, [[pack(trees_of(policy, bare))]], tmp_path)
    watch = fit(make(variant, policy, **options), Traces(groups, [[trees]]), tmp_path)
    own = {name: g for name, g in watch.gradients[0].items() if name.startswith("backbone.")}
    assert gradient_error(own, expected.gradients[0]) <= 1e-5
    assert watch.metrics[0]["train/nll"] == pytest.approx(expected.metrics[0]["train/loss"], rel=1e-5)


@pytest.mark.parametrize("variant", IMITATING)
def test_rejected_attempts_are_never_imitated(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    bare = [[replace(t, steps=tuple(replace(s, rejected=()) for s in t.steps)) for t in group] for group in groups]
    with_attempts = fit(make(variant, copy.deepcopy(policy)), Traces(groups, [[trees]]), tmp_path)
    without = fit(make(variant, policy), Traces(groups, [[trees_of(policy, bare)]]), tmp_path)
    assert gradient_error(with_attempts.gradients[0], without.gradients[0]) <= 1e-5
    assert with_attempts.metrics[0]["train/loss"] == pytest.approx(without.metrics[0]["train/loss"], rel=1e-5)


def test_impossible_rejected_tokens_stay_finite_and_get_no_gradient(trees: list[TokenTree]) -> None:
    batch = pack(trees)
    steps = Steps.of(batch)
    rejected = ~steps.accepted[batch.branch]
    logps = torch.where(rejected, -math.inf, -1.0).requires_grad_()
    totals = {"tokens": float((~rejected).sum()), "steps": float(steps.accepted.sum())}
    loss, metrics = imitation(logps, batch, steps, torch.ones(batch.branches), totals)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert all(bool(value.isfinite()) for value in metrics.values())
    assert logps.grad is not None
    assert bool((logps.grad[rejected] == 0).all())
    assert bool((logps.grad[~rejected] < 0).all())


def test_awr_without_baseline_is_rwr(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    data = Traces(groups, [[trees]])
    one, two = (fit(make(v, copy.deepcopy(policy)), data, tmp_path) for v in ("rwr", "awr none"))
    assert all(torch.equal(one.gradients[0][name], value) for name, value in two.gradients[0].items())


@pytest.mark.parametrize(("variant", "expected"), [("step_dpo", math.log(2)), ("kto", (7 + 1.2 * 5) / 12 / 2)])
def test_policy_as_reference(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str, expected: float
) -> None:
    watch = fit(make(variant, policy), Traces(groups, [[trees]]), tmp_path)
    assert watch.metrics[0]["train/loss"] == pytest.approx(expected, rel=1e-6)
    assert watch.metrics[0]["train/gradient_norm"] > 0


def test_step_dpo_sees_nothing_but_the_pairs(policy: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> None:
    """What comes behind a pair, and attempts rated too near, leave its gradient alone."""
    pair = Step("look", "here", (), 8.0, (("guess", 2.0),))
    near = replace(pair, rejected=(*pair.rejected, ("no", 7.5), ("yes", None)))
    asked = question()
    gradients = []
    for steps in ((pair,), (near, Step("The answer is the cube", rating=9.0))):
        group = [[Trace("t", tuple(pictures[:1]), asked, steps)]]
        tuner = make("step_dpo", copy.deepcopy(policy))
        gradients.append(fit(tuner, Traces(group, [[trees_of(policy, group)]]), tmp_path).gradients[0])
    assert gradient_error(*gradients) <= 1e-5


def test_a_step_without_pairs_moves_nothing(policy: Backbone, groups: list[list[Trace]], tmp_path: Path) -> None:
    before = copy.deepcopy(policy.state_dict())
    watch = fit(make("step_dpo", policy), Traces(groups, [[trees_of(policy, groups[2:])]]), tmp_path)
    assert watch.metrics[0]["train/loss"] == 0
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


# ---------------------------------------------------------------------- packing, references, heads


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_row_and_three_rows_give_the_same_steps(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    packings = ([trees], [[tree] for tree in trees[::-1]])
    one, three = (fit(make(variant, copy.deepcopy(policy)), Traces(groups, [rows] * 2), tmp_path) for rows in packings)
    for step in (0, 1):
        # Behind the first update, in which AdamW makes much of rounding where a gradient is next to nothing, less exact.
        assert gradient_error(three.gradients[step], one.gradients[step]) <= (2e-3 if step else 1e-5)
        assert set(three.metrics[step]) == set(one.metrics[step])
        for name, value in one.metrics[step].items():
            if "tokens_per_s" not in name:
                assert three.metrics[step][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("variant", ["iql", "ilql", "kto"])
def test_both_engines_give_the_same_step(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    shared = fit(make(variant, copy.deepcopy(policy)), Traces(groups, [[trees]] * 2), tmp_path)
    policy.use("separate")
    alone = fit(make(variant, policy), Traces(groups, [[trees]] * 2), tmp_path)
    assert alone.metrics[1]["train/loss"] == pytest.approx(shared.metrics[1]["train/loss"], rel=1e-4)
    assert gradient_error(alone.gradients[0], shared.gradients[0]) <= 1e-4


@pytest.mark.parametrize("variant", ["step_dpo", "kto"])
def test_cached_and_live_references_train_alike(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    data, seen, tuners = Traces(groups, [[trees[:1], trees[1:]]] * 3), {}, {}
    for reference in ("frozen_copy", "cached", "cached"):
        tuners[reference] = make(variant, copy.deepcopy(policy), reference, cache_folder=tmp_path / "cache")
        seen[reference] = fit(tuners[reference], data, tmp_path)
    assert tuners["cached"].reference.computed == 0  # type: ignore[attr-defined]
    for live, cached in zip(seen["frozen_copy"].metrics, seen["cached"].metrics, strict=True):
        assert cached["train/loss"] == pytest.approx(live["train/loss"], rel=1e-4)
        if variant == "kto":
            assert cached["train/z0"] == pytest.approx(live["train/z0"], rel=1e-2, abs=1e-4)
    assert seen["cached"].metrics[2]["train/loss"] < seen["cached"].metrics[0]["train/loss"] - 1e-3


@pytest.mark.parametrize("variant", ["step_dpo", "kto"])
def test_adapters_switched_off_are_the_reference_that_a_copy_is(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    frozen = Tower("frozen")
    towers = TowerPlan(frozen, frozen, Tower("lora", rank=4))
    towers.apply(policy)
    live, off = (
        fit(make(variant, copy.deepcopy(policy), reference, towers=towers), Traces(groups, [[trees]] * 3), tmp_path)
        for reference in ("frozen_copy", "adapter_off")
    )
    for one, two in zip(live.metrics, off.metrics, strict=True):
        assert two["train/loss"] == pytest.approx(one["train/loss"], rel=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_frozen_parts_stay_bit_equal_and_the_others_move(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    before = {name: value.clone() for name, value in policy.named_parameters()}
    tuner = make(variant, policy, towers=TowerPlan(vision=Tower("frozen")))
    heads = {} if tuner.heads is None else {n: v.clone() for n, v in tuner.heads.named_parameters()}
    fit(tuner, Traces(groups, [[trees]] * 2), tmp_path)
    for name, value in policy.named_parameters():
        if name in {f"model.{name}" for name, _ in policy.tower_parameters("vision")}:
            assert torch.equal(value, before[name]), name
    moved = [name for name, value in policy.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > 10
    assert bool(heads) == (variant in WITH_HEADS)
    for name, value in heads.items():
        assert tuner.heads is not None
        assert not torch.equal(value, tuner.heads.get_parameter(name)), name


def test_targets_follow_at_the_rate_given_and_heads_learn_at_their_own(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    tuner = make("iql", policy, polyak=0.25, head_lr=0.01)
    assert isinstance(tuner.heads, ValueHeads)
    before = copy.deepcopy(tuner.heads.targets.state_dict())
    run = trainer(tmp_path)
    run.fit(tuner, datamodule=Traces(groups, [[trees]]))
    learned = tuner.heads.q.state_dict()
    for name, value in tuner.heads.targets.state_dict().items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * learned[name])
    groups_of = {group["name"]: group for group in run.optimizers[0].param_groups}
    assert groups_of["heads"]["lr"] == 0.01
    assert groups_of["heads"]["weight_decay"] == 0.0
    assert len(groups_of["heads"]["params"]) == 9
    assert {group["lr"] for name, group in groups_of.items() if name != "heads"} == {CALM.lr}


@pytest.mark.parametrize("variant", WITH_HEADS)
def test_heads_leave_the_backbone_alone_unless_they_are_attached(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    options = ({"value_weight": 0.0}, {"value_weight": 5.0}, {"value_weight": 5.0, "detach": False})
    seen = [fit(make(variant, copy.deepcopy(policy), **o), Traces(groups, [[trees]]), tmp_path) for o in options]
    none, detached, attached = (
        {n: g for n, g in watch.gradients[0].items() if n.startswith("backbone.")} for watch in seen
    )
    assert gradient_error(detached, none) <= 1e-6
    assert gradient_error(attached, none) > 1e-2


def test_clipping_the_heads_leaves_the_policys_step(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    clipped = replace(CALM, max_grad_norm=0.05)
    gradients = []
    for weight in (1.0, 1000.0):
        tuner = make("iql", copy.deepcopy(policy), value_weight=weight, optimization=clipped)
        watch = fit(tuner, Traces(groups, [[trees]]), tmp_path)
        assert watch.metrics[0]["train/head_gradient_norm"] > 0.05
        gradients.append({n: g for n, g in watch.gradients[0].items() if n.startswith("backbone.")})
    assert gradient_error(*gradients) <= 1e-5


def test_values_start_at_0_so_that_iql_starts_as_imitation(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    tuner = OfflineRLModule(policy, towers=TowerPlan(), optimization=CALM, kind="iql")
    metrics = fit(tuner, Traces(groups, [[trees]]), tmp_path).metrics[0]
    assert metrics["train/weight_mean"] == metrics["train/weight_max"] == 1.0
    assert metrics["train/value"] == 0.0


def test_values_are_learned(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    """With the backbone as good as frozen, Q nears the sum of rewards and the error falls by far."""
    slow = Optimization(lr=1e-9, warmup=0.0, schedule="constant_with_warmup", max_grad_norm=None)
    tuner = make("iql", policy, optimization=slow, head_lr=1e-2, polyak=0.3, eta=0.5, gamma=1.0)
    watch = fit(tuner, Traces(groups, [[trees]] * 40), tmp_path)
    assert watch.metrics[-1]["train/q_loss"] < 0.1 * watch.metrics[0]["train/q_loss"]


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@pytest.mark.parametrize("variant", [*WITH_HEADS, "kto", "awr step"])
def test_a_resumed_run_equals_one_that_never_stopped(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            trainer.should_stop = True

    data = Traces(groups, [[trees[:2]], [trees[1:]], [trees[:1], trees[2:]]])
    reference = {"cache_folder": tmp_path / "cache"} if variant == "kto" else {}

    def fresh() -> OfflineRLModule:
        optimization = replace(CALM, schedule="linear")
        return make(
            variant, copy.deepcopy(policy), "cached" if reference else None, optimization=optimization, **reference
        )

    whole, first, second = fresh(), fresh(), fresh()
    fit(whole, data, tmp_path, max_epochs=2)
    half = trainer(tmp_path, Stop(), max_epochs=2)
    half.fit(first, datamodule=data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    assert half.global_step == 3
    trainer(tmp_path, max_epochs=2).fit(second, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, value in second.named_parameters():
        assert relative(value.detach(), whole.get_parameter(name).detach()) <= 1e-5, name
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    assert {n for n in saved if n.startswith("heads.")} == {n for n, _ in second.named_parameters() if "heads." in n}


# ---------------------------------------------------------------------- mismatched pairs, and words


def test_mismatched_actions_are_of_other_questions_and_read_as_stock_does(
    tiny: Backbone, separate: Backbone, groups: list[list[Trace]], trees: list[TokenTree]
) -> None:
    foreign = ForeignActions([trace for group in groups for trace in group], tiny.processor)
    batch = pack(trees, keys=True)
    row = foreign.row(batch)
    assert row is not None
    assert row.branches == 8
    assert row.tree_ids == batch.tree_ids
    questions = [group[0].question.text for group in groups]
    own = {text: [s.text for t in g for s in t.steps] for text, g in zip(questions, groups, strict=True)}
    accepted = [b for b in branches_of(groups, batch) if b.accepted]
    decode = tiny.processor.tokenizer.decode
    with torch.no_grad():
        found, stock = tiny.logps(row), separate.logps(row)
    assert relative(found, stock) <= 1e-5
    places = [place for place, b in zip(nodes_of(trees), branches_of(groups, batch), strict=True) if b.accepted]
    for index, branch in enumerate(accepted):
        action = row.ids[row.targets[row.branch == index]]
        assert decode(action).removesuffix("<|im_end|>") not in own[branch.trace.question.text]
        tree, node = places[index]
        path = [trees[tree].nodes[n] for n in paths_to(trees[tree], node)[:-1]]
        ids = torch.cat([*(n.ids for n in path), action]).unsqueeze(0)
        images = [image for n in path for image in n.images]
        inputs = {k: torch.cat([i.tensors[k] for i in images]) for k in (images[0].tensors if images else ())}
        kinds = (ids == tiny.processor.image_token_id).int()
        with torch.no_grad():
            logits = separate.model(input_ids=ids, mm_token_type_ids=kinds, **inputs, use_cache=False).logits[0]
        wanted = logits.log_softmax(-1)[-action.numel() - 1 : -1].gather(1, action[:, None])[:, 0]
        assert relative(found[row.branch == index], wanted) <= 1e-5


def paths_to(tree: TokenTree, node: int) -> list[int]:
    path = [node]
    while tree.nodes[path[-1]].parent >= 0:
        path.append(tree.nodes[path[-1]].parent)
    return path[::-1]


def test_mismatched_rows_depend_on_the_example_alone(
    tiny: Backbone, groups: list[list[Trace]], trees: list[TokenTree]
) -> None:
    foreign = ForeignActions([trace for group in groups for trace in group], tiny.processor)
    together = foreign.row(pack(trees[::-1], keys=True))
    assert together is not None
    alone = [foreign.row(pack([tree], keys=True)) for tree in trees[::-1]]
    assert together.tree_keys == tuple(key for row in alone if row is not None for key in row.tree_keys)
    assert len(set(together.tree_keys) | {tree.key() for tree in trees}) == 6


def test_a_corpus_of_one_question_has_no_mismatched_pair_and_says_so(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, caplog: Any
) -> None:
    with caplog.at_level(logging.WARNING):
        watch = fit(make("kto", policy), Traces(groups[:1], [[trees[:1]]] * 2), tmp_path)
    assert watch.metrics[1]["train/z0"] == 0
    assert [r.message for r in caplog.records].count(
        "KTO: no mismatched pair of state and action in a step; z0 is 0 there"
    ) == 1


def test_class_weights_out_of_balance_are_said(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, caplog: Any
) -> None:
    data = Traces(groups, [[trees]])
    with caplog.at_level(logging.WARNING):
        fit(make("kto", copy.deepcopy(policy)), data, tmp_path)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        fit(make("kto", policy, undesirable_weight=1.0, reference_point="zero"), data, tmp_path)
    assert "set objective.undesirable_weight between 1.05 and 1.4" in caplog.text


@pytest.mark.parametrize("variant", VARIANTS)
def test_validation_reports_the_loss_and_moves_nothing(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path, variant: str
) -> None:
    tuner = make(variant, policy)
    before = copy.deepcopy(tuner.state_dict())
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.validate(tuner, datamodule=Traces(groups, [[trees[:1]], [trees[1:]]]), verbose=False)
    assert math.isfinite(run.callback_metrics["val/loss"])
    assert all(torch.equal(value, before[name]) for name, value in tuner.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_every_kind_has_a_yaml_with_its_own_defaults(policy: Backbone, name: str) -> None:
    node = compose_run([f"objective={name}"]).objective
    options = {key: value for key, value in node.items() if key not in ("_target_", "kind")}
    assert node.kind == name
    reference = "frozen_copy" if name in ("step_dpo", "kto") else "none"
    tuner = build(node, backbone=policy, towers=TowerPlan(), optimization=CALM, reference=reference)
    plain = OfflineRLModule(policy, towers=TowerPlan(), optimization=CALM, reference=reference, kind=name)
    for key, value in options.items():
        assert getattr(tuner.method, key) == getattr(plain.method, key) == value, key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cql"}, "objective.kind is 'cql'; allowed: filtered_bc, rwr, awr, iql, ilql, step_dpo, kto"),
        ({"kind": "rwr", "tau": 4.0}, "objective.tau means nothing to kind=rwr; its settings are reward, bonus"),
        ({"kind": "rwr", "baseline": "step"}, "objective.baseline means nothing to kind=rwr"),
        ({"kind": "filtered_bc", "tau": 11.0}, "tau is 11.0"),
        ({"kind": "filtered_bc", "level": "token"}, "objective.level is 'token'; allowed: step, trace"),
        ({"kind": "filtered_bc", "reference": "cached"}, "choose reference=none"),
        ({"kind": "iql", "normalise": "mean"}, "'mean' with kind=iql, whose backups add rewards up: set it to sum"),
        ({"kind": "iql", "polyak": 0.0}, "objective.polyak is 0.0"),
        ({"kind": "iql", "eta": 1.0}, "tau is 1.0; an expectile"),
        ({"kind": "iql", "head_lr": -1.0}, "head_lr is -1.0"),
        ({"kind": "ilql", "cql_weight": -0.1}, "objective.cql_weight is -0.1"),
        ({"kind": "awr", "baseline": "mean"}, "objective.baseline is 'mean'; allowed: none, dataset, step, question"),
        ({"kind": "awr", "temperature": 0.0}, "temperature is 0.0"),
        ({"kind": "awr", "bonus": -1.0}, "objective.bonus is -1.0"),
        ({"kind": "awr", "gamma": 0.0}, "gamma is 0.0"),
        ({"kind": "step_dpo"}, "choose reference=cached or frozen_copy"),
        ({"kind": "step_dpo", "reference": "cached", "min_gap": -1.0}, "objective.min_gap is -1.0"),
        ({"kind": "kto", "reference": "cached", "reference_point": "batch"}, "allowed: mismatched, zero"),
        ({"kind": "kto", "reference": "cached", "desirable_weight": 0.0}, "desirable_weight is 0.0"),
    ],
)
def test_impossible_settings_are_refused_before_any_step(
    policy: Backbone, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        OfflineRLModule(policy, towers=TowerPlan(), optimization=CALM, **options)


def test_what_the_corpus_cannot_give_is_said_at_the_start(
    policy: Backbone, groups: list[list[Trace]], trees: list[TokenTree], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no question of the corpus has two: choose baseline=step"):
        fit(make("awr question", policy), Traces(groups[1:], [[trees[1:]]]), tmp_path)
    with pytest.raises(ValueError, match=r"set data.module.include_rejected=true"):
        fit(make("step_dpo", policy), Traces(groups[2:], [[trees[2:]]]), tmp_path)
    with pytest.raises(ValueError, match=r"baseline=step is fitted on the training traces, which only data of traces"):
        fit_rows(make("awr step", policy), [[pack(trees)]], tmp_path)
    with pytest.raises(ValueError, match=r"choose objective.reference_point=zero"):
        fit_rows(make("kto", policy), [[pack(trees)]], tmp_path)
    bare = [[pack([replace(tree, values={}) for tree in trees])]]
    with pytest.raises(ValueError, match=r"example q0 has no step, rating, .*choose data of traces"):
        fit_rows(make("rwr", policy), bare, tmp_path)


def test_guided_decoding_follows_the_values(policy: Backbone, pictures: tuple[Path, ...]) -> None:
    tuner = make("ilql", policy)
    assert isinstance(tuner.heads, ValueHeads)
    prompts = [Encoder(policy.processor).prompt(pictures[:1], question(str(i))) for i in range(2)]
    plain = policy.generate(prompts, max_new_tokens=5)
    assert tuner.generate(prompts, max_new_tokens=5) == plain
    assert tuner.generate(prompts, max_new_tokens=5, guidance=1e-9) == plain
    (word,) = policy.processor.tokenize("cube")[0][:1].tolist()
    torch.nn.init.zeros_(tuner.heads.value.last.weight)
    for name, value in tuner.heads.targets.named_parameters():
        torch.nn.init.constant_(value, float(name.endswith("bias")))
        if name.endswith("last.weight"):
            value.data[word] = 1.0
    guided = tuner.generate(prompts, max_new_tokens=5, guidance=100.0)
    assert guided == [policy.processor.tokenizer.decode([word] * 5).strip()] * 2
    assert policy.generate(prompts, max_new_tokens=5) == plain
    with pytest.raises(ValueError, match="only ilql has Q of tokens"):
        make("iql", policy).generate(prompts, max_new_tokens=5, guidance=1.0)
