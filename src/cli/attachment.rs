//! `attachment`: the assets that lines have uploaded to Meta, with `attachments.reuse`.

use anyhow::ensure;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{Output, tell_note};
use super::parse;
use super::screen::Screen;
use super::table::{Column, Table, date_and_time};
use crate::domain::LineId;
use crate::store::{AttachmentFilter, AttachmentRow, AttachmentState, MAX_ATTACHMENTS, Store};

#[derive(Debug, Subcommand)]
pub enum AttachmentCommand {
    /// List uploaded images, audios, videos and files, and URLs that Meta cannot fetch
    List(Selection),
    /// Forget uploads and failures: the next message with the URL uploads it again
    Forget {
        #[command(flatten)]
        selection: Selection,
        /// Forget those of every line
        #[arg(long, conflicts_with_all = ["line", "url"])]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub struct Selection {
    /// Only of this line
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    line: Option<LineId>,
    /// Only with this URL, whole or as listed
    #[arg(long)]
    url: Option<String>,
}

impl Selection {
    fn filter(self) -> AttachmentFilter {
        AttachmentFilter { line: self.line, url: self.url }
    }
}

#[derive(Serialize)]
struct AttachmentList {
    attachments: Vec<AttachmentRow>,
}

#[derive(Serialize)]
struct Forgotten {
    forgotten: u64,
}

pub async fn run(command: AttachmentCommand, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    match command {
        AttachmentCommand::List(selection) => {
            let list = AttachmentList { attachments: store.attachments(&selection.filter()).await? };
            if list.attachments.len() >= MAX_ATTACHMENTS as usize && !out.json {
                tell_note(&format!("more than {MAX_ATTACHMENTS} may be stored (--line, --url)"));
            }
            out.answer(&list, |list| table(&list.attachments, out.screen))
        }
        AttachmentCommand::Forget { selection, all } => {
            let filter = selection.filter();
            ensure!(
                all || filter.line.is_some() || filter.url.is_some(),
                "name the uploads: --line, --url, or --all"
            );
            let forgotten = Forgotten { forgotten: store.forget_attachments(&filter).await? };
            out.answer(&forgotten, |forgotten| {
                format!("uploads forgotten: {}; workers know within 10 seconds", forgotten.forgotten)
            })
        }
    }
}

fn table(attachments: &[AttachmentRow], screen: Screen) -> String {
    const COLUMNS: [Column; 7] = [
        Column::number("V8L_ID"),
        Column::new("MTYPE"),
        Column::new("STATE"),
        Column::new("SINCE (UTC)").spare(1),
        Column::new("UNTIL (UTC)").spare(2),
        Column::text("URL", 20),
        Column::text("RESULT", 12),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for row in attachments {
        table.add([
            row.v8l_id.to_string(),
            row.kind.to_string(),
            row.state.to_string(),
            date_and_time(row.changed_at),
            date_and_time(row.until),
            row.url.clone(),
            result(row),
        ]);
    }
    table.render()
}

/// Return the id of an upload, or the code and the text of its failure.
fn result(row: &AttachmentRow) -> String {
    match row.state {
        AttachmentState::Uploading => String::new(),
        AttachmentState::Ready => row.attachment_id.clone().unwrap_or_default(),
        AttachmentState::Unfetchable => {
            let numbers = [row.error_code, row.error_subcode].into_iter().flatten();
            let code: Vec<String> = numbers.map(|number| number.to_string()).collect();
            format!("{} {}", code.join("/"), row.error_message.as_deref().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::*;
    use crate::channel::MessageKind;

    #[rstest]
    fn list_fits_a_terminal(#[values(80, 160)] width: u16) {
        let at = datetime!(2026-11-23 14:15:20 UTC);
        let row = AttachmentRow {
            v8l_id: LineId(7),
            kind: MessageKind::Image,
            url: "https://cdn.example.com/campaigns/2026/november/offers/picture.png".into(),
            state: AttachmentState::Unfetchable,
            attachment_id: None,
            changed_at: at,
            until: at,
            error_code: Some(100),
            error_subcode: Some(2018008),
            error_message: Some("Meta cannot fetch the asset of this message".into()),
        };
        let text = table(&[row], Screen { width: Some(width), colours: false });
        assert!(text.lines().count() == 2 && widest(&text) <= width, "{text}");
        assert!(text.contains("unfetchable") && text.contains("https://cdn."), "{text}");
        assert!(text.contains("100/2018008"), "{text}");
    }
}
