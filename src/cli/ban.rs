//! `ban`: the addresses whose requests are refused, as they have guessed tokens.

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use super::parse;
use super::screen::Screen;
use super::table::{Column, Table, date_and_time};
use crate::domain::CountedAddress;
use crate::store::{BanRow, Store};

#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// List the banned addresses
    List,
    /// Lift the ban of an address, or all bans; takes effect within 10 seconds
    Lift {
        /// Address, or /64 network of IPv6
        #[arg(value_parser = parse::caller_address, required_unless_present = "all", conflicts_with = "all")]
        address: Option<CountedAddress>,
        /// Lift all bans
        #[arg(long)]
        all: bool,
    },
}

#[derive(Serialize)]
struct BanList {
    bans: Vec<BanRow>,
}

#[derive(Serialize)]
struct Lifted {
    lifted: Vec<String>,
}

pub async fn run(command: BanCommand, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    match command {
        BanCommand::List => {
            let bans = BanList { bans: store.bans().await? };
            out.answer(&bans, |bans| list(&bans.bans, out.screen))
        }
        BanCommand::Lift { address, all } => {
            let only = if all { None } else { Some(address.context("name an address, or --all")?) };
            let lifted = Lifted { lifted: store.lift_bans(only).await? };
            if let Some(address) = only {
                ensure!(
                    !lifted.lifted.is_empty(),
                    "{address} is not banned (ban list shows the addresses that are)"
                );
            }
            out.answer(&lifted, |lifted| {
                format!("bans lifted: {}; every process knows within 10 seconds", lifted.lifted.len())
            })
        }
    }
}

fn list(bans: &[BanRow], screen: Screen) -> String {
    const COLUMNS: [Column; 4] = [
        Column::new("ADDRESS"),
        Column::new("SINCE (UTC)").spare(1),
        Column::new("UNTIL (UTC)"),
        Column::text("REASON", 12),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for ban in bans {
        table.add([
            ban.address.as_str(),
            &date_and_time(ban.created_at),
            &date_and_time(ban.until),
            &ban.reason,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::*;

    #[rstest]
    fn list_fits_a_terminal(#[values(80, 160)] width: u16) {
        let at = datetime!(2026-11-23 14:15:20 UTC);
        let ban = BanRow {
            address: "2001:db8:ffff:ffff::/64".into(),
            reason: "15 unknown tokens in 10 minutes".into(),
            created_at: at,
            until: at,
        };
        let text = list(&[ban], Screen { width: Some(width), colours: false });
        assert!(text.lines().count() == 2 && widest(&text) <= width, "{text}");
        assert!(text.contains("2001:db8:ffff:ffff::/64") && text.contains("15 unknown"), "{text}");
    }
}
