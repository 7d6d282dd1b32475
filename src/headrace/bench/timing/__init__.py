"""When: a timer that is right to a fraction of a millisecond, and when answers came."""
