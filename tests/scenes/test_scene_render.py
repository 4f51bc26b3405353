"""Rendered geometry is exact: every depth lies on the surface that the mask names."""

from dataclasses import replace

import numpy as np
import pytest

from spatial_lightning.geometry import invert_rigid, rotation_about_z, transform, unproject_depth_map
from spatial_lightning.scenes import generate, render, trace
from spatial_lightning.scenes.shapes import NORMALS, SHAPES

SCENES = [generate(5, index, difficulty=level) for level in ("easy", "default", "hard") for index in range(8)]


def surface_distance(shape: str, point: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Signed distance in metres, zero exactly on the surface, of points (n, 3) in the object's own frame."""
    radial = np.hypot(point[:, 0], point[:, 1])
    match shape:
        case "sphere":
            return np.linalg.norm(point, axis=1) - half[2]
        case "cube":
            return (np.abs(point) - half).max(axis=1)
        case "cylinder":
            return np.maximum(radial - half[0], np.abs(point[:, 2]) - half[2])
        case _:
            length = np.hypot(half[0], 2 * half[2])
            side = (radial - half[0] * (half[2] - point[:, 2]) / (2 * half[2])) * 2 * half[2] / length
            return np.maximum(side, -half[2] - point[:, 2])


def in_object_frame(item, world):
    return (world - item.position) @ rotation_about_z(-item.rotation).T


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.difficulty}-{scene.index}")
def test_depth_lies_on_the_surface(scene):
    picture = render(scene)
    world = transform(invert_rigid(scene.camera.world_to_camera), unproject_depth_map(picture.depth, scene.camera))
    for index, item in enumerate(scene.objects):
        shown = in_object_frame(item, world[picture.instances == index])
        assert len(shown)
        assert np.abs(surface_distance(item.shape, shown, item.dimensions / 2)).max() < 1e-4
    ground = (picture.instances == -1) & np.isfinite(picture.depth)
    assert np.abs(world[ground][:, 2]).max() < 1e-3 * picture.depth[ground].max()


@pytest.mark.parametrize("scene", SCENES[8:], ids=lambda scene: f"{scene.difficulty}-{scene.index}")
def test_nothing_hides_in_front_of_the_depth_map(scene):
    """Points halfway to each hit are outside every object: the hit is the nearest one."""
    seen = trace(scene)
    finite = np.isfinite(seen.depth)
    cloud = unproject_depth_map(np.where(finite, seen.depth, 1), scene.camera)[finite]
    back = invert_rigid(scene.camera.world_to_camera)
    for share in np.linspace(0.3, 0.995, 30):
        world = transform(back, share * cloud)
        for item in scene.objects:
            assert surface_distance(item.shape, in_object_frame(item, world), item.dimensions / 2).min() > -1e-4


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.difficulty}-{scene.index}")
def test_masks_boxes_and_visibility_agree(scene):
    seen = trace(scene)
    for index, item in enumerate(scene.objects):
        left, top, right, bottom = item.box2d
        mask = seen.instances == index
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum(), "no visible pixel outside the box"
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any(), "the box is tight"
        alone = trace(replace(scene, objects=(item,)))
        assert item.visible_fraction == pytest.approx(mask.sum() / (alone.instances == 0).sum())


def test_silhouette_of_a_sphere_has_the_right_area():
    """The image of a sphere is an ellipse whose solid angle is known in closed form."""
    scene = generate(5, 0, size=(400, 400))
    item = replace(scene.objects[0], shape="sphere", dimensions=np.full(3, 1.4))
    seen = trace(replace(scene, objects=(item,)))
    rays = unproject_depth_map(np.ones((400, 400)), scene.camera)
    solid_angle = (1 / np.linalg.norm(rays, axis=2) ** 3)[seen.instances == 0].sum() / scene.camera.fx**2
    centre = np.linalg.norm(transform(scene.camera.world_to_camera, item.position))
    assert solid_angle == pytest.approx(2 * np.pi * (1 - np.sqrt(1 - (0.7 / centre) ** 2)), rel=0.02)


def test_shadows_darken_the_ground_on_the_far_side_of_the_light():
    scene = generate(5, 1)
    item = replace(scene.objects[0], shape="sphere", dimensions=np.full(3, 1.0), position=np.array([0, 0, 1.5]))
    picture, bare = render(replace(scene, objects=(item,))), render(replace(scene, objects=()))
    drop = item.position - item.position[2] / scene.light[2] * scene.light
    column, row = project_pixel(scene, drop)
    assert picture.instances[row, column] == -1
    assert picture.rgb[row, column].sum() < 0.85 * bare.rgb[row, column].sum()
    unshadowed = (picture.instances == -1) & (picture.rgb == bare.rgb).all(axis=2)
    assert unshadowed.mean() > 0.8, "and nothing else"


def project_pixel(scene, point):
    x, y, z = transform(scene.camera.world_to_camera, point)
    return int(x / z * scene.camera.fx + scene.camera.cx), int(y / z * scene.camera.fy + scene.camera.cy)


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_unit_and_point_outwards(shape):
    rng = np.random.default_rng(0)
    half = np.array([0.5, 0.5, 0.5 if shape == "sphere" else 0.7])
    scene = generate(5, 2)
    item = replace(scene.objects[0], shape=shape, dimensions=2 * half, position=np.array([0, 0, half[2]]))
    picture = trace(replace(scene, objects=(item,)))
    world = transform(invert_rigid(scene.camera.world_to_camera), unproject_depth_map(picture.depth, scene.camera))
    shown = in_object_frame(item, world[picture.instances == 0])
    normals = np.stack(NORMALS[shape](tuple(shown.T), tuple(half)), axis=1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3)
    step = 1e-3 * normals + 1e-6 * rng.normal(size=normals.shape)
    assert (surface_distance(shape, shown + step, half) > 5e-4).all()


def test_colours_are_told_apart():
    scene = generate(5, 3)
    means = []
    for color in ("red", "green", "blue"):
        item = replace(scene.objects[0], color=color, material="rubber")
        picture = render(replace(scene, objects=(item,)))
        means.append(picture.rgb[picture.instances == 0].mean(axis=0))
    assert [int(np.argmax(mean)) for mean in means] == [0, 1, 2]


def test_antialiasing_changes_colour_only():
    one, two = render(SCENES[0], samples=1), render(SCENES[0], samples=2)
    assert (one.depth == two.depth).all()
    assert (one.instances == two.instances).all()
    changed = (one.rgb != two.rgb).any(axis=2).mean()
    assert 0 < changed < 0.6


@pytest.mark.parametrize(
    ("change", "words"),
    [({"shape": "torus"}, "known shapes: cube"), ({"color": "pink"}, "colours: gray"), ({"material": "wood"}, "metal")],
)
def test_unknown_looks_are_refused(change, words):
    scene = SCENES[0]
    with pytest.raises(ValueError, match=words):
        render(replace(scene, objects=(replace(scene.objects[0], **change),)))


def test_a_camera_without_pose_or_a_light_below_ground_is_refused():
    scene = SCENES[0]
    with pytest.raises(ValueError, match="no world_to_camera pose"):
        render(replace(scene, camera=replace(scene.camera, world_to_camera=None)))
    with pytest.raises(ValueError, match="above the horizon"):
        render(replace(scene, light=np.array([0, 0, -1.0])))
