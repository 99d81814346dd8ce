"""The HTTP form, on a server of a few lines that can be told to fail."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from assay.errors import AccessError, ModelError, SettingError
from assay.models import HttpModel, LabelsOnly, load_model
from assay.models.endpoint import Endpoint
from assay.models.load import recorded
from assay.oracle import Access


class Scripted(BaseHTTPRequestHandler):
    """Answers with the sums of the inputs, after the statuses that the test put into the server's list."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body["inputs"])
        self.server.headers_seen.append(dict(self.headers))
        status = self.server.script.pop(0) if self.server.script else 200
        if status == "cut":
            self.close_connection = True
            return
        sums = torch.tensor(body["inputs"], dtype=torch.float64).flatten(1).sum(dim=1)
        content = self.server.reply(sums)
        reply = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    found.daemon_threads = True
    found.seen, found.headers_seen, found.script = [], [], []
    found.reply = lambda sums: {"scores": torch.stack([sums, -sums], dim=1).tolist()}
    found.url = f"http://127.0.0.1:{found.server_address[1]}/ask?v=1"
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def test_scores_of_every_input_in_their_order(server):
    x = torch.randn(10, 2, 3)
    found = HttpModel(server.url, batch=4)(x)
    sums = x.flatten(1).sum(1)
    torch.testing.assert_close(found, torch.stack([sums, -sums], dim=1))
    assert [len(inputs) for inputs in server.seen] == [4, 4, 2]


def test_numbers_arrive_with_all_their_digits(server):
    x = torch.rand(3, 5)
    HttpModel(server.url)(x)
    assert torch.equal(torch.tensor(server.seen[0], dtype=torch.float32), x)
    HttpModel(server.url)(x.double() / 3)
    assert torch.equal(torch.tensor(server.seen[1], dtype=torch.float64), x.double() / 3)


def test_probabilities_come_as_logits(server):
    server.reply = lambda sums: {"probabilities": [[0.75, 0.25, 0.0]] * len(sums)}
    found = HttpModel(server.url)(torch.rand(2, 3))
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.softmax(1), torch.tensor([[0.75, 0.25, 0.0]] * 2))


def test_labels(server):
    server.reply = lambda sums: {"labels": (sums > 0).int().tolist()}
    x = torch.randn(5, 3)
    wanted = (x.double().sum(1) > 0).long()
    assert torch.equal(HttpModel(server.url, access="labels")(x), wanted)
    view = LabelsOnly(load_model(server.url))
    assert view.access is Access.LABELS
    assert torch.equal(view(x), wanted)
    with pytest.raises(AccessError, match="--access labels"):
        HttpModel(server.url)(x)


def test_labels_are_read_from_scores_too(server):
    x = torch.randn(5, 3)
    assert torch.equal(HttpModel(server.url, access="labels")(x), (x.sum(1) < 0).long())


@pytest.mark.parametrize("failure", [500, 503, 408, "cut"])
def test_failures_that_pass_are_tried_again(server, failure):
    server.script = [failure, failure]
    x = torch.rand(2, 3)
    assert HttpModel(server.url, backoff=0)(x).shape == (2, 2)
    assert len(server.seen) == 3


def test_pauses_double_and_the_server_may_ask_for_more(server):
    pauses = []
    server.script = [503, 503, 429, 503]
    Endpoint(server.url, backoff=1.0, sleep=pauses.append).post(b'{"inputs": [[1.0]]}', 1)
    assert pauses == [1.0, 2.0, 7.0, 8.0]


def test_tries_end(server):
    server.script = [503] * 9
    with pytest.raises(ModelError, match=r"no answer in 3 tries.*HTTP 503"):
        HttpModel(server.url, retries=2, backoff=0)(torch.rand(1, 3))
    assert len(server.seen) == 3


def test_a_refusal_is_final(server):
    server.script = [404]
    with pytest.raises(ModelError, match=r"refused a request about 1 inputs \(HTTP 404"):
        HttpModel(server.url, backoff=0)(torch.rand(1, 3))
    assert len(server.seen) == 1


def test_a_server_that_is_away():
    with pytest.raises(ModelError, match=r"no answer in 1 tries.*ConnectionRefused"):
        HttpModel("http://127.0.0.1:9/", retries=0)(torch.rand(1, 3))


def test_a_server_that_does_not_answer_in_time(server):
    gate = threading.Event()
    server.reply = lambda _: gate.wait(5) and {}
    with pytest.raises(ModelError, match=r"[Tt]imed out|Timeout"):
        HttpModel(server.url, retries=0, timeout=0.05)(torch.rand(1, 3))
    gate.set()


@pytest.mark.parametrize(
    "reply", [b"<html>", b"[]", b"3", b'{"logits": [[1, 2]]}', b'{"scores": "x"}', b'{"scores": [[1, 2], [3]]}']
)
def test_other_answers_are_named(server, reply):
    server.reply = lambda _: reply
    with pytest.raises(ModelError, match="expected is a JSON object"):
        HttpModel(server.url)(torch.rand(2, 3))


def test_too_few_answers_are_named(server):
    server.reply = lambda _: {"scores": [[1, 2]]}
    with pytest.raises(ModelError, match="answered 2 inputs"):
        HttpModel(server.url)(torch.rand(2, 3))


def test_the_rate_is_kept(monkeypatch):
    now, pauses = [0.0], []
    monkeypatch.setattr("assay.models.endpoint.time.monotonic", lambda: now[0])

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    endpoint = Endpoint("http://h/", rate=10, sleep=sleep)
    monkeypatch.setattr(endpoint, "_exchange", lambda _: (200, b"", 0.0))
    for _ in range(3):
        endpoint.post(b"", 5)
    assert pauses == [0.5, 0.5]


def test_headers_are_sent(server):
    HttpModel(server.url, headers={"Authorization": "Bearer x"})(torch.rand(1, 3))
    assert server.headers_seen[0]["Authorization"] == "Bearer x"


def test_how_it_is_asked_stands_behind_the_address():
    model = load_model("http://h:1/p?q=2#batch=8&rate=2.5&timeout=3&retries=0&backoff=0")
    endpoint = model.endpoint
    assert (model.batch, endpoint.rate, endpoint.timeout, endpoint.retries) == (8, 2.5, 3.0, 0)
    assert endpoint.url == "http://h:1/p?q=2"
    assert recorded("TopK('http://h:1/p?q=2#batch=8', 3)") == "TopK('http://h:1/p?q=2', 3)"
    assert recorded("digits-mlp") == "digits-mlp"


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("http://h/#speed=3", ModelError, "known are batch="),
        ("http://h/#batch=x", ModelError, "are numbers"),
        ("http://h/#batch=0", SettingError, "at least 1"),
        ("http://h/#rate=0", SettingError, "above 0"),
        ("http://h/#retries=-1", SettingError, "not be negative"),
        ("http:///p", SettingError, "host"),
    ],
)
def test_mistakes_in_an_address(spec, error, says):
    with pytest.raises(error, match=says):
        load_model(spec)
