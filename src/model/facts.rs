//! Facts about a host: its kind, its products. Plain data; `sys::host` finds them out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    Pve,
    Pbs,
}

impl Product {
    pub const ALL: [Self; 2] = [Self::Pve, Self::Pbs];

    /// Returns the word for it in configurations and manifests.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pve => "pve",
            Self::Pbs => "pbs",
        }
    }

    /// Returns the name and version for people; the name alone where no package tells a version.
    pub fn with_version(self, version: &str) -> String {
        if version.is_empty() { self.to_string() } else { format!("{self} {version}") }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pve => "Proxmox VE",
            Self::Pbs => "Proxmox Backup Server",
        })
    }
}

/// State of the cluster file system of a PVE host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PmxcfsState {
    NotMounted,
    Live {
        quorate: bool,
    },
    /// Mounted, but the daemon is gone.
    Dead,
    /// Mounted, but nothing comes back.
    Frozen,
}

impl fmt::Display for PmxcfsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMounted => "the cluster file system /etc/pve is not mounted",
            Self::Live { quorate: true } => "the cluster file system /etc/pve is mounted and can be written",
            Self::Live { quorate: false } => "the cluster has no quorum: /etc/pve is read-only",
            Self::Dead => "the cluster file system /etc/pve is mounted, but pmxcfs is dead",
            Self::Frozen => "the cluster file system /etc/pve does not answer",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    /// Node names as corosync.conf lists them.
    pub nodes: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// The short host name, as pmxcfs takes it (up to the first dot).
    pub node: String,
    /// Products with their package versions; a version is empty when no package tells it.
    pub products: BTreeMap<Product, String>,
    /// `PRETTY_NAME` of os-release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// Paths that were looked at to find the products; shown when none was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looked_at: Vec<String>,
}

impl Facts {
    pub fn has(&self, product: Product) -> bool {
        self.products.contains_key(&product)
    }

    /// Reports whether both are known to be of one machine. A machine without an id is known by nothing: clones and
    /// images have none.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        self.machine_id.is_some() && self.machine_id == other.machine_id
    }

    /// One line: "Proxmox VE 9.1.2, node pve1 of cluster prod (3 nodes)".
    pub fn summary(&self) -> String {
        let mut parts: Vec<String> =
            self.products.iter().map(|(product, version)| product.with_version(version)).collect();
        if parts.is_empty() {
            parts.push(self.os.clone().unwrap_or_else(|| "unknown system".to_owned()));
        }
        let cluster = self.cluster.as_ref().map_or_else(String::new, |cluster| {
            format!(" of cluster {} ({} nodes)", cluster.name, cluster.nodes.len())
        });
        format!("{}, node {}{cluster}", parts.join(" with "), self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_no_known_version_is_its_name_and_no_more() {
        assert_eq!(Product::Pve.with_version(""), "Proxmox VE");
        assert_eq!(Product::Pbs.with_version("4.0.1"), "Proxmox Backup Server 4.0.1");
    }
}
