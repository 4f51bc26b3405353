"""Scenes survive the disk, whatever the number of workers, and errors say what to do."""

import json

import numpy as np
import pytest
from PIL import Image

from spatial_lightning.geometry import box_corners
from spatial_lightning.records import BadRows, RecordError
from spatial_lightning.scenes import generate, read_geometry, read_scenes, render, trace, write_scenes
from spatial_lightning.scenes.layout import to_row

COUNT = 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    write_scenes(root, "train", COUNT, seed=2, workers=2, geometry=True)
    return root


def edit(root, change):
    path = root / "scenes" / "CLEVR_train_scenes.json"
    content = json.loads(path.read_text())
    change(content["scenes"])
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def damaged(tmp_path):
    write_scenes(tmp_path, "train", COUNT, seed=2, workers=1)
    return tmp_path


def test_round_trip_is_exact(corpus):
    scenes = read_scenes(corpus, "train")
    assert [scene.index for scene in scenes] == list(range(COUNT))
    for scene in scenes:
        original = generate(2, scene.index)
        assert to_row(scene) == to_row(original)
        assert scene.image == corpus / "images" / "train" / f"CLEVR_train_{scene.index:06d}.png"
        assert (np.asarray(Image.open(scene.image)) == render(scene).rgb).all()


def test_workers_change_nothing(corpus, tmp_path):
    write_scenes(tmp_path, "train", COUNT, seed=2, workers=1, geometry=True)
    files = sorted(path.relative_to(corpus) for path in corpus.rglob("*.*") if path.is_file())
    assert len(files) == 3 * COUNT + 1
    for path in files:
        assert (corpus / path).read_bytes() == (tmp_path / path).read_bytes(), path


def test_clevr_keys_are_all_there(corpus):
    content = json.loads((corpus / "scenes" / "CLEVR_train_scenes.json").read_text())
    assert content["info"]["split"] == "train"
    row = content["scenes"][0]
    assert {"image_index", "image_filename", "split", "objects", "relationships", "directions"} <= row.keys()
    assert row["relationships"].keys() == {"left", "right", "front", "behind"}
    assert row["directions"].keys() == {"left", "right", "front", "behind", "above", "below"}
    for item in row["objects"]:
        assert {"color", "size", "rotation", "shape", "material", "3d_coords", "pixel_coords"} <= item.keys()
        expected = box_corners(item["3d_coords"], item["dimensions"], item["rotation"])
        np.testing.assert_allclose(item["corners"], expected)


def test_geometry_files_match_the_trace(corpus):
    for scene in read_scenes(corpus, "train"):
        depth, instances = read_geometry(scene)
        exact = trace(scene)
        near = exact.depth < 65
        assert (instances == exact.instances).all()
        assert np.abs(depth[near] - exact.depth[near]).max() <= 0.00051
        assert np.isinf(depth[exact.depth > 66]).all()


def test_splits_differ_and_limit_cuts(corpus, tmp_path):
    write_scenes(tmp_path, "val", 2, seed=2, workers=1)
    val, train = read_scenes(tmp_path, "val"), read_scenes(corpus, "train", limit=2)
    assert len(val) == len(train) == 2
    assert all(
        a.objects[0].position.tolist() != b.objects[0].position.tolist() for a, b in zip(val, train, strict=True)
    )


def test_progress_ends_at_the_last_scene(tmp_path):
    lines = []
    write_scenes(tmp_path, "train", 2, seed=0, workers=1, progress=lines.append)
    assert lines[-1].startswith("scenes train: 2/2, ")
    assert lines[-1].endswith("0 s left")


def test_nothing_half_written_is_left(corpus):
    assert not list(corpus.rglob("*.part"))


def test_missing_split_lists_the_others(corpus):
    with pytest.raises(FileNotFoundError, match=r"no split 'tset'.*CLEVR_tset_scenes\.json; splits there: train"):
        read_scenes(corpus, "tset")


def test_missing_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*a CLEVR folder holds scenes/CLEVR_<split>_scenes\.json"):
        read_scenes(tmp_path / "nowhere", "train")


def test_geometry_that_was_not_written(damaged):
    with pytest.raises(FileNotFoundError, match="geometry=True"):
        read_geometry(read_scenes(damaged, "train", limit=1)[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[1].pop("directions"), "field 'directions' is missing"),
        (lambda rows: rows[1]["objects"][0].update(pixel_coords=[1, 2]), "pixel_coords must be 3 finite numbers"),
        (lambda rows: rows[1]["objects"][0].update(pixel_coords=[1, 2, -3]), "positive depth"),
        (lambda rows: rows[1]["relationships"].update(left=[[0]]), "relationships.left has 1 lists"),
        (lambda rows: rows[1]["relationships"]["left"].__setitem__(0, [99]), "an object outside 0 to"),
        (lambda rows: rows[1]["camera"].update(world_to_camera=[[1]]), "must be 4 x 4"),
        (lambda rows: rows[1].update(objects=3), "wrong type"),
        (lambda rows: rows[1]["objects"][0].update({"3d_coords": ["a", "b", "c"]}), "wrong type"),
        (lambda rows: rows.__setitem__(1, None), "must be a JSON object, got NoneType"),
    ],
)
def test_a_bad_scene_is_counted_with_its_place(damaged, change, reason):
    path = edit(damaged, change)
    bad = BadRows()
    scenes = read_scenes(damaged, "train", bad=bad)
    assert [scene.index for scene in scenes] == [0, 2, 3, 4]
    assert (bad.good, bad.bad) == (COUNT - 1, 1)
    assert bad.places[0].startswith(f"{path}:1: ")
    assert reason in bad.places[0]
    with pytest.raises(RecordError, match="1 of 5 rows"):
        read_scenes(damaged, "train")


def test_a_missing_image_is_counted_unless_images_are_not_needed(damaged):
    (damaged / "images" / "train" / "CLEVR_train_000003.png").unlink()
    bad = BadRows()
    assert len(read_scenes(damaged, "train", bad=bad)) == COUNT - 1
    assert bad.reasons == {"image is missing": 1}
    assert "CLEVR_train_000003.png" in bad.places[0]
    assert len(read_scenes(damaged, "train", require_images=False)) == COUNT


@pytest.mark.parametrize("content", ['{"questions": []}', '{"scenes": 3}', '{"scenes"', "[]"])
def test_a_file_that_holds_no_scenes_is_refused(damaged, content):
    (damaged / "scenes" / "CLEVR_train_scenes.json").write_text(content)
    with pytest.raises(RecordError, match="is not a CLEVR scene file"):
        read_scenes(damaged, "train")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_worker_is_reported(tmp_path, workers):
    with pytest.raises((RuntimeError, ValueError), match="difficulty is 'nope'"):
        write_scenes(tmp_path, "train", 4, seed=0, workers=workers, difficulty="nope")
    assert not list(tmp_path.rglob("*.json"))


def test_a_write_that_fails_leaves_no_scene_file_of_an_earlier_one(damaged):
    with pytest.raises(ValueError, match="difficulty"):
        write_scenes(damaged, "train", 4, seed=0, workers=1, difficulty="nope")
    with pytest.raises(FileNotFoundError, match="no scene file"):
        read_scenes(damaged, "train")


def test_counts_below_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        write_scenes(tmp_path, "train", 0, seed=0)
