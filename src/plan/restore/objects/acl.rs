//! Lines of user.cfg and acl.cfg that name many: lists of members, and who was granted what.
//! Not here: whose they are (`objects`).

use super::config_edit;

/// Returns the members of a list field, counted from 0.
pub fn list_field(line: &[u8], field: usize) -> Vec<String> {
    let line = String::from_utf8_lossy(line);
    let list = line.split(':').nth(field).unwrap_or_default();
    list.split([',', ';', ' ']).filter(|member| !member.is_empty()).map(str::to_owned).collect()
}

/// Returns the line with one more member in its list; None when it has no such field.
pub fn with_member(line: &[u8], field: usize, member: &str) -> Option<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect();
    let list = fields.get_mut(field)?;
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(member.as_bytes());
    Some(fields.join(&b':'))
}

/// `acl:propagate:path:who,…:roles`, with whatever stands behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    propagate: String,
    pub path: String,
    pub who: Vec<String>,
    roles: Vec<String>,
    rest: String,
}

impl Acl {
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.splitn(6, ':');
        fields.next().filter(|word| *word == "acl")?;
        let mut field = || fields.next().map(str::to_owned);
        let (propagate, path, who, roles) = (field()?, field()?, field()?, field()?);
        let rest = field().map_or_else(String::new, |rest| format!(":{rest}"));
        let list = |text: String| text.split(',').map(str::trim).map(str::to_owned).collect();
        Some(Self { propagate, path, who: list(who), roles: list(roles), rest })
    }

    pub fn text(&self) -> String {
        let (who, roles) = (self.who.join(","), self.roles.join(","));
        format!("acl:{}:{}:{who}:{roles}{}", self.propagate, self.path, self.rest)
    }

    /// Returns the grants that a live list lacks. The last line that grants a role says whether it propagates.
    pub fn beyond(&self, text: &[u8]) -> Vec<Self> {
        let all: Vec<Self> = config_edit::lines(text).filter_map(|at| Self::parse(&text[at])).collect();
        let granted = |who: &String, role: &String| {
            let named =
                |line: &&Self| line.path == self.path && line.who.contains(who) && line.roles.contains(role);
            all.iter().rev().find(named).is_some_and(|line| line.propagate == self.propagate)
        };
        let lacking = self.who.iter().filter_map(|who| {
            let roles: Vec<String> = self.roles.iter().filter(|role| !granted(who, role)).cloned().collect();
            (!roles.is_empty()).then(|| Self { who: vec![who.clone()], roles, ..self.clone() })
        });

        // Those who lack the same stay on one line.
        let mut lines: Vec<Self> = Vec::new();
        for entry in lacking {
            match lines.iter_mut().find(|line| line.roles == entry.roles) {
                Some(line) => line.who.extend(entry.who),
                None => lines.push(entry),
            }
        }
        lines
    }
}
