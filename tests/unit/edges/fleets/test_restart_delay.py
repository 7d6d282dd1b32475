"""How long a replica that keeps dying waits for its next start."""

from headrace.edges.fleets.keep_alive import KeepAlive, RestartDelay

SETTINGS = KeepAlive()


def test_doubles_up_to_half_a_minute():
    delay = RestartDelay(SETTINGS)
    assert [delay.after(0.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_minute_of_health_starts_over():
    delay = RestartDelay(SETTINGS)
    delays_s = [delay.after(ready_s) for ready_s in (0.0, 0.0, 59.9, 60.0, 0.0)]
    assert delays_s == [0.5, 1, 2, 0.5, 1]
