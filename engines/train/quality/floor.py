"""How much the judge's mesh sees move where nothing does: lengths along the bridge of the nose, which bone fixes, in a video as it was filmed.

Its noise, and what turning the head does to such a length: of a mouth that moves by less nothing can be said.
"""

import numpy as np

# Neighbours along the bridge, and the outer corners of the eyes, of the 468 points.
BRIDGE = ((168, 6), (6, 197), (197, 195), (195, 5))
EYES = (33, 263)


def deviation(points):
    """Median over the pairs of the standard deviation of their distance over that of the eyes, of [frames, 468, 2]."""
    apart = lambda a, b: np.linalg.norm(points[:, a] - points[:, b], axis=1)
    eyes = apart(*EYES)
    return float(np.median([np.std(apart(*pair) / eyes) for pair in BRIDGE]))


def seen(video, models):
    """[frames with a face, 468, 2] by the mesh of a folder of teachers."""
    from common.teachers import Follower
    from common.video import frames

    follow = Follower(models)
    return np.array([p for p in (follow(frame)[0] for frame in frames(video)) if p is not None])
