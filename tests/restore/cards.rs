//! A host with other network cards: names are matched by addresses, or by hand, and rewritten wherever they stand.

use std::fs;

use nix::sys::signal::Signal;
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput};
use serde_json::Value;

use super::common::{Done, Shims, TestHost, golden};
use super::database::stop;
use super::{picture, tree};

/// The snapshot's one card.
const OLD: &str = "02:00:00:00:00:10";

/// This host's `ip` says other words.
struct OtherCards(&'static [(&'static str, &'static str)]);

impl Exec for OtherCards {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        let mut output = Shims { bin: golden("pve-single").join("bin") }.run(cmd)?;
        if let Some(output) = output.as_mut().filter(|_| cmd.argv[0] == "ip") {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = self.0.iter().fold(text, |text, (old, new)| text.replace(old, new));
            output.stdout = said.into_bytes();
        }
        Ok(output)
    }

    /// Its services are nobody's here, and nothing is armed.
    fn is_of_host(&self) -> bool {
        false
    }
}

/// Another mainboard: another name, another address.
const NEW_BOARD: OtherCards = OtherCards(&[("\"nic0\"", "\"enp9s0\""), (OLD, "02:00:00:00:00:99")]);

/// Only another address.
const SAME_NAME: OtherCards = OtherCards(&[(OLD, "02:00:00:00:00:99")]);

/// Where a card is named, path and text; `CARD` is its name, `ADDRESS` its address.
const NAMED: [(&str, &str); 10] = [
    (
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\n\nauto CARD\niface CARD inet manual\n\nauto bond0\niface bond0 inet manual\n\
         \tbond-slaves CARD\n\tbond-primary CARD\n\nauto vmbr0\niface vmbr0 inet static\n\taddress 192.0.2.10/24\n\
         \tbridge-ports bond0 CARD.7\n\tpost-up ethtool -K CARD gro off\n# CARD0 is another\n\
         source /etc/network/interfaces.d/*\n",
    ),
    ("etc/network/interfaces.d/vlans", "auto CARD.50\niface CARD.50 inet manual\n\tvlan-raw-device CARD\n"),
    (
        "usr/local/lib/systemd/network/50-pmx-nic0.link",
        "[Match]\nMACAddress=ADDRESS\nType=ether\n\n[Link]\nName=CARD\n",
    ),
    ("etc/systemd/network/10-a.network", "[Match]\nName=CARD\n\n[Network]\nDHCP=no\n"),
    (
        "etc/udev/rules.d/70-persistent-net.rules",
        "SUBSYSTEM==\"net\", ATTR{address}==\"ADDRESS\", NAME=\"CARD\"\n",
    ),
    ("etc/pve/firewall/cluster.fw", "[RULES]\n\nIN ACCEPT -i CARD -p tcp -dport 22\n"),
    ("etc/pve/nodes/pve1/host.fw", "[RULES]\n\nIN ACCEPT -i CARD -p udp\n# -i CARD\n"),
    ("etc/pve/sdn/fabrics.cfg", "openfabric_node: fab_pve1\n\tinterfaces name=CARD,ip=192.0.2.1/31\n"),
    ("etc/pve/sdn/controllers.cfg", "isis: isis1\n\tnode pve1\n\tisis-ifaces CARD,other\n\tloopback CARD\n"),
    ("etc/wireguard/wg0.conf", "[Interface]\nPostUp = iptables -A FORWARD -o nic0 -j ACCEPT\n"),
];

fn text(of: &str, card: &str, address: &str) -> String {
    // Comments and what only begins like it stay.
    let text = of.replace("# -i CARD", "# -i nic0").replace("CARD0", "nic00");
    text.replace("CARD", card).replace("ADDRESS", address)
}

/// Saved with nic0 named everywhere; then all of that is another.
fn host() -> TestHost {
    let host = TestHost::golden("pve-single");
    host.mount(&[]);
    for (path, of) in NAMED {
        host.write(path, text(of, "nic0", OLD));
    }
    host.run(&["backup"]);
    for lock in fs::read_dir(host.root.join("etc/pve/priv/lock")).unwrap().flatten() {
        fs::remove_dir_all(lock.path()).unwrap();
    }
    for (path, _) in NAMED {
        host.write(path, "# of the new installation\n");
    }
    host
}

fn restore(host: &TestHost, exec: OtherCards, more: &[&str]) -> Done {
    host.run_with(&[&["restore", "latest"], more].concat(), Box::new(exec))
}

#[track_caller]
fn assert_named(host: &TestHost, card: &str, address: &str) {
    for (path, of) in NAMED {
        let is = fs::read_to_string(host.root.join(path)).unwrap();
        let should = text(of, card, address);
        assert_eq!(is, should, "{path}");
    }
}

fn told(plan: &Value, list: &str, key: &str) -> String {
    let all = plan[list].as_array().unwrap().iter().filter_map(|one| one[key].as_str());
    all.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_card_of_another_name_is_renamed_wherever_it_stands_and_undone() {
    const RENAMED: OtherCards = OtherCards(&[("\"nic0\"", "\"enp5s0\"")]);
    let host = host();
    let before = picture(&host);
    let plan = restore(&host, RENAMED, &["--dry-run"]).ok();
    assert!(
        plan.out.contains("/etc/network/interfaces: nic0 is enp5s0 here (6 places rewritten)"),
        "{}",
        plan.out
    );
    assert!(plan.out.contains("/etc/wireguard/wg0.conf: names nic0, which is enp5s0 here: check it"));
    let done = restore(&host, RENAMED, &["--yes"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    assert_named(&host, "enp5s0", OLD);
    let again = restore(&host, RENAMED, &["--dry-run", "--json"]).ok().json();
    assert_eq!(again["steps"], serde_json::json!([]));
    host.run_with(&["undo"], Box::new(RENAMED)).ok();
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn a_card_that_no_address_matches_is_a_thing_to_do_by_hand_and_stops_what_needs_it() {
    let host = host();
    let before = picture(&host);
    let plan = restore(&host, NEW_BOARD, &["--dry-run", "--json"]).ok().json();
    let advice = told(&plan, "advice", "text");
    assert!(
        advice.contains(
            "the snapshot's NIC nic0 (02:00:00:00:00:10) is not here under any name; name the NIC that \
             replaces it: this host has enp9s0 (02:00:00:00:00:99)"
        ),
        "{advice}"
    );
    assert!(plan.to_string().contains("pbx-config restore pve1/2026-11-22T15:17:40Z --nic nic0=enp9s0"));
    let refused = told(&plan, "refused", "path");
    assert!(refused.contains("etc/network/interfaces") && refused.contains("50-pmx-nic0.link"), "{refused}");
    assert!(told(&plan, "refused", "hint").contains("for example with --nic nic0=enp9s0"), "{plan}");
    let asked =
        restore(&host, NEW_BOARD, &["--only", "network,network-links", "--yes"]).exits(Exit::Problems);
    assert!(asked.out.contains("no NIC here has that MAC address"), "{}", asked.out);
    // What hangs on no address is not held up, but the names of cards are as they were.
    for path in ["etc/network/interfaces", "usr/local/lib/systemd/network/50-pmx-nic0.link"] {
        assert_eq!(fs::read_to_string(host.root.join(path)).unwrap(), "# of the new installation\n");
    }
    host.run_with(&["undo"], Box::new(NEW_BOARD));
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn a_card_that_is_matched_by_hand_has_its_name_and_its_address_everywhere() {
    let host = host();
    let before = picture(&host);
    let plan = restore(&host, NEW_BOARD, &["--nic", "nic0=enp9s0", "--dry-run"]).ok();
    assert!(
        plan.out.contains("/etc/network/interfaces: nic0 is enp9s0 here (6 places rewritten)"),
        "{}",
        plan.out
    );
    assert!(
        plan.out.contains(
            "/usr/local/lib/systemd/network/50-pmx-nic0.link: it has the MAC addresses of the NICs"
        ),
        "{}",
        plan.out
    );
    assert!(!plan.out.contains("is not here under any name"), "{}", plan.out);
    let done = restore(&host, NEW_BOARD, &["--nic", "nic0=enp9s0", "--yes"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    assert_named(&host, "enp9s0", "02:00:00:00:00:99");
    host.run_with(&["undo"], Box::new(NEW_BOARD)).ok();
    tree::assert_same(&picture(&host), &before);

    // The new card has the old name: only the address is another.
    let done = restore(&host, SAME_NAME, &["--nic", "nic0=nic0", "--yes"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    assert_named(&host, "nic0", "02:00:00:00:00:99");
    host.run_with(&["undo"], Box::new(SAME_NAME)).ok();
    tree::assert_same(&picture(&host), &before);

    // A saved plan keeps it.
    let file = host.beside("plan.json").display().to_string();
    restore(&host, NEW_BOARD, &["--nic", "nic0=enp9s0", "--plan", &file]).ok();
    let done = host.run_with(&["restore", "--apply", &file, "--yes"], Box::new(NEW_BOARD));
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    assert_named(&host, "enp9s0", "02:00:00:00:00:99");
}

#[test]
fn within_the_database_cards_are_renamed_just_as_file_by_file() {
    let host = host();
    stop(&host, Signal::SIGTERM);
    let args = ["--recover", "--database", "--only", "pve-database", "--nic", "nic0=enp9s0"];
    let plan = restore(&host, NEW_BOARD, &[&args[..], &["--dry-run"]].concat()).ok();
    let note = "/etc/pve/firewall/cluster.fw: nic0 is enp9s0 here (1 place rewritten)";
    assert!(plan.out.contains(note), "{}", plan.out);
    let without = restore(&host, NEW_BOARD, &[&args[..4], &["--dry-run"]].concat()).ok();
    assert!(without.out.contains("name the NIC that replaces it: this host has enp9s0"), "{}", without.out);
    let wrong = [&args[..5], &["nic7=enp9s0", "--dry-run"]].concat();
    restore(&host, NEW_BOARD, &wrong).exits(Exit::Usage);
    let done = restore(&host, NEW_BOARD, &[&args[..], &["--yes"]].concat());
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    host.mount(&[]);
    for (path, of) in NAMED.iter().filter(|(path, _)| path.starts_with("etc/pve/")) {
        let is = fs::read_to_string(host.root.join(path)).unwrap();
        assert_eq!(is, text(of, "enp9s0", "02:00:00:00:00:99"), "{path}");
    }
}

#[test]
fn cards_that_are_not_there_are_refused_on_either_side() {
    let host = host();
    let before = picture(&host);
    for (words, said) in [
        (
            &["--nic", "nic7=enp9s0"][..],
            "--nic nic7=enp9s0: the snapshot has no NIC 'nic7'\nhint: it had nic0 (",
        ),
        (
            &["--nic", "nic0=enp8s0"],
            "--nic nic0=enp8s0: this host has no NIC 'enp8s0'\nhint: here are enp9s0 (",
        ),
        (&["--nic", "nic0"], "--nic 'nic0' is not OLD=NEW"),
        (&["--nic", "nic0=enp9s0", "--nic", "nic0=nic0"], "--nic gives 'nic0' two names"),
        (&["--nic", "nic0=enp9s0", "--nic", "bond0=enp9s0"], "--nic gives two NICs the name 'enp9s0'"),
        (&["--nic", "nic0=enp9s0", "--only", "cron"], "no selected file contains the name of a NIC"),
    ] {
        let done = restore(&host, NEW_BOARD, &[words, &["--yes"]].concat()).exits(Exit::Usage);
        assert!(done.err.contains(said), "{words:?}: {}", done.err);
        assert_eq!(done.err.lines().count(), 2, "{}", done.err);
    }
    tree::assert_same(&picture(&host), &before);
}
