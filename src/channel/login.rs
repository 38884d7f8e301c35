//! The ways in which a line is connected to Meta: each has its kind of token, its host, and its path.

use crate::text::words;

/// The way in which a line is connected to Meta (`v8l_graph`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Login {
    /// Facebook Login: a Page's token, for Messenger and for Instagram accounts that are linked to a Page.
    Facebook,
    /// Instagram Login: the token of an Instagram professional account, without a Page.
    Instagram,
    /// Unified Login: the token of a system user, for an Instagram professional account that the path names.
    Unified,
}
words!(Login, "way to connect", {
    Facebook => "facebook", Instagram => "instagram", Unified => "unified",
});

/// The beginning of each token of Instagram Login.
const INSTAGRAM_TOKEN: &str = "IGAA";

impl Login {
    /// Return the way of a line: the chosen one, or else the one that its token shows.
    pub fn of(chosen: Option<Login>, token: &str) -> Login {
        let by_token = if token.starts_with(INSTAGRAM_TOKEN) { Login::Instagram } else { Login::Facebook };
        chosen.unwrap_or(by_token)
    }

    /// Whether tokens of this way end after 60 days, and are refreshed.
    pub fn has_refresh(self) -> bool {
        self == Login::Instagram
    }

    /// Whether the path of calls names the Instagram account.
    pub fn needs_account_id(self) -> bool {
        self == Login::Unified
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::by_a_page_token(None, "EAAtoken", Login::Facebook)]
    #[case::by_an_instagram_token(None, "IGAAtoken", Login::Instagram)]
    #[case::by_an_older_instagram_token(None, "IGQVtoken", Login::Facebook)]
    #[case::chosen(Some(Login::Instagram), "EAAtoken", Login::Instagram)]
    #[case::chosen_against_the_token(Some(Login::Facebook), "IGAAtoken", Login::Facebook)]
    #[case::a_system_user(Some(Login::Unified), "EAAtoken", Login::Unified)]
    fn token_decides_where_nothing_is_chosen(
        #[case] chosen: Option<Login>,
        #[case] token: &str,
        #[case] expected: Login,
    ) {
        assert_eq!(Login::of(chosen, token), expected);
    }
}
