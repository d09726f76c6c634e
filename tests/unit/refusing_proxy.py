"""A proxy that refuses everything and counts what it was asked for."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VARIABLES = [spelt for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for spelt in (name, name.lower())]


class RefusingProxy:
    """Answers every request with 403; `asked` lists them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.requestline)
                self.send_error(403, "this proxy refuses everything")

            do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = do_CONNECT = do_GET

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that name it, with the usual NO_PROXY."""
        usual = "localhost,127.0.0.1"
        return {**dict.fromkeys(VARIABLES, self.url), "NO_PROXY": usual, "no_proxy": usual}

    def close(self) -> None:
        """Stop."""
        self.http.shutdown()
        self.http.server_close()
