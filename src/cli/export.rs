//! `log export`: all messages that match, oldest first, as CSV or NDJSON; a page of them in memory at a time.
//!
//! A file appears under its name when it is whole.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::output::{Output, tell_note};
use super::settle::Selected;
use crate::api::export::ExportFormat;
use crate::domain::RowId;
use crate::store::{LogFilter, Store};

/// Rows read at a time.
const PAGE: u32 = 1_000;

/// Arguments of `log export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    selected: Selected,
    /// Form of the rows
    #[arg(long, value_name = "FORM", default_value = "csv")]
    format: Form,
    /// File to write (default: standard output)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Csv,
    Ndjson,
}

/// The answer where the rows go into a file.
#[derive(Debug, Serialize)]
struct Exported {
    rows: u64,
    file: PathBuf,
}

pub async fn export(args: ExportArgs, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let format = match args.format {
        Form::Csv => ExportFormat::Csv,
        Form::Ndjson => ExportFormat::Ndjson,
    };
    let filter = args.selected.filter();
    let Some(path) = args.output else {
        let rows = rows_into(&mut BufWriter::new(std::io::stdout()), format, &filter, store).await?;
        tell_note(&format!("{rows} rows"));
        return Ok(());
    };
    let named = || path.display().to_string();
    let mut file = tempfile::NamedTempFile::new_in(folder_of(&path)).with_context(named)?;
    let rows = rows_into(&mut BufWriter::new(file.as_file_mut()), format, &filter, store).await?;
    file.persist(&path).with_context(named)?;
    out.answer(&Exported { rows, file: path }, |exported| {
        format!("{} rows written to {}", exported.rows, exported.file.display())
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Writes all rows up to the newest of this moment; how many they are.
async fn rows_into<W: Write>(
    writer: &mut BufWriter<W>,
    format: ExportFormat,
    filter: &LogFilter,
    store: &dyn Store,
) -> anyhow::Result<u64> {
    writer.write_all(format.head().as_bytes())?;
    let last = store.log_newest(filter, 1).await?.first().map_or(RowId(0), |row| row.cdls_id);
    let (mut after, mut count) = (RowId(0), 0);
    while after < last {
        let rows = store.log_after(filter, after, PAGE).await?;
        let Some(newest) = rows.last() else { break };
        after = newest.cdls_id;
        for row in rows.iter().filter(|row| row.cdls_id <= last) {
            writer.write_all(format.line(row).as_bytes())?;
            count += 1;
        }
    }
    writer.flush()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_made_beside_its_name() {
        assert_eq!(folder_of(Path::new("a.csv")), Path::new("."));
        assert_eq!(folder_of(Path::new("out/a.csv")), Path::new("out"));
    }
}
