"""Looks at what many needs come to in two processes, each at every other block of them; the entries stay in order.

In memory, most of the time of a comparison is Python's own, and threads would take turns at it. So, where there is much
to compare and more than one processor may be used, this process forks: the other one has all that was gathered, goes
through the same needs, and sends what it found of its blocks through a pipe. Nothing runs ahead further than the pipe
holds. 100,000 pairs take 0.6 of the time.

Another process that ends before it has told everything ends the run: what it has not told was not compared.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import IO, Any, NoReturn

from chrootsync.inventory.ahead import read_ahead
from chrootsync.inventory.needs import FileNeed, Need, Place, entry_of
from chrootsync.model import ChrootsyncError, Entry, FileType, Kind, Problem, Reader, State, Trust
from chrootsync.model.frozen import frozen

BLOCK = 128  # pairs; the pipe holds some blocks, so that neither process has to wait for the other
PIPE = 1 << 20  # bytes, as many as everybody may ask for
_STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

Look = Callable[[Need], Sequence[Entry]]


_AGAIN = True  # what is wanted is what was wanted of the place before
_TYPES = {kind.value: kind for kind in FileType}
_PLAIN = attrgetter("mode", "uid", "gid", "size", "identity")
_FIELDS = attrgetter(
    *("type.value", "mode", "uid", "gid", "size", "sha256", "target", "device", "identity", "extended", "mtime")
)


@frozen
class _Other:
    """The other process: what it says is read from ``told``."""

    pid: int
    told: IO[bytes]


def look_at_all(root: Reader, needs: Iterable[Need], look: Look, trust: Trust) -> Iterator[Entry]:
    """The entries of all needs, in order."""
    blocks = _blocks(needs)
    other = _fork(lambda told: _tell(root, blocks, look, trust, told))
    if other is None:
        for block in blocks:
            for need in read_ahead(root, block, trust):
                yield from look(need)
        return
    try:
        for number, block in enumerate(blocks):
            if number % 2:
                yield from _heard(root, block, look, _hear(other))
            else:
                for need in read_ahead(root, block, trust):
                    yield from look(need)
        trust.believe(_hear(other))
    finally:
        _stop(other)


def _blocks(needs: Iterable[Need]) -> Iterator[list[Need]]:
    """The needs in blocks of about as many pairs."""
    block: list[Need] = []
    pairs = 0
    for need in needs:
        block.append(need)
        pairs += len(need.places) if isinstance(need, FileNeed) else 1
        if pairs >= BLOCK:
            yield block
            block, pairs = [], 0
    if block:
        yield block


# --- Two processes ------------------------------------------------------------------------------------------------


def _fork(work: Callable[[IO[bytes]], None]) -> _Other | None:
    """Have another process do some work; None where there would be nothing to gain by it, or there can be none.

    A process with threads is not forked: what they hold locked would stay so. A daemon does not count: it shows how far
    the run is, and holds nothing that is needed here.
    """
    if len(os.sched_getaffinity(0)) < 2 or _has_threads():
        return None
    import fcntl

    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    # Until the other one has handlers of its own, a signal would end the run there as it does here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which were thought of
            pid = os.fork()
        if not pid:
            _work(work, reading, writing)
    except OSError:
        os.close(reading)
        return None
    finally:
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Other(pid=pid, told=open(reading, "rb"))


def _has_threads() -> bool:
    threading = sys.modules.get("threading")
    if threading is None:
        return False
    return any(not one.daemon for one in threading.enumerate() if one is not threading.main_thread())


def _work(work: Callable[[IO[bytes]], None], reading: int, writing: int) -> NoReturn:
    """Do the work of the other process, which ends here whatever happens; a bug is told before.

    What stops a run is for the first process, which then ends this one: it stays deaf to it. Once nobody reads what it
    says any more, it ends by itself.
    """
    import gc

    try:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        gc.disable()  # looking for garbage would copy all that both have in common
        os.close(reading)
        with open(writing, "wb", closefd=False) as told:
            try:
                work(told)
            except Exception:  # noqa: BLE001 -- a bug, to be raised where somebody can tell it
                import traceback

                _say(told, traceback.format_exc())
        os._exit(0)
    finally:
        os._exit(1)


def _stop(other: _Other) -> None:
    """End the other process, if it has not ended by itself."""
    other.told.close()
    with suppress(ProcessLookupError):
        os.kill(other.pid, signal.SIGKILL)  # no other process can have this number before it is waited for
    os.waitpid(other.pid, 0)


# --- What one tells the other -------------------------------------------------------------------------------------


def _tell(root: Reader, blocks: Iterator[list[Need]], look: Look, trust: Trust, told: IO[bytes]) -> None:
    """Look at every other block, and tell what came of it; at the end, what is to be trusted from now on."""
    trust.news()
    for number, block in enumerate(blocks):
        if number % 2:
            files = (need for need in block if isinstance(need, FileNeed))
            _say(told, [_packed(need, look(need)) for need in read_ahead(root, files, trust)])
    _say(told, trust.news())


def _say(told: IO[bytes], what: Any) -> None:
    data = marshal.dumps(what)
    told.write(len(data).to_bytes(8, "little") + data)
    told.flush()


def _hear(other: _Other) -> Any:
    """What the other process says next. Raises ChrootsyncError where it has ended before."""
    size = int.from_bytes(other.told.read(8), "little")
    data = other.told.read(size)
    if not size or len(data) < size:
        raise ChrootsyncError("half of the files were not compared: the process that did so was ended; check once more")
    what = marshal.loads(data)  # noqa: S302 -- from a copy of this very process
    if isinstance(what, str):
        raise RuntimeError(what)  # noqa: TRY004 -- the trace of a bug
    return what


def _heard(root: Reader, block: Sequence[Need], look: Look, told: Sequence[Any]) -> Iterator[Entry]:
    """The entries of a block whose files the other process has looked at."""
    heard = iter(told)
    for need in block:
        if isinstance(need, FileNeed):
            root.note(need.origin.source)
            yield from _unpacked(need, next(heard))
        else:
            yield from look(need)


def _packed(need: FileNeed, entries: Sequence[Entry]) -> list[object]:
    """What was found of a need, beside what the need itself tells: for each entry its place, and what is there.

    What is wanted is the same of many places: then it is told once.
    """
    packed: list[object] = []
    whole = len(entries) == len(need.places)
    places = enumerate(need.places)
    before: State | None = None
    for index, entry in enumerate(entries):
        number = index if whole else next(at for at, place in places if _is_at(entry, place))
        want = _AGAIN if entry.want is not None and entry.want is before else _flat(entry.want)
        before = entry.want
        problem = None if entry.problem is None else (entry.problem.kind.value, entry.problem.reason)
        packed.append((number, want, _flat(entry.have), entry.same, problem))
    return packed


def _is_at(entry: Entry, place: Place) -> bool:
    return entry.instance is place.jail.instance and entry.path == place.path


def _flat(state: State | None) -> Any:
    """A state as it can be sent; of a file that has nothing to it, as most are, what all files have."""
    if state is None:
        return None
    if state.type is FileType.FILE and state.sha256 is None and not state.extended and state.mtime is None:
        return _PLAIN(state)
    return _FIELDS(state)


def _unpacked(need: FileNeed, packed: Sequence[Any]) -> Iterator[Entry]:
    """The entries of a need as they were in the other process."""
    origin = need.origin
    want: State | None = None
    for number, wanted, have, same, problem in packed:
        place = need.places[number]
        want = want if wanted is _AGAIN else _round(wanted)
        told = None if problem is None else Problem(kind=Kind(problem[0]), reason=problem[1])
        yield entry_of(place, origin, want=want, have=_round(have), same=same, problem=told)


def _round(flat: Any) -> State | None:
    if flat is None:
        return None
    if len(flat) == 5:
        mode, uid, gid, size, identity = flat
        return State(type=FileType.FILE, mode=mode, uid=uid, gid=gid, size=size, identity=identity)
    kind, mode, uid, gid, size, sha256, target, device, identity, extended, mtime = flat
    return State(
        type=_TYPES[kind],
        mode=mode,
        uid=uid,
        gid=gid,
        size=size,
        sha256=sha256,
        target=target,
        device=device,
        identity=identity,
        extended=extended,
        mtime=mtime,
    )
