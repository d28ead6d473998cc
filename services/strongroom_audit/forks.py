"""Where a log forks, as far as its nodes tell: found by a few questions, however large it is."""

from strongroom.crypto.tlog import HASH_BYTES, subtree_root
from strongroom.tiles import TILE_HEIGHT, TILE_WIDTH, tile_path
from strongroom_audit.fold import Fold
from strongroom_audit.folder import LogFolder
from strongroom_audit.pages import Auditor, Page


async def differing_tile(auditor: Auditor, folder: LogFolder, size: int, *, wait_seconds: float) -> str | None:
    """Return the path of the first full level 0 tile of this export that the server's nodes contradict, if any.

    Goes down from the largest complete subtrees: a subtree of equal hash holds nothing that differs.
    """

    async def differs(level: int, index: int) -> bool:
        last = ((index + 1) << level) - 1
        shown: list[bytes | None] = []

        def take(page: Page) -> None:
            shown.extend(page.entries[0][0].nodes[level : level + 1] if page.entries else [])

        await auditor.read(folder.log, last, take, wait_seconds=wait_seconds)
        ours = _subtree(folder, level, index)
        return bool(shown) and shown[0] is not None and ours is not None and shown[0] != ours

    done = 0
    while size - done >= TILE_WIDTH:
        level = (size - done).bit_length() - 1
        index = done >> level
        if await differs(level, index):
            while level > TILE_HEIGHT:
                level, index = level - 1, index * 2
                if not await differs(level, index):
                    index += 1
            return tile_path(0, index)
        done += 1 << level
    return None


def _subtree(folder: LogFolder, level: int, index: int) -> bytes | None:
    """Return the hash of a complete subtree of the export, from its level 0 tiles."""
    fold = Fold()
    count = 1 << (level - TILE_HEIGHT)
    for place in range(index * count, (index + 1) * count):
        tile = folder.read(tile_path(0, place))
        if tile is None or len(tile) != TILE_WIDTH * HASH_BYTES:
            return None
        list(fold.add(subtree_root(tile), TILE_HEIGHT))
    return fold.root()
