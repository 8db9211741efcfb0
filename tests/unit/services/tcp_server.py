"""A real background service in miniature: a TCP server that answers every connection with its process id.

``tcp_server.py PORT MODE``; the mode ``serve`` does that; ``fail`` writes two lines and ends with 3; ``mute`` lives
and never listens; ``stubborn`` serves and ignores SIGTERM; ``full`` ends as on a full disk.
"""

from __future__ import annotations

import os
import signal
import socket
import sys


def _serve(port: int) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        print(f"listening on {port}", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(str(os.getpid()).encode())


def _main(port: int, mode: str) -> None:
    if mode == "fail":
        print("reading its files\nthe files are from another version", flush=True)
        raise SystemExit(3)
    if mode == "full":
        print("write failed: No space left on device", flush=True)
        raise SystemExit(1)
    if mode == "mute":
        signal.pause()
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _serve(port)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
