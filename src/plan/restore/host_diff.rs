//! Differences between the host of a snapshot and this one, and what they mean for a restore.

use serde::Serialize;

use crate::model::facts::{Facts, Product};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostDifference {
    /// "host name", "Proxmox VE" ...
    pub what: String,
    pub there: String,
    pub here: String,
    pub means: &'static str,
}

impl HostDifference {
    fn new(what: &str, there: &str, here: &str, means: &'static str) -> Self {
        Self { what: what.to_owned(), there: there.to_owned(), here: here.to_owned(), means }
    }
}

/// The number before the first dot: "9" of "9.1.2".
pub fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

/// "12" of "Debian GNU/Linux 12 (bookworm)"; empty when there is no number.
pub fn release(facts: &Facts) -> &str {
    let os = facts.os.as_deref().unwrap_or_default();
    os.split_whitespace().find(|word| word.bytes().all(|b| b.is_ascii_digit())).unwrap_or_default()
}

fn of_product(product: Product, from: &Facts, here: &Facts) -> Option<HostDifference> {
    let (there, here, means) = match (from.products.get(&product), here.products.get(&product)) {
        (Some(there), None) => (there.as_str(), "none", "its own files are skipped: install it first"),
        (None, Some(here)) => ("none", here.as_str(), "its files here are not changed"),
        (Some(there), Some(here)) if major(there) != major(here) => {
            let means = "files of another major version may need the steps of the upgrade guide";
            (there.as_str(), here.as_str(), means)
        }
        _ => return None,
    };
    Some(HostDifference::new(&product.to_string(), there, here, means))
}

/// `is_renamed`: the old host has this one's name from now on.
pub fn between(from: &Facts, here: &Facts, is_renamed: bool) -> Vec<HostDifference> {
    let products = Product::ALL.into_iter();
    let mut found: Vec<_> = products.filter_map(|product| of_product(product, from, here)).collect();
    if release(from) != release(here) {
        let os = |facts: &Facts| facts.os.clone().unwrap_or_else(|| "unknown".to_owned());
        found.push(HostDifference::new(
            "system",
            &os(from),
            &os(here),
            "package sources are skipped; other files may not fit",
        ));
    }

    if from.node != here.node {
        let means = if is_renamed {
            "the node's files are restored to this node, and the old host name is replaced"
        } else {
            "what contains the old host name is skipped, unless it is named or `--node OLD=NEW` is used"
        };
        found.push(HostDifference::new("host name", &from.node, &here.node, means));
    }

    if let (Some(there), Some(machine)) = (&from.machine_id, &here.machine_id)
        && there != machine
    {
        found.push(HostDifference::new(
            "machine",
            there,
            machine,
            "what belongs to the hardware of the other machine is skipped unless it is named",
        ));
    }

    let name = |facts: &Facts| facts.cluster.as_ref().map_or("none", |cluster| &cluster.name).to_owned();
    let (there, cluster) = (name(from), name(here));
    if there != cluster {
        found.push(HostDifference::new(
            "cluster",
            &there,
            &cluster,
            "membership is never restored from files: join with `pvecm add`",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn facts(node: &str, pve: &str, os: &str) -> Facts {
        let products = [(Product::Pve, pve.to_owned())].into();
        Facts { node: node.into(), products, os: Some(os.into()), ..Facts::default() }
    }

    #[test]
    fn what_differs_is_told_and_nothing_else() {
        let old = facts("pve1", "8.4.1", "Debian GNU/Linux 12 (bookworm)");
        assert!(between(&old, &old, false).is_empty());
        let minor = facts("pve1", "8.3.0", "Debian GNU/Linux 12 (bookworm)");
        assert!(between(&old, &minor, false).is_empty());
        let new = facts("pve2", "9.1.2", "Debian GNU/Linux 13 (trixie)");
        let found = between(&old, &new, false);
        let what: Vec<&str> = found.iter().map(|difference| difference.what.as_str()).collect();
        assert_eq!(what, ["Proxmox VE", "system", "host name"]);
        assert!(found[2].means.contains("`--node OLD=NEW` is used"));
        assert!(!between(&old, &new, true)[2].means.contains("--node"), "it was said");
        let bare = between(&old, &Facts { products: BTreeMap::default(), ..old.clone() }, false);
        assert_eq!(bare[0].here, "none");
    }
}
