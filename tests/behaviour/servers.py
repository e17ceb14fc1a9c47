"""Local HTTP servers that speak, or misspeak, the OpenAI protocol."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a reply may be: a text, a status with headers, or seconds of silence.
Reply = str | tuple[int, dict[str, str]] | float


@dataclass
class Server:
    """What was asked, and where."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def openai_server(answer: Callable[[str, int], Reply]) -> Iterator[Server]:
    """Serve `answer(question, how many questions came before)` until the block ends."""
    server, lock = Server(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.asked)
                server.asked.append({"path": self.path, **body})
                server.headers.append(dict(self.headers))
            reply = answer(body["messages"][-1]["content"], number)
            if isinstance(reply, float):
                time.sleep(reply)
                reply = "compliance"
            status, headers = reply if isinstance(reply, tuple) else (200, {})
            text = reply if isinstance(reply, str) else "no"
            data = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
