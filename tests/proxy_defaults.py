"""The configurations that a first try gives: each proxy as it comes, told only where the server is."""

from __future__ import annotations

DEFAULTS = {
    "nginx": "server {\n listen 80;\n location / {\n proxy_pass http://127.0.0.1:3000;\n }\n}\n",
    "Caddy": "api.example.com {\n\treverse_proxy 127.0.0.1:3000\n}\n",
    "HAProxy": """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend web
    bind :80
    default_backend syncapp
backend syncapp
    server syncapp 127.0.0.1:3000
""",
    "Apache": "<VirtualHost *:80>\nProxyPass / http://127.0.0.1:3000/\n</VirtualHost>\n",
    "lighttpd": """
server.modules = ("mod_proxy")
server.document-root = "/var/www/html"
server.port = 80
proxy.server = ("" => (("host" => "127.0.0.1", "port" => 3000)))
""",
    "h2o": """
hosts:
  "api.example.com:80":
    listen:
      port: 80
    paths:
      "/":
        proxy.reverse.url: "http://127.0.0.1:3000/"
""",
    "Varnish": 'vcl 4.1;\nbackend syncapp { .host = "127.0.0.1"; .port = "3000"; }\n',
    "nghttpx": "frontend=*,80;no-tls\nbackend=127.0.0.1,3000\n",
    "Squid": """
http_port 80 accel defaultsite=api.example.com
cache_peer 127.0.0.1 parent 3000 0 no-query originserver
http_access allow all
""",
}
