import numpy as np

from common import mesh


def test_groups_hold_the_contract():
    assert mesh.P == 111
    assert mesh.RANGES["jaw"] == slice(40, 61) and mesh.RANGES["brows"] == slice(107, 111)
    assert [int(mesh.MESH[k]) for k in mesh.ANCHORS] == [33, 133, 362, 263, 2, 98, 327]
    assert [int(mesh.MESH[k]) for k in mesh.OPENING] == [13, 14]
    assert [int(mesh.MESH[k]) for k in mesh.OUTER_EYES + mesh.MOUTH_CORNERS] == [33, 263, 78, 308]


def test_flip_is_an_involution_that_keeps_groups():
    assert (mesh.FLIP[mesh.FLIP] == np.arange(mesh.P)).all()
    for part in mesh.RANGES.values():
        inside = np.arange(part.start, part.stop)
        assert sorted(mesh.FLIP[inside]) == list(inside)


def test_flip_pairs_known_mirror_points():
    at = {int(m): k for k, m in enumerate(mesh.MESH)}
    for a, b in [(61, 291), (78, 308), (82, 312), (87, 317), (84, 314), (454, 234), (397, 172), (33, 263), (98, 327), (105, 334), (159, 386)]:
        assert mesh.FLIP[at[a]] == at[b]
    for middle in (0, 13, 14, 17, 152, 18, 164, 168, 4, 10):
        assert mesh.FLIP[at[middle]] == at[middle]


def test_inner_pairs_face_each_other():
    pairs = {(int(mesh.MESH[a]), int(mesh.MESH[b])) for a, b in mesh.INNER_PAIRS}
    assert (13, 14) in pairs and (191, 95) in pairs and (415, 324) in pairs and len(pairs) == 9
