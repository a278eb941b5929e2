//! Section `check: main`: exceptions and additions to the built-in checks.

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CheckConfig {
    /// Ports that are open on purpose.
    pub port_allow: Vec<AllowedPort>,
    pub port_suspicious: Vec<u16>,
    /// Names of programs that may run; a `*` at the end matches the rest.
    pub process_allow: Vec<ProgramName>,
    pub process_suspicious: Vec<ProgramName>,
}

/// Name of a program, or its beginning and a `*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProgramName(pub String);

impl TryFrom<String> for ProgramName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_suffix('*').unwrap_or(&text) {
            "" => Err(format!("'{text}' matches every program")),
            name if name.contains('*') => Err(format!("'{text}' has a * that is not at its end")),
            _ => Ok(Self(text)),
        }
    }
}

/// `PORT` or `PROGRAM:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AllowedPort {
    pub program: Option<String>,
    pub port: u16,
}

impl TryFrom<String> for AllowedPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (program, port) = match text.rsplit_once(':') {
            Some(("", _)) => return Err(format!("'{text}' has no program before its colon")),
            Some((program, port)) => (Some(program.to_owned()), port),
            None => (None, text.as_str()),
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { program, port }),
            _ => Err(format!("'{text}' is not PORT or PROGRAM:PORT, with a port of 1 to 65535")),
        }
    }
}
