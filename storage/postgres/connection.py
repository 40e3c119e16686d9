"""One connection to PostgreSQL: statements go out in a pipeline, and their answers are waited for when one is read.

Knows: libpq's pipeline mode, gevent's event loop. Must not know: transactions, tenants, which statements there are.

A statement is only sent. Whoever reads a row of an answer, or settles, waits for all that was sent: so what nobody reads,
as of an INSERT, costs no round trip of its own. An error that comes late may belong to work that seemed done; ``is_lost``
says so, and then nothing of the transaction may be kept.
Source: postgresql.org/docs, "Pipeline Mode" of libpq.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import gevent
import psycopg
from gevent import socket
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from storage.postgres import handshakes
from storage.postgres.errors import ConnectionLost, StatementFailed, failure_of
from storage.postgres.known_answers import KnownAnswers
from storage.postgres.statements import Rewritten, in_directory
from storage.postgres.values import encoded, reader_of

_READ, _READ_AND_WRITE = 1, 3
_GOOD = (int(pq.ExecStatus.COMMAND_OK), int(pq.ExecStatus.TUPLES_OK))
_END_OF_BATCH = int(pq.ExecStatus.PIPELINE_SYNC)
_MOST_PREPARED = 1_000
ANSWER_SECONDS = 30.0
"""A server that says nothing for so long hangs, unless its work may take long."""


class Rows:
    """The answer to a statement: its rows as tuples, read once."""

    __slots__ = ("_connection", "_left", "_result", "count", "error", "rows", "section", "tag")

    def __init__(self, connection: Connection, section: int, known: Iterable[tuple[Any, ...]] | None = None) -> None:
        """``known``: the rows, if no answer is to come."""
        self._connection, self.section = connection, section
        self._left: Iterator[tuple[Any, ...]] | None = None if known is None else iter(known)
        self._result: PGresult | None = None
        self.rows: list[tuple[Any, ...]] = []
        """All rows, also those that were read."""
        self.error: Exception | None = None
        self.tag, self.count = "", 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._answered()

    def fetchone(self) -> tuple[Any, ...] | None:
        """Give the next row, None if there is no more."""
        return next(self._answered(), None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Give the rows that are left."""
        return list(self._answered())

    def close(self) -> None:
        """Do nothing: peewee asks for it, and the rows are here."""

    @property
    def is_answered(self) -> bool:
        """Tell whether the answer is here."""
        return self._left is not None or self.error is not None

    @property
    def description(self) -> list[tuple[str]]:
        """Name the columns, as peewee asks for them."""
        self._answered()
        assert self._result is not None
        return [((self._result.fname(column) or b"").decode(),) for column in range(self._result.nfields)]

    @property
    def rowcount(self) -> int:
        """Give how many rows were written."""
        self._answered()
        return self.count

    def _answered(self) -> Iterator[tuple[Any, ...]]:
        if self._left is None:
            if self.error is None:
                self._connection.settle()
            if self.error is not None:
                raise self.error
        assert self._left is not None
        return self._left

    def take(self, result: PGresult) -> None:
        """Take what the server answered."""
        self._result = result
        if columns := result.nfields:
            readers = [(column, reader_of(result.ftype(column))) for column in range(columns)]
            self.rows = [_row(result.get_value, row, readers) for row in range(result.ntuples)]
        self._left = iter(self.rows)
        self.tag = (result.command_status or b"").decode()
        self.count = result.command_tuples or 0  # Also of a SELECT.


def _row(
    value: Callable[[int, int], bytes | None], row: int, readers: list[tuple[int, Callable[[bytes], Any]]]
) -> tuple[Any, ...]:
    return tuple([None if (one := value(row, column)) is None else read(one) for column, read in readers])


class _Prepared(Rows):
    """The answer to the wish to prepare a statement."""

    __slots__ = ("text",)

    def __init__(self, connection: Connection, section: int, text: bytes) -> None:
        super().__init__(connection, section)
        self.text = text


class Connection:
    """An open connection. Make it with ``connecting.connect``; one that failed is of no use any more (``is_open``)."""

    def __init__(self, wire: PGconn) -> None:
        self._wire = wire
        wire.nonblocking = 1
        wire.enter_pipeline_mode()
        loop = gevent.get_hub().loop
        self._readable, self._either = loop.io(wire.socket, _READ), loop.io(wire.socket, _READ_AND_WRITE)
        self._expected: deque[Rows | None] = deque()
        """What was sent and is not answered; None for the end of a batch."""
        self._is_batch_open = False
        self._prepared: dict[bytes, bytes] = {}
        self._number = 0
        self.has_own_session = False
        """Whether the server's session is this connection's alone, so that what is prepared stays: not behind a pooler."""
        self.history: str | None = None
        """Which history of the database its commits go into, for who asks what became of one."""
        self.is_open, self.is_lost = True, False
        self.is_clean = True
        """Whether no transaction is open, nor will be once all that was sent is answered."""
        self.section, self.has_written = 0, False
        self.rewrite: Callable[[str], Rewritten] = in_directory
        self.known: KnownAnswers | None = None
        self.answer_seconds: float | None = ANSWER_SECONDS
        """For how long the server may say nothing; None for work that takes as long as it takes."""

    def start(self, rewrite: Callable[[str], Rewritten]) -> None:
        """Begin with new work. ``rewrite``: gives a statement in PostgreSQL's words."""
        self.rewrite = rewrite
        self.section, self.is_lost, self.has_written, self.is_clean = 0, False, False, False
        self.known, self.answer_seconds = None, ANSWER_SECONDS
        if not self.has_own_session:
            self._prepared.clear()

    def recognize(self, server_process: int) -> None:
        """Learn whether the server's session is ours alone: a pooler gives a process number that is not the server's."""
        self.has_own_session = server_process == self._wire.backend_pid
        self._prepared.clear()

    # --- what bound code asks ------------------------------------------------------------------------------------------

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Send a statement, and give its answer, which comes when it is read."""
        text, writes, table = self.rewrite(sql)
        if self.known is not None:
            if writes:
                self.known.note(sql, values, table)
            elif (rows := self.known.answer(sql, values)) is not None:
                return Rows(self, self.section, rows)
        self.has_written |= writes
        return self.send(text, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Send a statement with each of some rows of values."""
        text, writes, table = self.rewrite(sql)
        if self.known is not None:
            self.known.note("", (), table)
        self.has_written |= writes
        for values in rows:
            self.send(text, values)

    def cursor(self) -> Connection:
        """Give what executes several statements: here it is the connection."""
        return self

    # --- the pipeline --------------------------------------------------------------------------------------------------

    def send(self, text: bytes, values: Sequence[Any] = ()) -> Rows:
        """Send a statement in PostgreSQL's own words."""
        if not self.is_open:
            raise ConnectionLost
        parameters, formats = encoded(values)
        try:
            self._wire.send_query_prepared(self._name_of(text), parameters, formats, 1)
        except psycopg.Error as error:
            self.close()
            raise ConnectionLost from error
        answer = Rows(self, self.section)
        self._expected.append(answer)
        self._is_batch_open = True
        return answer

    def _name_of(self, text: bytes) -> bytes:
        """Give the name under which a statement is prepared here, from its first use on.

        In a session that others have too, it is the one without a name, for as long as no other is sent: theirs would have
        the same names, and stay.
        """
        name = self._prepared.get(text)
        if name is None:
            if len(self._prepared) >= _MOST_PREPARED:
                self._forget_prepared()
            if not self.has_own_session:
                self._prepared.clear()
            self._number += self.has_own_session
            name = self._prepared[text] = b"s%d" % self._number if self.has_own_session else b""
            self._wire.send_prepare(name, text)
            self._expected.append(_Prepared(self, self.section, text))
        return name

    def _forget_prepared(self) -> None:
        self._prepared.clear()
        self._wire.send_query_params(b"DEALLOCATE ALL", None)
        self._expected.append(Rows(self, self.section))

    def next_section(self) -> None:
        """Begin a part of the work that stands for itself: an error of an earlier one is no longer only its own."""
        self.section += 1

    def end_batch(self) -> None:
        """Have the server take all that was sent, without waiting for it."""
        if self._is_batch_open:
            self._is_batch_open = False
            try:
                self._wire.pipeline_sync()
                self._wire.flush()
            except psycopg.Error as error:
                self.close()
                raise ConnectionLost from error
            self._expected.append(None)

    def settle(self) -> None:
        """Wait until all that was sent is answered.

        Raises: the first error of it; ConnectionLost.
        """
        self.end_batch()
        if not self._expected:
            return
        try:
            failed = self._take_answers()
        except psycopg.Error as error:
            self.close()
            raise ConnectionLost from error
        except BaseException:  # Killed, or out of time: the server may be busy for us, and its answer is still to come.
            self.abandon()
            raise
        if failed is not None:
            self.is_lost |= failed.section != self.section
            assert failed.error is not None
            if isinstance(failed.error, StatementFailed) and failed.error.ends_connection:
                self.close()
            raise failed.error

    def _take_answers(self) -> Rows | None:
        """Take every answer; give the first that is an error."""
        wire, failed = self._wire, None
        is_sent, expected = wire.flush() == 0, self._expected
        while expected:
            while wire.is_busy():
                with gevent.Timeout(self.answer_seconds, ConnectionLost):
                    gevent.get_hub().wait(self._readable if is_sent else self._either)
                wire.consume_input()
                is_sent = is_sent or wire.flush() == 0
            result, current = wire.get_result(), expected[0]
            if result is None or result.status == _END_OF_BATCH:
                expected.popleft()
            elif current is not None and not self._is_taken(current, result):
                failed = failed or current
        return failed

    def _is_taken(self, current: Rows, result: PGresult) -> bool:
        """Take an answer, and tell whether it is a good one; what comes after an error is not run at all."""
        if result.status in _GOOD:
            try:
                current.take(result)
            except TypeError as error:
                current.error = error
                return False
            return True
        current.error = failure = failure_of(result)
        if failure.is_outdated:
            self._prepared.clear()
        if isinstance(current, _Prepared):
            self._prepared.pop(current.text, None)
        return False

    def notified(self, seconds: float) -> list[bytes]:
        """Wait for what others tell by NOTIFY, and give it; nothing if nothing came for so long.

        Raises: ConnectionLost.
        """
        found: list[bytes] = []
        try:
            with gevent.Timeout(seconds, False):
                while not (found := self._take_notified()):
                    gevent.get_hub().wait(self._readable)
                    self._wire.consume_input()
        except psycopg.Error as error:
            self.close()
            raise ConnectionLost(str(error).strip()) from error
        return found

    def _take_notified(self) -> list[bytes]:
        return [one.extra for one in iter(self._wire.notifies, None)]

    # --- its end -------------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """End the transaction without a trace. Nobody waits for the answer, which comes before the next one.

        That is sent alone: in a batch with a statement that fails, it would not be run.
        """
        if self.is_open and not self.is_clean:
            with contextlib.suppress(StatementFailed, ConnectionLost, TypeError):
                self.settle()
            with contextlib.suppress(ConnectionLost):
                self.send(b"ROLLBACK")
                self.end_batch()
                self.is_clean = True

    def is_alive(self) -> bool:
        """Tell whether the other side is still there, as far as this side has heard."""
        try:
            if self.is_open:
                self._wire.consume_input()
                self._take_notified()  # A pooler may give a session in which another listened.
        except psycopg.Error:
            self.close()
        return self.is_open

    def cut(self) -> None:
        """Have whoever waits for an answer find the connection lost."""
        if self.is_open:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._wire.socket)) as same:
                same.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """End amid a statement: have the server stop it, and close."""
        if self.is_open:
            with contextlib.suppress(psycopg.NotSupportedError):  # A libpq before 17, where psycopg brings none.
                gevent.spawn(handshakes.cancel, self._wire.cancel_conn())
            self.close()

    def close(self) -> None:
        """Close it; a transaction that is open is undone by the server."""
        if self.is_open:
            self.is_open, self.is_lost = False, True
            for answer in filter(None, self._expected):
                answer.error = answer.error or ConnectionLost()
            self._expected.clear()
            self._readable.close()
            self._either.close()
            self._wire.finish()
