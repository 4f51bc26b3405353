"""Published corpora from the command line's point of view: read as they are, trained on, mixed, inspected, refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL

from spatial_lightning.data import MixtureDataModule
from spatial_lightning.records import RecordError
from spatial_lightning.runs.build import build_processor
from spatial_lightning.runs.config import ConfigError, compose_run
from spatial_lightning.runs.entry import say
from spatial_lightning.runs.inspection import inspect
from spatial_lightning.runs.mixed import build_data, prepare_data
from spatial_lightning.runs.training import train

_OWN = ("data.train_images", "data.val_images", "data.module.val_examples")


def overrides(place: Path, *more: str) -> list[str]:
    """A small run on a corpus that does not come from scenes."""
    general = [override for override in SMALL if not override.startswith(_OWN)]
    return [*general, f"outputs={place / 'outputs'}", f"cache={place / 'cache'}", *more]


def placeholders(folder: Path, names: Iterable[str]) -> Path:
    """A noisy picture under each name; the samples come without their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(sorted(set(names))):
        noise = np.random.default_rng(index).integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def vsr(shared: Path, folder: Path) -> list[str]:
    path = shared / "vsr" / "splits" / "zeroshot" / "dev.jsonl"
    images = placeholders(folder, (row["image"] for row in lines(path)))
    return ["data=published_questions", "+corpus=vsr", f"data.reader.path={path}", f"data.reader.images={images}"]


def gqa(shared: Path, folder: Path) -> list[str]:
    path = shared / "gqa_testdev" / "testdev_balanced_questions.json"
    images = placeholders(folder, (f"{entry['imageId']}.jpg" for entry in json.loads(path.read_text()).values()))
    return ["data=published_questions", "+corpus=gqa", f"data.reader.path={path}", f"data.reader.images={images}"]


def bench(shared: Path, folder: Path) -> list[str]:
    path = shared / "spatialrgpt_bench" / "questions.jsonl"
    images = placeholders(folder, (f"{row['id']}.jpg" for row in lines(path)))
    reader = [f"data.reader.path={path}", f"data.reader.images={images}", "data.reader.picture_name='{id}.jpg'"]
    return ["data=published_questions", "+corpus=rgpt_bench", "data.reader.regions=names", *reader]


def image_chat(shared: Path, folder: Path) -> list[str]:
    path = shared / "llamafactory_demo" / "mllm_demo.json"
    return ["data=published_traces", "+corpus=chat", f"data.reader.path={path}", "data.val_share=0.3"]


def tool_chat(shared: Path, folder: Path) -> list[str]:
    path = shared / "llamafactory_demo" / "glaive_toolcall_en_demo.json"
    return ["data=published_traces", "+corpus=tool_chat", f"data.reader.path={path}", "data.val_share=0.2"]


def typed_tool_chat(shared: Path, folder: Path) -> list[str]:
    path = shared / "llamafactory_demo" / "reason_tool_use_demo_50.jsonl"
    return ["data=published_traces", "+corpus=tool_chat", f"data.reader.path={path}", "data.val_share=0.2"]


def sketchpad(shared: Path, folder: Path) -> list[str]:
    path = shared / "visual_sketchpad_traces"
    options = ["data.reader.removed=drop", "data.val_share=0.4", "data.module.token_budget=16384"]
    return ["data=published_traces", "+corpus=sketchpad", f"data.reader.path={path}", *options]


def preferences(shared: Path, folder: Path) -> list[str]:
    path = shared / "llamafactory_demo" / "dpo_en_demo.json"
    objective = ["objective=dpo", "reference=frozen_copy", "data.val_share=0.2"]
    return ["data=published_preferences", "+corpus=preference_chat", f"data.reader.path={path}", *objective]


def side_by_side(shared: Path, folder: Path) -> list[str]:
    path = shared / "imageinwords" / "DOCCI_Test" / "data.jsonl"
    images = placeholders(folder, (f"{row['image']}.jpg" for row in lines(path)))
    reader = ["+corpus=imageinwords", f"data.reader.path={path}", f"data.reader.images={images}"]
    return ["data=published_preferences", *reader, "objective=dpo", "reference=cached", "data.train_records=12"]


SAMPLES = [vsr, gqa, bench, image_chat, tool_chat, typed_tool_chat, sketchpad, preferences, side_by_side]


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_published_sample_is_trained_on(sample: object, shared_data: Path, tmp_path: Path) -> None:
    assert callable(sample)
    config = compose_run(overrides(tmp_path, *sample(shared_data, tmp_path / "pictures")))
    run = train(config, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["throughput"]["tokens_per_s"] > 0
    assert "held-out records" in (run / "report.md").read_text()


def table(folder: Path, images: int, bad: int = 0) -> list[str]:
    """A small corpus of plain rows, four questions of two kinds to a picture; ``bad`` rows name no picture that exists."""
    placeholders(folder, (f"{i}.png" for i in range(images)))
    rows = [
        {
            "image": f"{i}.png",
            "question": f"Is it {q}?",
            "answer": "yes" if q else "no",
            "kind": "rare" if q == 3 else "usual",
        }
        for i in range(images)
        for q in range(4)
    ]
    rows += [{"image": f"lost{i}.png", "question": "Is it?", "answer": "no", "kind": "usual"} for i in range(bad)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["data.reader.kind_column=kind", f"data.reader.path={folder / 'rows.jsonl'}"]
    return ["data=published_questions", "+corpus=question_rows", *options]


def test_held_out_pictures_are_never_trained_on(tmp_path: Path) -> None:
    config = compose_run(overrides(tmp_path, *table(tmp_path / "data", 20), "data.val_share=0.3"))
    data = build_data(config, build_processor(config), prepare_data(config, tmp_path / "cache", say=say))
    data.setup("fit")
    train_images, val_images = (
        {image for record in data.records[split] for image in record.images} for split in ("train", "val")
    )
    assert not train_images & val_images
    assert len(train_images | val_images) == 20
    assert all(len(record.questions) == 4 for record in data.records["train"]), "questions of a picture are one record"


def test_pictures_of_a_validation_file_are_taken_out_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = table(tmp_path / "data", 6)
    rows = (tmp_path / "data" / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "data" / "val.jsonl").write_text("".join(rows[:8]))
    config = compose_run(overrides(tmp_path, *given, f"data.val_path={tmp_path / 'data' / 'val.jsonl'}"))
    files = prepare_data(config, tmp_path / "cache", say=say)
    assert "2 training records are about held-out images and were left out" in files.notes


def test_bad_rows_stop_the_run_or_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = table(tmp_path / "data", 10, bad=2)
    with pytest.raises(RecordError, match=r"rows.jsonl:41: .*lost0.png does not exist"):
        prepare_data(compose_run(overrides(tmp_path, *given)), tmp_path / "cache", say=say)
    config = compose_run(overrides(tmp_path, *given, "data.max_bad_fraction=0.1", "inspect=data"))
    page = inspect(config, tmp_path / "run", say=say)
    printed, html = capsys.readouterr().out, page.read_text()
    assert "does not exist" in printed
    for place in ("rows.jsonl:41", "rows.jsonl:42"):
        assert place in html
    assert "No picture is in both splits." in printed
    assert html.count("<article>") >= 2
    assert "<mark" in html
    assert "data:image/png;base64" in html


def test_streams_start_without_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = table(tmp_path / "data", 12)
    with pytest.raises(ConfigError, match="set data.val_path"):
        train(compose_run(overrides(tmp_path, *given, "data.streaming=true")), tmp_path / "refused")
    table(tmp_path / "val", 3)
    held_out = [f"data.val_path={tmp_path / 'val' / 'rows.jsonl'}", f"data.val_images={tmp_path / 'val'}"]
    run = train(compose_run(overrides(tmp_path, *given, *held_out, "data.streaming=true")), tmp_path / "run")
    assert json.loads((run / "summary.json").read_text())["steps"] == 2
    assert "checked" not in capsys.readouterr().out.replace(str(tmp_path / "val"), "").split("answering")[0].replace(
        "checked /rows.jsonl", ""
    )


def test_a_reader_of_another_kind_is_refused(tmp_path: Path) -> None:
    config = compose_run(overrides(tmp_path, "data=published_traces", "+corpus=gqa", "data.reader.path=x.json"))
    with pytest.raises(
        ConfigError, match="GQA reads questions, and this data takes traces: choose data=published_questions"
    ):
        prepare_data(config, tmp_path / "cache", say=say)


def test_data_without_a_reader_says_how_to_choose_one(tmp_path: Path) -> None:
    config = compose_run(overrides(tmp_path, "data=published_questions"))
    with pytest.raises(ConfigError, match=r"data.reader is missing: .*\+corpus="):
        prepare_data(config, tmp_path / "cache", say=say)


def mixture(tmp_path: Path, *more: str) -> list[str]:
    general = [
        override.replace("data.", "data.corpora.general.").replace("+corpus=", "+corpus@data.corpora.general.reader=")
        for override in table(tmp_path / "data", 10)[1:]
    ]
    spatial = ["data.corpora.spatial.train_images=6", "data.corpora.spatial.val_images=3"]
    return overrides(tmp_path, "data=mixture", *general, *spatial, *more)


def test_a_mixture_is_trained_on_and_reported_by_corpus(tmp_path: Path) -> None:
    weights = "data.module.weights={spatial: 0.05, general: 0.95}"
    config = compose_run(mixture(tmp_path, weights, "data.module.by=tokens", "evaluation.questions=40"))
    run = train(config, tmp_path / "run")
    report = (run / "report.md").read_text()
    assert "general: usual" in report
    assert "spatial: left_right" in report
    processor = build_processor(config)
    data = build_data(config, processor, prepare_data(config, tmp_path / "cache", say=say))
    assert isinstance(data, MixtureDataModule)
    data.setup("fit")
    tokens = {"spatial": 0, "general": 0}
    for epoch in range(200):
        for index in data.order(epoch).tolist():
            record = data.records["train"][index]
            tree = data.tree(record, epoch=epoch)
            assert tree is not None
            tokens[record.corpus] += tree.trained_tokens
    assert tokens["spatial"] / sum(tokens.values()) == pytest.approx(0.05, abs=0.02)


def test_an_inspected_pair_says_which_side_is_which(tmp_path: Path) -> None:
    said: list[str] = []
    scenes = ("data.train_images=6", "data.val_images=3")
    config = compose_run(overrides(tmp_path, "+experiment=fdpo_vit_unfrozen", "inspect=data", *scenes))
    page = inspect(config, tmp_path / "run", say=said.append).read_text()
    assert page.count("<small>chosen, ") == page.count("<small>rejected, ") > 0
    assert "</reasoning>" not in "".join(said)
