"""Program of the process that runs the code of a reply and its tests; started by ``code_runner`` with ``python -I``.

Only the standard library is imported. The process gives up its rights first: it keeps limits on time, memory and files, cannot start processes, signal
others, open connections, write outside its folder, or read files outside the Python installation and the system's libraries.
"""

from __future__ import annotations

import builtins
import ctypes
import marshal
import os
import struct
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and json take as long to import as the interpreter to start
    from collections.abc import Callable, Iterable
    from typing import Any

MAX_FILE_BYTES = 16 << 20
MAX_OPEN_FILES = 64
READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
)
"""Paths that may be read beside the Python installation."""

# Landlock, include/uapi/linux/landlock.h; the system calls have the same numbers on all architectures
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (1 << bit for bit in (0, 1, 2, 3, 5, 8, 14))
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Number of file rights that each version of Landlock knows; later versions know as many as the last."""

# seccomp, include/uapi/linux/seccomp.h and bpf_common.h
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _EAGAIN, _ENOSYS = 1, 11, 38
_CLONE_THREAD = 0x10000
_MACHINES: dict[str, tuple[int, int, tuple[int, ...], int]] = {
    # audit architecture, clone, refused system calls, capset. Refused are fork, vfork, execve, execveat, socket, kill, tkill, tgkill, rt_sigqueueinfo,
    # rt_tgsigqueueinfo, pidfd_open, pidfd_send_signal, ptrace, process_vm_readv, process_vm_writev, io_uring_setup, unshare, setns, mount, bpf,
    # userfaultfd, memfd_create, add_key, request_key and keyctl
    "x86_64": (
        0xC000003E,
        56,
        (57, 58, 59, 322, 41, 62, 200, 234, 129, 297, 434, 424, 101, 310, 311, 425, 272, 308, 165, 321, 323, 319, 248, 249, 250),
        126,
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (221, 281, 198, 129, 130, 131, 138, 240, 434, 424, 117, 270, 271, 425, 97, 268, 40, 280, 282, 279, 217, 218, 219),
        91,
    ),
}
_CLONE3 = 435
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 38, 22, 2
_CAPABILITY_VERSION = 0x20080522


def isolate(folder: str, seconds: float, memory_bytes: int) -> list[str]:
    """Give up the rights of this process for good; returns which of ``files`` and ``processes and network`` the system can protect.

    Args:
        folder: The only folder in which files may be written.
        seconds: Maximum CPU time; rounded up.
        memory_bytes: Maximum size of the address space.
    """
    protections: list[str] = []
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if _restrict_files(libc, folder):
            protections.append("files")
    _limit_resources(seconds, memory_bytes)
    if sys.platform == "linux":
        machine = os.uname().machine
        if machine in _MACHINES:
            capset = _MACHINES[machine][3]
            libc.syscall(capset, struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))  # root, too, can no longer raise its limits
        if _restrict_system_calls(libc, machine):
            protections.append("processes and network")
    if "processes and network" not in protections:
        import resource

        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return protections


def _limit_resources(seconds: float, memory_bytes: int) -> None:
    import resource

    whole = int(-(-seconds // 1))
    limits = {
        resource.RLIMIT_CPU: (whole, whole + 1),
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_FSIZE: (MAX_FILE_BYTES, MAX_FILE_BYTES),
        resource.RLIMIT_NOFILE: (MAX_OPEN_FILES, MAX_OPEN_FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    for limit, values in limits.items():
        try:
            resource.setrlimit(limit, values)
        except (ValueError, OSError):  # a lower limit is set already, or the system has none, such as macOS on the address space
            continue


def _restrict_files(libc: Any, folder: str) -> bool:
    """Restrict the files of this process with Landlock; returns whether the system can."""
    abi = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return False
    rights = (1 << _RIGHTS_OF_ABI.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)  # files; TCP; signals and abstract sockets
    ruleset = libc.syscall(_CREATE_RULESET, attributes, 24 if abi >= 6 else 16 if abi >= 4 else 8, 0)
    if ruleset < 0:
        return False

    def allow(path: str, wanted: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        allowed = wanted & rights & (-1 if os.path.isdir(path) else _FILE_RIGHTS)  # noqa: PTH112 - pathlib takes 20 ms to import
        libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, descriptor), 0)
        os.close(descriptor)

    for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, *READABLE}:
        allow(path, _EXECUTE | _READ_FILE | _READ_DIR)
    allow("/dev/null", _READ_FILE | _WRITE_FILE)
    allow(folder, _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _REMOVE_FILE)
    restricted: bool = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return restricted


def _restrict_system_calls(libc: Any, machine: str) -> bool:
    """Refuse system calls with seccomp; returns whether the system can."""
    if machine not in _MACHINES:
        return False
    architecture, clone, refused, _ = _MACHINES[machine]
    program = [
        (_LOAD, 0, 0, 4),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_IF_AT_LEAST, 0, 1, 0x40000000),  # the x32 calls of x86_64
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_IF_EQUAL, 0, 1, _CLONE3),  # its flags are in memory, which a filter cannot read; libraries fall back to clone
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in refused:
        program += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    program += [
        (_IF_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, 16),  # its flags: threads are allowed, processes are not
        (_IF_SET, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EAGAIN),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def run(code: str, tests: str, entry_point: str) -> tuple[str, str]:
    """Run code and then its tests; returns the error class, empty when the tests pass, and a message.

    The tests see the names of the code, but Python's own functions and ``unittest`` as they are, whatever the code did to them.

    Args:
        code: The program.
        tests: Statements, or definitions of ``check(candidate)`` or of ``unittest.TestCase`` classes, which are then run.
        entry_point: Name of the function that ``check`` gets.
    """
    own_functions = vars(builtins)
    originals = dict(own_functions)
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(code, "<reply>", "exec"), vars(module))
    except SyntaxError as error:
        return "syntax_error", str(error)
    except MemoryError:
        return "memory", ""
    except BaseException as error:
        return "runtime_error", type(error).__name__
    own_functions.clear()
    own_functions.update(originals)
    for name in [name for name in sys.modules if name == "unittest" or name.startswith("unittest.")]:
        del sys.modules[name]
    names = {name: value for name, value in vars(module).items() if name == entry_point or name not in originals}
    names |= {"__name__": "tests", "__builtins__": builtins}
    try:
        exec(compile(tests, "<tests>", "exec"), names)
        if entry_point and callable(names.get("check")):
            names["check"](names[entry_point])
        failure = _run_test_cases(names.values())
    except AssertionError as error:
        return "failed_test", str(error)[:200]
    except MemoryError:
        return "memory", ""
    except BaseException as error:
        return "runtime_error", type(error).__name__
    return failure, ""


def _run_test_cases(values: Iterable[Any]) -> str:
    """Run the ``unittest.TestCase`` classes among the values; returns the error class, empty when all tests pass or there are none."""
    unittest = sys.modules.get("unittest")
    if unittest is None:
        return ""
    loader = unittest.TestLoader()
    cases = [value for value in values if isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == "tests"]
    result = unittest.TestResult()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
    number = suite.countTestCases()
    suite.run(result)
    if any("MemoryError" in trace.rstrip().rpartition("\n")[2] for _, trace in result.errors):
        return "memory"
    if result.errors:
        return "runtime_error"
    if result.failures or result.unexpectedSuccesses or result.testsRun < number or (cases and not number):
        return "failed_test"
    return ""


def main(
    read: Callable[[int, int], bytes] = os.read, write: Callable[[int, bytes], int] = os.write, leave: Callable[[int], Any] = os._exit
) -> None:
    """Run the job that the standard input has in ``marshal``'s format, and write four lines to the descriptor of the first argument.

    They are the error class, the secret, the protections and a message. The second argument is the descriptor of a pipe with the secret, which is read
    after the tests have passed, so code that ends the process early has not passed. The functions are arguments, because the code may replace those of
    ``os``.
    """
    result, secret = int(sys.argv[1]), int(sys.argv[2])
    job = marshal.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    protections = isolate(job["folder"], job["seconds"], job["memory_bytes"])
    error, message = run(job["code"], job["tests"], job["entry_point"])
    proof = b"" if error else read(secret, 100)
    write(result, b"\n".join((error.encode(), proof, ",".join(protections).encode(), message.encode("ascii", "backslashreplace"))))
    leave(0)


if __name__ == "__main__":
    main()
