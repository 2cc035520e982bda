"""Filesystems that can't keep what a spool promises are refused."""

from pathlib import Path

import pytest

from fasthook.errors import ConfigError
from fasthook.spool.filesystem import check_filesystem, kind_of

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/far rw shared:7 - nfs4 server:/x rw
31 22 0:41 / /srv/far/near rw - ext4 /dev/vdb rw
32 22 0:42 / /mnt/with\\040space rw - cifs //server/share rw
33 22 0:43 / /run rw - tmpfs tmpfs rw
34 22 0:44 / /srv/over rw - nfs4 server:/y rw
35 22 0:45 / /srv/over rw - xfs /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/fasthook", "ext4"),
        ("/srv/far", "nfs4"),
        ("/srv/far/a/b", "nfs4"),
        ("/srv/farther", "ext4"),
        ("/srv/far/near/a", "ext4"),
        ("/mnt/with space/a", "cifs"),
        ("/run/fasthook", "tmpfs"),
        ("/srv/over/a", "xfs"),
    ],
)
def test_the_innermost_mount_counts(path, kind):
    assert kind_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("path", ["/srv/far/var", "/mnt/with space/var"])
def test_a_network_is_refused(path):
    with pytest.raises(ConfigError, match="needs a disk of this machine"):
        check_filesystem(Path(path), MOUNTS)


def test_a_disk_is_taken_and_so_is_what_this_machine_has(tmp_path):
    check_filesystem(Path("/var/lib/fasthook"), MOUNTS)
    check_filesystem(tmp_path)
