//! Who wants to hear of this host, as Proxmox and Debian keep it: addresses, notification targets, the spool that
//! tells them. What is told, and whom, is not decided here.

use anyhow::{Context, Result};

use super::fs::files;
use super::host::Host;
use super::pmxcfs;
use crate::model::facts::Product;

/// Below /etc/pve.
const PVE_USERS: &str = "user.cfg";
const PBS_USERS: &str = "/etc/proxmox-backup/user.cfg";
/// Below /etc/pve.
const PVE_NOTIFICATIONS: [&str; 2] = ["notifications.cfg", "priv/notifications.cfg"];
const PBS_NOTIFICATIONS: [&str; 2] =
    ["/etc/proxmox-backup/notifications.cfg", "/etc/proxmox-backup/notifications-priv.cfg"];
/// Below /etc/pve.
const PVE_OPTIONS: &str = "datacenter.cfg";
const PBS_OPTIONS: &str = "/etc/proxmox-backup/node.cfg";
/// The privileged daemon of PBS looks for `*.json` in it every few seconds.
const PBS_SPOOL: &str = "/var/lib/proxmox-backup/notifications";
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

/// Returns the sender of a product's mails; None unless its administrator has set one.
pub fn mail_from(host: &Host, product: Product) -> Option<String> {
    let (data, key) = match product {
        Product::Pve => {
            (pmxcfs::files(host, &[PVE_OPTIONS]).ok()?.into_iter().next().flatten()?, "email_from")
        }
        Product::Pbs => (files::read_small(host.root(), PBS_OPTIONS, USERS_MAX_BYTES).ok()?, "email-from"),
    };
    let text = String::from_utf8_lossy(&data);
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == key)?.1.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A product's notification configuration, the public and the private part; empty what is not there.
pub fn notifications(host: &Host, product: Product) -> Result<(String, String)> {
    let found: Vec<Option<Vec<u8>>> = match product {
        Product::Pve => pmxcfs::files(host, &PVE_NOTIFICATIONS)?,
        Product::Pbs => {
            let read = |path: &&str| match files::read_small(host.root(), path, USERS_MAX_BYTES) {
                Ok(data) => Ok(Some(data)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).context(format!("cannot read {path}")),
            };
            PBS_NOTIFICATIONS.iter().map(read).collect::<Result<_>>()?
        }
    };
    let mut texts =
        found.into_iter().map(|data| String::from_utf8_lossy(&data.unwrap_or_default()).into_owned());
    Ok((texts.next().unwrap_or_default(), texts.next().unwrap_or_default()))
}

/// Gives PBS a notification to send. It appears whole: an entry that cannot be read would block all others.
pub fn spool(host: &Host, id: &str, entry: &[u8]) -> Result<()> {
    const MODE: u32 = 0o600;
    let folder = host.dir(PBS_SPOOL);
    let folder = folder.with_context(|| format!("{}: no such directory", host.path(PBS_SPOOL).display()))?;
    folder.replace(format!("{id}.json"), MODE, entry)
}

/// `user:ID:enable:expire:first:last:email:comment:keys:`
fn in_pve(text: &str, user: &str) -> Option<String> {
    let mut users = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = users.find(|fields| fields.first() == Some(&"user") && fields.get(1) == Some(&user))?;
    fields.get(6).map(|address| percent_decoded(address))
}

/// A section file, in which tokens have names that are no ids of ours.
fn in_pbs(text: &str, user: &str) -> Option<String> {
    let head = format!("user: {user}");
    let mut lines = text.lines().skip_while(|line| line.trim_end() != head).skip(1);
    let mut own = lines.by_ref().take_while(|line| line.starts_with([' ', '\t']));
    own.find_map(|line| line.trim().strip_prefix("email ")).map(|address| address.trim().to_owned())
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

/// Returns the domain of local mail, behind the @.
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
        let pbs =
            "token: a@pbs!x\n\tenable true\n\nuser: root@pam\n\temail admin@example.org\n\tenable true\n";
        assert_eq!(in_pbs(pbs, ROOT).as_deref(), Some("admin@example.org"));
        assert_eq!(in_pbs("user: x@pbs\n\temail a@b\n", ROOT), None);
    }
}
