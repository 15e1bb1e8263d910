"""Timing that notices disturbance, and peak memory. Linux only, standard library only.

Comparisons are worth nothing when something else has the processor. A run during which processes outside
our own tree used more than a tenth of a core is thrown away and repeated.
"""

import os
import statistics
import time
from collections.abc import Callable

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Share of one core that others may use during a run.
FOREIGN_LIMIT_CORES = 0.10
# Kernel counters advance in ticks, so a short run is allowed this much on top.
FOREIGN_SLACK_S = 0.05


def own_cpu_s() -> float:
    """Processor seconds of this process, its living descendants and those already waited for."""
    parent_of, ticks_of = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                stat = file.read()
        except OSError:  # the process ended meanwhile
            continue
        # The command name may hold spaces and brackets; the fields start after its last bracket.
        fields = stat[stat.rindex(")") + 2 :].split()
        parent_of[int(entry)] = int(fields[1])
        ticks_of[int(entry)] = sum(int(ticks) for ticks in fields[11:15])  # utime, stime, cutime, cstime
    root, total = os.getpid(), 0
    for pid, ticks in ticks_of.items():
        ancestor = pid
        while ancestor not in (0, root):
            ancestor = parent_of.get(ancestor, 0)
        if ancestor == root:
            total += ticks
    return total / TICKS_PER_S


def machine_cpu_s() -> tuple[float, float]:
    """(busy, stolen) processor seconds of the whole machine since boot."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS_PER_S, steal / TICKS_PER_S


class Watch:
    """Context manager: wall time of its body, and what others used meanwhile.

    After the body: ``wall_s``, ``foreign_cores`` (others' processor seconds a second), ``stolen_cores``
    (taken by the hypervisor; reported, not judged), ``disturbed``.
    """

    def __enter__(self) -> "Watch":
        self._machine, self._own = machine_cpu_s(), own_cpu_s()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_exception) -> None:
        self.wall_s = time.perf_counter() - self._start
        (busy, stolen), own = machine_cpu_s(), own_cpu_s()
        foreign_s = max(0.0, (busy - self._machine[0]) - (own - self._own))
        self.foreign_cores = foreign_s / self.wall_s
        self.stolen_cores = (stolen - self._machine[1]) / self.wall_s
        self.disturbed = foreign_s > FOREIGN_SLACK_S + FOREIGN_LIMIT_CORES * self.wall_s


def summary(kept: list[Watch], discarded: int) -> dict:
    """The timing fields of a result line. ``disturbed_runs`` counts kept runs that were not quiet."""
    seconds = [watch.wall_s for watch in kept]
    return {
        "median_s": statistics.median(seconds),
        "all_s": [round(value, 6) for value in seconds],
        "discarded_runs": discarded,
        "disturbed_runs": sum(watch.disturbed for watch in kept),
        "stolen_cores": round(max(watch.stolen_cores for watch in kept), 3),
    }


def repeat(work: Callable[[], None], runs: int, warm_ups: int) -> dict:
    """Times ``work`` until ``runs`` quiet runs are in hand.

    At most twice ``runs`` are thrown away; after that disturbed runs are kept and counted, so that a busy
    machine gives a marked figure and not an endless loop.
    """
    for _ in range(warm_ups):
        work()
    kept, discarded = [], 0
    while len(kept) < runs:
        with Watch() as watch:
            work()
        if watch.disturbed and discarded < 2 * runs:
            discarded += 1
        else:
            kept.append(watch)
    return summary(kept, discarded)


def reset_peak_memory() -> None:
    """Makes ``peak_memory_mb`` forget what loading took. Without the permission to, the peak includes loading."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_memory_mb(pid: int | str = "self") -> float:
    """Peak resident memory of one process in MiB (VmHWM); 0 when it has gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
