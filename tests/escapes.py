"""Attempts made inside a sandbox: ways out, and the work of an ordinary script."""

from __future__ import annotations

SECRET = "AUTORESEARCH_TEST_API_KEY"  # noqa: S105 - the name of a variable

PROBE = """
import asyncio, ctypes, fcntl, getpass, json, mmap, multiprocessing, os, psutil, resource, shutil, signal
import socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time
from multiprocessing.connection import Listener
from pathlib import Path

given, attempts = json.loads(sys.stdin.read() if len(sys.argv) < 2 else Path(sys.argv[1]).read_text())
globals().update(given)
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    answer = libc.syscall(ctypes.c_long(numbers[name]), *words)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if name == "clone" and answer == 0:
        os._exit(0)
    return answer

def check(fact):
    assert fact
    return fact

def watch(folder):
    return call("inotify_add_watch", call("inotify_init1", 0), os.fsencode(folder), 2)  # IN_MODIFY

def connect(address):
    socket.socket(socket.AF_UNIX).connect(address)

def leader(command):
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)

def worker():
    return multiprocessing.get_context("fork").Process(target=time.sleep, args=(9,))

def overslept(*arguments, **options):
    try:
        subprocess.run(*arguments, **options)
    except subprocess.TimeoutExpired:
        return True

async def terminated(*command):
    process = await asyncio.create_subprocess_exec(*command)
    process.terminate()
    return await process.wait()

for name, code in attempts.items():
    try:
        eval(code)
        print(json.dumps([name, "done"]), flush=True)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""

# Each is an expression that has broken out if it raises nothing.
FORBIDDEN = {
    "read a file that is not listed": "open(secret).read()",
    "read it through a symbolic link": "os.symlink(secret, 'link') or open('link').read()",
    "read it through a hard link": "os.link(secret, 'hard') or open('hard').read()",
    "move it": "os.rename(secret, 'moved')",
    "read it through pytest's root": "open(f'/proc/{pytest}/root{secret}').read()",
    "read it through the supervisor's root": "open(f'/proc/{os.getppid()}/root{secret}').read()",
    "read it through pytest's working directory": "open(f'/proc/{pytest}/cwd/pyproject.toml').read()",
    "read it through a descriptor left open": "os.pread(leaked, 10, 0)",
    "list its folder": "os.listdir(os.path.dirname(secret))",
    "list the root": "check(set(os.listdir('/')) & {'boot', 'home', 'var', 'srv'})",
    "list the home": "check(set(os.listdir(home)) - set(on_the_way))",
    "list the repository": "check(set(os.listdir(repository)) - set(on_the_way))",
    "read the repository": "open(repository + '/pyproject.toml').read()",
    "read the shadow file": "check(Path('/etc/shadow').exists() and open('/etc/shadow').read())",
    "overwrite a file that is not listed": "open(secret, 'a').write('x')",
    "truncate a readable file": "os.truncate(readable, 0)",
    "truncate a readable file by opening it": "os.open(readable, os.O_RDONLY | os.O_TRUNC)",
    "write to a readable file": "open(readable, 'a').write('x')",
    "remove a readable file": "os.remove(readable)",
    # EXT4_IOC_SETVERSION, of who owns the file
    "change a readable file's version": "fcntl.ioctl(os.open(readable, os.O_RDONLY), 0x40086604, bytes(8))",
    "ask whether a file is cached": "os.preadv(os.open(readable, 0), [bytearray(1)], 0, os.RWF_NOWAIT)",
    "watch a folder": "watch(os.path.dirname(secret))",
    "write beside the packages": "open(f'{packages}/{token}.pth', 'w').write('x')",
    "write to this package": "open(f'{package}/{token}.py', 'w').write('x')",
    "write the kernel's settings": "os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY)",
    "read hidden text": "open(hidden).read()",
    "read hidden text by another name": "open(alias).read()",
    "read a hidden file": "open(hidden_file).read()",
    "read text hidden deeper": "open(deeper).read()",
    "write hidden text": "open(hidden, 'a').write('x')",
    "connect by TCP": "socket.create_connection(('127.0.0.1', port), 2)",
    "send by UDP": "check(socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port)) != 1)",
    "make an IPv4 socket": "socket.socket(socket.AF_INET)",
    "make an IPv6 socket": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "make a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "make a vsock": "socket.socket(socket.AF_VSOCK)",
    "make a pair of IPv4 sockets": "socket.socketpair(socket.AF_INET)",
    "connect to an abstract socket": "connect(chr(0) + token)",
    "connect to a named socket": "connect(door)",
    "look for pytest": "os.kill(pytest, 0)",
    "signal pytest": "os.kill(pytest, signal.SIGURG)",
    "signal pytest's group": "os.killpg(group, signal.SIGURG)",
    "signal everyone": "os.kill(-1, 0)",
    "signal a thread of pytest": "os.kill(thread, 0)",
    "signal a thread of pytest as such": "call('tgkill', pytest, thread, 0)",
    "open pytest": "os.pidfd_open(pytest)",
    "queue a signal to pytest": "call('rt_sigqueueinfo', pytest, 23, ctypes.create_string_buffer(128))",
    "own pytest's signals": "__import__('fcntl').fcntl(0, 8, pytest)",
    "limit pytest": "resource.prlimit(pytest, resource.RLIMIT_CORE)",
    "slow pytest down": "os.setpriority(os.PRIO_PROCESS, pytest, 19)",
    "slow pytest's user down": "os.setpriority(os.PRIO_USER, 0, 19)",
    "trace pytest": "call('ptrace', 16, pytest, 0, 0)",
    "read pytest's memory": "open(f'/proc/{pytest}/mem', 'rb')",
    "read pytest's memory by a call": "call('process_vm_readv', pytest, 0, 0, 0, 0, 0)",
    "read pytest's environment": "open(f'/proc/{pytest}/environ').read()",
    "read its environment": f"check('{SECRET}' in open(f'/proc/{{os.getppid()}}/environ').read())",
    "find a key in the environment": f"os.environ['{SECRET}']",
    "become another namespace's root": "call('clone', 0x10000000 | 17, 0, 0, 0, 0)",
    "unshare": "call('unshare', 0x10000000)",
    "mount": "check(libc.mount(b'none', os.getcwdb(), b'tmpfs', 0, None) == 0)",
    "change the root": "os.chroot('.')",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "gain priority": "os.setpriority(os.PRIO_PROCESS, 0, -20)",
    "make a call of the x32 kind": "check(numbers['x32'] and libc.syscall(ctypes.c_long(0x40000027)) > 0)",
    "make a call of the future": "check(libc.syscall(ctypes.c_long(463)) >= 0 or ctypes.get_errno() != 38)",
}

# They may succeed inside; the tests look for an effect outside.
HARMLESS = {
    "write to the temporary folder": "open(f'{host_tmp}/{token}', 'w').write('x')",
    "write to shared memory": "open(f'/dev/shm/{token}', 'w').write('x')",
    "change a mode": "os.chmod(readable, 0o777)",
    "change an owner": "os.chown(readable, os.getuid(), -1)",
    "change a time": "os.utime(readable, (0, 0))",
    "change an open file's mode": "os.fchmod(os.open(readable, os.O_RDONLY), 0o777)",
}

ORDINARY = {
    # its three standard streams, the one passed and the one that lists
    "hold no other descriptor": "check(len(os.listdir('/proc/self/fd')) == 5)",
    "write and read its folder": "check(Path('a').write_text('x') and Path('a').read_text() == 'x')",
    "rename and remove there": "os.rename('a', 'b') or os.remove('b')",
    "copy with attributes": "check(shutil.copy2('probe.py', 'copy.py'))",
    "copy by a program": "subprocess.run(['cp', '--reflink=auto', 'probe.py', 'copy.py'], check=True)",
    "read and write at a place": "os.preadv(os.open(readable, 0), [bytearray(2)], 0, os.RWF_HIPRI)",
    "advise on a file": "os.posix_fadvise(os.open(readable, 0), 0, 0, os.POSIX_FADV_DONTNEED)",
    "advise on memory": "mmap.mmap(-1, 4096).madvise(mmap.MADV_DONTNEED)",
    "start itself": "subprocess.run([sys.executable, '-c', 'import email'], check=True)",
    "start a system program": "subprocess.run(['ls', '/usr'], check=True, stdout=subprocess.DEVNULL)",
    "import the package": "subprocess.run([sys.executable, '-c', 'import pytest_autoresearch'], check=True)",
    "run threads": "(t := threading.Thread(target=time.sleep, args=(0,))).start() or t.join()",
    "kill a child": "(p := subprocess.Popen(['sleep', '9'])).kill() or check(p.wait() == -9)",
    # which in a namespace its first process leads, and 0 is outside
    "have its own session": "check(os.getsid(0) == os.getpgrp() and os.getpgrp() in (1, os.getpid()))",
    "signal its own group": "os.killpg(0, signal.SIGURG)",
    "signal itself": "os.kill(os.getpid(), signal.SIGURG)",
    "raise a signal": "signal.raise_signal(signal.SIGURG)",
    "signal its thread": "signal.pthread_kill(threading.get_ident(), signal.SIGURG)",
    "queue a signal to itself": "check(libc.sigqueue(os.getpid(), signal.SIGURG, None) == 0)",
    "abort": "check(os.waitstatus_to_exitcode(os.waitpid(os.fork() or os.abort(), 0)[1]) == -6)",
    "terminate a child": "(p := subprocess.Popen(['sleep', '9'])).terminate() or check(p.wait() == -15)",
    "kill a child that has ended": "(p := leader(['true'])) and time.sleep(0.1) or p.kill() or p.wait()",
    "kill a group": "(p := leader(['sleep', '9'])) and os.killpg(p.pid, 9) or check(p.wait() == -9)",
    "kill a grandchild": "(p := leader(['sh', '-c', 'sleep 9 & kill -9 $!'])) and check(p.wait() == 0)",
    "end a child in time": "check(overslept(['sleep', '9'], timeout=0.1))",
    "end a worker": "(p := worker()).start() or p.terminate() or p.join() or check(p.exitcode == -15)",
    "run a child by asyncio": "check(asyncio.run(terminated('sleep', '9')) == -15)",
    "wait by psutil": "check(psutil.Process((p := leader(['true'])).pid).wait(9) == 0)",
    "give way": "os.setpriority(os.PRIO_PROCESS, 0, os.nice(1))",
    "pin itself": "os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "pin itself by its number": "psutil.Process().cpu_affinity(list(os.sched_getaffinity(0)))",
    "be scheduled as a batch": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "limit itself": "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))",
    "set a timer": "signal.setitimer(signal.ITIMER_PROF, 60) or signal.setitimer(signal.ITIMER_PROF, 0)",
    "use a socket pair": "socket.socketpair()",
    "make a temporary file": "tempfile.TemporaryFile()",
    "find TMPDIR": "check(tempfile.gettempdir() == os.environ['TMPDIR'])",
    "know its user": "check(getpass.getuser())",
    "draw random bytes": "open('/dev/urandom', 'rb').read(4)",
    "write to nowhere": "open('/dev/null', 'w').write('x')",
    "use a database": "sqlite3.connect('data').execute('create table t (a)')",
    "read what is listed": "check(open(readable).read() == 'readable')",
    "read beside what is hidden": "check(open(visible).read() == 'visible')",
    "list beside what is hidden": "check('module.py' in os.listdir(library))",
    "read what is listed below a hidden folder": "check(open(exception).read() == 'exception')",
    "read a descriptor passed to it": "check(os.pread(passed, 10, 0) == b'passed')",
    "read its standard input": "check(os.read(0, 1) == b'')",
    "leave no core": "check(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))",
    "have no capability": "check('CapEff:\\t' + 16 * '0' in Path('/proc/self/status').read_text())",
    "gain no privilege": "check('NoNewPrivs:\\t1' in Path('/proc/self/status').read_text())",
    "see the processors": "check(os.listdir('/sys/devices/system/cpu'))",
}

WITH_NAMESPACES = {
    "share a lock": "multiprocessing.Lock()",
    "use a pool": "check(multiprocessing.get_context('fork').Pool(2).map(abs, [-1]) == [1])",
    "listen for its workers": "Listener(family='AF_UNIX')",
    "use shared memory": "open('/dev/shm/x', 'w').write('x')",
}
