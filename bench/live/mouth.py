"""Whether the mouth of the demo avatar in a played frame is that of its own video."""

from operator import sub

from .clips import DEMO_VIDEO
from .player import Player

# The demo avatar's head, of 1280x720, at a fifth of its size, and in it the rows above the nose and the mouth with its chin.
CROP = "320:360:480:90"
SIZE = (64, 72)
ABOVE = slice(0, 64 * 46, 3)
MOUTH_ROWS = range(53, 71)
MOUTH_COLUMNS = slice(20, 47)


def distance(a, b):
    return sum(map(abs, map(sub, a, b))) / len(a)


def mouth(picture):
    return b"".join(picture[64 * y:][MOUTH_COLUMNS] for y in MOUTH_ROWS)


class Own:
    """The avatar's own video."""

    def __init__(self):
        player = Player(str(DEMO_VIDEO), crop=CROP, size=SIZE, sound=False, keep=True, options=[])
        player.process.wait()
        player.stop()
        self.frames = [(picture[ABOVE], mouth(picture)) for picture in player.pictures]
        self.last = 0

    def difference(self, picture, sure=False):
        """Mean difference of the mouth, in grey levels, from the own frame whose upper half is nearest.

        Frames follow each other, so only the neighbours of the last one are looked at, unless `sure` is asked for.
        """
        above, count = picture[ABOVE], len(self.frames)
        places = range(count) if sure else [n % count for n in range(self.last - 3, self.last + 4)]
        self.last = min(places, key=lambda n: distance(above, self.frames[n][0]))
        return distance(mouth(picture), self.frames[self.last][1])

    def differences(self, player, start):
        """(at, difference) of a player's frames from the index `start`."""
        end = min(len(player.frames), len(player.pictures))
        return [(player.frames[n][1], self.difference(player.pictures[n], (n - start) % 8 == 0)) for n in range(start, end)]
