"""The private and undocumented names of libraries that this server uses, in one table.

Knows: packages, objects and their names. Must not know: how they are used (``server/README.md``). Only a test imports it,
which names what a new version of a library no longer has, and private names that are used and do not stand here.
"""

from __future__ import annotations

from typing import NamedTuple


class Internals(NamedTuple):
    """Names of one object of a package: attributes, methods, or attributes of its instances."""

    package: str
    owner: str
    """A module, or a module and a class: ``gevent.pywsgi:WSGIHandler``."""
    names: str
    """Separated by spaces."""
    used_by: str
    """The modules of ours."""


INTERNALS = (
    # --- gevent: HTTP ------------------------------------------------------------------------------------------------
    Internals("gevent", "gevent.pywsgi", "format_date_time", "server.http.response_head"),
    Internals(
        "gevent",
        "gevent.pywsgi:WSGIHandler",
        "_sendall _write _write_with_headers application client_address close_connection code environ handle"
        " handle_one_request handle_one_response headers_sent provided_content_length requestline request_version"
        " response_length response_use_chunked result rfile run_application server socket start_response status"
        " wsgi_input",
        "server.http.handler",
    ),
    Internals("gevent", "gevent.pywsgi:Input", "_discard", "server.http.request_body"),
    Internals("gevent", "gevent.pywsgi:WSGIServer", "get_environ application", "server.http.handler"),
    Internals("gevent", "gevent.events", "notify notify_and_call_entry_points", "syncapp gunicorn.conf"),
    Internals("gevent", "gevent.queue:JoinableQueue", "queue", "server.websocket.socketio_server"),
    # --- gevent-websocket: frames ------------------------------------------------------------------------------------
    Internals("gevent-websocket", "geventwebsocket.handler", "WebSocket WebSocketHandler", "server.websocket.frames"),
    Internals(
        "gevent-websocket",
        "geventwebsocket.handler:WebSocketHandler",
        "log_request upgrade_websocket",
        "server.http.handler server.websocket.frames",
    ),
    Internals(
        "gevent-websocket",
        "geventwebsocket.websocket:WebSocket",
        "closed current_app environ handler logger raw_read raw_write read_frame read_message receive send send_frame"
        " stream OPCODE_CLOSE OPCODE_CONTINUATION OPCODE_PING OPCODE_PONG OPCODE_TEXT",
        "server.websocket.frames",
    ),
    Internals(
        "gevent-websocket",
        "geventwebsocket.websocket:Header",
        "decode_header fin flags length mask opcode",
        "server.websocket.frames",
    ),
    Internals("gevent-websocket", "geventwebsocket.websocket:Stream", "handler read write", "server.websocket.frames"),
    # --- Engine.IO: sessions, queues, polling ------------------------------------------------------------------------
    Internals(
        "python-engineio",
        "engineio.server:Server",
        "_async _cors_headers _ok handlers max_http_buffer_size ping_interval reason sockets",
        "server.websocket.connection server.websocket.handshake server.websocket.polling server.websocket.receiver"
        " server.websocket.socketio_server",
    ),
    Internals(
        "python-engineio",
        "engineio.socket:Socket",
        "_send_ping _websocket_handler check_ping_timeout close closed closing connected last_ping poll queue receive send"
        " server sid upgraded upgrading",
        "server.websocket.connection server.websocket.polling server.websocket.receiver server.websocket.socketio_server",
    ),
    Internals(
        "python-engineio",
        "engineio.packet:Packet",
        "binary data encode packet_type",
        "server.websocket.broadcast server.websocket.connection",
    ),
    Internals("python-engineio", "engineio.packet", "CLOSE NOOP PING", "server.websocket.connection"),
    Internals("python-engineio", "engineio.payload:Payload", "max_decode_packets", "server.websocket.connection"),
    Internals(
        "python-engineio",
        "engineio.exceptions",
        "EngineIOError SocketIsClosedError UnknownPacketError",
        "server.websocket.broadcast server.websocket.connection server.websocket.polling",
    ),
    # --- Socket.IO: events, rooms ------------------------------------------------------------------------------------
    Internals(
        "python-socketio",
        "socketio.server:Server",
        "eio handlers manager",
        "server.websocket.events server.websocket.socketio_server",
    ),
    Internals(
        "python-socketio",
        "socketio.manager:Manager",
        "basic_disconnect basic_enter_room basic_leave_room callbacks eio_sid_from_sid get_participants is_connected"
        " is_sid_room pending_connect pending_disconnect rooms sid_from_eio_sid",
        "server.websocket.broadcast server.websocket.events server.websocket.rooms server.websocket.socketio_server",
    ),
    Internals("python-socketio", "socketio.packet:Packet", "uses_binary_events", "server.websocket.events"),
    Internals("Flask-SocketIO", "flask_socketio:SocketIO", "server", "server.websocket.socketio_server"),
    # --- gunicorn, logging -------------------------------------------------------------------------------------------
    Internals("gunicorn", "gunicorn.workers.base:Worker", "alive sockets wsgi", "gunicorn.conf server.http.lifecycle"),
    Internals(
        "gunicorn",
        "gunicorn.workers.ggevent:GeventPyWSGIWorker",
        "run worker_connections wsgi_handler",
        "server.http.lifecycle",
    ),
    Internals("Python", "logging", "_srcfile", "server.log_format"),
    # --- peewee ------------------------------------------------------------------------------------------------------
    Internals("peewee", "peewee:Field", "_order _sort_key", "models"),
    Internals("peewee", "peewee:Database", "_state", "storage.sqlite.binding"),
    Internals("peewee", "peewee:Database", "_execute_cursor", "storage.postgres.binding"),
)
