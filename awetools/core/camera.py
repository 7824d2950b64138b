"""From headers to our names and units: camera tables, which camera took a frame, what its frame means.

A camera is a TOML table (`cameras/*.toml`; the page "How to add a camera" explains
every key). `load_cameras` reads them, `recognise` finds the table of a file,
`detectors` says which HDUs make a detector, `translate` gives its meta.
"""

from __future__ import annotations

from .camera_detectors import DetectorAddress, HduInfo, detectors, is_image, recognise
from .camera_tables import Camera, Cameras, load_cameras, safe_name
from .camera_translate import Translation, translate

__all__ = [
    "Camera",
    "Cameras",
    "DetectorAddress",
    "HduInfo",
    "Translation",
    "detectors",
    "is_image",
    "load_cameras",
    "recognise",
    "safe_name",
    "translate",
]
