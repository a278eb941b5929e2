//! The same NICs under other names: those that the snapshot knows are matched by MAC address with those
//! that are here, and a changed name is put wherever the network's files say the old one. No I/O.
//! Not here: where names stand (`catalog::restore::references`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::references::{Pair, matches, mentions, references, splice};
use crate::catalog::restore::references::{
    CARD_NAMES, PORT_KEYS, START_KEYS, is_interfaces, is_link_file, names_cards, tells_addresses,
};
use crate::model::problem::{Fault, FaultKind};
use crate::model::units::counted;
use crate::plan::restore::objects::config_edit;

/// Kinds of links that `ip -d` tells and that are no hardware; names that the product gives to such links.
const NO_CARD_PREFIXES: [&str; 12] =
    ["lo", "vmbr", "bond", "tap", "veth", "fwbr", "fwpr", "fwln", "vlan", "wg", "docker", "br-"];

/// A physical NIC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    pub name: String,
    /// Lower case, with colons.
    pub mac: String,
}

/// Pairs of names: a NIC's name in the snapshot and its name on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cards {
    /// OLD to NEW, where they differ.
    pub renamed: Vec<Pair>,
    /// NICs of the snapshot that are not here.
    pub missing: Vec<Card>,
    /// Here, and not of the snapshot.
    pub new: Vec<Card>,
    /// NICs of the snapshot that are here under the same name.
    pub same: Vec<String>,
    /// Addresses, old to new, of those that somebody matched by hand.
    pub addresses: Vec<Pair>,
}

/// A file of the network as it comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapted {
    pub content: Vec<u8>,
    pub notes: Vec<String>,
    /// Why it must not come back at all: the host would be cut off.
    pub skip_reason: Option<String>,
}

/// Reports whether a file, by its path, may name NICs.
pub fn reads(path: &str) -> bool {
    names_cards(path) || CARD_NAMES.iter().any(|row| matches(row.path, path))
}

/// Reads the hardware NICs from the output of `ip -d -j link show`. Text that is not its JSON has none.
pub fn cards(json: &[u8]) -> Vec<Card> {
    #[derive(Deserialize)]
    struct Link {
        ifname: String,
        #[serde(default, rename = "link_type")]
        medium: String,
        #[serde(default)]
        address: String,
        /// The own address of a NIC in a bond, whose address is the bond's.
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
        let mut lines = config_edit::lines(text).filter_map(|at| std::str::from_utf8(&text[at]).ok());
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

    /// Adds the pairs of `--nic`, which no address tells; they count more than an address does. `live` is None when
    /// the cards of this host are not known. `names` tells whether a file that comes back says a name.
    ///
    /// Errors: `Usage` for a card that is not there, on either side, and for one that would be two.
    pub fn by_hand(
        mut self,
        old: &[Card],
        live: Option<&[Card]>,
        pairs: &[Pair],
        names: impl Fn(&str) -> bool,
    ) -> Result<Self, Fault> {
        for (number, pair) in pairs.iter().enumerate() {
            check_alone(pair, &pairs[number + 1..])?;
            check_known(pair, old, live, &names)?;
            if live.is_some() {
                self.check_free(pair, pairs)?;
            }
        }

        self.renamed.retain(|(from, _)| !is_given(pairs, from));
        self.missing.retain(|card| !is_given(pairs, &card.name));
        self.same.retain(|name| !is_given(pairs, name));
        self.new.retain(|card| !pairs.iter().any(|(_, to)| *to == card.name));

        for (from, to) in pairs {
            if from == to {
                self.same.push(from.clone());
            } else {
                self.renamed.push((from.clone(), to.clone()));
            }
            if let (Some(was), Some(is)) = (address(old, from), address(live.unwrap_or_default(), to))
                && was != is
            {
                self.addresses.push((was, is));
            }
        }
        Ok(self)
    }

    /// Errors: `Usage` when another card of the snapshot has the new one by its address, and no pair moves it away.
    fn check_free(&self, (from, to): &Pair, pairs: &[Pair]) -> Result<(), Fault> {
        let by_address = |(other, new): &&Pair| new == to && other != from && !is_given(pairs, other);
        let taken = self.renamed.iter().find(by_address).map(|(other, _)| other);
        let taken = taken.or_else(|| self.same.iter().find(|same| *same == to && !is_given(pairs, same)));
        let Some(other) = taken.filter(|other| *other != from) else { return Ok(()) };
        let what = format!("--nic {from}={to}: by its MAC address {to} is {other} of the snapshot");
        Err(usage(what, format!("also name the NIC that replaces {other}: --nic {other}=NAME")))
    }

    /// Returns the manual steps for the NICs that are missing and that `names` tells are needed.
    pub fn to_be_matched(&self, snapshot: &str, names: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let here: Vec<String> = self.new.iter().map(shown).collect();
        let here = if here.is_empty() { "no other".to_owned() } else { here.join(", ") };
        let one = |card: &Card| {
            let text = format!(
                "the snapshot's NIC {} is not here under any name; name the NIC that replaces it: this host has {here}",
                shown(card)
            );
            let to = self.new.first().map_or("CARD", |card| card.name.as_str());
            (text, format!("pbx-config restore {snapshot} --nic {}={to}", card.name))
        };
        self.missing.iter().filter(|card| names(&card.name)).map(one).collect()
    }

    /// Returns the file with the names of this host. `path` is relative to the root.
    pub fn adapt(&self, path: &str, content: &[u8]) -> Adapted {
        let mut notes = Vec::new();
        let skip_reason = is_interfaces(path).then(|| self.cut_off(content)).flatten();
        let skip_reason = skip_reason.or_else(|| self.of_no_card(path, content));
        let (content, places) = references(path, content, CARD_NAMES, &self.renamed);
        let (content, addresses) =
            if tells_addresses(path) { replaced(content, &self.addresses) } else { (content, 0) };
        if addresses > 0 {
            notes.push("it has the MAC addresses of the NICs that are here".to_owned());
        }

        if places > 0 {
            let pairs: Vec<String> =
                self.renamed.iter().map(|(old, new)| format!("{old} is {new} here")).collect();
            let places = counted(places, "place");
            notes.push(format!("{} ({places} rewritten)", pairs.join(", ")));
        } else if names_cards(path) {
            let named = self.renamed.iter().filter(|(old, _)| mentions(&content, old));
            notes.extend(named.map(|(old, new)| format!("names {old}, which is {new} here: check it")));
        }
        Adapted { content, notes, skip_reason }
    }

    /// Returns why to skip a .link file: at the next boot it would take the name of a card that is here away.
    fn of_no_card(&self, path: &str, content: &[u8]) -> Option<String> {
        let card = linked(content).filter(|_| is_link_file(path))?;
        let is_missing = self.missing.iter().any(|missing| missing.mac == card.mac);
        is_missing.then(|| format!("it names the NIC {}, which is not here", shown(&card)))
    }

    /// Returns why to skip a file: it needs cards that are not here under any name.
    fn cut_off(&self, content: &[u8]) -> Option<String> {
        let needed = needed(content);
        let missing: Vec<String> =
            self.missing.iter().filter(|card| needed.contains(&card.name)).map(shown).collect();
        if missing.is_empty() {
            return None;
        }
        let here: Vec<String> = self.new.iter().map(shown).collect();
        let others = if here.is_empty() {
            "this host has no other NIC".to_owned()
        } else {
            format!("here are {}", here.join(", "))
        };
        Some(format!("it needs {}, and no NIC here has that MAC address; {others}", missing.join(", ")))
    }
}

fn usage(what: String, hint: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Usage, what).hint(hint)
}

/// Errors: `Usage` when a later pair has the same card, on either side.
fn check_alone((from, to): &Pair, rest: &[Pair]) -> Result<(), Fault> {
    if rest.iter().any(|(other, _)| other == from) {
        return Err(usage(format!("--nic gives '{from}' two names"), "use each NIC once"));
    }
    if rest.iter().any(|(_, other)| other == to) {
        return Err(usage(format!("--nic gives two NICs the name '{to}'"), "use each NIC once"));
    }
    Ok(())
}

/// Errors: `Usage` for a card that is not there, on either side.
fn check_known(
    (from, to): &Pair,
    old: &[Card],
    live: Option<&[Card]>,
    names: &impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    if !old.iter().any(|card| card.name == *from) && !names(from) {
        let hint = if old.is_empty() {
            "no restored file contains it".to_owned()
        } else {
            format!("it had {}", all_shown(old))
        };
        return Err(usage(format!("--nic {from}={to}: the snapshot has no NIC '{from}'"), hint));
    }
    match live {
        Some(live) if !live.iter().any(|card| card.name == *to) => {
            let hint = format!("here are {}", all_shown(live));
            Err(usage(format!("--nic {from}={to}: this host has no NIC '{to}'"), hint))
        }
        _ => Ok(()),
    }
}

fn is_given(pairs: &[Pair], name: &str) -> bool {
    pairs.iter().any(|(from, _)| from == name)
}

fn address(cards: &[Card], name: &str) -> Option<String> {
    cards.iter().find(|card| card.name == name).map(|card| card.mac.clone())
}

fn all_shown(cards: &[Card]) -> String {
    cards.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn shown(card: &Card) -> String {
    format!("{} ({})", card.name, card.mac)
}

/// Returns the text with the new addresses, in whatever case and with whatever between the bytes the old ones stand.
fn replaced(text: Vec<u8>, pairs: &[Pair]) -> (Vec<u8>, usize) {
    if pairs.is_empty() {
        return (text, 0);
    }
    let shown = match String::from_utf8(text) {
        Ok(shown) => shown,
        Err(error) => return (error.into_bytes(), 0),
    };
    let plain = shown.to_ascii_lowercase().replace('-', ":");
    let mut edits = Vec::new();
    for (old, new) in pairs {
        edits.extend(plain.match_indices(old.as_str()).map(|(at, _)| (at..at + old.len(), new.clone())));
    }
    let places = edits.len();
    (splice(shown.as_bytes(), edits), places)
}

/// Lists the cards below everything that an interfaces file brings up: `bridge-ports nic0.5` needs nic0.
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
            assert_eq!(adapted.skip_reason, None, "{path}");
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
        assert_eq!(wireguard.notes, ["names nic2, which is enp9s0 here: check it"]);
        assert!(wireguard.content.ends_with(b"-o nic2 -j ACCEPT\n"));
    }

    #[test]
    fn a_file_that_needs_a_card_that_is_not_here_is_refused_with_the_cards_that_are() {
        let cards =
            Cards::compare(&[card("nic0", 1), card("nic1", 2)], &[card("enp1s0", 7), card("nic9", 2)]);
        let text = b"auto lo vmbr0\niface nic0 inet manual\niface vmbr0 inet static\n\tbridge-ports nic0.7\n";
        let skip_reason = cards.adapt("etc/network/interfaces", text).skip_reason.unwrap();
        assert_eq!(
            skip_reason,
            "it needs nic0 (02:00:00:00:00:01), and no NIC here has that MAC address; here are enp1s0 (02:00:00:00:00:07)"
        );
        // Not brought up, so nothing is cut off.
        let idle = b"auto lo\niface nic0 inet manual\n";
        assert_eq!(cards.adapt("etc/network/interfaces", idle).skip_reason, None);
        assert_eq!(cards.adapt("etc/pve/sdn/fabrics.cfg", text).skip_reason, None);
    }

    #[test]
    fn what_is_matched_by_hand_counts_more_than_an_address() {
        let old = [card("nic0", 1), card("nic1", 2), card("nic2", 3)];
        let live = [card("enp1s0", 9), card("enp2s0", 2), card("nic2", 3)];
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        let by_hand = |pairs: &[Pair]| {
            Cards::compare(&old, &live).by_hand(&old, Some(&live), pairs, |name| name == "usb0")
        };
        let cards = by_hand(&[pair("nic0", "enp1s0")]).unwrap();
        assert_eq!(cards.renamed, [pair("nic1", "enp2s0"), pair("nic0", "enp1s0")]);
        assert_eq!((cards.missing, cards.new, cards.same), (vec![], vec![], vec!["nic2".to_owned()]));
        assert_eq!(cards.addresses, [pair("02:00:00:00:00:01", "02:00:00:00:00:09")]);
        // Two are swapped against what their addresses say.
        let cards = by_hand(&[pair("nic1", "nic2"), pair("nic2", "enp2s0")]).unwrap();
        assert_eq!(cards.renamed, [pair("nic1", "nic2"), pair("nic2", "enp2s0")]);
        for (pairs, said) in [
            (&[pair("nic0", "enp2s0")][..], "by its MAC address enp2s0 is nic1 of the snapshot"),
            (&[pair("nic0", "nic2")], "by its MAC address nic2 is nic2 of the snapshot"),
            (&[pair("nic9", "enp1s0")], "the snapshot has no NIC 'nic9'"),
            (&[pair("nic0", "enp9s0")], "this host has no NIC 'enp9s0'"),
        ] {
            let fault = by_hand(pairs).unwrap_err();
            assert!(fault.message.contains(said), "{said}: {}", fault.message);
        }
        // One that was pulled out when the snapshot was made, and that files name.
        assert!(by_hand(&[pair("usb0", "enp1s0")]).is_ok());
        // Nobody knows the cards of a system that is only mounted here.
        let unknown = Cards::default().by_hand(&old, None, &[pair("nic0", "x")], |_| false).unwrap();
        assert_eq!((unknown.renamed, unknown.addresses), (vec![pair("nic0", "x")], vec![]));
    }

    #[test]
    fn an_address_that_two_cards_have_tells_neither() {
        let cards = Cards::compare(&[card("nic0", 1)], &[card("a", 1), card("b", 1)]);
        assert_eq!(cards.missing, [card("nic0", 1)]);
        assert!(Cards::compare(&[card("nic0", 1)], &[card("nic0", 1)]).missing.is_empty());
    }
}
