"""Several contenders against one workload, one process each where there are cores."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from headrace.edges.end_with_parent import end_with_parent

LOOK_S = 0.1
"""How often the progress of other processes is looked at."""

Run_co = TypeVar("Run_co", covariant=True)

OnProgress = Callable[[float], None]
"""Takes how far a run is, in a unit of the run's own."""
Report = Callable[[str, float], None]
"""Takes a contender and how far its run is."""


class Play(Protocol[Run_co]):
    """Plays one contender, by its name. It is sent to the processes where they cannot be forked."""

    def __call__(self, name: str, on_progress: OnProgress, /) -> Run_co:
        """Return its run."""
        ...


def side_by_side(
    play: Play[Run_co], names: Sequence[str], *, processes: int, report: Report
) -> Iterator[Run_co]:
    """Play each contender; the runs come in the order of `names`, whoever is done first.

    Raises what a run raises.
    """
    processes = min(processes, len(names))
    if processes < 2:
        for name in names:
            yield play(name, lambda over, name=name: report(name, over))
        return
    context = _context()
    over = context.Array("d", len(names), lock=False)
    executor = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_adopt, initargs=(play, over)
    )
    with executor:
        with _interrupts_later():  # the processes begin with the first that is submitted
            futures = [executor.submit(_play, place, name) for place, name in enumerate(names)]
        try:
            for future in futures:
                _watch(future, names, over, report)
                yield future.result()
        except BaseException as error:
            # A run that failed is told of at once. An interrupt ends the processes, and with them
            # the pool's thread: it is waited for, since at its exit Python wakes those that are
            # left by a pipe that they may just have closed.
            is_of_a_run = isinstance(error, Exception) and not isinstance(error, BrokenProcessPool)
            executor.shutdown(wait=not is_of_a_run, cancel_futures=True)
            raise


def _watch(
    future: Future[Any], names: Sequence[str], over: Sequence[float], report: Report
) -> None:
    while not wait((future,), LOOK_S).done:
        for place, name in enumerate(names):
            report(name, over[place])


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold SIGINT back, here and in the processes and threads that begin meanwhile.

    A process must not get it before `_adopt` has said what it does: until then it is Python's to
    handle, which is a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> Any:  # noqa: ANN401 - the stubs give each start method a class of its own
    """Forked processes share the workload; elsewhere it is sent to them."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if "fork" in methods else "spawn")


# ---- in the other processes

_shared: tuple[Play[Any], Any] | None = None


def _adopt(play: Play[Any], over: Any) -> None:  # noqa: ANN401 - an Array
    # Ctrl-C reaches all processes of a terminal: who plays has nothing to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    end_with_parent()
    gc.freeze()  # the workload is shared with the parent; walking through it would copy its pages
    global _shared  # noqa: PLW0603 - a worker process has no other place for what all its runs share
    _shared = (play, over)


def _play(place: int, name: str) -> Any:  # noqa: ANN401 - whatever `play` returns
    assert _shared is not None
    play, over = _shared

    def note(how_far: float) -> None:
        over[place] = how_far

    return play(name, note)
