//! Files that change although nobody changed the configuration: the running system rewrites them, so it is no news.
//! They are saved all the same.

/// Absolute globs of files that Proxmox, Debian or a daemon rewrites by itself.
pub const RESTLESS: &[&str] = &[
    // The keys that sign tickets, new every 24 hours.
    "/etc/pve/authkey.pub",
    "/etc/pve/authkey.pub.old",
    "/etc/pve/priv/authkey.key",
    // The tree of /etc/pve once more, with counters; its files are looked at one by one.
    "/var/lib/pve-cluster/config.db",
    // The drift of the hardware clock.
    "/etc/adjtime",
    // A counter of starts.
    "/var/lib/snmp/snmpd.conf",
    // Sessions and peers beside the key.
    "/var/lib/tailscale/tailscaled.state",
];

/// Items of commands whose answer stays the same until somebody changes something. All others tell of load, space,
/// times and guests that start and stop.
pub const STEADY: &[&str] = &[
    "state-cmdline",
    "state-pci",
    "state-dkms",
    "state-efi",
    "state-kernels",
    "state-dataset-properties",
    "state-mdadm",
    "state-iscsi-nodes",
    "state-manual",
    "state-held",
    "state-unit-files",
    "state-crontab",
    "pve-state-version",
    "pve-state-ceph-config",
    "pve-state-ceph-auth",
    "pbs-state-version",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::items;

    #[test]
    fn every_steady_answer_is_an_item_of_a_command() {
        for id in STEADY {
            let item = items().find(|item| item.id == *id);
            assert!(item.is_some_and(|item| item.source.answer().is_some()), "{id}");
        }
    }
}
