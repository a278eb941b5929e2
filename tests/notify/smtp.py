#!/usr/bin/env python3
"""A mail server (aiosmtpd): smtp.py LOG MODE CERT KEY [USER PASSWORD]. Prints its port, then serves until killed.

Modes: plain, starttls (required before anything else), tls, and busy (refuses the first mail with 451).
With a user, mail is taken after a login only, and logins are offered under TLS only.
LOG gets a JSON line for each mail, read back with the email package as a mail program would.
"""
import asyncio, email, email.policy, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

log, mode, cert, key, *login = sys.argv[1:]
refused = []


class Take:
    async def handle_DATA(self, server, session, envelope):
        if mode == "busy" and not refused:
            refused.append(True)
            return "451 come back later"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        with open(log, "a") as out:
            out.write(json.dumps({
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "tls": session.ssl is not None or mode == "tls",
                "login": bool(session.authenticated),
                "defects": [str(defect) for part in mail.walk() for defect in part.defects],
                "longest": max(len(line) for line in envelope.content.split(b"\r\n")),
                "headers": {name.lower(): value for name, value in mail.items()},
                "type": mail.get_content_type(),
                "parts": {part.get_content_type(): part.get_content() for part in mail.iter_parts()},
            }) + "\n")
        return "250 taken"


def check(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and [data.login.decode(), data.password.decode()] == login
    return AuthResult(success=good, handled=False)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)


def serve():
    options = {"authenticator": check, "auth_required": True} if login else {}
    if mode == "tls":
        # TLS is there from the start, which aiosmtpd does not count as such.
        options["auth_require_tls"] = False
    if mode == "starttls":
        options.update(tls_context=context, require_starttls=True)
    return SMTP(Take(), hostname="localhost", **options)


async def main():
    server = await asyncio.get_running_loop().create_server(
        serve, "127.0.0.1", 0, ssl=context if mode == "tls" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
