"""The folder of a spool on the share: nobody else's, and found again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from queuectl.engine import place
from queuectl.errors import SpoolError
from queuectl.layout import Layout
from queuectl.system import files
from queuectl.worker import dispatch_check

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the head of a cluster runs Linux")


def test_it_is_made_once_and_for_its_owner_alone(layout: Layout, share: Path) -> None:
    spool, folder = place.prepare(str(share), layout, "head")
    assert place.prepare(str(share), layout, "head") == (spool, folder)
    assert Path(folder) == share / spool
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert (Path(layout.data) / "spool-id").read_text() == f"{spool}\n"
    assert (Path(layout.data) / "spool-id").stat().st_mode & 0o777 == 0o600
    assert [one.name for one in Path(folder).iterdir()] == ["owner.json"]
    assert json.loads((Path(folder) / "owner.json").read_text()) == {"host": "head", "root": layout.root}


def test_what_a_killed_dispatcher_was_writing_there_goes_in_the_end(layout: Layout, share: Path) -> None:
    """Killed again and again, it would fill the folder. What is being written just now stays, as does a pack."""
    folder = Path(place.prepare(str(share), layout, "head")[1])
    old, new = (folder / files.temporary_name() for _ in range(2))
    for path in (old, new, folder / "pack.json"):
        path.touch()
    for path in (old, folder / "pack.json"):
        os.utime(path, (time.time() - 7200,) * 2)
    place.prepare(str(share), layout, "head")
    assert sorted(one.name for one in folder.iterdir()) == sorted([new.name, "owner.json", "pack.json"])


def test_it_is_found_again_when_data_is_deleted(layout: Layout, share: Path) -> None:
    """Under a new id nothing that runs there would be found, and all of it would be run again."""
    before = place.prepare(str(share), layout, "head")
    for _ in range(20):
        (share / os.urandom(4).hex()).mkdir()
    shutil.rmtree(layout.data)
    layout.create()
    assert place.prepare(str(share), layout, "head") == before


def test_a_copied_spool_is_refused(layout: Layout, share: Path, tmp_path: Path) -> None:
    """It would answer for the jobs of the first one."""
    spool, folder = place.prepare(str(share), layout, "head")
    shutil.copytree(layout.root, tmp_path / "copy")
    for root, host in (("copy", "head"), ("spool", "other")):
        with pytest.raises(
            SpoolError, match=f"{spool} belongs to {layout.root} on head, and this spool has the same id"
        ):
            place.prepare(str(share), Layout(tmp_path / root), host)
    assert [one.name for one in Path(folder).iterdir()] == ["owner.json"]
    (tmp_path / "copy" / "data" / "spool-id").unlink()
    assert place.prepare(str(share), Layout(tmp_path / "copy"), "head")[0] != spool


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("relative", "must be an absolute path"),
        ("", "must be an absolute path"),
        ("/a\nb", "must be an absolute path"),
        ("/no/such/folder", "cannot use slurm_dir /no/such/folder: no such file"),
        ("{share}/file", "is not a folder"),
        ("{spool}", "must not lie in each other"),
        ("{spool}/data", "must not lie in each other"),
        ("{spool}/..", "must not lie in each other"),
        ("{share}/open", "can be written by others"),
        ("{share}/open/within", "can be written by others"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    layout: Layout, share: Path, folder: str, reason: str
) -> None:
    """With one line that names it."""
    (share / "file").touch()
    (share / "open" / "within").mkdir(parents=True)
    (share / "open").chmod(0o777)
    with pytest.raises(SpoolError, match=reason) as refused:
        place.prepare(folder.format(share=share, spool=layout.root), layout, "head")
    assert "\n" not in str(refused.value)
    assert not (Path(layout.data) / "spool-id").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_refused(layout: Layout, share: Path) -> None:
    os.chown(share, 65534, 65534)
    with pytest.raises(SpoolError, match="belongs to another user"):
        place.prepare(str(share), layout, "head")


@pytest.mark.parametrize("kind", ["link", "file", "open"])
def test_what_has_its_name_and_is_no_folder_of_ours_is_refused(
    layout: Layout, share: Path, kind: str
) -> None:
    """Through a link the environments of jobs would be written elsewhere."""
    (Path(layout.data) / "spool-id").write_text("0badcafe\n")
    target = share / "0badcafe"
    if kind == "link":
        target.symlink_to(share)
    elif kind == "file":
        target.touch()
    else:
        target.mkdir()
        target.chmod(0o755)
    with pytest.raises(SpoolError, match="must be a folder of yours"):
        place.prepare(str(share), layout, "head")


@pytest.mark.parametrize("text", ["", "0badcaf", "0BADCAFE", "../../..", "0badcafe0"])
def test_a_damaged_id_is_refused(layout: Layout, share: Path, text: str) -> None:
    (Path(layout.data) / "spool-id").write_text(text)
    with pytest.raises(SpoolError, match="does not have 8 hexadecimal digits"):
        place.prepare(str(share), layout, "head")
    assert list(share.iterdir()) == []


def test_a_share_without_hard_links_is_refused(
    layout: Layout, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing could ever be claimed there."""
    publish = files.publish

    def move_instead(scratch: str, target: str, *, keep: bool = False) -> None:
        publish(scratch, target, keep=False)

    monkeypatch.setattr(files, "publish", move_instead)
    with pytest.raises(SpoolError, match="has no hard links"):
        place.prepare(str(share), layout, "head")


def test_a_place_that_is_gone_while_jobs_are_out_is_seen(layout: Layout, share: Path) -> None:
    """Each second: nobody could read in `status` that the share was not mounted any more, and nothing was sent."""
    claims = Path(layout.claims("slurm"))
    claims.mkdir()
    assert dispatch_check.danger(str(share), layout, "slurm") is None
    home = place.prepare(str(share), layout, "head")[1]
    place.remember(str(claims), home)
    shutil.rmtree(home)
    assert dispatch_check.danger(str(share), layout, "slurm") is None  # nothing is out: it is made anew
    (claims / "a.json").write_text("{}")
    told = dispatch_check.danger(str(share), layout, "slurm")
    assert told == f"jobs are out in {home}, which is not there: is its file system mounted?"
    with pytest.raises(SpoolError) as caught:
        place.check_used(str(claims))
    assert caught.value.hint == f"findmnt --target {share}"
