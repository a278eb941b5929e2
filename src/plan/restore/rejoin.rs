//! A member of a cluster that died and was installed again comes back the official way: it is taken out of the
//! cluster, gets its host's own files, joins, and then gets what is only its own. Says at which step it is.

use super::{Advice, RestoreRequest};
use crate::model::facts::{Facts, Product};

/// The item that stands for membership.
const ITEM: &str = "pve-corosync";

/// Reports whether the snapshot's host was a member, and this one has joined no cluster yet: what is put into /etc/pve
/// now would be overwritten by the join, or keep it from happening.
pub fn is_before_join(from: &Facts, here: &Facts, request: &RestoreRequest) -> bool {
    from.cluster.is_some() && here.cluster.is_none() && here.has(Product::Pve) && !request.recover
}

/// Returns the manual steps beside this plan, in order.
pub fn advice(from: &Facts, here: &Facts, request: &RestoreRequest) -> Option<Advice> {
    let cluster = from.cluster.as_ref()?;
    if is_before_join(from, here, request) {
        let node = &here.node;
        let text = format!(
            "{} was a member of the cluster {}: this is step 2 of 4, its host's own files; the old machine must \
             never run again in this network",
            from.node, cluster.name
        );
        let commands = vec![
            format!("1. on a running node of the cluster: pvecm delnode {}", from.node),
            "2. this restore".to_owned(),
            "3. here: pvecm add MEMBER, then pvecm updatecerts".to_owned(),
            format!("4. here: pbx-config restore SNAP, which restores what belongs only to {node}"),
        ];
        return Some(Advice { item: ITEM.to_owned(), text, commands });
    }

    let joined = here.cluster.as_ref().is_some_and(|here| here.name == cluster.name);
    let is_new = from.machine_id.is_some() && from.machine_id != here.machine_id;
    (joined && is_new).then(|| Advice {
        item: ITEM.to_owned(),
        text: format!(
            "{} has joined {} again: this is step 4 of 4, what belongs only to it",
            here.node, cluster.name
        ),
        commands: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::facts::Cluster;

    fn facts(cluster: Option<&str>, machine: &str) -> Facts {
        Facts {
            node: "pve2".into(),
            products: [(Product::Pve, "9.1".to_owned())].into(),
            machine_id: Some(machine.into()),
            cluster: cluster
                .map(|name| Cluster { name: name.into(), nodes: vec!["pve1".into(), "pve2".into()] }),
            ..Facts::default()
        }
    }

    #[test]
    fn the_step_is_told_by_where_the_host_is() {
        let (from, request) = (facts(Some("prod"), "a"), RestoreRequest::default());
        let fresh = advice(&from, &facts(None, "b"), &request).unwrap();
        assert!(fresh.text.contains("step 2 of 4") && fresh.commands[0].ends_with("pvecm delnode pve2"));
        assert!(advice(&from, &facts(Some("prod"), "b"), &request).unwrap().text.contains("step 4 of 4"));
        assert_eq!(advice(&from, &from, &request), None);
        assert_eq!(advice(&facts(None, "a"), &facts(None, "b"), &request), None);
        let alone = RestoreRequest { recover: true, ..RestoreRequest::default() };
        assert_eq!(advice(&from, &facts(None, "b"), &alone), None);
    }
}
