//! What is in the root directory without being in the database: the links to the own node and
//! `.version`, `.members`, `.vmlist`, `.clusterlog`, `.rrd`, `.debug` with the counters behind them.

use nix::errno::Errno;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

pub const FILES: [&str; 6] = [".version", ".members", ".vmlist", ".clusterlog", ".rrd", ".debug"];
pub const LINKS: [&str; 4] = ["local", "qemu-server", "lxc", "openvz"];

/// The files with a counter in `.version`; no other change moves anything there (pmxcfs.md 5).
const OBSERVED: &str = "\
    corosync.conf corosync.conf.new storage.cfg user.cfg domains.cfg notifications.cfg \
    priv/notifications.cfg priv/shadow.cfg priv/acme/plugins.cfg priv/tfa.cfg priv/token.cfg \
    priv/wg-keys.cfg datacenter.cfg vzdump.cron vzdump.conf jobs.cfg ha/crm_commands \
    ha/manager_status ha/resources.cfg ha/rules.cfg ha/groups.cfg ha/fence.cfg status.cfg \
    replication.cfg ceph.conf sdn/vnets.cfg sdn/zones.cfg sdn/controllers.cfg \
    sdn/subnets.cfg sdn/ipams.cfg sdn/dns.cfg sdn/fabrics.cfg sdn/route-maps.cfg \
    sdn/prefix-lists.cfg sdn/mac-cache.json sdn/pve-ipam-state.json sdn/.running-config \
    virtual-guest/cpu-models.conf virtual-guest/profiles.cfg firewall/cluster.fw \
    mapping/directory.cfg mapping/pci.cfg mapping/usb.cfg";

fn observed() -> impl Iterator<Item = &'static str> {
    OBSERVED.split_whitespace()
}

/// A guest's configuration file, by its path alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub id: u32,
    pub node: String,
    pub kind: &'static str,
}

pub struct Status {
    pub node: String,
    start: u64,
    counters: BTreeMap<&'static str, u32>,
    guests: BTreeMap<u32, (Guest, u32)>,
    clock: u32,
    vmlist: u32,
    debug: bool,
    /// What the last stat or open made; reads answer from it, for every reader (proxmox.md 1.7).
    shown: HashMap<&'static str, Vec<u8>>,
}

/// The name among `names`, as the constant.
fn of(names: &[&'static str], path: &[u8]) -> Option<&'static str> {
    names.iter().find(|n| n.as_bytes() == path).copied()
}

pub fn is_virtual(path: &[u8]) -> bool {
    of(&FILES, path).or(of(&LINKS, path)).is_some()
}

impl Status {
    pub fn new(node: &str, start: u64) -> Self {
        Self {
            node: node.to_owned(),
            start,
            counters: observed().map(|name| (name, 1)).collect(),
            guests: BTreeMap::new(),
            clock: 0,
            vmlist: 1,
            debug: false,
            shown: HashMap::new(),
        }
    }

    /// A file at this path was changed, made or removed.
    pub fn changed(&mut self, path: &[u8]) {
        let listed = observed().find(|name| name.as_bytes() == path);
        listed.map(|name| self.counters.entry(name).and_modify(|n| *n += 1));
    }

    pub fn guest(&self, id: u32) -> Option<&Guest> {
        self.guests.get(&id).map(|(guest, _)| guest)
    }

    /// One change of the guest list: `old` is no more, `new` was written.
    pub fn guests_changed(&mut self, old: Option<&Guest>, new: Option<Guest>) {
        if old.is_none() && new.is_none() {
            return;
        }
        self.vmlist += 1;
        if let Some(old) = old {
            self.guests.remove(&old.id);
        }
        if let Some(new) = new {
            self.clock += 1;
            self.guests.insert(new.id, (new, self.clock));
        }
    }

    pub fn link(&self, path: &[u8]) -> Option<String> {
        let home = format!("nodes/{}", self.node);
        of(&LINKS, path).map(|n| if n == "local" { home } else { format!("{home}/{n}") })
    }

    /// Makes the content anew and tells its size.
    pub fn refresh(&mut self, path: &[u8]) -> Option<usize> {
        let name = of(&FILES, path)?;
        let line = |value: Value| format!("{value}\n");
        let text = match name {
            ".version" => line(self.version()),
            ".vmlist" => line(self.vmlist()),
            ".members" => line(json!({"nodename": self.node, "version": 1})),
            ".clusterlog" => line(json!({"data": []})),
            ".debug" => format!("{}\n", u8::from(self.debug)),
            // Empty without pvestatd.
            _ => String::new(),
        };
        let size = text.len();
        self.shown.insert(name, text.into_bytes());
        Some(size)
    }

    pub fn read(&mut self, path: &[u8]) -> Option<&[u8]> {
        let name = of(&FILES, path)?;
        if !self.shown.contains_key(name) {
            self.refresh(path);
        }
        self.shown.get(name).map(Vec::as_slice)
    }

    pub fn write(&mut self, path: &[u8], data: &[u8]) -> Result<(), Errno> {
        self.debug = match (path, data) {
            (b".debug", b"0\n") => false,
            (b".debug", b"1\n") => true,
            _ => return Err(Errno::EIO),
        };
        Ok(())
    }

    fn version(&self) -> Value {
        let mut all = Map::new();
        all.insert("starttime".into(), self.start.into());
        all.insert("clinfo".into(), 1.into());
        all.insert("vmlist".into(), self.vmlist.into());
        all.extend(self.counters.iter().map(|(name, n)| ((*name).to_owned(), (*n).into())));
        all.insert("kvstore".into(), json!({&self.node: {}}));
        all.into()
    }

    fn vmlist(&self) -> Value {
        let ids: Map<_, _> = self
            .guests
            .values()
            .map(|(g, version)| {
                (g.id.to_string(), json!({"node": g.node, "type": g.kind, "version": version}))
            })
            .collect();
        // Without guests only the version.
        if ids.is_empty() {
            return json!({"version": self.vmlist});
        }
        json!({"version": self.vmlist, "ids": ids})
    }
}
