//! Services: noted, stopped, started and restarted in the order of the rows, with strict doubles of systemctl and
//! ifreload that write down what they are asked.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput, ToolStatus};
use pbx_config::sys::process::lock::Lock;

use super::common::server::Server;
use super::common::{Done, TestHost, pretend_to_wait, start_unit};
use super::saved;

/// Knows units; anything else it is asked is a failure.
pub struct Tools {
    pub said: std::sync::Arc<Mutex<Vec<String>>>,
    pub active: Mutex<HashSet<String>>,
    /// Units that do not come up.
    pub broken: HashSet<String>,
}

impl Tools {
    pub fn new(active: &[&str], broken: &[&str]) -> (Self, std::sync::Arc<Mutex<Vec<String>>>) {
        let said = std::sync::Arc::new(Mutex::new(Vec::new()));
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        (Self { said: said.clone(), active: Mutex::new(set(active)), broken: set(broken) }, said)
    }
}

impl Exec for Tools {
    fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>> {
        let words: Vec<&str> = cmd.argv.iter().map(String::as_str).collect();
        let mut active = self.active.lock().unwrap();
        let code = match words.as_slice() {
            ["systemctl", "is-active", "--quiet", unit] => {
                return Ok(Some(answer(if active.contains(*unit) { 0 } else { 3 })));
            }
            ["systemctl", "stop", unit] => i32::from(!active.remove(*unit)),
            ["systemctl", "start" | "restart", unit] => {
                if self.broken.contains(*unit) {
                    active.remove(*unit);
                } else {
                    active.insert((*unit).to_owned());
                }
                0
            }
            ["systemctl", "daemon-reload"] | ["ifreload", "-a"] => 0,
            ["systemd-run", ..] => {
                start_unit(&cmd.argv);
                0
            }
            _ => return Ok(None),
        };
        self.said.lock().unwrap().push(words.join(" "));
        Ok(Some(answer(code)))
    }
}

fn answer(code: i32) -> ProcessOutput {
    ProcessOutput { status: ToolStatus::Exit(code), ..ProcessOutput::default() }
}

#[test]
fn what_runs_is_restarted_after_its_files_and_again_after_an_undo() {
    let host = saved("pve-single");
    host.write("etc/chrony/chrony.conf", "server other\n");
    fs::write(host.root.join("etc/pve/storage.cfg"), "dir: local\n\tpath /var/lib/vz\n").unwrap();
    fs::remove_file(host.root.join("etc/systemd/system/report.service")).unwrap();
    let tools = || Tools::new(&["chrony", "pvestatd"], &[]);
    let expected = ["systemctl daemon-reload", "systemctl restart chrony", "systemctl restart pvestatd"];
    let (exec, said) = tools();
    let done = host
        .run_with(
            &["restore", "latest", "--yes", "--only", "time-sync,pve-storage,systemd-units"],
            Box::new(exec),
        )
        .ok();
    assert_eq!(*said.lock().unwrap(), expected, "{}", done.out);
    let (exec, said) = tools();
    host.run_with(&["undo"], Box::new(exec)).ok();
    assert_eq!(*said.lock().unwrap(), expected);
}

#[test]
fn what_must_not_run_meanwhile_is_stopped_before_and_started_after() {
    let host = saved("bare");
    host.write("var/lib/snmp/snmpd.conf", "usmUser 1\n");
    host.run(&["backup"]);
    host.write("var/lib/snmp/snmpd.conf", "usmUser 2\n");
    let (exec, said) = Tools::new(&["snmpd"], &[]);
    host.run_with(&["restore", "latest", "--yes", "--only", "snmp-users"], Box::new(exec)).ok();
    assert_eq!(*said.lock().unwrap(), ["systemctl stop snmpd", "systemctl start snmpd"]);
    assert_eq!(fs::read(host.root.join("var/lib/snmp/snmpd.conf")).unwrap(), b"usmUser 1\n");
}

#[test]
fn a_unit_that_does_not_come_up_is_a_problem_beside_the_way_back() {
    let host = saved("bare");
    host.write("etc/chrony/chrony.conf", "a\n");
    host.run(&["backup"]);
    host.write("etc/chrony/chrony.conf", "b\n");
    let (exec, _) = Tools::new(&["chrony"], &["chrony"]);
    let done = host.run_with(&["restore", "latest", "--yes", "--only", "time-sync"], Box::new(exec));
    assert_eq!(done.exit, Exit::Problems);
    assert!(done.out.contains("chrony: did not start"), "{}", done.out);
    assert!(done.out.contains("undo it with: pbx-config undo"), "{}", done.out);
}

/// A server whose daemons a restore restarts, with its API on this port.
fn with_api(port: u16) -> TestHost {
    let host = saved("pbs");
    host.write("etc/proxmox-backup/node.cfg", "email-from: other@example.org\n");
    host.configure(&format!("api: pbs\n\ttoken pbx@pbs!state\n\tport {port}\n"));
    host.write("etc/proxmox-backup-extra/secrets.cfg", "api: pbs\n\tsecret 5ec2e7-0f-a11\n");
    let secrets = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    host
}

fn restart(host: &TestHost) -> Done {
    let (exec, said) = Tools::new(&["proxmox-backup", "proxmox-backup-proxy"], &[]);
    let done = host.run_with(&["restore", "latest", "--yes", "--only", "pbs-node"], Box::new(exec));
    let expected = ["systemctl restart proxmox-backup", "systemctl restart proxmox-backup-proxy"];
    assert_eq!(*said.lock().unwrap(), expected, "{}", done.out);
    done
}

#[test]
fn an_api_that_answers_after_its_restart_is_fine_and_is_told_nothing() {
    for mode in ["well", "late"] {
        let host = TestHost::empty();
        let server = Server::api(&host, mode);
        let host = with_api(server.port);
        let done = restart(&host).ok();
        assert!(!done.out.contains("API"), "{mode}: {}", done.out);
        let asked = fs::read_to_string(&server.log).unwrap();
        assert!(asked.lines().all(|line| line.ends_with(" /api2/json/version")), "{mode}: {asked}");
        assert_eq!(asked.lines().count(), if mode == "late" { 3 } else { 1 }, "{asked}");
    }
}

#[test]
fn an_api_that_does_not_answer_after_its_restart_is_a_problem_beside_the_way_back() {
    std::thread::scope(|scope| {
        scope.spawn(with_no_api);
        for (mode, why) in [("broken", "status 596"), ("silent", "no answer in time"), ("mute", "in time")] {
            scope.spawn(move || {
                let beside = TestHost::empty();
                let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let server = (mode != "mute").then(|| Server::api(&beside, mode));
                let port = server.as_ref().map_or(mute.local_addr().unwrap().port(), |server| server.port);
                let host = with_api(port);
                let since = Instant::now();
                let done = restart(&host).exits(Exit::Problems);
                // A hang is not seconds.
                assert!(since.elapsed() < Duration::from_secs(60), "{mode}");
                let what = format!("its API does not answer: https://127.0.0.1:{port}/api2/json/version: ");
                let line = done.out.lines().find(|line| line.contains(&what)).unwrap_or(&done.out);
                assert!(line.contains("proxmox-backup-proxy: ") && line.contains(why), "{mode}: {line}");
                assert!(done.out.contains("undo it with: pbx-config undo"), "{}", done.out);
                assert!(!done.out.contains("5ec2e7"));
            });
        }
    });
}

/// The proxy of a node is asked where nothing is configured.
fn with_no_api() {
    let host = saved("pve-single");
    let path = host.root.join("etc/pve/nodes/pve1/pveproxy-ssl.pem");
    fs::write(&path, "another").unwrap();
    // On a node of Proxmox it answers.
    if std::net::TcpStream::connect("127.0.0.1:8006").is_ok() {
        return;
    }
    let (exec, said) = Tools::new(&["pveproxy"], &[]);
    let args = ["restore", "latest", "--yes", "--only", "pve-node-custom-cert"];
    let done = host.run_with(&args, Box::new(exec)).exits(Exit::Problems);
    assert_eq!(*said.lock().unwrap(), ["systemctl restart pveproxy"]);
    assert!(done.out.contains("https://127.0.0.1:8006/api2/json/version: "), "{}", done.out);
}

/// A host on which somebody says that he waits, and does not.
struct Kept(Tools, PathBuf, Mutex<Option<Lock>>);

impl Exec for Kept {
    fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>> {
        if cmd.argv[0] != "systemd-run" {
            return self.0.run(cmd);
        }
        *self.2.lock().unwrap() = Some(pretend_to_wait(&self.1));
        Ok(Some(answer(0)))
    }
}

#[test]
fn what_was_stopped_before_a_restore_is_stopped_again_after_its_undo() {
    let (host, ..) = super::database::dead();
    let (exec, said) = Tools::new(&["pvestatd"], &[]);
    let args =
        [&["restore", "latest", "--yes", "--confirm-within", "1s"], &super::database::RESTORE[..]].concat();
    // Nobody waits there: the one who watches undoes it.
    let done = host
        .run_with(&args, Box::new(Kept(exec, host.root.clone(), Mutex::new(None))))
        .exits(Exit::Unconfirmed);
    let said = said.lock().unwrap();
    let started = said.iter().filter(|line| *line == "systemctl start pve-cluster").count();
    let last = said.iter().rfind(|line| line.ends_with(" pve-cluster")).unwrap();
    assert_eq!((started, last.as_str()), (1, "systemctl stop pve-cluster"), "{said:?}\n{}", done.err);
    let last = said.iter().rfind(|line| line.ends_with(" pvestatd")).unwrap();
    assert_eq!(last, "systemctl start pvestatd", "{said:?}");
}
