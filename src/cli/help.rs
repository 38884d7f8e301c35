//! The parts of the help beside clap's own texts: the commands in groups, and examples.
//!
//! The examples run as printed once their ids, files and addresses are the reader's own.

use clap::builder::Styles;
use clap::{Command, Subcommand};

/// The commands by purpose. A blank leads to a command inside another.
const GROUPS: &[(&str, &[&str])] = &[
    ("Run it", &["demo", "serve", "ingest", "worker", "simulate"]),
    ("Set up", &["migrate", "account", "broker", "token", "ban", "app", "line", "key", "check", "health"]),
    ("Send", &["send", "campaign send"]),
    ("Watch and mend", &["log", "campaign", "recipient", "rejected", "attachment"]),
    ("Describe it", &["codes", "openapi", "completions", "man"]),
];

pub const PROGRAM: &str = "\
`meta-dispatch COMMAND --help` shows the options of a command, and examples.

Settings come from the built-in defaults, then --config FILE (TOML), then the
environment; later sources win: [database] url = \"…\" in the file is
META_DISPATCH__DATABASE__URL in the environment. `meta-dispatch check` shows the
values in force.

Examples:
  meta-dispatch demo --once
  meta-dispatch account add --name 'Example Ltd'
  meta-dispatch line add --account 1 --class messenger --page-id 1234567890 \\
    --pat-stdin < page-token.txt
  meta-dispatch log tail --follow
  meta-dispatch --config /etc/meta-dispatch.toml check";

pub const SERVE: &str = "\
Examples:
  meta-dispatch serve
  META_DISPATCH__HTTP__LISTEN=0.0.0.0:8080 meta-dispatch serve
  meta-dispatch --config /etc/meta-dispatch.toml serve";

pub const INGEST: &str = "\
Example:
  export META_DISPATCH__DATABASE__URL=postgres://user:password@db:5432/dispatch
  export META_DISPATCH__BROKER__URL=amqp://user:password@mq:5672/%2f
  meta-dispatch migrate
  meta-dispatch ingest";

pub const WORKER: &str = "\
Examples:
  export META_DISPATCH__DATABASE__URL=postgres://user:password@db:5432/dispatch
  export META_DISPATCH__BROKER__URL=amqp://user:password@mq:5672/%2f
  meta-dispatch worker

A second process on the same machine needs an admin address of its own:
  META_DISPATCH__ADMIN__LISTEN=127.0.0.1:9091 meta-dispatch worker";

pub const DEMO: &str = "\
The demo writes nothing but errors to its process log, so that the table stays
whole; META_DISPATCH__LOG__FILTER=info shows the rest.

Examples:
  meta-dispatch demo
  meta-dispatch demo --once";

pub const SEND: &str = "\
The API token comes from META_DISPATCH_TSID, or from --tsid-file.

Examples:
  meta-dispatch send --app-id 1 --dest 2531927391 --wait 10 \\
    --mdata 'Your order has shipped.'
  meta-dispatch send --app-id 1 --dest 2531927391 --mtype image \\
    --mdata https://example.com/receipt.png --idempotency-key order-7
  meta-dispatch send --app-id 2 --class instagram --dest 17841400000000001 \\
    --mdata 'The sale begins.' --send-at 2027-01-01T09:00:00Z --cp-id sale";

pub const KEY: &str = "\
Page tokens are sealed with the first key of security.key, and opened with any;
the secrets of Meta's apps with those of security.app_key. Restart the workers
with a new key before tokens are sealed with it, and all processes with a new
key of apps.

Examples:
  meta-dispatch key generate
  meta-dispatch key seal
  meta-dispatch key rotate";

pub const CAMPAIGN_SEND: &str = "\
A CSV file begins with a header row of parameter names (dest, mdata, …). An
NDJSON file has one JSON object a line, with the same names. The options are
defaults for every line. Comma, semicolon or tab separate the cells, as the
header shows. Files are UTF-8, UTF-16 with a byte order mark, or windows-1252.

A column that is no parameter refuses the file, unless --ignore-columns passes
over it. A recipient that stands in several lines is counted, and with
--once-per-dest refused in all but the first.

The same command again sends only what is missing: the server remembers logged
lines for ingest.idempotency_ttl (24 hours by default). A changed file, or the
same file with other options, is a new batch, and all its lines are sent. To
send repaired lines, put them into a file of their own, or name the batch with
--batch-id from the beginning.

With --check nothing is logged: the command counts the recipients whose 24-hour
window is known to be open or closed, of whom nothing is known, and who cannot
be reached.

The API token comes from META_DISPATCH_TSID, or from --tsid-file.

Examples:
  meta-dispatch campaign send offers.csv --app-id 1 --cp-id offers
  meta-dispatch campaign send people.csv --app-id 1 --cp-id offers \\
    --mdata 'The sale begins.' --priority bulk --valid-for 3600
  meta-dispatch campaign send crm.csv --app-id 1 --cp-id offers \\
    --ignore-columns=name,city --once-per-dest
  meta-dispatch campaign send offers.ndjson --batch-id offers-2026-11
  meta-dispatch campaign send offers.csv --app-id 1 --check";

pub const LOG_TAIL: &str = "\
Times are UTC: a time of the last day without its date. ERROR_CODE is code and
subcode of Graph. A terminal shows the columns that fit, and cuts long texts
with `…`; a file or another program receives all columns, whole. `log show`
prints every column of `cdls`.

With --json and --follow, the output is NDJSON: one line for each message, and a
new line for each change of its status.

Examples:
  meta-dispatch log tail --follow --line 1
  meta-dispatch log tail --status ERROR --error-code 551 --since 1h
  meta-dispatch log tail --cp-id offers --dest 2531927391 --json";

pub const LOG_RESOLVE: &str = "\
A message is UNKNOWN when its call ended without a complete answer: Graph may
have taken the message. `--as retry` may deliver the message twice. An expired
message is not retried.

Examples:
  meta-dispatch log resolve 4711 --as ok --message-id m_abc
  meta-dispatch log resolve --line 3 --since 2h --as retry --dry-run";

pub const LOG_RECONCILE: &str = "\
A message that Meta shows becomes OK, if no other message can be meant. A
message that Meta does not show stays UNKNOWN: that is no proof, and
`--not-found retry` may deliver the message twice. Meta shows the 20 newest
messages of a recipient, and takes two questions a second for each line.

Examples:
  meta-dispatch log reconcile --dry-run
  meta-dispatch log reconcile --line 3 --since 2h
  meta-dispatch log reconcile 4711 --not-found error";

pub const LOG_RESEND: &str = "\
A filter selects messages in ERROR, unless --status names CANCELLED or OK. The
command copies each message only once, also when it runs again; resend the copy
if the copy fails too. Settle UNKNOWN messages with `log resolve`.

Examples:
  meta-dispatch log resend 4711
  meta-dispatch log resend --line 3 --error-code 190 --since 24h";

pub const LOG_CANCEL: &str = "\
Messages that are PENDING or RETRY end as CANCELLED. A message in a call is left
alone. On a terminal the command asks before it cancels by a filter. A run goes
on until nothing is left to cancel of what it found at its beginning.

Examples:
  meta-dispatch log cancel 4711
  meta-dispatch log cancel --line 3 --cp-id offers --dry-run
  meta-dispatch log cancel --batch-id offers-2026-11-1 --yes";

pub const LOG_EXPORT: &str = "\
A CSV file has a header row. A cell that a spreadsheet would take for a formula
begins with an apostrophe.

Examples:
  meta-dispatch log export --status ERROR --since 24h --output errors.csv
  meta-dispatch log export --cp-id offers --format ndjson -o offers.ndjson";

pub const ACCOUNT_MAP_USER: &str = "\
With --queue the user publishes to an exchange of its own, and waits for no
other user's submissions. `broker grants` prints the permissions it needs.
Messages left in the queue of a user that is unmapped stay there.

Examples:
  meta-dispatch account map-user --account 1 --user shop
  meta-dispatch account map-user --account 1 --user shop --queue";

pub const ACCOUNT_ALLOW: &str = "\
Over HTTP the account is usable from its networks alone: requests from other
addresses are answered 142. --network adds networks, --clear removes those that
were set before; both together replace them. An account without networks is
usable from everywhere. The networks do not concern producers on RabbitMQ.

Examples:
  meta-dispatch account allow 1 --network 203.0.113.0/24 --network 2001:db8::/48
  meta-dispatch account allow 1 --clear --network 198.51.100.7
  meta-dispatch account allow 1 --clear";

pub const TOKEN_ADD: &str = "\
Scopes: send (messages and batches, also over RabbitMQ), read (messages, lines
and campaigns), campaigns (pause, resume, cancel, also single messages),
callbacks.

Examples:
  meta-dispatch token add --account 1
  meta-dispatch token add --account 1 --name shop --scope send,read \\
    --expires 90d
  meta-dispatch token add --account 1 --expires 2060-01-01T00:00:00Z";

pub const BROKER_GRANTS: &str = "\
The commands go to the machine of RabbitMQ. Add the users first (rabbitmqctl
add_user NAME), and put names of your own in place of listener-1,
listener-inbound, meta-dispatch-ingest and meta-dispatch-worker. This command
changes nothing.

Examples:
  meta-dispatch broker grants
  meta-dispatch broker grants --user shop --user clinic";

pub const LINE_ADD: &str = "\
Examples:
  meta-dispatch line add --account 1 --class messenger --page-id 1234567890 \\
    --pat-stdin < page-token.txt
  meta-dispatch line add --account 1 --class instagram \\
    --ig-account-id 17841400000000000 --pat-file page-token.txt";

pub const APP_ADD: &str = "\
The secret and the verify token are sealed with the first key of
security.app_key, which every process needs then. The dashboard of the app at
Meta shows the secret, and takes the same verify token. An app that exists has
its secrets replaced.

Examples:
  meta-dispatch app add --id 1234567890 --name Shop \\
    --verify-token-file verify-token.txt --secret-stdin < app-secret.txt
  meta-dispatch app add --id 1234567890 --secret-file app-secret.txt \\
    --verify-token-file verify-token.txt";

pub const LINE_CHECK: &str = "\
Without an id, every line that is switched on is checked. The command reads,
and sends nothing; the end of a token that Meta tells is noted. The exit code
is 1 if a line cannot send as it is configured.";

pub const LINE_LIST: &str = "\
A limit in brackets is the limit of the class. BUDGET is the use of Meta's
budgets, and the rate to which they limit the line now. The reasons of pauses,
and limits above Meta's ceilings, stand below the table.";

/// The layout of the program's help: the commands stand in groups.
pub fn template() -> String {
    let styles = Styles::default();
    let header = styles.get_header();
    let commands = commands(&styles);
    format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{commands}\
         {header}Options:{header:#}\n{{options}}{{after-help}}"
    )
}

/// The groups, each with its commands and what they are for.
fn commands(styles: &Styles) -> String {
    let program = program();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let longest = GROUPS.iter().flat_map(|(_, paths)| *paths).map(|path| path.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (title, paths) in GROUPS {
        text.push_str(&format!("{header}{title}:{header:#}\n"));
        for path in *paths {
            let about = find(&program, path).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {literal}{path:longest$}{literal:#}  {about}\n"));
        }
        text.push('\n');
    }
    text
}

/// The program with its commands, and nothing else of it.
fn program() -> Command {
    super::Command::augment_subcommands(Command::new("meta-dispatch"))
}

fn find<'a>(program: &'a Command, path: &str) -> Option<&'a Command> {
    path.split(' ').try_fold(program, |command, name| command.find_subcommand(name))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;
    use super::super::table::widest;
    use super::*;

    /// Every command, and those inside it, with its path.
    fn all(command: &Command, path: &str) -> Vec<(String, Command)> {
        let mut found = vec![(path.to_owned(), command.clone())];
        for inner in command.get_subcommands() {
            found.extend(all(inner, format!("{path} {}", inner.get_name()).trim_start()));
        }
        found
    }

    #[test]
    fn groups_hold_each_command_once() {
        for command in program().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let places = GROUPS.iter().flat_map(|(_, paths)| *paths).filter(|path| **path == name);
            assert_eq!(places.count(), 1, "{name}");
        }
    }

    #[test]
    fn groups_hold_commands_that_exist() {
        let program = program();
        for path in GROUPS.iter().flat_map(|(_, paths)| *paths) {
            assert!(find(&program, path).is_some_and(|command| command.get_about().is_some()), "{path}");
        }
    }

    #[test]
    fn help_shows_the_groups_and_the_options() {
        let help = Cli::command().render_help().to_string();
        let places: Vec<Option<usize>> =
            ["Run it:", "  campaign send  ", "Watch and mend:", "Options:", "--config", "Examples:"]
                .map(|part| help.find(part))
                .to_vec();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{help}");
        assert!(!help.contains('{') && !help.contains("Commands:"), "{help}");
    }

    #[test]
    fn commands_and_examples_fit_80_columns() {
        let list = commands(&Styles::plain());
        assert!(widest(&list) <= 80, "{list}");
        for (path, command) in all(&Cli::command(), "").into_iter().filter(|(path, _)| path != "simulate") {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(widest(&after) <= 80, "{path}: {after}");
        }
    }

    #[test]
    fn examples_are_commands_of_the_program() {
        for (path, command) in all(&Cli::command(), "") {
            let after =
                command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", "");
            for line in after.lines().filter_map(|line| line.strip_prefix("  ")) {
                let Some(start) = line.find("meta-dispatch ") else { continue };
                let line = line[start..].split(" < ").next().unwrap_or_default();
                let words = words(line);
                assert!(Cli::try_parse_from(&words).is_ok(), "{path}: {words:?}");
            }
        }
    }

    /// The words of a line, as a shell takes them apart.
    fn words(line: &str) -> Vec<String> {
        let quoted = line.split('\'').enumerate().map(|(place, part)| match place % 2 {
            0 => part.to_owned(),
            _ => part.replace(' ', "\u{a0}"),
        });
        let line: String = quoted.collect();
        line.split_ascii_whitespace().map(|word| word.replace('\u{a0}', " ")).collect()
    }
}
