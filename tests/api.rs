//! The state that comes from the product's own API: asked over real TLS with a token, of a server that answers
//! as the reference records; whatever it does not tell, the tools of the host are asked for.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::TestHost;
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::NoTools;

const PVE_AUDIT: &[&str] =
    &["Sys.Audit", "Datastore.Audit", "VM.Audit", "SDN.Audit", "Pool.Audit", "Mapping.Audit"];
const PVE_TOKEN: &str = "PVEAPIToken=pbx@pve!state=5ec2e7-0f-a11";
const STATUS: &str = ".pbx/state/pve-node.json";

struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
    cert: PathBuf,
}

impl Server {
    fn start(host: &TestHost, authorization: &str, mode: &str, privileges: &[&str]) -> Self {
        let (cert, key, log) = (host.beside("api.pem"), host.beside("api.key"), host.beside("api.log"));
        make_certificate(&cert, &key);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/server.py");
        let mut child = common::tool("python3")
            .arg(script)
            .args([&cert, &key, &log])
            .args([authorization, mode])
            .args(privileges)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap(), log, cert }
    }

    fn fingerprint(&self) -> String {
        let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in", self.cert.to_str().unwrap()];
        let shown = common::tool("openssl").args(args).output().unwrap().stdout;
        String::from_utf8(shown).unwrap().trim().split_once('=').unwrap().1.to_owned()
    }

    fn asked(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_certificate(cert: &Path, key: &Path) {
    let made = common::tool("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pve1"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The token's secret stands in secrets.cfg only.
fn configure(host: &TestHost, product: &str, port: u16, more: &str) {
    host.configure(&format!("api: {product}\n\ttoken pbx@{product}!state\n\tport {port}\n{more}"));
    let secrets = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    host.write("etc/proxmox-backup-extra/secrets.cfg", format!("api: {product}\n\tsecret 5ec2e7-0f-a11\n"));
    fs::set_permissions(secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn configured(mode: &str, privileges: &[&str]) -> (TestHost, Server) {
    let host = TestHost::golden("pve-single");
    let server = Server::start(&host, PVE_TOKEN, mode, privileges);
    let pin = format!("\tfingerprint {}\n", server.fingerprint());
    configure(&host, "pve", server.port, &pin);
    (host, server)
}

fn backup(host: &TestHost, exit: Exit) -> serde_json::Value {
    host.run(&["backup", "--json"]).exits(exit).json()
}

fn status_of_node(host: &TestHost) -> String {
    host.run(&["cat", "latest", STATUS]).ok().out
}

#[test]
fn a_node_with_a_token_is_asked_by_its_api() {
    let (host, server) = configured("well", PVE_AUDIT);
    let report = backup(&host, Exit::Ok);
    assert!(!report["problems"].to_string().contains("api"), "{report}");
    assert_eq!(status_of_node(&host), "{\"asked\":\"/api2/json/nodes/pve1/status\"}\n");
    let asked = server.asked();
    assert!(asked.contains("/api2/json/nodes/pve1/disks/list?skipsmart=1\n"), "{asked}");
    // The rows without an API are still answered by their tools.
    assert!(host.run(&["cat", "latest", ".pbx/state/pveversion.txt"]).ok().out.contains("pve-manager"));
    let outputs = host.run(&["show", "latest", "--json"]).ok().out;
    assert!(outputs.contains("nodes/pve1/status") && !outputs.contains("pvesh"), "{outputs}");
    // A few connections for all requests, not one each.
    let mut ports: Vec<&str> = asked.lines().filter_map(|line| line.split(' ').next()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() * 2 < asked.lines().count() && asked.lines().count() > 10, "{asked}");
}

#[test]
fn the_secret_of_the_token_is_shown_nowhere() {
    let (host, server) = configured("well", &[]);
    drop(server);
    for args in
        [&["config", "show"][..], &["backup"], &["backup", "--dry-run"], &["show", "latest", "--json"]]
    {
        let done = host.run(args);
        assert!(!format!("{}{}", done.out, done.err).contains("5ec2e7"), "{done:?}");
    }
}

#[test]
fn the_certificate_that_the_node_has_on_disk_is_its_pin() {
    let host = TestHost::golden("pbs");
    let server = Server::start(
        &host,
        "PBSAPIToken=pbx@pbs!state:5ec2e7-0f-a11",
        "well",
        &["Sys.Audit", "Datastore.Audit"],
    );
    fs::copy(&server.cert, host.root.join("etc/proxmox-backup/proxy.pem")).unwrap();
    configure(&host, "pbs", server.port, "");
    let report = backup(&host, Exit::Ok);
    assert!(!report["problems"].to_string().contains("api"), "{report}");
    let usage = host.run(&["cat", "latest", ".pbx/state/pbs-usage.json"]).ok().out;
    assert_eq!(usage, "{\"asked\":\"/api2/json/status/datastore-usage\"}\n");
}

#[test]
fn the_certificates_of_a_node_are_found_in_its_cluster_file_system() {
    let host = TestHost::golden("pve-single");
    let server = Server::start(&host, PVE_TOKEN, "well", PVE_AUDIT);
    let db = rusqlite::Connection::open(host.database()).unwrap();
    let sql = "UPDATE tree SET data = ?1 WHERE name = 'pve-ssl.pem'";
    assert!(db.execute(sql, [fs::read(&server.cert).unwrap()]).unwrap() > 0);
    drop(db);
    configure(&host, "pve", server.port, "");
    backup(&host, Exit::Ok);
    assert!(status_of_node(&host).contains("asked"));
}

/// The tools answer instead, and one warning says what and why.
fn told(host: &TestHost, what: &str) {
    let report = backup(host, Exit::Problems);
    let problems: Vec<&serde_json::Value> = report["problems"].as_array().unwrap().iter().collect();
    let warnings: Vec<_> = problems.iter().filter(|problem| problem["severity"] == "warning").collect();
    assert_eq!(warnings.len(), 1, "{report}");
    assert!(warnings[0]["what"].as_str().unwrap().contains(what), "{}", warnings[0]);
    assert!(warnings[0]["hint"].as_str().unwrap().contains("PVEAuditor"), "{}", warnings[0]);
    assert!(status_of_node(host).contains("pve-manager/9.1.2"));
}

#[test]
fn a_server_with_another_certificate_gets_no_token() {
    let host = TestHost::golden("pve-single");
    let server = Server::start(&host, PVE_TOKEN, "well", PVE_AUDIT);
    let other = "AA:".repeat(31) + "AA";
    configure(&host, "pve", server.port, &format!("\tfingerprint {other}\n"));
    told(&host, &format!("it has another certificate, with the fingerprint {}", server.fingerprint()));
    assert_eq!(server.asked(), "");
}

#[test]
fn a_token_that_does_not_see_everything_is_not_used() {
    let (host, _server) = configured("well", &["Sys.Audit", "VM.Audit"]);
    told(&host, "lacks Datastore.Audit, SDN.Audit, Pool.Audit, Mapping.Audit on / and cannot see everything");
}

#[test]
fn a_token_that_may_change_the_node_is_more_than_is_needed() {
    let (host, _server) = configured("well", &[PVE_AUDIT, &["Sys.Modify"]].concat());
    let report = backup(&host, Exit::Ok);
    assert!(report["problems"].to_string().contains("may do more than read"), "{report}");
}

#[test]
fn a_wrong_secret_is_told() {
    let host = TestHost::golden("pve-single");
    let server = Server::start(&host, "PVEAPIToken=pbx@pve!state=another", "well", PVE_AUDIT);
    configure(&host, "pve", server.port, &format!("\tfingerprint {}\n", server.fingerprint()));
    told(&host, "status 401: the token or its secret is wrong");
}

#[test]
fn a_node_whose_api_is_down_is_told() {
    let (host, server) = configured("well", PVE_AUDIT);
    drop(server);
    told(&host, "Connection refused");
}

#[test]
fn an_api_that_never_answers_costs_seconds_once() {
    let (host, server) = configured("silent", PVE_AUDIT);
    let start = Instant::now();
    told(&host, "no answer in time");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(server.asked().lines().count(), 1);
}

#[test]
fn what_the_token_may_not_read_the_tool_tells() {
    let (host, _server) = configured("forbidden", PVE_AUDIT);
    backup(&host, Exit::Ok);
    assert!(status_of_node(&host).contains("pve-manager/9.1.2"));
    assert!(host.run(&["cat", "latest", ".pbx/state/pve-services.json"]).ok().out.contains("asked"));
}

#[test]
fn an_answer_that_is_none_is_left_to_the_tool() {
    for mode in ["junk", "large"] {
        let (host, _server) = configured(mode, PVE_AUDIT);
        host.run(&["backup", "--only", "pve-state-node"]).ok();
        assert!(status_of_node(&host).contains("pve-manager/9.1.2"), "{mode}");
    }
}

#[test]
fn a_system_that_is_only_mounted_here_is_never_asked() {
    let (host, server) = configured("well", PVE_AUDIT);
    host.run_with(&["backup"], Box::new(NoTools)).ok();
    assert_eq!(server.asked(), "");
}

#[test]
fn a_dry_run_says_what_will_be_asked() {
    let (host, server) = configured("well", PVE_AUDIT);
    let plan = host.run(&["backup", "--dry-run"]).ok().out;
    assert!(
        plan.contains(&format!("GET https://127.0.0.1:{}/api2/json/nodes/pve1/status", server.port)),
        "{plan}"
    );
    assert_eq!(server.asked(), "");
}

#[test]
fn mistakes_in_its_section_are_told_with_file_line_and_what_to_do() {
    let host = TestHost::golden("pve-single");
    let file = host.root.join("etc/proxmox-backup-extra/pbx-config.cfg");
    for (text, line, what, hint) in [
        (
            "api: pve\n\ttoken a@pve!b\n",
            2,
            "api 'pve': the token's secret is missing",
            "put `secret` under 'api: pve'",
        ),
        (
            "api: pve\n\ttoken a@pve!b\n\tsecret x\n",
            3,
            "api 'pve': a secret ('secret') must not be in a file",
            "secrets.cfg",
        ),
        (
            "api: esxi\n\ttoken a@pve!b\n",
            1,
            "api 'esxi': there is only 'api: pve' and 'api: pbs'",
            "the product",
        ),
    ] {
        host.configure(text);
        let done = host.run(&["config", "check"]).exits(Exit::Usage);
        assert!(done.err.contains(&format!("{}:{line}: {what}", file.display())), "{}", done.err);
        assert!(done.err.contains(hint), "{}", done.err);
        assert!(!done.err.contains(" x\n"));
    }
    configure(&host, "pve", 8006, "\tfingerprint AA:BB\n");
    let done = host.run(&["config", "check"]).exits(Exit::Usage);
    assert!(done.err.contains("32 pairs of hex digits"), "{}", done.err);
    configure(&host, "pve", 8006, "");
    let text = fs::read_to_string(&file).unwrap().replace("pbx@pve!state", "pbx@pve");
    host.configure(&text);
    let done = host.run(&["config", "check"]).exits(Exit::Usage);
    assert!(done.err.contains("a token is USER@REALM!NAME"), "{}", done.err);
}
