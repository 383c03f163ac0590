"""An HTTP server of a test, on loopback."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

POLL_S = 0.01


@contextmanager
def running(handler: type[http.server.BaseHTTPRequestHandler], served: Any) -> Iterator[None]:
    """Run a server until the end of the block.

    Args:
        handler: handler of the requests, which has the attribute `served`.
        served: what the handler serves; its `port` is taken, and set if it is 0.
    """
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", served.port), type("Handler", (handler,), {"served": served})
    )
    server.daemon_threads = True
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_S}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
