//! Findings about a host's sockets, packet filter and processes. Pure; seeing them is `task::check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::check::{Area, CheckFinding, CheckState};
use crate::catalog::On;
use crate::catalog::exposure::{
    BRACKETED, MEMORY, NAMELESS, PORTS, SUSPICIOUS_PORTS, SUSPICIOUS_PROGRAMS, THROWAWAY, UDP_SERVICES,
};
use crate::model::exposure::{Firewall, Listener, Process, Program, Protocol};
use crate::model::facts::{Facts, Product};

/// Rules of the configuration beside the catalogue: what it allows and forbids.
#[derive(Debug, Clone, Default)]
pub struct ExposureRules {
    /// A port, of one program when named.
    pub ports: Vec<(Option<String>, u16)>,
    pub suspicious_ports: Vec<u16>,
    /// Names; a `*` at the end stands for the rest.
    pub programs: Vec<String>,
    pub suspicious_programs: Vec<String>,
}

/// The kernel's names end after so many bytes.
const NAME_BYTES: usize = 15;

/// Finds programs that listen on other than loopback addresses, and are neither Proxmox's own nor allowed.
pub fn sockets(
    listeners: &[Listener],
    processes: &[Process],
    rules: &ExposureRules,
    facts: &Facts,
) -> Vec<CheckFinding> {
    let mut seen: BTreeMap<(Protocol, u16, String), BTreeSet<String>> = BTreeMap::new();
    let mut public = 0;

    for one in listeners {
        let asks = one.protocol == Protocol::Udp && one.port >= UDP_SERVICES;
        if one.loopback || asks {
            continue;
        }
        public += 1;
        let holder = processes.iter().find(|process| process.sockets.contains(&one.inode));
        // A container's ports are on its own addresses, in a network of its own.
        let name = holder.map(|process| process.name.clone()).unwrap_or_default();
        if is_meant(one, &name, facts) || is_allowed(one, &name, rules) {
            continue;
        }
        seen.entry((one.protocol, one.port, name)).or_default().insert(one.address.clone());
    }

    let finding = |((protocol, port, name), addresses): ((Protocol, u16, String), BTreeSet<String>)| {
        let who = if name.is_empty() { "the kernel or an unknown process".to_owned() } else { name.clone() };
        let addresses: Vec<String> = addresses.into_iter().collect();
        let suspicious = SUSPICIOUS_PORTS.contains(&port) || rules.suspicious_ports.contains(&port);
        let word = if suspicious { ": a port that attackers often use" } else { "" };
        let what = format!("{}/{port} is open on {} by {who}{word}", protocol.name(), addresses.join(", "));
        let allow = if name.is_empty() { port.to_string() } else { format!("{name}:{port}") };
        let hint = format!("close it, or use `port-allow {allow}` under 'check: main' if it is intended");
        let state = if suspicious { CheckState::Problem } else { CheckState::Warning };
        CheckFinding::new(Area::Sockets, state, what).hint(hint)
    };
    let findings: Vec<CheckFinding> = seen.into_iter().map(finding).collect();
    if findings.is_empty() {
        let what = format!("{public} sockets are open to the network, all are known");
        return vec![CheckFinding::new(Area::Sockets, CheckState::Ok, what)];
    }
    findings
}

fn is_meant(one: &Listener, name: &str, facts: &Facts) -> bool {
    let on = |on: On| match on {
        On::Any => true,
        On::Pve => facts.has(Product::Pve),
        On::Pbs => facts.has(Product::Pbs),
    };
    let by =
        |programs: &[&str]| name.is_empty() || programs.iter().any(|known| name.starts_with(short(known)));
    PORTS.iter().any(|port| {
        on(port.on)
            && port.protocol == one.protocol
            && (port.first..=port.last).contains(&one.port)
            && by(port.programs)
    })
}

fn is_allowed(one: &Listener, name: &str, rules: &ExposureRules) -> bool {
    rules.ports.iter().any(|(program, port)| {
        *port == one.port && program.as_ref().is_none_or(|program| short(program) == name)
    })
}

fn short(name: &str) -> &str {
    name.get(..NAME_BYTES).unwrap_or(name)
}

/// Judges whether anything filters what comes to this host.
pub fn firewall(seen: &Firewall) -> Vec<CheckFinding> {
    let finding = |state, what: String| CheckFinding::new(Area::Firewall, state, what);
    let chains: Vec<_> = seen.nft.iter().flatten().filter(|chain| chain.input).collect();
    let acting: Vec<_> = chains.iter().filter(|chain| chain.drops || chain.rules > 0).collect();
    let legacy: u32 = seen.iptables.iter().map(|(_, rules)| rules).sum();
    let filters = !acting.is_empty() || legacy > 0;

    let mut parts: Vec<String> = acting
        .iter()
        .map(|chain| format!("nftables {} {} ({} rules)", chain.table, chain.name, chain.rules))
        .collect();

    parts.extend(
        seen.iptables
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(family, n)| format!("iptables {family} ({n} rules)")),
    );

    match (seen.pve_enabled, filters) {
        (Some(true), false) if seen.nft.is_some() => {
            vec![
                finding(
                    CheckState::Problem,
                    "the Proxmox firewall is on in its configuration, but nothing filters".into(),
                )
                .hint("see `pve-firewall status` and `journalctl -u pve-firewall`"),
            ]
        }
        (_, true) => {
            vec![finding(CheckState::Ok, format!("incoming traffic is filtered: {}", parts.join(", ")))]
        }
        (_, false) if seen.nft.is_none() => {
            vec![
                finding(CheckState::Notice, "the packet filter of the kernel cannot be read".into())
                    .hint("run it as root, with the package nftables installed"),
            ]
        }
        (Some(false), false) => {
            vec![
                finding(
                    CheckState::Warning,
                    "incoming traffic is not filtered; the Proxmox firewall is off".into(),
                )
                .hint("set it up under Datacenter > Firewall, allow your own access first"),
            ]
        }
        (_, false) => vec![
            finding(CheckState::Warning, "incoming traffic is not filtered".into())
                .hint("use nftables, or a firewall in front of this host"),
        ],
    }
}

/// `enable: N` below `[OPTIONS]` of a file of the Proxmox firewall; None when it does not say.
pub fn pve_option(text: &str) -> Option<bool> {
    let options = text.lines().skip_while(|line| !line.trim().eq_ignore_ascii_case("[options]")).skip(1);
    let mut options = options.take_while(|line| !line.trim_start().starts_with('['));
    options.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "enable").then(|| value.trim() != "0")
    })
}

/// Programs that should not run, or not from where they run. Containers' processes are theirs to look at.
pub fn processes(processes: &[Process], rules: &ExposureRules) -> Vec<CheckFinding> {
    let own = processes.iter().filter(|process| !process.contained && !process.zombie && !process.kernel);

    // Workers of one program are one finding.
    let mut said: Vec<((CheckState, String, String), Vec<u32>)> = Vec::new();
    let mut old = BTreeSet::new();
    let mut looked_at = 0;
    for process in own {
        looked_at += 1;
        if rules.programs.iter().any(|rule| is_called(process, rule)) {
            continue;
        }
        for (state, why) in oddities(process, rules) {
            let key = (state, process.name.clone(), why);
            match said.iter_mut().find(|(known, _)| *known == key) {
                Some((_, pids)) => pids.push(process.pid),
                None => said.push((key, vec![process.pid])),
            }
        }
        if process.program.as_ref().is_some_and(is_upgraded) {
            old.insert(process.name.clone());
        }
    }

    let finding = |state, what: String| CheckFinding::new(Area::Processes, state, what);
    let shown = |((state, name, why), pids): ((CheckState, String, String), Vec<u32>)| {
        let word = if pids.len() > 1 { "pids" } else { "pid" };
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        finding(state, format!("{name} ({word} {}): {why}", pids.join(", ")))
            .hint(format!("stop it, or use `process-allow {name}` under 'check: main' if it is intended"))
    };
    let mut findings: Vec<CheckFinding> = said.into_iter().map(shown).collect();

    if !old.is_empty() {
        let names: Vec<String> = old.into_iter().collect();
        let what = format!("still running from before an upgrade: {}", names.join(", "));
        findings.push(finding(CheckState::Notice, what).hint("restart them, or the host"));
    }

    if findings.is_empty() {
        findings.push(finding(CheckState::Ok, format!("{looked_at} processes run from their proper files")));
    }
    findings
}

/// Reports whether a rule matches the name of a process or that of the program in its title.
fn is_called(process: &Process, rule: &str) -> bool {
    matches(rule, &process.name) || matches(rule, base_name(&process.title))
}

/// Lists what is wrong with a process.
fn oddities(process: &Process, rules: &ExposureRules) -> Vec<(CheckState, String)> {
    let mut found = Vec::new();
    let forbidden =
        SUSPICIOUS_PROGRAMS.iter().copied().chain(rules.suspicious_programs.iter().map(String::as_str));
    let file = process.program.as_ref().map(|program| base_name(program.path.to_str().unwrap_or_default()));
    for rule in forbidden {
        if is_called(process, rule) || file.is_some_and(|file| matches(rule, file)) {
            found.push((CheckState::Problem, format!("is a program that should not run here ('{rule}')")));
        }
    }
    if process.title.starts_with('[') && !is_bracketed(process) {
        let why = format!("calls itself {}, like a kernel thread, but is not one", process.title);
        found.push((CheckState::Problem, why));
    }

    let Some(program) = &process.program else { return found };
    let path = program.path.display();
    if program.world_writable {
        found.push((CheckState::Problem, format!("runs {path}, which every user can change")));
    }
    if is_upgraded(program) {
        return found;
    }
    if program.deleted && !NAMELESS.iter().any(|known| program.path.starts_with_text(known)) {
        let in_memory = program.path.starts_with_text(MEMORY);
        let why = if in_memory { "which is in memory only" } else { "which was deleted" };
        found.push((CheckState::Problem, format!("runs {path}, {why}")));
    } else if THROWAWAY.iter().any(|folder| program.path.starts_with(folder)) {
        found.push((CheckState::Warning, format!("runs {path}, where programs are not installed")));
    }
    found
}

fn is_bracketed(process: &Process) -> bool {
    let runs = |path: &str| process.program.as_ref().is_some_and(|program| program.path == Path::new(path));
    BRACKETED.iter().any(|(title, path)| process.title.starts_with(title) && runs(path))
}

/// Deleted because a package put a new one in its place.
fn is_upgraded(program: &Program) -> bool {
    program.deleted && program.replaced && !THROWAWAY.iter().any(|folder| program.path.starts_with(folder))
}

trait StartsWithText {
    fn starts_with_text(&self, beginning: &str) -> bool;
}

impl StartsWithText for Path {
    fn starts_with_text(&self, beginning: &str) -> bool {
        self.as_os_str().as_encoded_bytes().starts_with(beginning.as_bytes())
    }
}

/// The program's own name in what it calls itself: "nginx: master process /usr/sbin/nginx" is nginx.
fn base_name(title: &str) -> &str {
    let word = title.split_whitespace().next().unwrap_or_default().trim_end_matches(':');
    if word.starts_with('[') { word } else { word.rsplit('/').next().unwrap_or(word) }
}

/// A name, whole or up to its `*`; the kernel's is cut.
fn matches(rule: &str, name: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(beginning) => !beginning.is_empty() && name.starts_with(short(beginning)),
        None => name == rule || (name.len() == NAME_BYTES && short(rule) == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(port: u16, address: &str, inode: u64) -> Listener {
        let loopback = address.contains("127.0.0.1");
        Listener { protocol: Protocol::Tcp, address: address.to_owned(), loopback, port, inode }
    }

    fn process(name: &str, program: Option<Program>) -> Process {
        let title = name.to_owned();
        Process { pid: 7, name: name.to_owned(), title, program, sockets: vec![7], ..Process::default() }
    }

    fn pve() -> Facts {
        let products = [(Product::Pve, String::new())].into();
        Facts { products, ..Facts::default() }
    }

    fn state(findings: &[CheckFinding]) -> CheckState {
        findings[0].state
    }

    #[test]
    fn a_port_is_known_by_its_number_and_by_who_holds_it() {
        let look = |port, address, name: &str, rules: &ExposureRules| {
            state(&sockets(&[listener(port, address, 7)], &[process(name, None)], rules, &pve()))
        };
        let none = ExposureRules::default();
        assert_eq!(look(8006, "::", "pveproxy worker", &none), CheckState::Ok);
        assert_eq!(look(8006, "::", "python3", &none), CheckState::Warning);
        assert_eq!(look(8006, "::ffff:127.0.0.1", "python3", &none), CheckState::Ok);
        assert_eq!(look(31337, "0.0.0.0", "sh", &none), CheckState::Problem);
        assert_eq!(look(9100, "0.0.0.0", "prometheus-node", &none), CheckState::Warning);
        let allowed = ExposureRules {
            ports: vec![(Some("prometheus-node-exporter".into()), 9100)],
            ..ExposureRules::default()
        };
        assert_eq!(look(9100, "0.0.0.0", "prometheus-node", &allowed), CheckState::Ok);
        assert_eq!(look(9100, "0.0.0.0", "sh", &allowed), CheckState::Warning);
    }

    #[test]
    fn a_process_is_known_by_its_file_and_by_the_kernels_word() {
        let program = |path: &str, deleted, replaced| Program {
            path: path.into(),
            deleted,
            replaced,
            world_writable: false,
        };
        let look = |process: Process| state(&processes(&[process], &ExposureRules::default()));
        assert_eq!(look(process("sshd", Some(program("/usr/sbin/sshd", false, true)))), CheckState::Ok);
        assert_eq!(look(process("sshd", Some(program("/usr/sbin/sshd", true, true)))), CheckState::Notice);
        assert_eq!(look(process("x", Some(program("/usr/sbin/x", true, false)))), CheckState::Problem);
        assert_eq!(look(process("x", Some(program("/tmp/x", true, true)))), CheckState::Problem);
        assert_eq!(look(process("x", Some(program("/dev/shm/x", false, true)))), CheckState::Warning);
        assert_eq!(
            look(process("runc", Some(program("/memfd:runc_cloned:/proc/self/exe", true, false)))),
            CheckState::Ok
        );
        assert_eq!(look(process("xmrig", None)), CheckState::Problem);
        let mut fake = process("kworker/0:1", None);
        fake.title = "[kworker/0:1]".into();
        assert_eq!(look(fake.clone()), CheckState::Problem);
        // The monitor of a container calls itself so; what only says that it is one does not run lxc-start.
        fake.title = "[lxc monitor] /var/lib/lxc 101".into();
        assert_eq!(look(fake.clone()), CheckState::Problem);
        fake.program = Some(program("/usr/bin/lxc-start", false, true));
        assert_eq!(look(fake.clone()), CheckState::Ok);
        fake.kernel = true;
        assert_eq!(look(fake), CheckState::Ok);
        let mut guest = process("xmrig", None);
        guest.contained = true;
        assert_eq!(look(guest), CheckState::Ok);
    }

    #[test]
    fn a_packet_filter_counts_when_it_acts() {
        let chain = |drops, rules| crate::model::exposure::Chain {
            table: "inet filter".into(),
            name: "input".into(),
            input: true,
            drops,
            rules,
        };
        let with =
            |chains: Vec<_>, pve| Firewall { nft: Some(chains), iptables: Vec::new(), pve_enabled: pve };
        assert_eq!(state(&firewall(&with(vec![chain(false, 0)], None))), CheckState::Warning);
        assert_eq!(state(&firewall(&with(vec![chain(false, 3)], None))), CheckState::Ok);
        assert_eq!(state(&firewall(&with(vec![chain(true, 0)], None))), CheckState::Ok);
        assert_eq!(state(&firewall(&with(Vec::new(), Some(true)))), CheckState::Problem);
        assert_eq!(state(&firewall(&Firewall::default())), CheckState::Notice);
    }
}
