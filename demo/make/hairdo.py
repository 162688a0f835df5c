"""This person's hair: swept to a tail over the left shoulder, two locks before the ears, lashes and brows, and the light on them."""
import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

import hair
import strips
from light import LIGHTS, unit
from makehuman import load_fitted

STRANDS, TAIL_STRANDS, LOCK_STRANDS = 15000, 5500, 75
PART, KNOT = 0.30, (0.05, -0.12, -1.0)  # x of the parting, dm; direction of the knot from the skull's middle


def tail_plan(cloth, cloth_tris):
    """Spine and radius [m, 4] of the tail: from the nape over the left shoulder down the front, resting on the sweater."""
    scene = rtcore_scene.EmbreeScene()
    keep = TriangleMesh(scene, np.ascontiguousarray(cloth, np.float32), np.ascontiguousarray(cloth_tris, np.int32))

    def reach(start, way):
        return float(scene.run(np.array([start], np.float32), np.array([way], np.float32), query="DISTANCE")[0])

    plan = [(0.05, 6.35, -0.95, 0.10), (0.22, 6.00, -0.92, 0.15), (0.42, 5.72, -0.70, 0.18), (0.60, 5.62, -0.38, 0.20)]
    for x, z in [(0.72, -0.08), (0.79, 0.2), (0.80, 0.45)]:
        plan.append((x, 9 - reach((x, 9, z), (0, -1, 0)) + 0.12, z, 0.21))
    for x, y in [(0.76, 4.8), (0.72, 4.5), (0.69, 4.2), (0.68, 3.95)]:
        plan.append((x, y, 9 - reach((x, y, 9), (0, 0, -1)) + 0.12, 0.17 + 0.04 * (y > 4.3)))
    del keep
    return np.array(plan)


def lock_plan(sign, bottom):
    """Spine and radius [m, 4] of a thin lock that left the tail and hangs before the ear."""
    plan = np.array([
        (0.60, 7.10, 0.72, 0.03), (0.735, 6.95, 0.62, 0.035), (0.80, 6.70, 0.52, 0.04), (0.795, 6.42, 0.48, 0.045),
        (0.755, 6.15, 0.48, 0.05), (0.725, (6.15 + bottom) / 2, 0.50, 0.045), (0.70, bottom, 0.55, 0.015),
    ])  # fmt: skip
    plan[:, 0] *= sign
    return plan


class Hairdo:
    """Everything made of strands. What hangs on the head is still in its frame; the tail, lashes and brows are bent every frame."""

    def __init__(self, character, skin, cloth, cloth_tris, studio, rng):
        c, s = character, skin
        self.character, self.studio = character, studio
        centre = np.array([0, s.top - 0.95, 0.28])
        skull = hair.Skull(s.mid_rest, s.mid_tris, s.ears, centre)
        # The head and the sweater shadow the hair, once, at rest.
        solid = studio.scene([(s.mid_rest, s.mid_tris), (cloth, cloth_tris)])
        self.build_tail(tail_plan(cloth, cloth_tris), solid, rng)
        locks, locks_depth = zip(*[
            hair.tail(plan[:, :3], plan[:, 3], LOCK_STRANDS, rng)[:2] for plan in (lock_plan(1, 5.72), lock_plan(-1, 5.86))
        ])  # fmt: skip

        # Denser along the hairline, where single roots are seen.
        weight = s.scalp * (s.scalp > 0.08) * (1 + 1.5 * (s.scalp < 0.95))
        roots = hair.sample(s.mid_rest, s.mid_tris, weight, STRANDS, rng)
        strands, depth, lock = hair.swept(skull, roots, PART, KNOT, rng)
        shade = 0.5 + 0.13 * rng.normal(size=STRANDS) + 0.10 * lock
        outward = hair.unit(strands - centre)
        width = 0.010 * (0.6 + 0.7 * rng.random(STRANDS))
        rows, index = hair.ribbons(strands, width, 0.12, 1.0, shade, depth, hair.hidden(outward, -0.5))
        rows = np.hstack([rows, *self.light(solid, strands, outward)])

        locks, locks_depth = np.concatenate(locks), 0.5 + 0.5 * np.concatenate(locks_depth)
        shade = 0.5 + 0.13 * rng.normal(size=len(locks))
        more, more_index = hair.ribbons(locks, 0.0075, 0.3, 0.45, shade, locks_depth)
        more = np.hstack([more, *self.light(solid, locks, hair.unit(locks - centre) + [0, 0, 0.6])])
        self.rows = np.concatenate([rows, more]).astype(np.float32)
        self.index = np.concatenate([index, more_index + len(rows)])

        # A shell in the hair's place, for the shadow that it casts on forehead and ears.
        self.shell = s.mid_rest + hair.unit(s.mid_rest - centre) * (0.11 * s.scalp)[:, None]
        self.shell_tris = s.mid_tris[(s.scalp > 0.5)[s.mid_tris].all(1)]

        self.lash_card = load_fitted(c.assets / "eyelashes/eyelashes01/eyelashes01.mhclo")
        self.lashes, self.lash_width = strips.lashes(self.lash_card, self.lash_card.fit(c.closed), c.eyes, rng)
        card = load_fitted(c.assets / "eyebrows/eyebrow001/eyebrow001.mhclo").fit(c.closed)
        self.brows, self.brow_width = strips.brows(card, s.mid_rest, s.mid_tris, rng)

    def build_tail(self, plan, solid, rng):
        self.tail, depth, spine = hair.tail(plan[:, :3], plan[:, 3], TAIL_STRANDS, rng)
        shade = 0.5 + 0.16 * rng.normal(size=TAIL_STRANDS)
        width = 0.010 * (0.6 + 0.7 * rng.random(TAIL_STRANDS))
        outward = hair.unit(self.tail - spine)
        inside = hair.hidden(outward, -0.4) | (depth < 0.4)[:, None]
        self.tail_look = (width, 1.0, 0.1, shade, depth, inside)
        self.tail_light = self.light(solid, self.tail, outward)
        self.tail_weight = self.character.head_weight(self.tail.reshape(-1, 3))

    def light(self, solid, strands, outward, every=3):
        """Irradiance [m, 3] and visible shares [m, 4] for both edges of each strand's points; cast at every third point."""
        n, k, _ = strands.shape
        some = np.arange(0, k, every)
        points, normals = strands[:, some].reshape(-1, 3), outward[:, some].reshape(-1, 3)
        irradiance, _, seen = self.studio.light(solid, points, normals, wrap=0.3, lift=0.05)
        # Strands on the far side of the hair's body lie in its own shade.
        for slot, lamp in enumerate((0, 2, 3)):
            seen[:, slot] *= np.clip(0.45 + 0.75 * normals @ unit(LIGHTS[lamp][0]), 0.04, 1)
        place = np.minimum(np.arange(k) / every, len(some) - 1)
        i = np.minimum(place.astype(int), len(some) - 2)
        f = (place - i)[None, :, None]
        out = []
        for x in (irradiance, seen):
            x = x.reshape(n, len(some), -1)
            out.append(np.repeat((x[:, i] * (1 - f) + x[:, i + 1] * f).reshape(n * k, -1), 2, axis=0))
        return out

    def frame(self, pose, face, skin, normals, head):
        """Strands of a frame: {name: (rows, index, model matrix)}. `face`: base vertices; `skin`, `normals`: its posed middle level."""
        still, c = np.eye(4), self.character

        def plain(strands, width, root, tip):
            n = len(strands)
            rows, index = hair.ribbons(strands, width, root, tip, np.full(n, 0.5), np.ones(n))
            return np.hstack([rows, np.full((len(rows), 7), 0.8, np.float32)]), index, still

        tail = c.move(self.tail.reshape(-1, 3), pose, self.tail_weight).reshape(self.tail.shape)
        rows, index = hair.ribbons(tail, *self.tail_look)
        lids = c.move(self.lash_card.fit(face), pose, np.ones(len(self.lash_card.corners)))
        return {
            "tail": (np.hstack([rows, *self.tail_light]), index, still),
            "hair": (self.rows, self.index, head),
            "lashes": plain(self.lashes.at(lids), self.lash_width, 1.0, 0.1),
            "brows": plain(self.brows.at(skin, normals), self.brow_width, 0.5, 0.15),
        }
