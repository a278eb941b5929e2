#!/usr/bin/env python3
"""The API of a Proxmox host over TLS, as its reference records it: GET only, a token or nothing.

Usage: server.py CERT KEY LOG AUTHORIZATION MODE PRIVILEGE... Prints its port, then serves until killed.
LOG gets a line for each request. Modes: well, silent (never answers), junk (no JSON), forbidden (the status
of the node may not be read), large (an answer without end), broken (its daemon is not there), late (the same, twice).
"""
import http.server, json, ssl, sys, time

cert, key, log, authorization, mode, *privileges = sys.argv[1:]


asked = 0


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(log, "a") as out:
            out.write(f"{self.client_address[1]} {self.path}\n")
        if mode == "silent":
            time.sleep(60)
        global asked
        asked += 1
        if mode == "broken" or mode == "late" and asked <= 2:
            return self.answer(596, b"")
        if self.headers["Authorization"] != authorization:
            return self.answer(401, b"")
        if not self.path.startswith("/api2/json/"):
            return self.answer(501, b"")
        if self.path == "/api2/json/access/permissions":
            return self.answer(200, json.dumps({"data": {"/": {name: 1 for name in privileges}}}).encode())
        if mode == "forbidden" and self.path.endswith("/status") and "/nodes/" in self.path:
            return self.answer(403, b'{"data":null}')
        if mode == "junk":
            return self.answer(200, b"<html>login</html>")
        if mode == "large":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * (1 << 20))
            except OSError:
                return
        self.answer(200, json.dumps({"data": {"asked": self.path}, "total": 1}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


server = Server(("127.0.0.1", 0), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
