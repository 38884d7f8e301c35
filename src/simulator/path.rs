//! The paths of Graph that the simulator plays.

/// The object that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GraphPath<'a> {
    /// `{id}/messages`
    Messages(&'a str),
    Attachments(&'a str),
    SubscribedApps(&'a str),
    Conversations(&'a str),
    ConversationMessages(&'a str),
    /// A Page, an account, a conversation or a message.
    Object(&'a str),
    DebugToken,
    Refresh,
}

impl<'a> GraphPath<'a> {
    /// Read a path, whatever its prefix.
    pub fn read(path: &'a str) -> Option<GraphPath<'a>> {
        let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
        let last = parts.next()?;
        let owner = parts.next().unwrap_or_default();
        match last {
            "messages" if owner.starts_with("t_") => Some(GraphPath::ConversationMessages(owner)),
            "messages" if is_account(owner) => Some(GraphPath::Messages(owner)),
            "message_attachments" if is_account(owner) => Some(GraphPath::Attachments(owner)),
            "subscribed_apps" if is_account(owner) => Some(GraphPath::SubscribedApps(owner)),
            "conversations" if is_account(owner) => Some(GraphPath::Conversations(owner)),
            "debug_token" => Some(GraphPath::DebugToken),
            "refresh_access_token" => Some(GraphPath::Refresh),
            _ if is_account(last) || last.starts_with("t_") || last.starts_with("m_") => {
                Some(GraphPath::Object(last))
            }
            _ => None,
        }
    }
}

fn is_account(id: &str) -> bool {
    id == "me" || (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_read_with_any_prefix() {
        for (path, expected) in [
            ("/v25.0/me/messages", Some(GraphPath::Messages("me"))),
            ("/1784/messages", Some(GraphPath::Messages("1784"))),
            ("/v25.0/t_1001_61/messages", Some(GraphPath::ConversationMessages("t_1001_61"))),
            ("/a/b/1001/subscribed_apps", Some(GraphPath::SubscribedApps("1001"))),
            ("/v25.0/me/message_attachments", Some(GraphPath::Attachments("me"))),
            ("/v25.0/me", Some(GraphPath::Object("me"))),
            ("/v25.0/m_abc", Some(GraphPath::Object("m_abc"))),
            ("/debug_token", Some(GraphPath::DebugToken)),
            ("/refresh_access_token", Some(GraphPath::Refresh)),
            ("/v25.0/messages", None),
            ("/v25.0", None),
            ("/", None),
        ] {
            assert_eq!(GraphPath::read(path), expected, "{path}");
        }
    }
}
