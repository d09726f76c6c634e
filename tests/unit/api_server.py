"""A scripted API server over real HTTP, for what a healthy one does too rarely: refusals, gaps, hang-ups."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

Answer = tuple[int, Any]


class Server:
    """A scripted API server: `answers` maps a path to answers, given in order, the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer | Callable[[BaseHTTPRequestHandler], None]]] = {
            "/version": [(200, {})],
            "/api/v1": [
                (
                    200,
                    {
                        "kind": "APIResourceList",
                        "resources": [
                            {
                                "name": "pods",
                                "kind": "Pod",
                                "namespaced": True,
                                "singularName": "pod",
                                "verbs": [],
                            }
                        ],
                    },
                )
            ],
            "/apis": [(200, {"kind": "APIGroupList", "groups": []})],
        }
        self.seen: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.reply(self)

            do_POST = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                return

        self.handler = Handler
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = handler.path.partition("?")[0].rstrip("/")
        self.seen.append(f"{handler.command} {handler.path}")
        script = self.answers.get(path, [(404, {"message": f"{path} not found"})])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer(handler)
            return
        body = json.dumps(answer[1]).encode()
        handler.send_response(answer[0])
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def kubeconfig(directory: Path, port: int) -> Path:
    file = directory / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(config))
    return file


def events(*items: tuple[str, dict[str, Any]], then: str = "end") -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that streams watch events and then ends, or stays open."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for kind, obj in items:
            handler.wfile.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        handler.wfile.flush()
        if then == "stay":
            time.sleep(20)
        handler.close_connection = True

    return answer
