"""The servers and clients that can be compared, and the requirements of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..selection import Packaged, select

__all__ = ["CLIENTS", "FLOOR", "SERVERS", "Server", "named"]


@dataclass(frozen=True)
class Server(Packaged):
    """A server that can be measured.

    Attributes:
        name: On the command line and in results.
        title: In tables and charts.
        module: In `benchmarks.echo.servers`, or `clients`; empty for the floor, which is a C program.
        packages: The required packages, by their names for pip.
        loop: Its event loop, see `servers.options`.
        variant: The server or client of a module that has several.
        environment: Variables added to its environment.
        default: Whether it takes part unless servers are named.
        tls: Whether it can encrypt.
        deflate: Whether it can compress messages.
        plain: Whether it takes part where messages are not compressed.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...] = ()
    loop: str = "uvloop"
    variant: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    default: bool = True
    tls: bool = True
    deflate: bool = False
    plain: bool = True


_COMPILED = {"DUCK_REQUIRE_SPEEDUPS": "1", "DUCK_NO_EXTENSIONS": "", "DUCK_DEFLATE": "zlib"}
_PURE = {"DUCK_REQUIRE_SPEEDUPS": "", "DUCK_NO_EXTENSIONS": "1", "DUCK_DEFLATE": "zlib"}

FLOOR = Server("floor", "C floor", "", tls=False)

SERVERS: tuple[Server, ...] = (
    Server("duck", "duck", "duck", ("uvloop", "httptools"), environment=_COMPILED, deflate=True),
    Server("duck-pure", "duck, pure Python", "duck", ("uvloop", "httptools"), environment=_PURE, deflate=True),
    *(
        Server(
            f"duck-{library}",
            f"duck, {library}",
            "duck",
            ("uvloop", "httptools", library),
            environment=_COMPILED | {"DUCK_DEFLATE": library},
            deflate=True,
            plain=False,
        )
        for library in ("isal", "zlib-ng")
    ),
    Server(
        "uvicorn-duck",
        "uvicorn, duck",
        "uvicorn",
        ("uvicorn", "httptools", "uvloop"),
        variant="duck.contrib.websockets.uvicorn:WebSocketProtocol",
        environment=_COMPILED,
        deflate=True,
    ),
    Server("picows", "picows core", "picows", ("picows", "aiofastnet", "uvloop")),
    Server("picows-websockets", "picows.websockets", "picows_websockets", ("picows", "aiofastnet", "uvloop")),
    Server("websockets", "websockets", "websockets", ("websockets", "uvloop"), deflate=True),
    Server("aiohttp", "aiohttp", "aiohttp", ("aiohttp", "uvloop"), deflate=True),
    *(
        Server(
            f"uvicorn-{variant}",
            f"uvicorn, {variant}",
            "uvicorn",
            ("uvicorn", variant.removesuffix("-sansio"), "httptools", "uvloop"),
            variant=variant,
            deflate=True,
        )
        for variant in ("websockets", "websockets-sansio", "wsproto")
    ),
    Server("granian", "Granian", "granian", ("granian", "uvloop")),
    Server("socketify", "socketify", "socketify", ("socketify",)),
    FLOOR,
    # On other event loops, on request.
    Server("duck-asyncio", "duck, asyncio", "duck", ("httptools",), "asyncio", environment=_COMPILED, default=False),
    Server(
        "duck-aiofastnet",
        "duck, aiofastnet",
        "duck",
        ("aiofastnet", "uvloop", "httptools"),
        "aiofastnet",
        environment=_COMPILED,
        default=False,
    ),
    Server(
        "picows-uvloop",
        "picows core, uvloop's transports",
        "picows",
        ("picows", "uvloop"),
        variant="native-transports",
        default=False,
    ),
    Server("picows-asyncio", "picows core, asyncio", "picows", ("picows", "aiofastnet"), "asyncio", default=False),
    Server("websockets-asyncio", "websockets, asyncio", "websockets", ("websockets",), "asyncio", default=False),
    Server(
        "websockets-aiofastnet",
        "websockets, aiofastnet",
        "websockets",
        ("websockets", "aiofastnet", "uvloop"),
        "aiofastnet",
        default=False,
    ),
    Server("aiohttp-asyncio", "aiohttp, asyncio", "aiohttp", ("aiohttp",), "asyncio", default=False),
)

CLIENTS: tuple[Server, ...] = (
    Server("duck", "duck, recv", "duck", ("uvloop",), environment=_COMPILED),
    Server("duck-hooks", "duck, hooks", "duck", ("uvloop",), variant="hooks", environment=_COMPILED),
    Server("duck-pure", "duck, pure Python", "duck", ("uvloop",), environment=_PURE, default=False),
    Server("picows", "picows core", "picows", ("picows", "aiofastnet", "uvloop")),
    Server("websockets", "websockets", "websockets", ("websockets", "uvloop")),
    Server("aiohttp", "aiohttp", "aiohttp", ("aiohttp", "uvloop")),
    FLOOR,
)
"""Clients, whose modules are in `benchmarks.echo.clients`."""


def named(names: str | None, among: tuple[Server, ...] = SERVERS) -> list[Server]:
    """Servers or clients by their names, in that order.

    Args:
        names: With commas between; "all" for all; None for the default ones.
        among: Those to choose from.

    Raises:
        ValueError: There is none of that name.
    """
    if names is None:
        return [server for server in among if server.default]
    return select(names, among, "client" if among is CLIENTS else "server")
