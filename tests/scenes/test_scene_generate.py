"""Generated scenes keep every promise of their difficulty."""

import itertools

import numpy as np
import pytest

from spatial_lightning.geometry import box_corners, ground_directions, project, relationships, transform
from spatial_lightning.scenes import DIFFICULTIES, camera_points, generate
from spatial_lightning.scenes.layout import to_row
from spatial_lightning.scenes.shapes import SHAPES

SCENES = {name: [generate(7, index, difficulty=name) for index in range(25)] for name in DIFFICULTIES}
EVERY = [pytest.param(scene, id=f"{name}-{scene.index}") for name, scenes in SCENES.items() for scene in scenes]


def test_same_arguments_same_scene():
    assert to_row(generate(3, 11)) == to_row(generate(3, 11))


def test_seed_index_and_split_all_matter():
    choices = [(3, 11, "train"), (4, 11, "train"), (3, 12, "train"), (3, 11, "val")]
    rows = [to_row(generate(seed, index, split=split))["objects"] for seed, index, split in choices]
    assert all(a != b for a, b in itertools.combinations(rows, 2))


@pytest.mark.parametrize("scene", EVERY)
def test_scene_keeps_its_promises(scene):
    level, camera = DIFFICULTIES[scene.difficulty], scene.camera
    assert level.objects[0] <= len(scene.objects) <= level.objects[1]
    names = [tuple(getattr(item, attribute) for attribute in level.unique) for item in scene.objects]
    assert len(set(names)) == len(names), "every object has a name of its own"
    positions = np.array([item.position for item in scene.objects])
    for a, b in itertools.combinations(range(len(positions)), 2):
        assert 0.8 <= np.linalg.norm(positions[a] - positions[b]) <= 8
        assert abs(scene.offset(a, b, "left")) >= level.margin
        assert abs(scene.offset(a, b, "front")) >= level.margin
    for item in scene.objects:
        assert item.position[2] == pytest.approx(item.dimensions[2] / 2), "objects stand on the ground"
        assert item.visible_fraction >= level.visible
        pixels, _ = project(
            transform(camera.world_to_camera, box_corners(item.position, item.dimensions, item.rotation)), camera
        )
        assert (pixels > 0).all()
        assert (pixels < [camera.width, camera.height]).all()
    assert scene.relationships == relationships(positions, scene.directions)
    assert scene.directions.keys() == ground_directions(camera.world_to_camera).keys()


@pytest.mark.parametrize("scene", EVERY)
def test_centres_project_where_the_scene_says(scene):
    world = np.array([item.position for item in scene.objects])
    np.testing.assert_allclose(transform(scene.camera.world_to_camera, world), camera_points(scene), atol=1e-9)


@pytest.mark.parametrize("scene", EVERY)
def test_directions_are_what_the_camera_sees(scene):
    pose = scene.camera.world_to_camera
    np.testing.assert_allclose(np.linalg.det(pose[:3, :3]), 1)
    assert (pose[:3, :3] @ scene.directions["right"])[0] == pytest.approx(1), "right is right in the image"
    assert (pose[:3, :3] @ scene.directions["behind"])[2] > 0, "behind is away from the camera"
    assert scene.light[2] > 0.5


def test_variety():
    items = [item for scene in SCENES["default"] for item in scene.objects]
    assert {item.shape for item in items} == set(SHAPES)
    assert len({item.color for item in items}) == 8
    assert {item.material for item in items} == {"rubber", "metal"}
    heights = {size: [item.dimensions[2] for item in items if item.size == size] for size in ("small", "large")}
    assert len(set(heights["small"])) > 10, "measured sizes vary"
    assert max(heights["small"]) < min(heights["large"])
    headings = {np.sign(scene.directions["behind"][:2]).tobytes() for scene in SCENES["default"]}
    assert len(headings) == 4, "cameras stand all around"
    assert {len(scene.objects) for scene in SCENES["default"]} == {3, 4, 5}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"difficulty": "esay"}, ValueError, "difficulty is 'esay'; allowed: easy, default, hard"),
        ({"size": (8, 112)}, ValueError, "at least 16 x 16"),
        ({"size": (16, 16), "difficulty": "hard"}, RuntimeError, "use a larger image or an easier difficulty"),
    ],
)
def test_refusals_say_what_to_do(arguments, error, words):
    with pytest.raises(error, match=words):
        generate(0, 0, **arguments)
