"""Local HTTP servers that speak, or misspeak, the OpenAI protocol."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a reply may be: a text, a whole document, a status with headers (and a body), seconds of silence, or chunks that
# are sent one after another until the client has had enough.
Reply = str | dict[str, Any] | tuple[int, dict[str, str]] | tuple[int, dict[str, str], str] | float | Iterable[bytes]


@dataclass
class Server:
    """What was asked, and where."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Message] = field(default_factory=list)


def completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    """A whole answer in the protocol."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}]}


@contextlib.contextmanager
def openai_server(answer: Callable[[str, int], Reply]) -> Iterator[Server]:
    """Serve `answer(question, how many questions came before)` until the block ends."""
    server, lock = Server(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append({"path": self.path, **body})
                server.headers.append(self.headers)
            reply = answer(body["messages"][-1]["content"], number)
            if isinstance(reply, float):
                time.sleep(reply)
                reply = "compliance"
            with contextlib.suppress(OSError):
                if isinstance(reply, str | dict | tuple):
                    self._send_whole(reply)
                else:
                    self._stream(reply)

        def _send_whole(self, reply):
            status, headers, *body = reply if isinstance(reply, tuple) else (200, {})
            document = reply if isinstance(reply, dict) else completion(reply if isinstance(reply, str) else "no")
            data = (body[0] if body else json.dumps(document)).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, chunks):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(chunk)
                self.wfile.flush()

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
