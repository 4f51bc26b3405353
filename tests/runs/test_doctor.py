"""The doctor passes a sound backbone and fails one whose engines disagree."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from spatial_lightning.backbones import Backbone, attention
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.runs.doctor import DoctorReport, examine


@pytest.fixture(scope="module")
def report(tiny: Backbone) -> DoctorReport:
    return examine(copy.deepcopy(tiny), TowerPlan(), repeats=1)


def test_a_sound_backbone_passes_every_form_of_tree(report: DoctorReport) -> None:
    assert len(report.cases) == 7
    assert report.passed
    assert report.logps_max_rel_err <= 1e-5
    assert 0 < report.grad_max_rel_err <= 1e-5
    assert (report.unreached, report.leaked) == ((), ())
    assert set(report.tokens_per_s) == {"shared", "separate"}
    assert all(rate > 0 for rate in report.tokens_per_s.values())
    assert 0 < report.activations_mb["shared"] < report.activations_mb["separate"]
    assert report.peak_memory_gb > 0


def test_the_report_on_disk_says_what_the_screen_says(report: DoctorReport, tmp_path: Path) -> None:
    report.write(tmp_path / "doctor.json")
    written = json.loads((tmp_path / "doctor.json").read_text())
    assert written["passed"] is True
    assert written["logps_max_rel_err"] == report.logps_max_rel_err
    assert written["grad_max_rel_err"] == report.grad_max_rel_err
    assert {tower["tower"] for tower in written["towers"]} == {"vision", "projector", "language"}
    assert "passed" in report.table()
    assert "8 questions about an image" in report.table()


def test_engines_that_disagree_fail(policy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that lets a token look at all keys of its group, siblings' padding included."""
    honest = attention.within
    monkeypatch.setattr(attention, "within", lambda mask, *rest: torch.ones_like(honest(mask, *rest)))
    report = examine(policy, TowerPlan(), repeats=1)
    assert not report.passed
    assert report.logps_max_rel_err > 1e-3
    assert "FAILED" in report.table()


def test_rounding_fails_a_tolerance_of_nothing(report: DoctorReport) -> None:
    strict = DoctorReport(
        report.cases,
        report.towers,
        (),
        (),
        report.tokens_per_s,
        report.activations_mb,
        report.peak_memory_gb,
        tolerance=0.0,
    )
    assert not strict.passed


def test_frozen_towers_get_no_gradient_and_weights_stay(policy: Backbone) -> None:
    before = copy.deepcopy(policy.state_dict())
    report = examine(policy, TowerPlan(vision=Tower("frozen")), repeats=1)
    assert report.passed
    assert (report.unreached, report.leaked) == ((), ())
    assert [row.trained == 0 for row in report.towers] == [True, False, False]
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.parameters())
