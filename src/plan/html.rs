//! The page of a message: HTML that mail programs show as it is meant, on a phone too. Styles stand at each
//! element, because many of those programs drop a style sheet; nothing is fetched from anywhere.

use std::fmt::Write as _;

use crate::model::message::Details;
use crate::model::problem::{Outcome, Severity};

const FONT: &str = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif";
const OK: &str = "#1a7f37";
const WARNING: &str = "#9a6700";
const ERROR: &str = "#b42318";

pub fn of(headline: &str, details: &Details) -> String {
    let colour = match details.outcome {
        Outcome::Ok => OK,
        Outcome::Warned => WARNING,
        Outcome::Failed => ERROR,
    };
    let (host, headline) = (escape(&details.host), escape(headline));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{host}: {headline}</title></head>\n\
         <body style=\"margin:0;padding:12px;background:#f4f4f5;color:#18181b;{FONT};font-size:16px;line-height:1.4\">\n\
         <div style=\"max-width:640px;margin:0 auto;background:#ffffff;border-top:6px solid {colour};padding:16px\">\n\
         <h1 style=\"margin:0 0 12px;font-size:20px;color:{colour}\">{host}<br>{headline}</h1>\n"
    );
    page.push_str("<table role=\"presentation\" style=\"width:100%;border-collapse:collapse\">\n");

    for (label, value) in details.rows() {
        let _ = writeln!(
            page,
            "<tr><td style=\"padding:4px 12px 4px 0;color:#52525b;vertical-align:top\">{label}</td>\
             <td style=\"padding:4px 0;word-break:break-word\">{}</td></tr>",
            escape(&value)
        );
    }

    page.push_str("</table>\n");
    problems(&mut page, details);
    changes(&mut page, details);
    let _ = writeln!(
        page,
        "<p style=\"margin:16px 0 0;color:#71717a;font-size:13px\">pbx-config {} on {host}, {}</p>",
        details.version, details.at
    );
    page.push_str("</div></body></html>\n");
    page
}

/// Writes a paragraph for each problem, with a bar in the colour of its severity.
fn problems(page: &mut String, details: &Details) {
    for problem in &details.problems {
        let colour = if problem.severity == Severity::Error { ERROR } else { WARNING };
        let hint = problem
            .hint
            .as_ref()
            .map(|hint| format!("<br><span style=\"color:#52525b\">{}</span>", escape(hint)));
        let _ = writeln!(
            page,
            "<p style=\"margin:12px 0 0;padding:0 0 0 10px;border-left:4px solid {colour};word-break:break-word\">\
             <strong style=\"color:{colour}\">{}</strong> {}{}</p>",
            problem.severity,
            escape(&problem.what),
            hint.unwrap_or_default()
        );
    }

    if details.more_problems > 0 {
        let _ = writeln!(page, "<p style=\"margin:12px 0 0\">and {} more</p>", details.more_problems);
    }
}

fn changes(page: &mut String, details: &Details) {
    if details.changes.is_empty() {
        return;
    }
    page.push_str(
        "<h2 style=\"margin:16px 0 4px;font-size:16px\">Changes</h2>\n\
         <ul style=\"margin:0;padding-left:20px;word-break:break-word\">\n",
    );
    for change in &details.changes {
        let _ = writeln!(page, "<li>{}</li>", escape(change));
    }
    page.push_str("</ul>\n");
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::message;
    use crate::model::facts::Facts;
    use crate::model::problem::Problem;
    use crate::model::report::Report;

    fn page(report: &Report) -> String {
        message::of(report, &Facts::default(), "", Timestamp::UNIX_EPOCH).html
    }

    #[test]
    fn names_of_the_host_are_text_and_never_markup() {
        let evil = "<script src=\"//x\">&'";
        let facts = Facts { node: evil.to_owned(), ..Facts::default() };
        let page = page(&Report::failed("backup", &facts, 0.0, Problem::error(evil).hint(evil)));
        assert!(!page.contains("<script"), "{page}");
        // Title, headline, system, problem, hint, foot.
        assert_eq!(page.matches("&lt;script src=&quot;//x&quot;&gt;&amp;&#39;").count(), 6, "{page}");
    }

    #[test]
    fn a_page_fetches_nothing() {
        let page = page(&Report::blank("backup", &Facts::default(), 1.0));
        assert!(page.contains("width=device-width") && page.contains("1.0 s"));
        for word in ["http", "src=", "url(", "@import"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
