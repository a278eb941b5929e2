//! Bodies that chat services want, each within its limits. Pure functions of a message.

use serde_json::{Value, json};

use crate::model::message::Message;
use crate::model::problem::Outcome;
use crate::notify::call::cut;

/// Problems in a card; the mail has more of them.
const PROBLEMS_MAX: usize = 10;
const PROBLEM_MAX_CHARS: usize = 250;
/// Signs of Markdown, as the services know it.
const DISCORD_SIGNS: &str = "[]*_`~|<\\";
const TEAMS_SIGNS: &str = "[]*`\\";

/// One of three, by outcome.
fn by_outcome<T>(message: &Message, ok: T, warned: T, failed: T) -> T {
    match message.details.outcome {
        Outcome::Ok => ok,
        Outcome::Warned => warned,
        Outcome::Failed => failed,
    }
}

fn problems(message: &Message) -> Vec<String> {
    let all = &message.details.problems;
    let line = |one: &crate::model::problem::Problem| {
        let hint = one.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        cut(&format!("{}: {}{hint}", one.severity, one.what), PROBLEM_MAX_CHARS)
    };
    let mut lines: Vec<String> = all.iter().take(PROBLEMS_MAX).map(line).collect();
    let more = all.len().saturating_sub(PROBLEMS_MAX) + message.details.more_problems;
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

pub fn discord(message: &Message) -> Value {
    /// Limit of title, description and fields together; the foot has the rest of Discord's 6000.
    const ALL_MAX_CHARS: usize = 5900;

    let title = cut(&unmarked(&message.subject, DISCORD_SIGNS), 256);
    let description = cut(&unmarked(&problems(message).join("\n"), DISCORD_SIGNS), 4000);
    let chars = |text: &str| text.chars().count();
    let mut left = ALL_MAX_CHARS - chars(&title) - chars(&description);
    let field = |(name, value): (&str, String)| {
        let value = cut(&unmarked(&value, DISCORD_SIGNS), 1024);
        left = left.checked_sub(chars(name) + chars(&value))?;
        Some(json!({ "name": name, "value": value }))
    };
    let fields: Vec<Value> = message.details.rows().into_iter().take(25).map_while(field).collect();

    json!({
        // A host that is called @everyone calls nobody.
        "allowed_mentions": { "parse": [] },
        "embeds": [{
            "title": title,
            "description": (!description.is_empty()).then_some(description),
            "color": by_outcome(message, 0x1a_7f37, 0x9a_6700, 0xb4_2318),
            "fields": fields,
            "footer": { "text": format!("pbx-config {}", message.details.version) },
            "timestamp": message.details.at.to_string(),
        }],
    })
}

pub fn slack(message: &Message) -> Value {
    // Plain text is no markup; in `text`, which is, three characters are.
    let plain = |text: &str, max| json!({ "type": "plain_text", "text": cut(text, max), "emoji": false });
    let escaped = message.subject.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let fields: Vec<Value> = message
        .details
        .rows()
        .into_iter()
        .take(10)
        .map(|(label, value)| plain(&format!("{label}\n{value}"), 2000))
        .collect();
    let mut blocks = vec![
        json!({ "type": "header", "text": plain(&message.subject, 150) }),
        json!({ "type": "section", "fields": fields }),
    ];
    let problems = problems(message);
    if !problems.is_empty() {
        blocks.push(json!({ "type": "divider" }));
        blocks.push(json!({ "type": "section", "text": plain(&problems.join("\n"), 3000) }));
    }

    blocks.push(json!({
        "type": "context",
        "elements": [plain(&format!("pbx-config {}, {}", message.details.version, message.details.at), 200)],
    }));
    json!({ "text": escaped, "blocks": blocks })
}

/// A card for the webhooks of Teams' Workflows.
pub fn teams(message: &Message) -> Value {
    let text = |text: &str, more: Value| {
        let mut block = json!({ "type": "TextBlock", "text": unmarked(text, TEAMS_SIGNS), "wrap": true });
        for (key, value) in more.as_object().into_iter().flatten() {
            block[key] = value.clone();
        }
        block
    };
    let colour = by_outcome(message, "Good", "Warning", "Attention");

    let facts: Vec<Value> = message
        .details
        .rows()
        .iter()
        .map(|(title, value)| json!({ "title": title, "value": unmarked(value, TEAMS_SIGNS) }))
        .collect();
    let mut body = vec![
        text(&message.subject, json!({ "size": "Large", "weight": "Bolder", "color": colour })),
        json!({ "type": "FactSet", "facts": facts }),
    ];
    body.extend(problems(message).iter().map(|line| text(line, json!({ "spacing": "Small" }))));

    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
            },
        }],
    })
}

/// Both read Markdown in texts: links, emphasis and mentions of a hostile name are shown as they are written.
fn unmarked(text: &str, signs: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if signs.contains(c) {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

pub fn pushover(message: &Message, token: &str, user: &str) -> Value {
    let facts = message.details.rows().into_iter().map(|(label, value)| format!("{label}: {value}"));
    let lines: Vec<String> = problems(message).into_iter().chain(facts).collect();
    json!({
        "token": token,
        "user": user,
        "title": cut(&message.subject, 250),
        "message": cut(&lines.join("\n"), 1024),
        "priority": by_outcome(message, -1, 0, 1),
        "timestamp": message.details.at.as_second(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;
    use crate::model::message::{Details, PlacedCopy};
    use crate::model::problem::Problem;

    /// Builds a message as large and as hostile as one gets.
    fn large() -> Message {
        let evil = "<!channel> @everyone [x](http://evil) *b* ".repeat(9);
        let details = Details {
            verb: "backup".into(),
            outcome: Outcome::Failed,
            severity: "error",
            host: "pve1".into(),
            system: evil.clone(),
            product: "pve".into(),
            at: Timestamp::UNIX_EPOCH,
            version: "1",
            snapshot: Some("pve1/1970-01-01T00:00:00Z".into()),
            unchanged: None,
            size: 1,
            files: 1,
            bytes: 1,
            duration: 1.0,
            stores: (0..40)
                .map(|n| PlacedCopy {
                    store: format!("s{n}"),
                    place: Some(evil.clone()),
                    kept: Some(1),
                    removed: 0,
                })
                .collect(),
            problems: (0..20).map(|_| Problem::error(evil.clone()).hint(evil.clone())).collect(),
            more_problems: 5,
            since: None,
            changes: Vec::new(),
        };
        let subject = format!("pve1: {}", evil.chars().take(140).collect::<String>());
        Message { subject, text: evil.clone(), html: evil.clone(), log: evil, details }
    }

    fn length(value: &Value) -> usize {
        value.as_str().unwrap().chars().count()
    }

    #[test]
    fn cards_stay_within_the_limits_of_their_services() {
        let message = large();
        let embed = &discord(&message)["embeds"][0];
        assert!(length(&embed["title"]) <= 256 && length(&embed["description"]) <= 4096);
        let fields = embed["fields"].as_array().unwrap();
        assert!(fields.len() <= 25 && fields.iter().all(|field| length(&field["value"]) <= 1024));
        let texts = fields.iter().flat_map(|field| [&field["name"], &field["value"]]);
        let texts = texts.chain([&embed["title"], &embed["description"], &embed["footer"]["text"]]);
        assert!(!fields.is_empty() && texts.map(length).sum::<usize>() <= 6000);
        let blocks = slack(&message)["blocks"].clone();
        assert!(length(&blocks[0]["text"]["text"]) <= 150 && length(&blocks[3]["text"]["text"]) <= 3000);
        let fields = blocks[1]["fields"].as_array().unwrap();
        assert!(fields.len() <= 10 && fields.iter().all(|field| length(&field["text"]) <= 2000));
        assert!(teams(&message).to_string().len() < 28 * 1024);
        let push = pushover(&message, "t", "u");
        assert!(length(&push["title"]) <= 250 && length(&push["message"]) <= 1024);
    }

    #[test]
    fn names_of_a_host_call_nobody_and_link_nowhere() {
        let message = large();
        assert_eq!(discord(&message)["allowed_mentions"], json!({ "parse": [] }));
        let embed = discord(&message)["embeds"][0].to_string();
        assert!(embed.contains(r"\\[x\\](http://evil) \\*b") && embed.contains(r"\\<!channel>"), "{embed}");
        assert!(!embed.contains(" [x]"), "{embed}");
        let card = slack(&message);
        assert!(!card["text"].as_str().unwrap().contains('<'));
        assert!(!card["blocks"].to_string().contains("mrkdwn"));
        assert!(teams(&message).to_string().contains("\\\\[x\\\\](http://evil) \\\\*b"));
    }
}
