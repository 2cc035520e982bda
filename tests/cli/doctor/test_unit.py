"""The unit, judged by its file and by systemd's own tool."""

import shutil

import pytest

from fasthook.cli.doctor import supervision
from fasthook.cli.doctor.units import find_unit
from tests.cli.conftest import configuration, endpoint
from tests.cli.doctor.conftest import bads, goods, is_all_good, warnings

GOOD = """
[Service]
Type=notify
ExecStart=/opt/fasthook/bin/fasthook serve
Restart=always
WatchdogSec=30
DynamicUser=yes
TimeoutStopSec=1min
"""
#: As much of a sandbox as a service of no use can have.
TIGHT = """
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
PrivateNetwork=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
IPAddressDeny=any
DevicePolicy=closed
UMask=0077
"""


@pytest.fixture
def unit(units):
    def unit(text: str, name: str = "fasthook.service"):
        (units / name).write_text(text)

    return unit


def lines(case) -> list:
    """Without what systemd-analyze says."""
    return [each for each in supervision.look(case) if "exposure" not in each.text]


def test_a_good_unit(case, unit):
    unit(GOOD)
    found = lines(case())

    assert is_all_good(found), found


def test_no_unit_is_a_warning(case):
    assert "no fasthook.service is installed" in warnings(supervision.look(case()))[0]


@pytest.mark.parametrize(
    ("line", "by", "level", "text"),
    [
        ("Restart=always", "", bads, "it stays down after a crash"),
        ("Restart=always", "Restart=on-abort", warnings, "leaves it down"),
        ("Type=notify", "Type=simple", warnings, "does not wait until"),
        ("WatchdogSec=30", "", warnings, "no watchdog"),
        ("WatchdogSec=30", "WatchdogSec=0", warnings, "no watchdog"),
        ("DynamicUser=yes", "", bads, "it runs as root"),
        ("TimeoutStopSec=1min", "TimeoutStopSec=20", warnings, "it is killed 20 s after"),
    ],
)
def test_what_is_missing_is_said(case, unit, line, by, level, text):
    assert line in GOOD
    unit(GOOD.replace(line, by))

    assert text in level(lines(case()))[0]


@pytest.mark.parametrize(
    "line",
    ["LoadCredential=hook:/etc/hook", "SetCredentialEncrypted=hook: x", "ImportCredential=*"],
)
def test_credentials_have_to_be_handed_over(case, unit, line):
    text = configuration(endpoint("github", more='secrets = ["credential:hook"]'))
    unit(GOOD)
    assert "it hands no credential hook over" in bads(lines(case(text)))[0]

    unit(f"{GOOD}{line}\n")
    assert is_all_good(lines(case(text)))


def test_drop_ins_count_and_empty_values_take_back(units, unit):
    unit("[Service]\nLoadCredential=a:/a\nRestart=no\n# WatchdogSec=1\nExecStart=/bin/x \\\n  y\n")
    folder = units / "fasthook.service.d"
    folder.mkdir()
    (folder / "b.conf").write_text("[Service]\nRestart=always\nLoadCredential=b:/b\n")
    found = find_unit("fasthook.service")
    assert found.last("Service", "Restart") == "always"
    assert found.all("Service", "LoadCredential") == ["a:/a", "b:/b"]
    assert found.last("Service", "ExecStart") == "/bin/x  y"
    assert not found.all("Service", "WatchdogSec")

    (folder / "c.conf").write_text("[Service]\nLoadCredential=\n")
    assert find_unit("fasthook.service").all("Service", "LoadCredential") == []


def test_a_socket_that_systemd_is_to_pass_has_to_be_there(case, unit):
    text = configuration(endpoint("github")).replace("tcp://127.0.0.1:0", "systemd", 1)
    unit(GOOD)
    assert "no fasthook.socket is installed" in bads(lines(case(text)))[0]

    unit("[Socket]\n", "fasthook.socket")
    assert "it listens nowhere" in bads(lines(case(text)))[0]

    unit("[Socket]\nListenStream=/run/fasthook/fasthook.sock\n", "fasthook.socket")
    assert is_all_good(lines(case(text)))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_sandbox_is_judged_by_systemd(case, unit, units):
    unit(GOOD.replace("DynamicUser=yes", "User=root"))
    assert "expected 1.0 at most" in bads(supervision.look(case()))[-1]

    unit(GOOD + TIGHT)
    found = list(supervision.look(case()))
    assert is_all_good(found), found
    assert "exposure 0." in goods(found)[-1]

    # A drop-in that opens it again is seen, too.
    (units / "fasthook.service.d").mkdir()
    drop_in = "[Service]\nSystemCallFilter=\nPrivateNetwork=no\nIPAddressDeny=\n"
    (units / "fasthook.service.d/open.conf").write_text(drop_in)
    assert "expected 1.0 at most" in warnings(supervision.look(case()))[-1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1min 30s", 90), ("500ms", 0.5), ("infinity", None), ("0", 0)],
)
def test_spans_of_time(text, seconds):
    assert supervision.seconds_of(text) == seconds
