//! `check --network`: sockets, the packet filter and processes of the running system.

use crate::catalog::exposure::{CLUSTER_RULES, NODE_RULES};
use crate::config::{CheckConfig, ProgramName};
use crate::model::exposure::Firewall;
use crate::model::facts::Product;
use crate::plan::check::{Area, CheckFinding, CheckState};
use crate::plan::exposure::{self, ExposureRules};
use crate::sys::host::Host;
use crate::sys::net::{netfilter, sockets};
use crate::sys::pmxcfs;
use crate::sys::process::processes;

/// Checks the network of the system whose /proc is below the root.
pub fn network(host: &Host, config: &CheckConfig) -> Vec<CheckFinding> {
    let names = |programs: &[ProgramName]| programs.iter().map(|program| program.0.clone()).collect();
    let rules = ExposureRules {
        ports: config.port_allow.iter().map(|allowed| (allowed.program.clone(), allowed.port)).collect(),
        suspicious_ports: config.port_suspicious.clone(),
        programs: names(&config.process_allow),
        suspicious_programs: names(&config.process_suspicious),
    };

    let running = match processes::all(host.root()) {
        Ok(running) if running.is_empty() => {
            let what =
                "there is no /proc here: a system that is not running cannot be checked for open ports";
            return vec![CheckFinding::new(Area::Processes, CheckState::Notice, what)];
        }
        Ok(running) => running,
        Err(error) => {
            let finding = CheckFinding::new(Area::Processes, CheckState::Warning, format!("{error:#}"));
            return vec![finding.hint("run it as root")];
        }
    };

    let mut findings = match sockets::listeners(host.root()) {
        Ok(listeners) => exposure::sockets(&listeners, &running, &rules, &host.facts),
        Err(error) => {
            let finding =
                CheckFinding::new(Area::Sockets, CheckState::Warning, format!("/proc/net: {error}"));
            vec![finding.hint("run it as root")]
        }
    };
    if host.is_live() {
        findings.extend(exposure::firewall(&firewall(host)));
    }
    findings.extend(exposure::processes(&running, &rules));
    findings
}

fn firewall(host: &Host) -> Firewall {
    let nft = netfilter::chains(&*host.exec).inspect_err(|error| log::debug!("nft: {error:#}")).ok();
    Firewall { nft, iptables: netfilter::legacy(), pve_enabled: pve_enabled(host) }
}

/// `enable: 1` below [OPTIONS] of the cluster; a node may only say no.
fn pve_enabled(host: &Host) -> Option<bool> {
    if !host.facts.has(Product::Pve) {
        return None;
    }
    let node = NODE_RULES.replace("{node}", &host.facts.node);
    let found = pmxcfs::files(host, &[CLUSTER_RULES, &node]).ok()?;
    let says = |file: &Option<Vec<u8>>| {
        exposure::pve_option(&String::from_utf8_lossy(file.as_deref().unwrap_or_default()))
    };
    let (cluster, node) = (found.first().and_then(says), found.get(1).and_then(says));
    Some(cluster == Some(true) && node != Some(false))
}
