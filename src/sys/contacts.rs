//! Who reads mail on this host: addresses as Proxmox and Debian keep them. Nothing is sent here.

use super::files;
use super::host::Host;
use super::pmxcfs;
use crate::model::facts::Product;
use crate::model::section;

/// Below /etc/pve.
const PVE_USERS: &str = "user.cfg";
const PBS_USERS: &str = "/etc/proxmox-backup/user.cfg";
const MAIL_NAME: &str = "/etc/mailname";
const USERS_MAX_BYTES: u64 = 4 << 20;
const ROOT: &str = "root@pam";

/// Root's address as the products' users tell it.
pub fn root_address(host: &Host) -> Option<String> {
    [Product::Pve, Product::Pbs].into_iter().find_map(|product| address(host, product, ROOT))
}

/// The address of `user@realm` in a product; None also where it cannot be read.
pub fn address(host: &Host, product: Product, user: &str) -> Option<String> {
    if !host.facts.has(product) {
        return None;
    }
    let found = match product {
        Product::Pve => {
            let data = pmxcfs::files(host, &[PVE_USERS]).ok()?.into_iter().next().flatten()?;
            in_pve(&String::from_utf8_lossy(&data), user)
        }
        Product::Pbs => {
            let data = files::read_small(host.root(), PBS_USERS, USERS_MAX_BYTES).ok()?;
            in_pbs(&String::from_utf8_lossy(&data), user)
        }
    };
    found.filter(|address| !address.is_empty())
}

/// `user:ID:enable:expire:first:last:email:comment:keys:`
fn in_pve(text: &str, user: &str) -> Option<String> {
    let mut users = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = users.find(|fields| fields.first() == Some(&"user") && fields.get(1) == Some(&user))?;
    fields.get(6).map(|address| percent_decoded(address))
}

fn in_pbs(text: &str, user: &str) -> Option<String> {
    let sections = section::parse(PBS_USERS, text).ok()?;
    let section = sections.iter().find(|section| section.kind == "user" && section.id == user)?;
    section.get("email").map(str::to_owned)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let pair = more.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands behind the @ of local mail.
pub fn mail_domain(host: &Host) -> String {
    const MAX_BYTES: u64 = 4096;
    let text = files::read_small(host.root(), MAIL_NAME, MAX_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map_or_else(|| host.facts.node.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_address_is_found_in_both_grammars() {
        let pve = "user:mara@pve:1:0:::x@y:::\nuser:root@pam:1:0:A:B:ad%2Bmin@example.org:c::\n";
        assert_eq!(in_pve(pve, ROOT).as_deref(), Some("ad+min@example.org"));
        assert_eq!(in_pve("user:root@pam:1:0", ROOT), None);
        let pbs = "user: root@pam\n\temail admin@example.org\n\tenable true\n";
        assert_eq!(in_pbs(pbs, ROOT).as_deref(), Some("admin@example.org"));
        assert_eq!(in_pbs("user: x@pbs\n\temail a@b\n", ROOT), None);
    }
}
