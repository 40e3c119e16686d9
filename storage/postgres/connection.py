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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
import psycopg
from gevent import socket
from psycopg import pq
from psycopg.pq.abc import PGconn, PGresult

from storage.look_ahead import Wanted
from storage.postgres import handshakes
from storage.postgres.errors import ConnectionLost, StatementFailed, failure_of
from storage.postgres.known_answers import KNOWN_TABLES, KnownAnswers
from storage.postgres.parts import Part
from storage.postgres.row_sets import in_one
from storage.postgres.rows import Prepared, Rows
from storage.postgres.statements import Rewritten, in_directory
from storage.postgres.values import encoded

_READ, _READ_AND_WRITE = 1, 3
_GOOD = (int(pq.ExecStatus.COMMAND_OK), int(pq.ExecStatus.TUPLES_OK))
_END_OF_BATCH = int(pq.ExecStatus.PIPELINE_SYNC)
_MOST_PREPARED = 1_000
ANSWER_SECONDS = 30.0
"""A server that says nothing for so long hangs, unless its work may take long."""


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
        self._part: Part | None = None
        self.answer_seconds: float | None = ANSWER_SECONDS
        """For how long the server may say nothing; None for work that takes as long as it takes."""

    def start(self, rewrite: Callable[[str], Rewritten]) -> None:
        """Begin with new work. ``rewrite``: gives a statement in PostgreSQL's words."""
        self.rewrite = rewrite
        self.section, self.is_lost, self.has_written, self.is_clean = 0, False, False, False
        self.known, self._part, self.answer_seconds = None, None, ANSWER_SECONDS
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
        self.has_written |= writes
        if self.known is not None:
            if writes and self.known.takes(sql, values):
                return Rows(self, self.section, ())
            if not writes and (rows := self.known.answer(sql, values)) is not None:
                return Rows(self, self.section, rows)
            self._send_before(sql, writes, table)
            if writes:
                self.known.note(sql, [values], table)
        return self.send(text, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Send a statement with each of some rows of values."""
        text, writes, table = self.rewrite(sql)
        self.has_written |= writes
        if self.known is not None:
            rows = list(rows)
            is_held = self._part is not None and table not in KNOWN_TABLES and self._part.holds(text, rows)
            if not is_held:
                self._send_before(sql, writes, table)
            self.known.note(sql, rows, table)
            if is_held:
                return
            if one := in_one(sql, rows, table):
                self.send(one[0], one[1:])
                return
        for values in rows:
            self.send(text, values)

    def cursor(self) -> Connection:
        """Give what executes several statements: here it is the connection."""
        return self

    def look_ahead(self, wanted: Wanted) -> None:
        """Have rows looked up that will be asked for, without waiting for them."""
        if self.known is not None and self.known.rows is not None:
            self.known.rows.look_up(wanted)

    def ask(self, sql: str, values: Sequence[Any]) -> Rows:
        """Send a statement that looks rows up."""
        if self._part is not None and self._part.held:
            self._send_part()
        return self.send(self.rewrite(sql).text, values)

    # --- parts of a transaction ----------------------------------------------------------------------------------------

    def begin_part(self) -> None:
        """Begin a part that can be undone alone: an error of an earlier one is no longer only its own."""
        self.section += 1
        self._part = Part(None if self.known is None else self.known.state())
        if self.known is None:
            self._send_part()

    def end_part(self) -> None:
        """Keep what it wrote."""
        part, self._part = self._part, None
        if part is not None and part.is_sent:
            self.send(b"RELEASE SAVEPOINT one")
        elif part is not None:
            for text, values in part.held:
                self.send(text, values)

    def undo_part(self) -> None:
        """Undo what it wrote."""
        part = self._part
        assert part is not None
        part.held.clear()
        if part.is_sent:
            self.send(b"ROLLBACK TO SAVEPOINT one")
        if self.known is not None and part.before is not None:
            self.known.return_to(part.before)

    def _send_before(self, sql: str, writes: bool, table: str | None) -> None:
        """Send what was held back and must come before a statement."""
        assert self.known is not None
        if writes or (self._part is not None and self._part.held):
            self._send_part()
        if table in KNOWN_TABLES if writes else any(name in sql for name in KNOWN_TABLES if name):
            self.send_due()

    def _send_part(self) -> None:
        if self._part is not None and not self._part.is_sent:
            self._part.is_sent = True
            self.send(b"SAVEPOINT one")
            for text, values in self._part.held:
                self.send(text, values)

    def send_due(self) -> None:
        """Send what is known and not stored yet."""
        self._send_part()
        for sql, values in self.known.due() if self.known is not None else ():
            self.send(self.rewrite(sql).text, values)

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
            self._expected.append(Prepared(self, self.section, text))
        return name

    def _forget_prepared(self) -> None:
        self._prepared.clear()
        self._wire.send_query_params(b"DEALLOCATE ALL", None)
        self._expected.append(Rows(self, self.section))

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
        if isinstance(current, Prepared):
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
        """End amid a statement: have the server stop it, and close. Not before that: a pooler would not know any more whose
        statement is meant."""
        if self.is_open:
            wire = self._forget()
            with contextlib.suppress(psycopg.NotSupportedError):  # A libpq before 17, where psycopg brings none.
                gevent.spawn(handshakes.cancel, wire.cancel_conn()).link(lambda _: wire.finish())
                return
            wire.finish()

    def close(self) -> None:
        """Close it; a transaction that is open is undone by the server."""
        if self.is_open:
            self._forget().finish()

    def _forget(self) -> PGconn:
        """Be closed for whoever uses it; give what is still to be ended."""
        self.is_open, self.is_lost = False, True
        for answer in filter(None, self._expected):
            answer.error = answer.error or ConnectionLost()
        self._expected.clear()
        self._readable.close()
        self._either.close()
        return self._wire
