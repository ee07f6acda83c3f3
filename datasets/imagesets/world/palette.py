"""The world's words and what they look like: colours and grounds as sRGB triples."""

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

COLOURS: dict[str, Colour] = {
    "red": (206, 32, 36),
    "orange": (240, 128, 32),
    "yellow": (240, 216, 48),
    "green": (40, 150, 62),
    "cyan": (52, 196, 206),
    "blue": (36, 84, 200),
    "purple": (122, 44, 168),
    "pink": (244, 138, 196),
}
GROUNDS: dict[str, Colour] = {"white": (246, 246, 242), "black": (22, 22, 26), "grey": (140, 142, 146)}

_WHITE_POINT = np.array([0.95047, 1.0, 1.08883])  # D65, two degrees
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)  # IEC 61966-2-1


def to_lab(srgb: npt.ArrayLike) -> Floats:
    """Convert sRGB values of 0 to 255, (..., 3), to CIE L*a*b* (CIE 15:2004, section 8.2.1), (..., 3)."""
    share = np.asarray(srgb, dtype=np.float64) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _RGB_TO_XYZ.T / _WHITE_POINT
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def nearest_name(lab: Floats, names: dict[str, Colour]) -> str:
    """Return the name whose colour is nearest to one L*a*b* value, (3,), by Euclidean distance."""
    table = to_lab(np.array(list(names.values())))
    return list(names)[int(np.argmin(np.linalg.norm(table - lab, axis=1)))]
