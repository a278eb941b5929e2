//! Rules of Proxmox's matchers: which of a host's notification targets hear of us. Text in, names out.

use jiff::civil::{Time, Weekday};
use jiff::{Timestamp, tz::TimeZone};
use regex::Regex;

use crate::model::facts::Product;
use crate::model::section::{Section, parse};

const MATCHER: &str = "matcher";
/// Configuration that holds where the administrator has changed nothing.
const BUILT_IN: &str = "sendmail: mail-to-root\n\tmailto-user root@pam\n";
const PVE_DEFAULT: &str = "matcher: default-matcher\n\ttarget mail-to-root\n";
/// All but prunes that went well.
const PBS_DEFAULT: &str = "matcher: default-matcher\n\tmatch-field exact:type=prune\n\tmatch-severity info\n\
                           \tinvert-match true\n\ttarget mail-to-root\n";

/// Event that a matcher looks at.
pub struct Event<'a> {
    /// Severity in Proxmox's words.
    pub severity: &'a str,
    pub fields: Vec<(&'a str, &'a str)>,
    pub at: Timestamp,
}

/// A product's notification configuration.
pub struct MatcherRules {
    pub targets: Vec<Section>,
    matchers: Vec<Section>,
}

/// Targets to tell, and matchers and targets that cannot be understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MatchedTargets {
    pub targets: Vec<String>,
    pub errors: Vec<String>,
}

impl MatcherRules {
    /// `public` and `private` are the two files; what is not there is empty.
    /// Errors: with the line.
    pub fn read(product: Product, public: &str, private: &str) -> Result<Self, String> {
        let error = |error: crate::model::section::SyntaxError| error.to_string();
        let mut sections = parse("notifications.cfg", public).map_err(error)?;
        for secret in parse("private notifications.cfg", private).map_err(error)? {
            if let Some(section) = find(&mut sections, &secret.kind, &secret.id) {
                // Of a webhook's secrets the public part has the names, the private one all.
                section.entries.retain(|entry| entry.key != "secret");
                let entries = secret.entries.into_iter().map(|mut entry| {
                    entry.private = true;
                    entry
                });
                section.entries.extend(entries);
            }
        }

        let default = if product == Product::Pve { PVE_DEFAULT } else { PBS_DEFAULT };
        for section in parse("(built in)", &format!("{BUILT_IN}\n{default}")).map_err(error)? {
            // By its name alone: an administrator may have put another kind of target in its place.
            if !sections.iter().any(|own| own.id == section.id) {
                sections.push(section);
            }
        }

        let (matchers, targets) = sections.into_iter().partition(|section| section.kind == MATCHER);
        Ok(Self { targets, matchers })
    }

    /// The targets of all matchers that match, each once, in the order they are named.
    pub fn choose(&self, event: &Event, zone: &TimeZone) -> MatchedTargets {
        let mut chosen = MatchedTargets::default();
        for matcher in self.matchers.iter().filter(|matcher| !is_on(matcher, "disable")) {
            match matches(matcher, event, zone) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    chosen.errors.push(format!("matcher '{}': {why}", matcher.id));
                    continue;
                }
            }
            for target in values(matcher, "target") {
                match self.targets.iter().find(|section| section.id == target) {
                    None => {
                        chosen
                            .errors
                            .push(format!("matcher '{}': target '{target}' does not exist", matcher.id));
                    }
                    Some(section) if is_on(section, "disable") => {}
                    Some(_) if chosen.targets.iter().any(|known| known == target) => {}
                    Some(_) => chosen.targets.push(target.to_owned()),
                }
            }
        }

        chosen
    }
}

fn find<'a>(sections: &'a mut [Section], kind: &str, id: &str) -> Option<&'a mut Section> {
    sections.iter_mut().find(|section| section.kind == kind && section.id == id)
}

pub fn values<'a>(section: &'a Section, key: &'a str) -> impl Iterator<Item = &'a str> {
    section.entries.iter().filter(move |entry| entry.key == key).map(|entry| entry.value.as_str())
}

pub fn is_on(section: &Section, key: &str) -> bool {
    section
        .get(key)
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

/// Each kind of rule is folded over its lines, and the kinds with each other, by one operator. A matcher without
/// any rule matches, whatever `invert-match` says.
fn matches(matcher: &Section, event: &Event, zone: &TimeZone) -> Result<bool, String> {
    let all = match matcher.get("mode") {
        None | Some("all") => true,
        Some("any") => false,
        Some(other) => return Err(format!("unknown mode '{other}'")),
    };
    let fields = values(matcher, "match-field").map(|rule| field(rule, event));
    let severities = values(matcher, "match-severity").map(|rule| Ok(listed(rule, event.severity)));
    let times = values(matcher, "match-calendar").map(|rule| during(rule, event.at, zone));
    let results: Vec<bool> = fields.chain(severities).chain(times).collect::<Result<_, String>>()?;
    if results.is_empty() {
        return Ok(true);
    }
    let result = if all { results.iter().all(|one| *one) } else { results.iter().any(|one| *one) };
    Ok(result != is_on(matcher, "invert-match"))
}

fn listed(list: &str, word: &str) -> bool {
    list.split(',').any(|one| one.trim() == word)
}

/// `exact:FIELD=VALUE,VALUE` or `regex:FIELD=EXPRESSION`. A field that the event does not have matches nothing.
fn field(rule: &str, event: &Event) -> Result<bool, String> {
    let wrong = || "match-field: neither exact:FIELD=VALUE nor regex:FIELD=EXPRESSION".to_owned();
    let (how, rest) = rule.split_once(':').ok_or_else(wrong)?;
    let (name, expected) = rest.split_once('=').ok_or_else(wrong)?;
    let value = event.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    match how {
        "exact" => Ok(value.is_some_and(|value| listed(expected, value))),
        "regex" => {
            let expression = Regex::new(expected).map_err(|_| "match-field: not a regular expression")?;
            Ok(value.is_some_and(|value| expression.is_match(value)))
        }
        _ => Err(wrong()),
    }
}

/// `[WEEKDAYS ]START-END`, local time, the end not included.
fn during(rule: &str, at: Timestamp, zone: &TimeZone) -> Result<bool, String> {
    let wrong = || "match-calendar: not [WEEKDAYS] START-END".to_owned();
    let local = at.to_zoned(zone.clone());
    let rule = rule.trim();
    let (days, span) = if rule.starts_with(|c: char| c.is_ascii_digit()) {
        (None, rule)
    } else {
        let (days, span) = rule.split_once(' ').ok_or_else(wrong)?;
        (Some(days), span)
    };
    let (start, end) = span.split_once('-').ok_or_else(wrong)?;
    let (start, end) = (minute(start).ok_or_else(wrong)?, minute(end).ok_or_else(wrong)?);
    if start > end {
        return Err(wrong());
    }

    let today = match days {
        None => true,
        Some(days) => weekdays(days).ok_or_else(wrong)?.contains(&local.weekday()),
    };
    let time: Time = local.time();
    let now = i32::from(time.hour()) * 60 + i32::from(time.minute());
    Ok(today && (start..end).contains(&now))
}

/// `8` or `8:30`, as minutes of the day; 24 is its end.
fn minute(text: &str) -> Option<i32> {
    let (hour, minute) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i32>().ok())?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    let total = hour * 60 + minute;
    ((0..=24).contains(&hour) && (0..60).contains(&minute) && total <= 24 * 60).then_some(total)
}

/// `mon,wed..fri`; a range may go over the end of the week.
fn weekdays(text: &str) -> Option<Vec<Weekday>> {
    const NAMES: [(&str, Weekday); 7] = [
        ("mon", Weekday::Monday),
        ("tue", Weekday::Tuesday),
        ("wed", Weekday::Wednesday),
        ("thu", Weekday::Thursday),
        ("fri", Weekday::Friday),
        ("sat", Weekday::Saturday),
        ("sun", Weekday::Sunday),
    ];

    let place = |word: &str| {
        let word = word.to_ascii_lowercase();
        NAMES.iter().position(|(name, day)| word == *name || word == format!("{day:?}").to_ascii_lowercase())
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (place(first)?, place(last)?);
        let count = (last + 7 - first) % 7;
        days.extend((0..=count).map(|n| NAMES[(first + n) % 7].1));
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A Sunday, 15:17 in UTC.
    fn event(severity: &str) -> Event<'_> {
        let fields = vec![("type", "pbx-config"), ("hostname", "pve1")];
        Event { severity, fields, at: "2026-11-22T15:17:40Z".parse().unwrap() }
    }

    fn chosen(matcher: &str, severity: &str) -> MatchedTargets {
        let text = format!(
            "gotify: one\n\nsmtp: two\n\tdisable true\n\nmatcher: default-matcher\n\tdisable 1\n\nmatcher: m\n\ttarget one\n\ttarget two\n{matcher}"
        );
        MatcherRules::read(Product::Pve, &text, "").unwrap().choose(&event(severity), &TimeZone::UTC)
    }

    #[test]
    fn a_matcher_matches_as_proxmox_says() {
        for (rules, matches) in [
            ("", true),
            // Without a rule there is nothing to invert.
            ("\tinvert-match true\n", true),
            ("\tmatch-severity error,warning\n", true),
            ("\tmatch-severity info\n\tmatch-severity warning\n", false),
            ("\tmode any\n\tmatch-severity info\n\tmatch-severity warning\n", true),
            ("\tmatch-severity info\n\tinvert-match 1\n", true),
            ("\tmatch-field exact:type=vzdump, pbx-config\n", true),
            ("\tmatch-field exact:type=vzdump\n", false),
            ("\tmatch-field exact:job-id=x\n", false),
            ("\tmatch-field exact:job-id=x\n\tinvert-match true\n", true),
            ("\tmatch-field regex:hostname=^pve\\d$\n", true),
            ("\tmatch-field regex:hostname=ve\n", true),
            ("\tmatch-field regex:hostname=^ve\n", false),
            ("\tmatch-field exact:type=pbx-config\n\tmatch-severity info\n", false),
            ("\tmode any\n\tmatch-field exact:type=pbx-config\n\tmatch-severity info\n", true),
            ("\tmatch-calendar sun 15:00-16:00\n", true),
            ("\tmatch-calendar 8-15:17\n", false),
            ("\tmatch-calendar 15:17-15:18\n", true),
            ("\tmatch-calendar mon..fri 0-24\n", false),
            ("\tmatch-calendar sat..mon 0-24\n", true),
            ("\tmatch-calendar fri,sunday 0-24\n", true),
        ] {
            let targets: &[&str] = if matches { &["one"] } else { &[] };
            let done = chosen(rules, "warning");
            assert_eq!(
                (&done.targets[..], done.errors.len()),
                (&targets.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()[..], 0),
                "{rules}"
            );
        }
    }

    #[test]
    fn a_rule_that_is_not_understood_is_an_error_and_no_match() {
        for rules in [
            "\tmatch-field type=x\n",
            "\tmatch-field regex:type=(\n",
            "\tmatch-calendar mon-fri 8-17\n",
            "\tmatch-calendar 17-8\n",
            "\tmatch-calendar 8:61-9\n",
            "\tmode some\n\tmatch-severity info\n",
            "\ttarget gone\n",
        ] {
            assert_eq!(chosen(rules, "info").errors.len(), 1, "{rules}");
        }
    }

    #[test]
    fn what_is_built_in_stands_until_it_is_changed() {
        let of = |product, text: &str, severity: &str| {
            MatcherRules::read(product, text, "").unwrap().choose(&event(severity), &TimeZone::UTC).targets
        };
        assert_eq!(of(Product::Pve, "", "info"), ["mail-to-root"]);
        assert_eq!(of(Product::Pbs, "", "info"), ["mail-to-root"]);
        assert!(of(Product::Pve, "matcher: default-matcher\n\tdisable true\n", "error").is_empty());
        assert!(
            of(Product::Pve, "sendmail: mail-to-root\n\tmailto-user root@pam\n\tdisable 1\n", "error")
                .is_empty()
        );
        let other = MatcherRules::read(Product::Pve, "smtp: mail-to-root\n\tserver x\n", "").unwrap();
        assert_eq!(other.targets.iter().map(|target| target.kind.as_str()).collect::<Vec<_>>(), ["smtp"]);
        // On a PBS all but prunes that went well.
        let prune = |severity| {
            let event = Event { fields: vec![("type", "prune")], ..event(severity) };
            MatcherRules::read(Product::Pbs, "", "").unwrap().choose(&event, &TimeZone::UTC).targets
        };
        assert_eq!((prune("info").len(), prune("error").len()), (0, 1));
    }

    #[test]
    fn every_matcher_adds_its_targets_once_and_what_is_off_is_silent() {
        let text = "gotify: one\n\nsmtp: two\n\ngotify: off\n\tdisable 1\n\n\
                    matcher: default-matcher\n\ttarget mail-to-root\n\tmatch-severity error\n\n\
                    matcher: a\n\ttarget two\n\ttarget one\n\ttarget off\n\n\
                    matcher: b\n\ttarget one\n\tmatch-severity info,notice, warning\n\n\
                    matcher: c\n\tdisable true\n\ttarget gone\n\tmatch-field nonsense\n";
        let rules = MatcherRules::read(Product::Pve, text, "").unwrap();
        let chosen = rules.choose(&event("warning"), &TimeZone::UTC);
        assert_eq!(chosen, MatchedTargets { targets: vec!["two".into(), "one".into()], errors: Vec::new() });
        let chosen = rules.choose(&event("error"), &TimeZone::UTC);
        assert_eq!(chosen.targets, ["mail-to-root", "two", "one"]);
    }

    #[test]
    fn the_kinds_of_rules_are_joined_as_their_lines_are() {
        const FIELD: [&str; 2] =
            ["\tmatch-field exact:type=vzdump\n", "\tmatch-field exact:type=pbx-config\n"];
        const SEVERITY: [&str; 2] = ["\tmatch-severity error\n", "\tmatch-severity warning\n"];
        const CALENDAR: [&str; 2] =
            ["\tmatch-calendar mon 0:00-23:59\n", "\tmatch-calendar sun 0:00-23:59\n"];
        for n in 0..8 {
            let met = [n & 1, n >> 1 & 1, n >> 2 & 1];
            let rules = [FIELD[met[0]], SEVERITY[met[1]], CALENDAR[met[2]]].concat();
            for (mode, result) in [("all", n == 7), ("any", n > 0)] {
                for invert in ["", "\tinvert-match true\n", "\tinvert-match false\n"] {
                    let done = chosen(&format!("\tmode {mode}\n{invert}{rules}"), "warning");
                    let expected = result != invert.contains("true");
                    assert_eq!(
                        (done.targets.len(), done.errors.len()),
                        (usize::from(expected), 0),
                        "{mode} {invert}{rules}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_hours_of_a_calendar_are_those_of_the_host() {
        let zone = TimeZone::fixed(jiff::tz::offset(9));
        let text = "matcher: default-matcher\n\ttarget mail-to-root\n\tmatch-calendar mon 0:10-0:20\n";
        let rules = MatcherRules::read(Product::Pve, text, "").unwrap();
        assert_eq!(rules.choose(&event("info"), &zone).targets.len(), 1);
        assert!(rules.choose(&event("info"), &TimeZone::UTC).targets.is_empty());
    }

    #[test]
    fn the_private_part_belongs_to_the_section_of_its_name() {
        let rules = MatcherRules::read(
            Product::Pve,
            "webhook: w\n\tsecret name=k\n",
            "webhook: w\n\tsecret name=k,value=eA==\n",
        )
        .unwrap();
        let secrets: Vec<&str> = values(&rules.targets[0], "secret").collect();
        assert_eq!(secrets, ["name=k,value=eA=="]);
    }
}
