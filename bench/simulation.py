"""The six o'clock run, calculated event by event: ``python -m bench.simulation --accounts 1000 --processes 1 2``.

Nobody waits. A daily sync goes through what a real one does: it is due within the first minute, a process with a free
thread claims it, it computes while no other thread of its process does, sends its requests as fast as the limit for a
provider allows, and writes. What each step takes is measured by ``python -m bench.scale run``; docs/scale.md says how
far this was from a real run.

Left out: what questions to Redis take, the network between machines, first syncs, accounts with much to read, people.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field

from grafient.jobs.schedule import TICK_SECONDS
from grafient.jobs.work import LOOK_SECONDS, MOST_JOBS, RUNS_PER_JOB
from grafient.pace import MOST_SECONDS
from grafient.runs import DUE_A_SECOND, FIRST_PAUSE, LONGEST_PAUSE, MOST_SPREAD_SECONDS


@dataclass(frozen=True)
class Inputs:
    """What is run, and the seconds that each sync takes of what; docs/scale.md says which of them were measured.

    ``cores``: of all machines that workers run on. ``compute``: processor, ``writing`` of it in the transaction
    that writes. ``server``: processor of the database's server, and ``commit`` what a transaction waits for the disk.
    ``server_cores``: processors that the server has to itself; without any it takes the workers'. ``one_writer``: as on
    SQLite, where a transaction keeps all other writers out. ``failing``: the share of syncs whose first request fails.
    ``spread``: whether accounts become due over the first minute, or all at once.
    """

    accounts: int = 1_000
    processes: int = 1
    processes_a_worker: int = 2
    threads: int = 32
    cores: int = 1
    compute: float = 0.0103
    writing: float = 0.004
    server: float = 0.0046
    commit: float = 0.001
    server_cores: int = 2
    one_writer: bool = False
    latency: float = 0.2
    per_second: int = 100
    failing: float = 0.0
    spread: bool = True


@dataclass(frozen=True)
class Outcome:
    """``late``: seconds from when each account was due until it was done, in ascending order. ``asked``: the requests
    of each second. ``done``: how often each account was. ``busy``: seconds of the workers' processors."""

    seconds: float
    late: list[float]
    asked: Counter[int]
    done: list[int]
    busy: float
    utilisation: float


class Resource:
    """Something that so many can have at a time; who came first is first."""

    def __init__(self, capacity: int) -> None:
        self.free, self.waiting = capacity, deque[Steps]()


@dataclass(frozen=True)
class Ask:
    """So many requests side by side."""

    requests: int


Steps = Generator[float | Ask | Resource, None, None]
"""What something waits for, step by step: seconds, answers, or a resource."""


class Process:
    """``interpreter``: Python runs one thread of a process at a time."""

    def __init__(self, worker: int) -> None:
        self.worker, self.interpreter, self.under_way = worker, Resource(1), 0


@dataclass
class _Requests:
    """Requests of one sync that wait until they may be sent. They are ``left`` before it goes on."""

    steps: Steps
    left: int


@dataclass
class _Waiting:
    requests: _Requests
    until: float
    is_sent: bool = field(default=False)


class Simulation:
    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.random = inputs, random.Random(6)
        self.now, self.number, self.events = 0.0, 0, list[tuple[float, int, Steps]]()
        self.cores, self.writer = Resource(inputs.cores), Resource(1)
        self.server = Resource(inputs.server_cores) if inputs.server_cores else self.cores
        self.waiting, self.oldest, self.is_opening = list[_Waiting](), deque[_Waiting](), False
        self.asked, self.counted = Counter[int](), Counter[int]()
        seconds = min(inputs.accounts // DUE_A_SECOND, MOST_SPREAD_SECONDS) + 1 if inputs.spread else 1
        self.due_at = [float(account % seconds) for account in range(inputs.accounts)]
        self.later = [(at, account) for account, at in enumerate(self.due_at)]
        heapq.heapify(self.later)
        self.due, self.failed = deque[int](), Counter[int]()
        self.done, self.late, self.busy, self.last = [0] * inputs.accounts, list[float](), 0.0, 0.0
        size = min(inputs.processes_a_worker, inputs.processes)
        self.processes = [Process(number // size) for number in range(inputs.processes)]
        self.idle, self.jobs = deque(range(math.ceil(inputs.processes / size))), 0
        self.at_work: Counter[int] = Counter()

    def run(self) -> Outcome:
        self._at(0, self._ticks())
        while self.events:
            self.now, _, steps = heapq.heappop(self.events)
            self._go_on(steps)
        share = self.busy / (self.last * self.inputs.cores)
        return Outcome(self.last, sorted(self.late), self.asked, self.done, self.busy, share)

    def _at(self, when: float, steps: Steps) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, steps))

    def _go_on(self, steps: Steps) -> None:
        """Have something do its next steps, until it has to wait."""
        for wanted in steps:
            if isinstance(wanted, Ask):
                return self._ask(_Requests(steps, wanted.requests))
            if not isinstance(wanted, Resource):
                return self._at(self.now + wanted, steps)
            if not wanted.free:
                return wanted.waiting.append(steps)
            wanted.free -= 1
        return None

    def _release(self, resource: Resource) -> None:
        if resource.waiting:
            self._at(self.now, resource.waiting.popleft())
        else:
            resource.free += 1

    def _ticks(self) -> Steps:
        """What grafient.jobs.work.tick does, every 30 seconds."""
        while len(self.late) < self.inputs.accounts:
            self.jobs += max(min(math.ceil(self._due() / RUNS_PER_JOB), MOST_JOBS) - self.jobs, 0)
            self._begin_jobs()
            yield TICK_SECONDS

    def _due(self) -> int:
        while self.later and self.later[0][0] <= self.now:
            self.due.append(heapq.heappop(self.later)[1])
        return len(self.due)

    def _begin_jobs(self) -> None:
        """A worker does a job with as many processes as are needed at that moment."""
        while self.jobs and self.idle:
            self.jobs, worker = self.jobs - 1, self.idle.popleft()
            mine = [process for process in self.processes if process.worker == worker]
            mine = mine[: max(math.ceil(self._due() / self.inputs.threads), 1)]
            self.at_work[worker] = len(mine)
            for process in mine:
                self._at(self.now, self._job(process))

    def _job(self, process: Process) -> Steps:
        while self._claim(process, least=1) or process.under_way:
            yield LOOK_SECONDS
        self.at_work[process.worker] -= 1
        if not self.at_work[process.worker]:
            self.idle.append(process.worker)
            self.jobs += self._due() > 0
            self._begin_jobs()

    def _claim(self, process: Process, least: int) -> int:
        free = self.inputs.threads - process.under_way
        claimed = min(free, self._due()) if free >= least else 0
        for _ in range(claimed):
            process.under_way += 1
            self._at(self.now, self._sync(self.due.popleft(), process))
        return claimed

    def _sync(self, account: int, process: Process) -> Steps:
        reading = (self.inputs.compute - self.inputs.writing) / 2
        yield from self._compute(process, reading)
        yield Ask(1)
        has_failed = self.random.random() < self.inputs.failing
        if not has_failed:
            yield from self._compute(process, reading)
            yield Ask(3)
        yield from self._write(process)
        self._end(account, has_failed)
        process.under_way -= 1
        self._claim(process, least=max(self.inputs.threads // 4, 1))

    def _end(self, account: int, has_failed: bool) -> None:
        if has_failed:
            pause = min(FIRST_PAUSE * 2 ** min(self.failed[account], 10), LONGEST_PAUSE).total_seconds()
            heapq.heappush(self.later, (self.now + pause * (1 + self.random.random() / 5), account))
            self.failed[account] += 1
        else:
            self.done[account] += 1
            self.late.append(self.now - self.due_at[account])
            self.last = self.now

    def _compute(self, process: Process, seconds: float) -> Steps:
        yield process.interpreter
        yield from self._use(self.cores, seconds)
        self.busy += seconds
        self._release(process.interpreter)

    def _use(self, resource: Resource, seconds: float) -> Steps:
        yield resource
        yield seconds
        self._release(resource)

    def _write(self, process: Process) -> Steps:
        if self.inputs.one_writer:
            yield self.writer
        yield from self._compute(process, self.inputs.writing)
        yield from self._use(self.server, self.inputs.server)
        yield self.inputs.commit
        if self.inputs.one_writer:
            self._release(self.writer)

    def _ask(self, requests: _Requests) -> None:
        """Send requests, or have them wait; see grafient.pace."""
        for _ in range(requests.left):
            if self.counted[int(self.now)] < self.inputs.per_second:
                self.counted[int(self.now)] += 1
                self._send(requests)
                continue
            if not self.is_opening:
                self.is_opening = True
                self._at(math.floor(self.now) + 1, self._seconds())
            one = _Waiting(requests, self.now + MOST_SECONDS)
            self.waiting.append(one)
            self.oldest.append(one)

    def _send(self, requests: _Requests) -> None:
        self.asked[int(self.now)] += 1
        requests.left -= 1
        if not requests.left:
            self._at(self.now + self.inputs.latency, requests.steps)

    def _seconds(self) -> Steps:
        """At the beginning of a second some of those that wait may go on, whichever come first; and so may those that
        have waited for as long as a sync may wait, whatever the limit."""
        while self.waiting:
            while self.oldest and (self.oldest[0].is_sent or self.oldest[0].until <= self.now):
                if not (one := self.oldest.popleft()).is_sent:
                    self._send_waiting(one)
            while self.waiting and self.counted[int(self.now)] < self.inputs.per_second:
                number = self.random.randrange(len(self.waiting))
                self.waiting[number], self.waiting[-1] = self.waiting[-1], self.waiting[number]
                if not (one := self.waiting.pop()).is_sent:
                    self.counted[int(self.now)] += 1
                    self._send_waiting(one)
            yield 1
        self.is_opening = False

    def _send_waiting(self, one: _Waiting) -> None:
        one.is_sent = True
        self._send(one.requests)


HEAD = (
    "| accounts | processes | minutes | accounts/s | late: median | 95% | last | requests/s at most | processors busy |"
)


def row(inputs: Inputs) -> str:
    """One line of the table."""
    found = Simulation(inputs).run()
    late = (found.late[int(share * (len(found.late) - 1))] for share in (0.5, 0.95, 1))
    return (
        f"| {inputs.accounts:,} | {inputs.processes} | {found.seconds / 60:,.1f} "
        f"| {inputs.accounts / found.seconds:,.1f} | {' | '.join(f'{one / 60:,.1f} min' for one in late)} "
        f"| {max(found.asked.values()):,} | {found.utilisation:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 16, 64])
    parser.add_argument("--per-second", type=int, default=Inputs.per_second)
    parser.add_argument("--latency", type=float, default=Inputs.latency)
    parser.add_argument("--sqlite", action="store_true", help="one process, and one transaction at a time")
    options = parser.parse_args()
    print(f"{HEAD}\n|{' --- |' * HEAD.count(' | ')} --- |")
    for accounts in options.accounts:
        for processes in [1] if options.sqlite else options.processes:
            given = {"per_second": options.per_second, "latency": options.latency, "one_writer": options.sqlite}
            print(row(Inputs(accounts, processes, cores=processes, **given)), flush=True)


if __name__ == "__main__":
    main()
