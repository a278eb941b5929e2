//! Metrics: what a run writes is what promtool, `node_exporter` and Prometheus of Debian read, and what the shipped
//! alerts and dashboard ask for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{TestHost, port_of};
use pbx_config::model::problem::Exit;
use serde_json::Value;

const TEXTFILES: &str = "var/lib/prometheus/node-exporter";
const FILE: &str = "pbx_config.prom";

/// Debian's programs, unpacked by `make test-tools`: installing the packages would start their services.
fn tool(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/prometheus/usr/bin").join(name);
    let found = [here, Path::new("/usr/bin").join(name)].into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not here: `make test-tools` brings it"))
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/share/monitoring").join(name)
}

fn host(config: &str) -> TestHost {
    let host = TestHost::empty();
    fs::create_dir_all(host.root.join(TEXTFILES)).unwrap();
    host.configure(config);
    host
}

fn backup_at(host: &mut TestHost, time: &str, exit: Exit) {
    time.clone_into(&mut host.now);
    host.run(&["backup"]).exits(exit);
}

fn metrics(host: &TestHost) -> String {
    fs::read_to_string(host.root.join(TEXTFILES).join(FILE)).unwrap()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|one| one == format!("pbx_config_{line}")), "{line}\n{text}");
}

/// A run with problems, changes, two stores, retention and a verification, so that every family has a value.
fn rich() -> TestHost {
    let mut host =
        host("prometheus: node\n\ndir: a\n\tpath /srv/a\n\tkeep-last 2\n\ndir: b\n\tpath /srv/b\n");
    for day in 18..22 {
        host.write("etc/fstab", format!("{day}\n"));
        backup_at(&mut host, &format!("2026-11-{day}T12:00:00Z"), Exit::Ok);
    }
    host.run(&["verify", "--all"]).ok();
    host
}

#[test]
fn without_a_section_nothing_is_written() {
    let mut host = host("");
    backup_at(&mut host, "2026-11-20T12:00:00Z", Exit::Ok);
    assert!(!host.root.join(TEXTFILES).join(FILE).exists());
}

#[test]
fn every_fact_of_a_run_is_there_and_promtool_is_content() {
    let host = rich();
    let text = metrics(&host);
    has(&text, "last_run_status 0");
    has(&text, "last_run_exit_code 0");
    has(&text, "last_run_start_time_seconds 1795262400");
    has(&text, "last_run_problems{severity=\"error\"} 0");
    has(&text, "last_run_changed_paths{how=\"changed\"} 1");
    has(&text, "store_snapshots{store=\"a\"} 2");
    has(&text, "store_pruned_snapshots{store=\"a\"} 1");
    has(&text, "store_snapshots{store=\"b\"} 4");
    has(&text, "store_up{store=\"b\"} 1");
    has(&text, "store_verified_snapshots{store=\"b\"} 4");
    has(&text, "store_damaged_snapshots{store=\"a\"} 0");
    for family in [
        "last_run_end_time_seconds",
        "last_run_duration_seconds",
        "last_success_time_seconds",
        "snapshot_files",
        "snapshot_files_failed",
        "snapshot_read_bytes",
        "snapshot_size_bytes",
        "snapshot_compression_ratio",
        "phase_duration_seconds{phase=\"write\"}",
        "store_last_success_time_seconds{store=\"a\"}",
        "store_verified_time_seconds{store=\"a\"}",
        "info{host=\"tiny\"",
    ] {
        assert!(text.contains(&format!("\npbx_config_{family}")), "{family}\n{text}");
    }
    let mode = fs::metadata(host.root.join(TEXTFILES).join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let mut check = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
}

#[test]
fn a_part_of_the_host_is_no_success_and_a_store_that_is_not_configured_is_forgotten() {
    let mut host = host("prometheus: node\n\ndir: a\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n");
    host.write("etc/fstab", "# nothing\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z", Exit::Ok);
    let before = metrics(&host);
    let success = |text: &str| -> Vec<String> {
        let lines =
            text.lines().filter(|line| !line.starts_with('#') && line.contains("_success_time_seconds"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(success(&before).len(), 3, "{before}");
    host.now = "2026-11-21T12:00:00Z".to_owned();
    let folder = host.root.join("media/stick");
    fs::create_dir_all(&folder).unwrap();
    host.run(&["backup", "--only", "fstab", "--store", folder.to_str().unwrap()]).ok();
    host.run(&["backup", "--only", "fstab"]).ok();
    let after = metrics(&host);
    assert_eq!(success(&after), success(&before));
    assert!(!after.contains("stick"), "{after}");
    has(&after, "store_snapshots{store=\"b\"} 2");
    host.configure("prometheus: node\n\ndir: a\n\tpath /srv/a\n");
    host.run(&["verify", "--all"]).ok();
    assert!(!metrics(&host).contains("store=\"b\""), "{}", metrics(&host));
}

#[test]
fn others_may_read_it_though_the_service_has_a_narrow_umask() {
    let host = host("prometheus: node\n");
    // Of all tests of this file for a moment: to root it is all the same.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    host.run(&["backup"]).ok();
    nix::sys::stat::umask(before);
    let mode = fs::metadata(host.root.join(TEXTFILES).join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_failed_run_is_told_too_beside_what_is_known_of_the_ones_before() {
    let mut host = host("prometheus: node\n\ndir: a\n\tpath /srv/a\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z", Exit::Ok);
    let before = metrics(&host);
    fs::rename(host.root.join("srv/a"), host.root.join("srv/gone")).unwrap();
    host.write("srv/a", "no folder\n");
    backup_at(&mut host, "2026-11-21T12:00:00Z", Exit::Failed);
    let text = metrics(&host);
    has(&text, "last_run_status 2");
    has(&text, "last_run_exit_code 1");
    has(&text, "last_run_problems{severity=\"error\"} 1");
    let success = before.lines().find(|line| line.starts_with("pbx_config_last_success")).unwrap();
    assert!(text.contains(success), "{success}\n{text}");
    has(&text, "store_snapshots{store=\"a\"} 1");
}

#[test]
fn the_folder_is_the_one_that_is_named_or_that_node_exporter_reads() {
    let mut host = host("prometheus: node\n\tpath /srv/metrics\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z", Exit::Problems);
    let done = host.run(&["backup"]).exits(Exit::Problems);
    assert!(
        done.out.contains("srv/metrics: is not a directory") && done.out.contains("mkdir -p /srv/metrics"),
        "{}",
        done.out
    );
    fs::create_dir_all(host.root.join("srv/metrics")).unwrap();
    backup_at(&mut host, "2026-11-21T12:00:00Z", Exit::Ok);
    assert!(host.root.join("srv/metrics").join(FILE).exists());

    // What its own command line says goes before the usual places.
    host.configure("prometheus: node\n");
    host.write(
        "etc/default/prometheus-node-exporter",
        "# ARGS=\"--collector.textfile.directory=/srv/no\"\nARGS=\"--collector.systemd --collector.textfile.directory=/srv/own\"\n",
    );
    fs::create_dir_all(host.root.join("srv/own")).unwrap();
    backup_at(&mut host, "2026-11-22T12:00:00Z", Exit::Ok);
    assert!(host.root.join("srv/own").join(FILE).exists() && !host.root.join(TEXTFILES).join(FILE).exists());

    fs::remove_file(host.root.join("etc/default/prometheus-node-exporter")).unwrap();
    fs::remove_dir(host.root.join(TEXTFILES)).unwrap();
    host.now = "2026-11-23T12:00:00Z".to_owned();
    let done = host.run(&["backup"]).exits(Exit::Problems);
    assert!(
        done.out.contains("prometheus 'node': node_exporter has no directory for metrics here"),
        "{}",
        done.out
    );
    host.configure("prometheus: node\n\tpath metrics\n");
    let done = host.run(&["backup"]).exits(Exit::Usage);
    assert!(done.err.contains("pbx-config.cfg:2: prometheus 'node': path: must be absolute"), "{}", done.err);
}

#[test]
fn the_shipped_alerts_fire_when_they_should() {
    for (what, file) in [(&["check", "rules"], "alerts.yml"), (&["test", "rules"], "alerts-test.yml")] {
        let said = Command::new(tool("promtool")).args(what).arg(shipped(file)).output().unwrap();
        assert!(said.status.success(), "{file}: {}", String::from_utf8_lossy(&said.stderr));
    }
    // Each has a case that fires and one that does not.
    let rules = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let tests = fs::read_to_string(shipped("alerts-test.yml")).unwrap();
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 8);
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n        exp_alerts:\n")), "{name} is not tested");
    }
}

/// Families that a rich run does not have: there is no key, and no look at what is in no backup.
const NOT_ALWAYS: [&str; 2] = ["pbx_config_key_proved_time_seconds", "pbx_config_unexplained_files"];

#[test]
fn alerts_and_dashboard_ask_only_for_what_is_written() {
    let text = metrics(&rich());
    let written: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .chain(NOT_ALWAYS)
        .collect();
    let dashboard = fs::read_to_string(shipped("dashboard.json")).unwrap();
    serde_json::from_str::<Value>(&dashboard).unwrap();
    let mut asked = BTreeSet::new();
    for text in [&dashboard, &fs::read_to_string(shipped("alerts.yml")).unwrap()] {
        for part in text.split("pbx_config_").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            asked.insert(format!("pbx_config_{name}"));
        }
    }
    assert!(asked.len() > 12);
    let missing: Vec<&String> = asked.iter().filter(|name| !written.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Ends with its holder.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(name: &str, args: &[String]) -> Running {
    let child = Command::new(tool(name)).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Running(child.unwrap())
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_real_prometheus_scrapes_it_from_a_real_node_exporter() {
    let host = rich();
    let exporter = start(
        "prometheus-node-exporter",
        &[
            "--collector.disable-defaults".to_owned(),
            "--collector.textfile".to_owned(),
            format!("--collector.textfile.directory={}", host.root.join(TEXTFILES).display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ],
    );
    let exporter_port = wait_for("the exporter's port", || port_of(exporter.0.id()));
    let page = wait_for("the exporter's page", || get(exporter_port, "/metrics"));
    assert!(page.contains("node_textfile_scrape_error 0"), "{page}");
    let config = host.beside("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
             \x20 - job_name: node\n    static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]\n",
            shipped("alerts.yml").display()
        ),
    )
    .unwrap();
    let prometheus = start(
        "prometheus",
        &[
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", host.beside("tsdb").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ],
    );
    let prometheus_port = wait_for("Prometheus's port", || port_of(prometheus.0.id()));
    let query = |query: &str| -> Option<Value> {
        let answer: Value =
            serde_json::from_str(&get(prometheus_port, &format!("/api/v1/query?query={query}"))?).ok()?;
        answer["data"]["result"].as_array().filter(|all| !all.is_empty()).map(|all| all[0].clone())
    };
    let kept = wait_for("the scraped metric", || query("pbx_config_store_snapshots%7Bstore=%22a%22%7D"));
    assert_eq!(kept["value"][1], "2");
    assert_eq!(kept["metric"]["job"], "node");
    let info = query("pbx_config_info").unwrap();
    assert_eq!(info["metric"]["host"], "tiny");
    // The last run of this history is long ago or yet to come for the clock of today; the rules are evaluated.
    let rules = wait_for("the rules", || {
        let rules: Value = serde_json::from_str(&get(prometheus_port, "/api/v1/rules")?).ok()?;
        let all = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        all.iter().all(|rule| rule["health"] == "ok").then_some(all)
    });
    assert!(rules.len() >= 8);
}
