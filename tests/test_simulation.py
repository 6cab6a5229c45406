"""The simulated six o'clock run: what must be true of it, whatever the figures that go into it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.simulation import Inputs, Simulation, row

UNLIMITED = 100_000
AT_ONCE = Inputs(accounts=1_000, spread=False, per_second=UNLIMITED)


def test_each_account_is_done_once_though_some_fail() -> None:
    found = Simulation(Inputs(accounts=700, processes=3, cores=2, failing=0.2, per_second=UNLIMITED)).run()
    assert found.done == [1] * 700
    assert len(found.late) == 700
    assert found.late[0] >= 0
    assert found.late[-1] > 60, "who failed is tried again after a minute"
    assert sum(found.asked.values()) > 4 * 700


def test_processor_time_is_neither_lost_nor_made() -> None:
    for processes, cores in ((1, 1), (4, 2), (5, 16)):
        found = Simulation(replace(AT_ONCE, processes=processes, cores=cores)).run()
        assert found.busy == pytest.approx(1_000 * AT_ONCE.compute)
        assert found.utilisation <= 1
        assert sum(found.asked.values()) == 4 * 1_000


def test_one_thread_does_one_sync_after_another() -> None:
    inputs = replace(AT_ONCE, accounts=50, threads=1)
    each = inputs.compute + inputs.server + inputs.commit + 2 * inputs.latency
    assert Simulation(inputs).run().seconds == pytest.approx(50 * each)


@pytest.mark.parametrize(
    ("inputs", "seconds"),
    [
        (replace(AT_ONCE, compute=0.05), 1_000 * 0.05),
        (replace(AT_ONCE, processes=2, cores=2, compute=0.05), 1_000 * 0.05 / 2),
        (replace(AT_ONCE, processes=8, processes_a_worker=8, cores=2, compute=0.05), 1_000 * 0.05 / 2),
        (replace(AT_ONCE, processes=2, cores=2, per_second=50), 1_000 * 4 / 50),
        (replace(AT_ONCE, one_writer=True, compute=0.02, writing=0.01, server=0, commit=0.05), 1_000 * 0.06),
        (replace(AT_ONCE, processes=2, cores=2, compute=0.02, server=0.08, server_cores=1), 1_000 * 0.08),
        (
            replace(AT_ONCE, processes=2, cores=2, compute=0.08, server=0.02, server_cores=0),
            1_000 * 0.1 / 2,
        ),
        (replace(AT_ONCE, compute=0.001, writing=0.0, server=0, commit=0, latency=1.0), 1_000 / 32 * 2),
    ],
    ids=["processor", "two processes", "two cores", "limit", "writer", "server", "server beside", "latency"],
)
def test_what_is_short_decides_how_long_it_takes(inputs: Inputs, seconds: float) -> None:
    assert Simulation(inputs).run().seconds == pytest.approx(seconds, rel=0.06)


def test_more_workers_are_never_slower() -> None:
    many = Inputs(accounts=3_000, per_second=UNLIMITED, compute=0.05)
    found = [Simulation(replace(many, processes=number, cores=number)).run().seconds for number in (1, 2, 4, 8, 16)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 2 * found[2]


def test_no_more_requests_in_a_second_than_the_limit() -> None:
    found = Simulation(Inputs(accounts=2_000, processes=4, cores=4, threads=8, per_second=40)).run()
    assert max(found.asked.values()) == 40
    assert found.done == [1] * 2_000


def test_so_many_threads_that_some_wait_too_long_break_the_limit_as_the_real_ones_do() -> None:
    """A request is sent after 30 seconds all the same: 16 processes want more than 30 times 20 at a time."""
    found = Simulation(Inputs(accounts=2_000, processes=16, cores=16, per_second=20)).run()
    assert max(found.asked.values()) > 20


def test_workers_are_woken_by_ticks() -> None:
    """At first a sixtieth of the accounts is due and one worker of two processes is woken; the next tick wakes more."""
    inputs = Inputs(accounts=2_400, processes=18, cores=18, per_second=UNLIMITED, compute=0.2)
    asked = Simulation(inputs).run().asked
    one_worker, all_nine = 2 / 0.2 * 4, 18 / 0.2 * 4
    assert sum(asked[second] for second in range(10, 30)) / 20 < 2 * one_worker
    assert sum(asked[second] for second in range(35, 50)) / 15 > all_nine / 2


def test_a_row_of_the_table() -> None:
    assert row(Inputs(accounts=100, per_second=UNLIMITED)).startswith("| 100 | 1 | 0.0 | ")
