"""One job at a time writes to a folder, or to a file.

A job holds the operating system's lock (flock) on a hidden file, which says who it is. The lock belongs to the open
file, not to the process: threads exclude each other too, nothing that is closed elsewhere gives it up, and it ends with
a process however that ends; on a network file system with the node, once the server notices. Forked children close
their copy, so that they keep nothing.

The hidden file goes with the job, so that a run leaves its results and nothing else. No other job can be hurt by that:
only who holds the lock removes or replaces the file, and who gets a lock looks whether its file is still the one at
that place. The file comes there by a link, locked and with its text, never half made. A killed job leaves it behind,
unlocked: the next one takes its place, and `is_empty` overlooks it.

Some network file systems have no locks (Lustre without -o flock), or locks that other nodes do not see (localflock,
nolock). So a file that was left is believed too: of this machine's processes the system knows which live; a job on
another node renews its file's time every few seconds, and is watched for a while before its place is taken.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

from mdgnn._internal.warn_user import warn_user

NAME = ".mdgnn-lock"
BEAT, SILENCE, SETTLE = 10.0, 60.0, 1.0  # s: between renewals, of watching, before a place that was taken is looked at
FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
# ESTALE: of a file that another node has removed, which is found out next.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ESTALE}
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # FAT, say
LONGEST = 4096  # bytes of a job's text
ATTEMPTS = 1000  # others may come and go, but not for ever


class InUseError(RuntimeError):
    """Another job writes to a folder or file; one sentence says which."""


class Job(NamedTuple):
    """Who holds a lock: a process, by its number and when it began, on a machine, by its name and last start."""

    host: str
    boot: str
    pid: int
    birth: str
    since: str


class Lock:
    """Within this context no other job has the folder or file. Made by `lock_folder` and `lock_file`.

    The folder is made if there is none, and removed at the end if nothing came into it.

    Raises
    ------
    InUseError
        If another job, or another thread of this one, has it; at once, not at its end.
    OSError
        If the system lets nothing be written there.
    """

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, what
        self._descriptor: int | None = None
        self._made: list[Path] = []  # innermost first
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="mdgnn lock", daemon=True)

    def __enter__(self) -> "Lock":
        own = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        try:
            try:
                self._take_place(own, self._write(own))
            finally:
                with suppress(OSError):
                    own.unlink(missing_ok=True)
        except OSError as error:
            self._close()
            raise OSError(error.errno, error.strerror, str(self.path.parent)) from None
        except BaseException:
            self._close()
            raise
        self._renewing.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is None:  # in a forked child
            return
        self._over.set()
        self._renewing.join()
        with suppress(OSError):
            if _is_at(self.path, self._descriptor):
                self.path.unlink()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            _open.discard(self)
            os.close(self._descriptor)
            self._descriptor = None
        for folder in self._made:
            with suppress(OSError):  # something came into it
                folder.rmdir()

    def _write(self, own: Path) -> int:
        """Make a locked file that says who this job is, under a name that no other job uses; its descriptor."""
        for _ in range(ATTEMPTS):
            self._made = [folder for folder in (own.parent, *own.parent.parents) if not folder.exists()]
            with suppress(FileNotFoundError):  # a job that wrote nothing has removed the folder that it made
                own.parent.mkdir(parents=True, exist_ok=True)
                descriptor = self._descriptor = os.open(own, FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
                break
        else:
            raise OSError(errno.EAGAIN, "other jobs remove the folder again and again")
        _open.add(self)
        if _lock(descriptor) is None:
            warn_user(
                f"the file system of {own.parent} has no locks: whether another job writes to {self.what} is known "
                f"from {self.path.name} alone, which each job leaves there"
            )
        os.write(descriptor, json.dumps(_this_job()._asdict()).encode())
        os.fsync(descriptor)
        return descriptor

    def _take_place(self, own: Path, descriptor: int) -> None:
        for _ in range(ATTEMPTS):
            sure = True
            try:
                os.link(own, self.path)
                return
            except FileExistsError:
                with suppress(FileNotFoundError):  # its job has just ended
                    sure = self._replace(own)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if not self.path.exists():
                    own.replace(self.path)
                    sure = False
            if own.exists():
                continue
            if not sure:
                time.sleep(SETTLE)
            if not _is_at(self.path, descriptor):
                raise InUseError(self._sentence(_parse(self.path.read_bytes())))
            return
        raise OSError(errno.EAGAIN, "other jobs come and go all the time")

    def _replace(self, own: Path) -> bool:
        """Put the own file in the place of one whose job has died; whether no other job can do so at the same time."""
        other = os.open(self.path, FLAGS)
        try:
            locked, job = _lock(other), _parse(os.pread(other, LONGEST, 0))
            near = job is not None and _is_near(job)
            if locked is False:
                raise InUseError(self._sentence(job))
            if _is_at(self.path, other) and (_lives(job) if job and near else self._stirs(other, job)):
                raise InUseError(self._sentence(job))
            if _is_at(self.path, other):
                own.replace(self.path)
            return near and locked is True
        finally:
            os.close(other)

    def _stirs(self, other: int, job: Job | None) -> bool:
        """Whether a job on another node renews its file while it is watched."""
        who = "another job" if job is None else f"process {job.pid} on {job.host}"
        warn_user(f"{self.what} was not given back by {who}: looking for {SILENCE:g} s whether that is still alive")
        before, end = os.fstat(other).st_mtime_ns, time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(SILENCE / 60)
            now = _status(self.path)
            if now is None or not os.path.samestat(now, os.fstat(other)):
                return False
            if now.st_mtime_ns != before:
                return True
        return False

    def _renew(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                os.utime(self.path if self._descriptor is None else self._descriptor)

    def _sentence(self, job: Job | None) -> str:
        who = "another job" if job is None else f"process {job.pid} on {job.host} since {job.since}"
        near = job is not None and _is_near(job)
        advice = "" if near else f", or, if it is dead for certain, remove {self.path}"
        return f"{self.what} is in use by {who}; try again when that has ended{advice}"


_open: WeakSet[Lock] = WeakSet()


def _close_in_child() -> None:
    for lock in _open:
        if lock._descriptor is not None:
            os.close(lock._descriptor)
        lock._descriptor, lock._made = None, []
    _open.clear()


os.register_at_fork(after_in_child=_close_in_child)


def lock_folder(folder: Path) -> Lock:
    """A folder for one job alone, whatever it writes there."""
    return Lock(folder / NAME, f"the folder {folder}")


def lock_file(path: Path) -> Lock:
    """A file for one job alone, of a folder that others may write to."""
    return Lock(path.with_name(f".{path.name}{NAME}"), f"the file {path}")


def check_idle(folder: Path) -> None:
    """Raise an InUseError if a job has the folder."""
    if (folder / NAME).exists():
        with lock_folder(folder):
            pass


def is_empty(folder: Path) -> bool:
    """Whether a folder has nothing in it but what locks leave."""
    return all(path.name.startswith(".") and NAME in path.name for path in folder.iterdir())


def _lock(descriptor: int) -> bool | None:
    """Whether the lock was free, and is now held; None where there are none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def _status(path: Path) -> os.stat_result | None:
    """Of the file at a place: opened, since a network file system may remember what was there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    there = _status(path)
    return there is not None and os.path.samestat(there, os.fstat(descriptor))


def _this_machine() -> tuple[str, str]:
    """Its name, and which of its starts this is, where the system tells."""
    with suppress(OSError):
        return socket.gethostname(), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname(), ""


def _is_near(job: Job) -> bool:
    return (job.host, job.boot) == _this_machine()


def _this_job() -> Job:
    return Job(*_this_machine(), os.getpid(), _birth(os.getpid()), time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _birth(pid: int) -> str:
    """When a process began, as Linux counts it; "" of none, of one that is dead and not yet buried, or elsewhere."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]


def _lives(job: Job) -> bool:
    """Whether a process of this machine is still there; another one may have its number by now."""
    if job.birth:
        return _birth(job.pid) == job.birth
    try:
        os.kill(job.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _parse(text: bytes) -> Job | None:
    try:
        content = json.loads(text)
        return Job(content["host"], content["boot"], int(content["pid"]), content["birth"], content["since"])
    except (ValueError, TypeError, KeyError):
        return None
