//! `token`: the API tokens (tsid) with which an account's callers authenticate.

use anyhow::ensure;
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::output::Output;
use super::parse;
use super::screen::Screen;
use super::table::{Column, Table, date_and_time, or_dash};
use crate::domain::AccountId;
use crate::edge::tokens;
use crate::store::{Store, TokenRow};

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Add a token to an account; the token is shown only once
    Add {
        /// Id of the account
        #[arg(long, value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
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

/// A token in clear, for the person who asked for it.
#[derive(Serialize)]
pub struct NewToken {
    cdcs_id: AccountId,
    tsid: String,
}

impl NewToken {
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

pub async fn run(command: TokenCommand, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    match command {
        TokenCommand::Add { account } => out.answer(&issue(store, account).await?, NewToken::human),
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
pub async fn issue(store: &dyn Store, account: AccountId) -> anyhow::Result<NewToken> {
    let token = tokens::mint();
    let tsid = token.expose_secret();
    let identifier = tokens::identifier(tsid).expect("a minted token is longer than its identifier");
    store.add_token(account, identifier, &tokens::hash(tsid)).await?;
    Ok(NewToken { cdcs_id: account, tsid: tsid.to_owned() })
}

fn list(tokens: &[TokenRow], screen: Screen) -> String {
    const COLUMNS: [Column; 4] = [
        Column::new("TOKEN_ID"),
        Column::number("CDCS_ID"),
        Column::new("CREATED (UTC)"),
        Column::new("REVOKED (UTC)"),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for token in tokens {
        table.add([
            token.token_id.clone(),
            token.cdcs_id.to_string(),
            date_and_time(token.created_at),
            or_dash(token.revoked_at.map(date_and_time)),
        ]);
    }
    table.render()
}
