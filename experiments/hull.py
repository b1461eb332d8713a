"""The convex hull of points: what lies between them, and what a figure would have to be made up for."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

EDGE = 1e-9  # of the extent of the points: as near as this is inside


@dataclass(frozen=True)
class Hull:
    """Points x with `normals @ ((x - origin) / scale) <= offsets` are inside.

    A coordinate that does not vary has two opposite half-spaces: only its one value is inside.
    """

    origin: np.ndarray  # (axes,)
    scale: np.ndarray  # (axes,) above 0
    normals: np.ndarray  # (half-spaces, axes) of length 1
    offsets: np.ndarray  # (half-spaces,)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(...,) whether each of the (..., axes) points is inside or on the edge."""
        scaled = (np.asarray(points, float) - self.origin) / self.scale
        return (scaled @ self.normals.T <= self.offsets + EDGE).all(-1)


def hull(points: np.ndarray) -> Hull:
    """The hull of (points, axes).

    Raises:
        ValueError: nothing varies, or what varies lies on one line (or plane) and so encloses nothing.
    """
    points = np.asarray(points, float)
    low, extent = points.min(0), np.ptp(points, axis=0)
    varies = extent > 0
    scale = np.where(varies, extent, 1.0)
    scaled = (points - low) / scale
    axes = points.shape[1]
    if varies.sum() == 0:
        raise ValueError("a single point encloses nothing")
    if varies.sum() == 1:
        (axis,) = np.flatnonzero(varies)
        equations = np.array([[1.0, -1.0], [-1.0, 0.0]])  # from 0 to 1
        varying = np.eye(axes)[[axis]]
    else:
        try:
            equations = np.unique(np.round(ConvexHull(scaled[:, varies]).equations, 12), axis=0)
        except QhullError:
            raise ValueError("all points lie on one line or plane, which encloses nothing") from None
        varying = np.eye(axes)[varies]
    fixed = np.eye(axes)[~varies]
    normals = np.vstack([equations[:, :-1] @ varying, fixed, -fixed])
    offsets = np.concatenate([-equations[:, -1], np.zeros(2 * len(fixed))])
    return Hull(low, scale, normals, offsets)
