#!/usr/bin/env python3
"""A server that writes down what it is asked, and answers as the first part of the path says, or without
one, the topic of ntfy.

Usage: web.py LOG [CERT KEY]. Prints its port, then serves until killed. LOG gets a JSON line for each request:
method, path, headers, body. Paths: /ok, /silent (never answers), /slow (a byte now and then, without end), /junk
(no HTTP), /N (that status), /N-once (that status once, then 200), /N-second (that status the second time only),
/elsewhere (a redirect), /away (one to another server), /echo-N (that status, with path, headers and body of the request), /endless (an answer without
end). Each of them may go on with anything.
"""
import http.server, json, ssl, sys, time

log, *tls = sys.argv[1:]
seen = set()
times = {}


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def asked(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        with open(log, "a") as out:
            out.write(json.dumps({"method": self.command, "path": self.path, "headers": headers, "body": body}) + "\n")
        word = self.path.split("/")[1].split("?")[0] or self.topic(body)
        if word == "silent":
            time.sleep(60)
        elif word == "slow":
            self.endless(b"x", 0.2)
        elif word == "endless":
            self.endless(b"x" * (1 << 20), 0)
        elif word == "junk":
            self.wfile.write(b"220 mail.example.org ESMTP\r\n")
            self.close_connection = True
        elif word == "elsewhere":
            self.answer(302, b"", Location="/ok/elsewhere")
        elif word == "away":
            self.answer(301, b"", Location="https://other.example.org/ok/" + self.path)
        elif word.endswith("-once"):
            first = self.path not in seen
            seen.add(self.path)
            self.answer(int(word[:3]) if first else 200, b"")
        elif word.endswith("-second"):
            times[self.path] = times.get(self.path, 0) + 1
            self.answer(int(word[:3]) if times[self.path] == 2 else 200, b"")
        elif word.startswith("echo-"):
            self.answer(int(word[5:8]), (self.path + str(self.headers) + body).encode())
        elif word.isdigit():
            self.answer(int(word), b"quota exceeded" if word == "429" else b"no\x1b[2J\nmore")
        else:
            self.answer(200, b'{"ok":true,"success":true}')

    do_GET = do_POST = do_PUT = do_PATCH = asked

    @staticmethod
    def topic(body):
        try:
            return json.loads(body)["topic"]
        except (ValueError, KeyError):
            return ""

    def endless(self, piece, pause):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(pause)
        except OSError:
            pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


server = Server(("127.0.0.1", 0), Recorder)
if tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
