"""Time that passes only while everybody waits."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from tradingbot.services.virtual import VirtualLoop

MANY = 1100  # more than select(2) bears


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have more descriptors than select(2) bears."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY + 100), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_descriptor_beyond_a_thousand_is_listened_to() -> None:
    """A notebook's process may have many files open; what has come is seen, and no time has passed for it."""
    read, write = os.pipe()
    high = fcntl.fcntl(read, fcntl.F_DUPFD, MANY)
    loop = VirtualLoop()
    try:
        loop.add_reader(high, loop.stop)
        loop.call_later(3600, loop.stop)
        os.write(write, b"x")
        loop.run_forever()
        assert loop.time() == 0
        loop.remove_reader(high)
        loop.run_forever()
        assert loop.time() >= 3600
    finally:
        loop.close()
        for descriptor in (read, write, high):
            os.close(descriptor)
