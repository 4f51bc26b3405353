"""Original CLEVR v1.0 scenes: camera, relations, extents and turns, checked against the published data."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_lightning.geometry import RELATIONS, relationships
from spatial_lightning.scenes import camera_points, read_scenes, trace
from spatial_lightning.scenes.layout import CLEVR_CUBE_SHRINKAGE

SHARED = Path(os.environ.get("SPATIAL_LIGHTNING_SHARED", Path(__file__).parents[3] / "shared"))
CLEVR = SHARED / "data" / "clevr"
pytestmark = pytest.mark.skipif(not CLEVR.is_dir(), reason=f"no CLEVR sample at {CLEVR}")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes_only")
    (root / "scenes").symlink_to((CLEVR / "scenes_only").resolve())
    bare = read_scenes(root, "train", require_images=False)
    found = [*read_scenes(CLEVR, "train"), *read_scenes(CLEVR, "val"), *bare]
    assert len(found) == 434
    return found


def test_camera_points_keep_distances(scenes):
    errors = []
    for scene in scenes:
        world, seen = np.array([item.position for item in scene.objects]), camera_points(scene)
        first, second = np.triu_indices(len(world), k=1)
        true = np.linalg.norm(world[first] - world[second], axis=1)
        errors.append(np.abs(np.linalg.norm(seen[first] - seen[second], axis=1) - true) / true)
    relative = np.concatenate(errors)
    assert len(relative) > 8000
    assert np.median(relative) < 0.0013
    assert np.percentile(relative, 99) < 0.0085


def test_relations_follow_the_rule_on_every_list(scenes):
    lists = 0
    for scene in scenes:
        rule = relationships([item.position for item in scene.objects], scene.directions)
        for relation in RELATIONS:
            assert tuple(tuple(sorted(found)) for found in scene.relationships[relation]) == rule[relation]
            lists += len(rule[relation])
    assert lists == sum(4 * len(scene.objects) for scene in scenes) > 10_000


def test_camera_and_objects_are_the_published_ones(scenes):
    for scene in scenes:
        assert (scene.camera.width, scene.camera.height, scene.camera.world_to_camera) == (480, 320, None)
        for item in scene.objects:
            assert item.position[2] == pytest.approx({"large": 0.7, "small": 0.35}[item.size], abs=1e-3)
            assert 0 <= item.rotation < 360
            assert item.visible_fraction is None


def with_pose(scene):
    """The scene with the camera pose that best maps world centres to camera points (Kabsch)."""
    seen, world = camera_points(scene), np.array([item.position for item in scene.objects])
    u, _, vt = np.linalg.svd((world - world.mean(0)).T @ (seen - seen.mean(0)))
    rotation = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, seen.mean(0) - rotation @ world.mean(0)
    return replace(scene, camera=replace(scene.camera, world_to_camera=pose))


def outline_contrast(scene, shape, change):
    """Mean image gradient along the outlines of the large, unhidden objects of a shape after a change to them."""
    picture = np.asarray(Image.open(scene.image).convert("RGB")).astype(float)
    gradient = np.abs(np.diff(picture, axis=0))[:, :-1].sum(2) + np.abs(np.diff(picture, axis=1))[:-1].sum(2)
    seen = trace(replace(scene, objects=tuple(change(item) if item.shape == shape else item for item in scene.objects)))
    found = []
    for index, item in enumerate(scene.objects):
        if item.shape == shape and item.size == "large" and seen.visible_fractions[index] > 0.95:
            mask = seen.instances == index
            outline = (mask[:-1, :-1] != mask[1:, :-1]) | (mask[:-1, :-1] != mask[:-1, 1:])
            found.append(gradient[outline].mean())
    return found


def mean_contrast(scenes, shape, change):
    return np.mean([value for scene in scenes for value in outline_contrast(scene, shape, change)])


def as_recorded(scenes):
    """The scenes with every object turned by the published number taken for degrees."""
    rows = json.loads((CLEVR / "scenes" / "CLEVR_train_scenes.json").read_text())["scenes"]
    turns = {row["image_index"]: [item["rotation"] for item in row["objects"]] for row in rows}
    for scene in scenes:
        pairs = zip(scene.objects, turns[scene.index], strict=True)
        yield replace(scene, objects=tuple(replace(item, rotation=turn) for item, turn in pairs))


@pytest.fixture(scope="module")
def posed(scenes):
    return [with_pose(scene) for scene in scenes[:30] if len(scene.objects) >= 5]


def scaled(factor):
    return lambda item: replace(item, dimensions=item.dimensions * factor)


@pytest.mark.parametrize("shape", ["cube", "sphere", "cylinder"])
def test_extents_meet_the_edges_in_the_pictures(posed, shape):
    contrast = {factor: mean_contrast(posed, shape, scaled(factor)) for factor in (0.94, 1.0, 1.06)}
    assert contrast[1.0] > 2 * max(contrast[0.94], contrast[1.06])


def test_cubes_are_not_shrunk_by_root_two_and_turn_in_radians(posed):
    here = mean_contrast(posed, "cube", lambda item: item)
    shrunk = mean_contrast(posed, "cube", scaled(1 / np.sqrt(2) / CLEVR_CUBE_SHRINKAGE))
    assert here > 4 * shrunk
    assert here > 2 * mean_contrast(as_recorded(posed), "cube", lambda item: item)
