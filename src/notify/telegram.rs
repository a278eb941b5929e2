//! `telegram`: a bot writes into a chat, through Telegram, through a private Bot API server, or through a
//! gateway that keeps the bot's token for many hosts.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::call::{Access, Call, below, fit};
use super::{Channel, Sent};
use crate::model::message::Message;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};
use crate::sys::host::Host;
use crate::sys::net::http::Site;

pub(super) const SECRETS: &[&str] = &["token", "secret"];
const BOT_API: &str = "https://api.telegram.org";
/// Telegram's limit of a message, in UTF-16 units.
const TEXT_MAX_UNITS: usize = 4096;

/// `telegram: ID`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    chat: Option<String>,
    /// A topic of the chat.
    thread: Option<i64>,
    token: Option<Secret>,
    /// Address of a Bot API server.
    url: Option<String>,
    /// Gateway that knows the token and the chat, instead of all that.
    gateway: Option<String>,
    server_id: Option<String>,
    secret: Option<Secret>,
}

enum Way {
    Bot { url: String, token: Secret, chat: String, thread: Option<i64> },
    Gateway { url: String, server_id: String, secret: Secret },
}

struct Telegram {
    way: Way,
    access: Access,
    site: Site,
}

pub(super) fn open(section: &Section) -> Result<Box<dyn Channel>, SyntaxError> {
    let (access, rest) = Access::split(section)?;
    let options: Options = rest.read()?;
    let private = |key: &str| {
        let error = section.error_at("", &format!("'{key}' is missing"));
        error.hinted(format!("put `{key}` under 'telegram: {}' in secrets.cfg", section.id))
    };
    let public = |key: &str| {
        section.error_at("", &format!("'{key}' is missing")).hinted(format!("add a line '{key} VALUE'"))
    };
    if let Some(gateway) = options.gateway {
        for key in ["chat", "thread", "token", "url"] {
            if section.get(key).is_some() {
                return Err(section.error_at(key, "the gateway sets this itself").hinted("delete this line"));
            }
        }
        let site = access.base(section, "gateway", &gateway, "/api/notify")?;
        let server_id = options.server_id.ok_or_else(|| public("server-id"))?;
        let secret = options.secret.ok_or_else(|| private("secret"))?;
        return Ok(Box::new(Telegram {
            way: Way::Gateway { url: gateway, server_id, secret },
            access,
            site,
        }));
    }

    for key in ["server-id", "secret"] {
        if section.get(key).is_some() {
            return Err(section
                .error_at(key, "this is only valid with 'gateway'")
                .hinted("delete this line"));
        }
    }

    let url = options.url.unwrap_or_else(|| BOT_API.to_owned());
    let site = access.base(section, "url", &url, "/sendMessage")?;
    let token = options.token.ok_or_else(|| private("token"))?;
    let number = token.reveal().split_once(':').map(|(number, _)| number).unwrap_or_default();
    let whole = token.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(&byte));
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) || !whole {
        return Err(section
            .error_at("token", "not a bot token")
            .hinted("use the token from @BotFather: 123456:ABC-..."));
    }

    let chat = options.chat.ok_or_else(|| public("chat"))?;
    Ok(Box::new(Telegram { way: Way::Bot { url, token, chat, thread: options.thread }, access, site }))
}

impl Channel for Telegram {
    fn place(&self) -> String {
        match &self.way {
            Way::Bot { chat, .. } => format!("chat {chat} by {}", self.site.name),
            Way::Gateway { server_id, .. } => format!("server {server_id} by {}", self.site.name),
        }
    }

    fn send(&self, message: &Message, host: &Host, limit: Duration) -> Sent {
        // Plain text: a name of the host can be no markup.
        let text = fit(&message.text, TEXT_MAX_UNITS, char::len_utf16);

        let answer = match &self.way {
            Way::Bot { url, token, chat, thread } => {
                let mut body = json!({ "chat_id": chat, "text": text, "disable_web_page_preview": true });
                if let Some(thread) = thread {
                    body["message_thread_id"] = json!(thread);
                }
                let url = below(url, &format!("bot{}/sendMessage", token.reveal()));
                Call::post(&self.access, &url, &body).hiding(token).make(host, limit)
            }
            Way::Gateway { url, server_id, secret } => {
                let body = json!({ "server_id": server_id, "message": text });
                Call::post(&self.access, &below(url, "api/notify"), &body)
                    .header("X-Server-Auth", secret.reveal())
                    .hiding(secret)
                    .make(host, limit)
            }
        };
        answer.map(drop)
    }
}
