"""``workers=``: a call's rows shared out over a few threads.

The threads take blocks of rows and call the kernel on them, which releases the GIL; the caller is
one of them. What a row gives does not depend on the block it is in, so the result has the same bits
for every number of workers.

No OpenMP: its runtimes hang in a forked child, and clash. And no ThreadPoolExecutor: where a signal
handler raises inside ``submit``, or in a ``threading.Condition``, a lock stays locked for ever.
Here are locks and queues of C alone, which do their thing or don't.
"""

import os
from _thread import _local, allocate_lock, start_new_thread
from collections.abc import Callable
from contextlib import AbstractContextManager
from operator import index
from queue import SimpleQueue
from typing import Any

from ._arguments.values import shown
from ._workers import Block

# Nanoseconds of work, or so, as the callers of this module estimate them.
#: What a thread must have to do. A thread starts some 25 us after it was asked, and its end is seen
#: 25 us late; two of them gain from 120 us of work together at best, from 200 us as a rule.
LEAST = 100_000
#: That of a block, if there is more than one for each thread. Taking one costs 3 us.
_BLOCK = 300_000

#: Of each thread: `shared`, the work that it helps with, and `error`, for which that stopped.
here = _local()


def cpus_to_use() -> int:
    """Return how many CPUs this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count(workers: Any) -> int:
    """Return the number of threads that a ``workers=`` other than None asks for."""
    cpus = cpus_to_use()
    allowed = f"1 and above, and -1 (all {cpus} CPUs that this process may use) to -{cpus}"
    try:
        if isinstance(workers, bool):
            raise TypeError
        n = index(workers)
    except TypeError:
        raise TypeError(f"workers is {shown(workers)}; allowed are integers: {allowed}") from None
    if n == 0 or n < -cpus:
        raise ValueError(f"workers is {shown(n)}; allowed are {allowed}")
    return n if n > 0 else cpus + 1 + n


def check(workers: Any) -> None:
    """Raise unless `workers` is None or a number of threads."""
    if workers is not None:
        count(workers)


def set_workers(workers: int) -> AbstractContextManager[Any]:
    """Set how many threads functions with ``workers=None`` may use, inside a ``with`` block.

    Parameters
    ----------
    workers : int
        As the argument `workers` of `softmax`: a number from 1, or -1 for as many as this process
        may use CPUs, -2 for one less, and so on.

    Raises
    ------
    ValueError
        0, or a negative number beyond the CPUs.
    TypeError
        No integer.

    Notes
    -----
    As ``scipy.fft.set_workers``. It holds for the thread, or the asyncio task, that entered the
    block, and ends with the block; blocks may stand in one another, and be entered again.
    Without it the number is 1: the caller owns the CPUs.

    The threads are those of one pool, made when first needed, as many as were asked for; a child
    process after a fork makes its own. A call that finds them busy does the work itself, so calls
    from many threads don't wait for each other.

    Examples
    --------
    >>> import fastsoftmax
    >>> with fastsoftmax.set_workers(2):
    ...     fastsoftmax.get_workers()
    2
    >>> fastsoftmax.get_workers()
    1
    """
    return Block(count(workers))


class StoppedError(Exception):
    """Raised in a thread that helps with work that has failed in another one."""


def raise_if_stopped() -> None:
    """Raise where the work that this thread helps with has failed in another one."""
    shared = getattr(here, "shared", None)
    if shared is not None and shared.error is not None:
        raise StoppedError


def share(call: Callable[[int, int], None], size: int, work: float, threads: int) -> None:
    """Call ``call(start, stop)`` until all of 0 to `size` is done, from several threads.

    The first exception from any of them is raised, once all of them have stopped.
    """
    try:
        shared = _Shared(call, size, work, threads)
        pool = _pools.get(os.getpid()) or _pools.setdefault(os.getpid(), _Pool())
    except (MemoryError, RuntimeError):  # of a lock: the caller does it alone, then
        pool = None
    if pool is None:
        call(0, size)
        return
    begun = False
    while True:
        try:
            if not begun:
                begun = True
                pool.hand(shared.help, threads - 1)
                shared.take_part()
            shared.close()
            break
        except BaseException as error:  # of this block, or a signal: also while others end theirs
            shared.error = shared.error or error
    first, shared.error = shared.error, None
    if first is not None:
        try:
            raise first
        finally:
            del first, shared  # the traceback has this frame


class _Shared:
    """What is left of a call's work.

    A thread that was asked to help may come late, or not at all; the caller waits for those alone
    that have begun, so no thread ever waits for one that may be waiting itself.
    """

    def __init__(
        self, call: Callable[[int, int], None], size: int, work: float, threads: int
    ) -> None:
        self._call: Callable[[int, int], None] | None = call
        self._size = size
        blocks = threads * max(1, int(work / threads / _BLOCK))
        self._step = -(-size // blocks)
        self._start = 0
        self._lock = allocate_lock()
        self._helping = 0
        self._ended: SimpleQueue[None] = SimpleQueue()
        self.error: BaseException | None = None  # stops everyone

    def take_part(self) -> None:
        """Work on block after block until nothing is left."""
        while True:
            with self._lock:
                start, call = self._start, self._call
                if start >= self._size or call is None or self.error is not None:
                    return
                self._start = stop = min(start + self._step, self._size)
            call(start, stop)
            del call

    def help(self) -> None:
        """Take part from another thread than the caller's."""
        with self._lock:
            self._helping += 1
        try:
            here.shared = self
            self.take_part()
        except BaseException as error:
            self.error = self.error or error
        finally:
            here.shared = None
            with self._lock:
                self._helping -= 1
            self._ended.put(None)

    def close(self) -> None:
        """Wait for those who help; who comes later finds nothing to do."""
        while True:
            with self._lock:
                self._call = None
                if not self._helping:
                    return
            self._ended.get()


class _Pool:
    """Threads that wait for tasks, which don't raise; none at first."""

    def __init__(self) -> None:
        self._threads = 0
        self._lock = allocate_lock()
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def hand(self, task: Callable[[], None], times: int) -> None:
        """Hand `task` to so many threads, or to fewer if there are no more to be had."""
        try:
            with self._lock:  # no more threads than were asked for, whoever asks beside
                while self._threads < times:
                    start_new_thread(self._serve, ())
                    self._threads += 1
        except (MemoryError, RuntimeError):  # a limit, or the interpreter is shutting down
            pass
        try:
            for _ in range(min(times, self._threads)):
                self._tasks.put(task)
        except MemoryError:  # then with those who have it
            pass

    def _serve(self) -> None:
        while True:
            self._tasks.get()()


#: One for each process, by its id: a forked child has none of its parent's threads, and its locks
#: may be locked for ever. No lock guards the dict, which a fork could leave locked.
_pools: dict[int, _Pool] = {}
