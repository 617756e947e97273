"""nginx, HAProxy and an aiohttp reverse proxy, configured for the same work as far as they can do it.

nginx refuses paths and passes plain HTTP on (its client side cannot check a certificate that names a SPIFFE ID, so
it does not take part in mTLS). HAProxy 2.6 checks chains on both sides but cannot read a SPIFFE ID: it refuses
paths, and any caller without a certificate of the mesh. The aiohttp proxy is what one writes in an hour.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from benchmarks.dataplane_identities import Identities
from benchmarks.dataplane_systems import (
    FORBIDDEN,
    Backends,
    Entry,
    Running,
    System,
    free_ports,
    python,
    spawn,
)
from benchmarks.dataplane_tools import program

_NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid {folder}/proxy.pid; error_log {folder}/proxy.error;
worker_rlimit_nofile 20000;
events {{ worker_connections 15000; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {folder}/pa; proxy_temp_path {folder}/pb; fastcgi_temp_path {folder}/pc;
  uwsgi_temp_path {folder}/pd; scgi_temp_path {folder}/pe;
  upstream app {{ server 127.0.0.1:{backend} max_fails=5 fail_timeout=30s; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location {forbidden} {{ return 403; }}
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Request-Id $request_id;
    }}
  }}
}}
"""

_HAPROXY: Final = """
global
  nbthread 1
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 120s
  option http-keep-alive
  http-reuse always
"""

_HTTP_FRONT: Final = """
frontend {name}
  bind 127.0.0.1:{port}{tls}
  http-request deny deny_status 403 if {{ path_beg {forbidden} }}
  unique-id-format %{{+X}}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header x-request-id
  default_backend to-{name}
backend to-{name}
  server one 127.0.0.1:{to}{to_tls} observe layer7 error-limit 5 on-error mark-down check inter 10s
"""

_TCP_FRONT: Final = """
frontend {name}
  mode tcp
  bind 127.0.0.1:{port}{tls}
  default_backend to-{name}
backend to-{name}
  mode tcp
  server one 127.0.0.1:{to}{to_tls}
"""


class Nginx(System):
    name = "nginx"

    async def start(
        self, folder: Path, identities: Identities, backends: Backends, stack: AsyncExitStack
    ) -> Running:
        (port,) = free_ports(1)
        config = folder / "proxy.conf"
        config.write_text(_NGINX.format(folder=folder, backend=backends.http, port=port, forbidden=FORBIDDEN))
        command = (program("nginx"), "-c", str(config), "-p", str(folder))
        pid = await spawn(stack, folder / "nginx-proxy.log", [port], *command)
        return Running(name=self.name, a=(pid,), entries={"plain": Entry(port=port, host="near", hops="a")})


class HAProxy(System):
    """Two of one thread each. `observe` marks a failing server down and a probe up again: its outlier detection."""

    name = "haproxy"

    async def start(
        self, folder: Path, identities: Identities, backends: Backends, stack: AsyncExitStack
    ) -> Running:
        ours = identities.folder
        tls_in = f" ssl crt {ours}/far.both ca-file {ours}/root.pem verify required"
        tls_out = f" ssl crt {ours}/web.both ca-file {ours}/root.pem verify required"
        plain, mtls, tcp, tcp_mtls = outer = free_ports(4)
        far, far_tcp = inner = free_ports(2)

        def http(name: str, port: int, to: int, *, tls: str = "", to_tls: str = "") -> str:
            return _HTTP_FRONT.format(
                name=name, port=port, tls=tls, to=to, to_tls=to_tls, forbidden=FORBIDDEN
            )

        def bytes_(name: str, port: int, to: int, *, tls: str = "", to_tls: str = "") -> str:
            return _TCP_FRONT.format(name=name, port=port, tls=tls, to=to, to_tls=to_tls)

        configs = {
            "a": http("plain", plain, backends.http)
            + http("mtls", mtls, far, to_tls=tls_out)
            + bytes_("tcp", tcp, backends.tcp)
            + bytes_("tcp_mtls", tcp_mtls, far_tcp, to_tls=tls_out),
            "b": http("far", far, backends.http, tls=tls_in)
            + bytes_("far_tcp", far_tcp, backends.tcp, tls=tls_in),
        }
        pids = []
        for side, ports in (("b", inner), ("a", outer)):
            config = folder / f"haproxy-{side}.cfg"
            config.write_text(_HAPROXY + configs[side])
            log = folder / f"haproxy-{side}.log"
            pids.append(await spawn(stack, log, ports, program("haproxy"), "-db", "-f", str(config)))
        b, a = pids
        return Running(
            name=self.name,
            a=(a,),
            b=(b,),
            entries={
                "plain": Entry(port=plain, host="near", hops="a"),
                "mtls": Entry(port=mtls, host="far", hops="ab"),
                "inbound": Entry(port=far, host="far.default.mesh", hops="b"),
                "tcp": Entry(port=tcp, host="", hops="a"),
                "tcp_mtls": Entry(port=tcp_mtls, host="", hops="ab"),
            },
        )


class AioHttp(System):
    name = "aiohttp"

    async def start(
        self, folder: Path, identities: Identities, backends: Backends, stack: AsyncExitStack
    ) -> Running:
        (port,) = free_ports(1)
        command = python("dataplane_aiohttp", str(port), str(backends.http))
        pid = await spawn(stack, folder / "aiohttp.log", [port], *command)
        return Running(name=self.name, a=(pid,), entries={"plain": Entry(port=port, host="near", hops="a")})
