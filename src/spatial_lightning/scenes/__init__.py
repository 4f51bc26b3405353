"""3D worlds with exact ground truth: a procedural generator and a reader of CLEVR scene files."""

from spatial_lightning.scenes.files import read_geometry, read_scenes, write_scenes
from spatial_lightning.scenes.generate import DIFFICULTIES, generate
from spatial_lightning.scenes.layout import camera_points
from spatial_lightning.scenes.render import Rendering, Trace, render, trace
from spatial_lightning.scenes.scene import Camera, Scene, SceneObject

__all__ = [
    "DIFFICULTIES",
    "Camera",
    "Rendering",
    "Scene",
    "SceneObject",
    "Trace",
    "camera_points",
    "generate",
    "read_geometry",
    "read_scenes",
    "render",
    "trace",
    "write_scenes",
]
