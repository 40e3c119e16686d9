"""The process that forks the servers of other tests, when a test is interrupted, two ask at once, or it ends itself."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator

import pytest

from tests import forking


@pytest.fixture
def parent() -> Iterator[forking._Parent]:
    parent = forking._Parent()
    yield parent
    end(parent)


def end(parent: forking._Parent) -> None:
    parent._process.kill()
    parent._process.wait()
    parent._answers.close()
    parent._socket.close()


def fork_one(parent: forking._Parent) -> int:
    """Have it fork ``syncapp.py --version``, and give its process."""
    pid: int = parent.ask({"arguments": ["--version"], "environ": {**os.environ}, "files": [os.devnull] * 3})
    return pid


def test_answer_that_nobody_took_is_not_the_next_ones(parent: forking._Parent) -> None:
    parent._socket.sendall(b"[-1, 1]\n")  # Whoever asked this was interrupted before the answer came.
    assert fork_one(parent) > 1


def test_end_of_the_process_that_forks_is_told(parent: forking._Parent) -> None:
    assert fork_one(parent) > 1
    parent._process.kill()
    parent._process.wait()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has ended"):
            parent.ask(1)


def test_threads_that_ask_first_share_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_only_parent", functools.cache(forking._Parent))
    found = list[forking._Parent]()
    threads = [threading.Thread(target=lambda: found.append(forking._parent())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in set(found):
        end(one)
    assert len({id(one) for one in found}) == 1
