"""What follows from the rows of one catalog: its counters, the link counts of directories and of hard links.

Computes them anew from the rows of a working copy instead of following every change, so that they cannot drift.
Knows no other catalog: the counters of those below are for the caller. Stateless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.statistics import NAMES

if TYPE_CHECKING:
    from catalog.writing import WorkingCopy

_FILE_TYPE = "(mode >> 12 & 15)"  # 4 directory, 8 regular file, 10 symlink
# One pass over the table. IFNULL: there is nothing to add up in a catalog without rows.
_COUNT = """
    SELECT
        IFNULL(SUM(type = 8), 0), IFNULL(SUM(type = 10), 0), IFNULL(SUM(type = 4), 0),
        IFNULL(SUM(type NOT IN (4, 8, 10)), 0), IFNULL(SUM((type = 8) * size), 0),
        IFNULL(SUM(type = 8 AND flags & 64 <> 0), 0), IFNULL(SUM((type = 8 AND flags & 64 <> 0) * size), 0),
        IFNULL(SUM(type = 8 AND flags & 128 <> 0), 0), IFNULL(SUM((type = 8 AND flags & 128 <> 0) * size), 0),
        IFNULL(SUM(xattr IS NOT NULL), 0)
    FROM (SELECT mode >> 12 & 15 AS type, size, flags, xattr FROM catalog)
"""
_COUNTED = (
    "regular",
    "symlink",
    "dir",
    "special",
    "file_size",
    "chunked",
    "chunked_size",
    "external",
    "external_file_size",
    "xattr",
)

# A mountpoint's subdirectories are in its own catalog, so its row here gets its count from there.
_WRONG_DIRECTORIES = f"""
    SELECT links, id FROM (
        SELECT catalog.rowid AS id, catalog.hardlinks AS stored, 2 + (
            SELECT COUNT(*) FROM catalog AS below
            WHERE below.parent_1 = catalog.md5path_1 AND below.parent_2 = catalog.md5path_2
            AND {_FILE_TYPE.replace("mode", "below.mode")} = 4
        ) AS links
        FROM catalog WHERE {_FILE_TYPE} = 4 AND flags & {0x4000 | 2} = 0
    ) WHERE links <> stored
"""
_IS_HARD_LINK = f"hardlinks > {0xFFFFFFFF} AND {_FILE_TYPE} <> 4"
_GROUPS = f"""
    CREATE TEMP TABLE link_groups AS
    SELECT hardlinks >> 32 AS number, COUNT(*) AS members FROM catalog WHERE {_IS_HARD_LINK} GROUP BY hardlinks >> 32
"""
# A group of one is none.
_WRONG_LINKS = f"""
    SELECT CASE members WHEN 1 THEN 1 ELSE number << 32 | members END AS links, id FROM (
        SELECT rowid AS id, hardlinks FROM catalog WHERE {_IS_HARD_LINK}
    ) JOIN temp.link_groups ON number = hardlinks >> 32 WHERE links <> hardlinks
"""


def count_rows(copy: WorkingCopy) -> dict[str, int]:
    """The counters of this catalog alone, by name."""
    counts = dict.fromkeys(NAMES, 0)
    row = copy.row(_COUNT) or ()
    counts.update(zip(_COUNTED, row, strict=True))
    counts["chunks"] = (copy.row("SELECT COUNT(*) FROM chunks") or (0,))[0]
    counts["nested"] = (copy.row("SELECT COUNT(*) FROM nested_catalogs") or (0,))[0]
    return counts


def correct_link_counts(copy: WorkingCopy) -> None:
    """Gives every directory (but mountpoints) and every hard link its right link count."""
    wrong = copy.rows(_WRONG_DIRECTORIES)
    if copy.row(f"SELECT 1 FROM catalog WHERE {_IS_HARD_LINK} LIMIT 1") is not None:
        copy.run(_GROUPS)
        copy.run("CREATE UNIQUE INDEX temp.link_group_numbers ON link_groups (number)")
        wrong += copy.rows(_WRONG_LINKS)
        copy.run("DROP TABLE temp.link_groups")
    copy.run_many("UPDATE catalog SET hardlinks = ? WHERE rowid = ?", wrong)


def write_counters(copy: WorkingCopy, own: dict[str, int], subtree: dict[str, int]) -> None:
    rows = [(f"self_{name}", own[name]) for name in NAMES] + [(f"subtree_{name}", subtree[name]) for name in NAMES]
    copy.run_many("INSERT OR REPLACE INTO statistics (counter, value) VALUES (?, ?)", rows)
