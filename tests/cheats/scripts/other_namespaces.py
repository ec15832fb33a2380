"""Makes a world of its own in which it is root: namespaces, mounts, another root, io_uring."""

import ctypes
import os
import signal

from prepare import attempt, hand_in_shared_model, system_call

NEW_USER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


def clone():
    if system_call("clone", NEW_USER | signal.SIGCHLD, 0, 0, 0, 0) == "done":  # the child
        os._exit(0)
    return "cloned"


attempt("unshare", lambda: system_call("unshare", NEW_USER))
attempt("clone", clone)
attempt("mount", lambda: libc.mount(b"none", os.getcwdb(), b"tmpfs", 0, None) == 0)
attempt("change the root", lambda: os.chroot(".") or "changed")
attempt("io_uring", lambda: system_call("io_uring_setup", 8, ctypes.create_string_buffer(256)))
attempt("open by a handle", lambda: system_call("open_by_handle_at", os.open(".", os.O_RDONLY), 0, 0))
attempt("make a device", lambda: os.mknod("disk", 0o60666, os.makedev(254, 0)) or open("disk", "rb"))

hand_in_shared_model()
