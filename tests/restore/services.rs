//! Services: noted, stopped, started and restarted in the order of the rows, with strict doubles of systemctl and
//! ifreload that write down what they are asked.

use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;

use anyhow::Result;
use pbx_config::sys::exec::{Cmd, Exec, Output, Status};

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
    fn run(&self, cmd: &Cmd) -> Result<Option<Output>> {
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
            ["systemd-run", ..] => 1,
            _ => return Ok(None),
        };
        self.said.lock().unwrap().push(words.join(" "));
        Ok(Some(answer(code)))
    }
}

fn answer(code: i32) -> Output {
    Output { status: Status::Exit(code), ..Output::default() }
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
    assert_eq!(done.exit, pbx_config::model::report::Exit::Problems);
    assert!(done.out.contains("chrony: did not come up"), "{}", done.out);
    assert!(done.out.contains("undo it with: pbx-config undo"), "{}", done.out);
}
