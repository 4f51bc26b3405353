"""Frames, units and relations: round trips and invariants before examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning import geometry as g
from spatial_lightning.scenes.scene import Camera

CAMERA = Camera(width=480, height=320, fx=525.0, fy=500.0, cx=240.0, cy=160.0)
small = st.floats(-5, 5)
points = st.tuples(small, small, st.floats(0.1, 20)).map(np.array)


def pose(yaw: float, pitch: float, height: float) -> np.ndarray:
    """World-to-camera pose of a camera at (1, 2, height) that looks along yaw and down by pitch, in radians."""
    ahead, up = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([0, 0, 1.0])
    forward = np.cos(pitch) * ahead - np.sin(pitch) * up
    right = np.cross(ahead, up)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    matrix[:3, 3] = -matrix[:3, :3] @ np.array([1.0, 2.0, height])
    return matrix


poses = st.builds(pose, st.floats(0, 6.28), st.floats(0.05, 1.4), st.floats(0.5, 8))


@given(points)
def test_unproject_inverts_project(point):
    pixels, depth = g.project(point, CAMERA)
    np.testing.assert_allclose(g.unproject(pixels, depth, CAMERA), point, atol=1e-9)


def test_depth_is_along_the_optical_axis_not_along_the_ray():
    assert g.unproject([0.0, 0.0], 4.0, CAMERA)[2] == 4.0


def test_points_behind_the_camera_have_no_pixel():
    pixels, depth = g.project([[0, 0, -1.0], [0, 0, 1.0]], CAMERA)
    assert np.isnan(pixels[0]).all()
    assert pixels[1].tolist() == [240.0, 160.0]
    assert depth.tolist() == [-1.0, 1.0]


def test_depth_map_uses_pixel_centres():
    grid = g.unproject_depth_map(np.full((2, 3), 2.0), CAMERA)
    np.testing.assert_allclose(grid[1, 2], g.unproject([2.5, 1.5], 2.0, CAMERA))


def test_infinite_depth_has_no_point():
    sky = g.transform(pose(1.0, 0.5, 2.0), g.unproject_depth_map([[np.inf, 2.0]], CAMERA))
    assert np.isnan(sky[0, 0]).all()
    assert np.isfinite(sky[0, 1]).all()


@given(poses, points)
def test_rigid_inverse(matrix, point):
    np.testing.assert_allclose(g.transform(g.invert_rigid(matrix), g.transform(matrix, point)), point, atol=1e-9)


@given(poses, points)
def test_canonical_frame_agrees_with_the_world(matrix, point):
    frame = g.canonical_frame(*g.ground_plane(matrix))
    canonical, world = g.transform(frame, point), g.transform(g.invert_rigid(matrix), point)
    assert canonical[2] == pytest.approx(world[2], abs=1e-9), "height above the ground is the same in both"
    directions = g.ground_directions(matrix)
    offset = world - g.invert_rigid(matrix)[:3, 3]
    assert canonical[0] == pytest.approx(offset @ directions["behind"], abs=1e-9), "x is forward"
    assert canonical[1] == pytest.approx(offset @ directions["left"], abs=1e-9), "y is left"


@given(poses)
def test_canonical_frame_is_right_handed_with_the_camera_above_its_origin(matrix):
    normal, offset = g.ground_plane(matrix)
    frame = g.canonical_frame(normal, offset)
    assert np.linalg.det(frame[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(frame[:2, 3], 0, atol=1e-12)
    np.testing.assert_allclose(g.canonical_frame(-3 * normal, -3 * offset), frame, atol=1e-9)


def test_canonical_frame_of_a_level_camera():
    frame = g.canonical_frame([0, -1, 0], 1.5)
    np.testing.assert_allclose(g.transform(frame, [0.0, 0.0, 0.0]), [0, 0, 1.5], atol=1e-12)
    np.testing.assert_allclose(g.transform(frame, [2.0, 1.5, 5.0]), [5, -2, 0], atol=1e-12)


@pytest.mark.parametrize(("normal", "words"), [([0, 0, 0], "non-zero normal"), ([0, 0, -1], "tilt the camera")])
def test_canonical_frame_refuses_what_it_cannot_orient(normal, words):
    with pytest.raises(ValueError, match=words):
        g.canonical_frame(normal, 1.0)


def test_ground_directions_refuse_a_camera_that_looks_straight_down():
    down = np.diag([1.0, -1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="tilt the camera"):
        g.ground_directions(down)


@given(st.lists(st.tuples(small, small), min_size=0, max_size=6), poses)
def test_relations_mirror_each_other(ground, matrix):
    positions = np.array([(x, y, 0.5) for x, y in ground]).reshape(-1, 3)
    relations = g.relationships(positions, g.ground_directions(matrix))
    for one, other in (("left", "right"), ("front", "behind")):
        assert {(a, b) for a, found in enumerate(relations[one]) for b in found} == {
            (b, a) for a, found in enumerate(relations[other]) for b in found
        }
    for lists in relations.values():
        assert all(index not in found for index, found in enumerate(lists))


def test_relations_need_more_than_the_margin():
    directions = {"left": [-1, 0, 0], "right": [1, 0, 0], "front": [0, -1, 0], "behind": [0, 1, 0]}
    relations = g.relationships([[0, 0, 0], [0.2, 0, 0], [0.2001, 0, 0]], directions)
    assert relations["right"][0] == (2,)
    assert relations["left"][2] == (0,)
    assert relations["behind"] == ((), (), ())


@given(st.floats(1e-3, 1e4), st.sampled_from(sorted(g.METRES_PER_UNIT)))
def test_units_round_trip(length, unit):
    assert g.from_metres(g.to_metres(length, unit), unit) == pytest.approx(length)


@pytest.mark.parametrize(
    ("value", "unit", "metres"),
    [(3, "feet", 0.9144), (1, "Inch", 0.0254), (90, "cm", 0.9), (2, "Meters", 2), (1, "ft.", 0.3048), (5, "mm", 0.005)],
)
def test_units_in_many_spellings(value, unit, metres):
    assert g.to_metres(value, unit) == pytest.approx(metres)


def test_unknown_unit_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'furlong' is not a known length unit.*centimetre"):
        g.to_metres(1, "furlong")


@given(points, points)
def test_distance_splits_into_horizontal_and_vertical(a, b):
    assert g.distance(a, b) ** 2 == pytest.approx(g.horizontal_distance(a, b) ** 2 + g.vertical_distance(a, b) ** 2)
    assert g.distance(a, b) == g.distance(b, a)


@pytest.mark.parametrize(
    ("forward", "left", "hour"), [(1, 0, 12), (0, -1, 3), (-1, 0, 6), (0, 1, 9), (1, -0.5, 1), (1, 0.5, 11)]
)
def test_clock(forward, left, hour):
    assert g.clock_hour(forward, left) == hour


def test_clock_needs_a_direction():
    with pytest.raises(ValueError, match="coincide"):
        g.clock_hour(0, 0)


@given(st.floats(0, 360), points)
def test_box_corners_keep_extents_and_centre(rotation, center):
    corners = g.box_corners(center, [1.0, 2.0, 3.0], rotation)
    np.testing.assert_allclose(corners.mean(axis=0), center, atol=1e-9)
    edges = [g.distance(corners[0], corners[k]) for k in (4, 2, 1)]
    np.testing.assert_allclose(edges, [1, 2, 3], atol=1e-9)


def test_box_turns_counter_clockwise():
    np.testing.assert_allclose(g.rotation_about_z(90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
