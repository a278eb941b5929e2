//! Texts with `{{ name }}` in them, as webhooks have: values stand for names, escaped as the place needs it.
//! There is nothing else in this language, no condition and no loop.

/// Escaping of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    Plain,
    /// Within the quotes of a JSON string.
    Json,
    /// A JSON string with its quotes.
    JsonString,
    /// Within an address or a form.
    Url,
}

impl Writing {
    /// Returns the escaping that suits a body of this type.
    pub fn of_type(content_type: &str) -> Self {
        let word = content_type.split(';').next().unwrap_or_default().trim();
        match word {
            "application/x-www-form-urlencoded" => Self::Url,
            word if word == "application/json" || word.ends_with("+json") => Self::Json,
            _ => Self::Plain,
        }
    }

    pub fn write(self, value: &str) -> String {
        let quoted = || serde_json::Value::from(value).to_string();
        match self {
            Self::Plain => value.to_owned(),
            Self::JsonString => quoted(),
            Self::Json => quoted().trim_matches('"').to_owned(),
            Self::Url => percent_encoded(value),
        }
    }
}

fn percent_encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    /// None: as the place needs it.
    Value(Option<Writing>, String),
}

#[derive(Debug, Clone)]
pub struct Template(Vec<Part>);

impl Template {
    /// Errors: what is not understood, for a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inner, more) = match after.strip_prefix('{') {
                Some(after) => after.split_once("}}}"),
                None => after.split_once("}}"),
            }
            .ok_or("a {{ has no }}")?;
            parts.push(Part::Text(before.to_owned()));
            let words: Vec<&str> = inner.split_whitespace().collect();
            parts.push(match words[..] {
                [name] if is_name(name) => Part::Value(None, name.to_owned()),
                ["json", name] if is_name(name) => Part::Value(Some(Writing::JsonString), name.to_owned()),
                ["escape", name] if is_name(name) => Part::Value(Some(Writing::Json), name.to_owned()),
                ["url-encode", name] if is_name(name) => Part::Value(Some(Writing::Url), name.to_owned()),
                _ => return Err(
                    "only {{ name }}, {{ json name }}, {{ escape name }} and {{ url-encode name }} are known"
                        .to_owned(),
                ),
            });
            rest = more;
        }

        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(_, name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// A name without a value is empty.
    pub fn render(&self, usual: Writing, value: &dyn Fn(&str) -> Option<String>) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(writing, name) => writing.unwrap_or(usual).write(&value(name).unwrap_or_default()),
        };
        self.0.iter().map(part).collect()
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rendered(text: &str, usual: Writing) -> String {
        let value = |name: &str| (name == "host").then(|| "a\"b&\n\u{1b}é".to_owned());
        Template::parse(text).unwrap().render(usual, &value)
    }

    #[test]
    fn a_value_is_escaped_for_its_place() {
        assert_eq!(rendered("{\"h\":\"{{ host }}\"}", Writing::Json), "{\"h\":\"a\\\"b&\\n\\u001bé\"}");
        assert_eq!(rendered("h={{host}}&x={{ gone }}", Writing::Url), "h=a%22b%26%0A%1B%C3%A9&x=");
        assert_eq!(rendered("[{{ json host }}]", Writing::Plain), "[\"a\\\"b&\\n\\u001bé\"]");
        assert_eq!(
            rendered("{{{ host }}} {{ url-encode host }}", Writing::Plain),
            "a\"b&\n\u{1b}é a%22b%26%0A%1B%C3%A9"
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["{{ host", "{{}}", "{{ a b }}", "{{#if x}}", "{{ {{ x }} }}", "{{{ host }}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_type_of_a_body_decides() {
        for (word, writing) in [
            ("application/json; charset=utf-8", Writing::Json),
            ("application/vnd.x+json", Writing::Json),
            ("application/x-www-form-urlencoded", Writing::Url),
            ("text/plain", Writing::Plain),
        ] {
            assert_eq!(Writing::of_type(word), writing, "{word}");
        }
    }
}
