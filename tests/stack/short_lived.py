"""
A process to be restarted: it shows when it started, and an alert that fires as long as it lives.

It starts at the first line on stdin, and says on stdout when, and then when it is scraped.
"""

import sys
import time
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer


def say(moment: float) -> None:
    """Write a time on stdout."""
    sys.stdout.write(f"{moment!r}\n")
    sys.stdout.flush()


class Metrics(BaseHTTPRequestHandler):
    """Answers a scrape, and says when."""

    text = ""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(self.text.encode())
        say(time.time())

    def log_message(self, *_arguments: object) -> None:
        """Say nothing of it on stderr."""


if __name__ == "__main__":
    sys.stdin.readline()
    started = time.time()
    Metrics.text = f"""\
process_start_time_seconds {started!r}
ALERTS{{alertname="Alive", alertstate="firing"}} 1
"""
    TCPServer.allow_reuse_address = True
    with TCPServer(("127.0.0.1", int(sys.argv[1])), Metrics) as server:
        say(started)
        server.serve_forever()
