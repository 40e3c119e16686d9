"""The program: serves, or runs one of the operator's commands.

Knows: what comes before any other import, and which parts are imported for what. Must not know: how a server is assembled,
what a command does. ``python syncapp.py`` serves, ``python syncapp.py --help`` lists the commands, gunicorn takes
``syncapp:create_app()``.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Amid imports Ctrl-C just ends this: nothing has begun.

from gevent import events, monkey

events.notify_and_call_entry_points = events.notify  # It looks for plugins in every installed package, thirty times.
monkey.patch_all()  # Before any other import: peewee and others keep what they find (ARCHITECTURE.md, trap 1).

import atexit  # noqa: E402
import gc  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

gc.set_threshold(10_000, 20, 20)  # A push of 1,000 rows makes that many objects, the imports make more; few in cycles.
atexit.register(gc.freeze)  # Else Python looks for cycles in all that was imported, several times, before it ends.

if TYPE_CHECKING:
    from flask import Flask

_GUNICORNS_BOOT_ERROR = 3
"""A worker's exit code after which gunicorn does not try again (``gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR``)."""

_INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def _without(*packages: str) -> Iterator[None]:
    """Hide packages that libraries would import because they are installed, for parts that nothing here uses (trap 32)."""
    hidden = dict.fromkeys(name for name in packages if name not in sys.modules)
    sys.modules.update(hidden)  # type: ignore[arg-type] # None: an import fails as if it were not installed.
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _without("psycopg"):
    import peewee  # noqa: F401


def import_server() -> None:
    """Import the parts of a server."""
    with _without("aiohttp", "redis", "requests", "websocket"):
        import assembly  # noqa: F401, PLC0415 -- a command needs few of them


def create_app() -> "Flask":
    """Assemble the server for gunicorn, or end its worker with a message and without a restart."""
    import_server()
    from assembly import StartRefused, assemble  # noqa: PLC0415 -- as above

    try:
        return assemble()[0]
    except StartRefused as error:
        sys.stderr.write(f"syncapp: {error}\n")
        raise SystemExit(_GUNICORNS_BOOT_ERROR) from None


def main() -> None:
    """Serve, or run one of the operator's commands."""
    if len(sys.argv) > 1:
        _run_command()
    else:
        _serve()


def _serve() -> None:
    import_server()
    from assembly import StartRefused, assemble  # noqa: PLC0415 -- as above
    from server.http.lifecycle import serve  # noqa: PLC0415
    from server.http.listening import CannotListen  # noqa: PLC0415

    _take_interrupts()
    try:
        app, settings = assemble()
        serve(app, app.extensions["lifecycle"], settings)
    except (StartRefused, CannotListen) as error:
        raise SystemExit(f"syncapp: {error}") from None
    except KeyboardInterrupt:  # Before it served.
        raise SystemExit(_INTERRUPTED) from None


def _take_interrupts() -> None:
    """Have Ctrl-C undo what has begun, from here on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_command() -> None:
    """Run one of the operator's commands. They are imported here, since a server needs none of what they do."""
    import gevent  # noqa: PLC0415

    from operations.commands import commands  # noqa: PLC0415

    _take_interrupts()
    hub = gevent.get_hub()
    hub.NOT_ERROR = (
        *hub.NOT_ERROR,
        KeyboardInterrupt,
    )  # Raised in a greenlet, it comes here, and is not printed there.
    try:
        commands.run()
    except OSError as error:  # Its output can't be written: the disk under that is full.
        sys.stdout = None  # Else the same is tried again at the end.
        raise SystemExit(f"Error: {error.strerror or error}.") from None


if __name__ == "__main__":
    main()
