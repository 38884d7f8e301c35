//! `token`: the API tokens (tsid) with which an account's callers authenticate.

use anyhow::ensure;
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::output::Output;
use super::screen::Screen;
use super::table::{Column, Table, date_and_time, or_dash};
use super::{help, parse};
use crate::domain::{AccountId, TokenScopes};
use crate::edge::tokens::{self, TokenKeys};
use crate::store::{NewToken, Store, TokenRow};

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Add a token to an account; the token is shown only once
    #[command(after_help = help::TOKEN_ADD)]
    Add {
        /// Id of the account
        #[arg(long, value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
        /// Name of the token, for lists
        #[arg(long, value_parser = parse::name)]
        name: Option<String>,
        /// Uses of the token: send, read, campaigns, callbacks; several separated by commas (default: all)
        #[arg(long, value_name = "SCOPES", value_parser = parse::scopes)]
        scope: Option<TokenScopes>,
        /// End of the token: a time from now (90d) or an RFC 3339 time (default: none)
        #[arg(long, value_name = "TIME", value_parser = parse::end)]
        expires: Option<OffsetDateTime>,
    },
    /// List the tokens by identifier (the first 10 characters)
    List,
    /// Revoke a token; takes effect within 10 seconds
    Revoke {
        /// Identifier of the token: its first 10 characters
        #[arg(value_parser = parse::name)]
        token_id: String,
    },
}

/// The name, the scopes and the end of a token.
pub struct TokenTerms {
    pub name: Option<String>,
    pub scopes: TokenScopes,
    pub expires_at: Option<OffsetDateTime>,
}

impl TokenTerms {
    /// A token for every use, without an end.
    pub const ANY: TokenTerms = TokenTerms { name: None, scopes: TokenScopes::ALL, expires_at: None };
}

/// A token in clear, for the person who asked for it.
#[derive(Serialize)]
pub struct IssuedToken {
    cdcs_id: AccountId,
    tsid: String,
}

impl IssuedToken {
    pub fn human(&self) -> String {
        format!("token of account {} (shown only this once; keep it now):\n{}", self.cdcs_id, self.tsid)
    }
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<TokenRow>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: String,
}

pub async fn run(
    command: TokenCommand,
    store: &dyn Store,
    keys: &TokenKeys,
    out: &Output,
) -> anyhow::Result<()> {
    match command {
        TokenCommand::Add { account, name, scope, expires } => {
            let terms = TokenTerms { name, scopes: scope.unwrap_or(TokenScopes::ALL), expires_at: expires };
            out.answer(&issue(store, keys, account, terms).await?, IssuedToken::human)
        }
        TokenCommand::List => {
            let tokens = Tokens { tokens: store.tokens().await? };
            out.answer(&tokens, |tokens| list(&tokens.tokens, out.screen))
        }
        TokenCommand::Revoke { token_id } => {
            // A whole token is not repeated, as it still works.
            ensure!(
                token_id.chars().count() == tokens::IDENTIFIER_CHARS,
                "a token is named by its first {} characters, as in token list",
                tokens::IDENTIFIER_CHARS
            );
            ensure!(store.revoke_token(&token_id).await?, "no token {token_id}, or it is revoked already");
            out.answer(&Revoked { revoked: token_id }, |revoked| {
                format!("token {} revoked; every process refuses it within 10 seconds", revoked.revoked)
            })
        }
    }
}

/// Make a token for an account.
pub async fn issue(
    store: &dyn Store,
    keys: &TokenKeys,
    account: AccountId,
    terms: TokenTerms,
) -> anyhow::Result<IssuedToken> {
    let token = tokens::mint();
    let tsid = token.expose_secret();
    let hash = keys.hashes(tsid).swap_remove(0);
    let TokenTerms { name, scopes, expires_at } = terms;
    let stored = NewToken {
        account,
        token_id: hash.identifier(tsid),
        hash: hash.hash,
        key_id: hash.key_id,
        name,
        scopes,
        expires_at,
    };
    store.insert_token(&stored).await?;
    Ok(IssuedToken { cdcs_id: account, tsid: tsid.to_owned() })
}

fn list(tokens: &[TokenRow], screen: Screen) -> String {
    const COLUMNS: [Column; 7] = [
        Column::new("TOKEN_ID"),
        Column::number("CDCS_ID"),
        Column::text("NAME", 8),
        Column::text("SCOPES", 8),
        Column::new("EXPIRES (UTC)"),
        Column::new("LAST USE (UTC)"),
        Column::new("CREATED (UTC)").spare(1),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for token in tokens {
        table.add([
            token.token_id.clone(),
            token.cdcs_id.to_string(),
            or_dash(token.name.clone()),
            if token.scopes == TokenScopes::ALL { "all".to_owned() } else { token.scopes.to_string() },
            end(token),
            or_dash(token.last_used_at.map(date_and_time)),
            date_and_time(token.created_at),
        ]);
    }
    table.render()
}

/// Return the end of a token; one that is revoked has ended.
fn end(token: &TokenRow) -> String {
    match token.revoked_at {
        Some(_) => "revoked".to_owned(),
        None => or_dash(token.expires_at.map(date_and_time)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-23 14:15:20 UTC);

    fn token() -> TokenRow {
        TokenRow {
            token_id: "0123456789".into(),
            cdcs_id: AccountId(7),
            name: Some("the shop's own server, second floor".into()),
            scopes: "send,read".parse().expect("known words"),
            key_id: None,
            created_at: NOW,
            expires_at: None,
            last_used_at: Some(NOW),
            revoked_at: None,
        }
    }

    #[rstest]
    fn list_fits_a_terminal(#[values(80, 120, 160)] width: u16) {
        let text = list(&[token()], Screen { width: Some(width), colours: false });
        assert!(text.lines().count() == 2 && widest(&text) <= width, "{text}");
        assert!(
            text.contains("0123456789") && text.contains("LAST USE") && text.contains("EXPIRES"),
            "{text}"
        );
        assert_eq!(text.contains("CREATED (UTC)"), width > 80, "{text}");
    }

    #[test]
    fn end_is_a_time_or_a_word() {
        assert_eq!(end(&token()), "-");
        assert_eq!(end(&TokenRow { expires_at: Some(NOW), ..token() }), "2026-11-23 14:15");
        assert_eq!(end(&TokenRow { revoked_at: Some(NOW), expires_at: Some(NOW), ..token() }), "revoked");
    }
}
