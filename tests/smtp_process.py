"""A mail server for tests, as a process of its own: ``python smtp_process.py FOLDER PORT MODE``.

Knows: aiosmtpd. Must not know: pytest, the server under test. It keeps what it takes as files in FOLDER. MODE is
``starttls`` or ``tls``, with the certificate of FOLDER and the password that tests know, or ``plain``. What comes before
the @ of a recipient says how it fares; while FOLDER/hang is there, nobody is greeted.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

FOLDER, PORT, MODE = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ANSWERS = {"nobody": "550 5.1.1 <{}>: no such user", "later": "451 4.7.1 <{}>: greylisted, try again"}


class Mailbox:
    """Takes mails."""

    count = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return ANSWERS.get(address.partition("@")[0], "250 OK").format(address)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        Mailbox.count += 1
        text = envelope.content.decode()
        taken = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None, "text": text}
        file = FOLDER / f"{Mailbox.count:04}.new"
        file.write_text(json.dumps(taken))
        file.rename(file.with_suffix(".mail"))
        return "250 OK"


class Greeter(SMTP):
    """Waits before it greets while it is told to."""

    async def _handle_client(self) -> None:
        while (FOLDER / "hang").exists():
            (FOLDER / "hung").touch()
            await asyncio.sleep(0.05)
        await super()._handle_client()


def check(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    return AuthResult(success=(login.login, login.password) == (b"sync", b"p@ss/word"), handled=False)


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")
    return made


async def serve() -> None:
    options: dict[str, Any] = {"hostname": "mail.test", "enable_SMTPUTF8": True}
    if MODE != "plain":
        options |= {"auth_required": True, "authenticator": check, "auth_require_tls": MODE == "starttls"}
    if MODE == "starttls":
        options |= {"tls_context": context(), "require_starttls": True}
    tls = context() if MODE == "tls" else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Greeter(Mailbox(), **options), "127.0.0.1", PORT, ssl=tls)
    await server.serve_forever()


asyncio.run(serve())
