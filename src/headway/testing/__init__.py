"""Contract suites that ship with Headway: a third-party technique, runtime or arrival process earns the same tests as ours.

Import the suite you need (``headway.testing.techniques``); this package itself imports nothing, so that it needs pytest only when used.
"""
