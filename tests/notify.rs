//! Channels against real servers: a mail server whose mail is read back as a mail program would, and a web server
//! that writes down what it is asked. What they do not get, other machines and people do not get either.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::server::{Keys, Server};
use common::{Done, TestHost};
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{self, Cmd, Exec, ProcessOutput};
use serde_json::Value;

/// Stands in secrets.cfg of the tests and nowhere else.
const SECRET: &str = "pl4nted-5ecret";

fn configure(host: &TestHost, public: &str, secret: &str) {
    host.configure(public);
    host.write("etc/proxmox-backup-extra/secrets.cfg", secret);
    let path = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Everything that was printed. A secret in it is the end.
#[track_caller]
fn said(done: &Done) -> String {
    let all = format!("{}{}", done.out, done.err);
    assert!(!all.contains(SECRET), "{all}");
    all
}

/// Requests as they were, without what differs each time. `UPDATE=1` writes them; the diff is for a person to read.
#[track_caller]
fn expect_requests(name: &str, server: &Server) {
    const OF_INTEREST: [&str; 9] = [
        "authorization",
        "content-type",
        "title",
        "x-a",
        "x-b",
        "x-gotify-key",
        "x-server-auth",
        "x-signature",
        "x-signature-algorithm",
    ];
    let requests: Vec<Value> = server
        .got()
        .into_iter()
        .map(|mut got| {
            let headers = got["headers"].as_object().unwrap().clone();
            let kept = headers.into_iter().filter(|(name, _)| OF_INTEREST.contains(&name.as_str()));
            got["headers"] = Value::Object(kept.collect());
            if let Ok(body) = serde_json::from_str::<Value>(got["body"].as_str().unwrap()) {
                got["body"] = body;
            }
            got
        })
        .collect();
    let text = serde_json::to_string_pretty(&requests).unwrap() + "\n";
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify/requests").join(format!("{name}.json"));
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap(), "{}", path.display());
}

fn gotify(port: u16, path: &str, more: &str) -> String {
    format!("gotify: phone\n\turl http://127.0.0.1:{port}/{path}\n{more}")
}

fn gotify_secret() -> String {
    format!("gotify: phone\n\ttoken {SECRET}\n")
}

/// A host that tells a Gotify server whose answer is `path`.
fn with_gotify(path: &str, more: &str) -> (TestHost, Server) {
    let host = TestHost::empty();
    let server = Server::http(&host);
    configure(&host, &gotify(server.port, path, more), &gotify_secret());
    (host, server)
}

/// The host's mail system is a script that writes down its words and its input.
struct MailSystem {
    script: PathBuf,
}

impl Exec for MailSystem {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        if cmd.argv[0] != "sendmail" {
            return Ok(None);
        }
        exec::run_at(&self.script, &cmd.argv[1..], cmd).map(Some)
    }
}

/// `body` is what the script does beside that.
fn mail_system(host: &TestHost, body: &str) -> Box<dyn Exec> {
    let script = host.beside("sendmail");
    let (words, mail) =
        (host.beside("words").display().to_string(), host.beside("mail").display().to_string());
    fs::write(&script, format!("#!/bin/sh\n{body}\necho \"$@\" >>{words}\ncat >{mail}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Box::new(MailSystem { script })
}

#[test]
fn a_backup_is_told_with_its_facts() {
    let (host, server) = with_gotify("ok", "");
    said(&host.run(&["backup"]).ok());
    let got = server.only();
    assert_eq!((got["method"].as_str(), got["path"].as_str()), (Some("POST"), Some("/ok/message")));
    assert_eq!(got["headers"]["x-gotify-key"], SECRET);
    assert_eq!(got["headers"]["content-type"], "application/json");
    let body: Value = serde_json::from_str(got["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["title"], "tiny: configuration backup ok");
    assert_eq!(body["priority"], 2);
    let text = body["message"].as_str().unwrap();
    for part in ["\nSnapshot  tiny/2026-11-22T15:17:40Z\n", "\nStore     local: ", "\nTime  "] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!got["body"].as_str().unwrap().contains(SECRET));
}

#[test]
fn a_failed_run_is_told_too() {
    let (host, server) = with_gotify("ok", "\twhen failure\ndir: local\n\tpath /store\n\tmountpoint yes\n");
    let all = said(&host.run(&["backup"]).exits(Exit::Failed));
    assert!(all.contains("nothing is mounted"), "{all}");
    let body = server.only()["body"].as_str().unwrap().to_owned();
    assert!(body.contains("tiny: configuration backup FAILED") && body.contains("hint: mount it"), "{body}");
    assert!(body.contains("\"priority\":8"), "{body}");
}

#[test]
fn a_channel_that_waits_for_worse_is_not_told() {
    let (host, server) = with_gotify("ok", "\twhen failure\n");
    host.run(&["backup"]).ok();
    assert!(server.got().is_empty());
}

#[test]
fn what_a_channel_meets_never_fails_a_run() {
    for (path, more, attempts, part) in [
        ("401", "", 1, "status 401: no [2J more"),
        ("echo-403", "", 1, "status 403"),
        ("elsewhere", "", 1, "status 302: it redirects to another path of its own, which is not followed"),
        ("away", "", 1, "status 301: it redirects to https://other.example.org, which is not followed"),
        ("500", "\tretries 1\n", 2, "status 500"),
        ("429", "\tretries 1\n", 2, "status 429: quota exceeded"),
        ("junk", "\tretries 0\n", 1, "http://127.0.0.1"),
        ("silent", "\ttimeout 1\n\tretries 0\n", 1, "no answer in time"),
    ] {
        let (host, server) = with_gotify(path, more);
        let done = host.run(&["backup"]).exits(Exit::Problems);
        let all = said(&done);
        assert!(all.contains("warning: gotify 'phone' was not notified: http://127.0.0.1:"), "{path}: {all}");
        assert!(
            all.contains(part) && all.contains("test it with `pbx-config notify test phone`"),
            "{path}: {all}"
        );
        assert!(all.contains("result    done, with 0 errors and 1 warning\n"), "{path}: {all}");
        assert_eq!(server.got().len(), attempts, "{path}");
        host.snapshot_file();
    }
}

#[test]
fn what_passes_by_is_met_by_another_attempt() {
    let (host, server) = with_gotify("503-once", "");
    said(&host.run(&["notify", "test"]).ok());
    assert_eq!(server.got().len(), 2);
}

#[test]
fn an_answer_without_end_ends() {
    for path in ["endless", "slow"] {
        let (host, _server) = with_gotify(path, "\ttimeout 1\n\tretries 0\n");
        let start = Instant::now();
        said(&host.run(&["notify", "test", "phone"]).ok());
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn one_channel_does_not_wait_for_another() {
    let host = TestHost::empty();
    let server = Server::http(&host);
    let slow = "\ttimeout 2\n\tretries 0\n";
    let sections: String = (0..4)
        .map(|n| format!("gotify: s{n}\n\turl http://127.0.0.1:{}/silent/{n}\n{slow}", server.port))
        .chain([format!("gotify: good\n\turl http://127.0.0.1:{}/ok\n", server.port)])
        .collect();
    let names = ["s0", "s1", "s2", "s3", "good"];
    let secrets: String = names.iter().map(|name| format!("gotify: {name}\n\ttoken {SECRET}\n")).collect();
    configure(&host, &sections, &secrets);
    let done = host.run(&["notify", "test", "--json"]).exits(Exit::Failed);
    said(&done);
    let rows = done.json();
    for row in rows.as_array().unwrap() {
        let good = row["channel"] == "good";
        assert_eq!(row["error"].is_null(), good, "{row}");
        // Each has its own clock: none has waited for those before it.
        assert!(row["took"].as_f64().unwrap() < 3.5, "{row}");
    }
}

#[test]
fn a_server_is_known_by_an_authority_a_fingerprint_or_not_at_all() {
    let host = TestHost::empty();
    let (good, other) = (Keys::make(&host, "good"), Keys::make(&host, "other"));
    let server = Server::https(&host, &good);
    good.install_ca(&host);
    let pin = format!("\tfingerprint {}\n", good.fingerprint());
    let wrong = format!("\tfingerprint {}\n", other.fingerprint());
    for (name, trust, part) in [
        ("localhost", "\tca-file /etc/ssl/ca.pem\n", None),
        ("127.0.0.1", &pin, None),
        ("127.0.0.1", "\tca-file /etc/ssl/ca.pem\n", Some("its certificate is not trusted here")),
        ("localhost", "", Some("its certificate is not trusted here")),
        ("localhost", &wrong, Some("it has another certificate, with the fingerprint")),
        ("localhost", "\tca-file /etc/hostname\n", Some("contains no certificate")),
        ("localhost", "\tca-file /etc/gone.pem\n", Some("ca-file /etc/gone.pem")),
    ] {
        let before = server.got().len();
        let section = format!("gotify: phone\n\turl https://{name}:{}/ok\n{trust}", server.port);
        configure(&host, &section, &gotify_secret());
        let done = host.run(&["notify", "test"]);
        let all = said(&done);
        assert_eq!(done.exit, if part.is_none() { Exit::Ok } else { Exit::Failed }, "{all}");
        assert!(all.contains(part.unwrap_or("ok ")), "{all}");
        assert_eq!(server.got().len() - before, usize::from(part.is_none()), "{all}");
    }
}

fn smtp(port: u16, more: &str) -> String {
    format!(
        "smtp: office\n\tserver localhost\n\tport {port}\n\tfrom pbx@example.org\n\tto a@example.org\n\tto b@example.org\n{more}"
    )
}

/// A mail server, and a host that is configured for it.
fn with_smtp(kind: &str, login: bool, more: &str) -> (TestHost, Server) {
    let host = TestHost::empty();
    let keys = Keys::make(&host, "mail");
    keys.install_ca(&host);
    let server = Server::smtp(&host, kind, &keys, if login { &["bob", SECRET] } else { &[] });
    let public = smtp(server.port, &more.replace("PIN", &keys.fingerprint()));
    let user = more.contains("username");
    configure(
        &host,
        &public,
        &if user { format!("smtp: office\n\tpassword {SECRET}\n") } else { String::new() },
    );
    (host, server)
}

#[test]
fn a_mail_server_gets_a_mail_that_mail_programs_read() {
    for (mode, login, more) in [
        ("plain", false, "\tmode insecure\n"),
        ("starttls", true, "\tmode starttls\n\tca-file /etc/ssl/ca.pem\n\tusername bob\n"),
        ("tls", true, "\tmode tls\n\tfingerprint PIN\n\tusername bob\n"),
        ("tls", false, "\tca-file /etc/ssl/ca.pem\n"),
    ] {
        let (host, server) = with_smtp(mode, login, more);
        said(&host.run(&["backup"]).ok());
        let mail = server.only();
        assert_eq!(mail["from"], "pbx@example.org");
        assert_eq!(mail["to"], serde_json::json!(["a@example.org", "b@example.org"]));
        assert_eq!(
            (mail["tls"].as_bool(), mail["login"].as_bool()),
            (Some(mode != "plain"), Some(login)),
            "{mode}"
        );
        assert_eq!(mail["defects"], serde_json::json!([]));
        assert!(mail["longest"].as_u64().unwrap() <= 998);
        let headers = &mail["headers"];
        assert_eq!(headers["subject"], "tiny: configuration backup ok");
        assert_eq!(headers["from"], "pbx-config on tiny <pbx@example.org>");
        assert_eq!(headers["to"], "a@example.org, b@example.org");
        assert_eq!(headers["auto-submitted"], "auto-generated");
        assert_eq!(headers["date"], "Sun, 22 Nov 2026 15:17:40 +0000");
        assert_eq!(mail["type"], "multipart/alternative");
        let (text, page) = (mail["parts"]["text/plain"].as_str(), mail["parts"]["text/html"].as_str());
        assert!(text.unwrap().contains("Snapshot  tiny/2026-11-22T15:17:40Z"), "{text:?}");
        assert!(page.unwrap().contains("tiny/2026-11-22T15:17:40Z</td>"), "{page:?}");
    }
}

#[test]
fn a_password_does_not_go_where_others_read() {
    // A server that would take it in clear, as one on the way who strips STARTTLS.
    let (host, server) =
        with_smtp("plain", true, "\tmode starttls\n\tusername bob\n\tca-file /etc/ssl/ca.pem\n");
    let all = said(&host.run(&["notify", "test"]).exits(Exit::Failed));
    assert!(all.contains("it offers no STARTTLS; nothing was sent"), "{all}");
    assert!(server.got().is_empty());
    let (host, _server) = with_smtp("plain", true, "\tmode insecure\n\tusername bob\n");
    let all = said(&host.run(&["config", "check"]).exits(Exit::Usage));
    assert!(all.contains(".cfg:7: smtp 'office': a password is not sent without TLS"), "{all}");
}

#[test]
fn what_a_mail_server_refuses_is_told() {
    for (mode, login, more, part) in [
        ("tls", true, "\tfingerprint PIN\n\tusername eve\n", "535"),
        ("tls", false, "\tmode tls\n", "certificate"),
        ("starttls", false, "\tmode starttls\n", "certificate"),
        ("starttls", true, "\tmode starttls\n\tca-file /etc/ssl/ca.pem\n", "530"),
        // It never says a word of SMTP before TLS.
        ("tls", false, "\tmode insecure\n\ttimeout 1\n\tretries 0\n", "no answer in time"),
    ] {
        let (host, server) = with_smtp(mode, login, more);
        let all = said(&host.run(&["notify", "test"]).exits(Exit::Failed));
        assert!(
            all.contains("FAILED  smtp 'office': localhost:") && all.contains(part),
            "{mode} {more}: {all}"
        );
        assert!(server.got().is_empty());
    }
    let (host, server) = with_smtp("busy", false, "\tmode insecure\n");
    said(&host.run(&["notify", "test"]).ok());
    assert_eq!(server.got().len(), 1);
}

#[test]
fn the_hosts_own_mail_system_gets_a_mail_for_roots_address() {
    let host = TestHost::golden("pve-single");
    host.configure("sendmail: root\n");
    let done = host.run_with(&["notify", "test"], mail_system(&host, ""));
    said(&done.ok());
    let words = fs::read_to_string(host.beside("words")).unwrap();
    assert_eq!(words, "-i -f root@pve1.example.org -- admin@example.org\n");
    let mail = fs::read_to_string(host.beside("mail")).unwrap();
    assert!(
        mail.contains("\r\nTo: admin@example.org\r\n") && mail.contains("Content-Type: text/html"),
        "{mail}"
    );
}

#[test]
fn without_an_address_roots_mail_goes_where_the_alias_says() {
    let host = TestHost::empty();
    host.write("etc/mailname", "mail.example.org\n");
    host.configure("sendmail: root\n");
    said(&host.run_with(&["notify", "test"], mail_system(&host, "")).ok());
    assert_eq!(fs::read_to_string(host.beside("words")).unwrap(), "-i -f root@mail.example.org -- root\n");
}

#[test]
fn a_mail_system_that_hangs_or_fails_or_is_not_there_is_a_warning() {
    let host = TestHost::empty();
    host.configure("sendmail: root\n\ttimeout 1\n\tretries 0\n");
    for (body, part) in [
        ("sleep 60", "sendmail did not accept the mail in time"),
        (
            "echo 'postdrop: warning: mail_queue_enter: create file maildrop: No space left' >&2; exit 75",
            "exit 75: postdrop",
        ),
    ] {
        let all = said(&host.run_with(&["notify", "test"], mail_system(&host, body)).exits(Exit::Failed));
        assert!(all.contains(part), "{all}");
    }
    let all = said(&host.run(&["backup"]).exits(Exit::Problems));
    assert!(all.contains("sendmail is not installed"), "{all}");
}

#[test]
fn a_channel_that_is_not_complete_is_an_error_to_check_and_a_warning_to_a_run() {
    let (host, server) = with_gotify("ok", "gotify: half\n\turl https://example.org\n");
    let all = said(&host.run(&["config", "check"]).exits(Exit::Usage));
    assert!(all.contains("pbx-config.cfg:3: gotify 'half': 'token' is missing"), "{all}");
    let (alone, _) = with_gotify("ok", "");
    alone.configure("gotify: half\n\turl https://example.org\n");
    alone.write("etc/proxmox-backup-extra/secrets.cfg", "");
    let listed = said(&alone.run(&["notify", "list"]).exits(Exit::Problems));
    assert!(listed.contains("no notification is sent: no channel can be used\n"), "{listed}");
    let all = said(&host.run(&["backup"]).exits(Exit::Problems));
    assert!(
        all.contains("warning: gotify 'half' was not notified: ") && all.contains("'token' is missing"),
        "{all}"
    );
    assert_eq!(server.got().len(), 1);
}

#[test]
fn a_secret_in_the_file_that_others_read_is_refused() {
    let host = TestHost::empty();
    host.configure(&format!("gotify: phone\n\turl https://example.org\n\ttoken {SECRET}\n"));
    let all = said(&host.run(&["config", "check"]).exits(Exit::Usage));
    assert!(all.contains(".cfg:3: gotify 'phone': a secret ('token') must not be in a file"), "{all}");
    assert!(all.contains("hint: create a new one, and put it under 'gotify: phone' in secrets.cfg"), "{all}");
}

#[test]
fn names_are_asked_for_and_listed() {
    let (host, server) = with_gotify("ok", "\twhen warning\n");
    let done = host.run(&["notify", "list"]).ok();
    let url = format!("http://127.0.0.1:{}", server.port);
    assert_eq!(said(&done), format!("CHANNEL  KIND    WHEN     WHERE\nphone    gotify  warning  {url}\n"));
    let all = said(&host.run(&["notify", "test", "fone"]).exits(Exit::NotFound));
    assert!(
        all.contains("channel 'fone' does not exist") && all.contains("the channels are: phone"),
        "{all}"
    );
    assert!(server.got().is_empty());
    let host = TestHost::empty();
    assert_eq!(host.run(&["notify", "list"]).ok().out, "no notification is sent: no channel is configured\n");
    host.run(&["notify", "test"]).exits(Exit::NotFound);
}

#[test]
fn a_verification_that_finds_damage_is_told() {
    let (host, server) = with_gotify("ok", "\twhen failure\n");
    host.run(&["backup"]).ok();
    host.run(&["verify", "--all", "--notify"]).ok();
    assert!(server.got().is_empty());
    let path = host.snapshot_file();
    let mut data = fs::read(&path).unwrap();
    let payload = data.windows(4).position(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    data[payload + 200] ^= 1;
    fs::write(&path, data).unwrap();
    said(&host.run(&["verify", "--all", "--notify"]).exits(Exit::Verification));
    let body = server.only()["body"].as_str().unwrap().to_owned();
    assert!(
        body.contains("tiny: verification of configuration backups FAILED") && body.contains("pbx.tar"),
        "{body}"
    );
}

fn relay(port: u16, path: &str) -> (String, String) {
    (
        format!("relay: mail\n\turl http://127.0.0.1:{port}/{path}\n\tto a@example.org\n\tretries 1\n"),
        format!("relay: mail\n\ttoken {SECRET}-t\n\thmac-key {SECRET}-k\n"),
    )
}

#[test]
fn a_relay_gets_signed_json() {
    let host = TestHost::empty();
    let server = Server::http(&host);
    let (public, secret) = relay(server.port, "ok");
    configure(&host, &public, &secret);
    said(&host.run(&["backup"]).ok());
    let got = server.only();
    let text = got["body"].as_str().unwrap();
    assert_eq!(got["headers"]["authorization"], format!("Bearer {SECRET}-t"));
    // The signature is what openssl says it is.
    let script = format!("printf %s \"$BODY\" | openssl dgst -sha256 -hmac {SECRET}-k -r");
    common::require(&["openssl"]);
    let digest = Command::new("sh").args(["-c", &script]).env("BODY", text).output().unwrap().stdout;
    let digest = String::from_utf8(digest).unwrap();
    assert_eq!(got["headers"]["x-signature"].as_str(), digest.split(' ').next());
    let body: Value = serde_json::from_str(text).unwrap();
    assert_eq!(body["to"], serde_json::json!(["a@example.org"]));
    assert_eq!(body["subject"], "tiny: configuration backup ok");
    assert_eq!(body["t"], 1_795_360_660);
    let report = &body["report"];
    assert_eq!((report["verb"].as_str(), report["outcome"].as_str()), (Some("backup"), Some("ok")));
    assert_eq!(report["snapshot"], "tiny/2026-11-22T15:17:40Z");
    assert_eq!(report["stores"][0]["store"], "local");
    assert!(!text.contains(SECRET) && !text.contains('<'), "{text}");
}

#[test]
fn a_relay_that_has_enough_of_us_is_asked_once_and_mail_goes_another_way() {
    for (path, asked) in [("429", 1), ("500", 2), ("403", 1)] {
        let host = TestHost::empty();
        let server = Server::http(&host);
        let (public, secret) = relay(server.port, path);
        configure(&host, &public, &secret);
        let done = host.run_with(&["backup"], mail_system(&host, "")).ok();
        let all = said(&done);
        assert!(
            all.contains(&format!("notice: relay 'mail': http://127.0.0.1:{}: status {path}", server.port)),
            "{all}"
        );
        assert_eq!(server.got().len(), asked, "{path}");
        assert_eq!(fs::read_to_string(host.beside("words")).unwrap(), "-i -f root@tiny -- a@example.org\n");
        configure(&host, &format!("{public}\tfallback no\n"), &secret);
        let all = said(&host.run_with(&["notify", "test"], mail_system(&host, "")).exits(Exit::Failed));
        assert!(all.contains("FAILED  relay 'mail': "), "{all}");
    }
}

#[test]
fn every_service_gets_what_it_wants() {
    let (url, secret) = ("\turl http://127.0.0.1:PORT/ok\n", "\tsecret SECRET\n");
    let server = "\turl http://127.0.0.1:PORT\n";
    for (name, public, private) in [
        ("gotify", format!("gotify: x\n{url}\tpriority-ok 1\n"), "gotify: x\n\ttoken SECRET\n".to_owned()),
        ("ntfy-token", format!("ntfy: x\n{server}\ttopic backups\n"), "ntfy: x\n\ttoken SECRET\n".to_owned()),
        (
            "ntfy-login",
            format!("ntfy: x\n{server}\tusername bob\n"),
            "ntfy: x\n\ttopic backups\n\tpassword SECRET\n".to_owned(),
        ),
        (
            "telegram",
            format!("telegram: x\n{url}\tchat -100123\n\tthread 7\n"),
            "telegram: x\n\ttoken 123456:SECRET\n".to_owned(),
        ),
        (
            "telegram-gateway",
            "telegram: x\n\tgateway http://127.0.0.1:PORT/ok\n\tserver-id 42\n".to_owned(),
            format!("telegram: x\n{secret}"),
        ),
        ("discord", "webhook: x\n\tformat discord\n".to_owned(), format!("webhook: x\n{url}")),
        ("slack", "webhook: x\n\tformat slack\n".to_owned(), format!("webhook: x\n{url}")),
        ("teams", "webhook: x\n\tformat teams\n".to_owned(), format!("webhook: x\n{url}")),
        (
            "pushover",
            format!("webhook: x\n\tformat pushover\n{url}"),
            "webhook: x\n\ttoken SECRET\n\tuser u-SECRET\n".to_owned(),
        ),
        ("generic", format!("webhook: x\n{url}"), String::new()),
        (
            "generic-bearer",
            format!("webhook: x\n{url}\tmethod put\n\tauth bearer\n\theader X-A: one\n"),
            format!("webhook: x\n{secret}\tsecret-header X-B: SECRET-b\n"),
        ),
        (
            "generic-basic-form",
            format!(
                "webhook: x\n{url}\tauth basic\n\tusername bob\n\tcontent-type application/x-www-form-urlencoded\n\
                 \tbody title={{{{ subject }}}}&host={{{{ host }}}}\n"
            ),
            format!("webhook: x\n{secret}"),
        ),
        (
            "generic-hmac-template",
            format!(
                "webhook: x\n{url}\tauth hmac\n\tbody {{\"outcome\": \"{{{{ outcome }}}}\", \"at\": {{{{ timestamp }}}},\n\
                 \tbody  \"text\": {{{{ json text }}}}, \"key\": \"{{{{ secret }}}}\"}}\n"
            ),
            format!("webhook: x\n{secret}"),
        ),
        (
            "generic-get",
            "webhook: x\n\tmethod get\n\turl http://127.0.0.1:PORT/ok?host={{ host }}&what={{ subject }}\n"
                .to_owned(),
            String::new(),
        ),
    ] {
        let host = TestHost::empty();
        let server = Server::http(&host);
        let fill = |text: &str| text.replace("PORT", &server.port.to_string()).replace("SECRET", SECRET);
        configure(&host, &fill(&public), &fill(&private));
        said(&host.run(&["config", "check"]).ok());
        said(&host.run(&["notify", "list", "--json"]).ok());
        said(&host.run(&["notify", "test"]).ok());
        expect_requests(name, &server);
    }
}

#[test]
fn a_server_that_repeats_a_secret_does_not_print_it() {
    for (public, private) in [
        ("gotify: x\n\turl URL\n", "gotify: x\n\ttoken SECRET\n"),
        (
            "ntfy: x\n\turl http://127.0.0.1:PORT\n\tusername bob\n",
            "ntfy: x\n\ttopic echo-403-SECRET\n\tpassword SECRET\n",
        ),
        ("telegram: x\n\turl URL\n\tchat 1\n", "telegram: x\n\ttoken 1:SECRET\n"),
        ("webhook: x\n\tformat discord\n", "webhook: x\n\turl URL/SECRET\n"),
        ("webhook: x\n\tformat pushover\n\turl URL\n", "webhook: x\n\ttoken SECRET\n\tuser SECRET\n"),
        ("webhook: x\n\turl URL\n\tauth basic\n\tusername b\n", "webhook: x\n\tsecret SECRET\n"),
        ("webhook: x\n\turl URL\n", "webhook: x\n\tsecret-header X-B: SECRET\n"),
        ("healthchecks: x\n", "healthchecks: x\n\turl URL/SECRET\n"),
        ("healthchecks: x\n", "healthchecks: x\n\turl URL/SECRET/slug?create=1\n"),
    ] {
        let host = TestHost::empty();
        let server = Server::http(&host);
        let url = format!("http://127.0.0.1:{}/echo-403", server.port);
        let port = server.port.to_string();
        let fill = |text: &str| text.replace("URL", &url).replace("PORT", &port).replace("SECRET", SECRET);
        configure(&host, &fill(public), &fill(private));
        for args in [
            &["-vv", "notify", "test"][..],
            &["-vv", "--json", "backup"],
            &["config", "show"],
            &["log", "latest"],
        ] {
            said(&host.run(args));
        }
        assert!(!server.got().is_empty(), "{public}");
        let reports = host.root.join("var/lib/proxmox-backup-extra/reports");
        for file in fs::read_dir(reports).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(text.contains("status 403") && !text.contains(SECRET), "{text}");
            // Nor what a user and a password make together.
            assert!(!text.contains(&base64(&format!("b:{SECRET}"))), "{text}");
            assert!(!text.contains(&base64(&format!("bob:{SECRET}"))), "{text}");
        }
    }
}

#[test]
fn mistakes_in_a_channel_are_told_with_line_and_remedy() {
    for (text, line, message, hint) in [
        (
            "webhook: x\n\turl https://e.org\n\tbody {\n\tbody \"h\": \"{{ hots }}\"}\n",
            4,
            "body: unknown variable 'hots'",
            "did you mean 'host'?",
        ),
        ("webhook: x\n\turl https://e.org\n\tbody {{ host\n", 3, "body: a {{ has no }}", ""),
        (
            "webhook: x\n\turl https://e.org\n\tbody {{ secret }}\n",
            3,
            "body: 'secret' is missing in secrets.cfg",
            "",
        ),
        ("webhook: x\n\turl https://{{ host }}/x\n", 2, "url: the server's name cannot be a template", ""),
        ("webhook: x\n\turl ftp://e.org\n", 2, "url: not the address of a server", "for example https://"),
        (
            "webhook: x\n\turl http://e.org\n",
            2,
            "url: without TLS others on the network can read it",
            "allow-http yes",
        ),
        ("webhook: x\n\turl https://bob:pw@e.org\n", 2, "url: an address must not contain a user", ""),
        (
            "webhook: x\n\tformat slack\n\turl https://hooks.slack.com/T0/B0\n",
            3,
            "a secret ('url') must not be in a file",
            "secrets.cfg",
        ),
        ("webhook: x\n\tformat slak\n", 2, "'slak' is not one of: discord", "did you mean 'slack'?"),
        ("webhook: x\n", 1, "'url' is missing", ""),
        ("webhook: x\n\turl https://e.org\n\tauth bearer\n", 3, "its 'secret' is missing", "secrets.cfg"),
        (
            "webhook: x\n\turl https://e.org\n\tusername b\n",
            1,
            "'username' and 'auth basic' must be used together",
            "",
        ),
        ("webhook: x\n\turl https://e.org\n\tmethod get\n\tbody x\n", 3, "a GET has no body", ""),
        ("webhook: x\n\turl https://e.org\n\theader Host: e.org\n", 3, "Host cannot be set", ""),
        ("webhook: x\n\turl https://e.org\n\theader X\n", 3, "not a header", "for example Name: value"),
        (
            "webhook: x\n\turl https://e.org\n\theader Authorization: Bearer pl4nted-5ecret\n",
            3,
            "a secret (header Authorization) must not be in a file",
            "as `secret-header Authorization: VALUE`",
        ),
        (
            "telegram: x\n\turl https://bot.e.org/bot1:2\n",
            2,
            "url: must be the address of the server",
            "for example https://bot.e.org",
        ),
        ("sendmail: x\n\tto root\n", 2, "to: this is not a mail address", "without this line it is root"),
        ("check: main\n\tprocess-allow *\n", 2, "process-allow: '*' matches every program", ""),
        ("check: main\n\tprocess-suspicious a*b\n", 2, "process-suspicious: 'a*b' has a *", ""),
        ("telegram: x\n", 1, "'token' is missing", "secrets.cfg"),
        ("telegram: x\n\tgateway https://e.org\n\tchat 5\n", 3, "the gateway sets this itself", "delete"),
        ("telegram: x\n\tserver-id 5\n", 2, "this is only valid with 'gateway'", "delete"),
        (
            "ntfy: x\n\ttopic a\n\turl https://e.org/a\n",
            3,
            "url: must be the server only",
            "for example https://e.org; the topic",
        ),
        (
            "smtp: x\n\tserver e.org:25\n\tfrom a@b\n\tto a@b\n",
            2,
            "server: must be a name or an address only",
            "port N",
        ),
        ("sendmail: x\n\tto a@e.org, b@e.org\n", 2, "to: this is not a mail address", "one per line"),
        ("ntfy: x\n\ttopic a b\n", 2, "topic: letters, digits, _ and -", ""),
        ("ntfy: x\n\ttopic a\n\tusername b\n", 3, "use a token, or a username with its password", ""),
        ("healthchecks: x\n", 1, "'url' is missing", ""),
        ("relay: x\n\turl https://e.org\n", 1, "is missing", ""),
        ("gotify: x\n\turl https://e.org\n\tca-file x\n", 3, "ca-file: must be absolute", ""),
    ] {
        let host = TestHost::empty();
        host.configure(text);
        let all = said(&host.run(&["config", "check"]).exits(Exit::Usage));
        assert!(all.contains(&format!("pbx-config.cfg:{line}: ")), "{text}: {all}");
        assert!(all.contains(message) && all.contains(hint), "{text}: {all}");
    }
    for (url, good) in [
        ("https://e.org/gotify/message", false),
        ("https://e.org/?token=x", false),
        ("https://message.e.org/gotify/", true),
    ] {
        let host = TestHost::empty();
        configure(&host, &format!("gotify: x\n\turl {url}\n"), &gotify_secret().replace("phone", "x"));
        let done = host.run(&["config", "check"]);
        assert_eq!(done.exit == Exit::Ok, good, "{}", done.err);
        assert!(good || said(&done).contains("hint: for example https://e.org\n"), "{}", done.err);
    }
}

#[test]
fn a_monitor_hears_of_the_beginning_and_of_the_end() {
    let host = TestHost::empty();
    let server = Server::http(&host);
    let secret = format!("healthchecks: x\n\turl http://127.0.0.1:{}/ok/{SECRET}\n", server.port);
    let asked = |public: &str, args: &[&str]| {
        let _ = fs::remove_file(&server.log);
        configure(&host, public, &secret);
        said(&host.run(args));
        let line = |got: &Value| {
            let path = got["path"].as_str().unwrap();
            let (path, run) = path.split_once("?rid=").unwrap();
            assert_eq!(run.len(), 36, "{run}");
            (
                format!("{} {path}", got["method"].as_str().unwrap()),
                run.to_owned(),
                got["body"].as_str().unwrap().to_owned(),
            )
        };
        let got: Vec<_> = server.got().iter().map(line).collect();
        assert!(got.iter().all(|one| one.1 == got[0].1), "{got:?}");
        got
    };
    let (start, end) = (format!("GET /ok/{SECRET}/start"), format!("POST /ok/{SECRET}"));
    let got = asked("healthchecks: x\n", &["backup"]);
    assert_eq!((&got[0].0, &got[1].0, got.len()), (&start, &end, 2));
    // Its body is the text of the run and the tail of its log.
    assert!(
        got[1].2.starts_with("tiny: configuration backup ok\n")
            && got[1].2.contains("\nstep 3/4 reading it back\n"),
        "{}",
        got[1].2
    );
    let broken = "dir: local\n\tpath /gone\n\tmountpoint yes\n";
    let got = asked(&format!("healthchecks: x\n{broken}"), &["backup"]);
    assert_eq!((&got[0].0, &got[1].0), (&start, &format!("{end}/fail")));
    assert!(got[1].2.contains("nothing is mounted"));
    // A warning is a failure where the admin wants it so.
    let half = "gotify: half\n\turl https://e.org\n";
    for (more, path) in [("", ""), ("\tfail-on warning\n", "/fail")] {
        let got = asked(&format!("healthchecks: x\n{more}{half}"), &["backup"]);
        assert_eq!(got[1].0, format!("{end}{path}"));
    }
    let got = asked("healthchecks: x\n", &["notify", "test"]);
    assert_eq!((&got[0].0, got.len()), (&format!("{end}/log"), 1));
}

#[test]
fn a_monitor_that_does_not_answer_does_not_hold_up_a_run() {
    let host = TestHost::empty();
    let server = Server::http(&host);
    let secret = format!("healthchecks: x\n\turl http://127.0.0.1:{}/silent\n", server.port);
    configure(&host, "healthchecks: x\n\ttimeout 1\n\tretries 0\n", &secret);
    let all = said(&host.run(&["backup"]).exits(Exit::Problems));
    assert!(all.contains("healthchecks 'x' was not notified: http://127.0.0.1:"), "{all}");
    host.snapshot_file();
}

fn base64(text: &str) -> String {
    let made = Command::new("sh")
        .args(["-c", "printf %s \"$TEXT\" | base64 -w0"])
        .env("TEXT", text)
        .output()
        .unwrap();
    String::from_utf8(made.stdout).unwrap()
}

/// A PBS host whose own notification configuration is this; PORT is the web server's.
fn with_targets(public: &str, private: &str) -> (TestHost, Server) {
    let host = TestHost::golden("pbs");
    let server = Server::http(&host);
    let fill = |text: &str| text.replace("PORT", &server.port.to_string());
    host.write("etc/proxmox-backup/notifications.cfg", fill(public));
    host.write("etc/proxmox-backup/notifications-priv.cfg", fill(private));
    host.configure("proxmox: system\n");
    (host, server)
}

#[test]
fn the_hosts_own_targets_are_told_as_their_matchers_say() {
    let webhook = format!(
        "webhook: chat\n\turl http://127.0.0.1:PORT/ok/{{{{ secrets.key }}}}\n\tmethod put\n\theader name=X-A,value={}\n\tbody {}\n\tsecret name=key\n",
        base64("{{ severity }}"),
        base64(
            r#"{"t":"{{ escape title }}","h":{{ json fields.hostname }},"type":"{{ fields.type }}","at":{{ timestamp }}}"#
        ),
    );
    let public = format!(
        "gotify: phone\n\tserver http://127.0.0.1:PORT/ok\n\n{webhook}\n\
         gotify: never\n\tserver http://127.0.0.1:PORT/500\n\n\
         matcher: default-matcher\n\tdisable true\n\n\
         matcher: ours\n\tmatch-field exact:type=pbx-config\n\tmatch-severity info\n\ttarget phone\n\ttarget chat\n\n\
         matcher: again\n\tmatch-field regex:hostname=^pbs\n\ttarget phone\n\n\
         matcher: bad-news\n\tmatch-severity error\n\ttarget never\n"
    );
    let private = format!(
        "gotify: phone\n\ttoken {SECRET}\n\ngotify: never\n\ttoken x\n\nwebhook: chat\n\tsecret name=key,value={}\n",
        base64(SECRET)
    );
    let (host, server) = with_targets(&public, &private);
    said(&host.run(&["notify", "test"]).ok());
    let mut got = server.got();
    got.sort_by_key(|one| one["path"].to_string());
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(got[0]["path"], "/ok/message");
    assert_eq!(got[0]["headers"]["x-gotify-key"], SECRET);
    assert!(got[0]["body"].as_str().unwrap().contains("\"priority\":1"));
    assert_eq!(
        (got[1]["method"].as_str(), got[1]["path"].as_str()),
        (Some("PUT"), Some(format!("/ok/{SECRET}").as_str()))
    );
    assert_eq!(got[1]["headers"]["x-a"], "info");
    assert_eq!(
        got[1]["body"],
        r#"{"t":"pbs1: this is a test of pbx-config","h":"pbs1","type":"pbx-config","at":1795360660}"#
    );
}

#[test]
fn a_target_that_cannot_be_told_does_not_keep_the_others() {
    let public = "gotify: good\n\tserver http://127.0.0.1:PORT/ok\n\ngotify: half\n\tserver http://127.0.0.1:PORT/ok\n\n\
                  webhook: odd\n\turl http://127.0.0.1:PORT/ok\n\tmethod post\n\tbody e3sjaWYgeH19\n\n\
                  matcher: default-matcher\n\ttarget good\n\ttarget half\n\ttarget odd\n\ttarget gone\n\n\
                  matcher: broken\n\tmatch-calendar mon-fri 8-17\n\ttarget good\n";
    let (host, server) = with_targets(public, "gotify: good\n\ttoken x\n");
    let all = said(&host.run(&["notify", "test"]).exits(Exit::Failed));
    for part in [
        "target 'half': 'token' is missing in its private part",
        "target 'odd': body: only {{ name }}",
        "target 'gone' does not exist",
        "matcher 'broken': match-calendar: not [WEEKDAYS] START-END",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(server.got().len(), 1);
}

#[test]
fn a_test_that_no_matcher_passes_on_is_no_success_and_a_run_is() {
    let public = "gotify: phone\n\tserver http://127.0.0.1:PORT/ok\n\nmatcher: default-matcher\n\tmatch-severity error\n\ttarget phone\n";
    let (host, server) = with_targets(public, "gotify: phone\n\ttoken x\n");
    let all = said(&host.run(&["notify", "test"]).exits(Exit::Failed));
    assert!(all.contains("FAILED  proxmox 'system': no matcher of this host sends"), "{all}");
    said(&host.run(&["backup"]).ok());
    assert!(server.got().is_empty());
}

#[test]
fn a_mail_of_a_target_is_from_whom_the_product_says_and_goes_to_those_who_have_an_address() {
    let public = "sendmail: mail\n\tmailto ops@example.org\n\tmailto-user root@pam\n\tmailto-user nobody@pbs\n\n\
                  sendmail: alone\n\tmailto-user nobody@pbs\n\n\
                  matcher: default-matcher\n\ttarget mail\n\ttarget alone\n";
    let (host, _server) = with_targets(public, "");
    let done = host.run_with(&["notify", "test"], mail_system(&host, ""));
    let all = said(&done.exits(Exit::Failed));
    assert!(all.contains("target 'alone': user nobody@pbs has no mail address"), "{all}");
    let words = fs::read_to_string(host.beside("words")).unwrap();
    assert_eq!(words, "-i -f pbs1@example.org -- admin@example.org ops@example.org\n");
}

#[test]
fn a_configuration_that_cannot_be_read_does_not_keep_the_message_from_root() {
    let (host, _server) = with_targets("gotify broken\n", "");
    let done = host.run_with(&["notify", "test"], mail_system(&host, ""));
    let all = said(&done.exits(Exit::Failed));
    assert!(all.contains("notifications.cfg:1: ") && all.contains("root was notified instead"), "{all}");
    assert!(fs::read_to_string(host.beside("words")).unwrap().ends_with(" -- admin@example.org\n"));
}

#[test]
fn what_is_built_in_tells_roots_address() {
    let host = TestHost::golden("pve-single");
    host.configure("proxmox: system\n");
    said(&host.run_with(&["notify", "test"], mail_system(&host, "")).ok());
    assert!(fs::read_to_string(host.beside("words")).unwrap().ends_with(" -- admin@example.org\n"));
}

/// The host's Perl, with a `PVE::Notify` that writes down what it is asked.
struct Perl {
    lib: PathBuf,
}

impl Exec for Perl {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        if cmd.argv[0] != "perl" {
            return Ok(None);
        }
        assert_eq!((cmd.argv[1].as_str(), cmd.argv.len()), ("-e", 3));
        let env = vec![("PERL5LIB".to_owned(), self.lib.display().to_string())];
        exec::run_at(Path::new("/usr/bin/perl"), &cmd.argv[1..], &Cmd { env, ..cmd.clone() }).map(Some)
    }
}

fn perl(host: &TestHost, body: &str) -> Box<dyn Exec> {
    let (lib, asked) = (host.beside("perl"), host.beside("asked.json"));
    fs::create_dir_all(lib.join("PVE")).unwrap();
    let module = format!(
        "package PVE::Notify; use JSON::PP; sub common_template_data {{ return {{ 'cluster-name' => 'prod' }} }}\n\
         sub notify {{ {body}; open(my $f, '>', '{}'); print $f encode_json([@_]); close($f); }}\n1;\n",
        asked.display()
    );
    fs::write(lib.join("PVE/Notify.pm"), module).unwrap();
    Box::new(Perl { lib })
}

#[test]
fn the_hosts_own_notification_system_is_handed_the_message() {
    let host = TestHost::golden("pve-single");
    host.configure("proxmox: system\n\tvia system\n\tretries 0\n");
    said(&host.run_with(&["notify", "test"], perl(&host, "1")).ok());
    let asked: Value = serde_json::from_str(&fs::read_to_string(host.beside("asked.json")).unwrap()).unwrap();
    assert_eq!((asked[0].as_str(), asked[1].as_str()), (Some("info"), Some("pbx-config")));
    assert_eq!(asked[2]["subject"], "pve1: this is a test of pbx-config");
    assert_eq!(asked[2]["cluster-name"], "prod");
    assert!(asked[2]["html"].as_str().unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(asked[3], serde_json::json!({ "type": "pbx-config", "hostname": "pve1" }));
    let all =
        said(&host.run_with(&["notify", "test"], perl(&host, "die qq(no quorum\\n)")).exits(Exit::Failed));
    assert!(all.contains("PVE::Notify: exit 255: no quorum") || all.contains("PVE::Notify: exit 2"), "{all}");
}

#[test]
fn the_spool_of_a_backup_server_gets_an_entry_that_it_can_read() {
    let host = TestHost::golden("pbs");
    host.configure("proxmox: system\n\tvia system\n");
    let spool = host.root.join("var/lib/proxmox-backup/notifications");
    let names = || -> Vec<String> {
        fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = names();
    said(&host.run(&["notify", "test"]).ok());
    let new: Vec<String> = names().into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new.len(), 1);
    let id = new[0].strip_suffix(".json").unwrap();
    let entry: Value = serde_json::from_str(&fs::read_to_string(spool.join(&new[0])).unwrap()).unwrap();
    assert_eq!((entry["id"].as_str(), id.len()), (Some(id), 36));
    assert_eq!(entry["content"]["template"]["template-name"], "pbx-config");
    assert_eq!(entry["content"]["template"]["data"]["subject"], "pbs1: this is a test of pbx-config");
    assert_eq!(entry["metadata"]["severity"], "info");
    assert_eq!(entry["metadata"]["timestamp"], 1_795_360_660);
    assert_eq!(entry["metadata"]["additional-fields"]["type"], "pbx-config");
    for name in ["subject.txt", "body.txt", "body.html"] {
        let path = format!("debian/share/templates/pbx-config-{name}.hbs");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).is_file(), "{path}");
    }
}

/// In every secret of the golden hosts.
const PLANTED: &str = "S3CRET";

/// Everything below our state folder, and of snapshots what lies before the payload.
fn written(host: &TestHost) -> Vec<(PathBuf, Vec<u8>)> {
    let mut folders = vec![host.root.join("var/lib/proxmox-backup-extra"), host.root.join("run")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".pbx.tar") {
                let head =
                    common::tool("tar").arg("-xOf").arg(&path).args(["MANIFEST.json", "HOWTO.txt"]).output();
                files.push((path, head.unwrap().stdout));
            } else if path.is_file() {
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    files
}

#[test]
fn no_secret_of_a_host_is_told_anywhere() {
    for name in ["pve-single", "pbs", "both", "bare"] {
        let host = TestHost::golden(name);
        let server = Server::http(&host);
        let url = format!("http://127.0.0.1:{}", server.port);
        configure(
            &host,
            &format!(
                "webhook: all\n\turl {url}/ok\n\tauth bearer\nhealthchecks: log\nwebhook: bad\n\turl {url}/echo-400\n\tauth basic\n\
                 \tusername bob\nrelay: mail\n\turl {url}/429\n\tto a@example.org\nproxmox: own\n\tvia system\n"
            ),
            &format!(
                "webhook: all\n\tsecret {PLANTED}-a\nwebhook: bad\n\tsecret {PLANTED}-b\nhealthchecks: log\n\turl {url}/echo-400/{PLANTED}-c\n\
                 relay: mail\n\ttoken {PLANTED}-d\n\thmac-key {PLANTED}-e\n"
            ),
        );
        let mut said = Vec::new();
        for args in [
            &["-vv", "backup"][..],
            &["--json", "backup"],
            &["backup", "--dry-run"],
            &["backup", "--only", "nothing"],
            &["list", "--json"],
            &["show", "latest", "--json"],
            &["verify", "--all"],
            &["config", "show"],
            &["config", "check"],
            &["notify", "list"],
            &["notify", "test"],
            &["log", "latest"],
            &["catalog", "--json"],
        ] {
            let done = host.run(args);
            said.push((args.join(" "), format!("{}{}", done.out, done.err).into_bytes()));
        }
        // They are in the payload, so that this test can find them.
        assert!(host.run(&["cat", "latest", "etc/shadow"]).ok().out.contains(PLANTED));
        // What goes to the log is seen from outside only.
        let outside = Command::new(common::program())
            .arg("--root")
            .arg(&host.root)
            .args(["-vv", "backup"])
            .output()
            .unwrap();
        said.push(("the program".to_owned(), [outside.stdout, outside.stderr].concat()));
        let got = server.got();
        assert!(got.len() > 8, "{got:?}");
        said.extend(
            got.iter().map(|one| ("sent".to_owned(), one["body"].as_str().unwrap().as_bytes().to_vec())),
        );
        said.extend(written(&host).into_iter().map(|(path, data)| (path.display().to_string(), data)));
        for (what, data) in said {
            let text = String::from_utf8_lossy(&data);
            let place = text.find(PLANTED).map(|at| text[..at].chars().rev().take(80).collect::<String>());
            assert!(place.is_none(), "{name}: {what}: …{}", place.unwrap().chars().rev().collect::<String>());
        }
    }
}

#[test]
fn a_system_that_is_only_mounted_tells_nobody_and_says_so() {
    let host = TestHost::empty();
    host.configure("sendmail: mail\n\tto root@example.org\n");
    let mut real = std::process::Command::new(common::program());
    let done = real.arg("--root").arg(&host.root).args(["notify", "list"]).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.contains("its own runs notify 1 channels"), "{said}");
}
