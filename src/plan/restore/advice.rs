//! Commands that an admin types where nothing is written: pools, boot files, layouts, memberships, with the names that
//! the snapshot knows. Pure; the facts are `catalog::restore::manual_steps`.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::Advice;
use crate::catalog::restore::manual_steps::{
    BY_HAND, ByHand, LAYOUT, LAYOUT_COMMAND, LAYOUT_ITEM, LINK_KEY, NAME_KEY, Per,
};
use crate::model::index::{Name, STATE_DIR};

/// The most names of a kind that are told.
const MAX_EACH: usize = 32;

/// Returns the manual steps for the items of these ids. `snapshot` is its name, `node` the host that it is of.
pub(crate) fn by_hand(
    items: &BTreeSet<&str>,
    contents: &HashMap<Name, Vec<u8>>,
    snapshot: &str,
    node: &str,
) -> Vec<Advice> {
    let all = BY_HAND.iter().filter(|step| items.contains(step.item));

    all.filter_map(|step| {
        let each = each(step, contents, node);
        if step.per != Per::Once && each.is_empty() {
            return None;
        }
        let fill = |each: &str| {
            let commands = step.commands.iter();
            commands
                .map(|command| command.replace("{snapshot}", snapshot).replace("{each}", each))
                .collect::<Vec<_>>()
        };
        let mut commands: Vec<String> = match step.per {
            Per::Once => fill(""),
            _ => each.iter().flat_map(|each| fill(each)).collect(),
        };
        commands.dedup();
        Some(Advice { item: step.item.to_owned(), text: step.text.to_owned(), commands })
    })
    .collect()
}

fn each(step: &ByHand, contents: &HashMap<Name, Vec<u8>>, node: &str) -> Vec<String> {
    let text =
        |path: String| contents.get(&Name::new(path)).map(|text| String::from_utf8_lossy(text).into_owned());
    let mut found: Vec<String> = match step.per {
        Per::Once => Vec::new(),
        // Lines of `zpool list -v` below a pool begin with a tab.
        Per::LineOf(answer) => {
            let text = text(format!("{STATE_DIR}/{answer}")).unwrap_or_default();
            let lines = text.lines().filter(|line| !line.starts_with(char::is_whitespace));
            lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
        }
        Per::FileBelow(folder) => {
            let below = |name: &Name| {
                Some(std::str::from_utf8(name.as_bytes()).ok()?.strip_prefix(folder)?.to_owned())
            };
            let mut names: Vec<String> = contents.keys().filter_map(below).collect();
            names.sort();
            names
        }
        Per::MemberOf(path) => members(&text(path.to_owned()).unwrap_or_default(), node),
    };

    // What stands in a command that is typed is a plain name.
    found.retain(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:+".contains(c))
    });
    found.truncate(MAX_EACH);
    found
}

/// Lists the addresses of the other members of a corosync.conf.
fn members(text: &str, node: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut name, mut address) = (String::new(), String::new());
    for line in text.lines().map(str::trim) {
        match line.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
            Some((NAME_KEY, value)) => value.clone_into(&mut name),
            Some((LINK_KEY, value)) => value.clone_into(&mut address),
            _ => {}
        }
        if line == "}" {
            if name != node && !address.is_empty() {
                found.push(std::mem::take(&mut address));
            }
            (name, address) = (String::new(), String::new());
        }
    }

    found
}

/// The disks of the old machine, a line each, from `lsblk`.
pub(crate) fn layout(contents: &HashMap<Name, Vec<u8>>, snapshot: &str) -> Option<Advice> {
    let text = contents.get(&Name::new(format!("{STATE_DIR}/{LAYOUT}")))?;
    let value: Value = serde_json::from_slice(text).ok()?;
    let word = |device: &Value, key: &str| device.get(key).and_then(Value::as_str).map(plain);

    let disks = value
        .get("blockdevices")?
        .as_array()?
        .iter()
        .filter(|device| word(device, "type").as_deref() == Some("disk"));

    let lines: Vec<String> = disks
        .take(MAX_EACH)
        .map(|disk| {
            let size =
                disk.get("size").and_then(|size| size.as_u64().or_else(|| size.as_str()?.parse().ok()));
            let children =
                disk.get("children").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let parts: Vec<String> = children
                .iter()
                .take(MAX_EACH)
                .map(|part| word(part, "fstype").unwrap_or_else(|| "-".to_owned()))
                .collect();
            format!(
                "{} {} {} [{}]",
                word(disk, "name").unwrap_or_default(),
                size.map(gib).unwrap_or_default(),
                word(disk, "model").unwrap_or_default(),
                parts.join(", "),
            )
        })
        .collect();
    let text = format!("disks of the old machine: {}", lines.join("; "));
    let commands = vec![LAYOUT_COMMAND.replace("{snapshot}", snapshot)];
    (!lines.is_empty()).then(|| Advice { item: LAYOUT_ITEM.to_owned(), text, commands })
}

fn gib(bytes: u64) -> String {
    format!("{} GiB", bytes >> 30)
}

/// A snapshot's words are not believed to be harmless.
fn plain(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn contents(files: &[(&str, &str)]) -> HashMap<Name, Vec<u8>> {
        files.iter().map(|(path, text)| (Name::new(*path), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn pools_volume_groups_and_members_are_those_of_the_snapshot() {
        let contents = contents(&[
            (".pbx/state/zpool-list.txt", "rpool\t100\n\tmirror-0\t1\ntank\t200\n$(reboot)\t1\n"),
            ("etc/lvm/backup/pve", "x"),
            (
                "etc/pve/corosync.conf",
                "nodelist {\n node {\n name: pve1\n ring0_addr: 192.0.2.11\n }\n node {\n name: pve2\n ring0_addr: 192.0.2.12\n }\n}\n",
            ),
        ]);
        let items = BTreeSet::from(["zpool-cache", "lvm-backup", "pve-corosync", "grub-config", "fstab"]);
        let advice = by_hand(&items, &contents, "pve1/2026-11-22T15:17:40Z", "pve1");
        let commands: Vec<&str> =
            advice.iter().flat_map(|advice| advice.commands.iter().map(String::as_str)).collect();
        assert_eq!(
            commands,
            [
                "zpool import rpool",
                "zpool import tank",
                "vgchange -ay pve",
                "pbx-config cat pve1/2026-11-22T15:17:40Z etc/lvm/backup/pve > /root/pve.vg",
                "vgcfgrestore --test -f /root/pve.vg pve",
                "update-grub",
                "pvecm add 192.0.2.12",
            ]
        );
    }

    #[test]
    fn what_the_snapshot_does_not_know_is_not_told() {
        let items = BTreeSet::from(["zpool-cache", "pve-corosync", "lvm-backup"]);
        assert_eq!(by_hand(&items, &HashMap::new(), "s", "n"), []);
        assert_eq!(layout(&contents(&[(".pbx/state/lsblk.json", "nonsense")]), "s"), None);
    }

    #[test]
    fn the_disks_are_told_in_a_line_each() {
        let json = r#"{"blockdevices":[{"name":"sda","size":4000787030016,"type":"disk","model":"TEST HDD","children":[
            {"name":"sda1","fstype":"crypto_LUKS"},{"name":"sda2","fstype":null}]},{"name":"sr0","type":"rom"}]}"#;
        let advice = layout(&contents(&[(".pbx/state/lsblk.json", json)]), "s").unwrap();
        assert_eq!(advice.text, "disks of the old machine: sda 3726 GiB TEST HDD [crypto_LUKS, -]");
        assert_eq!(advice.commands, ["pbx-config cat s .pbx/state/fdisk.txt"]);
    }
}
