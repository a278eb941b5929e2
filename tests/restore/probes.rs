//! Probes: what counts as reached, with real servers, and what becomes of an armed restore by it.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use pbx_config::sys::host::Host;
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput, ToolStatus};
use pbx_config::task::restore::probe;

use super::armed::{RESTORE, armed_file, network, run, start, text, wait_for};
use super::common::TestHost;
use super::common::server::{Keys, Server};
use super::{picture, saved};

/// A hang is not seconds.
const AGES: Duration = Duration::from_secs(30);

/// Answers a ping of one host; anything else it is asked is a failure.
struct Ping(&'static str);

impl Exec for Ping {
    fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>> {
        let words: Vec<&str> = cmd.argv.iter().map(String::as_str).collect();
        let ["ping", "-c", "1", "-W", "2", target] = words[..] else { panic!("{words:?}") };
        let status = ToolStatus::Exit(i32::from(target != self.0));
        Ok(Some(ProcessOutput { status, ..ProcessOutput::default() }))
    }
}

fn ask(host: &TestHost, probes: &[&str]) -> Result<(), String> {
    let exec = Box::new(Ping("10.0.0.1"));
    let host = Host::detect(host.root.clone(), Timestamp::UNIX_EPOCH, exec);
    let probes: Vec<_> = probes.iter().map(|text| text.parse().unwrap()).collect();
    probe::ask(&host, &probes)
}

fn https(host: &TestHost) -> Server {
    Server::https(host, &Keys::make(host, "web"))
}

fn at(server: &Server, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", server.port)
}

#[test]
fn a_server_that_answers_is_reached_whoever_it_is() {
    let host = TestHost::empty();
    let server = https(&host);
    // By an address and by a name that are not in its certificate, which nobody signed that is trusted here.
    for path in ["", "/", "/ok/health?deep=1", "/401", "/404", "/elsewhere", "/endless"] {
        assert_eq!(ask(&host, &[&at(&server, path)]), Ok(()), "{path}");
    }
    assert_eq!(ask(&host, &[&format!("https://localhost:{}", server.port)]), Ok(()));
    let asked: Vec<_> = server.got();
    assert_eq!((&asked[2]["method"], &asked[2]["path"]), (&"GET".into(), &"/ok/health?deep=1".into()));
    // A redirect is an answer, and nobody follows it.
    assert!(!asked.iter().any(|request| request["path"] == "/ok/elsewhere"), "{asked:?}");
    for request in &asked {
        for header in ["authorization", "cookie"] {
            assert!(request["headers"].get(header).is_none(), "{request}");
        }
    }
}

#[test]
fn what_does_not_answer_well_is_told_and_all_of_them_take_no_longer_than_one() {
    let host = TestHost::empty();
    let (server, plain) = (https(&host), Server::http(&host));
    // Takes connections, and never says a word: no handshake comes to its end.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("https://127.0.0.1:{}", mute.local_addr().unwrap().port());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let probes = [
        (at(&server, "/503?token=s3cret"), "answers with status 503"),
        (at(&server, "/junk"), ""),
        (at(&server, "/silent"), "no answer in time"),
        (mute, "no answer in time"),
        (format!("https://127.0.0.1:{}", plain.port), "TLS"),
        (format!("https://127.0.0.1:{closed}"), "refused"),
        ("https://no-such-host.invalid".to_owned(), ""),
        ("ping:10.0.0.9".to_owned(), "no answer (exit 1)"),
    ];
    let words: Vec<&str> = probes.iter().map(|(probe, _)| probe.as_str()).collect();
    let since = Instant::now();
    let told = ask(&host, &words).unwrap_err();
    assert!(since.elapsed() < AGES);
    assert!(!told.contains("s3cret"), "{told}");
    let told: Vec<&str> = told.split("; ").collect();
    assert_eq!(told.len(), probes.len(), "{told:?}");
    for ((probe, why), told) in probes.iter().zip(told) {
        let name = probe.split('?').next().unwrap();
        assert!(told.starts_with(name) && told.contains(why), "{probe}: {told}");
    }
    // One that is not good is enough, and only that one is told.
    let told = ask(&host, &["ping:10.0.0.1", &at(&server, "/500")]).unwrap_err();
    assert!(told.ends_with("/500: answers with status 500") && !told.contains("ping"), "{told}");
    assert_eq!(ask(&host, &["ping:10.0.0.1"]), Ok(()));
    assert_eq!(ask(&host, &["quorum"]), Err("quorum: /etc/pve is not there, or does not answer".to_owned()));
}

#[test]
fn probes_that_are_good_three_times_in_a_row_confirm_by_themselves() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let server = https(&host);
    // Asked once beforehand: good. Then not good once, and good three times.
    let probe = at(&server, "/503-second/x");
    let args = [&RESTORE[..], &["--confirm-within", "60s", "--probe", &probe]].concat();
    let restore = start(&host, &["env"]).args(args).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
    // While it waits no other restore begins.
    host.write("etc/hosts", "x\n");
    let second = run(&host, &["env"], &["restore", "latest", "--yes", "--only", "hosts"]);
    assert_eq!(second.status.code(), Some(11), "{}", text(&second));
    let done = restore.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert!(text(&done).contains("confirmed  it is kept"), "{}", text(&done));
    assert!(network(&host).len() > 10 && !armed_file(&host).exists());
    assert_eq!(server.got().len(), 5, "{:?}", server.got());
    let log = text(&run(&host, &["env"], &["log", "--restores"]));
    assert!(log.contains("by its probes"), "{log}");
}

#[test]
fn probes_that_will_not_do_what_they_are_meant_for_are_told_beforehand() {
    let host = saved("pbs");
    host.write("etc/hosts", "x\n");
    let args = ["restore", "latest", "--yes", "--only", "hosts", "--probe", "ping:10.0.0.1"];
    let done = run(&host, &["env"], &args);
    assert_eq!(done.status.code(), Some(0));
    assert!(text(&done).contains("it is not armed, and probes are not used"), "{}", text(&done));
    host.write("etc/hosts", "y\n");
    let done = run(&host, &["env"], &[&args[..], &["--json"]].concat());
    let restored: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(restored["problems"][0]["what"].as_str().unwrap().contains("probes are not used"), "{restored}");
}

#[test]
fn probes_that_are_not_good_undo_before_the_time_to_confirm_is_over() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let server = https(&host);
    let (good, bad) = (at(&server, "/ok"), at(&server, "/503?token=s3cret"));
    let args = ["--confirm-within", "16s", "--probe", &good, "--probe", &bad];
    let done = run(&host, &["env"], &[&RESTORE[..], &args].concat());
    let said = text(&done);
    assert_eq!(done.status.code(), Some(5), "{said}");
    assert!(said.contains("this probe also failed before the restore: https://127.0.0.1:"), "{said}");
    assert!(said.contains("rolled back automatically: its probes failed: https://127.0.0.1:"), "{said}");
    assert!(
        said.contains("/503: answers with status 503") && !said.contains("it was not confirmed"),
        "{said}"
    );
    super::tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
    let log = text(&run(&host, &["env"], &["log", "--restores"]));
    assert!(log.contains("its probes failed") && !log.contains("s3cret"), "{log}");
}

#[test]
fn a_probe_that_is_none_is_told_and_nothing_is_begun() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    for probe in ["http://10.0.0.1", "https://bob:s3cret@nas/", "https://nas/a b", "ping:-f", "pong:x"] {
        let done = run(&host, &["env"], &[&RESTORE[..], &["--probe", probe]].concat());
        assert_eq!(done.status.code(), Some(2), "{}", text(&done));
    }
    assert_eq!(network(&host), b"auto lo\n");
}

#[test]
fn probes_that_a_mounted_system_has_in_its_file_ask_nobody() {
    let host = saved("bare");
    host.write("etc/hosts", "127.0.0.1 other\n");
    let done = host.run(&["restore", "latest", "--yes", "--only", "hosts"]).ok();
    let id = done.err.lines().find_map(|line| line.strip_prefix("to undo it: pbx-config undo ")).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let probe = format!("https://127.0.0.1:{}/", server.local_addr().unwrap().port());
    let armed = serde_json::json!({ "id": id, "boot": pbx_config::sys::process::session::boot_id(),
        "deadline": 1e12, "probes": [probe], "session": { "audit": null, "tty": 0, "leader": 0 } });
    host.write("var/lib/proxmox-backup-extra/undo/armed.json", armed.to_string());
    let wait = |more: &[&str]| {
        let args = [&["undo", "--armed", "--wait"], more].concat();
        let code = run(&host, &["timeout", "4"], &args).status.code();
        (code, server.accept().is_ok())
    };
    assert_eq!(wait(&[]), (Some(124), false));
    // Those that were named when it was armed are asked; this one does not answer, and it is undone.
    assert_eq!(wait(&["--probe", &probe]), (Some(0), true));
}
