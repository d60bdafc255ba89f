from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Proxy, proxy, s3_server


@pytest.fixture(scope="session")
def front() -> Iterator[Proxy]:
    """The proxy in front of an S3 server; URLs lead to it.

    There is one for all tests: s3fs remembers where it has found its server.
    """
    with s3_server() as s3, proxy(s3.endpoint) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.behind(made).environment.items():
            patch.setenv(name, value)
        yield made
