//! Stages of a restore: first what cannot cut the admin's own connection, then what may. Each stops its services,
//! does its steps, and starts its services again. Steps stay one list, for the copies of a restore bear their numbers.

use serde::{Deserialize, Serialize};

use super::RestoreStep;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub services: Services,
    /// May cut the admin's own connection: rolled back unless it is confirmed.
    pub may_disconnect: bool,
}

/// Changes to services by one stage, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Before the first step; started again after the last.
    pub stop: Vec<String>,
    /// Commands that make the new files count.
    pub run: Vec<Vec<String>>,
    /// Those that are running are restarted.
    pub restart: Vec<String>,
    /// Those that are stopped now and are started afterwards as if they had run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<String>,
}

impl Stage {
    /// Returns both stages, in the order they are done.
    pub fn both(safe: Services, disconnecting: Services) -> Vec<Self> {
        vec![
            Self { services: safe, may_disconnect: false },
            Self { services: disconnecting, may_disconnect: true },
        ]
    }

    pub fn has(&self, step: &RestoreStep) -> bool {
        step.may_disconnect == self.may_disconnect
    }
}

/// JSON of stages, flattened into a plan, a record or a preview: the services of each under its name.
pub mod by_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Services, Stage};

    #[derive(Serialize, Deserialize)]
    struct ByName {
        calm: Services,
        session: Services,
    }

    pub fn serialize<S: Serializer>(stages: &[Stage], to: S) -> Result<S::Ok, S::Error> {
        let services = |may_disconnect| {
            let stage = stages.iter().find(|stage| stage.may_disconnect == may_disconnect);
            stage.map(|stage| stage.services.clone()).unwrap_or_default()
        };
        ByName { calm: services(false), session: services(true) }.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Stage>, D::Error> {
        ByName::deserialize(from).map(|ByName { calm, session }| Stage::both(calm, session))
    }
}
