//! Services around a restore: what runs is noted, stopped, started and restarted in the order of the rows, each with
//! a limit, and looked at afterwards.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::catalog::On;
use crate::catalog::api;
use crate::config::Api;
use crate::model::facts::Product;
use crate::model::report::Problem;
use crate::plan::restore::Services;
use crate::sys::exec::{Cmd, Status};
use crate::sys::host::Host;

/// A unit that takes longer to stop or start hangs.
const UNIT_LIMIT: Duration = Duration::from_secs(90);
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// ifreload waits for addresses, `pvesh set /cluster/sdn` for every node.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// How long a unit may take from its start to `active`, and the API from there to its first answer.
const UP_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(300);
/// The units that answer on the port of a product's API.
const API_UNITS: [(&str, Product, On); 2] =
    [("pveproxy", Product::Pve, On::Pve), ("proxmox-backup-proxy", Product::Pbs, On::Pbs)];

/// Those of the units that run now. A host without systemd, or one that is only mounted, has none.
pub fn running<'a>(host: &Host, units: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut running: Vec<String> = Vec::new();
    for unit in units {
        if !running.contains(unit) && is_active(host, unit) {
            running.push(unit.clone());
        }
    }
    running
}

fn is_active(host: &Host, unit: &str) -> bool {
    let cmd = Cmd::new(["systemctl", "is-active", "--quiet", unit], ASK_LIMIT);
    matches!(host.exec.run(&cmd), Ok(Some(output)) if output.status == Status::Exit(0))
}

/// Stops those that ran; in the order of the rows.
pub fn stop(host: &Host, services: &Services, running: &[String]) -> Vec<Problem> {
    let wanted = services.stop.iter().filter(|unit| running.contains(unit));
    wanted.filter_map(|unit| run(host, &["systemctl", "stop", unit], UNIT_LIMIT)).collect()
}

/// Makes the new files count: commands, then what was stopped is started, then what runs is restarted; and looks
/// whether all of it came up.
pub fn settle(host: &Host, services: &Services, running: &[String], apis: &[(Product, Api)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for command in &services.run {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        problems.extend(run(host, &words, RUN_LIMIT));
    }
    let mut seen_to = Vec::new();
    for (units, verb) in [(&services.stop, "start"), (&services.restart, "restart")] {
        for unit in units.iter().filter(|unit| running.contains(unit)) {
            problems.extend(run(host, &["systemctl", verb, unit], UNIT_LIMIT));
            seen_to.push(unit.as_str());
        }
    }
    for unit in seen_to {
        if !within(UP_LIMIT, || is_active(host, unit)) {
            let problem = Problem::error(format!("{unit}: did not come up"));
            problems.push(problem.hint(format!("see `systemctl status {unit}`")));
        } else if let Some((_, product, on)) = API_UNITS.iter().find(|(name, ..)| *name == unit) {
            problems.extend(api_answers(*product, *on, apis));
        }
    }
    problems
}

/// None: it was done, or the host has no such tool.
fn run(host: &Host, words: &[&str], limit: Duration) -> Option<Problem> {
    let shown = words.join(" ");
    log::info!("{shown}");
    let problem = match host.exec.run(&Cmd::new(words.iter().copied(), limit)) {
        Ok(Some(output)) if output.status == Status::Exit(0) => return None,
        // A system that is only mounted here, or a tool that came with what is not here.
        Ok(None) if !host.exec.is_of_host() => return None,
        Ok(None) => Problem::notice(format!("{shown}: there is no {}", words[0])),
        Ok(Some(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            Problem::error(format!("{shown}: {}{said}", output.status))
        }
        Err(error) => Problem::error(format!("{shown}: {error:#}")),
    };
    Some(problem.hint("the files are in place; see the journal, then run it by hand"))
}

fn within(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let since = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if since.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

fn api_answers(product: Product, on: On, apis: &[(Product, Api)]) -> Option<Problem> {
    let known = apis.iter().find(|(of, _)| *of == product).map(|(_, api)| api);
    let server = known.map_or("127.0.0.1", |api| api.server.as_str());
    let port = known.and_then(|api| api.port).or_else(|| api::of(on).map(|api| api.port))?;
    let address = format!("{server}:{port}");
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().ok()?.collect();
    let answers = || addresses.iter().any(|address| TcpStream::connect_timeout(address, POLL * 3).is_ok());
    let problem = Problem::error(format!("{address}: the API of {product} does not answer"));
    (!within(UP_LIMIT, answers)).then(|| problem.hint("see the journal of its proxy"))
}
