"""The smallest program worth a pod: it answers with its name, and ends when asked to."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            print("asked to crash, so I do", flush=True)
            os._exit(1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"Hello from pod {os.environ.get('HOSTNAME')}\n".encode())

    def log_message(self, template, *values):
        print(self.client_address[0], template % values, flush=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("listening on port 8080", flush=True)
ThreadingHTTPServer(("", 8080), Hello).serve_forever()
