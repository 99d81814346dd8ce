"""A small server that answers questions about a model, to try attacks over HTTP on this machine.

    python examples/serve_model.py digits-mlp --port 8000 --answers labels
    assay evaluate http://127.0.0.1:8000/predict --access labels --data digits --threat l2:1 --suite black-box

POST /predict with {"inputs": [...]} is answered with {"scores": ...}, {"probabilities": ...} or {"labels": ...}, one
entry for each input. GET / tells how many inputs were asked about. It is meant for the loopback address: it asks
nobody who they are.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from assay.models import load_model
from assay.oracle import Access, granted_access

ANSWERS = ("scores", "probabilities", "labels")


def answer(model: Any, inputs: Any, kind: str) -> dict[str, Any]:
    """What the model says about inputs, as JSON can hold it."""
    with torch.no_grad():
        output = model(torch.tensor(inputs, dtype=torch.float32))
    if kind == "labels":
        labels = output if granted_access(model) is Access.LABELS else output.argmax(dim=1)
        return {"labels": labels.tolist()}
    return {kind: (output if kind == "scores" else output.softmax(dim=1)).double().tolist()}


class Server(ThreadingHTTPServer):
    """Holds the model and counts."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: Any, kind: str, busy_every: int = 0) -> None:
        super().__init__(address, Handler)
        self.model, self.kind, self.busy_every = model, kind, busy_every
        self.inputs = self.requests = 0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection, which may ask many times."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """How many inputs were asked about."""
        self._reply(200, {"inputs": self.server.inputs, "requests": self.server.requests})

    def do_POST(self) -> None:
        """Answer a question; now and then say that the server is busy, if it was started so."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with self.server.lock:
            self.server.requests += 1
            if self.server.busy_every and self.server.requests % self.server.busy_every == 0:
                self._reply(503, {"error": "busy"})
                return
            try:
                inputs = json.loads(body)["inputs"]
                found = answer(self.server.model, inputs, self.server.kind)
            except (ValueError, LookupError, TypeError, RuntimeError) as wrong:
                self._reply(400, {"error": str(wrong)})
                return
            self.server.inputs += len(inputs)
        self._reply(200, found)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Answer questions about a model over HTTP.")
    parser.add_argument("model", help="what assay.load_model reads")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--answers", choices=ANSWERS, default="scores")
    parser.add_argument("--busy-every", type=int, default=0, metavar="N", help="answer every Nth request with 503")
    given = parser.parse_args()
    server = Server(("127.0.0.1", given.port), load_model(given.model), given.answers, given.busy_every)
    print(f"http://127.0.0.1:{server.server_address[1]}/predict answers with {given.answers}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
