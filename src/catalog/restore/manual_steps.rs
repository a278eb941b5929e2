//! Items that never come back as files: the commands that an admin types instead, on the new machine.
//! Not here: what the snapshot knows of pools and members (`plan::restore::advice` fills that in).

/// Commands that bring back the thing that an item stands for.
#[derive(Debug, Clone, Copy)]
pub struct ByHand {
    /// The id of the catalogue item.
    pub item: &'static str,
    pub text: &'static str,
    /// `{snapshot}` is the snapshot's name; `{each}` one of what `per` finds there.
    pub commands: &'static [&'static str],
    pub per: Per,
}

/// The part of the snapshot that the commands are said for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Once,
    /// The first word of each line of this answer.
    LineOf(&'static str),
    /// The name of each file below this directory.
    FileBelow(&'static str),
    /// The first link address of every other member in this file.
    MemberOf(&'static str),
}

const BASE: ByHand = ByHand { item: "", text: "", commands: &[], per: Per::Once };

// One item, one fact: laid out by hand, as rustfmt would give every field a line.
#[rustfmt::skip]
pub const BY_HAND: &[ByHand] = &[
    ByHand { item: "zpool-cache", text: "ZFS pools of the old machine: import those whose disks are here",
        commands: &["zpool import {each}"], per: Per::LineOf("zpool-list.txt") },
    ByHand { item: "lvm-backup", text: "volume groups of the old machine: with their disks they are only activated; \
        metadata goes back to disks that lost theirs",
        commands: &["vgchange -ay {each}", "pbx-config cat {snapshot} etc/lvm/backup/{each} > /root/{each}.vg",
            "vgcfgrestore --test -f /root/{each}.vg {each}"], per: Per::FileBelow("etc/lvm/backup/") },
    ByHand { item: "boot-uuids", text: "register the EFI partitions of this machine with the boot tool",
        commands: &["lsblk -o NAME,SIZE,PARTTYPENAME,UUID", "proxmox-boot-tool init PARTITION",
            "proxmox-boot-tool refresh"], ..BASE },
    ByHand { item: "kernel-cmdline", text: "the old command line names the disks of the old machine: copy only what \
        you need",
        commands: &["pbx-config cat {snapshot} etc/kernel/cmdline", "editor /etc/kernel/cmdline",
            "proxmox-boot-tool refresh"], ..BASE },
    ByHand { item: "grub", text: "the old settings may name the disks of the old machine: copy only what you need",
        commands: &["pbx-config cat {snapshot} etc/default/grub", "editor /etc/default/grub", "update-grub"],
        ..BASE },
    ByHand { item: "grub-config", text: "the menu is written for the disks of this machine",
        commands: &["update-grub"], ..BASE },
    ByHand { item: "machine-id", text: "this installation keeps its own id; the old one only when that machine is \
        gone for good and something is licensed to it",
        commands: &["pbx-config cat {snapshot} etc/machine-id"], ..BASE },
    ByHand { item: "package-selections", text: "packages that were installed by hand or held on the old machine",
        commands: &["pbx-config cat {snapshot} .pbx/state/packages-manual.txt | xargs apt-get install",
            "pbx-config cat {snapshot} .pbx/state/packages-held.txt | xargs -r apt-mark hold"], ..BASE },
    ByHand { item: "pve-subscription", text: "the key is bound to a server id: set it again",
        commands: &["pvesubscription set KEY"], ..BASE },
    ByHand { item: "pbs-subscription", text: "the key is bound to a server id: set it again",
        commands: &["proxmox-backup-manager subscription set KEY"], ..BASE },
    ByHand { item: "pve-node-cert", text: "the node's certificate is signed again by the cluster CA",
        commands: &["pvecm updatecerts -f", "systemctl restart pveproxy"], ..BASE },
    ByHand { item: "pve-corosync", text: "the node joins the cluster again: delete the dead node on another node first, then \
        add this one through one of",
        commands: &["pvecm add {each}"], per: Per::MemberOf("etc/pve/corosync.conf") },
    ByHand { item: "pve-sdn-generated", text: "SDN writes the node's files from its definitions",
        commands: &["pvesh set /cluster/sdn"], ..BASE },
];

/// The layout of the disks, for reading.
pub const LAYOUT: &str = "lsblk.json";
pub const LAYOUT_COMMAND: &str = "pbx-config cat {snapshot} .pbx/state/fdisk.txt";
/// The item that layouts are told with.
pub const LAYOUT_ITEM: &str = "state-disks";
/// The key of a member's first link in corosync.conf.
pub const LINK_KEY: &str = "ring0_addr";
pub const NAME_KEY: &str = "name";
