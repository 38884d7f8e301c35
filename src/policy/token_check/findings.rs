//! The faults of a line that a person has to mend, each with its remedy: the gravest first.

use time::OffsetDateTime;

use super::super::classify::asked;
use super::super::token_life::{ALARM_BELOW, WARN_BELOW, told};
use super::facts::{Facts, Owner};
use super::{Answers, Finding, Level, ends_at};
use crate::channel::{Class, Login};
use crate::text::timestamp;

/// A token that lasts no longer was taken with a short-lived user token.
const ONE_HOUR_TOKEN: time::Duration = time::Duration::hours(2);
/// A version of the interface that ends sooner is a warning.
const VERSION_ENDS_WITHIN: time::Duration = time::Duration::days(90);

pub(super) fn of(answers: &Answers<'_>, facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = [
        token(answers, facts),
        end(answers, facts),
        data_access(answers, facts),
        kind(facts),
        page(answers, facts),
        account(answers, facts),
        app(answers, facts),
        permissions(answers, facts),
        proof(answers, facts),
        webhooks(answers, facts),
        version(answers, facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

fn error(code: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Option<Finding> {
    Some(Finding { level: Level::Error, code, detail: detail.into(), remedy: remedy.into() })
}

fn warning(code: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Option<Finding> {
    Some(Finding { level: Level::Warning, code, detail: detail.into(), remedy: remedy.into() })
}

/// Return how a person gets a new token, and gives it to the program.
fn connect_again(login: Login) -> &'static str {
    match login {
        Login::Facebook => "connect the Page again at Meta, and set its new token with `line set-pat`",
        Login::Instagram => {
            "connect the account again with Instagram Login, and set its new token with `line set-pat`"
        }
        Login::Unified => "make a new token of the system user, and set it with `line set-pat`",
    }
}

/// Whether Meta answered at all, and took the token.
fn token(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let refusal = asked(&answers.identity).err();
    if facts.valid == Some(false) {
        let why = refusal.map_or_else(String::new, |refusal| format!(": {}", told(&refusal)));
        return error("token_invalid", format!("Meta refuses the token{why}"), connect_again(answers.login));
    }
    let refusal = refusal?;
    let why = told(&refusal);
    if refusal.is_passing() {
        let remedy = "ask again later; `check` tells whether Graph is reached";
        return error("not_answered", format!("Meta did not answer about the line: {why}"), remedy);
    }
    if refusal.text.contains("appsecret_proof") {
        // `proof` tells it.
        return None;
    }
    let remedy = match answers.login {
        Login::Unified => {
            "compare v8l_ig_account_id with the account of the system user, or choose another way with `line set --graph`"
        }
        _ => {
            "set the token of the Page or account itself with `line set-pat`, or choose another way with `line set --graph`"
        }
    };
    error("identity_refused", format!("Meta does not tell whose token it is: {why}"), remedy)
}

fn end(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let at = facts.expires_at.at()?;
    let left = at - answers.now;
    let ended = format!("the token ends at {}", timestamp(at));
    if left <= time::Duration::ZERO {
        let detail = format!("the token has ended at {}", timestamp(at));
        return error("token_ended", detail, connect_again(answers.login));
    }
    if left < ONE_HOUR_TOKEN {
        let remedy = "exchange the user's token for a long-lived one first, take the Page's token with that, and set it with `line set-pat`";
        return error("one_hour_token", format!("{ended}: it is a token of one hour"), remedy);
    }
    let remedy = match answers.login {
        Login::Instagram => {
            "the worker refreshes it once a day until then; if its log names a failure, connect the account again and use `line set-pat`"
        }
        _ => connect_again(answers.login),
    };
    if left <= ALARM_BELOW {
        return error("token_ends_near", ended, remedy);
    }
    if left <= WARN_BELOW { warning("token_ends_soon", ended, remedy) } else { None }
}

fn data_access(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let at = facts.data_access_expires_at.at()?;
    let left = at - answers.now;
    let remedy = "the person who connected the Page logs in to the app again";
    if left <= time::Duration::ZERO {
        return error(
            "data_access_ended",
            format!("the access to data has ended at {}", timestamp(at)),
            remedy,
        );
    }
    let detail = format!("the access to data ends at {}", timestamp(at));
    if left <= WARN_BELOW { warning("data_access_ends_soon", detail, remedy) } else { None }
}

/// The commonest mistake: the token of a person in the place of a Page's.
fn kind(facts: &Facts) -> Option<Finding> {
    let is_users = facts.token_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("USER"));
    if !is_users {
        return None;
    }
    let remedy =
        "take the Page's own token (`GET /me/accounts` with this one), and set it with `line set-pat`";
    error("user_token", "the token belongs to a person, not to a Page", remedy)
}

fn mismatch(configured: Option<&str>, found: Option<&Owner>) -> Option<(String, String)> {
    let (configured, found) = (configured.map(str::trim).filter(|id| !id.is_empty())?, found?);
    let name = found.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    (configured != found.id).then(|| (configured.to_owned(), format!("{}{name}", found.id)))
}

fn page(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let (configured, found) = mismatch(answers.page_id, facts.page.as_ref())?;
    let detail = format!("the token belongs to the Page {found}, and the line has the Page {configured}");
    error(
        "other_page",
        detail,
        "set the Page's own token with `line set-pat`, or the right id with `line set --page-id`",
    )
}

fn account(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let is_instagram = answers.class == Class::INSTAGRAM;
    if is_instagram
        && answers.login == Login::Facebook
        && facts.page.is_some()
        && facts.instagram_account.is_none()
    {
        let remedy = "link the Instagram professional account to the Page at Meta";
        return error("no_linked_account", "the Page of the token has no Instagram account", remedy);
    }
    let (configured, found) = mismatch(answers.instagram_account_id, facts.instagram_account.as_ref())?;
    let detail = format!("the token belongs to the Instagram account {found}, and the line has {configured}");
    let remedy =
        "set the account's own token with `line set-pat`, or the right id with `line set --ig-account-id`";
    if is_instagram {
        error("other_account", detail, remedy)
    } else {
        warning("other_account", detail, remedy)
    }
}

fn app(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let (line, token) = (answers.app_id?, facts.app_id.as_deref()?);
    if line == token {
        return None;
    }
    let detail = format!("the token is of the app {token}, and the line belongs to the app {line}");
    error(
        "other_app",
        detail,
        "name the app of the token with `line set --app`, or set a token of the line's app with `line set-pat`",
    )
}

fn permissions(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let missing = facts.missing_permissions.as_ref().filter(|missing| !missing.is_empty())?;
    let detail = format!("the token lacks the permission {}", missing.join(", "));
    error("permission_missing", detail, format!("grant it: {}", connect_again(answers.login)))
}

fn proof(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let is_refused = asked(&answers.identity).is_err_and(|refusal| refusal.text.contains("appsecret_proof"));
    if !is_refused {
        return None;
    }
    let remedy = "set the secret of the token's app: `app add` and `line set --app`, or graph.app_secret";
    let detail = match (answers.proves, facts.proof_demanded) {
        (true, _) => "Meta refuses the proof of the app: its secret is another app's, or was reset",
        (false, _) => "the app demands a proof of its secret (\"Require App Secret\"), and none is set",
    };
    error("proof_refused", detail, remedy)
}

fn webhooks(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let remedy = "`line subscribe` subscribes them";
    match facts.subscribed? {
        false => warning("not_subscribed", "the app does not hear of the line's events", remedy),
        true if facts.missing_fields.is_empty() => None,
        true => {
            let detail = format!("the app does not hear of {}", facts.missing_fields.join(", "));
            // The fields of Instagram accounts are chosen in the app's dashboard.
            let remedy = match answers.login {
                Login::Unified => "choose them in the app's dashboard at Meta",
                _ => remedy,
            };
            warning("fields_missing", detail, remedy)
        }
    }
}

fn version(answers: &Answers<'_>, facts: &Facts) -> Option<Finding> {
    let version = facts.api_version.as_deref()?;
    let end = ends_at(version)?;
    let end_of_day: OffsetDateTime = end.midnight().assume_utc();
    let key = if answers.login == Login::Instagram { "graph.instagram_base_url" } else { "graph.base_url" };
    let remedy = format!("name a later version in {key}");
    if end_of_day <= answers.now {
        return warning(
            "version_ended",
            format!("version {version} of Meta's interface has ended at {end}"),
            remedy,
        );
    }
    let detail = format!("version {version} of Meta's interface ends at {end}");
    if end_of_day - answers.now <= VERSION_ENDS_WITHIN {
        warning("version_ends_soon", detail, remedy)
    } else {
        None
    }
}
