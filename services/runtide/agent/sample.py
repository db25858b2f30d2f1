"""Resource readings of the host, its NVIDIA devices and the ranks' process trees.

Promises: one pass over the process table serves all ranks; what a machine cannot say (no NVML, no disk counters, a
process that has just gone) is left out in silence. Blocks for some milliseconds, so it is called in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import psutil

from runtide.v1.records_pb2 import Reading

SHORTEST_S = 0.1
"""The counters move in hundredths of a second: of less time than this no load is told."""


class Readings(NamedTuple):
    """What one round read."""

    host: list[Reading]
    """The host and its devices."""
    trees: dict[int, list[Reading]]
    """By the pid at the root of the tree."""


class _CpuSeconds(NamedTuple):
    """What the host's processors have spent, all together."""

    busy: float
    total: float


class Sampler:
    """Reads counters and turns them into rates since the round before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the first counters, so that the first round has rates."""
        self._clock = clock
        self._rates = _Rates()
        self._cpu: dict[tuple[int, float], float] = {}
        self._cpu_before: dict[tuple[int, float], float] = {}
        self._cpu_at = clock()
        self._devices = NvidiaDevices()
        self._host = _cpu_seconds()
        self._rates.per_second(self._clock(), _counters())

    def read(self, pids: Collection[int]) -> Readings:
        """Read everything once."""
        host = [*self._host_cpu(), *_memory()]
        for (device, name), value in self._rates.per_second(self._clock(), _counters()).items():
            host.append(Reading(device=device, name=name, value=value))
        host.extend(self._devices.read())
        return Readings(host, self._trees(pids) if pids else {})

    def _host_cpu(self) -> list[Reading]:
        """The load since the round before; nothing where too little time has passed to tell.

        Not psutil.cpu_percent, which remembers apart for each thread, and says 0 in one that has not asked before.
        """
        now = _cpu_seconds()
        busy, total = now.busy - self._host.busy, now.total - self._host.total
        if total < SHORTEST_S:
            return []
        self._host = now
        return [Reading(name="cpu_percent", value=100.0 * min(1.0, max(0.0, busy / total)))]

    def close(self) -> None:
        """Let go of NVML."""
        self._devices.close()

    def _trees(self, pids: Collection[int]) -> dict[int, list[Reading]]:
        children: dict[int, list[psutil.Process]] = {}
        roots: dict[int, psutil.Process] = {}
        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process)
            if process.pid in pids:
                roots[process.pid] = process
        now, before, self._cpu_before = self._clock(), self._cpu_at, self._cpu
        self._cpu, self._cpu_at = {}, now
        return {pid: self._tree(list(_family(root, children)), now - before) for pid, root in roots.items()}

    def _tree(self, family: list[psutil.Process], seconds: float) -> list[Reading]:
        used = rss = 0.0
        known = False
        for process in family:
            try:
                with process.oneshot():
                    times, key = process.cpu_times(), (process.pid, process.create_time())
                    rss += process.memory_info().rss
            except psutil.Error:
                continue
            spent = times.user + times.system
            self._cpu[key] = spent
            known = known or (process is family[0] and key in self._cpu_before)
            used += max(0.0, spent - self._cpu_before.get(key, spent if process is family[0] else 0.0))
        readings = [Reading(device="process", name="rss_bytes", value=rss)]
        if seconds > 0 and known:  # what a process has used before the first look is of no interval
            readings.append(Reading(device="process", name="cpu_percent", value=100.0 * used / seconds))
        return readings


class _Rates:
    """Differences of counters per second."""

    def __init__(self) -> None:
        self._last: tuple[float, dict[tuple[str, str], float]] | None = None

    def per_second(self, now: float, counters: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
        last, self._last = self._last, (now, counters)
        if last is None or now <= last[0]:
            return {}
        seconds, before = now - last[0], last[1]
        return {key: max(0.0, value - before[key]) / seconds for key, value in counters.items() if key in before}


def _counters() -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    if (disk := _or_none(psutil.disk_io_counters)) is not None:
        found["disk", "read_bytes_per_second"] = disk.read_bytes
        found["disk", "write_bytes_per_second"] = disk.write_bytes
    if (net := _or_none(psutil.net_io_counters)) is not None:
        found["net", "received_bytes_per_second"] = net.bytes_recv
        found["net", "sent_bytes_per_second"] = net.bytes_sent
    return found


def _cpu_seconds() -> _CpuSeconds:
    times = psutil.cpu_times()._asdict()
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # user and nice hold these
    return _CpuSeconds(total - times["idle"] - times.get("iowait", 0.0), total)


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, RuntimeError, psutil.Error):  # containers without /proc/diskstats, for one
        return None


def _memory() -> list[Reading]:
    memory = psutil.virtual_memory()
    return [
        Reading(name="memory_bytes", value=memory.total - memory.available),
        Reading(name="memory_percent", value=memory.percent),
    ]


def _family(root: psutil.Process, children: dict[int, list[psutil.Process]]) -> Iterator[psutil.Process]:
    yield root
    for child in children.get(root.pid, ()):
        if child.pid != root.pid:
            yield from _family(child, children)


class NvidiaDevices:
    """NVIDIA devices through NVML; none where there is no driver."""

    def __init__(self) -> None:
        """Ask NVML once; a driver that comes later is not noticed."""
        import pynvml

        self._nvml: Any = pynvml
        self._handles: list[Any] = []
        try:
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            self._handles = []

    def read(self) -> list[Reading]:
        """Read every device; what one does not support is left out."""
        nvml, found = self._nvml, []
        for number, handle in enumerate(self._handles):
            said: dict[str, float] = {}
            for ask in (_utilization, _memory_of, _power, _temperature):
                try:
                    said.update(ask(nvml, handle))
                except nvml.NVMLError:
                    continue  # this device does not say
            found += [Reading(device=f"gpu{number}", name=name, value=value) for name, value in said.items()]
        return found

    def close(self) -> None:
        """Shut NVML down if it was up."""
        if self._handles:
            self._nvml.nvmlShutdown()
            self._handles = []


def _utilization(nvml: Any, handle: Any) -> dict[str, float]:
    return {"utilization_percent": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}


def _memory_of(nvml: Any, handle: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {"memory_bytes": float(memory.used), "memory_percent": 100.0 * memory.used / max(1, memory.total)}


def _power(nvml: Any, handle: Any) -> dict[str, float]:
    return {"power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000}


def _temperature(nvml: Any, handle: Any) -> dict[str, float]:
    return {"temperature_celsius": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))}
