//! The same cards under other names: what the snapshot knows of its cards is matched by MAC address with the cards
//! that are here, and a changed name is put wherever the network's files say the old one. No I/O.
//! Not here: where names stand (`catalog::references`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::pieces;
use super::relocate::{Pair, matches, references, words};
use crate::catalog::references::{CARD_NAMES, PORT_KEYS, START_KEYS, is_interfaces, names_cards};

/// Kinds of links that `ip -d` tells and that are no hardware; names that the product gives to such links.
const NO_CARD_PREFIXES: [&str; 12] =
    ["lo", "vmbr", "bond", "tap", "veth", "fwbr", "fwpr", "fwln", "vlan", "wg", "docker", "br-"];

/// A piece of hardware.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    pub name: String,
    /// Lower case, with colons.
    pub mac: String,
}

/// How the names of a snapshot become the names of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cards {
    /// OLD to NEW, where they differ.
    pub renamed: Vec<Pair>,
    /// Of the snapshot, and not here.
    pub missing: Vec<Card>,
    /// Here, and not of the snapshot.
    pub new: Vec<Card>,
    /// Of the snapshot, here under the same name.
    pub same: Vec<String>,
}

/// A file of the network as it comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapted {
    pub content: Vec<u8>,
    pub notes: Vec<String>,
    /// Why it must not come back at all: the host would be cut off.
    pub refused: Option<String>,
}

/// Whether a file, by its path, may name cards.
pub fn reads(path: &str) -> bool {
    names_cards(path) || CARD_NAMES.iter().any(|row| matches(row.path, path))
}

/// What `ip -d -j link show` says, of hardware only. Text that is not its JSON has no cards.
pub fn cards(json: &[u8]) -> Vec<Card> {
    #[derive(Deserialize)]
    struct Link {
        ifname: String,
        #[serde(default, rename = "link_type")]
        medium: String,
        #[serde(default)]
        address: String,
        /// Of a card in a bond, whose address is the bond's.
        permaddr: Option<String>,
        linkinfo: Option<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        info_kind: Option<String>,
    }
    let links: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
    // One odd link hides no other.
    let links = links.into_iter().filter_map(|link| serde_json::from_value::<Link>(link).ok());
    let hardware = links.filter(|link| {
        let is_made = link.linkinfo.as_ref().is_some_and(|info| info.info_kind.is_some());
        let is_named_so = NO_CARD_PREFIXES.iter().any(|start| link.ifname.starts_with(start));
        link.medium == "ether" && !is_made && !is_named_so && !link.ifname.contains(['.', '@'])
    });
    let mut cards: Vec<Card> = Vec::new();
    for link in hardware {
        let card = Card { mac: mac(link.permaddr.as_deref().unwrap_or(&link.address)), name: link.ifname };
        // A bridge has the address of its first port, and comes after it.
        if !card.mac.is_empty() && !cards.iter().any(|other| other.mac == card.mac) {
            cards.push(card);
        }
    }
    cards
}

fn mac(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase().replace('-', ":");
    let is_mac = text.split(':').count() == 6
        && text.split(':').all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok());
    // Without an address a card cannot be told from another.
    if is_mac && text != "00:00:00:00:00:00" { text } else { String::new() }
}

/// The card that a .link file names by its MAC address.
pub fn linked(text: &[u8]) -> Option<Card> {
    let value = |keys: &[&str]| {
        let mut lines = pieces::lines(text).filter_map(|at| std::str::from_utf8(&text[at]).ok());
        lines.find_map(|line| {
            let (key, value) = line.split_once('=')?;
            keys.contains(&key.trim()).then(|| value.trim().to_owned())
        })
    };
    let card = Card { name: value(&["Name"])?, mac: mac(&value(&["MACAddress", "PermanentMACAddress"])?) };
    (!card.mac.is_empty() && !card.name.is_empty()).then_some(card)
}

impl Cards {
    /// `old` are the snapshot's, from its record of links and its .link files; the first of a name counts.
    pub fn compare(old: &[Card], live: &[Card]) -> Self {
        let mut cards = Self::default();
        let mut seen = BTreeSet::new();
        let once = |list: &[Card], mac: &str| list.iter().filter(|card| card.mac == mac).count() == 1;
        for card in old.iter().filter(|card| seen.insert(card.name.as_str())) {
            let here = live.iter().find(|other| other.mac == card.mac && once(live, &card.mac));
            match here {
                Some(here) if here.name == card.name => cards.same.push(card.name.clone()),
                Some(here) => cards.renamed.push((card.name.clone(), here.name.clone())),
                None => cards.missing.push(card.clone()),
            }
        }
        cards.new =
            live.iter().filter(|card| !old.iter().any(|other| other.mac == card.mac)).cloned().collect();
        cards
    }

    /// Nothing has to be rewritten, and nothing is missing.
    pub fn is_same(&self) -> bool {
        self.renamed.is_empty() && self.missing.is_empty()
    }

    /// The file with the names of this host. `path` is relative to the root.
    pub fn adapt(&self, path: &str, content: &[u8]) -> Adapted {
        let mut notes = Vec::new();
        let (content, places) = references(path, content, CARD_NAMES, &self.renamed);
        if places > 0 {
            let pairs: Vec<String> =
                self.renamed.iter().map(|(old, new)| format!("{old} is {new} here")).collect();
            notes.push(format!("{} ({places} places rewritten)", pairs.join(", ")));
        } else if names_cards(path) {
            let named = self.renamed.iter().filter(|(old, _)| mentions(&content, old));
            notes.extend(named.map(|(old, new)| format!("names {old}, which is {new} here: look at it")));
        }
        let refused = is_interfaces(path).then(|| self.cut_off(&content)).flatten();
        Adapted { content, notes, refused }
    }

    /// Cards that the file needs and that are not here under any name.
    fn cut_off(&self, content: &[u8]) -> Option<String> {
        let needed = needed(content);
        let missing: Vec<String> = self
            .missing
            .iter()
            .filter(|card| {
                needed.contains(&card.name) && !self.renamed.iter().any(|(_, new)| *new == card.name)
            })
            .map(shown)
            .collect();
        if missing.is_empty() {
            return None;
        }
        let here: Vec<String> = self.new.iter().map(shown).collect();
        let others = if here.is_empty() {
            "no other card is here".to_owned()
        } else {
            format!("here are {}", here.join(", "))
        };
        Some(format!("it needs {}, and no card here has that address; {others}", missing.join(", ")))
    }
}

fn shown(card: &Card) -> String {
    format!("{} ({})", card.name, card.mac)
}

fn mentions(content: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(content);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.any(|line| words(line, is_name).any(|at| &line[at] == name))
}

/// The cards below everything that an interfaces file brings up: `bridge-ports nic0.5` needs nic0.
fn needed(content: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(content);
    let mut needed = BTreeSet::new();
    let mut started: BTreeSet<&str> = BTreeSet::new();
    let mut ports: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut iface = "";
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            key if START_KEYS.contains(&key) => started.extend(words),
            "iface" => iface = words.next().unwrap_or_default(),
            key if PORT_KEYS.contains(&key) => ports.entry(iface).or_default().extend(words),
            _ => {}
        }
    }
    let mut todo: Vec<&str> = started.into_iter().collect();
    while let Some(name) = todo.pop() {
        if needed.insert(name.to_owned()) {
            todo.extend(ports.get(name).into_iter().flatten());
            todo.extend(name.split_once(['.', ':']).map(|(card, _)| card));
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn card(name: &str, last: u8) -> Card {
        Card { name: name.to_owned(), mac: format!("02:00:00:00:00:{last:02x}") }
    }

    #[test]
    fn hardware_is_told_from_what_is_made_of_it() {
        let json = br#"[{"ifname":"lo","link_type":"loopback","address":"00:00:00:00:00:00"},
            {"ifname":"eno1","link_type":"ether","address":"02:00:00:00:00:09","permaddr":"02:00:00:00:00:01"},
            {"ifname":"enp3s0","link_type":"ether","address":"02:00:00:00:00:02","linkinfo":{}},
            {"ifname":"cluster0","link_type":"ether","address":"02:00:00:00:00:02","linkinfo":{"info_kind":"bridge"}},
            {"ifname":"vmbr0","link_type":"ether","address":"02:00:00:00:00:02"},
            {"ifname":"lan","link_type":"ether","address":"02:00:00:00:00:02"},
            {"ifname":"eno1.5","link_type":"ether","address":"02:00:00:00:00:01"},
            {"ifname":"wg0","link_type":"none"}, {"odd":1}, 7]"#;
        assert_eq!(cards(json), [card("eno1", 1), card("enp3s0", 2)]);
        assert_eq!(cards(b"nonsense"), []);
        let link = b"[Match]\r\nMACAddress=02-00-00-00-00-0A\nType=ether\n\n[Link]\nName=nic0\n";
        assert_eq!(linked(link), Some(card("nic0", 10)));
        assert_eq!(linked(b"[Match]\nOriginalName=*\n[Link]\nNamePolicy=keep\n"), None);
    }

    #[test]
    fn a_changed_name_is_rewritten_wherever_it_stands_and_two_may_swap() {
        let old = [card("nic0", 1), card("nic1", 2), card("nic2", 3)];
        let live = [card("nic1", 1), card("nic0", 2), card("enp9s0", 3), card("enp1s0", 9)];
        let cards = Cards::compare(&old, &live);
        assert_eq!(cards.missing, []);
        assert_eq!(cards.new, [card("enp1s0", 9)]);
        let adapted = |path: &str, text: &str| {
            let adapted = cards.adapt(path, text.as_bytes());
            assert_eq!(adapted.refused, None, "{path}");
            String::from_utf8(adapted.content).unwrap()
        };
        assert_eq!(
            adapted(
                "etc/network/interfaces",
                "# nic0 is the uplink\nauto nic0 nic0.100\niface nic0 inet manual\n\tpost-up ethtool -K nic0 gro off\n\
                 iface vmbr0 inet static\n\taddress 192.0.2.10/24\n\tbridge-ports nic0.100 nic1\n\tbond-slaves nic2 nic20\n\
                 \tvlan-raw-device nic1\n\tbond-primary nic2\niface nic1:0 inet manual\n"
            ),
            "# nic0 is the uplink\nauto nic1 nic1.100\niface nic1 inet manual\n\tpost-up ethtool -K nic1 gro off\n\
             iface vmbr0 inet static\n\taddress 192.0.2.10/24\n\tbridge-ports nic1.100 nic0\n\tbond-slaves enp9s0 nic20\n\
             \tvlan-raw-device nic0\n\tbond-primary enp9s0\niface nic0:0 inet manual\n"
        );
        assert_eq!(
            adapted(
                "usr/local/lib/systemd/network/50-pmx-nic0.link",
                "[Match]\nMACAddress=02:00:00:00:00:01\n[Link]\nName=nic0\n"
            ),
            "[Match]\nMACAddress=02:00:00:00:00:01\n[Link]\nName=nic1\n"
        );
        assert_eq!(
            adapted("etc/pve/sdn/fabrics.cfg", "openfabric_node: f_pve1\n\tinterfaces name=nic2\n"),
            "openfabric_node: f_pve1\n\tinterfaces name=enp9s0\n"
        );
        assert_eq!(
            adapted("etc/pve/nodes/a/host.fw", "IN ACCEPT -i nic0 -p tcp\n#-i nic0\n"),
            "IN ACCEPT -i nic1 -p tcp\n#-i nic0\n"
        );
        let wireguard =
            cards.adapt("etc/wireguard/wg0.conf", b"PostUp = iptables -A FORWARD -o nic2 -j ACCEPT\n");
        assert_eq!(wireguard.notes, ["names nic2, which is enp9s0 here: look at it"]);
        assert!(wireguard.content.ends_with(b"-o nic2 -j ACCEPT\n"));
    }

    #[test]
    fn a_file_that_needs_a_card_that_is_not_here_is_refused_with_the_cards_that_are() {
        let cards =
            Cards::compare(&[card("nic0", 1), card("nic1", 2)], &[card("enp1s0", 7), card("nic9", 2)]);
        let text = b"auto lo vmbr0\niface nic0 inet manual\niface vmbr0 inet static\n\tbridge-ports nic0.7\n";
        let refused = cards.adapt("etc/network/interfaces", text).refused.unwrap();
        assert_eq!(
            refused,
            "it needs nic0 (02:00:00:00:00:01), and no card here has that address; here are enp1s0 (02:00:00:00:00:07)"
        );
        // Not brought up, so nothing is cut off.
        let idle = b"auto lo\niface nic0 inet manual\n";
        assert_eq!(cards.adapt("etc/network/interfaces", idle).refused, None);
        assert_eq!(cards.adapt("etc/pve/sdn/fabrics.cfg", text).refused, None);
    }

    #[test]
    fn an_address_that_two_cards_have_tells_neither() {
        let cards = Cards::compare(&[card("nic0", 1)], &[card("a", 1), card("b", 1)]);
        assert_eq!(cards.missing, [card("nic0", 1)]);
        assert!(Cards::compare(&[card("nic0", 1)], &[card("nic0", 1)]).is_same());
    }
}
