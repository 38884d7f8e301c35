//! `codes`: the table by which answers of Graph are judged, with the entries of the setting `graph.codes`.

use clap::Args;
use serde::Serialize;

use super::output::Output;
use super::table::{Column, Table, or_dash};
use crate::policy::classify::{CodeRow, code_rows, codes_page};
use crate::settings::Settings;

/// Arguments of `codes`.
#[derive(Debug, Args)]
pub struct CodesArgs {
    /// Print the page docs/graph-codes.md
    #[arg(long, hide = true)]
    page: bool,
}

#[derive(Serialize)]
struct Codes {
    codes: Vec<CodeRow>,
}

const COLUMNS: [Column; 6] = [
    Column::new("CODE"),
    Column::text("SUBCODE", 10),
    Column::text("CAUSE", 20),
    Column::text("MESSAGE", 12),
    Column::new("PAUSE"),
    Column::text("REMEDY", 12),
];

pub fn run(args: CodesArgs, settings: &Settings, out: &Output) -> anyhow::Result<()> {
    if args.page {
        return out.text(&codes_page());
    }
    let overrides = settings.graph.code_overrides()?;
    let mut codes = Codes { codes: code_rows(&overrides) };
    // The marks of the page.
    for row in &mut codes.codes {
        row.message = row.message.replace('`', "");
    }
    out.answer(&codes, |codes| {
        let mut table = Table::new(&COLUMNS, out.screen);
        for CodeRow { code, subcode, cause, message, pause, remedy, .. } in &codes.codes {
            let shown = |text: &str| or_dash(Some(text).filter(|text| !text.is_empty()));
            table.add([
                code.clone(),
                subcode.clone(),
                cause.clone(),
                message.clone(),
                shown(pause),
                shown(remedy),
            ]);
        }
        table.render()
    })
}
