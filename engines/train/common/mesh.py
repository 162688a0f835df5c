"""The 111 mesh points that the engines work with, by their MediaPipe face-mesh indices.

Order is a contract: every array of shape [..., 111, 2] in this repository lists the points so.
"""

import numpy as np

GROUPS = {
    "lips_outer": [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146],
    "lips_inner": [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95],
    "jaw": [454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234],
    "chin": [18, 200, 199, 175, 83, 313, 182, 406],
    "cheeks": [205, 425, 50, 280, 207, 427, 216, 436, 212, 432, 202, 422],
    "philtrum": [164, 165, 391],
    "nose": [168, 6, 195, 4, 1, 2, 98, 327, 48, 278],
    "eye_corners": [33, 133, 362, 263],
    "forehead": [10, 284, 389, 162, 54],
    "eyelids": [159, 145, 386, 374],
    "brows": [105, 107, 334, 336],
}

MESH = np.array([i for group in GROUPS.values() for i in group])
P = len(MESH)

_at = np.cumsum([0] + [len(g) for g in GROUPS.values()])
RANGES = {name: slice(int(_at[k]), int(_at[k + 1])) for k, name in enumerate(GROUPS)}

# Points that move with the mouth, and points that only the head's pose moves.
LOWER, STABLE = slice(0, 84), slice(84, 103)

# Eye corners and nose wings: the similarity of the aligned crop maps these onto the template.
ANCHORS = [94, 95, 96, 97, 89, 90, 91]

OUTER_EYES = (94, 97)
MOUTH_CORNERS = (20, 30)
# Upper and lower inner-lip points that face each other, corner to corner; the middle pair is mesh 13 and 14.
INNER_PAIRS = [(20 + k, 40 - k) for k in range(1, 10)]
OPENING = (25, 35)

# Mesh indices that mirror each other where the order of a group does not say so already.
_MIRRORED = [
    (83, 313), (182, 406), (205, 425), (50, 280), (207, 427), (216, 436), (212, 432), (202, 422), (165, 391),
    (98, 327), (48, 278), (33, 263), (133, 362), (284, 54), (389, 162), (159, 386), (145, 374), (105, 334), (107, 336),
]


def _flip():
    position = {int(m): k for k, m in enumerate(MESH)}
    flip = np.arange(P)
    for start in (RANGES["lips_outer"].start, RANGES["lips_inner"].start):
        flip[start : start + 11] = np.arange(start + 10, start - 1, -1)
        flip[start + 11 : start + 20] = np.arange(start + 19, start + 10, -1)
    jaw = RANGES["jaw"]
    flip[jaw] = np.arange(jaw.stop - 1, jaw.start - 1, -1)
    for a, b in _MIRRORED:
        flip[position[a]], flip[position[b]] = position[b], position[a]
    return flip


# FLIP[k] is the point that point k becomes when the picture is mirrored left to right.
FLIP = _flip()
