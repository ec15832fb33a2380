"""The filter by itself, run as the kernel would run it, for the other architecture too."""

from __future__ import annotations

import itertools
import platform
import signal
import socket
import struct

import pytest

from pytest_autoresearch.sandbox import seccomp, system_calls


def decide(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Return what the filter *program* makes of a system call, as the kernel would run it."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    place, word = 0, 0
    while True:
        operation, if_true, if_false, value = code[place]
        place += 1
        match operation:
            case seccomp.LOAD:
                (word,) = struct.unpack_from("=I", data, value)
            case seccomp.AND:
                word &= value
            case seccomp.EQUAL:
                place += if_true if word == value else if_false
            case seccomp.AT_LEAST:
                place += if_true if word >= value else if_false
            case seccomp.JUMP:
                place += value
            case seccomp.RETURN:
                return int(value)


@pytest.mark.parametrize("machine", system_calls.ARCHITECTURES)
@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("scoped", [True, False])
def test_the_filter_decides_by_call_and_argument(
    machine: str, *, isolated: bool, scoped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    column, audit = system_calls.ARCHITECTURES[machine]
    program = seccomp.program(isolated=isolated, scoped=scoped)

    def verdict(name: str, *arguments: int) -> int:
        return decide(program, audit, system_calls.number(name), *arguments)

    forbidden = filter(system_calls.exists, (*system_calls.FORBIDDEN, *system_calls.NOT_FOR_RUNS))
    assert {verdict(name) for name in forbidden} == {seccomp.DENY}
    for name, oneself in system_calls.ON_SELF.items():
        arguments = [oneself[0], oneself.get(1, 0)]
        # The kernel looks at 32 bits of a process id, whatever the others are.
        assert verdict(name, *(value | 0xABC << 32 for value in arguments)) == seccomp.ALLOW
        for argument, target in itertools.product(oneself, [77, 1 << 31, -1]):
            others = [*arguments[:argument], target % 2**32, *arguments[argument + 1 :]]
            assert verdict(name, *others) == seccomp.DENY
    assert verdict("sched_setaffinity", 0) == seccomp.ALLOW
    assert verdict("sched_setaffinity", 77) == seccomp.PRETEND
    asked = seccomp.ALLOW if scoped else seccomp.ASK
    for name in system_calls.SIGNALS:
        assert {verdict(name, target) for target in (77, -77 % 2**32)} == {asked}
        assert verdict(name, 0) == (seccomp.ALLOW if name == "kill" else asked)
    assert verdict("kill", -1 % 2**32) == seccomp.DENY
    assert verdict("clock_nanosleep", 3) == seccomp.ALLOW  # CLOCK_THREAD_CPUTIME_ID
    assert verdict("clock_nanosleep", (~77 << 3 | 2) % 2**32) == seccomp.DENY
    assert verdict("prctl", 62) == seccomp.DENY
    assert verdict("prctl", 15) == seccomp.ALLOW  # PR_SET_NAME
    attributes = filter(system_calls.exists, system_calls.ATTRIBUTES)
    assert {verdict(name) for name in attributes} == {seccomp.PRETEND}
    for action in (0x7FFF, 0xABC << 32, 0xABC << 32 | 1):  # wherever in memory it lies
        assert verdict("rt_sigaction", signal.SIGCHLD, action) == seccomp.PRETEND
    assert verdict("rt_sigaction", signal.SIGCHLD, 0) == seccomp.ALLOW  # asking what it is
    assert verdict("rt_sigaction", signal.SIGTERM, 0x7FFF) == seccomp.ALLOW
    assert verdict("socket", socket.AF_UNIX) == (seccomp.ALLOW if isolated else seccomp.NO_FAMILY)
    assert verdict("socket", socket.AF_INET) == seccomp.NO_FAMILY
    assert verdict("socketpair", socket.AF_INET) == seccomp.DENY
    assert verdict("socketpair", socket.AF_UNIX) == seccomp.ALLOW
    assert verdict("clone", 0x01200011) == seccomp.ALLOW  # as fork
    assert {verdict("clone", 17 | 1 << bit) for bit in (17, *range(25, 31))} == {seccomp.DENY}
    assert verdict("clone3") == decide(program, audit, system_calls.NEWEST) == seccomp.UNKNOWN
    assert verdict("fcntl", 0, 2) == verdict("ioctl", 0, 0x5401) == seccomp.ALLOW
    assert {verdict("fcntl", 0, control) for control in (8, 10, 15, 1024, 1040)} == {seccomp.DENY}
    assert verdict("fcntl", 0, 8) == verdict("ioctl", 0, 0x5412) == seccomp.DENY
    assert verdict("fcntl", 0, 1036) == seccomp.DENY
    assert decide(program, audit ^ 1, 0) == seccomp.KILL_PROCESS
    assert decide(program, audit, (0, 63)[column]) == seccomp.ALLOW  # read


def of_runs_and_of_agents(name: str, *arguments: int) -> tuple[int, int]:
    """Return what the filters of this machine make of a system call of a run, and of an agent."""
    _, audit = system_calls.ARCHITECTURES[platform.machine()]
    programs = (seccomp.program(isolated=True, agent=agent) for agent in (False, True))
    run, agent = (decide(each, audit, system_calls.number(name), *arguments) for each in programs)
    return run, agent


WRITING = {
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC32_SETFLAGS": 0x40046602,
    "FS_IOC_FSSETXATTR": 0x401C5820,
    "FS_IOC_SETVERSION": 0x40087602,
    "EXT4_IOC_SETVERSION": 0x40086604,
    "FS_IOC_ENABLE_VERITY": 0x40806685,
    "FS_IOC_ADD_ENCRYPTION_KEY": 0xC0506617,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "FAT_IOCTL_SET_ATTRIBUTES": 0x40047211,
}
NEEDED = {
    "TCGETS": 0x5401,
    "FIONREAD": 0x541B,
    "FIOCLEX": 0x5451,
    "NV_ESC_CARD_INFO": 0xC00046C8,
    "UVM_INITIALIZE": 0x30000001,
    "DRM_IOCTL_VERSION": 0xC0406400,
    "AMDKFD_IOC_GET_VERSION": 0x80084B01,
}


@pytest.mark.parametrize("command", WRITING)
def test_no_ioctl_of_a_file_system_is_supported(command: str) -> None:
    # The kernel looks at 32 bits of a command, whatever the others are.
    for above in (0, 0xABC << 32):
        assert set(of_runs_and_of_agents("ioctl", 3, WRITING[command] | above)) == {seccomp.UNSUPPORTED}


@pytest.mark.parametrize("command", NEEDED)
def test_ioctls_of_terminals_and_accelerators_are_allowed(command: str) -> None:
    assert set(of_runs_and_of_agents("ioctl", 3, NEEDED[command])) == {seccomp.ALLOW}


def test_only_agents_see_and_evict_the_page_cache() -> None:
    pretended, allowed = (seccomp.PRETEND, seccomp.ALLOW), (seccomp.ALLOW, seccomp.ALLOW)
    assert of_runs_and_of_agents("fadvise64", 3, 0, 0, 4) == pretended
    assert {of_runs_and_of_agents("madvise", 0, 4096, advice) for advice in (20, 21)} == {pretended}
    # MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE
    assert {of_runs_and_of_agents("madvise", 0, 4096, advice) for advice in (4, 8, 14)} == {allowed}
    for name in ("preadv2", "pwritev2"):
        assert of_runs_and_of_agents(name, 3, 0, 1, 0, 0, 0x8 | 0x1)[0] == seccomp.UNSUPPORTED
        assert of_runs_and_of_agents(name, 3, 0, 1, 0, 0, 0x1) == allowed  # RWF_HIPRI


def test_agents_have_timers_and_may_watch_files() -> None:
    for name in filter(system_calls.exists, system_calls.NOT_FOR_RUNS):
        assert of_runs_and_of_agents(name) == (seccomp.DENY, seccomp.ALLOW)
