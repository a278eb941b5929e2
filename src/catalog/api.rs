//! APIs of the products: how each is reached, and which tool of the product answers the same without a token.
//! Not here: speaking with it (`task::scan::api`).

use super::On;
use crate::model::facts::Product;

pub struct ApiAccess {
    pub product: Product,
    on: On,
    /// The unit that answers.
    unit: &'static str,
    /// The port of HTTPS.
    pub port: u16,
    /// Certificates that the server may show, in PEM: absolute paths, `{node}` is this node's name.
    pub certificates: &'static [&'static str],
    /// Authorization: scheme, and what stands between the token's name and its secret.
    scheme: &'static str,
    joint: char,
    /// Privileges on `/` without which answers are silently shortened.
    pub audit: &'static [&'static str],
    /// The role that gives them.
    pub role: &'static str,
    tool: &'static [&'static str],
}

const APIS: [ApiAccess; 2] = [
    ApiAccess {
        product: Product::Pve,
        on: On::Pve,
        unit: "pveproxy",
        port: 8006,
        certificates: &["/etc/pve/nodes/{node}/pveproxy-ssl.pem", "/etc/pve/nodes/{node}/pve-ssl.pem"],
        scheme: "PVEAPIToken",
        joint: '=',
        audit: &["Sys.Audit", "Datastore.Audit", "VM.Audit", "SDN.Audit", "Pool.Audit", "Mapping.Audit"],
        role: "PVEAuditor",
        tool: &["pvesh", "get"],
    },
    ApiAccess {
        product: Product::Pbs,
        on: On::Pbs,
        unit: "proxmox-backup-proxy",
        port: 8007,
        certificates: &["/etc/proxmox-backup/proxy.pem"],
        scheme: "PBSAPIToken",
        joint: ':',
        audit: &["Sys.Audit", "Datastore.Audit"],
        role: "Audit",
        tool: &["proxmox-backup-debug", "api", "get"],
    },
];

/// Returns the API that the items of a product ask. None: items of every host have no API.
pub fn of(on: On) -> Option<&'static ApiAccess> {
    APIS.iter().find(|api| api.on == on)
}

/// Returns the API that answers when this unit runs.
pub fn of_unit(unit: &str) -> Option<&'static ApiAccess> {
    APIS.iter().find(|api| api.unit == unit)
}

/// The API path of the version, which every API has; without a token the answer is 401.
pub const VERSION: &str = "/version";

impl ApiAccess {
    pub fn authorization(&self, token: &str, secret: &str) -> String {
        format!("{}={token}{}{secret}", self.scheme, self.joint)
    }

    /// `path` begins with a slash; the answer is in `data` of a JSON object.
    pub fn url(&self, server: &str, port: Option<u16>, path: &str, query: &[(&str, &str)]) -> String {
        let server = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
        let words: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mark = if words.is_empty() { "" } else { "?" };
        format!("https://{server}:{}/api2/json{path}{mark}{}", port.unwrap_or(self.port), words.join("&"))
    }

    /// The command that prints what `data` would be.
    pub fn command(&self, path: &str, query: &[(&str, &str)]) -> Vec<String> {
        let mut argv: Vec<String> = self.tool.iter().map(|word| (*word).to_owned()).collect();
        argv.push(path.to_owned());
        for (key, value) in query {
            argv.extend([format!("--{key}"), (*value).to_owned()]);
        }
        argv.extend(["--output-format".to_owned(), "json".to_owned()]);
        argv
    }
}
